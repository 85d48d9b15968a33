"""Tables of sources as programs of the field write them: text with commas, tabs or blanks, FITS, VOTable, Parquet.

Comments, units and rules of text tables are read as PyBDSF, VizieR and WSClean write them.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from astropy.io import fits
from astropy.table import Table

from vis2img.errors import Vis2imgError, first_line
from vis2img.files import is_fits

_EQUINOX = re.compile(r"equinox\s*[:=]\s*'?[BJ]?(\d{4}(\.\d*)?)", re.IGNORECASE)
_DELIMITERS = (",", "\t", ";", "|")


@dataclass(frozen=True, eq=False)
class SourceTable:
    """The columns of a table, numbers or text [row], with units where they are told, and the equinox."""

    columns: dict[str, np.ndarray]
    units: dict[str, str] = field(default_factory=dict)
    equinox: float | None = None


def read_table(path: Path, wanted: Callable[[Sequence[str]], bool]) -> SourceTable:
    """Read a table by its suffix; whatever is no FITS, VOTable or Parquet is text.

    Parameters
    ----------
    path : Path
    wanted : callable
        Whether names of columns are those that are looked for: of several tables or headings of a file, the first
        such counts.

    Raises
    ------
    Vis2imgError
        If it cannot be read, or has no row; one line that names it.
    """
    kinds = {".parquet": _parquet, ".vot": _votable, ".xml": _votable, ".votable": _votable}
    read = _fits if is_fits(path) else kinds.get(path.suffix.lower(), _text)
    if path.exists() and not path.is_file():
        raise Vis2imgError(f"cannot read the table {path}: it is no file")
    try:
        table = read(path, wanted)
    except Vis2imgError:
        raise
    except Exception as error:  # libraries raise many types for a damaged file
        raise Vis2imgError(
            f"cannot read the table {path}: {getattr(error, 'strerror', None) or first_line(error)}"
        ) from error
    if not table.columns:
        raise Vis2imgError(f"{path} has no columns")
    if not len(next(iter(table.columns.values()))):
        raise Vis2imgError(f"{path} has a header and no row")
    return table


def _fits(path: Path, wanted: Callable[[Sequence[str]], bool]) -> SourceTable:
    with fits.open(path, memmap=False) as hdus:
        tables = [hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU | fits.TableHDU)]
        if not tables:
            raise Vis2imgError(f"{path} is an image, and a table is wanted")
        hdu = next((each for each in tables if wanted(each.columns.names)), tables[0])
        names = [name for name in hdu.columns.names if hdu.data[name].ndim == 1]
        columns = {name: np.asarray(hdu.data[name]) for name in names}
        # In the byte order of this machine.
        columns = {
            name: each if each.dtype.kind == "U" else each.astype(each.dtype.newbyteorder("="))
            for name, each in columns.items()
        }
        units = {column.name: column.unit for column in hdu.columns if column.unit}
        told = next((h["EQUINOX"] for h in (hdu.header, hdus[0].header) if "EQUINOX" in h), None)
        comments = [
            str(line) for h in (hdu.header, hdus[0].header) for line in (*h.get("COMMENT", []), *h.get("HISTORY", []))
        ]
    return SourceTable(columns, units, float(told) if isinstance(told, int | float) else _equinox(comments))


def _votable(path: Path, wanted: Callable[[Sequence[str]], bool]) -> SourceTable:
    table = Table.read(path, format="votable", table_id=0)
    columns = {
        name: np.ma.filled(table[name], np.nan) if table[name].dtype.kind == "f" else np.asarray(table[name])
        for name in table.colnames
    }
    return SourceTable(columns, {name: str(table[name].unit) for name in table.colnames if table[name].unit})


def _parquet(path: Path, wanted: Callable[[Sequence[str]], bool]) -> SourceTable:
    schema = pq.read_schema(path)
    plain = [
        one.name
        for one in schema
        if not str(one.type).startswith(("list", "fixed_size", "large_list", "struct", "binary"))
    ]
    table = pq.read_table(path, columns=plain)
    return SourceTable({name: table[name].to_numpy() for name in plain})


def _text(path: Path, wanted: Callable[[Sequence[str]], bool]) -> SourceTable:
    """Read text: the heading is the last line of comments that has the columns wanted, else the first other line."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    comments = [line.lstrip("#").strip() for line in lines if line.startswith("#")]
    lines = [line for line in lines if not line.startswith("#")]
    if not lines:
        raise Vis2imgError(f"{path} is empty")
    names = _cells(_heading(lines[0]), lines[0])
    told = next((c for c in reversed(comments) if c and wanted(_cells(c, c))), None)
    if told is not None and not wanted(names):
        names = _cells(told, told)
        separator = told
    else:
        separator, lines = _heading(lines[0]), lines[1:]
    rule = next((i for i, line in enumerate(lines[:3]) if "-" in line and not line.strip("- \t,;|+=")), None)
    lines = lines if rule is None else lines[rule + 1 :]  # VizieR has units and a rule below the heading
    rows = [_cells(line, separator) for line in lines]
    for i, row in enumerate(rows, start=1):
        if len(row) != len(names):
            raise Vis2imgError(f"{path} row {i}: {len(row)} cells for {len(names)} columns")
    columns = {name: np.array([row[i] for row in rows]) for i, name in enumerate(names)}
    return SourceTable(columns, equinox=_equinox(comments))


def _heading(line: str) -> str:
    """Return a heading without what WSClean's lists of sources have before it, and the defaults behind its names."""
    if not re.match(r"\(?\s*format\s*=", line, re.IGNORECASE):
        return line
    return re.sub(r"=\s*('[^']*'|[^,]*)", "", line.split("=", 1)[1].removesuffix(")"))


def _cells(line: str, like: str) -> list[str]:
    """Return the cells of a line, separated as in ``like``."""
    delimiter = next((each for each in _DELIMITERS if each in like), None)
    if delimiter is None:
        return line.split()
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))]


def _equinox(comments: Sequence[str]) -> float | None:
    found = next((match for match in map(_EQUINOX.search, comments) if match), None)
    return float(found[1]) if found else None
