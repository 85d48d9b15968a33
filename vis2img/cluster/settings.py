"""What Dask, ducc0, numba and BLAS are told in every process that makes draws."""

from __future__ import annotations

from typing import Any

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "DUCC0_NUM_THREADS",
)
# Draws are large arrays that leave a worker soon: nothing is written to disk, and no worker pauses for want of memory.
MEMORY: dict[str, Any] = {f"distributed.worker.memory.{name}": False for name in ("target", "spill", "pause")}
SETTINGS: dict[str, Any] = {
    **MEMORY,
    "distributed.worker.memory.terminate": 1.0,
    # Workers also die through no fault of their draw: preempted, at the end of a job, for the memory of another.
    "distributed.scheduler.allowed-failures": 10,
    # A long read holds the interpreter lock of a worker, and with it the heartbeat.
    "distributed.scheduler.worker-ttl": "15 minutes",
}
NICENESS = 10  # of local workers: training and the threads that batch for it come first where cores are scarce


def thread_environment(threads: int) -> dict[str, str]:
    """Return the environment variables that give ducc0, numba and BLAS so many threads."""
    return dict.fromkeys(THREAD_VARIABLES, str(threads))


def dask_environment(settings: dict[str, Any]) -> dict[str, str]:
    """Return the environment variables by which Dask takes ``settings`` over in another process."""
    return {f"DASK_{name.upper().replace('.', '__').replace('-', '_')}": str(value) for name, value in settings.items()}
