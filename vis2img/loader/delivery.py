"""What a worker does for a draw: make it, leave its pixels in shared memory, and tell what it took."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vis2img.draws.draw import Draw, FieldSource, make_draw
from vis2img.loader.shared import leave


@dataclass(frozen=True, eq=False)
class Delivery:
    """What a worker sends: the draw and its costs; without pixels if these lie under ``name`` in the shared folder."""

    draw: Draw
    name: str | None
    seconds: float
    bytes_read: int


def deliver(source: FieldSource, seed: int, field: int, index: int, nthreads: int, folder: str, key: str) -> Delivery:
    """Make a draw on a worker and leave its pixels in the shared folder, or else send them."""
    import psutil

    process = psutil.Process()
    start, before = time.perf_counter(), _bytes_read(process)
    draw = make_draw(source, seed, field, index, nthreads)
    name = f"{field}-{index}.npy"
    left = leave(folder, key, name, draw.data)
    return Delivery(
        draw=replace(draw, data=np.empty((0, 0, 0), np.float32)) if left else draw,
        name=name if left else None,
        seconds=time.perf_counter() - start,
        bytes_read=_bytes_read(process) - before,
    )


def _bytes_read(process: Any) -> int:
    """Return what this process has read of files so far, from disk or from the page cache; 0 if nobody counts."""
    try:
        return int(process.io_counters().read_chars)
    except (AttributeError, OSError):
        return 0
