"""Several hosts, one process each: `jax.distributed`, started before anything touches a device.

The processes run the same program on the same configuration and share the run folder, which must lie on a file system
that all of them see. The first writes it; all read it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather

from vis2img.errors import Vis2imgError, first_line
from vis2img.train.config import HostsConfig


def start_hosts(config: HostsConfig) -> None:
    """Join the other processes of the run, if there are any; once for each process.

    Raises
    ------
    Vis2imgError
        If they cannot be joined.
    """
    if jax.distributed.is_initialized() or not (config.count > 1 or launched_together(os.environ)):
        return
    given: dict[str, Any] = {}
    if config.count > 1:
        given = {
            "coordinator_address": config.coordinator,
            "num_processes": config.count,
            "process_id": config.index,
        }
    try:
        # Without it the processes of CPUs cannot add up; accelerators do not look at it.
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(**given)
    except (RuntimeError, ValueError) as error:
        where = config.coordinator or "the other processes of this job"
        raise Vis2imgError(f"cannot join {where}: {first_line(error)}") from error


def launched_together(environment: Mapping[str, str]) -> bool:
    """Whether a launcher started several processes: a step of Slurm's srun, or Open MPI's mpirun."""
    # Of the step and not of the job: a shell in an allocation of several tasks is one process.
    return any(int(environment.get(name, "1")) > 1 for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"))


def is_first() -> bool:
    """Whether this process writes the run folder."""
    return jax.process_index() == 0


def any_host(flag: bool) -> bool:
    """Whether any of the processes says so; all must ask."""
    return bool(np.any(process_allgather(np.array(flag)))) if jax.process_count() > 1 else flag


def gather(value: Any) -> list[Any]:
    """Return the JSON values of all processes in order; all must ask."""
    if jax.process_count() == 1:
        return [value]
    text = json.dumps(value).encode()
    longest = int(np.max(process_allgather(np.array(len(text)))))
    rows = process_allgather(np.frombuffer(text.ljust(longest), np.uint8))
    return [json.loads(row.tobytes()) for row in np.atleast_2d(rows)]
