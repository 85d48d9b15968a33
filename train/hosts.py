"""Several hosts, one process each: `jax.distributed`, started before anything touches a device.

The processes run the same program on the same configuration and share the run folder, which must lie on a file system
that all of them see. The first writes it; all read it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vis2img.errors import ParameterError, Vis2imgError, first_line


@dataclass(frozen=True)
class HostsConfig:
    """The processes that train together, one for each host; srun and mpirun tell them without this."""

    coordinator: str | None = None
    """Address of the first process (host:port), for processes that are started by hand."""
    count: int = 1
    """Processes in all."""
    index: int = 0
    """Which of them this is, from 0."""

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.index < self.count:
            raise ParameterError(f"hosts.index = {self.index} must be from 0 to hosts.count - 1 = {self.count - 1}")
        if (self.coordinator is not None) != (self.count > 1):
            raise ParameterError("hosts.coordinator (host:port of the first process) and hosts.count go together")


def start_hosts(config: HostsConfig) -> None:
    """Join the other processes of the run, if there are any; once for each process.

    Raises
    ------
    Vis2imgError
        If they cannot be joined.
    """
    import jax

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
    import jax

    return jax.process_index() == 0


def any_host(flag: bool) -> bool:
    """Whether any of the processes says so; all must ask."""
    import jax
    from jax.experimental.multihost_utils import process_allgather

    return bool(np.any(process_allgather(np.array(flag)))) if jax.process_count() > 1 else flag


def gather(value: Any) -> list[Any]:
    """Return the JSON values of all processes in order; all must ask."""
    import jax
    from jax.experimental.multihost_utils import process_allgather

    if jax.process_count() == 1:
        return [value]
    text = json.dumps(value).encode()
    longest = int(np.max(process_allgather(np.array(len(text)))))
    rows = process_allgather(np.frombuffer(text.ljust(longest), np.uint8))
    return [json.loads(row.tobytes()) for row in np.atleast_2d(rows)]
