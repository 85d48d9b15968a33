"""The sub-tables of a measurement set: fields, spectral windows, correlations, antennas, telescope."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vis2img.coordinates import separation
from vis2img.errors import MeasurementSetError
from vis2img.ms.tables import subtable, table

# Stokes codes of casacore (measures/Stokes.h) that an interferometer writes.
_CORRS = "I Q U V RR RL LR LL XX XY YX YY RX RY LX LY XR XL YR YL"
CORR_NAMES = dict(enumerate(_CORRS.split(" "), start=1))
_SAME_POINTING = math.radians(5)  # a DELAY_DIR further from the phase centre is no pointing
_EQUATORIAL = {"J2000", "FK5", "ICRS"}  # within 0.03 arcsec of each other


@dataclass(frozen=True)
class FieldInfo:
    """A row of FIELD: id, name, phase centre and pointing of the dishes (RA, Dec in rad), and the reference frame."""

    id: int
    name: str
    phase_centre: tuple[float, float]
    frame: str
    pointing: tuple[float, float]


@dataclass(frozen=True, eq=False)
class SpectralWindow:
    """A row of SPECTRAL_WINDOW: frequencies [chan] in Hz as stored, and the channel width in Hz."""

    id: int
    name: str
    chan_freq: np.ndarray
    chan_width: float


def spectral_windows(path: Path) -> tuple[SpectralWindow, ...]:
    """Return the rows of SPECTRAL_WINDOW."""
    with subtable(path, "SPECTRAL_WINDOW") as t:
        names = t.getcol("NAME") if "NAME" in t.colnames() else [""] * t.nrows()
        return tuple(
            SpectralWindow(
                i,
                names[i],
                np.asarray(t.getcell("CHAN_FREQ", i), dtype=np.float64),
                float(np.mean(np.abs(t.getcell("CHAN_WIDTH", i)))),
            )
            for i in range(t.nrows())
        )


def data_descriptions(path: Path, nspw: int, problems: list[str]) -> list[tuple[int, tuple[str, ...]]]:
    """Return (spectral window, correlation names) of each DATA_DESC_ID."""
    with subtable(path, "POLARIZATION") as t:
        corrs = [tuple(CORR_NAMES.get(int(c), f"type{c}") for c in t.getcell("CORR_TYPE", i)) for i in range(t.nrows())]
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
    if bad:
        raise MeasurementSetError(
            f"{path}: DATA_DESCRIPTION row {bad[0]} points to a spectral window or "
            "polarisation set-up that is not there"
        )
    return [(int(spw), corrs[pol] if corrs else ()) for spw, pol in ids]


def fields(path: Path) -> tuple[FieldInfo, ...]:
    """Return the rows of FIELD."""
    with subtable(path, "FIELD") as t:
        if not t.nrows():
            raise MeasurementSetError(f"{path}: the FIELD table has no row, so the phase centre is unknown")
        frame = t.getcolkeywords("PHASE_DIR").get("MEASINFO", {}).get("Ref", "J2000")
        result = []
        for i, name in enumerate(t.getcol("NAME")):
            centre = _direction(t, "PHASE_DIR", i)
            result.append(FieldInfo(i, name, centre, frame, _pointing(t, i, centre, frame)))
        return tuple(result)


def _direction(t: table, column: str, row: int) -> tuple[float, float]:
    ra, dec = np.asarray(t.getcell(column, row), dtype=float).reshape(-1, 2)[0]
    return float(ra % (2 * math.pi)), float(dec)


def _pointing(t: table, row: int, centre: tuple[float, float], frame: str) -> tuple[float, float]:
    """Return where the dishes pointed: DELAY_DIR, which moving the phase centre leaves alone (CASA, DP3, chgcentre).

    The phase centre, where there is none, or none that can be one: not finite, in another frame, or far away.
    """
    if "DELAY_DIR" not in t.colnames() or not t.iscelldefined("DELAY_DIR", row):
        return centre
    frames = {frame, t.getcolkeywords("DELAY_DIR").get("MEASINFO", {}).get("Ref", frame)}
    if len(frames) > 1 and not frames <= _EQUATORIAL:
        return centre
    pointing = _direction(t, "DELAY_DIR", row)
    return pointing if separation(pointing, centre) <= _SAME_POINTING else centre  # not true for NaN


def antennas(path: Path) -> tuple[tuple[str, ...], float]:
    """Return the names of the antennas and the median diameter of their dishes in m, 0 where it is not told."""
    with subtable(path, "ANTENNA") as t:
        diameter = t.getcol("DISH_DIAMETER") if t.nrows() and "DISH_DIAMETER" in t.colnames() else np.zeros(1)
        return tuple(t.getcol("NAME")) if t.nrows() else (), float(np.median(diameter))


def telescope(path: Path) -> str:
    """Return the name of the telescope."""
    with subtable(path, "OBSERVATION") as t:
        return str(t.getcell("TELESCOPE_NAME", 0)) if t.nrows() else "unknown"
