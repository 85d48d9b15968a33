"""Stopping a run in good order when asked to: SIGTERM (Slurm's warning before the time limit) and Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any


class Stopped(BaseException):
    """The run was asked to stop while it waited.

    No `Exception`, as it comes from a signal in the midst of other code, which takes any such for a failure of its own:
    the pool of draws would give a field up.
    """


class StopRequest:
    """Whether the run was asked to stop; a wait inside `interruptible` is cut short by `Stopped`."""

    def __init__(self) -> None:
        self.asked = False
        self._waiting = False

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Raise `Stopped` in here as soon as the request comes, and at once if it is there already."""
        self._waiting = True
        try:
            if self.asked:
                raise Stopped
            yield
        finally:
            self._waiting = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Listen to signals; outside of the main thread, leave them to whoever runs us."""
        before: dict[int, Any] = {}
        try:
            for wanted in (signal.SIGTERM, signal.SIGINT):
                before[wanted] = signal.signal(wanted, self._ask)
        except ValueError:
            yield self
            return
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if number == signal.SIGINT:  # a second Ctrl-C does not wait
            signal.signal(number, signal.default_int_handler)
        if self._waiting:
            self._waiting = False
            raise Stopped
