"""Workers as Slurm jobs of dask-jobqueue, which takes queue, account, walltime and the rest from Dask's configuration.

Its jobs are kept here and not by its ``SLURMCluster`` (0.9), which does not notice that a job ended before its worker
came (cancelled while it waited, a node that fails): of three jobs, one cancelled, two were left 150 s later, and here
another is submitted within a minute. The queue is looked at.
"""

from __future__ import annotations

import asyncio
import logging
import math
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask

from vis2img.cluster.credentials import Credentials
from vis2img.cluster.settings import MEMORY, dask_environment, thread_environment
from vis2img.errors import ParameterError, Vis2imgError

if TYPE_CHECKING:
    from dask_jobqueue.slurm import SLURMJob
    from distributed import Scheduler
    from distributed.security import Security

CONFIG = "~/.config/dask/jobqueue.yaml"
_LOGS = "slurm-logs"
_TERMINATE = 0.9  # of the memory of a job: its worker is restarted before Slurm would end the job
_REMOVE_SCRATCH = """trap 'rm -rf "$VIS2IMG_SCRATCH"' EXIT"""
_POLL_SECONDS = 1.0
_LOOK_SECONDS = 30.0  # between looks at the queue, which the whole site shares
_TELL_SECONDS = 60.0
_HOPELESS = 3  # jobs that end without a worker before the first worker came
Tell = Callable[..., None]
"""Takes ``log`` and ``level``, or ``ready``, or ``error``."""


class SlurmWorkers:
    """Slurm jobs of ``workers`` workers in all, each of ``threads`` cores.

    ``memory`` is the bytes of each worker; 0: what the configuration says of a job.

    Raises
    ------
    Vis2imgError
        If dask-jobqueue or sbatch is missing, or Slurm refuses the jobs.
    ParameterError
        If nothing says how much memory a job needs.
    """

    def __init__(
        self, workers: int, threads: int, memory: int, dashboard: bool, credentials: Credentials, tell: Tell
    ) -> None:
        _try(make_job("tcp://scheduler:8786", "trial", threads, memory).job_script())
        self._threads, self._memory, self._credentials, self._tell = threads, memory, credentials, tell
        self._wanted = math.ceil(workers / _processes())
        self._jobs: list[SLURMJob] = []
        self._keys: Path | None = None
        self._submitted = self._ended = 0
        self._looked = time.monotonic()
        given = _given("scheduler-options") or {}
        options: dict[str, Any] = {"dashboard": dashboard, "dashboard_address": "127.0.0.1:8787"}
        if not given.keys() & {"host", "interface"}:
            options["interface"] = _given("interface")
        self.scheduler_options = {**options, **given, "protocol": "tls://", "security": credentials.security()}

    async def start(self, scheduler: Scheduler, stop: asyncio.Event) -> None:
        """Submit the jobs and wait for the first worker, however long the queue is.

        Raises
        ------
        Vis2imgError
            If jobs end without a worker.
        """
        self._address = scheduler.address
        # Jobs find the key in files: what stands in a command line, all users of a machine can read.
        self._keys = Path(tempfile.mkdtemp(prefix="vis2img-key-", dir=_shared_folder()))
        self._security = self._credentials.write(self._keys)
        await self._submit()

        told = -math.inf
        while not scheduler.workers and not stop.is_set():
            if time.monotonic() - told > _TELL_SECONDS:
                self._tell(log=f"waiting for the first of {self._wanted} Slurm jobs to start", level=logging.INFO)
                told = time.monotonic()
            await asyncio.sleep(_POLL_SECONDS)
            await self.watch()
            if self._ended >= min(_HOPELESS, self._wanted):
                raise Vis2imgError(
                    f"the Slurm jobs end before their Dask worker is there; {_given('log-directory') or _LOGS} says why"
                )

    async def watch(self) -> None:
        """Submit jobs for those that ended, for whatever reason and whether or not their worker ever came."""
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        command = ["squeue", "--me", "--noheader", "--format=%A"]
        listed = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
        if listed.returncode:  # the controller is away for a while
            return
        there = set(listed.stdout.split())
        for job in [job for job in self._jobs if job.job_id not in there]:
            self._ended += 1
            self._tell(log=f"Slurm job {job.job_id} has ended; another is submitted", level=logging.INFO)
            self._jobs.remove(job)
        await self._submit()

    async def end(self) -> None:
        """Cancel the jobs, and remove their key."""
        try:
            await asyncio.gather(*(job.close() for job in self._jobs))
        finally:
            if self._keys:
                shutil.rmtree(self._keys, ignore_errors=True)

    async def _submit(self) -> None:
        """Submit as many jobs as are missing."""

        async def submit() -> None:
            self._submitted += 1
            job = make_job(self._address, f"vis2img-{self._submitted}", self._threads, self._memory, self._security)
            await job.start()
            self._jobs.append(job)

        await asyncio.gather(*(submit() for _ in range(self._wanted - len(self._jobs))))


