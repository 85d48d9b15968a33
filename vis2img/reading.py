"""Stream the visibilities of one field and spectral window from a measurement set with Dask.

The light columns (times, antennas, uvw) decide which rows are wanted; then the data columns are read in
chunks of rows, as real data are tiled across all channels, and each chunk is reduced at once to Stokes I
and a weight: flags, autocorrelations, NaN and useless weights become weight 0. Memory is the result plus
a few chunks.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from vis2img.errors import MeasurementSetError, ParameterError
from vis2img.metadata import LONGEST_BASELINE, Metadata, Partition
from vis2img.params import Selection
from vis2img.visibilities import Visibilities

_CHUNK_BYTES = 48e6  # of the data column; a handful of chunks are in flight
_AUTO_WEIGHTS = ("WEIGHT_SPECTRUM", "WEIGHT")
_PARALLEL_HANDS = (("I",), ("XX", "YY"), ("RR", "LL"), ("XX",), ("YY",), ("RR",), ("LL",))
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Plan:
    """A :class:`Selection` made definite against a measurement set."""

    partition: Partition
    column: str
    corr_index: tuple[int, ...]
    weight_column: str
    field_name: str
    phase_centre: tuple[float, float]
    frame: str


def resolve(meta: Metadata, selection: Selection) -> Plan:
    """Choose field, spectral window, column and correlations, with clear errors for what is not there.

    Raises
    ------
    MeasurementSetError, ParameterError
        Name what is missing and what there is.
    """
    if meta.problems and not meta.partitions:
        raise MeasurementSetError(f"{meta.path}: {'; '.join(meta.problems)}")
    partition = _partition(meta, selection)
    column = _data_column(meta, selection)
    corr_index = _stokes_i(partition.corrs)
    if corr_index is None:
        raise MeasurementSetError(
            f"{meta.path}: spectral window {partition.spw} has the correlations "
            f"{', '.join(partition.corrs) or 'none'}; Stokes I needs XX and YY, or RR and LL"
            + (f" ({meta.problems[0]})" if not partition.corrs and meta.problems else "")
        )
    weight_column = selection.weight_column
    if weight_column not in ("auto", "none") and weight_column not in meta.columns:
        raise MeasurementSetError(f"{meta.path} has no column {weight_column}; use weight_column auto or none")
    info = meta.field(partition.field)
    return Plan(partition, column, corr_index, weight_column, info.name, info.phase_centre, info.frame)


def _stokes_i(corrs: tuple[str, ...]) -> tuple[int, ...] | None:
    """Return the positions of the correlations whose mean is Stokes I; one hand alone counts (unpolarised)."""
    for hands in _PARALLEL_HANDS:
        if all(hand in corrs for hand in hands):
            return tuple(corrs.index(hand) for hand in hands)
    return None


def _partition(meta: Metadata, selection: Selection) -> Partition:
    fields = {p.field for p in meta.partitions}
    wanted = _field_id(meta, selection.field, fields)
    options = [p for p in meta.partitions if wanted is None or p.field == wanted]
    if selection.spw is not None:
        with_spw = [p for p in options if p.spw == selection.spw]
        if not with_spw:
            spws = sorted({p.spw for p in options})
            raise ParameterError(
                f"{meta.path}: spectral window {selection.spw} has no data here; "
                f"choose from {', '.join(map(str, spws))}"
            )
        options = with_spw
    usable = [p for p in options if _stokes_i(p.corrs) is not None]
    return (usable or options)[0]


def _field_id(meta: Metadata, field: str | None, present: set[int]) -> int | None:
    if field is None:
        return None
    matches = [f.id for f in meta.fields if f.name == field]
    if not matches and field.isdecimal():
        matches = [int(field)]
    for candidate in matches:
        if candidate in present:
            return candidate
    known = ", ".join(f"{i} ({meta.fields[i].name})" for i in sorted(present)[:8])
    raise ParameterError(f"{meta.path}: no data for field {field!r}; fields with data: {known}")


def _data_column(meta: Metadata, selection: Selection) -> str:
    if selection.column is None and meta.data_columns:
        return meta.data_columns[0]
    if selection.column is not None and selection.column in meta.columns:
        return selection.column
    if not meta.data_columns:
        missing = f"{selection.column}, and no" if selection.column else ""
        raise MeasurementSetError(f"{meta.path} has no {missing} column with visibilities".replace("  ", " "))
    there = ", ".join(meta.data_columns)
    raise MeasurementSetError(f"{meta.path} has no {selection.column}; it has {there} (choose with --column)")


def read_visibilities(
    meta: Metadata, selection: Selection, *, nthreads: int = 2, progress: Progress | None = None
) -> Visibilities:
    """Read the Stokes I visibilities that ``selection`` names.

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

    Raises
    ------
    MeasurementSetError
        If a column cannot be read, or nothing usable is in the selection (all flagged, no weight, ...).
    ParameterError
        If the selection is outside the data.
    """
    plan = resolve(meta, selection)
    spw = meta.spws[plan.partition.spw]
    order = np.argsort(spw.chan_freq, kind="stable")
    order = order[_index_slice(selection.channels, len(order), "channels", f"spectral window {spw.id}")]
    dataset = _open_dataset(meta, plan)
    light = _compute(meta, dataset, ["TIME", "ANTENNA1", "ANTENNA2", "UVW"])
    rows = _wanted_rows(meta, selection, light)
    if plan.weight_column == "auto":
        found = next((name for name in _AUTO_WEIGHTS if name in dataset.data_vars), "none")
        plan = replace(plan, weight_column=found)
    if len(spw.chan_freq) != dataset.sizes.get("chan"):
        raise MeasurementSetError(
            f"{meta.path}: {plan.column} has {dataset.sizes.get('chan')} channels, "
            f"SPECTRAL_WINDOW {spw.id} lists {len(spw.chan_freq)}"
        )
    reader = _Reader(meta, plan, order, rows, progress)
    vis, weight = reader.run(dataset, nthreads)
    reader.check()
    freq = spw.chan_freq[order]
    if np.any(np.diff(freq) <= 0):
        raise MeasurementSetError(f"{meta.path}: SPECTRAL_WINDOW {spw.id} lists a channel frequency twice")
    return Visibilities(
        uvw=np.nan_to_num(light["UVW"][rows].astype(np.float64)),
        chan_freq=np.ascontiguousarray(freq),
        vis=vis,
        weight=weight,
        time=light["TIME"][rows].astype(np.float64),
        antenna1=light["ANTENNA1"][rows].astype(np.int32),
        antenna2=light["ANTENNA2"][rows].astype(np.int32),
        phase_centre=plan.phase_centre,
        meta={
            "ms": meta.path.name,
            "telescope": meta.telescope,
            "field": plan.field_name,
            "spw": spw.id,
            "column": plan.column,
            "frame": plan.frame,
            "stokes_i_from": "+".join(plan.partition.corrs[i] for i in plan.corr_index),
            "time_start": meta.time_range[0],
            "chan_width": spw.chan_width,
            "dish_diameter": meta.dish_diameter,
        },
    )


def _index_slice(bounds: tuple[int | None, int | None], n: int, what: str, where: str) -> slice:
    start, stop = bounds[0] or 0, n if bounds[1] is None else bounds[1]
    if start >= n or stop > n:
        raise ParameterError(f"{what} {start}:{stop} is outside {where}, which has {n} (0:{n})")
    return slice(start, stop)


def _open_dataset(meta: Metadata, plan: Plan) -> Any:
    from daskms import xds_from_ms

    needed = ["TIME", "ANTENNA1", "ANTENNA2", "UVW", "FLAG", plan.column]
    needed += [] if plan.weight_column in ("auto", "none") else [plan.weight_column]
    extra = ["FLAG_ROW", *(_AUTO_WEIGHTS if plan.weight_column == "auto" else ())]
    columns = needed + [name for name in extra if name in meta.columns]
    part = plan.partition
    samples = len(meta.spws[part.spw].chan_freq) * len(part.corrs)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            datasets = xds_from_ms(
                str(meta.path),
                columns=columns,
                group_cols=["FIELD_ID", "DATA_DESC_ID"],
                index_cols=[],
                taql_where=f"FIELD_ID=={part.field} AND DATA_DESC_ID=={part.ddid}",
                chunks={"row": max(1, int(_CHUNK_BYTES / (8 * samples)))},
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
    return datasets[0]


def _compute(meta: Metadata, dataset: Any, names: list[str]) -> dict[str, np.ndarray]:
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


@dataclass
class _Tally:
    samples: int = 0
    flagged: int = 0
    not_finite: int = 0
    no_weight: int = 0
    zero: int = 0
    good: int = 0


class _Reader:
    """Reduces the chunks of one partition into arrays made beforehand, and counts what was dropped."""

    def __init__(
        self, meta: Metadata, plan: Plan, chans: np.ndarray, rows: np.ndarray, progress: Progress | None
    ) -> None:
        self.meta, self.plan, self.chans, self.rows, self.progress = meta, plan, chans, rows, progress
        self.vis = np.zeros((len(rows), len(chans)), np.complex64)
        self.weight = np.zeros((len(rows), len(chans)), np.float32)
        self.tally: list[_Tally] = []

    def run(self, dataset: Any, nthreads: int) -> tuple[np.ndarray, np.ndarray]:
        import dask

        plan = self.plan
        names = [plan.column, "FLAG"]
        optional = [name for name in ("FLAG_ROW", plan.weight_column) if name in dataset.data_vars]
        blocks = {name: dataset[name].data.to_delayed().reshape(-1) for name in names + optional}
        bounds = np.concatenate([[0], np.cumsum(dataset[plan.column].data.chunks[0])])
        tasks = []
        for i, (start, stop) in enumerate(pairwise(bounds)):
            low, high = np.searchsorted(self.rows, [start, stop])
            if low == high:
                continue
            chunk = {name: column[i] for name, column in blocks.items()}
            tasks.append(dask.delayed(self._reduce)(chunk, self.rows[low:high] - start, slice(low, high)))
        try:
            dask.compute(*tasks, scheduler="threads", num_workers=nthreads, optimize_graph=True)
        except (RuntimeError, IndexError) as error:
            raise _read_error(self.meta, ", ".join(names + optional), error) from error
        return self.vis, self.weight

    def _reduce(self, chunk: dict[str, np.ndarray], rows: np.ndarray, out: slice) -> None:
        plan = self.plan
        data, flag = chunk[plan.column], chunk["FLAG"]
        weight = chunk.get(plan.weight_column)
        whole = len(rows) == len(data)
        pick = (lambda a: a) if whole else (lambda a: a[rows])
        parts = [
            _hand(pick(data), pick(flag), None if weight is None else pick(weight), i, self.chans)
            for i in plan.corr_index
        ]
        flagged = np.logical_or.reduce([part[1] for part in parts])
        if "FLAG_ROW" in chunk:
            flagged |= pick(chunk["FLAG_ROW"])[:, None]
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            value = sum(part[0] for part in parts) / len(parts)
            # The variance of the mean of n hands is the sum of theirs over n^2.
            combined = len(parts) ** 2 / sum(1 / part[2] for part in parts)
            # An infinite weight of one hand alone would still combine to a finite one.
            positive = [(part[2] > 0) & np.isfinite(part[2]) for part in parts]
            usable_weight = np.isfinite(combined) & np.logical_and.reduce(positive)
        finite = np.isfinite(value)
        good = ~flagged & finite & usable_weight
        self.vis[out] = np.where(good, value, 0)
        self.weight[out] = np.where(good, combined, 0)
        self.tally.append(
            _Tally(
                samples=good.size,
                flagged=int(flagged.sum()),
                not_finite=int((~flagged & ~finite).sum()),
                no_weight=int((~flagged & finite & ~usable_weight).sum()),
                zero=int((good & (value == 0)).sum()),
                good=int(good.sum()),
            )
        )
        if self.progress:
            self.progress(sum(t.samples for t in self.tally) // len(self.chans), len(self.rows))

    def check(self) -> None:
        """Raise when nothing that was read can be imaged, with the reason."""
        total = _Tally()
        for part in self.tally:
            for name in vars(total):
                setattr(total, name, getattr(total, name) + getattr(part, name))
        where = f"{self.meta.path}: field {self.plan.field_name!r}, spectral window {self.plan.partition.spw}"
        if total.good == 0:
            share = {
                "flagged": total.flagged,
                f"NaN or infinite in {self.plan.column}": total.not_finite,
                f"without a positive finite {self.plan.weight_column}": total.no_weight,
            }
            shown = ", ".join(f"{100 * n / max(1, total.samples):.0f}% {what}" for what, n in share.items() if n)
            advice = "; use --weight-column none to weigh all samples alike" if total.no_weight else ""
            raise MeasurementSetError(f"{where}: no usable visibility: {shown}{advice}")
        if total.zero == total.good:
            others = [c for c in self.meta.data_columns if c != self.plan.column]
            advice = f"; choose another with --column ({', '.join(others)})" if others else ""
            raise MeasurementSetError(f"{where}: the column {self.plan.column} holds zeros only{advice}")


def _hand(
    data: np.ndarray, flag: np.ndarray, weight: np.ndarray | None, corr: int, chans: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return visibility, flag and weight [row, chan] of one correlation in the wanted channel order."""
    contiguous = np.array_equal(chans, np.arange(chans[0], chans[0] + len(chans)))
    take = slice(int(chans[0]), int(chans[-1]) + 1) if contiguous else chans
    value, flagged = data[:, take, corr], flag[:, take, corr].astype(bool)
    if weight is None:
        return value, flagged, np.ones(value.shape, np.float32)
    own = weight[:, take, corr] if weight.ndim == 3 else weight[:, corr, None]
    return value, flagged, np.broadcast_to(own, value.shape)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _read_error(meta: Metadata, columns: str, error: Exception) -> MeasurementSetError:
    return MeasurementSetError(
        f"{meta.path}: reading {columns} failed, a table file may be damaged or truncated: {_first_line(error)}"
    )
