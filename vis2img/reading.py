"""Stream the visibilities of one field from a measurement set with Dask.

The light columns (times, antennas, uvw) decide which rows are wanted; then the data columns are read in
chunks of rows, as real data are tiled across all channels, and each chunk is reduced at once to Stokes
parameters and a weight: flags, autocorrelations, NaN and useless weights become weight 0. Memory is the
result plus a few chunks.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from vis2img.errors import MeasurementSetError, ParameterError
from vis2img.metadata import LONGEST_BASELINE, Metadata
from vis2img.params import Selection
from vis2img.plan import Plan, resolve
from vis2img.visibilities import Visibilities

_CHUNK_BYTES = 16e6  # of the data column; a handful of chunks are in flight
_AUTO_WEIGHTS = ("WEIGHT_SPECTRUM", "WEIGHT")
_LIGHT = ("TIME", "ANTENNA1", "ANTENNA2", "UVW")
Progress = Callable[[int, int], None]


def read_parts(
    meta: Metadata, selection: Selection, *, nthreads: int = 2, progress: Progress | None = None
) -> list[Visibilities]:
    """Read the visibilities that ``selection`` names, in one pass over the measurement set.

    Parameters
    ----------
    meta : Metadata
        From :func:`vis2img.metadata.read_metadata`.
    selection : Selection
        What to read.
    nthreads : int
        Threads that reduce chunks; casacore reads one at a time.
    progress : callable, optional
        Called with (rows done, rows in all) after each chunk.

    Returns
    -------
    list of Visibilities
        One for each spectral window and Stokes parameter, those of one spectral window together.

    Raises
    ------
    MeasurementSetError
        If a column cannot be read, or nothing usable is in the selection (all flagged, no weight, ...).
    ParameterError
        If the selection is outside the data.
    """
    readers = [PartReader(meta, selection, plan) for plan in _within_channels(meta, selection)]
    total, done = sum(reader.nrow for reader in readers), 0
    parts: list[Visibilities] = []
    reasons = []
    for reader in readers:
        parts += reader.read(nthreads=nthreads, progress=progress and _shifted(progress, done, total))
        done += reader.nrow
        reasons.append(reader.trouble())
    troubles = [reason for reason in reasons if reason]
    if len(troubles) == len(readers):  # some spectral windows may be flagged, not all
        raise MeasurementSetError(troubles[0])
    return parts


def _shifted(progress: Progress, start: int, total: int) -> Progress:
    return lambda done, _: progress(start + done, total)


def read_visibilities(
    meta: Metadata, selection: Selection, *, nthreads: int = 2, progress: Progress | None = None
) -> Visibilities:
    """Read one Stokes parameter of one spectral window; see :func:`read_parts` for several.

    Raises
    ------
    ParameterError
        If ``selection`` names several; else as :func:`read_parts`.
    """
    if len(selection.stokes) > 1 or len(_within_channels(meta, selection)) > 1:
        raise ParameterError(
            "one Stokes parameter of one spectral window is wanted here; "
            f"got stokes {selection.stokes} and spw {selection.spw}"
        )
    return read_parts(meta, selection, nthreads=nthreads, progress=progress)[0]


class PartReader:
    """The wanted rows of one field and spectral window, opened for reading at once or in pieces.

    Parameters
    ----------
    meta : Metadata
    selection : Selection
    plan : Plan, optional
        From :func:`vis2img.plan.resolve`; default: its first spectral window.

    Attributes
    ----------
    chan_freq : float64 [chan]
        Frequencies wanted, increasing, Hz.
    time : float64 [row]
        Times of the wanted rows, s (MJD), in the order of the measurement set.
    uvw : float64 [row, 3]
        Baselines in m.

    Raises
    ------
    MeasurementSetError, ParameterError
        If the selection is outside the data, or the light columns cannot be read.
    """

    def __init__(self, meta: Metadata, selection: Selection, plan: Plan | None = None) -> None:
        plan = plan or resolve(meta, selection)[0]
        spw = meta.spws[plan.partition.spw]
        self.meta = meta
        self._chans = _channels(meta, selection, plan)
        self.chan_freq = np.ascontiguousarray(spw.chan_freq[self._chans])
        if np.any(np.diff(self.chan_freq) <= 0):
            raise MeasurementSetError(f"{meta.path}: SPECTRAL_WINDOW {spw.id} lists a channel frequency twice")
        chunk = max(1, int(_CHUNK_BYTES / (8 * len(spw.chan_freq) * len(plan.partition.corrs))))
        self._dataset = _open_dataset(meta, plan, chunk)
        if len(spw.chan_freq) != self._dataset.sizes.get("chan"):
            raise MeasurementSetError(
                f"{meta.path}: {plan.column} has {self._dataset.sizes.get('chan')} channels, "
                f"SPECTRAL_WINDOW {spw.id} lists {len(spw.chan_freq)}"
            )
        light = _compute(meta, self._dataset, _LIGHT)
        self._rows = _wanted_rows(meta, selection, light)
        if plan.weight_column == "auto":
            found = next((name for name in _AUTO_WEIGHTS if name in self._dataset.data_vars), "none")
            plan = replace(plan, weight_column=found)
        self.plan = plan
        self.chunk_rows = chunk
        self.time = light["TIME"][self._rows].astype(np.float64)
        self.uvw = np.nan_to_num(light["UVW"][self._rows].astype(np.float64))
        self._antennas = [light[name][self._rows].astype(np.int32) for name in ("ANTENNA1", "ANTENNA2")]
        self._tally = np.zeros(6, np.int64)

    @property
    def nrow(self) -> int:
        """Number of wanted rows."""
        return len(self._rows)

    def split_at(self, rows: np.ndarray) -> None:
        """Let no chunk of the reads to come reach over the wanted rows numbered ``rows``.

        Parameters
        ----------
        rows : int64 [edge]
            Where pieces that are read one by one begin, so that none reads a chunk of another.
        """
        whole = sum(self._dataset[self.plan.column].chunks[0])
        inner = self._rows[rows[(rows > 0) & (rows < self.nrow)]]
        edges = np.unique(np.concatenate([np.arange(0, whole, self.chunk_rows), inner, [whole]]))
        self._dataset = _open_dataset(self.meta, self.plan, tuple(np.diff(edges).tolist()))

    def read(
        self, rows: np.ndarray | None = None, *, nthreads: int = 2, progress: Progress | None = None
    ) -> list[Visibilities]:
        """Return the visibilities of the wanted rows numbered ``rows`` (increasing; default: all).

        Returns
        -------
        list of Visibilities
            One for each Stokes parameter, in the order of the selection.
        """
        import dask

        plan = self.plan
        positions = self._rows if rows is None else self._rows[rows]
        shape = (len(positions), len(self.chan_freq))
        results = [(np.empty(shape, np.complex64), np.empty(shape, np.float32)) for _ in plan.hands]
        names = [plan.column, "FLAG"]
        names += [name for name in ("FLAG_ROW", plan.weight_column) if name in self._dataset.data_vars]
        blocks = {name: self._dataset[name].data.to_delayed().reshape(-1) for name in names}
        bounds = np.concatenate([[0], np.cumsum(self._dataset[plan.column].data.chunks[0])])
        done = [0]

        def reduce(chunk: dict[str, np.ndarray], local: np.ndarray, out: slice) -> np.ndarray:
            tally = _reduce(plan, chunk, local, self._chans, results, out)
            done[0] += len(local)
            if progress:
                progress(done[0], len(positions))
            return tally

        tasks = []
        for i, (start, stop) in enumerate(pairwise(bounds)):
            low, high = np.searchsorted(positions, [start, stop])
            if low < high:
                chunk = {name: column[i] for name, column in blocks.items()}
                tasks.append(dask.delayed(reduce)(chunk, positions[low:high] - start, slice(low, high)))
        try:
            tallies = dask.compute(*tasks, scheduler="threads", num_workers=nthreads)
        except (RuntimeError, IndexError) as error:
            raise _read_error(self.meta, ", ".join(names), error) from error
        self._tally += sum(tallies)
        pick = slice(None) if rows is None else rows
        antenna1, antenna2 = (antennas[pick] for antennas in self._antennas)
        return [
            Visibilities(
                uvw=self.uvw[pick],
                chan_freq=self.chan_freq,
                vis=vis,
                weight=weight,
                time=self.time[pick],
                antenna1=antenna1,
                antenna2=antenna2,
                phase_centre=plan.phase_centre,
                stokes=stokes,
                meta=self.source(stokes),
            )
            for (stokes, _), (vis, weight) in zip(plan.hands, results, strict=True)
        ]

    def source(self, stokes: str = "I") -> dict[str, str | float | int]:
        """Return what images tell of where they come from."""
        plan, meta = self.plan, self.meta
        return {
            "ms": meta.path.name,
            "telescope": meta.telescope,
            "field": plan.field_name,
            "spw": plan.partition.spw,
            "column": plan.column,
            "frame": plan.frame,
            "pointing_ra": plan.phase_centre[0],
            "pointing_dec": plan.phase_centre[1],
            "stokes_from": dict(plan.hands)[stokes].label,
            "time_start": float(self.time.min()),
            "chan_width": meta.spws[plan.partition.spw].chan_width,
            "dish_diameter": meta.dish_diameter,
        }

    def trouble(self) -> str | None:
        """Return why nothing that was read so far can be imaged, or None when something can."""
        samples, flagged, not_finite, no_weight, zero, good = self._tally.tolist()
        plan = self.plan
        where = f"{self.meta.path}: field {plan.field_name!r}, spectral window {plan.partition.spw}"
        if good == 0:
            share = {
                "flagged": flagged,
                f"NaN or infinite in {plan.column}": not_finite,
                f"without a positive finite {plan.weight_column}": no_weight,
            }
            shown = ", ".join(f"{100 * n / max(1, samples):.0f}% {what}" for what, n in share.items() if n)
            advice = "; use --weight-column none to weigh all samples alike" if no_weight else ""
            return f"{where}: no usable visibility: {shown}{advice}"
        if zero == good:
            others = [c for c in self.meta.data_columns if c != plan.column]
            advice = f"; choose another with --column ({', '.join(others)})" if others else ""
            return f"{where}: the column {plan.column} holds zeros only{advice}"
        return None


def _reduce(
    plan: Plan,
    chunk: dict[str, np.ndarray],
    rows: np.ndarray,
    chans: np.ndarray,
    results: list[tuple[np.ndarray, np.ndarray]],
    out: slice,
) -> np.ndarray:
    from vis2img.reduction import reduce_chunk

    data = np.ascontiguousarray(chunk[plan.column])
    nrow, _, ncorr = data.shape
    flag = np.ascontiguousarray(chunk["FLAG"], dtype=bool)
    flag_row = np.ascontiguousarray(chunk.get("FLAG_ROW", np.zeros(nrow)), dtype=bool)
    weight = np.ascontiguousarray(chunk.get(plan.weight_column, np.ones((1, 1, ncorr))), dtype=np.float32)
    if weight.ndim == 2:
        weight = weight[:, np.newaxis, :]
    if len(weight) < nrow:
        weight = np.ones((nrow, 1, ncorr), np.float32)
    tally = np.zeros(6, np.int64)
    for (_, h), (vis, out_weight) in zip(plan.hands, results, strict=True):
        tally += reduce_chunk(
            data, flag, flag_row, weight, rows, chans,
            h.first, h.second, float(h.sign), complex(h.factor), vis[out], out_weight[out],
        )  # fmt: skip
    return tally


def _within_channels(meta: Metadata, selection: Selection) -> list[Plan]:
    """Return the plans that the channel range, counted over all their spectral windows, leaves something of."""
    plans = resolve(meta, selection)
    return plans if len(plans) == 1 else [p for p in plans if len(_channels(meta, selection, p, plans))]


def _channels(meta: Metadata, selection: Selection, plan: Plan, plans: list[Plan] | None = None) -> np.ndarray:
    """Return the wanted channels of ``plan`` in the order of increasing frequency.

    Over several spectral windows channels are counted as WSClean counts them: all distinct frequencies,
    increasing.
    """
    freq = meta.spws[plan.partition.spw].chan_freq
    order = np.argsort(freq, kind="stable")
    plans = plans or resolve(meta, selection)
    if len(plans) == 1:
        where = f"spectral window {plan.partition.spw}"
        return order[_index_slice(selection.channels, len(order), "channels", where)]
    every = np.unique(np.concatenate([meta.spws[p.partition.spw].chan_freq for p in plans]))
    wanted = every[_index_slice(selection.channels, len(every), "channels", "the spectral windows")]
    return order[np.isin(freq[order], wanted)]


def _index_slice(bounds: tuple[int | None, int | None], n: int, what: str, where: str) -> slice:
    start, stop = bounds[0] or 0, n if bounds[1] is None else bounds[1]
    if start >= n or stop > n:
        raise ParameterError(f"{what} {start}:{stop} is outside {where}, which has {n} (0:{n})")
    return slice(start, stop)


def _open_dataset(meta: Metadata, plan: Plan, chunks: int | tuple[int, ...]) -> Any:
    from daskms import xds_from_ms

    needed = [*_LIGHT, "FLAG", plan.column]
    needed += [] if plan.weight_column in ("auto", "none") else [plan.weight_column]
    extra = ["FLAG_ROW", *(_AUTO_WEIGHTS if plan.weight_column == "auto" else ())]
    columns = needed + [name for name in extra if name in meta.columns]
    part = plan.partition
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            datasets = xds_from_ms(
                str(meta.path),
                columns=columns,
                group_cols=["FIELD_ID", "DATA_DESC_ID"],
                index_cols=[],
                taql_where=f"FIELD_ID=={part.field} AND DATA_DESC_ID=={part.ddid}",
                chunks={"row": chunks},
            )
    except Exception as error:
        raise MeasurementSetError(f"{meta.path} cannot be read: {_first_line(error)}") from error
    if not datasets:
        raise MeasurementSetError(f"{meta.path} has no row for field {part.field}, spectral window {part.spw}")
    # A column may exist without values in these rows (WEIGHT_SPECTRUM often does): only those asked for must.
    missing = [name for name in needed if name not in datasets[0].data_vars]
    if missing:
        raise MeasurementSetError(
            f"{meta.path}: the column {', '.join(missing)} has no values for field {part.field}, "
            f"spectral window {part.spw}; choose another with --column"
        )
    column = datasets[0][plan.column]
    if column.ndim != 3 or column.dtype.kind not in "cf":
        raise MeasurementSetError(
            f"{meta.path}: the column {plan.column} holds no visibilities [row, chan, corr]; "
            "choose another with --column"
        )
    return datasets[0]


def _compute(meta: Metadata, dataset: Any, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    import dask

    try:
        values = dask.compute(*[dataset[name].data for name in names], scheduler="threads")
    except RuntimeError as error:
        raise _read_error(meta, ", ".join(names), error) from error
    return dict(zip(names, values, strict=True))


def _wanted_rows(meta: Metadata, selection: Selection, light: dict[str, np.ndarray]) -> np.ndarray:
    """Return the indices of cross-correlation rows within the selected times and antennas."""
    keep = light["ANTENNA1"] != light["ANTENNA2"]
    if not keep.any():
        raise MeasurementSetError(f"{meta.path} holds autocorrelations only: nothing to image")
    if selection.antennas is not None:
        allowed = np.zeros(max(len(meta.antennas), int(light["ANTENNA2"].max()) + 1), dtype=bool)
        for name in selection.antennas:
            index = meta.antennas.index(name) if name in meta.antennas else int(name) if name.isdecimal() else -1
            if not 0 <= index < len(allowed):
                raise ParameterError(
                    f"{meta.path} has no antenna {name!r}; it has {', '.join(meta.antennas[:8])}"
                    + (", ..." if len(meta.antennas) > 8 else "")
                )
            allowed[index] = True
        keep &= allowed[light["ANTENNA1"]] & allowed[light["ANTENNA2"]]
        if not keep.any():
            raise ParameterError(f"{meta.path} has no baseline between the antennas {', '.join(selection.antennas)}")
    if selection.times != (None, None):
        times, step = np.unique(light["TIME"], return_inverse=True)
        span = _index_slice(selection.times, len(times), "times", "the observation")
        keep &= (step >= span.start) & (step < span.stop)
    keep &= (np.abs(light["UVW"]) < LONGEST_BASELINE).all(axis=1)  # not true for NaN
    if not keep.any():
        raise MeasurementSetError(f"{meta.path}: no cross-correlation with a finite UVW is selected")
    if not np.any(light["UVW"][keep]):
        raise MeasurementSetError(
            f"{meta.path}: UVW are all zero, so nothing can be imaged; recompute the UVW column (e.g. CASA fixvis)"
        )
    return np.flatnonzero(keep)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _read_error(meta: Metadata, columns: str, error: Exception) -> MeasurementSetError:
    return MeasurementSetError(
        f"{meta.path}: reading {columns} failed, a table file may be damaged or truncated: {_first_line(error)}"
    )
