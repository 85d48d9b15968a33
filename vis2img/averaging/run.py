"""Stream a measurement set into a store of averaged visibilities.

    rows of one time block -> pieces that fit into memory -> CellTable -> one zarr group, renamed into place

:mod:`vis2img.averaging.folder` keeps the store apart until all its blocks are there, so a killed run goes on with those
that are missing; :mod:`vis2img.averaging.store` has the layout.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import zarr  # noqa: F401  (loaded before times are taken)

from vis2img import __version__
from vis2img.averaging.cells import CellTable, TableFull, check_range
from vis2img.averaging.folder import prepare
from vis2img.averaging.params import AveragingParams
from vis2img.averaging.store import (
    FORMAT,
    FORMAT_VERSION,
    attributes_of,
    blocks_of,
    check_whole,
    record_of,
    write_block,
)
from vis2img.errors import MeasurementSetError, ParameterError
from vis2img.files import discard, publish
from vis2img.imaging.weighting_kernels import spread
from vis2img.locks import locked
from vis2img.machine import resident
from vis2img.ms.metadata import Metadata
from vis2img.ms.reading import PartReader, open_parts
from vis2img.ms.selection import Selection
from vis2img.progress import Progress, no_progress
from vis2img.visibilities import SPEED_OF_LIGHT, Visibilities

_DEFAULT_MEMORY = 2e9  # besides what the process holds already
_SAMPLE_BYTES = 8 + 4  # visibility and weight
_PIECE_BYTES = 64e6  # of visibilities being added; larger pieces are no faster
_PIECE_ROW_BYTES = 80  # of a row of a piece, besides its samples
_BLOCK_BYTES = 4e8  # a block that has no more than this is not shared with others
_PER_CELL = 40  # samples to a cell that tables are first made for
_ROW_BYTES = 70  # times, antennas and baselines of a row of the measurement set
_LIBRARY_BYTES = 8e7  # not loaded yet when a run begins
_SLACK_BYTES = 5e7  # buffers that do not grow with the data, and what the allocator keeps
_READER_BYTES = 8e6  # of a thread that reads
_LEAST_BYTES = 4e7  # for tables and pieces


@dataclass(frozen=True)
class AverageResult:
    """What an averaging run did.

    ``nvis`` samples with weight became ``nrow`` averages, ``nbytes`` on disk, in ``ncells`` cells;
    ``expected_error`` is the relative L2 error of facet images; ``binned`` samples were averaged in this
    run at ``bin_seconds`` of processor time, all but the reading; the ``resumed`` of the ``blocks`` were there before.
    """

    path: Path
    nvis: int
    ncells: int
    nrow: int
    nbytes: int
    expected_error: float
    blocks: int
    resumed: int
    binned: int
    bin_seconds: float
    seconds: float


def average(
    meta: Metadata,
    out: Path,
    params: AveragingParams,
    selection: Selection | None = None,
    *,
    memory: float | None = None,
    nthreads: int = 2,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> AverageResult:
    """Average the visibilities that ``selection`` names into the store ``out``; goes on with a killed run.

    What is in the place of ``out`` stays there until the new store is whole.

    Parameters
    ----------
    meta, out : Metadata, Path
        From :func:`vis2img.ms.metadata.read_metadata`; folder to write.
    params : AveragingParams
    selection : Selection, optional
        One Stokes parameter of any spectral windows, which are averaged together.
    memory, nthreads : float, int, optional
        Bytes of resident memory that this process may reach, with all libraries (default: 2 GB more than it has), and
        threads; as many time blocks are averaged side by side as the memory allows.
    overwrite : bool
        Replace a store of other data or parameters.
    progress : callable, optional
        Called with (rows done, rows in all).

    Raises
    ------
    MeasurementSetError, ParameterError
        As :func:`vis2img.ms.reading.open_parts`; or the cells do not fit into ``memory``.
    OutputError
        If ``out`` is something else, was made from other data or with other parameters, or another run writes it.
    """
    began = time.perf_counter()
    selection, memory = selection or Selection(), memory or resident() + _DEFAULT_MEMORY
    parts = _open(meta, selection, params, memory)
    edges = _time_edges(parts, params.time_block)
    record = _record(meta, selection, params, parts, edges)
    job = _Job(parts, params, edges, nthreads, progress)
    with locked(out):
        folder = prepare(out, record, overwrite)
        blocks = blocks_of(folder, record)
        wanted = {index: path for index, path in enumerate(blocks) if not path.is_dir()}
        with _leaving_nothing(folder, out, blocks):
            if wanted:
                job.run(wanted, memory)
        check_whole(folder, record)
        written = [attributes_of(path) for path in blocks]
        troubles = [part.trouble() for part in parts] if len(wanted) == len(blocks) else [None]
        if all(troubles) or not any(each["nvis"] for each in written):
            discard(folder, out)
            raise MeasurementSetError(troubles[0] or f"{meta.path}: no usable visibility")
        if folder != out:
            publish([(folder, out)], overwrite)
    return job.result(out, written, len(wanted), time.perf_counter() - began)


@contextmanager
def _leaving_nothing(folder: Path, out: Path, blocks: Sequence[Path]) -> Iterator[None]:
    """Remove the folder of work in progress where data cannot be read and there is no block to go on with."""
    try:
        yield
    except MeasurementSetError:
        if folder != out and not any(path.is_dir() for path in blocks):
            discard(folder, out)
        raise


def _open(meta: Metadata, selection: Selection, params: AveragingParams, memory: float) -> list[PartReader]:
    """Open what is averaged; refuse before anything is read what cannot be done."""
    _check_memory(memory, resident() + _LIBRARY_BYTES + _ROW_BYTES * meta.nrow, meta.nrow)
    if len(selection.stokes) > 1:
        raise ParameterError(
            f"one Stokes parameter is averaged at a time, not {selection.stokes}; choose with --stokes, "
            "and give each a store of its own"
        )
    parts = open_parts(meta, selection)
    for part in parts:
        check_range(params, part.uvw, float(part.chan_freq[-1]) / SPEED_OF_LIGHT)
    return parts


def _all_freqs(parts: Sequence[PartReader]) -> np.ndarray:
    """Return the distinct frequencies of all spectral windows, float64 [chan] in Hz, increasing."""
    return np.unique(np.concatenate([part.chan_freq for part in parts]))


def _check_memory(memory: float, held: float, nrow: int) -> None:
    """Refuse a limit that leaves nothing to work with; ``held`` is the resident memory without any data."""
    least = held + _SLACK_BYTES + _READER_BYTES + _LEAST_BYTES
    if memory < least:
        raise ParameterError(
            f"--memory {memory / 1e6:.0f}MB is too little: {held / 1e6:.0f}MB go to Python, its libraries and the "
            f"times and baselines of {nrow:,} rows; give at least {np.ceil(least / 1e7) * 10:.0f}MB"
        )


_Block = tuple[int, list[np.ndarray], Path]
"""Number of a time block, its rows of each part, and where it is written."""


class _Stopped(Exception):
    """Another thread has failed."""


class _Job:
    """Averages time blocks, several at a time; casacore reads for one of them at a time."""

    def __init__(
        self,
        parts: Sequence[PartReader],
        params: AveragingParams,
        edges: np.ndarray,
        nthreads: int,
        progress: Progress,
    ) -> None:
        self.parts, self.params, self.edges = parts, params, edges
        self.freqs, self.nrow = _all_freqs(parts), sum(part.nrow for part in parts)
        self.nthreads, self.progress = nthreads, progress
        self.done = self.total = self.binned = self.expected = 0
        self.bin_seconds = 0.0
        self._reading, self._counting, self._stop = threading.Lock(), threading.Lock(), threading.Event()
        # Loads compiled loops, which are no part of what adding rows costs.
        nothing = parts[0].read(np.zeros(0, np.int64))[0]
        table = CellTable(params, nothing.phase_centre, nothing.chan_freq)
        table.add(nothing.uvw, nothing.vis, nothing.weight)
        list(table.pieces(np.float32))

    def run(self, wanted: dict[int, Path], memory: float) -> None:
        """Average the time blocks ``wanted`` and write each to its path, within ``memory`` bytes."""
        held, last = resident(), len(self.edges) - 2
        _check_memory(memory, held, self.nrow)
        room = memory - held - _SLACK_BYTES
        self.nthreads = max(1, min(self.nthreads, int(room / 4 / _READER_BYTES)))
        room -= _READER_BYTES * self.nthreads
        blocks = [np.clip(np.searchsorted(self.edges, part.time, side="right") - 1, 0, last) for part in self.parts]
        waiting = [
            (index, [np.flatnonzero(of_row == index) for of_row in blocks], path) for index, path in wanted.items()
        ]
        self.total = self.nrow
        self.done = self.nrow - sum(len(own) for _, rows, _ in waiting for own in rows)
        side_by_side = max(1, min(self.nthreads, len(wanted), int(room / _BLOCK_BYTES)))
        while waiting:
            waiting, side_by_side = self._side_by_side(waiting, side_by_side, room), 1  # alone, all there is

    def _side_by_side(self, waiting: list[_Block], count: int, room: float) -> list[_Block]:
        """Average time blocks, ``count`` at a time within ``room`` bytes; return those too large for their share."""
        piece_bytes = min(_PIECE_BYTES, room / count / 4)
        self.piece_bytes = piece_bytes
        self.table_bytes = room / count - piece_bytes

        def one(block: _Block) -> _Block | None:
            try:
                self._block(*block)
            except TableFull:
                if count == 1:
                    raise
                return block
            return None

        with ThreadPoolExecutor(count) as pool:  # left only when all its threads have ended
            try:
                # In order of time, which disks are read fastest in.
                futures = [pool.submit(one, block) for block in waiting]
                done = [future.result() for future in as_completed(futures)]
            except BaseException:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return sorted((block for block in done if block is not None), key=lambda block: block[0])

    def _block(self, index: int, rows: list[np.ndarray], path: Path) -> None:
        """Average the rows of one time block and write it."""
        samples = sum(len(own) * len(part.chan_freq) for part, own in zip(self.parts, rows, strict=True))
        expected = self.expected or samples // _PER_CELL
        centre = self.parts[0].band.field.phase_centre
        table = CellTable(self.params, centre, self.freqs, self.table_bytes, expected)
        times = np.unique(np.concatenate([part.time[own] for part, own in zip(self.parts, rows, strict=True)]))
        by_time = np.zeros(len(times))
        added = 0
        for part, piece in self._pieces(rows):
            if self._stop.is_set():
                raise _Stopped
            with self._reading:
                (vis,) = part.read(piece, nthreads=self.nthreads)
            start = time.thread_time()
            try:
                by_row = self._add(table, part, piece, vis)
            except TableFull:
                self._count(-added, 0, time.thread_time() - start)
                raise
            by_time += np.bincount(np.searchsorted(times, vis.time), by_row, len(times))
            added += len(piece)
            self._count(len(piece), vis.vis.size, time.thread_time() - start)
            del vis, by_row  # before the next piece comes
        start = time.thread_time()
        self.expected = max(self.expected, table.used)
        seen = by_time > 0
        cells = list(table.pieces(np.float32))  # 6e-8 of u is 1e-7 npix turns at the edge of the facet
        by_node = np.zeros(len(table.chan_weight))
        for each in cells:
            spread(each.chan, each.weight, by_node)
        what = {
            "time": (self.edges[index] + self.edges[index + 1]) / 2,
            "nvis": table.nvis,
            "chan_weight": table.chan_weight.tolist(),
            "times": times[seen].tolist(),
            "time_weight": by_time[seen].tolist(),
            "ncells": sum(each.ncells for each in cells),
            "nrow": sum(len(each.vis) for each in cells),
            "node_weight": by_node.tolist(),
        }
        del table  # before the averages are copied to be written
        write_block(path, cells, what)
        self._count(0, 0, time.thread_time() - start)

    def _pieces(self, rows: list[np.ndarray]) -> Iterator[tuple[PartReader, np.ndarray]]:
        """Yield the rows of each part in pieces that fit into memory."""
        for part, own in zip(self.parts, rows, strict=True):
            length = max(1, int(self.piece_bytes / (_SAMPLE_BYTES * len(part.chan_freq) + _PIECE_ROW_BYTES)))
            if len(own):
                yield from ((part, piece) for piece in np.array_split(own, -(-len(own) // length)))

    def _add(self, table: CellTable, part: PartReader, piece: np.ndarray, vis: Visibilities) -> np.ndarray:
        """Add the rows ``piece`` of a part to a table; return the sum of the weights of each."""
        pair = part.antenna1[piece].astype(np.int64) << 32 | part.antenna2[piece]
        chans = np.searchsorted(self.freqs, part.chan_freq)
        return table.add(vis.uvw, vis.vis, vis.weight, pair, chans, vis.phase_centre)

    def result(self, out: Path, written: Sequence[dict[str, Any]], new: int, seconds: float) -> AverageResult:
        """Return what the run did: the attributes of all blocks, and how many of them are ``new``."""
        return AverageResult(
            path=out,
            nvis=sum(each["nvis"] for each in written),
            ncells=sum(each["ncells"] for each in written),
            nrow=sum(each["nrow"] for each in written),
            nbytes=sum(p.stat().st_size for p in out.rglob("*") if p.is_file()),
            expected_error=self.params.expected_error(),
            blocks=len(written),
            resumed=len(written) - new,
            binned=self.binned,
            bin_seconds=self.bin_seconds,
            seconds=seconds,
        )

    def _count(self, rows: int, samples: int, seconds: float) -> None:
        with self._counting:
            self.done += rows
            self.binned += samples
            self.bin_seconds += seconds
            if rows:
                self.progress("averaging rows", self.done, self.total)


def _time_edges(parts: Sequence[PartReader], length: float) -> np.ndarray:
    """Return the edges of equal time blocks of at most ``length`` s, float64 [block + 1]."""
    first, last = min(float(part.time.min()) for part in parts), max(float(part.time.max()) for part in parts)
    return np.linspace(first, last, max(1, int(np.ceil((last - first) / length))) + 1)


def _record(
    meta: Metadata, selection: Selection, params: AveragingParams, parts: Sequence[PartReader], edges: np.ndarray
) -> dict[str, Any]:
    """Return the root attributes: where the data come from, and how they were averaged."""
    origins = [part.origin(selection.stokes) for part in parts]
    origin = origins[0].with_all(origins)
    # Not table.lock, which is written whenever CASA opens the table.
    files = {p.name: p.stat() for p in meta.path.iterdir() if p.name == "table.dat" or p.name.startswith("table.f")}
    record = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "source": {
            "path": str(meta.path.resolve()),
            "nrow": meta.nrow,
            "nbytes": sum(s.st_size for s in files.values()),
            "files": {name: [s.st_size, s.st_mtime_ns] for name, s in sorted(files.items())},
        },
        "selection": dataclasses.asdict(selection),
        "parameters": dataclasses.asdict(params),
        "chan_freq": _all_freqs(parts).tolist(),
        "edges": edges.tolist(),
        "meta": record_of(origin, meta.path.name, float(edges[0])),
        "versions": {"vis2img": __version__, **{n: version(n) for n in ("python-casacore", "numpy", "zarr")}},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return json.loads(json.dumps(record))
