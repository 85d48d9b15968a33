"""Requests to stop cut waits short, reach through code that catches errors, and leave the handlers as they were."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from vis2img.train.run.stopping import SIGNALS, Stopped, StopRequest


@pytest.fixture(autouse=True)
def handlers_stay() -> Iterator[None]:
    """Fail if a test leaves other handlers than it found, and put these back for the next."""
    outside = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has it ignored, which is heeded
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    after = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in {**before, signal.SIGHUP: outside}.items():
        signal.signal(number, handler)
    assert after == before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_work_goes_on(number: signal.Signals) -> None:
    with StopRequest().listening() as stop:
        assert not stop.pending
        signal.raise_signal(number)  # nobody waits, so nothing is raised
        assert stop.pending


def test_a_wait_after_the_request_does_not_begin() -> None:
    begun = False
    with StopRequest().listening() as stop:
        signal.raise_signal(signal.SIGTERM)
        for _ in range(2):  # whoever waits again is told again
            with pytest.raises(Stopped), stop.interruptible():
                begun = True
    assert not begun


@pytest.mark.parametrize("number", SIGNALS)
def test_a_wait_is_cut_short(number: signal.Signals) -> None:
    never = threading.Event()
    with StopRequest().listening() as stop:
        sender = threading.Timer(0.2, os.kill, (os.getpid(), number))
        sender.start()
        with pytest.raises(Stopped), stop.interruptible():
            never.wait(30)
            pytest.fail("the wait was not cut short")
        sender.join()
        assert stop.pending


def test_a_wait_that_ended_is_not_cut() -> None:
    with StopRequest().listening() as stop:
        with stop.interruptible():
            pass
        signal.raise_signal(signal.SIGTERM)
        assert stop.pending


def test_an_error_in_a_wait_ends_it() -> None:
    with StopRequest().listening() as stop:
        with pytest.raises(KeyError), stop.interruptible():
            raise KeyError
        signal.raise_signal(signal.SIGTERM)
        assert stop.pending


def test_code_that_catches_its_own_errors_does_not_swallow_the_request() -> None:
    """As in the pool of draws, where whatever goes wrong with a draw gives its field up."""
    swallowed = True
    with StopRequest().listening() as stop, contextlib.suppress(Stopped), stop.interruptible():
        try:
            signal.raise_signal(signal.SIGTERM)
        except Exception:
            pytest.fail("taken for an error")
        except BaseException:
            swallowed = False
            raise
    assert not swallowed


def test_clean_up_after_the_request_is_not_cut_again() -> None:
    """Slurm and impatient people signal more than once."""
    cleaned = False
    with StopRequest().listening() as stop, pytest.raises(Stopped), stop.interruptible():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            cleaned = True
    assert cleaned


def test_a_second_ctrl_c_does_not_wait() -> None:
    with StopRequest().listening() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.pending
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_after_a_warning_of_slurm_does_not_wait() -> None:
    with StopRequest().listening():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    ("number", "unsaved", "line"),
    [
        (signal.SIGINT, True, "stopping: saving; again to leave without\n"),
        (signal.SIGTERM, True, "stopping: saving; Ctrl-C to leave without\n"),
        (signal.SIGTERM, False, "stopping\n"),
        (signal.SIGHUP, False, "stopping\n"),
        (signal.SIGUSR1, True, "stopping: saving; Ctrl-C to leave without\n"),
    ],
)
def test_a_request_is_answered_once(number: int, unsaved: bool, line: str, capfd) -> None:
    with StopRequest().listening() as stop:
        stop.unsaved = unsaved
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGTERM)
    assert capfd.readouterr() == ("", line)


LOCKED_OUT = """
import ctypes, os, sys
from vis2img.train.run.stopping import StopRequest
mutex, lock = ctypes.create_string_buffer(64), ctypes.CDLL(None).pthread_mutex_lock
with StopRequest(impatient=len(sys.argv) > 1).listening():
    lock(mutex)
    os.write(1, b"x")
    lock(mutex)  # for ever: no signal brings the main thread back to the interpreter
"""


def test_a_request_is_answered_while_the_handler_cannot_run() -> None:
    """As in the compiler, or while a step is waited for."""
    with subprocess.Popen(
        [sys.executable, "-c", LOCKED_OUT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_found_here()
    ) as process:
        assert process.stdout and process.stderr
        process.stdout.read(1)
        process.send_signal(signal.SIGTERM)
        answer = process.stderr.readline()
        process.kill()
    assert answer == b"stopping\n"


def test_a_second_ctrl_c_ends_what_no_handler_reaches() -> None:
    command = [sys.executable, "-c", LOCKED_OUT, "impatient"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_found_here()) as process:
        assert process.stdout and process.stderr
        process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == b"stopping\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130


def test_a_terminal_that_closes_ends_nothing_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest().listening() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.pending
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_is_done_for_nobody_is_undone() -> None:
    undone: list[str] = []
    ready, release = threading.Event(), threading.Event()

    def work() -> str:
        signal.raise_signal(signal.SIGUSR1)
        release.wait(30)
        return "workers"

    with StopRequest().listening() as stop:
        with pytest.raises(Stopped):
            stop.call(work, lambda value: (undone.append(value), ready.set()))
        assert not undone
        release.set()
        assert ready.wait(30) and undone == ["workers"]
    with StopRequest().listening() as stop:
        assert stop.call(lambda: "kept", undone.append) == "kept"
    assert undone == ["workers"]


def _found_here() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_work_that_nothing_interrupts_is_left_to_itself() -> None:
    release, ended = threading.Event(), threading.Event()

    def work() -> None:
        signal.raise_signal(signal.SIGTERM)
        release.wait(30)
        ended.set()

    with StopRequest().listening() as stop:
        with pytest.raises(Stopped):
            stop.call(work)
        assert not ended.is_set()
        release.set()
        assert ended.wait(30)


def test_work_in_a_thread_returns_and_fails_as_it_would_here() -> None:
    with StopRequest().listening() as stop:
        assert stop.call(lambda: 5) == 5
        with pytest.raises(KeyError, match="why"):
            stop.call(lambda: {}["why"])


@pytest.mark.parametrize("asked", [False, True])
def test_the_handlers_come_back(asked: bool) -> None:
    seen: list[int] = []

    def mine(number: int, frame: object) -> None:
        seen.append(number)

    before = {number: signal.signal(number, mine) for number in SIGNALS}
    try:
        with contextlib.suppress(KeyError), StopRequest().listening():
            if asked:
                signal.raise_signal(signal.SIGINT)  # puts another handler in the place of the first
            raise KeyError  # also after an error
        assert all(signal.getsignal(number) is mine for number in SIGNALS)
        signal.raise_signal(signal.SIGTERM)
        assert seen == [signal.SIGTERM]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_outside_of_the_main_thread_signals_are_left_alone() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    seen: list[bool] = []

    def work() -> None:
        with StopRequest().listening() as stop, stop.interruptible():
            seen.append([signal.getsignal(number) for number in SIGNALS] == before)
            seen.append(stop.pending)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True, False]


def test_a_request_whose_exception_was_dropped_ends_work_all_the_same() -> None:
    """As Python does with what is raised in a finalizer."""
    stop, over = StopRequest(), threading.Event()

    def work() -> None:
        stop.pending = True
        over.wait(60)

    with pytest.raises(Stopped):
        stop.call(work)
    assert not over.is_set()
    over.set()
