"""Workers as Slurm jobs, by dask-jobqueue, which reads queue, account, walltime and the rest from Dask's configuration.

dask-jobqueue notices that a worker is away, but not that a job ended before its worker came (cancelled while it
waited, a node that fails), so the queue is looked at.
"""

from __future__ import annotations

import contextlib
import logging
import math
import shutil
import subprocess
import threading
import time
from typing import Any

from vis2img.cluster.process import MEMORY, THREAD_VARIABLES, Started, Tell
from vis2img.errors import ParameterError, Vis2imgError

CONFIG = "~/.config/dask/jobqueue.yaml"
_LOGS = "slurm-logs"
_TERMINATE = 0.9  # of the memory of a job: its worker is restarted before Slurm would end the job
_POLL_SECONDS = 1.0
_LOOK_SECONDS = 30.0  # between looks at the queue, which the whole site shares
_TELL_SECONDS = 60.0
_HOPELESS = 3  # jobs that end without a worker before the first worker came


@contextlib.contextmanager
def slurm(workers: int, threads: int, memory: int, dashboard: bool, stop: threading.Event, tell: Tell) -> Started:
    """Submit jobs of ``workers`` workers in all, wait for the first, and keep their number; cancel them when left.

    Parameters
    ----------
    workers, threads : int
        Workers in all, and cores of each.
    memory : int
        Bytes of each; 0: what the configuration says of a job.
    dashboard : bool
    stop : threading.Event
        Ends the wait for the first worker.
    tell : callable
        Takes ``log`` and ``level``.

    Raises
    ------
    Vis2imgError
        If dask-jobqueue or sbatch is missing, Slurm refuses the jobs, or they end without a worker.
    """
    with slurm_cluster(threads, memory, dashboard) as cluster:
        _try(cluster.job_script())
        jobs = math.ceil(workers / _processes())
        cluster.adapt(minimum_jobs=jobs, maximum_jobs=jobs)
        watch = _Watch(cluster, tell)
        _first_worker(cluster, jobs, watch, stop, tell)
        yield cluster, watch


def slurm_cluster(threads: int, memory: int, dashboard: bool) -> Any:
    """Return a ``dask_jobqueue.SLURMCluster`` without jobs, of one Dask thread and ``threads`` cores per worker.

    Raises
    ------
    Vis2imgError
        If dask-jobqueue or sbatch is missing, or nothing says how much memory a job needs.
    """
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise Vis2imgError("Slurm workers need dask-jobqueue: pip install 'vis2img[slurm]'") from None
    if not shutil.which("sbatch"):
        raise Vis2imgError("sbatch is not on the PATH; start on a machine that submits Slurm jobs, or load its module")
    if not memory and not _given("memory"):
        raise ParameterError(
            f"Slurm jobs need their memory: give worker_memory, or memory under jobqueue: slurm: in {CONFIG}"
        )
    processes = _processes()
    variables = dict.fromkeys(THREAD_VARIABLES, str(threads))
    settings = {**MEMORY, "terminate": _TERMINATE}
    variables |= {f"DASK_DISTRIBUTED__WORKER__MEMORY__{name.upper()}": str(settings[name]) for name in settings}
    before = _given("job-script-prologue") or _given("env-extra") or []
    options = {"dashboard": dashboard} if dashboard else {"dashboard": False, "dashboard_address": ":0"}
    return SLURMCluster(
        cores=processes,  # the threads of Dask, one in each process
        job_cpu=_given("job-cpu") or processes * threads,
        processes=processes,
        memory=f"{processes * memory}B" if memory else None,
        job_script_prologue=[*before, *(f"export {name}={value}" for name, value in variables.items())],
        log_directory=_given("log-directory") or _LOGS,
        scheduler_options={**options, **(_given("scheduler-options") or {})},
        silence_logs=False,
    )


def _given(name: str) -> Any:
    """Return a value of the user's configuration of dask-jobqueue."""
    import dask

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


def _first_worker(cluster: Any, jobs: int, watch: _Watch, stop: threading.Event, tell: Tell) -> None:
    """Wait until a worker is there, however long the queue is."""
    told = -math.inf
    while not cluster.scheduler_info["workers"] and not stop.wait(_POLL_SECONDS):
        if time.monotonic() - told > _TELL_SECONDS:
            tell(log=f"waiting for the first of {jobs} Slurm jobs to start", level=logging.INFO)
            told = time.monotonic()
        watch()
        if watch.ended >= min(_HOPELESS, jobs):
            raise Vis2imgError(
                f"the Slurm jobs end before their Dask worker is there; {_given('log-directory') or _LOGS} says why"
            )


class _Watch:
    """Has other jobs submitted for those that ended, for whatever reason and whether or not their worker ever came."""

    def __init__(self, cluster: Any, tell: Tell) -> None:
        self.cluster, self.tell = cluster, tell
        self.ended = 0
        """Jobs that ended so far."""
        self._looked = time.monotonic()

    def __call__(self) -> None:
        """Look at the queue, if it is time."""
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        jobs = {job.job_id: name for name, job in list(self.cluster.workers.items()) if job.job_id}
        listed = subprocess.run(["squeue", "--me", "--noheader", "--format=%A"], capture_output=True, text=True)
        if listed.returncode:  # the controller is away for a while
            return
        for job_id in jobs.keys() - set(listed.stdout.split()):
            self.ended += 1
            self.tell(log=f"Slurm job {job_id} has ended; another is submitted", level=logging.INFO)
            self.cluster.loop.add_callback(self._forget, jobs[job_id])

    def _forget(self, name: str) -> None:
        """Leave one worker fewer than there should be, which makes dask-jobqueue submit a job under another name."""
        self.cluster.workers.pop(name, None)
        self.cluster.worker_spec.pop(name, None)
