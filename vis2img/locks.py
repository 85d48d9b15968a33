"""Locks: one process at a time makes an output, and the others are told which one does.

A lock is a file ``.OUT.lock`` beside the output, held by flock: the system frees it however the process ends, also on
another machine of a network file system. Its text is for the message alone. In a folder that others may write to, what
lies under that name may be anything: links are not followed, and nothing is written to a file that is not a lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from vis2img.errors import BusyError, OutputError

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # file systems that cannot lock
_NO_EXCLUSIVE = (errno.EBADF,)  # of a file that is open for reading only, on NFS
_OWNER = re.compile(r"process \d+ on [\w.-]+(?: since [\d: +-]+)?")
_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


def hidden(out: Path, what: str) -> Path:
    """Return the path .NAME.WHAT beside an output of that name."""
    return out.with_name(f".{out.name}.{what}")


@contextlib.contextmanager
def locked(out: Path, doing: str = "being written", at: Path | None = None) -> Iterator[bool]:
    """Keep other processes from making ``out`` for as long as the block lasts.

    Yields whether others are kept out indeed: some file systems have no locks.

    Parameters
    ----------
    out : Path
    doing : str
        What the owner does with it, for the others.
    at : Path, optional
        The lock file; default: ``.OUT.lock`` beside the output.

    Raises
    ------
    BusyError
        If another process holds it; the message names host, process and since when.
    OutputError
        If there is no folder for it, it cannot be written, or something else has the name of the lock.
    """
    if at is None and out.name in ("", ".."):
        raise OutputError(f"{out} is no name for an output")
    path = at or hidden(out, "lock")
    if not path.parent.is_dir():
        raise OutputError(f"the folder {path.parent} for {out.name} does not exist")
    try:
        file, held = _lock(path, out, doing)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror}") from error
    try:
        yield held
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(file)


@contextlib.contextmanager
def claimed(out: Path) -> Iterator[bool]:
    """Hold the lock of ``out`` for the block where it is free, and say whether it was.

    Raises
    ------
    OutputError
        As :func:`locked`.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(out))
        except BusyError:
            free = False
        else:
            free = True
        yield free


def _lock(path: Path, out: Path, doing: str) -> tuple[int, bool]:
    """Return the descriptor of the lock file, with which the lock ends, and whether the file system can lock."""
    while True:
        opened = _open(path)
        if opened is None:  # its owner has just removed it
            continue
        file, new = opened
        try:
            held = _flock(file, path, out, doing)
            # Else its owner has just removed it, or another process has.
            if _is_at(file, path):
                if new or _is_ours(file, path):
                    os.ftruncate(file, 0)
                    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
                    os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()} since {since}\n".encode(), 0)
                    return file, held
                path.unlink()  # of a process of another user that is dead
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _open(path: Path) -> tuple[int, bool] | None:
    """Return the descriptor of a new lock file, or of the one that is there, and which; None if it is gone again."""
    with contextlib.suppress(FileExistsError):
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _OPEN, 0o644), True
    strange = OutputError(f"{path} is in the way: it is no lock of vis2img; look what it is, and remove it")
    for mode in (os.O_RDWR, os.O_RDONLY):  # the second: of another user
        try:
            file = os.open(path, mode | _OPEN)
        except FileNotFoundError:
            return None
        except PermissionError as error:
            if mode == os.O_RDONLY:
                raise OutputError(
                    f"{path} is of another user, whose process may be at work; choose another name"
                ) from error
            continue
        except OSError:  # a link, a folder, a socket
            raise strange from None
        break
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1 or not _is_text_of_lock(file):
        os.close(file)
        raise strange
    return file, False


def _text(file: int) -> str:
    return os.pread(file, 400, 0).decode(errors="replace").strip()


def _is_text_of_lock(file: int) -> bool:
    """Whether a file is empty, as of an owner that has not written yet, or holds what an owner writes."""
    return _OWNER.fullmatch(_text(file)) is not None or os.fstat(file).st_size == 0


def _flock(file: int, path: Path, out: Path, doing: str) -> bool:
    """Take the lock; return whether it keeps others out."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = _OWNER.fullmatch(_text(file))
        who = owner[0] if owner else "an unknown process"
        raise BusyError(f"{out} is {doing} by {who}; wait for it, or choose another name") from None
    except OSError as error:
        if error.errno in _NO_EXCLUSIVE:
            raise OutputError(f"{path} is a lock of another user; remove it if that process has ended") from error
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


def _is_at(file: int, path: Path) -> bool:
    """Whether the name still is that of the open file."""
    try:
        return os.path.samestat(os.fstat(file), path.lstat())
    except FileNotFoundError:
        return False


def _is_ours(file: int, path: Path) -> bool:
    """Whether the file may be written to: it is of this user, and open for that."""
    writable = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
    return writable and os.fstat(file).st_uid == os.geteuid()
