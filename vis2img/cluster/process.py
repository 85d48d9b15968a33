"""The process that holds a Dask scheduler and keeps its workers, as its owner sees it.

It is kept out of the process that trains: scheduling and watching workers take nothing of the interpreter lock there,
and what Dask and its workers write to the terminal is caught. It ends, and its workers with it, when its owner closes
it or dies in any way. What Dask starts by itself falls short of that (distributed 2026.8):

- ``LocalCluster`` in the owner's process: each worker imports the main script, and JAX with it; a script without
  ``if __name__ == "__main__"`` fails, with 200 lines on the terminal.
- ``dask scheduler`` and ``dask worker`` as commands outlive an owner that is killed; where the scheduler dies, a worker
  that is at work ends 34 s later. Of ``dask worker --nworkers 2`` a worker whose nanny has failed does not come back.

The two ends speak in lines of JSON: the first line of standard input holds ``path`` (``sys.path``) and the arguments of
:func:`vis2img.cluster.workers.serve`, and the end of standard input ends the process; it answers with lines
``{"log": .., "level": ..}``, and one ``{"ready": ADDRESS, "credentials": ..}`` or ``{"error": ..}``. The key of the run
lies in that pipe and in memory alone.

Signals do not end it, nor its workers: batch systems send them to every process of a job, and the owner decides what
they mean.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

from vis2img.cluster.settings import thread_environment
from vis2img.errors import Vis2imgError

log = logging.getLogger("vis2img.cluster")
_SECTIONS = ("distributed", "jobqueue", "temporary-directory")  # of Dask's configuration, as the owner has them
_CLOSE_SECONDS = 60.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# Ignored signals stay ignored in the processes that it starts.
_PROGRAM = (
    f"import json, signal, sys; stop = {[int(number) for number in _SIGNALS]}; "
    "[signal.signal(one, signal.SIG_IGN) for one in stop]; signal.pthread_sigmask(signal.SIG_UNBLOCK, stop); "
    "given = json.loads(sys.stdin.readline()); sys.path[:] = given.pop('path'); "
    "from vis2img.cluster.workers import serve; serve(**given)"
)


class ClusterProcess:
    """The end of the owner, who gives the arguments of :func:`vis2img.cluster.workers.serve` but ``config``."""

    def __init__(self, threads: int, **settings: Any) -> None:
        import dask

        with _blocked_signals():  # until it ignores them
            self._process = subprocess.Popen(
                # Nothing is imported from the folder that it starts in, which others may write to.
                [sys.executable, "-P", "-c", _PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env={**os.environ, **thread_environment(threads)},
                start_new_session=True,
            )
        assert self._process.stdin
        self._stdin = self._process.stdin
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._last: deque[str] = deque(maxlen=1)
        self._errors = threading.Thread(target=self._read_errors, daemon=True)
        self._errors.start()
        threading.Thread(target=self._read_answers, daemon=True).start()

        config = {name: dask.config.config[name] for name in _SECTIONS if name in dask.config.config}
        given = {"path": sys.path, "config": config, "threads": threads, **settings}
        with contextlib.suppress(BrokenPipeError):
            self._stdin.write(json.dumps(given) + "\n")
            self._stdin.flush()

    def address(self) -> tuple[str, dict[str, str]]:
        """Return the address of the scheduler and the record of the credentials for it, once there are workers.

        Raises
        ------
        Vis2imgError
            If it cannot start.
        """
        answer = self._answers.get()
        if "error" in answer:
            raise Vis2imgError(answer["error"])
        return answer["ready"], answer["credentials"]

    def close(self) -> None:
        """End the process and its workers."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        try:
            self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()  # its workers see that, and end
            self._process.wait()

    def _read_answers(self) -> None:
        assert self._process.stdout
        with self._process.stdout as lines:
            for line in lines:
                answer = json.loads(line)
                if "log" in answer:
                    log.log(answer["level"], "%s", answer["log"])
                else:
                    self._answers.put(answer)
        self._errors.join()
        why = f": {self._last[0]}" if self._last else ""
        self._answers.put({"error": f"the process of the Dask scheduler ended{why}"})

    def _read_errors(self) -> None:
        assert self._process.stderr
        with self._process.stderr as lines:
            for line in filter(str.strip, lines):
                self._last.append(line.strip())
                log.debug("%s", line.rstrip())


@contextlib.contextmanager
def _blocked_signals() -> Iterator[None]:
    """Let signals to this thread wait, and to processes that it starts."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
