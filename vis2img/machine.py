"""What this process may use of the machine."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

_STDERR = threading.RLock()
_CGROUPS, _OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resident() -> int:
    """Return the bytes of memory that this process holds."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def ran_at(pid: int) -> float | None:
    """Return when a process of this machine began, in s since 1970; None if none of that number runs."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:  # of another user
        return 0.0


def free_bytes() -> int:
    """Return the memory that is free on this machine."""
    import psutil

    return int(psutil.virtual_memory().available)


def memory_limit() -> int:
    """Return the bytes that this process may use: of the machine, or of the job or container that it runs in.

    ``distributed.system.memory_limit`` looks at the uppermost control group only, which knows nothing of the limits of
    a Slurm job.
    """
    import psutil

    limits = [psutil.virtual_memory().total]
    with contextlib.suppress(OSError):
        for line in _OWN_CGROUPS.read_text().splitlines():
            _, kind, folder = line.split(":", 2)
            if kind in ("", "memory"):  # version 2, version 1
                top, name = (_CGROUPS, "memory.max") if not kind else (_CGROUPS / kind, "memory.limit_in_bytes")
                for path in (top / folder.strip("/") / "x").parents:
                    with contextlib.suppress(OSError, ValueError):  # not there; or the word max
                        limits.append(int((path / name).read_text()))
    return min(limits)


@contextlib.contextmanager
def stderr_dropped() -> Iterator[None]:
    """Drop what libraries in C write to file descriptor 2, of this process: casacore remarks there on its tables.

    One thread at a time: another would take the descriptor that is dropped for the one to put back.
    """
    with _STDERR:
        try:
            saved = os.dup(2)
        except OSError:  # closed: nothing is shown anyway
            yield
            return
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(null)
