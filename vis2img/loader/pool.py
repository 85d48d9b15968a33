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
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from distributed import KilledWorker

from vis2img.draws.draw import Draw
from vis2img.draws.field import Field
from vis2img.errors import MeasurementSetError, NotEnoughMemoryError, ParameterError, Vis2imgError
from vis2img.loader.handover import Delivery, SharedFolder, deliver
from vis2img.loader.schedule import Schedule
from vis2img.progress import Progress, no_progress

log = logging.getLogger(__name__)
_REPEATS = 20  # times that a draw is asked for again after its worker died
_CLOSED = "this loader is closed"
_PAUSE = 0.2  # s before a draw is asked for again
_PATIENCE = 5.0  # s between looks at how many workers there are
_SILENCE = 60.0  # s without any worker after which a line is logged
_EMPTY_DRAWS = 8  # in a row that leave nothing, after which a field is given up
_SEEN = 64  # replaced draws that the mean reuse and age are taken over


@dataclass
class Tally:
    """What the pool has done: draws taken in, and what they cost the workers."""

    fresh: int = 0
    """Draws taken in."""
    empty: int = 0
    """Draws that were given up, as they left nothing."""
    repeated: int = 0
    """Draws that were asked for again, as their worker died or had no memory, besides those that Dask repeats."""
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
    sources : list of Field
        The fields.
    seed : int
        Seed of the run.
    schedule : Schedule
        Which draw comes when.
    shared : SharedFolder
        Where workers of this machine leave draws.
    state : dict, optional
        From :meth:`state`, to go on where a pool stopped: the draws that it held are made again.
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
        sources: list[Field],
        seed: int,
        schedule: Schedule,
        shared: SharedFolder,
        *,
        state: Mapping[str, Any] | None = None,
        in_order: bool = True,
        refreshes: bool = True,
        nthreads: int = 1,
    ) -> None:
        self.client, self.sources, self.seed = client, sources, seed
        state = state or {}
        self.failed = {int(field): str(why) for field, why in state.get("failed", {}).items()}
        """Fields that were given up, and why."""
        self._empty = {int(field): int(count) for field, count in state.get("empty", {}).items()}
        self.tally = Tally()
        self._known = int(state.get("next_draw", 0))  # the draws before it have been judged
        first = max(0, self._known - schedule.capacity)
        self.next_in = first
        """How many draws of the schedule have been taken in, or skipped."""
        self.capacity = schedule.capacity
        order = enumerate(schedule.draws(first), start=first)
        self._order = order if refreshes else islice(order, schedule.capacity)
        self._filled = 0
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

    def fill(self, progress: Progress = no_progress) -> None:
        """Wait until the pool holds all draws of the fields that can be imaged.

        Raises
        ------
        MeasurementSetError
            If no field at all can be imaged; the message gives the reason of the first.
        """
        while self._filled < self.capacity:
            self._take(block=True, in_order=True)
            self._filled += 1
            progress("imaging", self._filled, self.capacity)
        if not self.held:
            raise self._nothing()

    def state(self) -> dict[str, Any]:
        """Return what another pool needs to go on."""
        failed = {str(field): why for field, why in self.failed.items()}
        empty = {str(field): count for field, count in self._empty.items()}
        return {"next_draw": self.next_in, "failed": failed, "empty": empty}

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
        self.next_in = max(self.next_in, asked.number + 1)
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
                raise Vis2imgError(_CLOSED)
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
        """Ask for a draw again if its worker died or had no memory, or it was lost; return whether."""
        if asked.future.status == "finished":
            return False
        error = asked.future.exception() if asked.future.status == "error" else None
        if error is not None and not isinstance(error, KilledWorker | MemoryError | NotEnoughMemoryError):
            return False
        self._check_client()
        asked.repeats += 1
        if asked.repeats > _REPEATS:
            raise Vis2imgError(
                f"{self.sources[asked.field]}: {_REPEATS} workers died of one draw or had no memory for it; they may "
                "need more (worker_memory, fewer workers), or less to do (a smaller field_npix or draw_memory)"
            )
        what = "had no memory for" if isinstance(error, MemoryError | NotEnoughMemoryError) else "died while it imaged"
        log.warning("a worker %s %s; the draw is repeated", what, self.sources[asked.field])
        self.tally.repeated += 1
        time.sleep(_PAUSE)
        asked.future = self._submit(asked.field, asked.index)
        return True

    def _nothing(self) -> MeasurementSetError:
        why = next(iter(self.failed.values()), "the imaging parameters leave nothing of any; vary them less (imaging)")
        return MeasurementSetError(f"no field can be imaged: {why}")

    def _check_client(self) -> None:
        if self.client.status not in ("running", "connecting"):
            raise Vis2imgError("the Dask scheduler is gone; start it and give the same command again")

    def _result(self, asked: _Asked) -> Draw | None:
        if asked.future is None or asked.field in self.failed:
            return None
        delivery = self._delivery(asked)
        if delivery is None:
            return None
        self._empty.pop(asked.field, None)
        data = delivery.draw.data if delivery.name is None else self._shared.take(delivery.name)
        data.setflags(write=False)
        self.tally.fresh += 1
        self.tally.seconds += delivery.seconds
        self.tally.bytes_read += delivery.bytes_read
        return replace(delivery.draw, data=data)

    def _delivery(self, asked: _Asked) -> Delivery | None:
        """Fetch what a worker has made; None if it failed, which is noted."""
        while not self._stopped:
            try:
                return asked.future.result(timeout=_PATIENCE)
            except TimeoutError:
                self._check_client()  # the worker that holds it does not answer just now
            except ParameterError as error:
                self._note(asked, error, fatal=False)
                return None
            except MeasurementSetError as error:
                self._note(asked, error, fatal=True)
                return None
            except Exception as error:
                if asked.future.status in ("cancelled", "lost", "pending"):
                    raise Vis2imgError(f"a draw of {self.sources[asked.field]} was lost: {error}") from error
                reason = f"{self.sources[asked.field]}: {type(error).__name__}: {error}"
                self._note(asked, Vis2imgError(reason), fatal=True)
                return None
        raise Vis2imgError(_CLOSED)

    def _note(self, asked: _Asked, error: Vis2imgError, *, fatal: bool) -> None:
        """Note that a draw failed; a field is given up if it cannot be read, or draw after draw leaves nothing."""
        self.tally.empty += 1
        if asked.number < self._known:
            return  # made again for a pool that goes on: judged before
        self._empty[asked.field] = self._empty.get(asked.field, 0) + 1
        if fatal or self._empty[asked.field] >= _EMPTY_DRAWS:
            self.failed[asked.field] = str(error)
            log.warning("skipped: %s", error)
        else:
            log.info("a draw was given up: %s", error)

    def _request(self) -> None:
        ahead = max(2, 2 * self._workers())
        while len(self._pending) < ahead:
            following = next(self._order, None)
            if following is None:
                return
            number, (field, index) = following
            if len(self.failed) == len(self.sources):
                raise self._nothing()
            # A field that failed is not asked for again, but keeps its place where the order counts.
            if field in self.failed and not self._in_order:
                continue
            future = None if field in self.failed else self._submit(field, index)
            self._pending.append(_Asked(number, field, index, future))

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
            self._counted = now, len(self.client.nthreads())
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

    number: int
    field: int
    index: int
    future: Any
    repeats: int = 0
