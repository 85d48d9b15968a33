"""Where patches are wanted: positions on the sky with names, from a table or as tiles have them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.coordinates import FK4, Angle, BaseCoordinateFrame, Galactic, SkyCoord

from vis2img.coordinates import to_icrs
from vis2img.errors import Vis2imgError
from vis2img.train.embed.position_tables import SourceTable, read_table

# Names of columns, in small letters, in the order in which they are looked for: ours, VizieR's, Gaia's, PyBDSF's and
# everybody's, and those of other frames.
_PAIRS: tuple[tuple[tuple[str, ...], tuple[str, ...], BaseCoordinateFrame | None], ...] = (
    (("ra_deg",), ("dec_deg",), None),
    (("_raj2000", "raj2000", "ra_j2000", "alpha_j2000"), ("_dej2000", "dej2000", "dec_j2000", "delta_j2000"), None),
    (("ra_icrs", "_ra_icrs", "_ra.icrs"), ("de_icrs", "_de_icrs", "_de.icrs"), None),
    (
        ("ra", "_ra", "radeg", "ra_hours", "right_ascension"),
        ("dec", "_de", "de", "decdeg", "dedeg", "declination"),
        None,
    ),
    (("_rab1950", "rab1950", "ra_b1950"), ("_deb1950", "deb1950", "dec_b1950"), FK4(equinox="B1950")),
    (("_glon", "glon"), ("_glat", "glat"), Galactic()),
)
_NAMES = ("name", "source_name", "component_name", "designation", "source_id")
_HOURS = ("h", "hr", "hour", "hours", "hourangle")
_DOTTED = re.compile(r"([+-]?\d+)\.(\d+)\.(\d+(\.\d*)?)")  # degrees, as WSClean writes declinations


@dataclass(frozen=True, eq=False)
class Positions:
    """Where patches are wanted: RA and Dec float64 [n, 2] in rad, and a name for each."""

    position: np.ndarray
    names: tuple[str, ...]


def read_positions(path: Path) -> Positions:
    """Read a table of positions: a catalogue of PyBDSF, of VizieR or of vis2img, or any with RA and Dec.

    Angles are degrees unless the table says otherwise (units, ``h``), or they are sexagesimal (RA in hours). Positions
    are ICRS or J2000, which count as the same, or by the names of the columns B1950 or galactic; those of an equinox
    of 1950 (PyBDSF tells it) are B1950 too.

    Raises
    ------
    Vis2imgError
        If it cannot be read, has no such columns, or a value is no position; the message names column and row.
    """
    table = read_table(path, lambda names: _pair(names) is not None)
    names = list(table.columns)
    pair = _pair(names)
    if pair is None:
        raise Vis2imgError(_no_pair(path, names))
    *columns, frame = pair
    if frame is None and table.equinox == 1950:
        frame = FK4(equinox="B1950")
    angles = []
    for column, limit in zip(columns, (360, 90), strict=True):
        values = _degrees(path, table, column, equatorial=limit == 360 and not isinstance(frame, Galactic))
        wrong = np.flatnonzero(~(np.abs(values) <= limit))
        if len(wrong):
            raise Vis2imgError(f"{path} row {wrong[0] + 1}: {column} must be from {-limit} to {limit} degrees")
        angles.append(np.radians(values))
    position = np.stack(angles if frame is None else to_icrs(angles[0], angles[1], frame), axis=-1)
    position[:, 0] %= 2 * np.pi
    lower = {name.lower(): name for name in reversed(names)}
    named = next((lower[name] for name in _NAMES if name in lower), None)
    return Positions(position, position_names(position) if named is None else tuple(map(_text, table.columns[named])))


def _pair(names: Sequence[str]) -> tuple[str, str, BaseCoordinateFrame | None] | None:
    """Return the columns of longitude and latitude among ``names``, and their frame; None: ICRS."""
    lower = {name.lower(): name for name in reversed(names)}
    for longitudes, latitudes, frame in _PAIRS:
        first, second = (
            next((lower[name] for name in each if name in lower), None) for each in (longitudes, latitudes)
        )
        if first is not None and second is not None:
            return first, second, frame
    return None


def _no_pair(path: Path, names: Sequence[str]) -> str:
    there = ", ".join(names[:30]) + (", ..." if len(names) > 30 else "")
    lower = {name.lower() for name in names}
    halves = [(a[0], b[0]) for a, b, _ in _PAIRS if lower & {*a, *b}]
    if halves:
        missing = next(name for name in halves[0] if name not in lower)
        return f"{path} lacks the column {missing}; it has {there}"
    known = ", ".join(f"{a[0]} and {b[0]}" for a, b, _ in _PAIRS)
    return f"{path} has no columns of positions ({known}); it has {there or 'none'}"


def _degrees(path: Path, table: SourceTable, column: str, equatorial: bool) -> np.ndarray:
    """Return a column in degrees; sexagesimal right ascensions are in hours."""
    values, unit = table.columns[column], table.units.get(column, "").strip().lower()
    if values.dtype.kind not in "fiu":
        texts = [_DOTTED.sub(r"\1:\2:\3", _text(cell)) for cell in values]
        try:
            values = np.array([float(text) if text else np.nan for text in texts])
        except ValueError:
            return _sexagesimal(path, column, texts, equatorial)
    hours = equatorial and (unit in _HOURS or column.lower().endswith("hours"))
    scale = 15.0 if hours else np.degrees(1) if unit.startswith("rad") else 1.0
    return np.asarray(values, dtype=np.float64) * scale


def _sexagesimal(path: Path, column: str, texts: Sequence[str], hours: bool) -> np.ndarray:
    try:
        return np.asarray(Angle(texts, unit=u.hourangle if hours else u.deg).deg)
    except (ValueError, TypeError, u.UnitsError) as error:
        raise Vis2imgError(f"{path}: {column} must be numbers in degrees, or sexagesimal (10:00:00)") from error


def _text(cell: object) -> str:
    return cell.decode(errors="replace").strip() if isinstance(cell, bytes) else str(cell).strip()


def position_names(position: np.ndarray) -> tuple[str, ...]:
    """Return names after positions [n, 2] (rad), as the IAU recommends: J123456.78-012345.6."""
    place = SkyCoord(position[:, 0], position[:, 1], unit="rad")
    ra = place.ra.to_string(unit="hour", sep="", precision=2, pad=True)
    dec = place.dec.to_string(unit="deg", sep="", precision=1, pad=True, alwayssign=True)
    return tuple(f"J{east}{north}" for east, north in zip(np.atleast_1d(ra), np.atleast_1d(dec), strict=True))
