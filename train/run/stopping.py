"""Stopping a run in good order when asked to: by Ctrl-C, SIGTERM, SIGHUP (a terminal that closes), SIGUSR1 or SIGUSR2.

The last three are what batch systems warn with before a time limit, as their users like.
"""

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
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_LOOK = 0.2  # s
_GRACE = 5.0  # s that an impatient request leaves for unwinding
_INTERRUPTED = 130  # exit status of what was interrupted


class Stopped(BaseException):
    """The run was asked to stop while it waited.

    No `Exception`, as it comes from a signal in the midst of other code, which takes any such for a failure of its own:
    the pool of draws would give a field up.
    """


class StopRequest:
    """Whether the run was asked to stop; a wait inside `interruptible` is cut short by `Stopped`.

    Parameters
    ----------
    impatient : bool
        End the process some seconds after a second Ctrl-C, whatever it does. For processes of the run alone.

    Attributes
    ----------
    pending : bool
    unsaved : bool
        Whether there are steps to save before the run can end, which decides on what the user is told.
    """

    def __init__(self, impatient: bool = False) -> None:
        self.pending, self.unsaved = False, False
        self._impatient = impatient
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

    def check(self) -> None:
        """Raise `Stopped` if the request has come."""
        if self.pending:
            raise Stopped

    def call(self, work: Callable[[], Result], undo: Callable[[Result], object] = lambda _: None) -> Result:
        """Return ``work()``, unless `Stopped` is raised first; the work then goes on in a thread, and is undone.

        It is for work of minutes that nothing can interrupt, such as compiling, and for what must not be cut short in
        the midst, such as starting other processes.
        """
        future: Future[Result] = Future()
        taken = False

        def run() -> None:
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        try:
            with self.interruptible():
                threading.Thread(target=run, name=ABANDONED, daemon=True).start()
                while not future.done():  # a signal that another thread received ends no wait
                    wait([future], _LOOK)
                    if not future.done():
                        self.check()  # it may have been raised in a finalizer, where Python drops it
                taken = True
            return future.result()
        finally:
            if not taken:
                future.add_done_callback(lambda done: None if done.exception() else undo(done.result()))

    @contextlib.contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Listen to signals; outside of the main thread, leave them to whoever runs us."""
        before: dict[int, Any] = {}
        try:
            for kind in SIGNALS:
                if kind != signal.SIGHUP or signal.getsignal(kind) != signal.SIG_IGN:  # as under nohup
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
        answered = False
        while number := signals.recv(1):  # b"" once the other end is closed
            if number[0] not in SIGNALS:
                continue
            if not answered:
                answered = True
                again = "again" if number[0] == signal.SIGINT else "Ctrl-C"
                with contextlib.suppress(OSError):
                    text = f": saving; {again} to leave without" if self.unsaved else ""
                    os.write(2, f"stopping{text}\n".encode())
            elif number[0] == signal.SIGINT and self._impatient:
                # The main thread may be where no signal reaches it: waiting for a step, or for a disk.
                ending = threading.Timer(_GRACE, os._exit, (_INTERRUPTED,))
                ending.daemon = True
                ending.start()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.pending = True
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a Ctrl-C from now on does not wait
        if self._waiting:
            self._waiting = False
            raise Stopped
