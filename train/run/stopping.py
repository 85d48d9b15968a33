"""Stopping a run in good order when asked to: SIGTERM (Slurm's warning before the time limit) and Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from types import FrameType
from typing import Any, TypeVar

Result = TypeVar("Result")
ABANDONED = "vis2img-uninterruptible"  # name of threads whose work cannot be stopped
_LOOK = 0.2  # s
_AGAIN = {signal.SIGINT: "again", signal.SIGTERM: "Ctrl-C"}


class Stopped(BaseException):
    """The run was asked to stop while it waited.

    No `Exception`, as it comes from a signal in the midst of other code, which takes any such for a failure of its own:
    the pool of draws would give a field up.
    """


class StopRequest:
    """Whether the run was asked to stop; a wait inside `interruptible` is cut short by `Stopped`.

    Attributes
    ----------
    pending : bool
    unsaved : bool
        Whether there are steps to save before the run can end, which decides on what the user is told.
    """

    def __init__(self) -> None:
        self.pending, self.unsaved = False, False
        self._waiting = False

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Raise `Stopped` in here as soon as the request comes, and at once if it is there already."""
        self._waiting = True
        try:
            if self.pending:
                raise Stopped
            yield
        finally:
            self._waiting = False

    def call(self, work: Callable[[], Result]) -> Result:
        """Return ``work()``, unless `Stopped` is raised first; the work then goes on in a thread, for nobody.

        It is for work of minutes that nothing can interrupt, such as compiling.
        """
        future: Future[Result] = Future()

        def run() -> None:
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        with self.interruptible():
            threading.Thread(target=run, name=ABANDONED, daemon=True).start()
            while not future.done():  # a signal that another thread received ends no wait
                wait([future], _LOOK)
            return future.result()

    @contextlib.contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Listen to signals; outside of the main thread, leave them to whoever runs us."""
        before: dict[int, Any] = {}
        try:
            for kind in (signal.SIGTERM, signal.SIGINT):
                before[kind] = signal.signal(kind, self._ask)
        except ValueError:
            yield self
            return
        try:
            with self._answering():
                yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        """Answer the first signal from a thread: handlers must wait for the compiler, or for a step to end."""
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        thread = threading.Thread(target=self._answer, args=(ours,), name="vis2img-signals", daemon=True)
        thread.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            theirs.close()
            thread.join()
            ours.close()

    def _answer(self, signals: socket.socket) -> None:
        while number := signals.recv(1):  # b"" once the other end is closed
            if number[0] in _AGAIN:
                again = f": saving after this step; {_AGAIN[signal.Signals(number[0])]} to leave without"
                with contextlib.suppress(OSError):
                    os.write(2, f"stopping{again if self.unsaved else ''}\n".encode())
                return

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.pending = True
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a Ctrl-C from now on does not wait
        if self._waiting:
            self._waiting = False
            raise Stopped
