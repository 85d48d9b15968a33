"""Synthetic measurement sets, written by casacore alone.

Visibilities come from an explicit sum over point sources, independent of the package:
V = sum_k S_k exp(+2 pi i nu / c (u l + v m + w (n - 1))), the sign that WSClean and CASA read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers.oracles import dft

CORR_CODES = {"I": 1, "RR": 5, "RL": 6, "LR": 7, "LL": 8, "XX": 9, "XY": 10, "YX": 11, "YY": 12}
START_MJD_S = 58849.25 * 86400  # 2020-01-01T06:00:00 UTC
CENTRE = (np.radians(150.0), np.radians(-30.0))


def tracks(antennas: int, times: int, seed: int, size_m: float, dec: float) -> tuple[np.ndarray, ...]:
    """Return antenna1, antenna2, time index and UVW of all baselines while the field crosses the sky."""
    place = np.random.default_rng(seed).normal(scale=size_m / 3, size=(antennas, 3))
    first, second = np.triu_indices(antennas, k=1)
    hour = np.linspace(-0.6, 0.6, times)
    east = np.stack([np.sin(hour), np.cos(hour), 0 * hour], axis=-1)
    north = np.stack([-np.sin(dec) * np.cos(hour), np.sin(dec) * np.sin(hour), np.cos(dec) + 0 * hour], axis=-1)
    toward = np.stack([np.cos(dec) * np.cos(hour), -np.cos(dec) * np.sin(hour), np.sin(dec) + 0 * hour], axis=-1)
    axes = np.stack([east, north, toward], axis=1)  # (time, uvw, xyz)
    uvw = np.einsum("tij,bj->tbi", axes, place[second] - place[first]).reshape(-1, 3)
    return np.tile(first, times), np.tile(second, times), np.repeat(np.arange(times), len(first)), uvw


@dataclass(frozen=True)
class Synthetic:
    """A synthetic measurement set and the truth it was made of."""

    path: Path
    uvw: np.ndarray
    freq: np.ndarray
    sources: tuple[tuple[float, float, float], ...]

    def edit(self, column: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
        """Replace ``column`` by ``change(column)``."""
        from casacore.tables import table

        with table(str(self.path), readonly=False, ack=False) as t:
            t.putcol(column, change(t.getcol(column)))

    def drop(self, column: str) -> None:
        """Remove ``column``."""
        from casacore.tables import table

        with table(str(self.path), readonly=False, ack=False) as t:
            t.removecols([column])


def build_ms(
    path: Path,
    *,
    antennas: int = 7,
    times: int = 6,
    channels: int = 4,
    corrs: Sequence[str] = ("XX", "YY"),
    columns: Sequence[str] = ("DATA",),
    sources: Sequence[tuple[float, float, float]] = ((1.0, 0.0, 0.0),),
    phase_centre: tuple[float, float] = CENTRE,
    frame: str = "J2000",
    weights: float = 1.0,
    weight_spectrum: bool = False,
    descending: bool = False,
    seed: int = 1,
    size_m: float = 2000.0,
    field: str = "SKY",
    telescope: str = "MeerKAT",
) -> Synthetic:
    """Write a small measurement set with tiled data columns that hold ``sources`` (Jy, l, m)."""
    from casacore.tables import default_ms, makearrcoldesc, maketabdesc, table

    path.parent.mkdir(parents=True, exist_ok=True)
    freq = 1.0e9 + 5e6 * np.arange(channels)
    stored = freq[::-1].copy() if descending else freq
    first, second, step, uvw = tracks(antennas, times, seed, size_m, phase_centre[1])
    vis = np.repeat(dft(uvw, stored, sources)[:, :, None], len(corrs), axis=2)
    for i, corr in enumerate(corrs):
        if corr not in ("I", "XX", "YY", "RR", "LL"):
            vis[:, :, i] = 0
    shape, nrow = [channels, len(corrs)], len(uvw)
    main = default_ms(str(path))
    kinds: dict[str, Any] = dict.fromkeys(columns, 0j)
    kinds |= {"WEIGHT_SPECTRUM": 0.0} if weight_spectrum else {}
    for name, zero in kinds.items():
        description = makearrcoldesc(
            name,
            zero,
            ndim=2,
            shape=shape,
            valuetype="complex" if zero == 0j and name != "WEIGHT_SPECTRUM" else "float",
        )
        manager = {
            "TYPE": "TiledColumnStMan",
            "NAME": f"Tiled{name}",
            "SPEC": {"DEFAULTTILESHAPE": [*shape[::-1], 32]},
        }
        main.addcols(maketabdesc(description), manager)
    main.addrows(nrow)
    for name in columns:
        main.putcol(name, vis.astype(np.complex64))
    if weight_spectrum:
        main.putcol("WEIGHT_SPECTRUM", np.full(vis.shape, weights, np.float32))
    time = START_MJD_S + 8.0 * step
    values = {
        "UVW": uvw,
        "TIME": time,
        "TIME_CENTROID": time,
        "INTERVAL": np.full(nrow, 8.0),
        "EXPOSURE": np.full(nrow, 8.0),
        "ANTENNA1": first.astype(np.int32),
        "ANTENNA2": second.astype(np.int32),
        "FLAG": np.zeros(vis.shape, bool),
        "WEIGHT": np.full((nrow, len(corrs)), weights, np.float32),
        "SIGMA": np.ones((nrow, len(corrs)), np.float32),
    }
    for name, column in values.items():
        main.putcol(name, column)
    for name in ("FIELD_ID", "DATA_DESC_ID", "SCAN_NUMBER", "ARRAY_ID"):
        main.putcol(name, np.zeros(nrow, np.int32))
    main.close()

    def fill(name: str, rows: int, **cells: Any) -> None:
        with table(f"{path}/{name}", readonly=False, ack=False) as t:
            t.addrows(rows)
            for column, value in cells.items():
                for row in range(rows):
                    t.putcell(column, row, value[row] if isinstance(value, list) else value)
            if name == "FIELD":
                keyword = t.getcolkeyword("PHASE_DIR", "MEASINFO")
                t.putcolkeyword("PHASE_DIR", "MEASINFO", {**keyword, "Ref": frame})
            t.putkeyword("WRITTEN_BY", "tests")  # so that table.dat, not only table.lock, tells the number of rows

    width = np.full(channels, 5e6)
    fill(
        "SPECTRAL_WINDOW",
        1,
        NUM_CHAN=channels,
        NAME="band",
        CHAN_FREQ=stored,
        CHAN_WIDTH=width,
        EFFECTIVE_BW=width,
        RESOLUTION=width,
        REF_FREQUENCY=float(stored[0]),
        TOTAL_BANDWIDTH=float(width.sum()),
    )
    fill(
        "POLARIZATION",
        1,
        NUM_CORR=len(corrs),
        CORR_TYPE=np.array([CORR_CODES[c] for c in corrs], np.int32),
        CORR_PRODUCT=np.zeros((len(corrs), 2), np.int32),
    )
    fill("DATA_DESCRIPTION", 1, SPECTRAL_WINDOW_ID=0, POLARIZATION_ID=0)
    direction = np.array([phase_centre])
    fill("FIELD", 1, NAME=field, PHASE_DIR=direction, DELAY_DIR=direction, REFERENCE_DIR=direction)
    fill(
        "ANTENNA",
        antennas,
        NAME=[f"m{i:03d}" for i in range(antennas)],
        STATION=[f"m{i:03d}" for i in range(antennas)],
        DISH_DIAMETER=13.5,
        POSITION=np.array([5109360.0, 2006852.0, -3238948.0]),
    )
    fill("OBSERVATION", 1, TELESCOPE_NAME=telescope, TIME_RANGE=np.array([time[0], time[-1]]))
    return Synthetic(path, uvw, freq, tuple(sources))


def put(path: Path, name: str, **columns: object) -> None:
    """Write whole columns of a table of the set."""
    from casacore.tables import table

    with table(f"{path}/{name}" if name else str(path), readonly=False, ack=False) as t:
        for column, values in columns.items():
            t.putcol(column, values)


def add_rows(path: Path, name: str, **cells: list) -> None:
    """Append rows to a sub-table, copies of its first with some cells changed."""
    from casacore.tables import table

    with table(f"{path}/{name}", readonly=False, ack=False) as t:
        count = len(next(iter(cells.values())))
        for i in range(count):
            t.addrows(1)
            for column in t.colnames():
                if t.iscelldefined(column, 0):
                    t.putcell(column, t.nrows() - 1, cells[column][i] if column in cells else t.getcell(column, 0))


def second_window(path: Path, freq: np.ndarray, rows: np.ndarray, width: float = 5e6) -> None:
    """Give ``rows`` to a spectral window of its own, of as many channels."""
    n = len(freq)
    add_rows(
        path,
        "SPECTRAL_WINDOW",
        CHAN_FREQ=[freq],
        CHAN_WIDTH=[np.full(n, width)],
        EFFECTIVE_BW=[np.full(n, width)],
        RESOLUTION=[np.full(n, width)],
    )
    add_rows(path, "DATA_DESCRIPTION", SPECTRAL_WINDOW_ID=[1])
    put(path, "", DATA_DESC_ID=rows.astype(np.int32))
