"""What signals do to a command: SIGTERM and SIGHUP end it as Ctrl-C does, after it has put its things away.

A training answers them otherwise while it runs (:mod:`vis2img.train.run.stopping`).
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGHUP)
_ALL = (signal.SIGINT, *_ENDING, signal.SIGUSR1, signal.SIGUSR2)
_AGAIN = 0.05  # s


class Terminated(KeyboardInterrupt):
    """The command was asked to end by a signal other than Ctrl-C, with which it has all but the exit status in common.

    Parameters
    ----------
    number : int
        Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number, self.exit_code = number, 128 + number

    def __str__(self) -> str:
        return f"ended by {signal.Signals(self.number).name}"


class _Ending:
    """Raises `Terminated` once, as timeout(1) sends its signal to the process and to the group."""

    def __init__(self) -> None:
        self._asked = False
        self._usual = sys.unraisablehook

    def ask(self, number: int, frame: FrameType | None) -> None:
        if not self._asked:
            self._asked = True
            raise Terminated(number)

    def lost(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Send a signal again that came where Python drops exceptions: in finalizers and callbacks, as JAX has them."""
        error = unraisable.exc_value
        if isinstance(error, Exception):
            self._usual(unraisable)
        if not isinstance(error, KeyboardInterrupt):  # a training has noted that it is to stop
            return
        self._asked = False
        number = error.number if isinstance(error, Terminated) else signal.SIGINT
        later = threading.Timer(_AGAIN, signal.pthread_kill, (threading.main_thread().ident, number))
        later.daemon = True
        later.start()


def listen() -> None:
    """Raise `Terminated` in this process from now on, where a signal would end it and leave all as it lies."""
    ending = _Ending()
    sys.unraisablehook = ending.lost
    for number in _ENDING:
        if signal.getsignal(number) == signal.SIG_DFL:  # and not ignored, as under nohup
            signal.signal(number, ending.ask)


def finish(status: int) -> None:
    """Let no signal make a failure of what is done; what is interrupted can be interrupted again, while threads end."""
    for number in _ALL:
        signal.signal(number, signal.SIG_DFL if status and number == signal.SIGINT else signal.SIG_IGN)


def leave_work_behind(name: str) -> None:
    """End the process at once, when it comes to its end, where threads of a name are still at work.

    They compile, or take a step, for a training that was stopped: nothing ends that otherwise. All is done by then:
    what still comes by way of signals must not make a failure of it.
    """
    atexit.register(_leave, name)


def _leave(name: str) -> None:
    for number in _ALL:
        signal.signal(number, signal.SIG_IGN)
    if any(thread.name == name for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
