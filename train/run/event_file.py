"""The event file of a run for TensorBoard."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import RecordWriter, summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

_FLUSH_EVERY = 10.0  # s; each flush of an event file waits for the disk, which may be a slow one


class EventFile:
    """One event file of TensorBoard, written by the thread that calls.

    tensorboardX's ``SummaryWriter`` hands events to a thread through a bounded queue. A disk that is full ends that
    thread, and ten events later the run hangs. Its ``RecordWriter`` underneath has no thread, and its errors arrive.
    """

    def __init__(self, folder: Path, *, purge_step: int) -> None:
        folder.mkdir(exist_ok=True)
        # Files are read in the order of their names. Nanoseconds, as a file of the same second would be overwritten.
        now = time.time_ns()
        name = f"events.out.tfevents.{now // 10**9:010d}.{now % 10**9:09d}.{socket.gethostname()}.{os.getpid()}"
        self._writer = RecordWriter(str(folder / name))
        self._flushed = 0.0
        try:
            self._add(file_version="brain.Event:2")
            self._add(step=purge_step, session_log=SessionLog(status=SessionLog.START))
        except OSError:
            with contextlib.suppress(OSError):
                self.close()
            raise

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add values by tag."""
        several = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._add(step=step, summary=Summary(value=several))

    def image(self, step: int, tag: str, array: np.ndarray) -> None:
        self._add(step=step, summary=summary.image(tag, np.asarray(array), dataformats="HWC"))

    def close(self) -> None:
        self._writer.close()

    def _add(self, **fields: Any) -> None:
        self._writer.write(Event(wall_time=time.time(), **fields).SerializeToString())
        now = time.monotonic()
        if now - self._flushed > _FLUSH_EVERY:
            self._writer.flush()
            self._flushed = now
