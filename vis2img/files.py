"""Outputs: what they may be called, written whole or not at all, and by one process at a time.

A file        ``atomic_output`` or ``write_text``: beside its place, then moved there
A folder      ``staging``, made there, then ``publish``; ``recover`` mends a publication that was killed
A lock        ``locked`` or ``claimed``: freed by the system however the process ends

Beside OUT lie, for as long as they are needed:

.OUT.lock                     held (flock) by the process that writes
.OUT.partial-HOST-PID-*       work in progress
.OUT.old                      what is being replaced, for the moment between two renames
.OUT.trash                    what may be deleted, so that a deletion that was killed leaves nothing that looks whole
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator, Sequence
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
            to_disk(temporary)
            check_outputs([path], overwrite)
            temporary.replace(path)
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def to_disk(path: Path) -> None:
    """Wait until what a file holds is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def write_text(path: Path, text: str, overwrite: bool = True) -> None:
    """Write a file in one move.

    Raises
    ------
    OutputError
        As :func:`atomic_output`.
    """
    with atomic_output(path, overwrite) as temporary:
        temporary.write_text(text)


@contextlib.contextmanager
def staging(out: Path) -> Iterator[Path]:
    """Make a hidden folder beside ``out`` for the work in progress, and remove it whatever happens.

    What a killed process left of the same target on this machine is removed too.

    Raises
    ------
    OutputError
        If it cannot be made.
    """
    start = f".{out.name}.partial-{socket.gethostname()}-"
    for path in out.parent.glob(f"{glob.escape(start)}*"):
        pid = path.name.removeprefix(start).partition("-")[0]
        if pid.isdecimal() and not _runs(int(pid)):
            shutil.rmtree(path, ignore_errors=True)
    try:
        stage = Path(tempfile.mkdtemp(prefix=f"{start}{os.getpid()}-", dir=out.parent))
    except OSError as error:
        raise OutputError(f"cannot write in {out.parent}: {error.strerror}") from error
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        pass
    return True


def publish(moves: Sequence[tuple[Path, Path]], overwrite: bool) -> None:
    """Move finished files and folders to their places, all or none.

    What was there stays hidden beside its place until the last has been moved. Call this under :func:`locked`.

    Parameters
    ----------
    moves : sequence of (path, path)
        From where to where. The last decides: as soon as it is in its place, what was there is deleted.
    overwrite : bool
        Whether the last place may hold something.

    Raises
    ------
    OutputError
        If one cannot be moved; what was there is put back.
    """
    places = [place for _, place in moves]
    try:
        for place in reversed(places):
            if place.exists() and (overwrite or place != places[-1]):
                place.rename(hidden(place, "old"))
        for path, place in moves:
            path.rename(place)  # onto a folder that is not empty: an error
    except OSError as error:
        _settle(places, undo=True)
        raise OutputError(f"cannot write {places[-1]}: {error.strerror}") from error
    _settle(places, undo=False)


def recover(places: Sequence[Path]) -> None:
    """Put right what a publication that was cut short left at these places: all is as before it, or as after it.

    Raises
    ------
    OutputError
        If something cannot be moved.
    """
    _settle(places, undo=not places[-1].exists())


def _settle(places: Sequence[Path], undo: bool) -> None:
    for place in places:
        old = hidden(place, "old")
        if undo and old.exists():
            discard(place, place)
            old.rename(place)
        discard(old, place)


def discard(path: Path, out: Path) -> None:
    """Delete a file, or a folder: first out of its place beside ``out`` at once, then file by file."""
    trash = hidden(out, "trash")
    shutil.rmtree(trash, ignore_errors=True)  # of a process that was killed here
    try:
        if path.is_dir():
            path.rename(trash)
            shutil.rmtree(trash, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot remove {path}: {error.strerror}") from error
