"""The folder of a report: whole or not at all, and never in a folder that holds something else."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from vis2img.errors import OutputError
from vis2img.files import staging, to_disk
from vis2img.locks import locked

PAGE = "report.html"
_OURS = re.compile(r"report\.html|(headlines|scores)\.csv|summary\.csv|figure-\d\d-[a-z0-9-]*\.png")
_ASIDE = re.compile(r"\.report\.html\.partial-.*|\.report-[0-9a-f]{8}\.tmp")  # the second is of older versions


def check_report_folder(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that a report could not be written to, before any work is done.

    Raises
    ------
    OutputError
        If it holds a report and ``overwrite`` is false, holds anything else, is no folder, or may not be written.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise OutputError(f"{folder} is not a folder; choose another output for the report")
    try:
        there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise OutputError(f"{folder} cannot be read: {error.strerror}") from error
    others = [name for name in there if not _OURS.fullmatch(name) and not _ASIDE.fullmatch(name)]
    if others:
        raise OutputError(f"{folder} holds other things than a report ({others[0]}); choose a folder of its own for it")
    if not overwrite and any(_OURS.fullmatch(name) for name in there):
        raise OutputError(f"{folder} holds a report already; use --overwrite to replace it")
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(f"{folder} cannot be written: no permission to write in {nearest}")


@contextlib.contextmanager
def reporting(folder: Path) -> Iterator[None]:
    """Keep other processes from reporting into a folder for as long as the block lasts: scoring takes a while.

    Raises
    ------
    BusyError
        If another process does; the message names it.
    OutputError
        If the folder around it cannot be made or written.
    """
    place = folder.absolute()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror}") from error
    with locked(place):
        yield


def write_whole(folder: Path, files: Mapping[str, bytes], overwrite: bool) -> None:
    """Write the files of a report, by name: aside first, then moved, the page last.

    Raises
    ------
    OutputError
        As `check_report_folder`, or if the disk refuses. An older report stays until the new one is whole.
    """
    try:
        with _aside(folder) as aside:
            for name, content in files.items():
                _write(aside / name, content)
            # Something may have come while the files were written.
            check_report_folder(folder, overwrite)
            _move(aside, folder, list(files))
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """Give a hidden folder inside ``folder``, on the same disk; a folder that was made for nothing goes again."""
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with staging(folder / PAGE) as aside:
            yield aside
    finally:
        if new:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    to_disk(path)


def _move(aside: Path, folder: Path, names: Sequence[str]) -> None:
    """Put the files ``names`` in the place of an older report; what runs that were killed left goes too."""
    (folder / PAGE).unlink(missing_ok=True)
    for old in list(folder.iterdir()):
        if _OURS.fullmatch(old.name):
            old.unlink()
        elif _ASIDE.fullmatch(old.name) and old != aside:
            shutil.rmtree(old, ignore_errors=True)
    for name in sorted(names, key=lambda name: name == PAGE):
        (aside / name).replace(folder / name)
