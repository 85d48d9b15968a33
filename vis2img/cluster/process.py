"""A Dask scheduler in a process of its own, with the workers that it starts: processes here, or Slurm jobs.

It is kept out of the process that trains: scheduling and watching workers take nothing of the interpreter lock there;
workers import neither the main script nor JAX, as they would if that process spawned them; what Dask and its workers
write to the terminal is caught. It ends, and its workers with it, when its owner closes it or dies in any way.

The two ends speak in lines of JSON: the first line of standard input holds ``path`` (``sys.path``) and the arguments of
:func:`serve`, and the end of standard input ends the process; it answers with lines ``{"log": .., "level": ..}``, and
one ``{"ready": ..}`` or ``{"error": ..}``.
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
from collections.abc import Callable, Iterator
from typing import Any

from vis2img.errors import Vis2imgError

log = logging.getLogger("vis2img.cluster")
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "DUCC0_NUM_THREADS",
)
# Draws are large arrays that leave a worker soon: nothing is written to disk, and no worker pauses for want of memory.
MEMORY = {"target": False, "spill": False, "pause": False}
_DASK = {
    # Workers also die through no fault of their draw: preempted, at the end of a job, for the memory of another.
    "distributed.scheduler.allowed-failures": 10,
    # A long read holds the interpreter lock of a worker, and with it the heartbeat.
    "distributed.scheduler.worker-ttl": "15 minutes",
    **{f"distributed.worker.memory.{name}": value for name, value in MEMORY.items()},
    "distributed.worker.memory.terminate": 1.0,
    # Nannies start workers anew; what is gone for so long has no nanny, or a nanny that failed.
    "distributed.deploy.lost-worker-timeout": "2 minutes",
}
_SECTIONS = ("distributed", "jobqueue", "temporary-directory")
_NICENESS = 10  # training and the threads that batch for it come first where cores are scarce
_WATCH_SECONDS = 10.0
_CLOSE_SECONDS = 60.0
_PROGRAM = (
    "import json, sys; given = json.loads(sys.stdin.readline()); sys.path[:] = given.pop('path'); "
    "from vis2img.cluster.process import serve; serve(**given)"
)
Tell = Callable[..., None]
Started = Iterator[tuple[Any, Callable[[], None]]]


class ClusterProcess:
    """The end of the owner.

    Parameters
    ----------
    threads : int
        What ducc0, numba and BLAS may use in each worker.
    **settings
        The other arguments of :func:`serve`, without ``config``.
    """

    def __init__(self, threads: int, **settings: Any) -> None:
        import dask

        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))},
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

    def wait(self) -> tuple[str, str | None]:
        """Return the addresses of the scheduler and of its dashboard, once there are workers.

        Raises
        ------
        Vis2imgError
            If it cannot start.
        """
        answer = self._answers.get()
        if "error" in answer:
            raise Vis2imgError(answer["error"])
        return answer["ready"]["address"], answer["ready"]["dashboard"]

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


def serve(*, kind: str, workers: int, threads: int, memory: int, dashboard: bool, config: dict[str, Any]) -> None:
    """Run in the new process: start a scheduler and workers, and keep them until standard input ends.

    Parameters
    ----------
    kind : {"local", "slurm"}
    workers, threads : int
        Worker processes, and cores of each.
    memory : int
        Bytes that each may reach; for Slurm 0: what the configuration of dask-jobqueue says.
    dashboard : bool
    config : dict
        Sections of Dask's configuration, as the owner has them.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what workers print is no answer
    writing = threading.Lock()

    def tell(**answer: Any) -> None:
        with writing, contextlib.suppress(BrokenPipeError):
            print(json.dumps(answer), file=answers, flush=True)

    stop = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the owner decides what Ctrl-C means
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())

    def end() -> None:
        os.read(0, 1)
        stop.set()

    threading.Thread(target=end, daemon=True).start()
    import dask

    dask.config.update(dask.config.config, config)
    dask.config.set(_DASK)
    try:
        if kind == "slurm":
            from vis2img.cluster.slurm import slurm

            started = slurm(workers, threads, memory, dashboard, stop, tell)
        else:
            started = _local(workers, memory, dashboard)
        with started as (cluster, watch):
            if not stop.is_set():
                link = cluster.dashboard_link if dashboard else None
                tell(ready={"address": cluster.scheduler_address, "dashboard": link})
            while not stop.wait(_WATCH_SECONDS):
                try:
                    watch()
                except Exception as error:  # looked at again soon; the draws go on
                    tell(log=f"the workers could not be looked at: {error!r}", level=logging.WARNING)
    except Vis2imgError as error:
        tell(error=str(error))
    except Exception as error:
        first: BaseException = error
        while first.__cause__ or first.__context__:
            first = first.__cause__ or first.__context__ or first
        tell(error=f"the Dask workers cannot start: {type(first).__name__}: {first}".partition("\n")[0])
        raise


@contextlib.contextmanager
def _local(workers: int, memory: int, dashboard: bool) -> Started:
    """Start worker processes on this machine, spawned from here and each watched by a nanny."""
    import dask
    from distributed import LocalCluster

    preload = dask.config.get("distributed.worker.preload")
    address = "127.0.0.1:8787" if dashboard else "127.0.0.1:0"
    with LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        memory_limit=memory,
        preload=[*([preload] if isinstance(preload, str) else preload), __name__],
        scheduler_kwargs={"dashboard": dashboard, "dashboard_address": address},
        silence_logs=False,
    ) as cluster:
        yield cluster, _Mend(cluster, workers)
        cluster.sync(_kill, cluster)


class _Mend:
    """Starts nannies anew that failed, or were closed by Dask as their worker was away when it looked."""

    def __init__(self, cluster: Any, workers: int) -> None:
        self.cluster, self.workers = cluster, workers
        self._away: set[int] = set()

    def __call__(self) -> None:
        """Look once; a worker that is away twice does not come back by itself."""
        self.cluster.sync(self._look)
        self.cluster.scale(self.workers)

    async def _look(self) -> None:
        nannies = self.cluster.workers
        away = {name for name, nanny in nannies.items() if not nanny.is_alive()}
        for name in away & self._away:
            await nannies.pop(name).close()
        self._away = away


async def _kill(cluster: Any) -> None:
    """End workers without waiting for draws that nobody wants any more."""
    for nanny in cluster.workers.values():
        nanny.close_gracefully()  # or it would start a worker anew
        if nanny.pid:
            os.kill(nanny.pid, signal.SIGKILL)


def dask_setup(worker: Any) -> None:
    """Lower the priority of a worker that Dask starts with this module as a preload."""
    os.nice(_NICENESS)
