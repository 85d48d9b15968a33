"""The client of a Dask scheduler: what is looked at before and after it connects, and where Dask's log goes."""

from __future__ import annotations

import asyncio
import logging
import sys
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dask.config
from distributed import Client
from distributed.comm import connect
from distributed.security import Security
from distributed.utils import json_load_robust
from distributed.versions import VersionMismatchWarning

import vis2img
from vis2img.cluster.credentials import Credentials
from vis2img.errors import Vis2imgError, Vis2imgWarning

log = logging.getLogger("vis2img.cluster")
ANSWER_SECONDS = 10.0
_LOGGERS = ("distributed", "distributed.client", "distributed.gc", "tornado", "tornado.application")
_SAME = ("python", "dask", "distributed")


def address_of(scheduler: str, seconds: float) -> str:
    """Return the address of a scheduler that is given by it, or by its file, which may be there a little later.

    Raises
    ------
    Vis2imgError
        If there is no such file within ``seconds``.
    """
    if not scheduler.endswith(".json"):
        return scheduler
    try:
        return json_load_robust(scheduler, timeout=seconds)["address"]
    except (OSError, LookupError, TypeError) as error:
        raise Vis2imgError(
            f"{scheduler} is no scheduler file; make it: dask scheduler --scheduler-file {scheduler}"
        ) from error


def open_client(address: str, seconds: float = ANSWER_SECONDS, credentials: Mapping[str, str] | None = None) -> Client:
    """Return the client of the scheduler at ``address``; without credentials, those of Dask's configuration count.

    Raises
    ------
    Vis2imgError
        If none answers within ``seconds``.
    """
    security = Credentials(**credentials).security() if credentials else Security()
    _check_scheduler(address, seconds, security)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VersionMismatchWarning)  # check_workers looks at versions
        # Results come from the workers themselves, not by way of the scheduler.
        return Client(address, timeout=ANSWER_SECONDS, set_as_default=False, direct_to_workers=True, security=security)


def warn_if_open(address: str) -> None:
    """Warn of a scheduler that takes work from anyone, by one line."""
    if not address.startswith(("tls://", "wss://")):
        warnings.warn(
            f"whoever reaches the Dask scheduler {address} can run code as you: its connections are not protected; "
            "give it TLS (tls://, see docs/cluster.md) unless nobody else is on its machines and network",
            Vis2imgWarning,
            stacklevel=3,
        )


def _check_scheduler(address: str, seconds: float, security: Security) -> None:
    """Check that a Dask scheduler answers; a client waits for ever for what is none (distributed 2026.8)."""

    async def greet() -> None:
        arguments = security.get_connection_args("client")
        comm = await asyncio.wait_for(connect(address, timeout=seconds, **arguments), seconds + 1)
        await comm.close()

    try:
        with ThreadPoolExecutor(1) as pool:  # this thread may have an event loop that runs, in a notebook
            pool.submit(asyncio.run, greet()).result()
    except Exception as error:  # what listens there may say anything
        why = str(error).partition("\n")[0] or "what listens there is no scheduler"
        raise Vis2imgError(
            f"no Dask scheduler answers at {address}; see that `dask scheduler` runs there and that this machine "
            f"reaches it ({why})"
        ) from error


def check_workers(client: Client) -> None:
    """Check that scheduler and workers run what this process runs.

    Raises
    ------
    Vis2imgError
        If one has another Python, Dask or vis2img, or cannot import what makes draws.
    """

    def imported() -> tuple[str, str, str]:  # a function inside another is sent as code: it needs no vis2img to arrive
        try:
            import vis2img.draws.observed_field

            return vis2img.__version__, "", sys.executable
        except Exception as error:
            return "", str(error) or type(error).__name__, sys.executable

    versions: Any = client.get_versions()
    mine, own = vis2img.__version__, _versions(versions["client"])
    others = {f"worker {address}": record for address, record in versions["workers"].items()}
    for name, record in {"the Dask scheduler": versions["scheduler"], **others}.items():
        theirs = _versions(record)
        for package in _SAME:
            _check_same(name, package, theirs[package], own[package])
    for address, (version, error, python) in client.run(imported, on_error="ignore").items():
        if error:
            raise Vis2imgError(
                f"worker {address} cannot import vis2img ({error}); install vis2img {mine} for {python} there"
            )
        _check_same(f"worker {address}", "vis2img", version, mine)


def _check_same(name: str, package: str, theirs: str, mine: str) -> None:
    if theirs != mine:
        raise Vis2imgError(f"{name} runs {package} {theirs}, this process {mine}; start both from the same environment")


def _versions(record: dict[str, Any]) -> dict[str, str]:
    """Return the versions that must be the same; of Python two numbers are enough."""
    packages = record["packages"]
    return {name: ".".join(packages[name].split(".")[:2]) if name == "python" else packages[name] for name in _SAME}


def catch_dask_logs() -> None:
    """Send what Dask logs in this process to the logger ``vis2img.cluster`` as debug records, not to the terminal.

    Nothing is changed where Dask's configuration has a section on logging.
    """
    if any(
        dask.config.get(name, None) for name in ("logging", "distributed.logging", "distributed.logging-file-config")
    ):
        return
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [_ToDebug()], False


class _ToDebug(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        log.debug("%s: %s", record.name, record.getMessage())
