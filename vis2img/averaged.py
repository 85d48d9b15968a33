"""Stream a measurement set into a store of averaged visibilities.

    rows of one time block -> pieces that fit into memory -> CellTable -> one zarr group, renamed into place

A killed run goes on with the blocks that are missing; :mod:`vis2img.averaged_store` has the layout.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from vis2img import __version__
from vis2img.averaged_store import FORMAT, FORMAT_VERSION, attributes_of, block_path
from vis2img.averaging import AveragingParams
from vis2img.averaging_cells import Cells, CellTable
from vis2img.errors import MeasurementSetError, OutputError, ParameterError
from vis2img.metadata import Metadata
from vis2img.params import Selection
from vis2img.plan import resolve
from vis2img.reading import PartReader

_SAMPLE_BYTES = 8 + 4  # visibility and weight
_PIECE_BYTES = 64e6  # of visibilities being added; larger pieces are no faster
_BLOCK_BYTES = 4e8  # a block that has no more than this is not shared with others
_PER_CELL = 40  # samples to a cell that tables are first made for
ROW_BYTES = 100  # times, antennas and baselines of a row, with their temporaries
_CHUNK_CELLS = 1 << 22
_SAME = ("format", "version", "source", "selection", "parameters", "chan_freq", "edges")  # must match to go on
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class AverageResult:
    """What an averaging run did.

    ``nvis`` samples with weight became ``nrow`` averages, ``nbytes`` on disk, in ``ncells`` cells;
    ``expected_error`` is the relative L2 error of facet images; ``binned`` samples were averaged in this
    run at ``bin_seconds`` of processor time; the ``resumed`` of the ``blocks`` were there before.
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
    memory: float = 1e9,
    nthreads: int = 2,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> AverageResult:
    """Average the visibilities that ``selection`` names into the store ``out``; goes on with a killed run.

    Parameters
    ----------
    meta : Metadata
        From :func:`vis2img.metadata.read_metadata`.
    out : Path
        Folder to write.
    params : AveragingParams
    selection : Selection, optional
        One Stokes parameter of one spectral window.
    memory : float
        Bytes for tables and data, besides ``ROW_BYTES`` for each row of the measurement set.
    nthreads : int
        Threads; as many time blocks are averaged side by side as the memory allows.
    overwrite : bool
        Replace a store of other data or parameters.
    progress : callable, optional
        Called with (rows done, rows in all).

    Raises
    ------
    MeasurementSetError, ParameterError
        As :class:`vis2img.reading.PartReader`; or the cells do not fit into ``memory``.
    OutputError
        If ``out`` is something else, or was made from other data or with other parameters.
    """
    import dask

    began = time.perf_counter()
    selection = selection or Selection()
    plans = resolve(meta, selection)
    if len(plans) > 1 or len(selection.stokes) > 1:
        raise ParameterError(
            "one Stokes parameter of one spectral window is averaged at a time; choose with --spw and --stokes"
        )
    reader = PartReader(meta, selection, plans[0])
    edges = _time_edges(reader.time, params.time_block)
    record = _record(meta, selection, params, reader, edges)
    _prepare(out, record, overwrite)
    nblocks = len(edges) - 1
    of_row = np.clip(np.searchsorted(edges, reader.time, side="right") - 1, 0, nblocks - 1)
    wanted = [b for b in range(nblocks) if not block_path(out, b).is_dir()]
    side_by_side = max(1, min(nthreads, len(wanted), int(memory / _BLOCK_BYTES)))
    job = _Job(reader, out, params, memory / side_by_side, nthreads, progress)
    rows = {b: np.flatnonzero(of_row == b) for b in wanted}
    job.done, job.total = reader.nrow - sum(map(len, rows.values())), reader.nrow
    pieces = {b: np.array_split(r, max(1, -(-len(r) // job.piece_rows))) for b, r in rows.items()}
    tasks = [dask.delayed(job.run, pure=False)(b, split, (edges[b] + edges[b + 1]) / 2) for b, split in pieces.items()]
    dask.compute(*tasks, scheduler="threads", num_workers=side_by_side)
    trouble = reader.trouble() if wanted else None
    if trouble and len(wanted) == nblocks:
        shutil.rmtree(out)
        raise MeasurementSetError(trouble)
    blocks = [attributes_of(block_path(out, b)) for b in range(nblocks)]
    return AverageResult(
        path=out,
        nvis=sum(b["nvis"] for b in blocks),
        ncells=sum(b["ncells"] for b in blocks),
        nrow=sum(b["nrow"] for b in blocks),
        nbytes=sum(p.stat().st_size for p in out.rglob("*") if p.is_file()),
        expected_error=params.expected_error(),
        blocks=nblocks,
        resumed=nblocks - len(wanted),
        binned=job.binned,
        bin_seconds=job.bin_seconds,
        seconds=time.perf_counter() - began,
    )


class _Job:
    """Averages time blocks, several at a time; casacore reads for one of them at a time."""

    def __init__(
        self,
        reader: PartReader,
        out: Path,
        params: AveragingParams,
        memory: float,
        nthreads: int,
        progress: Progress | None,
    ) -> None:
        self.reader, self.out, self.params, self.nthreads, self.progress = reader, out, params, nthreads, progress
        piece_bytes = min(_PIECE_BYTES, memory / 4)
        self.table_bytes = memory - piece_bytes
        self.piece_rows = max(1, int(piece_bytes / (_SAMPLE_BYTES * len(reader.chan_freq))))
        self.done = self.total = self.binned = self.expected = 0
        self.bin_seconds = 0.0
        # Loads the compiled loop, which is no part of what adding rows costs.
        nothing = reader.read(np.zeros(0, np.int64))[0]
        CellTable(params, nothing.phase_centre, reader.chan_freq).add(nothing.uvw, nothing.vis, nothing.weight)
        self._reading, self._counting = threading.Lock(), threading.Lock()

    def run(self, index: int, pieces: list[np.ndarray], middle: float) -> None:
        """Average the rows of one time block and write it."""
        reader = self.reader
        centre = reader.plan.phase_centre
        expected = self.expected or sum(map(len, pieces)) * len(reader.chan_freq) // _PER_CELL
        table = CellTable(self.params, centre, reader.chan_freq, self.table_bytes, expected)
        nvis = 0
        for rows in pieces:
            with self._reading:
                (vis,) = reader.read(rows, nthreads=self.nthreads)
            start = time.thread_time()
            pair = vis.antenna1.astype(np.int64) << 32 | vis.antenna2
            table.add(vis.uvw, vis.vis, vis.weight, pair)
            used = time.thread_time() - start
            nvis += int(np.count_nonzero(vis.weight))
            with self._counting:
                self.done += len(rows)
                self.binned += vis.vis.size
                self.bin_seconds += used
                if self.progress:
                    self.progress(self.done, self.total)
        self.expected = max(self.expected, table.used)
        _write_block(block_path(self.out, index), table.cells(), {"time": middle, "nvis": nvis})


def _time_edges(times: np.ndarray, length: float) -> np.ndarray:
    """Return the edges of equal time blocks of at most ``length`` s, float64 [block + 1]."""
    first, last = float(times.min()), float(times.max())
    return np.linspace(first, last, max(1, int(np.ceil((last - first) / length))) + 1)


def _record(
    meta: Metadata, selection: Selection, params: AveragingParams, reader: PartReader, edges: np.ndarray
) -> dict[str, Any]:
    """Return the root attributes: where the data come from, and how they were averaged."""
    from importlib.metadata import version

    files = [p.stat() for p in meta.path.iterdir() if p.is_file()]
    record = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "source": {
            "path": str(meta.path.resolve()),
            "nrow": meta.nrow,
            "nbytes": sum(s.st_size for s in files),
            "mtime_ns": max(s.st_mtime_ns for s in files),
        },
        "selection": dataclasses.asdict(selection),
        "parameters": dataclasses.asdict(params),
        "chan_freq": reader.chan_freq.tolist(),
        "edges": edges.tolist(),
        "meta": reader.source(selection.stokes),
        "versions": {"vis2img": __version__, **{n: version(n) for n in ("python-casacore", "numpy", "zarr")}},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return json.loads(json.dumps(record))


def _prepare(out: Path, record: dict[str, Any], overwrite: bool) -> None:
    """Make the store with its root attributes, or see that the one that is there can be gone on with."""
    import zarr

    if not out.parent.is_dir():
        raise OutputError(f"the folder {out.parent} for {out.name} does not exist")
    if out.is_symlink() or (out.exists() and not (out / "zarr.json").is_file()):
        raise OutputError(f"{out} is not a store of averaged visibilities; choose another name")
    if out.exists():
        there = attributes_of(out)
        if there.get("format") != FORMAT:
            raise OutputError(f"{out} is not a store of averaged visibilities; choose another name")
        differs = [name for name in _SAME if there.get(name) != record[name]]
        if not differs:
            for stale in out.glob(".partial-*"):
                shutil.rmtree(stale, ignore_errors=True)
            return
        if not overwrite:
            detail = [d for name in differs for d in _differences(name, there.get(name), record[name])]
            raise OutputError(f"{out} was made with another {', '.join(detail)}; use --overwrite or another name")
        shutil.rmtree(out)
    stage = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        zarr.open_group(stage, mode="w", attributes=record)
        stage.rename(out)
    except OSError as error:
        shutil.rmtree(stage, ignore_errors=True)
        raise OutputError(f"cannot write {out}: {error.strerror}") from error


def _differences(name: str, old: Any, new: Any) -> list[str]:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [name]
    return [f"{name} {key}" for key in new if old.get(key) != new[key]]


def _write_block(path: Path, cells: Cells, attributes: dict[str, Any]) -> None:
    """Write one time block beside its place, then rename it."""
    import zarr

    stage = path.with_name(f".partial-{path.name}-{os.getpid()}")
    arrays = {
        "uvw": cells.uvw.astype(np.float32),  # 6e-8 of u is 1e-7 npix turns at the edge of the facet
        "vis": cells.vis,
        "weight": cells.weight,
        "channel_block": cells.block,
    }
    attributes = {
        **attributes,
        "ncells": cells.ncells,
        "nrow": len(cells.vis),
        "weight_sum": float(cells.weight.sum(dtype=np.float64)),
    }
    try:
        group = zarr.open_group(stage, mode="w", attributes=attributes)
        for name, array in arrays.items():
            chunks = (max(1, min(len(array), _CHUNK_CELLS)), *array.shape[1:])
            group.create_array(name, data=array, chunks=chunks, compressors=None)  # noise does not compress
        stage.rename(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            shutil.rmtree(stage)
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
