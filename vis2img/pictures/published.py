"""Published batches of cutouts (MiraBest, in the form of CIFAR-10), read without running what a pickle may hold.

Format: Krizhevsky 2009 (CIFAR-10); MiraBest: Porter & Scaife 2023, RASTI 2, 293.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vis2img.errors import Vis2imgError
from vis2img.pictures.array_pickles import as_text, one_line, read_pickle
from vis2img.pictures.cutouts import RawCutouts, native

_BATCH = re.compile(r"data_batch_(\d+)")
_TEST = "test_batch"
_META = "batches.meta"
_LABELS = ("labels", "fine_labels")
_MOST_AXES = 4  # of lists in lists
_MOST_GROWTH = 8  # bytes of an array to a byte of the file: small numbers of a list take one
# 100_010.451-009.284_0.0529_0080.60: code, RA and Dec in deg, redshift, largest angular size in arcsec
_NAME = re.compile(r"\d{3}_(\d+\.?\d*)([+-]\d+\.?\d*)_(\d+\.?\d*)_(\d+\.?\d*?)(?:\.[A-Za-z]+)?")


def batch_files(path: Path) -> list[Path]:
    """Return the training batches of a folder in order, or the batch itself; none where there are no batches.

    The test split of a published set is read only where it is named: ``FOLDER/test_batch``.
    """
    if path.is_file():
        return [path] if path.name == _TEST or _BATCH.fullmatch(path.name) else []
    numbered = [(int(match[1]), file) for file in path.iterdir() if (match := _BATCH.fullmatch(file.name))]
    return [file for _, file in sorted(numbered)]


def read_batches(path: Path, files: Sequence[Path]) -> RawCutouts:
    """Read batches of a folder: dictionaries of ``data`` (uint8 [n, side * side], or pictures), labels and filenames.

    The names of the labels come from ``batches.meta`` beside the first file; there are none where there is none.
    Without ``filenames``, batch and row name a picture.

    Raises
    ------
    Vis2imgError
        If a file is refused or damaged, or its arrays disagree; the message names file, array and row.
    """
    parts = [_read_batch(file) for file in files]
    shapes = {images.shape[1:] for images, *_ in parts}
    if len(shapes) > 1:
        raise Vis2imgError(f"{files[0].parent}: the batches hold pictures of different shapes, {sorted(shapes)}")
    images, labels, batch_names, named = zip(*parts, strict=True)
    names, label = sum(batch_names, ()), np.concatenate(labels)
    return RawCutouts(
        path=path,
        images=np.concatenate(images),
        names=names,
        rows=tuple(f"{path} picture {i} ({name})" for i, name in enumerate(names)),
        columns={"label": label, "label10": label, **_values_in_names(names)},
        pixsize=np.zeros(len(names)),
        label_names=_label_names(files[0].parent / _META),
        named=all(named),
    )


def _read_batch(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], bool]:
    batch = read_pickle(path)
    column = next((name for name in _LABELS if isinstance(batch, dict) and name in batch), None)
    if column is None or "data" not in batch:
        content = ", ".join(batch) if isinstance(batch, dict) else type(batch).__name__
        raise Vis2imgError(f"{path} is not a batch of cutouts: it needs data and labels, and holds {content}")
    images = _pictures(path, batch["data"])
    label = _array(path, column, batch[column])
    if label.shape != (len(images),) or label.dtype.kind not in "iu":
        raise Vis2imgError(f"{path}: {column} must be {len(images)} whole numbers, one for each picture of data")
    named = "filenames" in batch
    names = _texts(path, "filenames", batch["filenames"]) if named else ()
    names = names if named else tuple(f"{path.name} row {i}" for i in range(len(images)))
    if len(names) != len(images):
        raise Vis2imgError(f"{path}: filenames has {len(names)} entries for {len(images)} pictures")
    return images, label.astype(np.int64), names, named


def _array(path: Path, name: str, value: Any) -> np.ndarray:
    _check_size(path, name, value, _MOST_AXES)
    try:
        return native(np.asarray(value))
    except (ValueError, TypeError, OverflowError) as error:
        raise Vis2imgError(f"{path}: {name} is no array: {one_line(error)}") from error


def _check_size(path: Path, name: str, value: Any, axes: int) -> int:
    """Return the number of values in lists of lists; refuse more than the file can hold: a pickle may repeat itself."""
    if isinstance(value, list | tuple):
        most, count = path.stat().st_size, 0
        for item in value if axes else ():
            count += _check_size(path, name, item, axes - 1)
            if count > most:
                break
        if not axes or count > most:
            raise Vis2imgError(f"{path}: {name} holds lists in lists without end")
        return max(1, count)
    return value.size if isinstance(value, np.ndarray) else 1


def _listed(path: Path, name: str, value: Any) -> list[Any]:
    if not isinstance(value, list | tuple | np.ndarray) or (isinstance(value, np.ndarray) and not value.ndim):
        raise Vis2imgError(f"{path}: {name} must be a list or an array, not {type(value).__name__}")
    return list(value)


def _texts(path: Path, name: str, value: Any) -> tuple[str, ...]:
    items = _listed(path, name, value)
    wrong = next((i for i, item in enumerate(items) if not isinstance(item, str | bytes)), None)
    if wrong is not None:
        raise Vis2imgError(f"{path}: {name} entry {wrong} must be text, not {type(items[wrong]).__name__}")
    if sum(map(len, items)) > path.stat().st_size:
        raise Vis2imgError(f"{path}: {name} holds more text than the file: the same again and again")
    return tuple(as_text(item) for item in items)


def _pictures(path: Path, data: Any) -> np.ndarray:
    rows = [_array(path, f"data row {i}", row) for i, row in enumerate(_listed(path, "data", data))]
    if not rows:
        raise Vis2imgError(f"{path}: data is empty")
    first = rows[0]
    for i, picture in enumerate(rows):
        if picture.dtype.kind not in "iuf" or picture.shape != first.shape or not picture.size:
            actual = f"{picture.dtype} {list(picture.shape)}"
            raise Vis2imgError(f"{path}: data row {i} must be numbers of shape {list(first.shape)}, not {actual}")
    if sum(row.nbytes for row in rows) > _MOST_GROWTH * path.stat().st_size:
        raise Vis2imgError(f"{path}: data holds more pictures than the file: the same again and again")
    images = np.stack(rows)
    if images.ndim == 4 and 1 in (images.shape[1], images.shape[3]):  # an axis of one channel, first or last
        images = images[:, 0] if images.shape[1] == 1 else images[..., 0]
    if images.ndim == 2:
        side = round(images.shape[1] ** 0.5)
        if side * side != images.shape[1]:
            raise Vis2imgError(f"{path}: data rows of {images.shape[1]} numbers are not square pictures of one channel")
        images = images.reshape(len(images), side, side)
    if images.ndim != 3:
        raise Vis2imgError(f"{path}: data must be pictures of one channel, not of shape {list(first.shape)}")
    return images


def _label_names(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    meta = read_pickle(path)
    names = meta.get("label_names") if isinstance(meta, dict) else None
    if names is None:
        raise Vis2imgError(f"{path} holds no label_names")
    return _texts(path, "label_names", names)


def _values_in_names(names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return ra, dec (deg), redshift and size_arcsec [n] as MiraBest's file names tell them; NaN where one does not."""
    numbers = np.full((len(names), 4), np.nan)
    for i, name in enumerate(names):
        if match := _NAME.fullmatch(Path(name).name):
            numbers[i] = [float(word) for word in match.groups()]
    return dict(zip(("ra", "dec", "redshift", "size_arcsec"), numbers.T, strict=True))
