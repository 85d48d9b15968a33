"""Stream the visibilities of one field from a measurement set, chunk by chunk.

The light columns (times, antennas, uvw) decide which rows are wanted; then the data columns are read in
chunks of rows, as real data are tiled across all channels, and each chunk is reduced at once to Stokes
parameters and a weight: flags, autocorrelations, NaN and useless weights become weight 0. Memory is the
result plus a few chunks.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from itertools import pairwise

import numpy as np

from vis2img.errors import MeasurementSetError, ParameterError
from vis2img.ms.columns import Columns
from vis2img.ms.metadata import LONGEST_BASELINE, Metadata
from vis2img.ms.selection import Plan, Selection, resolve
from vis2img.visibilities import Origin, Visibilities

_CHUNK_BYTES = 4e6  # of the data column; a handful of chunks are in flight
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
        From :func:`vis2img.ms.metadata.read_metadata`.
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
    readers = open_parts(meta, selection)
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


def open_parts(meta: Metadata, selection: Selection) -> list[PartReader]:
    """Open the spectral windows that ``selection`` names, for reading at once or in pieces."""
    return [PartReader(meta, selection, plan) for plan in _within_channels(meta, selection)]


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
        From :func:`vis2img.ms.selection.resolve`; default: its first spectral window.

    Attributes
    ----------
    chan_freq : float64 [chan]
        Frequencies wanted, increasing, Hz.
    time : float64 [row]
        Times of the wanted rows, s (MJD), in the order of the measurement set.
    uvw : float64 [row, 3]
        Baselines in m.
    antenna1, antenna2 : int32 [row]
        Antenna numbers.

    Raises
    ------
    MeasurementSetError, ParameterError
        If the selection is outside the data, or the light columns cannot be read.
    """

    def __init__(self, meta: Metadata, selection: Selection, plan: Plan | None = None) -> None:
        plan = plan or resolve(meta, selection)[0]
        spw = meta.spws[plan.partition.spw]
        self.meta, self.selection = meta, selection
        self._chans = _channels(meta, selection, plan)
        self.chan_freq = np.ascontiguousarray(spw.chan_freq[self._chans])
        if np.any(np.diff(self.chan_freq) <= 0):
            raise MeasurementSetError(f"{meta.path}: SPECTRAL_WINDOW {spw.id} lists a channel frequency twice")
        self._columns = Columns(meta, plan)
        nchan = self._columns.shape(plan.column)[0]
        if len(spw.chan_freq) != nchan:
            raise MeasurementSetError(
                f"{meta.path}: {plan.column} has {nchan} channels, SPECTRAL_WINDOW {spw.id} lists {len(spw.chan_freq)}"
            )
        light = {name: self._columns.whole(name) for name in _LIGHT}
        self._rows = _wanted_rows(meta, selection, light)
        if plan.weight_column == "auto":
            found = next((name for name in _AUTO_WEIGHTS if self._columns.has(name)), "none")
            plan = replace(plan, weight_column=found)
        self.plan = plan
        for name in self._heavy:
            self._columns.check(name)
        self.chunk_rows = max(1, int(_CHUNK_BYTES / (8 * len(spw.chan_freq) * len(plan.partition.corrs))))
        # No copies of columns that are wanted whole: there may be many millions of rows.
        pick = slice(None) if len(self._rows) == len(light["TIME"]) else self._rows
        self.time = light["TIME"][pick].astype(np.float64, copy=False)
        self.uvw = light["UVW"][pick].astype(np.float64, copy=False)
        self.antenna1 = light["ANTENNA1"][pick].astype(np.int32, copy=False)
        self.antenna2 = light["ANTENNA2"][pick].astype(np.int32, copy=False)
        self.forget()

    def forget(self) -> None:
        """Start to count anew what :meth:`trouble` tells of."""
        self._tally = np.zeros(6, np.int64)

    @property
    def nrow(self) -> int:
        """Number of wanted rows."""
        return len(self._rows)

    @property
    def _heavy(self) -> list[str]:
        """The columns that hold a value for each channel or correlation, and the flags of rows."""
        optional = ("FLAG_ROW", self.plan.weight_column)
        return [self.plan.column, "FLAG", *(name for name in optional if self._columns.has(name))]

    def read(
        self,
        rows: np.ndarray | None = None,
        *,
        chans: slice = slice(None),
        nthreads: int = 2,
        progress: Progress | None = None,
    ) -> list[Visibilities]:
        """Return the visibilities of the wanted rows numbered ``rows`` (increasing; default: all), of ``chans``.

        Returns
        -------
        list of Visibilities
            One for each Stokes parameter, in the order of the selection.
        """
        plan = self.plan
        positions = self._rows if rows is None else self._rows[rows]
        wanted, chan_freq = self._chans[chans], self.chan_freq[chans]
        shape = (len(positions), len(wanted))
        results = [(np.empty(shape, np.complex64), np.empty(shape, np.float32)) for _ in plan.hands]
        names = self._heavy
        done, lock = [0], threading.Lock()

        def reduce(rows: np.ndarray, out: slice) -> np.ndarray:
            first, stop = int(rows[0]), int(rows[-1]) + 1
            chunk = self._columns.chunk(names, first, stop - first, self.chunk_rows)
            tally = _reduce(plan, chunk, rows - first, wanted, results, out)
            with lock:
                done[0] += len(rows)
                if progress:
                    progress(done[0], len(positions))
            return tally

        spans = _chunks(positions, self.chunk_rows)
        # The first chunk alone: it loads the compiled loop, which threads would wait for under each other's feet.
        tallies = [reduce(positions[span], span) for span in spans[:1]]
        with ThreadPoolExecutor(max(1, nthreads)) as pool:
            tallies += pool.map(lambda span: reduce(positions[span], span), spans[1:])
        self._tally += sum(tallies)
        pick = slice(None) if rows is None else rows
        return [
            Visibilities(
                uvw=self.uvw[pick],
                chan_freq=chan_freq,
                vis=vis,
                weight=weight,
                time=self.time[pick],
                antenna1=self.antenna1[pick],
                antenna2=self.antenna2[pick],
                phase_centre=plan.phase_centre,
                stokes=stokes,
                origin=self.origin(stokes),
            )
            for (stokes, _), (vis, weight) in zip(plan.hands, results, strict=True)
        ]

    def origin(self, stokes: str = "I") -> Origin:
        """Return where the visibilities come from."""
        plan, meta = self.plan, self.meta
        return Origin(
            paths=(str(meta.path.resolve()),),
            selection=json.dumps(asdict(self.selection)),
            telescope=meta.telescope,
            field=plan.field_name,
            spw=(plan.partition.spw,),
            column=plan.column,
            stokes_from=dict(plan.hands)[stokes].label,
            frame=plan.frame,
            pointing=plan.pointing,
            band=meta.band(plan.partition.spw),
            chan_width=meta.spws[plan.partition.spw].chan_width,
            dish_diameter=meta.dish_diameter,
        )

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
    from vis2img.ms.stokes_kernel import reduce_chunk

    data = np.ascontiguousarray(chunk[plan.column])
    nrow, _, ncorr = data.shape
    flag = np.ascontiguousarray(chunk["FLAG"], dtype=bool)
    flag_row = np.ascontiguousarray(chunk.get("FLAG_ROW", np.zeros(nrow)), dtype=bool)
    weight = np.ascontiguousarray(chunk.get(plan.weight_column, np.ones((1, 1, ncorr))), dtype=np.float32)
    if weight.ndim == 2:
        weight = weight[:, np.newaxis, :]
    if len(weight) < nrow:  # none
        weight = np.ones((nrow, 1, ncorr), np.float32)
    tally = np.zeros(6, np.int64)
    for (_, h), (vis, out_weight) in zip(plan.hands, results, strict=True):
        tally += reduce_chunk(
            data, flag, flag_row, weight, rows, chans,
            h.first, h.second, float(h.sign), complex(h.factor), vis[out], out_weight[out],
        )  # fmt: skip
    return tally


