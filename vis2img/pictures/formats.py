"""Cutouts with what is known of them, as files hold them: pictures, columns of numbers and labels, positions.

Read are .npz files, folders of FITS images (labelled by a table or by subfolders), and published batches.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vis2img.errors import Vis2imgError
from vis2img.pictures.published import batch_files, read_batches, told_by_name
from vis2img.simulate.sky.pictures import CutoutSet, read_cutouts

FITS_SUFFIXES = (".fits", ".fit", ".fts")
LABELS_FILE = "labels.csv"
_RA, _DEC = ("ra_deg", "ra"), ("dec_deg", "dec")
# Labels, flags, names, places and units: without the unit that a name may end with, in small letters.
_NO_TARGET = {
    *("fr", "label", "label10", "class", "code", "name", "filename", "id", "index", "row", "ra", "dec", "rms", "scale"),
    *("confident", "in_mirabest", "has_blank", "split", "fold", "train", "test"),
}
_UNIT = re.compile(r"_(deg|rad|arcsec|u?m?jy)$")
_NUMBERS = ("scale_mJy", "size_arcsec")
_OBJECTS = "Object arrays cannot be loaded"  # as NumPy says it


@dataclass(frozen=True, eq=False)
class RawCutouts:
    """Cutouts before they are cut and stretched.

    Parameters
    ----------
    path : Path
    images : sequence of [y, x]
        Of any type and in any unit, NaN where blank.
    names : tuple of str
        What the file calls each.
    rows : tuple of str
        What messages call each: file and row.
    columns : dict
        Arrays [n]: labels, flags and numbers.
    label_names : tuple of str
        Of the numbers in ``label10`` or ``label``; empty if the file does not tell.
    named : bool
        Whether the file names each cutout; else ``names`` count them, and say nothing about another file.
    """

    path: Path
    images: Sequence[np.ndarray] | np.ndarray = field(repr=False)
    names: tuple[str, ...] = field(repr=False)
    rows: tuple[str, ...] = field(repr=False)
    columns: dict[str, np.ndarray] = field(repr=False)
    label_names: tuple[str, ...] = ()
    named: bool = True

    def __len__(self) -> int:
        return len(self.images)

    @property
    def position(self) -> np.ndarray:
        """RA and Dec float64 [n, 2] in rad; NaN where unknown.

        Raises
        ------
        Vis2imgError
            If one is no position, or there is one coordinate without the other; the message names column and row.
        """
        found = np.full((len(self), 2), np.nan)
        ra, dec = (next((name for name in names if name in self.columns), None) for names in (_RA, _DEC))
        for axis, (name, low, high) in enumerate(((ra, -360.0, 360.0), (dec, -90.0, 90.0))):
            if name is None:
                continue
            value = self.columns[name]
            if value.dtype.kind not in "iuf":
                raise Vis2imgError(f"{self.path}: {name} must be numbers in deg, not {value.dtype}")
            wrong = np.flatnonzero((value < low) | (value > high))
            if len(wrong):
                raise Vis2imgError(
                    f"{self.rows[wrong[0]]}: {name} = {value[wrong[0]]:g} deg is outside {low:g}:{high:g}"
                )
            found[:, axis] = np.radians(value.astype(np.float64))
        if (ra is None) != (dec is None):
            lacking = f"right ascension ({' or '.join(_RA)})" if ra is None else f"declination ({' or '.join(_DEC)})"
            raise Vis2imgError(f"{self.path} has {ra or dec} and no {lacking}")
        found[:, 0] %= 2 * np.pi
        found[~np.isfinite(found).all(axis=1)] = np.nan
        return found

    @property
    def targets(self) -> dict[str, np.ndarray]:
        """Columns of real numbers float64 [n] to ask for: redshift, size_arcsec and the like.

        Left out are labels, positions, names and units by the name of the column, and whatever is 0 or 1 only.
        """
        return {
            name: values.astype(np.float64)
            for name, values in self.columns.items()
            if values.dtype.kind == "f" and _UNIT.sub("", name.lower()) not in _NO_TARGET and not _is_flag(values)
        }


def _is_flag(values: np.ndarray) -> bool:
    known = values[~np.isnan(values)]
    return len(known) > 0 and bool(np.isin(known, (0, 1)).all())


def read_raw(path: str | Path) -> RawCutouts:
    """Read cutouts and their columns.

    Parameters
    ----------
    path : path
        - .npz: ``images`` [n, y, x] (or ``images_i16``, or ``images_u8``) and any columns [n], as
          :func:`vis2img.simulate.sky.pictures.read_cutouts` takes them; ``ra`` and ``dec`` in deg.
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
    if path.suffix.lower() == ".npz":
        return _npz(path)
    if path.suffix.lower() == ".csv":
        return _table(path)
    if path.suffix.lower() in FITS_SUFFIXES:
        return _fits(path, [path], {})
    batches = batch_files(path)
    if batches:
        return _batches(path, batches)
    if path.is_file():
        raise Vis2imgError(
            f"{path}: labelled images are an .npz file, a table (.csv), batches, or a folder of FITS files"
        )
    if (path / LABELS_FILE).is_file():
        return _table(path / LABELS_FILE)
    return _folder(path)


