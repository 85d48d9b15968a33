"""Dask workers: a scheduler that is there already, or processes on this machine."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from vis2img.errors import Vis2imgError
from vis2img.machine import cores

_MOST_WORKERS = 8


def connect(scheduler: str | None, workers: int) -> tuple[Any, list[Any]]:
    """Return a Dask client, and what is to be closed in this order when done.

    Parameters
    ----------
    scheduler : str or None
        Address of a scheduler (tcp://host:8786); None: start worker processes here.
    workers : int
        How many to start; 0: one per core, at most 8.

    Raises
    ------
    Vis2imgError
        If no scheduler answers.
    """
    from distributed import Client, LocalCluster

    if scheduler:
        try:
            client = Client(scheduler, timeout="10s", set_as_default=False)
        except (OSError, ValueError) as error:
            raise Vis2imgError(f"no Dask scheduler answers at {scheduler}: {error}") from error
        return client, [client]
    # Other libraries turn on the root logger; Dask then tells of every connection.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    # Workers are new processes, never forks: JAX and ducc0 threads do not survive a fork.
    cluster = LocalCluster(
        n_workers=workers or min(_MOST_WORKERS, cores()),
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        memory_limit=0,
        silence_logs=logging.ERROR,
    )
    client = Client(cluster, set_as_default=False)
    return client, [client, cluster]


@contextlib.contextmanager
def connected(scheduler: str | None, workers: int) -> Iterator[Any]:
    """Yield a client as :func:`connect` does, and close it."""
    client, owned = connect(scheduler, workers)
    try:
        yield client
    finally:
        for one in owned:
            one.close()