def selected_bands(meta: Metadata, selection: Selection) -> list[tuple[np.ndarray, float]]:
    """Return the frequencies that would be read (increasing, Hz) and their channel width, of each spectral window."""
    plans = resolve(meta, selection)
    picked = [(meta.spws[plan.partition.spw], _channels(meta, selection, plan, plans)) for plan in plans]
    return [(spw.chan_freq[chans], spw.chan_width) for spw, chans in picked if len(chans)]


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


def _chunks(positions: np.ndarray, length: int) -> list[slice]:
    """Split increasing row numbers into runs that span at most ``length`` rows."""
    edges = [0]
    while edges[-1] < len(positions):
        edges.append(int(np.searchsorted(positions, positions[edges[-1]] + length)))
    return [slice(start, stop) for start, stop in pairwise(edges)]


def _wanted_rows(meta: Metadata, selection: Selection, light: dict[str, np.ndarray]) -> np.ndarray:
    """Return the indices of cross-correlation rows within the selected times and antennas."""
    keep = light["ANTENNA1"] != light["ANTENNA2"]
    if not keep.any():
        raise MeasurementSetError(f"{meta.path} holds autocorrelations only: nothing to image")
    if selection.antennas is not None:
        highest = max(int(light[name].max()) for name in ("ANTENNA1", "ANTENNA2"))
        allowed = np.zeros(max(len(meta.antennas), highest + 1), dtype=bool)
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
