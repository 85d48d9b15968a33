"""What signals do to a command that does not answer them itself; a real process each."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

COMMAND = """
import gc, os, signal, sys, threading, time
from vis2img.cli import info, main, signals

def drop(*_):  # Python drops what is raised in callbacks of the collector
    gc.callbacks.clear()
    signal.raise_signal(NUMBER)

def run(argv, prog):
    WHAT
    return 0

info.run = run
sys.argv = ["vis2img", "info"]
sys.exit(main())
"""
TWICE = """
    try:
        signal.raise_signal(NUMBER)
    finally:
        if NUMBER != signal.SIGINT:
            signal.raise_signal(NUMBER)
"""
DROPPED = """
    gc.callbacks.append(drop)
    gc.collect()
    time.sleep(20)
"""
LATE = """
    begin = threading.Event()
    def late():
        begin.wait()
        time.sleep(0.2)  # the main thread waits for this one
        os.kill(os.getpid(), NUMBER)
        time.sleep(0.2)
    threading.Thread(target=late).start()
    begin.set()
"""


def ended(what: str, number: int) -> tuple[int, str, str]:
    """Return exit status and streams of a command that does something to itself."""
    program = COMMAND.replace("    WHAT", what.strip("\n")).replace("NUMBER", str(int(number)))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("what", [TWICE, DROPPED], ids=["twice", "dropped"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_with_one_line(what: str, number: signal.Signals) -> None:
    told = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
    assert ended(what, number) == (128 + number, "", f"vis2img: error: {told}\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_after_the_work_makes_no_failure_of_it(number: signal.Signals) -> None:
    assert ended(LATE, number) == (0, "", "")


def test_a_signal_that_is_ignored_stays_so() -> None:
    """As under nohup."""
    program = "signal.signal(NUMBER, signal.SIG_IGN); signals.listen(); signal.raise_signal(NUMBER)"
    assert ended(f"    {program}", signal.SIGHUP) == (0, "", "")
