"""How a draw comes from a worker to the loader: by shared memory, if both are on one machine.

A draw of 4096 pixels is 64 MB. Sent over Dask's connections it is copied several times; left in ``/dev/shm`` it is
written once and mapped. A worker elsewhere does not see the folder and sends its draw over the network.

The folder belongs to one loader and to one user; what a killed one leaves behind is removed by the next.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil

from vis2img.cluster.scratch import ScratchFolder, sweep
from vis2img.draws.cache import DrawCache
from vis2img.draws.draw import Draw
from vis2img.draws.field import Field, make_draw
from vis2img.errors import OutputError
from vis2img.units import format_bytes

log = logging.getLogger(__name__)
_PREFIX = "vis2img-draws-"
_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, eq=False)
class Delivery:
    """What a worker sends: the draw and its costs; without pixels if these lie under ``name`` in the shared folder."""

    draw: Draw
    name: str | None
    seconds: float
    bytes_read: int


def deliver(
    field: Field,
    seed: int,
    number: int,
    index: int,
    ticket: int,
    nthreads: int,
    folder: str,
    key: str,
    cache: DrawCache | None = None,
) -> Delivery:
    """Make a draw on a worker, or read it, and leave its pixels in the shared folder, or else send them."""
    process = psutil.Process()
    start, before = time.perf_counter(), _bytes_read(process)
    draw = make_draw(field, seed, number, index, nthreads, cache.draw if cache else None)
    name = f"{number}-{index}-{ticket}.npy"
    left = leave(folder, key, name, draw.data)
    return Delivery(
        draw=replace(draw, data=np.empty((0, 0, 0), np.float32)) if left else draw,
        name=name if left else None,
        seconds=time.perf_counter() - start,
        bytes_read=_bytes_read(process) - before,
    )


def _bytes_read(process: psutil.Process) -> int:
    """Return what this process has read of files so far, from disk or from the page cache; 0 if nobody counts."""
    try:
        return int(process.io_counters().read_chars)
    except (AttributeError, OSError):
        return 0


class SharedFolder:
    """A folder for draws on their way from workers to the loader.

    Parameters
    ----------
    need : int
        Bytes that will be held at a time.
    parent : path, optional
        Where to make it; default: /dev/shm if there is room, else the folder of temporary files.

    Raises
    ------
    OutputError
        If there is no room.
    """

    def __init__(self, need: int, parent: str | Path | None = None) -> None:
        place = _place(need, parent)
        try:
            self._folder = ScratchFolder(_PREFIX, place)
        except OSError as error:
            raise OutputError(f"cannot keep draws in {place}: {error.strerror}") from error
        self.path, self.key = self._folder.path, secrets.token_hex(16)
        (self.path / "key").write_text(self.key)

    def take(self, name: str) -> np.ndarray:
        """Map what a worker left under ``name``; its memory is given back when the array is no longer used."""
        path = self.path / name
        array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        path.unlink()
        for partial in self.path.glob(f".{name}.*.partial"):  # of a worker that was killed
            partial.unlink(missing_ok=True)
        return array

    def close(self) -> None:
        """Remove the folder; arrays that were taken stay."""
        self._folder.close()


def leave(folder: str, key: str, name: str, array: np.ndarray) -> bool:
    """Write ``array`` into the folder of a loader; False if this machine does not see the folder, or it is full.

    Written beside its place and renamed, so that a worker that is killed leaves nothing that looks whole.
    """
    path = Path(folder)
    try:
        if (path / "key").read_text() != key:
            return False
    except OSError:
        return False
    partial = path / f".{name}.{os.getpid()}.partial"
    try:
        with partial.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        partial.rename(path / name)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        return False
    return True


def _place(need: int, parent: str | Path | None) -> Path:
    """Return the folder to make one in, after removing what killed loaders left there."""
    wanted = [Path(parent)] if parent else [p for p in (_MEMORY, Path(tempfile.gettempdir())) if os.access(p, os.W_OK)]
    room = 0
    for place in wanted:
        sweep(_PREFIX, place)
        try:
            room = shutil.disk_usage(place).free
        except OSError as error:
            raise OutputError(f"cannot keep draws in {place}: {error.strerror}") from error
        if room > need:
            if place != wanted[0]:
                log.warning("draws go through %s, as %s has no room for %s", place, wanted[0], format_bytes(need))
            return place
    raise OutputError(
        f"the pool of draws needs {format_bytes(need)}, {wanted[-1] if wanted else _MEMORY} has {format_bytes(room)}; "
        "choose fewer draws_per_field or fields_at_once, a smaller field_npix, or another folder with shared"
    )
