"""Damaged measurement sets: bytes, files, values of cells, columns, sub-tables, and what other tables refer to.

Damage is done to copies of small real sets and of simulated ones; only of the latter where there are no real ones.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from casacore.tables import makearrcoldesc, makescacoldesc, maketabdesc, msconcat, table, taql

from tests.fuzz.damage import damage_file, replace_file
from tests.fuzz.frame import Case, kind, scratch
from tests.helpers.measurement_sets import build_ms
from tests.helpers.places import DATA

_LARGEST = 6 << 20  # bytes of a set that is copied for each input
_READ = ("SPECTRAL_WINDOW", "POLARIZATION", "DATA_DESCRIPTION", "FIELD", "ANTENNA", "OBSERVATION", "FEED", "STATE")
_FLOATS = (np.nan, np.inf, -np.inf, 0.0, -1.0, 5e-324, 1e-300, 1e-30, 1e-9, 1e3, 1e9, 1e15, 1e30, 1e300)
_INTS = (-1, 0, 1, 2, 255, 10**6, 2**31 - 1, -(2**31))
_WORDS = ("", " ", "x" * 60_000, "a\nb", "<b>&", "$\\frac", "[/red]", "\u00e9\u4e16", "../../x", "%s{0}", "\x1b[31m")


@functools.cache
def originals() -> tuple[Path, ...]:
    """Return whole measurement sets: simulated ones, and the small ones among the real ones."""
    folder = scratch()
    made = [
        build_ms(folder / "plain.ms").path,
        build_ms(folder / "full.ms", corrs=("XX", "XY", "YX", "YY"), columns=("DATA", "CORRECTED_DATA")).path,
        build_ms(folder / "weights.ms", weight_spectrum=True, channels=9, descending=True).path,
    ]
    for archive in sorted((DATA / "ms").glob("*.ms.tar.xz")):
        with tarfile.open(archive) as tar:
            members = tar.getmembers()
            if sum(member.size for member in members) <= _LARGEST:
                tar.extractall(folder, filter="data")
                made.append(folder / members[0].name.split("/")[0])
    return tuple(made)


def _copy(rng: np.random.Generator, folder: Path, name: str = "set.ms") -> Path:
    """Copy one of the originals, simulated ones as often as real ones."""
    choice = originals()
    some = choice[:3] if rng.random() < 0.5 else choice[3:] or choice
    target = folder / name
    shutil.copytree(some[rng.integers(len(some))], target, symlinks=True)
    return target


def _case(rng: np.random.Generator, folder: Path, inputs: tuple[Path, ...], what: str) -> Case:
    """Return a case that looks at, images or averages the first of ``inputs``."""
    path, out = inputs[0], folder / "out"
    command = rng.choice(["info", "image", "average"], p=[0.25, 0.6, 0.15])
    if command == "info":
        return Case(("info", path, *(["--json"] * int(rng.integers(2)))), inputs, what)

    facet = [
        "--npix",
        64,
        *(["--pixsize", rng.choice(["2arcsec", "10arcsec", "1arcmin"])] if rng.random() < 0.7 else []),
    ]
    some: list[list[object]] = [
        [],
        ["--spw", "all"],
        ["--field", rng.choice(["0", "1", "SKY"])],
        ["--weight-column", rng.choice(["none", "WEIGHT", "WEIGHT_SPECTRUM"])],
        ["--channels", "0:2"],
        ["--antennas", "0,1,2,3"],
        ["--stokes", rng.choice(["Q", "V"])],
    ]
    options = some[rng.integers(len(some))] if rng.random() < 0.6 else []
    if command == "average":
        return Case(("average", path, *facet, "-o", out / "a.zarr", *options), inputs, what)

    more: list[list[object]] = [
        [],
        ["--psf"],
        ["--weighting", "uniform"],
        ["--weighting", "briggs", "--robust", 0],
        ["--keep-antennas", 0.5],
        ["--keep-times", 0.5, "--keep-baselines", 0.7],
        ["--channels-out", 2],
        ["--uvrange", "0.1k:20k"],
        ["--taper", "20arcsec"],
        ["--json"],
    ]
    options = [*options, *(more[rng.integers(len(more))] if rng.random() < 0.6 else [])]
    whole = "--pixsize" in facet and "--channels-out" not in options
    argv = ("image", path, "-o", out / "a.fits", *facet, *([] if rng.random() < 0.3 else ["--no-png"]), *options)
    return Case(argv, inputs, what, _finite if whole else None)


def _finite(out: Path) -> str | None:
    """Return what is wrong with the images: pixels that are no numbers, where none lies beyond the horizon."""
    for path in out.glob("*.fits"):
        if not np.isfinite(fits.getdata(path)).all():
            return "pixels are no numbers"
    return None


def _tables(path: Path) -> list[Path]:
    """Return the folders of the main table and its sub-tables, those that are read more often."""
    below = sorted(each.parent for each in path.glob("*/table.dat"))
    return [
        path,
        path,
        path,
        *below,
        *(each for each in below if each.name in _READ),
        *(each for each in below if each.name in _READ),
    ]


def _pick(rng: np.random.Generator, choice: list[Any] | tuple[Any, ...]) -> Any:
    return choice[rng.integers(len(choice))]


@kind(share=4)
def bytes_of_files(rng: np.random.Generator, folder: Path) -> Case:
    """Damage bytes of files of one table."""
    path = _copy(rng, folder)
    what = []
    for _ in range(int(rng.choice([1, 1, 2, 4]))):
        files = [each for each in sorted(_pick(rng, _tables(path)).iterdir()) if each.is_file()]
        victim = _pick(rng, files)
        what.append(f"{damage_file(rng, victim)} of {victim.parent.name}")
    return _case(rng, folder, (path,), ", ".join(what))


@kind(share=2)
def files_replaced(rng: np.random.Generator, folder: Path) -> Case:
    """Put something else where a file is."""
    path = _copy(rng, folder)
    files = [each for each in sorted(_pick(rng, _tables(path)).iterdir()) if each.is_file()]
    victim = _pick(rng, files)
    return _case(rng, folder, (path,), f"in {victim.parent.name}: {replace_file(rng, path, victim)}")


@kind(share=1)
def subtables_replaced(rng: np.random.Generator, folder: Path) -> Case:
    """Remove, empty or swap a whole sub-table, or fill it many times."""
    path = _copy(rng, folder)
    below = _tables(path)[3:]
    victim, other = _pick(rng, below), _pick(rng, below)
    way = rng.choice(["removed", "emptied", "another", "repeated"])
    if way in ("removed", "another"):
        shutil.rmtree(victim)
    if way == "another" and other != victim:
        shutil.copytree(other, victim)
    elif way == "emptied":
        with table(str(victim), readonly=False, ack=False) as t:
            t.removerows(list(range(t.nrows())))
    elif way == "repeated":
        with table(str(victim), readonly=False, ack=False) as t:
            for _ in range(int(rng.integers(1, 5))):
                t.copyrows(t)
    return _case(rng, folder, (path,), f"{victim.name} {way} ({other.name})")


def _odd(rng: np.random.Generator, value: Any) -> Any:
    """Return an odd value in the place of a cell: of the same type, of another shape now and then."""
    if isinstance(value, str):
        return str(_pick(rng, _WORDS))
    if isinstance(value, dict):  # a column of texts
        return {**value, "array": [str(_pick(rng, _WORDS)) for _ in value["array"]]}
    array = np.array(value)
    if array.dtype.kind == "b":
        odd = ~array
    elif array.dtype.kind in "iu":
        odd = np.full_like(array, np.clip(_pick(rng, _INTS), np.iinfo(array.dtype).min, np.iinfo(array.dtype).max))
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            odd = (
                np.full_like(array, _pick(rng, _FLOATS))
                if rng.random() < 0.7
                else array * array.dtype.type(_pick(rng, _FLOATS))
            )
    if not array.ndim:
        return odd[()].item() if hasattr(odd[()], "item") else odd[()]
    if array.size and rng.random() < 0.4:  # one element
        flat = array.ravel().copy()
        flat[rng.integers(flat.size)] = odd.ravel()[0]
        return flat.reshape(array.shape)
    shape = list(array.shape)
    if rng.random() < 0.3:
        shape[rng.integers(len(shape))] = int(rng.choice([0, 1, 2, 3, 1000]))
    return np.resize(odd if rng.random() < 0.6 else array, shape)


def _put_odd(rng: np.random.Generator, t: table, rows: list[int]) -> str:
    """Put an odd value into cells of a column; return its name."""
    name = _pick(rng, t.colnames())
    for row in rows:
        with contextlib.suppress(RuntimeError, TypeError, ValueError, OverflowError):  # casacore refuses some
            t.putcell(name, row, _odd(rng, t.getcell(name, row)))
    return str(name)


@kind(share=4)
def cells_of_subtables(rng: np.random.Generator, folder: Path) -> Case:
    """Put odd values into cells of the sub-tables that are read."""
    path = _copy(rng, folder)
    what = []
    for _ in range(int(rng.choice([1, 1, 2, 3]))):
        name = _pick(rng, [name for name in _READ if (path / name / "table.dat").is_file()])
        with table(f"{path}/{name}", readonly=False, ack=False) as t:
            if t.nrows():
                rows = list(range(t.nrows())) if rng.random() < 0.4 else [int(rng.integers(t.nrows()))]
                what.append(f"{name}.{_put_odd(rng, t, rows[:64])}")
    return _case(rng, folder, (path,), f"odd values in {', '.join(what)}")


@kind(share=3)
def cells_of_rows(rng: np.random.Generator, folder: Path) -> Case:
    """Put odd values into cells of the main table."""
    path = _copy(rng, folder)
    what = []
    with table(str(path), readonly=False, ack=False) as t:
        for _ in range(int(rng.choice([1, 1, 2, 3]))):
            whole = rng.random() < 0.4
            rows = range(min(t.nrows(), 500)) if whole else rng.integers(t.nrows(), size=rng.integers(1, 20))
            what.append(_put_odd(rng, t, [int(row) for row in rows]))
    return _case(rng, folder, (path,), f"odd values in {', '.join(what)}")


@kind(share=2)
def columns_of_another_type(rng: np.random.Generator, folder: Path) -> Case:
    """Take a column out, and put one of its name, of another type or shape, in its place."""
    path = _copy(rng, folder)
    where = _pick(rng, _tables(path))
    types = {"int": 0, "double": 0.0, "float": 0.0, "complex": 0j, "string": "", "boolean": False, "short": 0}
    with table(str(where), readonly=False, ack=False) as t:
        name, kind_of = _pick(rng, t.colnames()), str(_pick(rng, list(types)))
        what = f"{where.name}.{name} removed"
        with contextlib.suppress(RuntimeError):
            t.removecols([name])
            if rng.random() < 0.8:
                dims = int(rng.integers(0, 4))
                make = makearrcoldesc if dims else makescacoldesc
                extra = {"ndim": dims, "shape": [int(n) for n in rng.integers(1, 5, dims)]} if dims else {}
                t.addcols(maketabdesc(make(name, types[kind_of], valuetype=kind_of, **extra)))
                what = f"{where.name}.{name} is {kind_of} of {dims} axes"
    return _case(rng, folder, (path,), what)


@kind(share=1)
def texts_of_other_alphabets(rng: np.random.Generator, folder: Path) -> Case:
    """Put bytes that are no UTF-8 where names are, as writers on other systems do."""
    path = _copy(rng, folder)
    files = [each for each in sorted(_pick(rng, _tables(path)).iterdir()) if each.name.startswith("table.")]
    victim = _pick(rng, files)
    content = bytearray(victim.read_bytes())
    letters = [i for i, byte in enumerate(content[: 1 << 16]) if chr(byte).isalpha()]
    for place in rng.choice(letters, size=min(len(letters), int(rng.integers(1, 6)))) if letters else ():
        content[place] = int(rng.choice([0xE9, 0xFF, 0xC3, 0x80]))
    victim.write_bytes(content)
    return _case(rng, folder, (path,), f"letters of {victim.parent.name}/{victim.name}")


@kind(share=1)
def tables_that_refer_to_others(rng: np.random.Generator, folder: Path) -> Case:
    """Damage, or leave whole, what lies behind a selection, a sorted table, or a concatenation."""
    parts = [_copy(rng, folder, "part.ms")]
    path, way = folder / "set.ms", rng.choice(["select", "sort", "concat", "concat in time", "link"])
    if way == "select":
        taql(f"select from {parts[0]} where rownumber() % 2 = 0 giving {path}").close()
    elif way == "sort":
        taql(f"select from {parts[0]} orderby desc TIME giving {path}").close()
    elif way == "link":
        path.symlink_to(parts[0])
    else:
        parts.append(folder / "other.ms")
        shutil.copytree(parts[0], parts[1])
        with contextlib.redirect_stdout(None):
            msconcat([str(part) for part in parts], str(path), concatTime=way == "concat in time")
    what = f"{way}, whole"
    if rng.random() < 0.7:
        victim = _pick(rng, [each for each in sorted(_pick(rng, _tables(parts[-1])).iterdir()) if each.is_file()])
        damage = damage_file(rng, victim) if rng.random() < 0.5 else replace_file(rng, parts[-1], victim)
        what = f"{way}, {damage} of {victim.parent.name}"
    return _case(rng, folder, (path, *parts), what)
