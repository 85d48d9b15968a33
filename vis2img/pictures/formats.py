"""One reader of pictures, whatever the form of their file.

:func:`read_pictures` takes the pictures of an .npz file, a FITS image or a folder of FITS images; :func:`read_raw`
takes tables, labelled folders and published batches as well, and every column.
"""

from __future__ import annotations

import csv
import math
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vis2img.errors import Vis2imgError, Vis2imgWarning, first_line
from vis2img.files import is_fits
from vis2img.inputs import check_file, check_growth
from vis2img.pictures.cutouts import RawCutouts, fits_files, fits_image, native
from vis2img.pictures.published import batch_files, read_batches

LABELS_FILE = "labels.csv"
_ARRAYS = ("images", "images_i16", "images_u8")
# What belongs to a picture; whatever else a file may hold is for those who ask for it.
_OWN = {"scale_mJy", "label", "label10", "label_names", "size_arcsec", "filename"}
_MOST_TOLD = 3  # reasons in one warning
_MOST_CSV = 1 << 30  # bytes
_NUMBERS = ("scale_mJy", "size_arcsec")


def read_pictures(path: str | Path) -> RawCutouts:
    """Read pictures with what belongs to each.

    Nothing that could run code (pickles) is loaded.

    Parameters
    ----------
    path : path
        - .npz: ``images`` [n, y, x] of any type (or ``images_i16``, or ``images_u8``), and if wanted ``scale_mJy`` [n]
          (a factor), ``label`` or ``label10`` [n] (numbers, whose names are ``label_names``, or text), ``size_arcsec``
          [n] and ``filename`` [n]. Other arrays are left alone.
        - a FITS image, turned to x along decreasing RA and y along increasing Dec by the signs of CDELT (or CD).
        - a folder of FITS images. A table and subfolders in it are left alone.

    Raises
    ------
    Vis2imgError
        If the file cannot be read, holds no pictures or its columns disagree; the message names the file and row.
    """
    path = Path(path)
    if path.is_dir():
        files = fits_files(path)
        if not files:
            raise Vis2imgError(f"the folder {path} holds no FITS file")
        return _fits(path, files, {})
    if is_fits(path):
        return _fits(path, [path], {})
    if path.suffix.lower() == ".npz":
        return _npz(path, only=_OWN)
    raise Vis2imgError(f"{path}: cutouts must be an .npz file, a .fits image or a folder of them")


def read_raw(path: str | Path) -> RawCutouts:
    """Read cutouts and all of their columns.

    Parameters
    ----------
    path : path
        - .npz: as for :func:`read_pictures`, with any columns [n]; ``ra`` and ``dec`` in deg.
        - a .csv file, or a folder that holds ``labels.csv``: columns ``filename`` (FITS, relative to the table),
          ``label``, and any numbers, such as ra_deg, dec_deg and redshift.
        - a folder with a subfolder of FITS images for each label, or with FITS images without labels.
        - a folder of ``data_batch_1`` and so on, or one batch (``FOLDER/test_batch``).

    Raises
    ------
    Vis2imgError
        If nothing of this is there, a file cannot be read, or arrays disagree; the message names file, array and row.
    """
    path = Path(path)
    if not path.exists():
        raise Vis2imgError(f"{path} does not exist")
    if not path.is_dir():
        check_file(path)
    if path.suffix.lower() == ".npz":
        return _npz(path)
    if path.suffix.lower() == ".csv":
        return _table(path)
    if is_fits(path):
        return _fits(path, [path], {})
    batches = batch_files(path)
    if batches:
        return read_batches(path, batches)
    if path.is_file():
        raise Vis2imgError(
            f"{path}: labelled images are an .npz file, a table (.csv), batches, or a folder of FITS files"
        )
    if (path / LABELS_FILE).is_file():
        return _table(path / LABELS_FILE)
    return _folder(path)


def _npz(path: Path, only: set[str] | None = None) -> RawCutouts:
    """Read the pictures of a file and its columns, those in ``only`` if it is given."""
    name, arrays = _arrays(path, only)
    images = arrays.pop(name)
    if images.ndim != 3 or not np.issubdtype(images.dtype, np.number) or 0 in images.shape:
        raise Vis2imgError(f"{path}: {name} must be numbers [n, y, x], not {images.dtype} {list(images.shape)}")
    if np.iscomplexobj(images):
        raise Vis2imgError(f"{path}: pictures must be real numbers, not {images.dtype}")

    n = len(images)
    label_names = arrays.pop("label_names", np.array([], "U1"))
    if label_names.ndim != 1:
        raise Vis2imgError(f"{path}: label_names must be a list, not of the shape {list(label_names.shape)}")
    for name, values in arrays.items():
        if values.shape != (n,):
            raise Vis2imgError(f"{path}: {name} has the shape {list(values.shape)} for {n} images")
        if name in _NUMBERS and values.dtype.kind not in "iuf":
            raise Vis2imgError(f"{path}: {name} must be numbers, not {values.dtype}")

    names = arrays.pop("filename", None)
    return RawCutouts(
        path=path,
        images=images,
        names=tuple(f"{path.stem} {i}" for i in range(n)) if names is None else tuple(map(str, names)),
        rows=tuple(f"{path} row {i}" + (f" ({names[i]})" if names is not None else "") for i in range(n)),
        columns=arrays,
        pixsize=np.zeros(n),
        label_names=tuple(map(str, label_names)),
        named=names is not None,
    )


