"""Opening casacore tables safely: read-only, without locks, with errors a user can act on."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import casacore
import numpy as np
from casacore.quanta import quantity

from vis2img.errors import MeasurementSetError, Vis2imgError, first_line
from vis2img.ms.storage import check_files, check_tiles, name_for_casacore


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
_TABLE = "Table: "  # before the name of a table that is the value of a keyword
_NO_LIBRARY = re.compile(r"Shared library (\S+) not found")


def open_table(path: Path) -> table:
    """Open the main table of a measurement set, read-only and unlocked; it may be rows of others.

    Raises
    ------
    MeasurementSetError
        If there is none, or casacore cannot read it.
    """
    if not path.exists():
        raise MeasurementSetError(f"{path} does not exist")
    if not (path / "table.dat").is_file():
        kind = "a file" if path.is_file() else "a folder without table.dat"
        raise MeasurementSetError(f"{path} is not a measurement set: it is {kind}")
    return open_folder(path)


def find_subtable(path: Path, name: str) -> Path | None:
    """Return the folder of a sub-table: where the main table says, else below it; None if there is none."""
    main = open_table(path)
    with reading(path):
        known = str(main.getkeyword(name)).removeprefix(_TABLE) if name in main.keywordnames() else ""
    main.close()
    places = [*([Path(known)] if known else []), path / name]
    own = Path(os.path.abspath(path)) / name  # noqa: PTH100
    # Names are told as the user gave them where the table is below the set, as nearly always.
    places = [path / name if place == own else place for place in places]
    return next((place for place in places if (place / "table.dat").is_file()), None)


def has_subtable(path: Path, name: str) -> bool:
    """Return whether a measurement set has an optional sub-table."""
    return find_subtable(path, name) is not None


@contextlib.contextmanager
def subtable(path: Path, name: str) -> Iterator[table]:
    """Give the sub-table ``name`` for the block, and tell what cannot be read of it in one line.

    Raises
    ------
    MeasurementSetError
        If it is not there; if casacore cannot read it, or a column of it is not of the type and shape that it has in
        the definition of measurement sets.
    """
    place = find_subtable(path, name)
    if place is None:
        raise MeasurementSetError(f"{path} is not a whole measurement set: its sub-table {name} is missing")
    opened = open_folder(place)
    try:
        check_storage(opened, place)
        with reading(place):
            yield opened
    finally:
        opened.close()


def open_folder(place: Path) -> table:
    """Open a table that is no measurement set, as :func:`open_table` does.

    Raises
    ------
    MeasurementSetError
        If casacore cannot read it.
    """
    check_files(place)
    with reading(place):
        return table(name_for_casacore(place), ack=False, readonly=True, lockoptions="usernoread")


@contextlib.contextmanager
def reading(what: Path | str) -> Iterator[None]:
    """Tell in one line what goes wrong in the block with a table: in casacore, or with values of another type or shape.

    Raises
    ------
    MeasurementSetError
        Names ``what``, the table or the column.
    """
    try:
        yield
    except Vis2imgError:
        raise
    except UnicodeDecodeError as error:
        raise MeasurementSetError(f"{what} is damaged: a text in it is not UTF-8; copy the set again") from error
    except RuntimeError as error:
        if missing := _NO_LIBRARY.search(str(error)):
            raise MeasurementSetError(
                f"{what} is stored by {missing[1]}, a library that casacore does not find: install it where the system "
                "looks for libraries, or write the set anew without it (as DP3 does with msout.storagemanager='')"
            ) from error
        raise MeasurementSetError(
            f"{what} cannot be opened, a file of it is damaged or missing: {first_line(error)}"
        ) from error
    except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as error:
        raise MeasurementSetError(
            f"{what} cannot be read, a value in it is not of the type or shape that measurement sets have: "
            f"{first_line(error)}"
        ) from error


def check_storage(opened: table, path: Path) -> None:
    """Refuse a table that lacks bytes of its tiled data, also where they lie in tables that it refers to.

    Raises
    ------
    MeasurementSetError
        As :func:`vis2img.ms.storage.check_tiles`.
    """
    with reading(path):
        parts, own = opened.partnames(True), opened.name()
        managers = list(opened.getdminfo().values()) if parts == [own] else []
        behind = [str(each["SPEC"]["FORWARDTABLE"]) for each in managers if "FORWARDTABLE" in each["SPEC"]]
        check_tiles(path, managers)
    for name in dict.fromkeys([part for part in parts if part != own] + behind):
        other = open_folder(Path(name))
        check_storage(other, Path(name))
        other.close()


def measinfo(opened: table, column: str) -> dict[str, Any]:
    """Return what the keywords of a column tell of its frame; nothing, where they tell none that can be read."""
    told = opened.getcolkeywords(column).get("MEASINFO")
    return told if isinstance(told, dict) else {}


def in_unit(opened: table, column: str, values: np.ndarray, unit: str, path: Path) -> np.ndarray:
    """Return values of a column in ``unit``, whatever unit its keywords tell, as casacore's quantum columns do.

    Raises
    ------
    MeasurementSetError
        If they are in what cannot be converted; names the column of the set at ``path``.
    """
    units = set(map(str, np.atleast_1d(opened.getcolkeywords(column).get("QuantumUnits", unit)))) - {"", unit}
    if not units:
        return values
    told = " and ".join(sorted(units))
    try:
        known, wanted = quantity(1.0, told), quantity(1.0, unit)
        if known.conforms(wanted):
            return np.asarray(values * known.get_value(unit))
    except RuntimeError:  # no unit
        pass
    raise MeasurementSetError(
        f"{path}: the column {column} is said to be in {told} (QuantumUnits), which is not converted to {unit}; write "
        f"it anew in {unit}"
    )


def row_sample(nrow: int, budget: int) -> np.ndarray:
    """Return all row numbers up to ``budget``, else that many in evenly spread blocks of neighbours."""
    if nrow <= budget:
        return np.arange(nrow)
    width = max(1, budget // _SAMPLE_BLOCKS)
    starts = np.linspace(0, nrow - width, _SAMPLE_BLOCKS).astype(int)
    return np.unique((starts[:, None] + np.arange(width)).ravel())
