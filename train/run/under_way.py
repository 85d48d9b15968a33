"""Steps under way: JAX starts a step and returns, so that many can be started before the first is finished.

Nothing interrupts a step, and what waits for one inside JAX hears no signal. So few are started ahead, they are waited
for outside of JAX, and a run that is asked to stop leaves a step that takes long to itself.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from vis2img.train.run.stopping import ABANDONED, StopRequest
from vis2img.train.state import TrainState
from vis2img.train.step import Metrics

_LONG = 1.0  # s of a step, from which on the next is started when it is finished, and not before
_AHEAD, _MOST = 0.5, 8  # s that shorter steps may be started ahead, and how many at most: each holds a state
_GRACE = 2.0  # s that a step under way has to finish in, once the run is asked to stop
_SHORTEST, _LONGEST = 2e-4, 0.05  # s between two looks at a step


@dataclass(frozen=True, eq=False)
class Taken:
    """A step that was started: its number, what it gives, and the loader's state behind its batch."""

    step: int
    state: TrainState
    metrics: Metrics
    loader: dict[str, Any]

    @property
    def finished(self) -> bool:
        """Whether it is done: all that it gives comes at once."""
        return all(leaf.is_ready() for leaf in jax.tree.leaves(self.metrics) if hasattr(leaf, "is_ready"))


class UnderWay:
    """The steps that were started, in order, down to the last that is finished.

    Parameters
    ----------
    start : Taken
        What the run goes on from.
    stop : StopRequest
        Whether it is to stop.
    together : bool
        Whether other hosts take the steps, too: then none is left to itself.
    keeps_states : bool
        Whether a step leaves the state that it started from in memory, so that it can be saved in place of its own.

    Attributes
    ----------
    last : Taken
        The last that is finished, which a run that stops saves.
    """

    def __init__(self, start: Taken, stop: StopRequest, *, together: bool, keeps_states: bool) -> None:
        self.last = self._newest = start
        self._stop, self._together, self._keeps_states = stop, together, keeps_states
        self._started: deque[Taken] = deque()
        self._compiled = False
        self._since, self._seconds = time.monotonic(), _LONG

    def begin(self, take: Callable[[Taken], Taken]) -> Taken:
        """Start a step on what the one before gives: short ones while others are under way, so that no device waits.

        Raises
        ------
        Stopped
            If the run is asked to stop before the step is started.
        """
        long = self._seconds >= _LONG
        self._wait(left=0 if long else min(max(int(_AHEAD / max(self._seconds, 1e-6)), 1), _MOST))
        before = self._newest
        # To start the first step is to compile it, and on some devices any step is finished when it is started.
        if self._together or (self._compiled and not (long and self._keeps_states)):
            self._newest = take(before)
        else:
            self._newest = self._stop.call(lambda: take(before))
        self._compiled = True
        self._started.append(self._newest)
        return self._newest

    def finish(self) -> None:
        """Wait for all steps.

        Raises
        ------
        Stopped
            If the run is asked to stop meanwhile.
        """
        self._wait(left=0)

    def settle(self) -> None:
        """Wait for the steps under way as long as a run that is asked to stop may, and leave to itself what remains."""
        deadline = time.monotonic() + _GRACE
        while self._look() and (time.monotonic() < deadline or not self._keeps_states):
            time.sleep(_LONGEST)
        if self._started:
            remaining = [taken.metrics for taken in self._started]
            # By its name, who ends the process knows that it need not wait for this.
            threading.Thread(target=jax.block_until_ready, args=(remaining,), name=ABANDONED, daemon=True).start()
            self._started.clear()

    def _wait(self, left: int) -> None:
        pause = min(max(self._seconds / 50, _SHORTEST), _LONGEST)
        if self._together:  # they agree on where to stop
            self._poll(left, pause)
            return
        with self._stop.interruptible():
            self._poll(left, pause)

    def _poll(self, left: int, pause: float) -> None:
        while self._look() > left:
            time.sleep(pause)
            if not self._together:
                self._stop.check()  # what a handler raises in a finalizer is dropped

    def _look(self) -> int:
        """Note which steps are finished; return the number of the others."""
        count = 0
        while self._started and self._started[0].finished:
            self.last = self._started.popleft()
            count += 1
        if count:
            now = time.monotonic()
            self._since, self._seconds = now, (now - self._since) / count
        return len(self._started)