def _arrays(path: Path, only: set[str] | None) -> tuple[str, dict[str, np.ndarray]]:
    """Return the name of the pictures of a file, and arrays by name: the pictures and the columns."""
    check_file(path)
    try:
        # Opened here, as NumPy leaves open what it cannot read; zipfile tells what is no archive.
        with path.open("rb") as raw, zipfile.ZipFile(raw), np.load(raw, allow_pickle=False) as file:
            pictures = next((name for name in _ARRAYS if name in file.files), None)
            if pictures is None:
                names = ", ".join(file.files) or "none"
                raise Vis2imgError(f"{path} holds none of the arrays {', '.join(_ARRAYS)}; it has {names}")
            columns = [name for name in file.files if not name.startswith("images") and (only is None or name in only)]
            return pictures, {name: _array(path, file, name) for name in (pictures, *columns)}
    except Vis2imgError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise a dozen types for a damaged file
        raise Vis2imgError(f"cannot read the cutouts {path}: {first_line(error)}") from error


def _sizes(member: zipfile.ZipInfo) -> tuple[int, int]:
    return member.file_size, member.compress_size


def _array(path: Path, file: Any, name: str) -> np.ndarray:
    """Return an array of an npz file; bytes become text.

    Raises
    ------
    Vis2imgError
        If it holds Python objects, which only a pickle could bring back.
    """
    if f"{name}.npy" in file.zip.namelist():
        check_growth(path, *_sizes(file.zip.getinfo(f"{name}.npy")))
        with file.zip.open(f"{name}.npy") as member:
            first = np.lib.format.read_magic(member) == (1, 0)
            read_header = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
            dtype = read_header(member)[2]
        if dtype.hasobject and name in _ARRAYS:
            why = "images are Python objects, as are pictures of several sizes; make them of one size, or FITS files"
            raise Vis2imgError(f"cannot read the cutouts {path}: {why}")
        if dtype.hasobject:
            raise Vis2imgError(f"{path}: the column {name} holds Python objects; save numbers or text")
    values = native(np.asarray(file[name]))
    return np.char.decode(values, "latin1") if values.dtype.kind == "S" else values


def _folder(path: Path) -> RawCutouts:
    groups = {"": fits_files(path)}
    groups |= {folder.name: fits_files(folder) for folder in sorted(path.iterdir()) if folder.is_dir()}
    files = [file for members in groups.values() for file in members]
    if not files:
        raise Vis2imgError(f"the folder {path} holds no FITS file, no {LABELS_FILE} and no data_batch_1")
    labels = np.array([name for name, members in groups.items() for _ in members])
    return _fits(path, files, {"label": labels} if labels.any() else {})


def _table(path: Path) -> RawCutouts:
    columns = read_csv(path, ("filename",))
    files = [path.parent / name for name in columns.pop("filename")]
    for i, file in enumerate(files):
        if not file.is_file():
            raise Vis2imgError(f"{path} row {i + 1}: there is no file {file}")
    return _fits(path, files, columns)


def read_csv(path: Path, needed: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the columns of a table: float64 where every cell is a number or empty (NaN), else text.

    ``filename``, ``label`` and ``name`` stay text.

    Raises
    ------
    Vis2imgError
        If the table cannot be read, is empty, has rows of other lengths or a column twice, or lacks a column of
        ``needed``.
    """
    check_file(path, _MOST_CSV)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Vis2imgError(f"cannot read the table {path}: {getattr(error, 'strerror', None) or error}") from error
    header = [name.lower() for name in rows[0]] if rows else []
    twice = next((name for i, name in enumerate(header) if name in header[:i]), None)
    if twice is not None:
        raise Vis2imgError(f"{path} has the column {twice or 'without a name'} twice")
    missing = [name for name in needed if name not in header]
    if missing:
        raise Vis2imgError(f"{path} lacks the column {missing[0]}; it has {', '.join(header) or 'none'}")
    if len(rows) < 2:
        raise Vis2imgError(f"{path} has a header and no row")
    for i, row in enumerate(rows[1:], start=1):
        if len(row) != len(header):
            raise Vis2imgError(f"{path} row {i}: {len(row)} cells for {len(header)} columns")
    cells = zip(*rows[1:], strict=True)
    return {name: _typed(name, values) for name, values in zip(header, cells, strict=True)}


def _typed(name: str, cells: tuple[str, ...]) -> np.ndarray:
    if name not in ("filename", "label", "name"):
        try:
            return np.array([float(cell) if cell else math.nan for cell in cells])
        except ValueError:
            pass
    return np.array(cells)


def _fits(path: Path, files: list[Path], columns: dict[str, np.ndarray]) -> RawCutouts:
    """Read FITS images; of several, those that are damaged are left out with their rows, and warned about."""
    read, skipped = {}, {}
    for i, file in enumerate(files):
        try:
            read[i] = fits_image(file)
        except Vis2imgError as error:
            if len(files) == 1:
                raise
            skipped[str(file)] = str(error)
    if not read:
        raise Vis2imgError(f"{path}: none of {len(files)} images can be read: {next(iter(skipped.values()))}")
    if skipped:
        told = "; ".join([*skipped.values()][:_MOST_TOLD]) + ("; ..." if len(skipped) > _MOST_TOLD else "")
        text = f"{len(skipped)} of {len(files)} images of {path} are left out: {told}"
        warnings.warn(text, Vis2imgWarning, stacklevel=3)

    rows, files = [*read], [files[i] for i in read]
    images, sides = zip(*read.values(), strict=True)
    folder = path if path.is_dir() else path.parent
    return RawCutouts(
        path=path,
        images=images,
        names=tuple(str(file.relative_to(folder) if file.is_relative_to(folder) else file) for file in files),
        rows=tuple(map(str, files)),
        columns={name: values[rows] for name, values in columns.items()},
        pixsize=np.array(sides),
        files=tuple(files),
        skipped=skipped,
    )
