"""Outputs: what they may be called, and how they are written whole or not at all.

A file        ``atomic_output`` or ``write_text``: beside its place, then moved there
A folder      ``staging``, made there, then ``publish``; ``recover`` mends a publication that was killed

Beside OUT lie, for as long as they are needed:

.OUT.lock                     held by the process that writes (:mod:`vis2img.locks`)
.OUT.partial-HOST-PID-*       work in progress: a folder that nobody else may enter
.OUT.old                      what is being replaced, for the moment between two renames
.OUT.trash                    what may be deleted, so that a deletion that was killed leaves nothing that looks whole
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from vis2img.errors import OutputError
from vis2img.locks import hidden
from vis2img.machine import ran_at
from vis2img.units import format_bytes

# Names that a FITS file is written under; those that are read may be compressed, by gzip or by fpack, too.
WRITTEN_SUFFIXES = (".fits", ".fit", ".fts")
FITS_SUFFIXES = tuple(suffix + more for suffix in WRITTEN_SUFFIXES for more in ("", ".gz", ".fz"))
_PARTIAL = ".partial-"
_LONGEST = 100  # bytes of an output's name in that of its folder of work in progress; a name has at most 255
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_RESERVED = 256e6  # bytes that are reserved to see whether one may; where a disk cannot, they are written
_CLOCKS = 60.0  # s that the clocks of a disk and of this machine may differ by


def is_fits(path: str | Path) -> bool:
    """Return whether a file is one of FITS, by its name."""
    return str(path).lower().endswith(FITS_SUFFIXES)


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
    """Give a temporary file on the same disk that becomes ``path`` when the block ends without an error.

    It has the same name, in a folder of :func:`staging`.

    Raises
    ------
    OutputError
        As :func:`check_outputs`, or when the disk refuses (full, gone).
    """
    check_outputs([path], overwrite)
    try:
        with staging(path) as stage:
            temporary = stage / path.name
            yield temporary
            to_disk(temporary)
            check_outputs([path], overwrite)
            temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error


def check_room(folder: Path, nbytes: float, out: Path) -> None:
    """Refuse an output of about ``nbytes`` that the disk of ``folder``, a quota or a limit has no room for.

    For libraries that cannot be told of it later: casacore ends the process when it cannot write.

    Raises
    ------
    OutputError
        The message names the output, what it takes and what is left.
    """
    free = shutil.disk_usage(folder).free
    left = f"the disk has {format_bytes(free)} left"
    if nbytes <= free:
        try:
            with tempfile.TemporaryFile(dir=folder) as file:  # quotas are told of only now
                os.posix_fallocate(file.fileno(), 0, int(min(0.75 * nbytes, _RESERVED)))
            return
        except OSError as error:
            if error.errno not in _FULL:  # a file system that cannot reserve
                return
            left = f"{os.strerror(error.errno).lower()}"
    raise OutputError(f"{out} cannot be written: it takes {format_bytes(nbytes)}, and {left}; free some space")


def is_full(folder: Path) -> bool:
    """Whether the disk of a folder has no room for anything that is worth writing."""
    return shutil.disk_usage(folder).free < 1 << 16


def make_room(folder: Path) -> None:
    """Empty the files of work that failed on a full disk, so that libraries can close what they still hold open."""
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file() and not path.is_symlink():
                os.truncate(path, 0)


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
def staging(out: Path, *, alone: bool = False) -> Iterator[Path]:
    """Make a hidden folder beside ``out`` for the work in progress, and remove it whatever happens.

    What killed processes left of the same target on this machine is removed too.

    Parameters
    ----------
    out : Path
    alone : bool
        Whether the caller keeps all others from working on ``out`` (:func:`vis2img.locks.locked`): what those of
        other machines left is removed as well.

    Raises
    ------
    OutputError
        If it cannot be made.
    """
    remove_left_over(out, alone=alone)
    try:
        stage = Path(tempfile.mkdtemp(prefix=f"{_partial(out)}{socket.gethostname()}-{os.getpid()}-", dir=out.parent))
    except OSError as error:
        raise OutputError(f"cannot write in {out.parent}: {error.strerror}") from error
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def remove_left_over(out: Path, *, alone: bool = False) -> None:
    """Remove the work in progress of killed processes on ``out``; see :func:`staging`."""
    for path in out.parent.glob(f"{glob.escape(_partial(out))}*"):
        _remove_if_dead(path, alone)


def sweep(folder: Path) -> None:
    """Remove the work in progress of killed processes of this machine on any output in ``folder``."""
    for path in folder.glob(f".*{_PARTIAL}*"):
        _remove_if_dead(path, False)


def _remove_if_dead(path: Path, alone: bool) -> None:
    host, _, pid = path.name.rpartition(_PARTIAL)[2].rpartition("-")[0].rpartition("-")
    dead = host == socket.gethostname() and pid.isdecimal() and not _is_at_work(int(pid), path)
    if (alone or dead) and path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)


def _partial(out: Path) -> str:
    """Return what the names of folders of work in progress on ``out`` begin with."""
    name = out.name
    if len(os.fsencode(name)) > _LONGEST:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    return f".{name}{_PARTIAL}"


def _is_at_work(pid: int, path: Path) -> bool:
    """Whether the process that made ``path`` runs, and not another one that has its number by now."""
    began = ran_at(pid)
    try:
        return began is not None and began < path.stat().st_ctime + _CLOCKS
    except OSError:  # removed just now
        return False


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
        if undo and old.exists() and not old.is_symlink():  # a link was put there by somebody else
            discard(place, place)
            old.rename(place)
        discard(old, place)


def discard(path: Path, out: Path) -> None:
    """Delete a file, or a folder: first out of its place beside ``out`` at once, then file by file."""
    trash = hidden(out, "trash")
    try:
        if trash.is_symlink():
            trash.unlink()
        shutil.rmtree(trash, ignore_errors=True)  # of a process that was killed here
        if path.is_dir() and not path.is_symlink():
            path.rename(trash)
            shutil.rmtree(trash, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot remove {path}: {error.strerror}") from error
