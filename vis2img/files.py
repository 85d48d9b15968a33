"""A lock on an output while it is made: held by one process, and freed by the system however that process ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from vis2img.errors import BusyError, OutputError

# Names that a FITS file is written under; those that are read may be compressed, by gzip or by fpack, too.
WRITTEN_SUFFIXES = (".fits", ".fit", ".fts")
FITS_SUFFIXES = tuple(suffix + more for suffix in WRITTEN_SUFFIXES for more in ("", ".gz", ".fz"))
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # file systems that cannot lock


def is_fits(path: str | Path) -> bool:
    """Return whether a file is one of FITS, by its name."""
    return str(path).lower().endswith(FITS_SUFFIXES)


def hidden(out: Path, what: str) -> Path:
    """Return the path .NAME.WHAT beside an output of that name."""
    return out.with_name(f".{out.name}.{what}")


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other processes from making ``out`` for as long as the block lasts.

    Raises
    ------
    BusyError
        If another process holds it.
    OutputError
        If there is no folder for it, or it cannot be written.
    """
    if out.name in ("", ".."):
        raise OutputError(f"{out} is no name for an output")
    if not out.parent.is_dir():
        raise OutputError(f"the folder {out.parent} for {out.name} does not exist")
    path = hidden(out, "lock")
    try:
        file = _lock(path, out)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror}") from error
    try:
        yield
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
        If there is no folder for it, or it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(out))
        except BusyError:
            free = False
        else:
            free = True
        yield free


def _lock(path: Path, out: Path) -> int:
    """Return the descriptor of the lock file; locks end with it, or with the process."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(file, 200).decode(errors="replace").strip() or "an unknown process"
            os.close(file)
            raise BusyError(f"{out} is being written by {owner}; wait for it, or choose another name") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(file)
                raise
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), path.stat()):  # else its owner has just removed it
                os.ftruncate(file, 0)
                os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
                return file
        os.close(file)


def check_outputs(paths: Iterable[Path], overwrite: bool) -> None:
    """Refuse outputs that could not be written later, before any work is done.

    Raises
    ------
    OutputError
        If one exists and ``overwrite`` is false, or is a folder, or its folder is missing or read-only.
    """
    for path in paths:
        folder = path.parent
        if path.is_dir():
            raise OutputError(f"{path} is a folder; name a file in it, e.g. {path / 'image.fits'}")
        if os.path.lexists(path) and not overwrite:
            raise OutputError(f"{path} exists already; use --overwrite to replace it")
        if not folder.is_dir():
            raise OutputError(f"{path} cannot be written: the folder {folder} does not exist")
        # The real user of the process may differ from the effective one, and it is the latter who writes.
        effective = os.access in os.supports_effective_ids
        if not os.access(folder, os.W_OK | os.X_OK, effective_ids=effective):
            raise OutputError(f"{path} cannot be written: no permission to write in the folder {folder}")


@contextlib.contextmanager
def atomic_output(path: Path, overwrite: bool) -> Iterator[Path]:
    """Give a temporary file in the same folder that becomes ``path`` when the block ends without an error.

    Raises
    ------
    OutputError
        As :func:`check_outputs`, or when the disk refuses (full, gone).
    """
    check_outputs([path], overwrite)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        try:
            yield temporary
            _to_disk(temporary)
            check_outputs([path], overwrite)
            temporary.replace(path)
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Write a file beside its place, and move it there when whole."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)
