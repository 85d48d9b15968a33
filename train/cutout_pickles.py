"""Published batches of cutouts (MiraBest, in the form of CIFAR-10), read without running what a pickle may hold.

A pickle is a program: it can call anything that can be imported. :func:`read_pickle` lets it call what rebuilds plain
NumPy arrays and refuses the rest by name, before it is imported.

Format: Krizhevsky 2009 (CIFAR-10); MiraBest: Porter & Scaife 2023, RASTI 2, 293.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy._core.multiarray as _multiarray
import numpy._core.numeric as _numeric

from vis2img.errors import Vis2imgError

_BATCH = re.compile(r"data_batch_(\d+)")
_TEST = "test_batch"
_META = "batches.meta"
_LABELS = ("labels", "fine_labels")
# NumPy has moved these in version 2, and pickles name the place where they were when written.
_ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_BUFFER_MODULES = ("numpy.core.numeric", "numpy._core.numeric")
# 100_010.451-009.284_0.0529_0080.60: code, RA and Dec in deg, redshift, largest angular size in arcsec
_NAME = re.compile(r"\d{3}_(\d+\.?\d*)([+-]\d+\.?\d*)_(\d+\.?\d*)_(\d+\.?\d*?)(?:\.[A-Za-z]+)?")


@dataclass(frozen=True, eq=False)
class Batches:
    """Cutouts of one or several batches: ``images`` uint8 [n, y, x], ``label`` int [n], ``label_names``, ``names``."""

    images: np.ndarray
    label: np.ndarray
    label_names: tuple[str, ...]
    names: tuple[str, ...]


class _Forbidden(pickle.UnpicklingError):
    pass


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """Stand in for ``_codecs.encode``, by which old protocols write bytes: other encodings are modules to import."""
    if encoding not in ("latin1", "latin-1"):
        raise _Forbidden(f"it encodes as {encoding!r}")
    return text.encode("latin1")


def _known(module: str, name: str) -> Callable[..., Any] | None:
    if (module, name) == ("_codecs", "encode"):
        return _latin1
    if module == "numpy" and name in ("ndarray", "dtype"):
        return {"ndarray": np.ndarray, "dtype": np.dtype}[name]
    if module in _ARRAY_MODULES and name in ("_reconstruct", "scalar"):
        return getattr(_multiarray, name)
    if module in _BUFFER_MODULES and name == "_frombuffer":
        return getattr(_numeric, name)
    return None


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _known(module, name)
        if found is None:
            raise _Forbidden(f"it asks for {module}.{name}, and only plain arrays are read")
        return found


def read_pickle(path: str | Path) -> Any:
    """Read a pickle of plain values and NumPy arrays, of any protocol and of Python 2 too; keys become text.

    Raises
    ------
    Vis2imgError
        If it cannot be read, or asks for anything but arrays; the message names the file and what it asked for.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            # latin1 keeps the bytes of arrays that Python 2 wrote as text.
            return _with_text_keys(_ArraysOnly(file, encoding="latin1").load())
    except _Forbidden as error:
        raise Vis2imgError(f"{path} is refused: {error}") from error
    except OSError as error:
        raise Vis2imgError(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:  # a damaged pickle raises a dozen types
        why = " ".join(str(error).split()) or type(error).__name__
        raise Vis2imgError(f"{path} is not a pickle of arrays: {why}") from error


def _with_text_keys(value: Any) -> Any:
    return {_text(key): item for key, item in value.items()} if isinstance(value, dict) else value


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def batch_files(path: Path) -> list[Path]:
    """Return the training batches of a folder in order, or the batch itself; none where there are no batches.

    The test split of a published set is read only where it is named: ``FOLDER/test_batch``.
    """
    if path.is_file():
        return [path] if path.name == _TEST or _BATCH.fullmatch(path.name) else []
    numbers = {int(match[1]): file for file in path.iterdir() if (match := _BATCH.fullmatch(file.name))}
    return [numbers[i] for i in sorted(numbers)]


def read_batches(files: list[Path]) -> Batches:
    """Read batches: dictionaries of ``data`` (uint8 [n, side * side], or pictures), ``labels`` and ``filenames``.

    The names of the labels come from ``batches.meta`` beside the first file, where there is one.

    Raises
    ------
    Vis2imgError
        If a file is refused or damaged, or its arrays disagree; the message names file, array and row.
    """
    parts = [_read_batch(path) for path in files]
    shapes = {images.shape[1:] for images, _, _ in parts}
    if len(shapes) > 1:
        raise Vis2imgError(f"{files[0].parent}: the batches hold pictures of different shapes, {sorted(shapes)}")
    images, labels, names = zip(*parts, strict=True)
    label = np.concatenate(labels)
    return Batches(np.concatenate(images), label, _label_names(files[0].parent / _META, label), sum(names, ()))


def _read_batch(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    batch = read_pickle(path)
    column = next((name for name in _LABELS if isinstance(batch, dict) and name in batch), None)
    if column is None or "data" not in batch:
        held = ", ".join(batch) if isinstance(batch, dict) else type(batch).__name__
        raise Vis2imgError(f"{path} is not a batch of cutouts: it needs data and labels, and holds {held}")
    images = _pictures(path, batch["data"])
    label = np.asarray(batch[column])
    if label.shape != (len(images),) or label.dtype.kind not in "iu":
        raise Vis2imgError(f"{path}: {column} must be {len(images)} whole numbers, one for each picture of data")
    names = batch.get("filenames", [f"{path.name} row {i}" for i in range(len(images))])
    if len(names) != len(images):
        raise Vis2imgError(f"{path}: filenames has {len(names)} entries for {len(images)} pictures")
    return images, label.astype(np.int64), tuple(_text(name) for name in names)


def _pictures(path: Path, data: Any) -> np.ndarray:
    rows = list(data)
    if not rows:
        raise Vis2imgError(f"{path}: data is empty")
    first = np.asarray(rows[0])
    for i, row in enumerate(rows):
        picture = np.asarray(row)
        if picture.dtype.kind not in "iuf" or picture.shape != first.shape:
            found = f"{picture.dtype} {list(picture.shape)}"
            raise Vis2imgError(f"{path}: data row {i} must be numbers of shape {list(first.shape)}, not {found}")
    images = np.stack([np.asarray(row) for row in rows])
    if images.ndim > 3:  # an axis of one channel, first or last
        images = images.reshape(len(images), *(n for n in images.shape[1:] if n > 1))
    if images.ndim == 2:
        side = round(images.shape[1] ** 0.5)
        if side * side != images.shape[1]:
            raise Vis2imgError(f"{path}: data rows of {images.shape[1]} numbers are not square pictures of one channel")
        images = images.reshape(len(images), side, side)
    if images.ndim != 3:
        raise Vis2imgError(f"{path}: data must be pictures of one channel, not of shape {list(first.shape)}")
    return images


def _label_names(path: Path, label: np.ndarray) -> tuple[str, ...]:
    if not path.is_file():
        return tuple(str(i) for i in range(int(label.max()) + 1))
    meta = read_pickle(path)
    names = meta.get("label_names") if isinstance(meta, dict) else None
    if names is None:
        raise Vis2imgError(f"{path} holds no label_names")
    return tuple(_text(name) for name in names)


def told_by_name(names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return ra, dec (deg), redshift and size_arcsec [n] as MiraBest's file names tell them; NaN where one does not."""
    found = np.full((len(names), 4), np.nan)
    for i, name in enumerate(names):
        if match := _NAME.fullmatch(Path(name).name):
            found[i] = [float(word) for word in match.groups()]
    return dict(zip(("ra", "dec", "redshift", "size_arcsec"), found.T, strict=True))
