"""Opening casacore tables safely: read-only, without locks, with errors a user can act on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import casacore
import numpy as np

from vis2img.errors import MeasurementSetError


def _without_lock_files() -> None:
    """Make casacore open tables without locks, in this process and those that it starts.

    Whatever the lock options, casacore writes a table.lock beside every table that lacks one, even to read it,
    and refuses to read where it may not write. Only its option table.nolocking prevents that, which it takes
    from the files in CASARCFILES when the first table is opened. Those that it would look for without, the user's and
    the one of the casacore package, which tells where the tables of measures are, come behind.
    """
    package = str(Path(casacore.__file__).with_name(".aipsrc"))
    files = os.environ.get("CASARCFILES") or f"{Path('~/.casarc').expanduser()}:{package}"
    own = str(Path(__file__).with_name("casarc"))
    if own not in files.split(":"):
        os.environ["CASARCFILES"] = f"{own}:{files}"


_without_lock_files()
from casacore.tables import table  # noqa: E402

_SAMPLE_BLOCKS = 64


def open_table(path: Path, name: str = "") -> table:
    """Open the main table of a measurement set, or its sub-table ``name``, read-only and unlocked.

    Raises
    ------
    MeasurementSetError
        If there is none, or casacore cannot read it.
    """
    target = path / name if name else path
    if not path.exists():
        raise MeasurementSetError(f"{path} does not exist")
    if not (path / "table.dat").is_file():
        kind = "a file" if path.is_file() else "a folder without table.dat"
        raise MeasurementSetError(f"{path} is not a measurement set: it is {kind}")
    if not (target / "table.dat").is_file():
        raise MeasurementSetError(f"{path} is not a whole measurement set: its sub-table {name} is missing")
    try:
        return table(str(target), ack=False, readonly=True, lockoptions="usernoread")
    except RuntimeError as error:
        raise _damaged(target, error) from error


def has_subtable(path: Path, name: str) -> bool:
    """Return whether a measurement set has an optional sub-table."""
    return (path / name / "table.dat").is_file()


@contextlib.contextmanager
def subtable(path: Path, name: str) -> Iterator[table]:
    """Give the sub-table ``name`` for the block, and tell what casacore cannot read of it in one line."""
    opened = open_table(path, name)
    try:
        check_storage(opened, path / name)
        yield opened
    except RuntimeError as error:
        raise _damaged(path / name, error) from error
    finally:
        opened.close()


def measinfo(opened: table, column: str) -> dict[str, Any]:
    """Return what the keywords of a column tell of its frame; nothing, where they tell none that can be read."""
    told = opened.getcolkeywords(column).get("MEASINFO")
    return told if isinstance(told, dict) else {}


def check_storage(opened: table, path: Path) -> None:
    """Refuse a table whose tiled data files are shorter than its hypercubes.

    casacore maps tiled files into memory and returns what it finds: a truncated file would give wrong
    numbers without an error. The other storage managers notice on their own.

    Raises
    ------
    MeasurementSetError
        Names the file, the columns and the sizes.
    """
    try:
        managers = opened.getdminfo().values()
    except RuntimeError as error:
        raise _damaged(path, error) from error
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


def _damaged(path: Path, error: RuntimeError) -> MeasurementSetError:
    return MeasurementSetError(f"{path} cannot be opened, a file of it is damaged or missing: {error}".strip())


def _cube_bytes(cube: dict[str, Any]) -> int:
    shape, tile = np.asarray(cube["CubeShape"], int), np.asarray(cube["TileShape"], int)
    if not shape.size or not tile.size or not tile.all():
        return 0
    return int(np.prod(-(-shape // tile))) * int(cube["BucketSize"])


def row_sample(nrow: int, budget: int) -> np.ndarray:
    """Return all row numbers up to ``budget``, else that many in evenly spread blocks of neighbours."""
    if nrow <= budget:
        return np.arange(nrow)
    width = max(1, budget // _SAMPLE_BLOCKS)
    starts = np.linspace(0, nrow - width, _SAMPLE_BLOCKS).astype(int)
    return np.unique((starts[:, None] + np.arange(width)).ravel())