def _npz(path: Path) -> RawCutouts:
    columns = _columns(path)
    label_names = columns.pop("label_names", np.array([], "U1"))
    if label_names.ndim != 1:
        raise Vis2imgError(f"{path}: label_names must be a list, not of the shape {list(label_names.shape)}")
    for name in _NUMBERS:
        if name in columns and columns[name].dtype.kind not in "iuf":
            raise Vis2imgError(f"{path}: {name} must be numbers, not {columns[name].dtype}")
    cutouts = _npz_cutouts(path)
    n = len(cutouts)
    for name, values in columns.items():
        if values.ndim != 1 or len(values) != n:
            raise Vis2imgError(f"{path}: {name} has the shape {list(values.shape)} for {n} images")
    names = columns.pop("filename", None)
    own = tuple(f"{path.stem} {i}" for i in range(n)) if names is None else tuple(map(str, names))
    return RawCutouts(
        path, cutouts.images, own, cutouts.names, columns, tuple(map(str, label_names)), names is not None
    )


def _columns(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file other than its pictures; bytes become text."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: _column(path, file, name) for name in file.files if not name.startswith("images")}
    except Vis2imgError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise a dozen types for a damaged file
        raise Vis2imgError(f"cannot read the cutouts {path}: {_first_line(error)}") from error


def _column(path: Path, file: Any, name: str) -> np.ndarray:
    try:
        values = np.asarray(file[name])
    except ValueError as error:
        if _OBJECTS not in str(error):
            raise
        raise Vis2imgError(f"{path}: the column {name} holds Python objects; save numbers or text") from error
    return np.char.decode(values, "latin1") if values.dtype.kind == "S" else values


def _npz_cutouts(path: Path) -> CutoutSet:
    try:
        cutouts = read_cutouts(path)
    except Vis2imgError as error:
        if _OBJECTS not in str(error):
            raise
        why = "images are Python objects, as are pictures of several sizes; make them of one size, or FITS files"
        raise Vis2imgError(f"{path}: {why}") from error
    if np.iscomplexobj(cutouts.images):
        raise Vis2imgError(f"{path}: pictures must be real numbers, not {np.asarray(cutouts.images).dtype}")
    return cutouts


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _batches(path: Path, files: list[Path]) -> RawCutouts:
    batches = read_batches(files)
    rows = tuple(f"{path} picture {i} ({name})" for i, name in enumerate(batches.names))
    columns = {"label": batches.label, "label10": batches.label, **told_by_name(batches.names)}
    return RawCutouts(path, batches.images, batches.names, rows, columns, batches.label_names, batches.named)


def _folder(path: Path) -> RawCutouts:
    groups = {"": fits_files(path)}
    groups |= {folder.name: fits_files(folder) for folder in sorted(path.iterdir()) if folder.is_dir()}
    files = [file for members in groups.values() for file in members]
    if not files:
        raise Vis2imgError(f"the folder {path} holds no FITS file, no {LABELS_FILE} and no data_batch_1")
    labels = np.array([name for name, members in groups.items() for _ in members])
    return _fits(path, files, {"label": labels} if labels.any() else {})


def fits_files(folder: Path) -> list[Path]:
    """Return the FITS files of a folder, by name."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in FITS_SUFFIXES)


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
    sets: list[CutoutSet] = [read_cutouts(file) for file in files]
    images = [cutouts.images[0] for cutouts in sets]
    if not any(name in columns for name in _RA):
        ra, dec = zip(*map(_centre_deg, files), strict=True)
        columns = {**columns, "ra_deg": np.array(ra), "dec_deg": np.array(dec)}
    folder = path if path.is_dir() else path.parent
    names = tuple(str(file.relative_to(folder) if file.is_relative_to(folder) else file) for file in files)
    return RawCutouts(path, images, names, tuple(map(str, files)), columns)


def _centre_deg(path: Path) -> tuple[float, float]:
    """Return RA and Dec of the middle of a FITS image in deg; NaN where its header does not tell."""
    import warnings

    from astropy.io import fits
    from astropy.wcs import WCS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # headers of surveys hold many things that astropy mends
        try:
            with fits.open(path, memmap=False) as hdus:
                header: Any = next(
                    hdu.header for hdu in hdus if getattr(hdu, "is_image", False) and hdu.data is not None
                )
            wcs = WCS(header).celestial
            nx, ny = wcs.pixel_shape or (header["NAXIS1"], header["NAXIS2"])
            place = wcs.pixel_to_world((nx - 1) / 2, (ny - 1) / 2).icrs
            return float(place.ra.deg), float(place.dec.deg)
        except Exception:  # no celestial axes, or ones that astropy refuses
            return math.nan, math.nan
