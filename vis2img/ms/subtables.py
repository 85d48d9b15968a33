"""The sub-tables of a measurement set but FIELD: spectral windows, correlations, antennas, telescope."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vis2img.errors import MeasurementSetError
from vis2img.ms.tables import has_subtable, in_unit, measinfo, subtable, table
from vis2img.units import ARCSEC, format_angle

# Stokes codes of casacore (measures/Stokes.h) that an interferometer writes.
_CORRS = "I Q U V RR RL LR LL XX XY YX YY RX RY LX LY XR XL YR YL"
CORR_NAMES = dict(enumerate(_CORRS.split(" "), start=1))
_SHOWN = 8  # rows of a sub-table that are named
# Frames of frequencies (casacore measures/MFrequency.h), by the number that MEAS_FREQ_REF has.
FREQ_FRAMES = dict(enumerate(["REST", "LSRK", "LSRD", "BARY", "GEO", "TOPO", "GALACTO", "LGROUP", "CMB"]))


@dataclass(frozen=True, eq=False)
class SpectralWindow:
    """A row of SPECTRAL_WINDOW: frequencies [chan] in Hz as stored, the channel width in Hz, and their frame.

    The frame is TOPO, LSRK, ..., as casacore has it; empty where it is not known.
    """

    id: int
    name: str
    chan_freq: np.ndarray
    chan_width: float
    frame: str = ""


def spectral_windows(path: Path) -> tuple[SpectralWindow, ...]:
    """Return the rows of SPECTRAL_WINDOW."""
    with subtable(path, "SPECTRAL_WINDOW") as t:
        names = t.getcol("NAME") if "NAME" in t.colnames() else [""] * t.nrows()
        return tuple(
            SpectralWindow(i, names[i], freq, _chan_width(t, i, freq, path), _freq_frame(t, i))
            for i, freq in enumerate(_hertz(t, "CHAN_FREQ", row, path) for row in range(t.nrows()))
        )


def _hertz(t: table, column: str, row: int, path: Path) -> np.ndarray:
    """Return a cell in Hz; none, where it has no value, as rows of SPECTRAL_WINDOW may that no data refer to."""
    cell = np.asarray(t.getcell(column, row) if t.iscelldefined(column, row) else ())
    if cell.ndim != 1 or cell.dtype.kind not in "fiu":
        raise MeasurementSetError(
            f"{path}: SPECTRAL_WINDOW row {row}: {column} is {cell.dtype} of {cell.ndim} axes, not a list of numbers"
        )
    return in_unit(t, column, cell.astype(np.float64), "Hz", path)


def _chan_width(t: table, row: int, freq: np.ndarray, path: Path) -> float:
    """Return the mean width of the channels in Hz; how far apart they are, where CHAN_WIDTH tells none."""
    widths = np.abs(_hertz(t, "CHAN_WIDTH", row, path)).ravel()
    told = widths[np.isfinite(widths)]
    if told.any():
        return float(np.mean(told))
    apart = np.diff(np.sort(freq[np.isfinite(freq)]))
    return float(np.median(apart)) if len(apart) else 0.0


def _freq_frame(t: table, row: int) -> str:
    """Return the frame of the frequencies of a spectral window: of the row, else of the column; empty if not known."""
    told = measinfo(t, "CHAN_FREQ")
    column = str(told.get("VarRefCol", "MEAS_FREQ_REF"))
    frame: Any = told.get("Ref", "")
    if column in t.colnames():
        frame = t.getcell(column, row)
        if not isinstance(frame, str):
            codes, names = (np.atleast_1d(told.get(name, [])) for name in ("TabRefCodes", "TabRefTypes"))
            known = dict(zip(codes.tolist(), map(str, names), strict=False)) or FREQ_FRAMES
            frame = "" if np.ndim(frame) else known.get(frame, "")
    name = str(frame).strip().upper()
    return name if name in FREQ_FRAMES.values() else ""


def data_descriptions(path: Path, nspw: int, problems: list[str], used: set[int]) -> list[tuple[int, tuple[str, ...]]]:
    """Return (spectral window, correlation names) of each DATA_DESC_ID; window -1 of those that point nowhere.

    Raises
    ------
    MeasurementSetError
        If data refer to such a one (``used``), or there is no row.
    """
    with subtable(path, "POLARIZATION") as t:
        there = [t.iscelldefined("CORR_TYPE", i) for i in range(t.nrows())]
        types = [t.getcell("CORR_TYPE", i) if told else () for i, told in enumerate(there)]
        corrs = [tuple(CORR_NAMES.get(int(c), f"type{c}") for c in each) for each in types]
    if not corrs:
        problems.append("the POLARIZATION table has no row, so the correlations are unknown")
    with subtable(path, "DATA_DESCRIPTION") as t:
        ids = list(zip(t.getcol("SPECTRAL_WINDOW_ID"), t.getcol("POLARIZATION_ID"), strict=True)) if t.nrows() else []
    bad = [i for i, (spw, pol) in enumerate(ids) if not 0 <= spw < nspw or (corrs and not 0 <= pol < len(corrs))]
    if not ids:
        raise MeasurementSetError(
            f"{path}: the DATA_DESCRIPTION table has no row; if it was copied without its table.lock files, "
            "copy those too (casacore keeps the number of rows there)"
        )
    if wrong := used.intersection(bad):
        raise MeasurementSetError(
            f"{path}: DATA_DESCRIPTION row {min(wrong)} points to a spectral window or "
            "polarisation set-up that is not there"
        )
    return [(-1, ()) if i in bad else (int(spw), corrs[pol] if corrs else ()) for i, (spw, pol) in enumerate(ids)]


def antenna_positions(path: Path) -> np.ndarray:
    """Return where the antennas are, float64 [antenna, 3] in m (ITRF); none, where they are not told."""
    with subtable(path, "ANTENNA") as t:
        told = t.nrows() and "POSITION" in t.colnames()
        cells = [t.getcell("POSITION", i) for i in range(t.nrows()) if t.iscelldefined("POSITION", i)] if told else []
        positions = np.array([cell for cell in map(np.ravel, cells) if len(cell) == 3], float).reshape(-1, 3)
        return in_unit(t, "POSITION", positions, "m", path) if told else positions


def antennas(path: Path) -> tuple[tuple[str, ...], float]:
    """Return the names of the antennas and the median diameter of their dishes in m, 0 where it is not told."""
    with subtable(path, "ANTENNA") as t:
        told = t.nrows() and "DISH_DIAMETER" in t.colnames()
        diameter = in_unit(t, "DISH_DIAMETER", t.getcol("DISH_DIAMETER"), "m", path) if told else np.zeros(1)
        names = t.getcol("NAME") if t.nrows() else []
        if not all(isinstance(name, str) for name in names):
            raise MeasurementSetError(f"{path}: the column NAME of ANTENNA holds no text")
        return tuple(names), float(np.median(diameter))


def telescopes(path: Path) -> list[str]:
    """Return the name of the telescope of each row of OBSERVATION; "unknown", where there is none, or no such table."""
    if not has_subtable(path, "OBSERVATION"):
        return ["unknown"]
    with subtable(path, "OBSERVATION") as t:
        return [str(t.getcell("TELESCOPE_NAME", row)) for row in range(t.nrows())] or ["unknown"]


def telescope_of(main: table, path: Path, rows: np.ndarray) -> tuple[str, list[str]]:
    """Return the telescope that observed most of ``rows`` of the main table, and what is to be said if others did too.

    Usually all are of one telescope, and nothing is read of the main table.
    """
    names = telescopes(path)
    if len(set(names)) == 1 or not len(rows) or "OBSERVATION_ID" not in main.colnames():
        return names[0], []
    part = main if len(rows) == main.nrows() else main.selectrows(rows)
    numbers, counts = np.unique(part.getcol("OBSERVATION_ID"), return_counts=True)
    found: Counter[str] = Counter()
    for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
        if 0 <= number < len(names):
            found[names[number]] += count
    first, *others = [name for name, _ in found.most_common()] or [names[0]]
    if not others:
        return first, []
    return first, [
        f"{', '.join(others[:_SHOWN])} observed a part of the data, most are of {first}; headers name it alone"
    ]


def observing_modes(path: Path) -> tuple[str, ...]:
    """Return OBS_MODE of each row of STATE, in capitals; none, where there is no such table."""
    if not has_subtable(path, "STATE"):
        return ()
    with subtable(path, "STATE") as t:
        told = t.nrows() and "OBS_MODE" in t.colnames()
        return tuple(str(mode).upper() for mode in t.getcol("OBS_MODE")) if told else ()


def flagged_rows(path: Path, name: str, used: set[int]) -> list[str]:
    """Return a line for each row of a sub-table in ``used`` whose FLAG_ROW is set, though its data are read."""
    with subtable(path, name) as t:
        if not t.nrows() or "FLAG_ROW" not in t.colnames():
            return []
        flagged = [number for number in np.flatnonzero(t.getcol("FLAG_ROW")).tolist() if number in used]
    return [f"{name} row {number} has FLAG_ROW set; its data are used as FLAG says" for number in flagged[:_SHOWN]]


def _all_numbers(t: table, column: str) -> np.ndarray:
    """Return the numbers of all cells of a column that is there, flat; cell by cell only where their shapes differ."""
    if column not in t.colnames() or not t.nrows():
        return np.zeros(0)
    try:
        return np.ravel(t.getcol(column))
    except RuntimeError:
        cells = [t.getcell(column, i) for i in range(t.nrows()) if t.iscelldefined(column, i)]
        return np.concatenate([np.zeros(0), *map(np.ravel, cells)])


def feed_cautions(path: Path, rows: Mapping[str, np.ndarray]) -> list[str]:
    """Return what is to be said of feeds: beams away from the pointing, and several beams within a field."""
    cautions = []
    if has_subtable(path, "FEED"):
        with subtable(path, "FEED") as t:
            offsets = np.append(_all_numbers(t, "BEAM_OFFSET"), 0.0)
        largest = float(np.max(np.abs(offsets[np.isfinite(offsets)])))
        if largest > ARCSEC:
            cautions.append(
                f"FEED has a BEAM_OFFSET of {format_angle(largest, 3)}, which is not applied: the dishes saw, and with "
                "ASKAP the phase centre is, that far from where FIELD says"
            )
    if "FEED1" in rows and len(np.unique(rows["FEED1"])) > 1:
        triples = np.unique(np.stack([rows[name] for name in ("FIELD_ID", "ANTENNA1", "FEED1")]), axis=1)
        pairs, feeds = np.unique(triples[:2], axis=1, return_counts=True)  # some number antennas instead of feeds
        several = np.unique(pairs[0, feeds > 1]).tolist()
        if several:
            cautions.append(
                f"antennas have {feeds.max()} feeds (FEED1) in field {', '.join(map(str, several[:_SHOWN]))}, "
                "which may be beams in different directions; they are imaged together"
            )
    return cautions
