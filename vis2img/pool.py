"""The pool: the newest draws of the schedule, made by Dask workers and replaced as new ones arrive.

In the synchronous mode draw ``i`` enters at a fixed batch, whatever the speed or number of the workers, and a run
replays; in the asynchronous mode draws enter as soon as they are ready.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

import numpy as np
from distributed import KilledWorker

from vis2img.draws import Draw, FieldSource, make_draw
from vis2img.errors import MeasurementSetError, Vis2imgError
from vis2img.schedule import Schedule
from vis2img.shared import SharedFolder, leave

log = logging.getLogger(__name__)
Mode = Literal["sync", "async"]
_REPEATS = 20  # times that a draw is asked for again after its worker died
_PATIENCE = 5.0  # s between looks at how many workers there are
_SILENCE = 60.0  # s without any worker after which a line is logged
_SEEN = 64  # replaced draws that the mean reuse and age are taken over


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


@dataclass
class Tally:
    """What the pool has done: draws taken in, and what they cost the workers."""

    fresh: int = 0
    """Draws taken in."""
    empty: int = 0
    """Draws that were given up, of fields that have others."""
    repeated: int = 0
    """Draws that were asked for again because their worker died."""
    seconds: float = 0.0
    """Time that workers took, in all."""
    bytes_read: int = 0
    """Bytes that workers read."""


@dataclass(eq=False)
class Held:
    """A draw in the pool with its age and use."""

    draw: Draw
    since: float
    uses: int = 0


class DrawPool:
    """Keeps the newest draws of a schedule, and asks a Dask client for those that follow.

    Parameters
    ----------
    client : distributed.Client
        Where draws are made.
    sources : list of FieldSource
        The fields.
    seed : int
        Seed of the run.
    schedule : Schedule
        Which draw comes when.
    shared : SharedFolder
        Where workers of this machine leave draws.
    first : int
        Number of the oldest draw to hold: 0 at the start of a run, later when a run resumes.
    in_order : bool
        Take draws in the order of the schedule, waiting for those that are late; else as they are ready.
    refreshes : bool
        Whether more draws are asked for than the pool holds.
    nthreads : int
        Threads of a draw.
    """

    def __init__(
        self,
        client: Any,
        sources: list[FieldSource],
        seed: int,
        schedule: Schedule,
        shared: SharedFolder,
        *,
        first: int = 0,
        in_order: bool = True,
        refreshes: bool = True,
        nthreads: int = 1,
    ) -> None:
        self.client, self.sources, self.seed = client, sources, seed
        self.failed: dict[int, str] = {}
        """Fields that were given up, and why."""
        self.tally = Tally()
        self.next_in = first
        """How many draws of the schedule have been taken in, or skipped."""
        self.capacity = schedule.capacity
        self._order = schedule.draws(first) if refreshes else islice(schedule.draws(first), schedule.capacity)
        self._shared, self._in_order, self._nthreads = shared, in_order, nthreads
        self._slots: deque[Held | None] = deque()
        self._pending: deque[_Asked] = deque()
        self._replaced: deque[tuple[float, int]] = deque(maxlen=_SEEN)
        self._news, self._stopped = threading.Event(), False
        self._counted = (-math.inf, 0)

    @property
    def held(self) -> list[Held]:
        """The draws in the pool, oldest first."""
        return [slot for slot in list(self._slots) if slot is not None]  # a copy: other threads look, too

    def fields(self) -> dict[int, list[Held]]:
        """Return the draws of each field; fields of which fewer than two are there only if no other has more."""
        found: dict[int, list[Held]] = {}
        for held in self.held:
            found.setdefault(held.draw.field, []).append(held)
        several = {field: held for field, held in sorted(found.items()) if len(held) > 1}
        return several or found

    def fill(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Wait until the pool holds all draws of the fields that can be imaged.

        Raises
        ------
        MeasurementSetError
            If no field at all can be imaged; the message gives the reason of the first.
        """
        for done in range(self.capacity):
            self._take(block=True, in_order=True)
            if progress:
                progress(done + 1, self.capacity)
        if not self.held:
            raise self._nothing()

    def take(self, *, block: bool) -> bool:
        """Take the next draw in, if one is ready or ``block`` says to wait; return whether one came in.

        Raises
        ------
        Vis2imgError
            If the workers are lost.
        """
        return self._take(block, self._in_order)

    def _take(self, block: bool, in_order: bool) -> bool:
        self._request()
        asked = self._next_ready(block, in_order)
        if asked is None:
            return False
        self._pending.remove(asked)
        self._request()
        self._enter(self._result(asked))
        self.next_in += 1
        return True

    def _enter(self, draw: Draw | None) -> None:
        """Put a draw, or the empty place of one that was given up, in; the oldest leaves a full pool."""
        if draw is None and not self._in_order:
            return
        self._slots.append(None if draw is None else Held(draw, time.monotonic()))
        if len(self._slots) > self.capacity:
            gone = self._slots.popleft()
            if gone is not None:
                age = time.monotonic() - gone.since
                self._replaced.append((age, gone.uses))
                log.debug(
                    "draw %d of %s replaced after %.1f s and %d views",
                    gone.draw.index, self.sources[gone.draw.field], age, gone.uses,
                )  # fmt: skip

    def reuse(self) -> tuple[float, float]:
        """Return the mean age (s) and number of views of the draws replaced last; of those held if none was yet."""
        seen = list(self._replaced) or [(time.monotonic() - held.since, held.uses) for held in self.held]
        if not seen:
            return 0.0, 0.0
        age, uses = np.mean(seen, axis=0)
        return float(age), float(uses)

    def _next_ready(self, block: bool, in_order: bool) -> _Asked | None:
        """Return what is ready to be taken in; draws whose worker died are asked for again."""
        silent = time.monotonic()
        while True:
            if self._stopped:
                raise Vis2imgError("the pool of draws is closed")
            options = list(self._pending)[: 1 if in_order else None]
            for asked in options:
                if asked.future is None or (asked.future.done() and not self._repeats(asked)):
                    return asked
            if not block:
                return None
            if self._news.wait(_PATIENCE):
                self._news.clear()
                continue
            self._check_client()
            if self._workers():
                silent = time.monotonic()
            elif time.monotonic() - silent > _SILENCE:
                log.warning("no Dask worker for %.0f s; waiting for one", _SILENCE)
                silent = time.monotonic()

    def _repeats(self, asked: _Asked) -> bool:
        """Ask for a draw again if its worker died, or it was lost; return whether."""
        if asked.future.status == "finished":
            return False
        if asked.future.status == "error" and not isinstance(asked.future.exception(), KilledWorker):
            return False
        self._check_client()
        asked.repeats += 1
        if asked.repeats > _REPEATS:
            raise Vis2imgError(
                f"{self.sources[asked.field]}: {_REPEATS} workers died of one draw; they may need more memory "
                "(worker_memory), or less to do (a smaller field_npix or draw_memory)"
            )
        log.warning("a worker died while it imaged %s; the draw is repeated", self.sources[asked.field])
        self.tally.repeated += 1
        asked.future = self._submit(asked.field, asked.index)
        return True

    def _nothing(self) -> MeasurementSetError:
        return MeasurementSetError(f"no field can be imaged: {next(iter(self.failed.values()))}")

    def _check_client(self) -> None:
        if self.client.status not in ("running", "connecting"):
            raise Vis2imgError("the Dask scheduler is gone; start it and give the same command again")

    def _result(self, asked: _Asked) -> Draw | None:
        if asked.future is None or asked.field in self.failed:
            return None
        try:
            delivery: Delivery = asked.future.result()
        except Vis2imgError as error:
            self._give_up(asked.field, error)
            return None
        data = delivery.draw.data if delivery.name is None else self._shared.take(delivery.name)
        data.setflags(write=False)
        self.tally.fresh += 1
        self.tally.seconds += delivery.seconds
        self.tally.bytes_read += delivery.bytes_read
        return replace(delivery.draw, data=data)

    def _give_up(self, field: int, error: Vis2imgError) -> None:
        """Note that a draw failed: once for each field, and for good if it has no other draw."""
        if any(held.draw.field == field for held in self.held):
            self.tally.empty += 1
            log.info("a draw was given up: %s", error)
        elif field not in self.failed:
            self.failed[field] = str(error)
            log.warning("skipped: %s", error)

    def _request(self) -> None:
        ahead = max(2, 2 * self._workers())
        while len(self._pending) < ahead:
            following = next(self._order, None)
            if following is None:
                return
            field, index = following
            if len(self.failed) == len(self.sources):
                raise self._nothing()
            # A field that failed is not asked for again, but keeps its place where the order counts.
            if field in self.failed and not self._in_order:
                continue
            self._pending.append(_Asked(field, index, None if field in self.failed else self._submit(field, index)))

    def _submit(self, field: int, index: int) -> Any:
        source, shared = self.sources[field], self._shared
        future = self.client.submit(
            deliver, source, self.seed, field, index, self._nthreads, str(shared.path), shared.key, pure=False
        )
        future.add_done_callback(lambda _: self._news.set())
        return future

    def _workers(self) -> int:
        """Return the number of workers, as it was some seconds ago."""
        now = time.monotonic()
        if now - self._counted[0] > _PATIENCE:
            self._counted = now, len(self.client.scheduler_info()["workers"])
        return self._counted[1]

    def stop(self) -> None:
        """Make whoever waits for a draw give up."""
        self._stopped = True
        self._news.set()

    def cancel(self) -> None:
        """Drop what was asked for and is not there yet."""
        with contextlib.suppress(Exception):  # workers or scheduler may be gone
            self.client.cancel([asked.future for asked in self._pending if asked.future is not None])
        self._pending.clear()


@dataclass(eq=False)
class _Asked:
    """A draw that was asked for; without a future, the place of one of a field that was given up."""

    field: int
    index: int
    future: Any
    repeats: int = 0
