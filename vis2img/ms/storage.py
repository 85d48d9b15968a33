"""What lies behind a table on disk, looked at before casacore reads it: files, and other tables that it refers to.

A table may hold its data itself (PlainTable), be rows of another (RefTable: selections, sorted tables), join others
(ConcatTable: ``msconcat``, Multi-MS), or have columns that lie elsewhere (ForwardColumnEngine).

Reference: casacore, tables/Tables/{Table,RefTable,ConcatTable}.cc and casa/OS/Path.cc, for names in table.dat.
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vis2img.errors import MeasurementSetError
from vis2img.inputs import not_a_file

_HEAD_BYTES = 1 << 18  # of table.dat, which may list billions of rows
_KIND = re.compile(rb"^\xbe{4}.{4}\0\0\0\x05Table.{16,20}?(RefTable|ConcatTable).{8}\1(.{4})", re.DOTALL)
_FORWARD = re.compile(rb"_ForwardColumn_TableName")
_TEXT = re.compile(rb"(\0\0.{2})(?=[./])", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
_MOST_PARTS = 100_000


def name_for_casacore(path: Path) -> str:
    """Return the name to open a table by: absolute, as casacore takes ``~`` at the start for a home folder.

    Raises
    ------
    MeasurementSetError
        If casacore would put the value of a variable into it.
    """
    name = os.path.abspath(path)  # noqa: PTH100 (a link stays one: casacore looks beside it)
    for match in _VARIABLE.finditer(name):
        if (match[1] or match[2]) in os.environ:
            raise MeasurementSetError(
                f"{path}: casacore reads {match[0]} in a name as the variable of the environment; "
                "rename the folder, or make a link to it that has another name"
            )
    return name


def check_files(folder: Path, above: tuple[Path, ...] = ()) -> None:
    """Refuse a table whose files are no files, or that refers to tables that are not there.

    casacore waits for ever for a named pipe, and reads devices.

    Raises
    ------
    MeasurementSetError
        Names the file, or the table that is missing.
    """
    with os.scandir(folder) as entries:
        wrong = [each.name for each in entries if each.name.startswith("table.") and not each.is_file()]
    if wrong:
        victim = folder / min(wrong)
        raise MeasurementSetError(f"{victim} is {not_a_file(victim) or 'a link to nothing'}, not a file of a table")
    for other in _referred(folder):
        if not (other / "table.dat").is_file():
            raise MeasurementSetError(
                f"{folder} refers to the table {other}, which is not there: put it back, or copy the rows into "
                "a set of its own (taql: select from ... giving NAME as plain)"
            )
        if other.resolve() in above or len(above) > _MOST_PARTS:
            raise MeasurementSetError(f"{folder} is damaged: it refers to {other}, which refers to it")
        check_files(other, (*above, folder.resolve()))


def _referred(folder: Path) -> Iterator[Path]:
    """Return the tables that a table refers to by its table.dat; what cannot be read, casacore tells of."""
    with (folder / "table.dat").open("rb") as file:
        head = file.read(_HEAD_BYTES)
    starts = [
        found.end(1) - 4
        for place in _FORWARD.finditer(head)
        for found in _TEXT.finditer(head, place.end(), place.end() + 300)
    ]
    names = [_text(head, at)[0] for at in starts]
    if kind := _KIND.match(head):
        count, at = 1, kind.end()
        if kind[1] == b"ConcatTable":
            count, at = *struct.unpack_from(">I", head.ljust(at + 4), at), at + 4
        for _ in range(min(count, _MOST_PARTS)):
            name, at = _text(head, at)
            names.append(name)
    texts = dict.fromkeys(os.fsdecode(name) for name in names if 0 < len(name) < 4096 and b"\0" not in name)
    for text in texts:
        # "././x" lies in the table's folder, "./x" beside it (casacore's Path::addDirectory).
        inside = text.startswith("././")
        yield (folder if inside else folder.parent) / text.removeprefix("././").removeprefix("./")


def _text(head: bytes, at: int) -> tuple[bytes, int]:
    """Return a text as casacore writes it, its length first, and where the next begins; an empty one beyond the end."""
    if at + 4 > len(head):
        return b"", at
    end = at + 4 + struct.unpack_from(">I", head, at)[0]
    return head[at + 4 : end], end


def check_tiles(path: Path, managers: list[dict[str, Any]]) -> None:
    """Refuse a table whose tiled data files are shorter than its hypercubes.

    casacore maps tiled files into memory and returns what it finds: a truncated file would give wrong
    numbers without an error. The other storage managers notice on their own, and so does a MultiFile.

    Parameters
    ----------
    path : Path
        Folder of the table that owns the files.
    managers : list of dict
        From casacore's ``getdminfo``.

    Raises
    ------
    MeasurementSetError
        Names the file, the columns and the sizes.
    """
    if any((path / name).is_file() for name in ("table.mf", "table.mfh5")):
        return
    for manager in managers:
        spec: dict[str, Any] = manager["SPEC"]
        need = sum(_cube_bytes(cube) for cube in spec.get("HYPERCUBES", {}).values())
        if not need:
            continue
        pattern = f"table.f{spec['SEQNR']}_TSM*"
        have = sum(file.stat().st_size for file in path.glob(pattern))
        if have < need:
            raise MeasurementSetError(
                f"{path}/{pattern[:-1]} is truncated: {have:,} of {need:,} bytes of {', '.join(manager['COLUMNS'])}; "
                "copy the measurement set again"
            )


def _cube_bytes(cube: dict[str, Any]) -> int:
    shape, tile = ([int(n) for n in cube[name]] for name in ("CubeShape", "TileShape"))
    if not shape or not tile or not all(tile):
        return 0
    return math.prod(-(-n // m) for n, m in zip(shape, tile, strict=True)) * int(cube["BucketSize"])
