"""Inside the process of the scheduler: Dask's scheduler, and the workers that are kept at it until the owner ends.

All listen on the loopback device alone, for connections that show the key of the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import dask
from distributed import Nanny, Scheduler, Worker

from vis2img.cluster.credentials import Credentials, new_credentials
from vis2img.cluster.scratch import ScratchFolder, name_semaphores
from vis2img.cluster.settings import NICENESS, SETTINGS
from vis2img.cluster.slurm import SlurmWorkers, Tell
from vis2img.errors import Vis2imgError

_SCRATCH = "vis2img-workers-"
_WATCH_SECONDS = 10.0


def serve(*, kind: str, workers: int, threads: int, memory: int, dashboard: bool, config: dict[str, Any]) -> None:
    """Start a scheduler and workers of a ``kind`` (local or slurm), and keep them until standard input ends.

    ``threads`` are the cores and ``memory`` the bytes of each, 0 for Slurm being what the configuration of
    dask-jobqueue says; ``config`` are sections of Dask's configuration, as the owner has them.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what workers print is no answer

    def tell(**answer: Any) -> None:
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(answer), file=answers, flush=True)

    dask.config.update(dask.config.config, config)
    dask.config.set(SETTINGS)
    try:
        # Workers import from their folders: nobody else may be able to move those.
        scratch = ScratchFolder(_SCRATCH, dask.config.get("temporary-directory") or tempfile.gettempdir())
        name_semaphores(scratch)
        tempfile.tempdir = str(scratch.path)  # job scripts and keys for OpenSSL lie there for a moment
        credentials = new_credentials()
        try:
            keeper: LocalWorkers | SlurmWorkers
            if kind == "slurm":
                keeper = SlurmWorkers(workers, threads, memory, dashboard, credentials, tell)
            else:
                keeper = LocalWorkers(workers, memory, dashboard, credentials, scratch.path)
            asyncio.run(_keep(keeper, credentials, tell))
        finally:
            scratch.close()
    except Vis2imgError as error:
        tell(error=str(error))
    except Exception as error:
        first: BaseException = error
        while first.__cause__ or first.__context__:
            first = first.__cause__ or first.__context__ or first
        tell(error=f"the Dask workers cannot start: {type(first).__name__}: {first}".partition("\n")[0])
        raise


async def _keep(workers: LocalWorkers | SlurmWorkers, credentials: Credentials, tell: Tell) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def end() -> None:  # of standard input, to which nothing more is written
        loop.remove_reader(sys.stdin)
        stop.set()

    loop.add_reader(sys.stdin, end)

    kind = Scheduler if workers.scheduler_options["dashboard"] else SilentScheduler
    async with kind(**workers.scheduler_options) as scheduler:
        try:
            await workers.start(scheduler, stop)
            if not stop.is_set():
                tell(ready=scheduler.address, credentials=credentials.record())
            while not await _is_set_within(stop, _WATCH_SECONDS):
                try:
                    await workers.watch()
                except Exception as error:  # looked at again soon; the draws go on
                    tell(log=f"the workers could not be looked at: {error!r}", level=logging.WARNING)
        finally:
            await workers.end()


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait so long at most for an event, and return whether it is set."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()


class _WithoutPages:
    """A node of Dask that serves no pages by HTTP, which anyone on the machine could read."""

    def start_http_server(self, *_: Any, **__: Any) -> None:
        """Start none."""


class SilentScheduler(_WithoutPages, Scheduler):
    """A scheduler without pages."""


class SilentWorker(_WithoutPages, Worker):
    """A worker without pages."""


class LocalWorkers:
    """Worker processes on this machine, spawned from here and each watched by a nanny of Dask."""

    def __init__(self, workers: int, memory: int, dashboard: bool, credentials: Credentials, scratch: Path) -> None:
        self._count, self._memory, self._scratch = workers, memory, scratch
        self._nannies: list[Nanny] = []
        self._away: set[Nanny] = set()
        self.scheduler_options = {
            "host": "127.0.0.1",
            "port": 0,
            "protocol": "tls://",
            "security": credentials.security(),
            "dashboard": dashboard,
            "dashboard_address": "127.0.0.1:8787",
        }

    async def start(self, scheduler: Scheduler, stop: asyncio.Event) -> None:
        """Return when all are there."""
        preload = dask.config.get("distributed.worker.preload")
        preload = [*([preload] if isinstance(preload, str) else preload), __name__]
        self._make = functools.partial(
            Nanny,
            scheduler.address,
            host="127.0.0.1",
            nthreads=1,
            memory_limit=self._memory,
            preload=preload,
            security=scheduler.security,
            worker_class=SilentWorker,
            local_directory=str(self._scratch),
        )
        self._nannies = [self._make(name=number) for number in range(self._count)]
        await asyncio.gather(*self._nannies)

    async def watch(self) -> None:
        """Start those anew that are away for the second time: their nanny has failed, or was closed."""
        away = {nanny for nanny in self._nannies if not nanny.is_alive()}
        for nanny in away & self._away:
            await nanny.close()
            self._nannies[self._nannies.index(nanny)] = await self._make(name=nanny.name)
        self._away = away

    async def end(self) -> None:
        """End them without waiting for draws that nobody wants any more."""
        for nanny in self._nannies:
            nanny.close_gracefully()  # or it would start a worker anew
            if nanny.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(nanny.pid, signal.SIGKILL)
        await asyncio.gather(*(nanny.close() for nanny in self._nannies), return_exceptions=True)


def dask_setup(worker: Worker) -> None:
    """Lower the priority of a worker that Dask starts with this module as a preload."""
    os.nice(NICENESS)
