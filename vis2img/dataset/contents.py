"""What an input consists of as it is now: the files behind it, with their sizes and times of modification.

By it work is told that was done on other contents: data recalibrated in place have the same name and the same folder.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from vis2img.errors import MeasurementSetError
from vis2img.ms.tables import open_table

# Written by whoever opens a table in CASA, and never read here.
_NOT_READ = ("table.lock", "HISTORY")


def contents(path: str | Path) -> list[tuple[str, int, int]]:
    """Return name, size in bytes and time of modification in ns of all files that are read of an input, in order.

    Of a measurement set these are all its tables: its sub-tables and, where it is a reference to other tables or a
    concatenation, theirs too. Of averaged data they are all files of the store, and of an image it is the file.

    Raises
    ------
    MeasurementSetError
        If it does not exist, or is a measurement set that cannot be opened.
    """
    path = Path(path)
    if not path.exists():
        raise MeasurementSetError(f"{path} does not exist")
    places = _tables(path) if (path / "table.dat").is_file() else [path]
    files = {file.resolve() for place in places for file in _files(place)}
    return sorted((str(file), status.st_size, status.st_mtime_ns) for file in files for status in [file.stat()])


def version_of(path: str | Path) -> str:
    """Return a name for the contents of an input, which is another as soon as something is written to them.

    Raises
    ------
    MeasurementSetError
        As :func:`contents`.
    """
    return hashlib.sha256(json.dumps(contents(path)).encode()).hexdigest()[:16]


def _tables(path: Path) -> list[Path]:
    """Return the folders of the tables behind a measurement set, those inside others left out or not."""
    with open_table(path) as main:
        parts = [path, *map(Path, main.partnames(recursive=True))]
        return [*parts, *(Path(name) for name in main.getsubtables() if Path(name).name not in _NOT_READ)]


def _files(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
    for folder, inside, names in os.walk(place):
        inside[:] = [name for name in inside if name not in _NOT_READ]
        yield from (Path(folder, name) for name in names if name not in _NOT_READ and Path(folder, name).is_file())
