"""The pool: the newest draws of the schedule, made by Dask workers and replaced as new ones arrive.

In the synchronous mode draw ``i`` enters at a fixed batch, whatever the speed or number of the workers, and a run
replays; in the asynchronous mode draws enter as soon as they are ready.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from vis2img.draws.draw import Draw
from vis2img.errors import MeasurementSetError, ParameterError, Vis2imgError
from vis2img.loader.requests import DrawRequests, Request
from vis2img.loader.schedule import Schedule
from vis2img.progress import Progress, no_progress

log = logging.getLogger(__name__)
_EMPTY_DRAWS = 8  # in a row that leave nothing, after which a field is given up
_LATEST = 64  # replaced draws that the mean reuse and age are taken over


@dataclass
class Tally:
    """What the pool has done, and what it cost the workers."""

    fresh: int = 0
    """Draws taken in."""
    empty: int = 0
    """Draws that were given up, as they left nothing."""
    seconds: float = 0.0
    """Time that workers took, in all."""
    bytes_read: int = 0
    """Bytes that workers read."""


@dataclass(eq=False)
class Entry:
    """A draw in the pool with its age and use."""

    draw: Draw
    since: float
    uses: int = 0


class DrawPool:
    """Keeps the newest draws of a schedule, and asks for those that follow.

    Parameters
    ----------
    requests : DrawRequests
        Where draws come from.
    schedule : Schedule
        Which draw comes when.
    state : dict, optional
        From :meth:`state`, to go on where a pool stopped: the draws that it had are made again.
    in_order : bool
        Take draws in the order of the schedule, waiting for those that are late; else as they are ready.
    refreshes : bool
        Whether more draws are asked for than the pool holds.

    Attributes
    ----------
    failed : dict
        Fields that were given up, and why.
    next_in : int
        How many draws of the schedule have been taken in, or skipped.
    """

    def __init__(
        self,
        requests: DrawRequests,
        schedule: Schedule,
        *,
        state: Mapping[str, Any] | None = None,
        in_order: bool = True,
        refreshes: bool = True,
    ) -> None:
        state = state or {}
        self.requests, self.capacity, self._in_order = requests, schedule.capacity, in_order
        self.failed = {int(field): str(why) for field, why in state.get("failed", {}).items()}
        self._empty = {int(field): int(count) for field, count in state.get("empty", {}).items()}
        self.tally = Tally()

        self._first_new = int(state.get("next_draw", 0))  # the draws before it were judged by an earlier pool
        self.next_in = max(0, self._first_new - schedule.capacity)
        order = enumerate(schedule.draws(self.next_in), start=self.next_in)
        self._order = order if refreshes else islice(order, schedule.capacity)

        self._filled = 0
        self._slots: deque[Entry | None] = deque()
        self._replaced: deque[tuple[float, int]] = deque(maxlen=_LATEST)

    @property
    def entries(self) -> list[Entry]:
        """The draws in the pool, oldest first."""
        return [slot for slot in list(self._slots) if slot is not None]  # a copy: other threads look, too

    def fields(self) -> dict[int, list[Entry]]:
        """Return the draws of each field; fields of which fewer than two are there only if no other has more."""
        by_field: dict[int, list[Entry]] = {}
        for entry in self.entries:
            by_field.setdefault(entry.draw.field, []).append(entry)
        several = {field: entries for field, entries in sorted(by_field.items()) if len(entries) > 1}
        return several or by_field

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
        if not self.entries:
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
        self._ask()
        request = self.requests.next_ready(block=block, in_order=in_order)
        if request is None:
            return False
        self._ask()
        self._enter(self._draw(request))
        self.next_in = max(self.next_in, request.number + 1)
        return True

    def _ask(self) -> None:
        """Ask for draws ahead, so that no worker waits."""
        ahead = max(2, 2 * self.requests.workers())
        while len(self.requests) < ahead:
            following = next(self._order, None)
            if following is None:
                return
            number, (field, index) = following
            if len(self.failed) == len(self.requests.fields):
                raise self._nothing()
            # A field that failed is not asked for again, but keeps its place where the order counts.
            if field not in self.failed or self._in_order:
                self.requests.add(number, field, index, make=field not in self.failed)

    def _draw(self, request: Request) -> Draw | None:
        """Return the draw that was asked for; None if it was given up, which is noted."""
        if request.future is None or request.field in self.failed:
            return None
        try:
            delivery = self.requests.fetch(request)
        except (ParameterError, MeasurementSetError) as error:
            self._note(request, error)
            return None
        self._empty.pop(request.field, None)
        self.tally.fresh += 1
        self.tally.seconds += delivery.seconds
        self.tally.bytes_read += delivery.bytes_read
        return delivery.draw

    def _note(self, request: Request, error: Vis2imgError) -> None:
        """Note that a draw failed; a field is given up if it cannot be read, or draw after draw leaves nothing."""
        self.tally.empty += 1
        if request.number < self._first_new:
            return
        self._empty[request.field] = self._empty.get(request.field, 0) + 1
        if isinstance(error, MeasurementSetError) or self._empty[request.field] >= _EMPTY_DRAWS:
            self.failed[request.field] = str(error)
            log.warning("skipped: %s", error)
        else:
            log.info("a draw was given up: %s", error)

    def _nothing(self) -> MeasurementSetError:
        why = next(iter(self.failed.values()), "the imaging parameters leave nothing of any; vary them less (imaging)")
        return MeasurementSetError(f"no field can be imaged: {why}")

    def _enter(self, draw: Draw | None) -> None:
        """Put a draw, or the empty place of one that was given up, in; the oldest leaves a full pool."""
        if draw is None and not self._in_order:
            return
        self._slots.append(None if draw is None else Entry(draw, time.monotonic()))
        if len(self._slots) <= self.capacity:
            return
        oldest = self._slots.popleft()
        if oldest is not None:
            age, draw = time.monotonic() - oldest.since, oldest.draw
            self._replaced.append((age, oldest.uses))
            text = "draw %d of %s replaced after %.1f s and %d views"
            log.debug(text, draw.index, self.requests.fields[draw.field], age, oldest.uses)

    def reuse(self) -> tuple[float, float]:
        """Return the mean age (s) and number of views of the draws replaced last; of those there if none was yet."""
        now = time.monotonic()
        figures = list(self._replaced) or [(now - entry.since, entry.uses) for entry in self.entries]
        if not figures:
            return 0.0, 0.0
        age, uses = np.mean(figures, axis=0)
        return float(age), float(uses)
