"""Folders that one process has for as long as it lives: for nobody else, and removed by the next if it was killed.

A folder is of mode 0700 and holds ``lock``, which its process holds (flock) however it ends. Another folder of the same
kind is looked at only if it belongs to the same user, and never by following a link that someone else may have left.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

_MEMORY = Path("/dev/shm")
_BORN_SECONDS = 3600.0  # after which a folder without a lock belongs to a process that was killed while it made it


class ScratchFolder:
    """A folder that ends with :meth:`close`, or is left to the next of its kind.

    Parameters
    ----------
    prefix : str
        What names of folders of this kind begin with.
    parent : path
        Where to make it, after removing what killed processes left of this kind.

    Attributes
    ----------
    path : Path

    Raises
    ------
    OSError
        If it cannot be made.
    """

    def __init__(self, prefix: str, parent: str | Path) -> None:
        sweep(prefix, parent)
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        # Locked before it has its name, or another process might take the folder for one that is left behind.
        self._lock = (self.path / ".lock").open("w")
        with contextlib.suppress(OSError):  # a file system without locks; nothing is swept there either
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (self.path / ".lock").rename(self.path / "lock")

    def close(self) -> None:
        """Remove the folder; what is mapped of it stays."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def sweep(prefix: str, parent: str | Path) -> None:
    """Remove the folders of this user's processes that are no more, and the semaphores named after them."""
    for folder in Path(parent).glob(f"{prefix}*"):
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            there = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            stack.callback(os.close, there)
            if os.fstat(there).st_uid != os.geteuid():
                continue
            try:
                flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                lock = os.open("lock", flags, dir_fd=there)
            except FileNotFoundError:
                if time.time() - os.fstat(there).st_mtime < _BORN_SECONDS:
                    continue
            else:
                stack.callback(os.close, lock)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused while its process lives
            _remove_semaphores(folder.name)
            shutil.rmtree(folder, ignore_errors=True)


def name_semaphores(folder: ScratchFolder) -> None:
    """Let the semaphores that this process makes be named after its folder, so that they are removed with it.

    Those of processes that are all killed at once (a job at its time limit) stay in ``/dev/shm`` under names that tell
    nothing, otherwise. It is by a field of Python's that is not public, the same from Python 3.11 to 3.14.
    """
    from multiprocessing.process import current_process

    if _MEMORY.is_dir():
        current_process()._config["semprefix"] = f"/{folder.path.name}"  # type: ignore[attr-defined]


def _remove_semaphores(name: str) -> None:
    for path in _MEMORY.glob(f"sem.{name}-*"):
        with contextlib.suppress(OSError):
            if stat.S_ISREG(path.lstat().st_mode) and path.lstat().st_uid == os.geteuid():
                path.unlink()
