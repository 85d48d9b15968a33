"""What is looked at before and after a Dask client connects, and where its log goes."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from vis2img.errors import Vis2imgError

log = logging.getLogger("vis2img.cluster")
_LOGGERS = ("distributed", "distributed.client", "distributed.gc", "tornado", "tornado.application")
_SAME = ("python", "dask", "distributed")


def check_scheduler(address: str, seconds: float) -> None:
    """Check that a Dask scheduler answers; a client would wait for ever for what is no scheduler.

    Raises
    ------
    Vis2imgError
        If it does not within ``seconds``.
    """
    from distributed.comm import connect
    from distributed.security import Security

    async def greet() -> None:
        arguments = Security().get_connection_args("client")
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


def check_workers(client: Any) -> None:
    """Check that scheduler and workers run what this process runs.

    Raises
    ------
    Vis2imgError
        If one has another Python, Dask or vis2img, or cannot import what makes draws.
    """
    versions = client.get_versions()
    mine = _versions(versions["client"])
    others = {"the Dask scheduler": versions["scheduler"]}
    others |= {f"worker {address}": found for address, found in versions["workers"].items()}
    for name, found in others.items():
        theirs = _versions(found)
        for package in _SAME:
            if theirs[package] != mine[package]:
                raise Vis2imgError(
                    f"{name} runs {package} {theirs[package]}, this process {mine[package]}; start both from the same "
                    "environment"
                )
    _check_import(client)


def _versions(found: dict[str, Any]) -> dict[str, str]:
    """Return the versions that must be the same; of Python two numbers are enough."""
    packages = found["packages"]
    return {name: ".".join(packages[name].split(".")[:2]) if name == "python" else packages[name] for name in _SAME}


def _check_import(client: Any) -> None:
    def imported() -> tuple[str, str, str]:  # a function inside another is sent as code: it needs no vis2img to arrive
        import sys

        try:
            import vis2img.draws.observed_field

            return vis2img.__version__, "", sys.executable
        except Exception as error:
            return "", str(error) or type(error).__name__, sys.executable

    from vis2img import __version__

    for address, (version, error, python) in client.run(imported, on_error="ignore").items():
        if error:
            raise Vis2imgError(
                f"worker {address} cannot import vis2img ({error}); install vis2img {__version__} for {python} there"
            )
        if version != __version__:
            raise Vis2imgError(
                f"worker {address} runs vis2img {version}, this process {__version__}; start both from the same "
                "environment"
            )


def catch_dask_logs() -> None:
    """Send what Dask logs in this process to the logger ``vis2img.cluster`` as debug records, not to the terminal.

    Nothing is changed where Dask's configuration has a section on logging.
    """
    import dask.config
    import distributed  # noqa: F401 - it sets its loggers up when it is imported

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