def make_job(address: str, name: str, threads: int, memory: int, security: Security | None = None) -> SLURMJob:
    """Return a job, not yet submitted, with one Dask thread and ``threads`` cores in each of its workers.

    ``security`` names the files of the key, which all nodes must see. Workers have a folder that nobody else can move,
    as they import from it, and serve no pages.

    Raises
    ------
    Vis2imgError
        If dask-jobqueue or sbatch is missing.
    ParameterError
        If nothing says how much memory a job needs.
    """
    try:
        from dask_jobqueue.slurm import SLURMJob
    except ImportError:
        raise Vis2imgError("Slurm workers need dask-jobqueue: pip install 'vis2img[slurm]'") from None
    if not shutil.which("sbatch"):
        raise Vis2imgError("sbatch is not on the PATH; start on a machine that submits Slurm jobs, or load its module")
    if not memory and not _given("memory"):
        raise ParameterError(
            f"Slurm jobs need their memory: give worker_memory, or memory under jobqueue: slurm: in {CONFIG}"
        )
    processes = _processes()
    settings = {**MEMORY, "distributed.worker.memory.terminate": _TERMINATE, "distributed.worker.http.routes": []}
    variables = thread_environment(threads) | dask_environment(settings)
    before = _given("job-script-prologue") or _given("env-extra") or []
    scratch = _given("local-directory") or "${TMPDIR:-/tmp}"
    folder = [f'VIS2IMG_SCRATCH=$(mktemp -d "{scratch}/vis2img-workers-XXXXXXXX")', _REMOVE_SCRATCH]
    return SLURMJob(
        address,
        name,
        cores=processes,  # the threads of Dask, one in each process
        job_cpu=_given("job-cpu") or processes * threads,
        processes=processes,
        memory=f"{processes * memory}B" if memory else None,
        job_script_prologue=[*before, *folder, *(f"export {name}={value}" for name, value in variables.items())],
        local_directory='"$VIS2IMG_SCRATCH"',
        protocol="tls://",
        security=security,
        worker_extra_args=["--dashboard-address", "127.0.0.1:0", *(_given("worker-extra-args") or [])],
        log_directory=_given("log-directory") or _LOGS,
    )


def _shared_folder() -> Path:
    """Return a folder that the nodes of the jobs see: what the user says, or that of the jobs' output."""
    folder = Path(_given("shared-temp-directory") or _given("log-directory") or _LOGS).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def _given(name: str) -> Any:
    """Return a value of the user's configuration of dask-jobqueue."""
    return dask.config.get(f"jobqueue.slurm.{name}", None)


def _processes() -> int:
    """Return the workers of each job."""
    return _given("processes") or 1


def _try(script: str) -> None:
    """Let Slurm say whether it would take a job, and why not."""
    result = subprocess.run(["sbatch", "--test-only"], input=script, capture_output=True, text=True)
    if result.returncode:
        lines = [
            line.removeprefix("sbatch: ").removeprefix("error: ") for line in result.stderr.splitlines() if line.strip()
        ]
        raise Vis2imgError(f"Slurm refuses the jobs of the workers: {'; '.join(lines)} (set in {CONFIG})")
