"""The engine of the draws: Dask workers on this machine, of Slurm jobs, or of a scheduler that is there already.

>>> with connect(Engine(workers=2)) as connection:     # doctest: +SKIP
...     connection.client.submit(sum, [1, 2]).result()
3
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import re
import time
from dataclasses import dataclass
from typing import Any

from vis2img.cluster.process import ClusterProcess
from vis2img.errors import ParameterError, Vis2imgError
from vis2img.machine import cores, memory_limit
from vis2img.units import Memory

log = logging.getLogger("vis2img.cluster")
_ADDRESS = re.compile(r"((tcp|tls|ws|wss|ucx)://)?[^/\s]+:\d+|.+\.json")
_PATIENCE = 60.0
_WORKER_SHARE = 0.75  # of the memory, for all workers of this machine; the rest is for training
_LEAST_MEMORY = 1 << 30  # a worker of less could not image a field of a usual size


@dataclass(frozen=True)
class Engine:
    """Where draws are made: how many workers, and what each may use.

    Raises
    ------
    ParameterError
        If a number is out of range, or the scheduler cannot be one.
    """

    scheduler: str | None = None
    """slurm: a Slurm job for each worker; the address of a Dask scheduler (tcp://host:8786, tls://..), or its scheduler
    file (scheduler.json); default: workers on this machine."""
    workers: int = 0
    """Worker processes. 0: as many as the cores allow; at a scheduler that is there: its workers, whose number is
    waited for otherwise. For Slurm it must be given."""
    threads: int = 1
    """Threads of each worker, in ducc0 and numba; one, and more workers, is fastest. They change the last digits of
    images."""
    worker_memory: Memory = 0
    """Memory that a worker may reach before it is started anew. 0: three quarters of the machine's memory over its
    workers. A Slurm job asks for so much, or for what ~/.config/dask/jobqueue.yaml says."""
    dashboard: bool = False
    """Serve Dask's dashboard of the workers (needs bokeh)."""

    def __post_init__(self) -> None:
        if self.workers < 0 or self.threads < 1 or self.worker_memory < 0:
            raise ParameterError("threads must be at least 1, workers and worker_memory not negative")
        if self.scheduler == "slurm" and not self.workers:
            raise ParameterError("workers = 0: say how many Slurm workers to start, e.g. 32")
        if self.scheduler not in (None, "slurm") and not _ADDRESS.fullmatch(self.scheduler):
            raise ParameterError(
                f"scheduler {self.scheduler!r} is neither slurm nor the address of a Dask scheduler "
                "(tcp://host:8786) nor its scheduler file (scheduler.json)"
            )

    def processes(self) -> int:
        """Return the number of workers to start.

        Raises
        ------
        ParameterError
            If they are more than the cores of this machine, where they run here.
        """
        if self.scheduler is not None:
            return self.workers
        there = cores()
        workers = self.workers or max(1, there // self.threads)
        if workers * self.threads <= there:
            return workers
        fits = f"workers = {there // self.threads}" if self.threads <= there else f"workers = 1, threads = {there}"
        if 1 < self.threads <= there and workers <= there:
            fits += f" or threads = {there // workers}"
        raise ParameterError(
            f"{workers} workers x {self.threads} threads need {workers * self.threads} cores, and this machine has "
            f"{there}; {fits} would fit"
        )


class Connection:
    """A Dask client, and what was started for it; a context manager.

    Parameters
    ----------
    client : distributed.Client
    dashboard_link : str or None
        Address of Dask's dashboard.
    process : ClusterProcess, optional
        Scheduler and workers that end with the connection.
    """

    def __init__(self, client: Any, dashboard_link: str | None = None, process: ClusterProcess | None = None) -> None:
        self.client, self.dashboard_link, self._process = client, dashboard_link, process
        self._open, self._told = True, False
        self.lost_tasks = 0
        """Tasks that were repeated, as the worker that had begun them, or was about to, died."""
        client.subscribe_topic("all", self._log_workers)
        client.subscribe_topic("worker-restart-memory", self._log_memory)

    def close(self) -> None:
        """Close the client, and end what was started for it; a second call does nothing."""
        if self._open:
            self._open = False
            self.client.close()
            if self._process:
                self._process.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _log_workers(self, event: tuple[float, dict[str, Any]]) -> None:
        message = event[1]
        if message.get("action") == "add-worker":
            log.info("worker %s is there", message["worker"])
        elif message.get("action") == "remove-worker" and self._open:
            tasks = len(message.get("processing-tasks", ()))
            self.lost_tasks += tasks
            how = "left" if message.get("expected") else "died"
            log.info("worker %s %s; %d of its tasks are repeated", message["worker"], how, tasks)

    def _log_memory(self, event: tuple[float, dict[str, Any]]) -> None:
        # Once for all to see: a draw that is too large for one worker is too large for the next.
        level, self._told = logging.INFO if self._told else logging.WARNING, True
        log.log(
            level,
            "a worker was started anew as it reached %.1f GB; give more worker_memory, or fewer workers",
            event[1].get("rss", 0) / 1e9,
        )


def connect(engine: Engine, *, patience: float = _PATIENCE) -> Connection:
    """Start workers, or join those that are there.

    Parameters
    ----------
    engine : Engine
    patience : float
        Seconds that a scheduler may take to have workers, and at most 10 of them to answer.

    Returns
    -------
    Connection
        With at least one worker; more may come, and any may die and be replaced, at any time.

    Raises
    ------
    Vis2imgError
        If no scheduler answers, no worker comes, or workers run other versions than this process.
    ParameterError
        If Slurm jobs need their memory.
    """
    from vis2img.cluster.client import (
        ANSWER_SECONDS,
        address_of,
        catch_dask_logs,
        check_workers,
        open_client,
        warn_if_open,
    )

    if engine.dashboard and not importlib.util.find_spec("bokeh"):
        raise Vis2imgError("the dashboard needs bokeh: pip install 'vis2img[dashboard]'")
    catch_dask_logs()
    deadline = time.monotonic() + patience

    process = credentials = None
    with contextlib.ExitStack() as stack:
        if engine.scheduler is None or engine.scheduler == "slurm":
            process = _start(engine)
            stack.callback(process.close)
            address, credentials = process.address()
        else:
            address = address_of(engine.scheduler, patience)

        client = open_client(address, ANSWER_SECONDS if process else min(patience, ANSWER_SECONDS), credentials)
        stack.callback(client.close)
        if not process:
            warn_if_open(address)
            _wait_for_workers(client, max(1, engine.workers), deadline)
        if engine.scheduler is not None:
            check_workers(client)

        link = client.dashboard_link if engine.dashboard else None
        stack.pop_all()
    return Connection(client, link, process)


def _start(engine: Engine) -> ClusterProcess:
    """Start a scheduler and its workers."""
    workers, memory = engine.processes(), int(engine.worker_memory)
    if engine.scheduler is None and not memory:
        memory = max(int(_WORKER_SHARE * memory_limit()) // workers, _LEAST_MEMORY)
    kind = engine.scheduler or "local"
    return ClusterProcess(engine.threads, kind=kind, workers=workers, memory=memory, dashboard=engine.dashboard)


def _wait_for_workers(client: Any, wanted: int, deadline: float) -> None:
    """Wait for ``wanted`` workers, and be content with one at the end."""
    address = client.scheduler.address
    if len(client.nthreads()) < wanted:
        log.info("waiting for %d workers at %s", wanted, address)
    with contextlib.suppress(TimeoutError):
        client.wait_for_workers(wanted, timeout=max(0.1, deadline - time.monotonic()))
    there = client.nthreads()
    if not there:
        raise Vis2imgError(
            f"the Dask scheduler {address} has no workers; start some: dask worker {address} --nthreads 1"
        )
    if len(there) < wanted:
        log.warning("going on with %d workers, as no more of %d came", len(there), wanted)
    if max(there.values()) > 1:
        log.warning("workers with several Dask threads hold several draws at once; start them with --nthreads 1")
