"""Commands in processes of their own, which can be killed: forked from a server that has the libraries loaded.

What is killed is then the work of a command and not the start of Python, and a hundred kills take minutes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_PRELOADED = [
    "vis2img.cli",
    "vis2img.averaging.run",
    "vis2img.simulate.run",
    "vis2img.train.embed.job",
    "vis2img.train.run.run",
]


def _main(argv: Sequence[str], log: str, environment: dict[str, str]) -> None:
    os.setsid()  # a group of its own, which is killed as a whole
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.environ.update(environment)
    from vis2img.cli import main

    sys.exit(main(argv))


@dataclass
class Command:
    """A command line that runs in a process of its own."""

    argv: Sequence[str]
    log: Path
    environment: dict[str, str]

    def __post_init__(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        arguments = list(map(str, self.argv)), str(self.log), self.environment
        self.process = context.Process(target=_main, args=arguments)
        self.process.start()
        self.began = time.monotonic()

    def wait(self, until: Callable[[], bool] = lambda: False, seconds: float = 240.0) -> float:
        """Wait for the end, for what ``until`` looks for or for some seconds; return how long it ran so far."""
        deadline = time.monotonic() + seconds
        while self.process.is_alive() and not until() and time.monotonic() < deadline:
            time.sleep(0.002)
        return time.monotonic() - self.began

    def kill(self, group: bool) -> None:
        """Kill the process, or its whole group."""
        if self.process.is_alive():
            (os.killpg if group else os.kill)(self.process.pid, signal.SIGKILL)
        self.process.join()

    def end(self) -> None:
        """Wait for the end, which must be a good one."""
        self.wait()
        assert not self.process.is_alive(), f"{self.argv} does not end: {self.log.read_text()}"
        self.process.join()
        assert self.process.exitcode == 0, f"{self.argv} ended with {self.process.exitcode}: {self.log.read_text()}"
