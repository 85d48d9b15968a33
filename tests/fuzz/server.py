"""A warm process that forks one child for each run of the command line: most of a start is imports.

``python -m tests.fuzz.server`` images a small measurement set, which loads and compiles what imaging takes, and then
answers requests, one JSON object a line: it watches the time and the memory of each child. A child ends as a program
does, but for taking the interpreter apart, which would copy the memory that it shares with the server.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.helpers.measurement_sets import build_ms
from tests.helpers.places import ROOT

WARM = ("vis2img.averaging.store", "vis2img.cli.average", "tests.fuzz.readers")
_MOST_ADDRESSES = 64 << 30  # whatever is asked for: a net below the watch of the memory in use
_TICK = 0.01  # s


@dataclass(frozen=True)
class Run:
    """What a run left behind: exit status (negative: the signal), what it said, and why it was stopped, if it was."""

    code: int
    out: str
    err: str
    stopped: str
    seconds: float
    peak_bytes: int


class Server:
    """The client's end of a server process."""

    def __init__(self) -> None:
        one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.server"],
            cwd=ROOT,
            env={**os.environ, **one, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, argv: list[str], folder: Path, limit_bytes: int, limit_s: float) -> Run:
        """Run ``vis2img argv`` in ``folder``, with limits on time and on memory beyond what the server has."""
        assert self._process.stdin is not None and self._process.stdout is not None
        streams = folder.with_name(f"{folder.name}.out"), folder.with_name(f"{folder.name}.err")
        print(
            json.dumps([argv, str(folder), [str(path) for path in streams], limit_bytes, limit_s]),
            file=self._process.stdin,
            flush=True,
        )
        answer = json.loads(self._process.stdout.readline())
        said = [path.read_text(errors="replace") for path in streams]
        for path in streams:
            path.unlink()
        return Run(out=said[0], err=said[1], **answer)

    def close(self) -> None:
        """End the server."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@dataclass
class _Watched:
    """The state of a child that is waited for."""

    code: int = 0
    stopped: str = ""
    seconds: float = 0.0
    peak_bytes: int = 0


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


def _watch(pid: int, limit_bytes: int, limit_s: float) -> _Watched:
    """Wait for the child, and end it where it takes too much."""
    start, own, seen = time.monotonic(), _resident(os.getpid()), _Watched()
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        seen.seconds = time.monotonic() - start
        if done:
            break
        if _resident(pid) - own > limit_bytes:
            seen.stopped = "more than 1 GB"
        elif seen.seconds > limit_s:
            seen.stopped = "hangs"
        if seen.stopped:
            os.killpg(pid, signal.SIGKILL)
            _, status, usage = os.wait4(pid, 0)
            break
        time.sleep(_TICK)
    seen.code, seen.peak_bytes = os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024 - own
    if seen.peak_bytes > limit_bytes and not seen.stopped:
        seen.stopped = "more than 1 GB"
    return seen


def _become(argv: list[str], folder: str, streams: list[str]) -> None:
    """Make a forked child a run of the command line."""
    os.setsid()
    os.chdir(folder)
    for number, path in enumerate([os.devnull, *streams]):
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_ADDRESSES, _MOST_ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.argv = ["vis2img", *argv]


def _warm() -> None:
    """Import, and load, what most runs need; no thread may be left, which a fork would lose."""
    import vis2img.cli

    main, more = vis2img.cli.main, ("read", "tests.fuzz.readers", "read what slow commands read first")
    vis2img.cli.COMMANDS = (*vis2img.cli.COMMANDS, more)
    for name in WARM:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        path = build_ms(Path(folder) / "warm.ms").path
        options = ["--npix", "64", "--threads", "1", "--quiet"]
        assert main(["image", str(path), "-o", f"{folder}/warm.fits", *options]) == 0
    assert threading.active_count() == 1
    gc.collect()
    gc.freeze()  # else the first collection of each child would copy all that it shares


def serve() -> None:
    """Answer requests until there are none."""
    from vis2img.cli import main

    _warm()
    while line := os.read(0, 1 << 20):
        argv, folder, streams, limit_bytes, limit_s = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(argv, folder, streams)
            code = main(argv)
            atexit._run_exitfuncs()
            sys.stdout.flush()
            os._exit(code)
        print(json.dumps(asdict(_watch(pid, limit_bytes, limit_s))), flush=True)


if __name__ == "__main__":
    serve()
