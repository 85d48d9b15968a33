"""Published batches of cutouts (MiraBest, in the form of CIFAR-10), read without running what a pickle may hold.

A pickle is a program: it can call anything that can be imported. :func:`read_pickle` lets it call stand-ins for what
rebuilds NumPy arrays, which take plain numbers and text only, and refuses the rest by name, before it is imported.

Format: Krizhevsky 2009 (CIFAR-10); MiraBest: Porter & Scaife 2023, RASTI 2, 293.
"""

from __future__ import annotations

import math
import pickle
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vis2img.errors import Vis2imgError

_BATCH = re.compile(r"data_batch_(\d+)")
_TEST = "test_batch"
_META = "batches.meta"
_LABELS = ("labels", "fine_labels")
_CODE = re.compile(r"b1|[iu][1248]|f[248]|[SU]\d{1,5}")
_FLAGS = (0, 8)  # of NumPy's types; 8 is that of text, and all others are of types with objects
_MOST_AXES = 32
_LONGEST_LINE = 300
# NumPy has moved these in version 2, and pickles name the place where they were when written.
_ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_BUFFER_MODULES = ("numpy.core.numeric", "numpy._core.numeric")
# 100_010.451-009.284_0.0529_0080.60: code, RA and Dec in deg, redshift, largest angular size in arcsec
_NAME = re.compile(r"\d{3}_(\d+\.?\d*)([+-]\d+\.?\d*)_(\d+\.?\d*)_(\d+\.?\d*?)(?:\.[A-Za-z]+)?")


@dataclass(frozen=True, eq=False)
class Batches:
    """Cutouts of one or several batches.

    Parameters
    ----------
    images : uint8 [n, y, x]
        Or other real numbers, as the files hold them.
    label : int64 [n]
    label_names : tuple of str
        Of the labels; empty if no file tells them.
    names : tuple of str
        Of the pictures [n]; batch and row where a batch holds no ``filenames``.
    named : bool
        Whether every batch holds ``filenames``.
    """

    images: np.ndarray
    label: np.ndarray
    label_names: tuple[str, ...]
    names: tuple[str, ...]
    named: bool = True


class _Forbidden(pickle.UnpicklingError):
    pass


class _Call:
    """What a pickle may call. Unlike a function or a class, it cannot be changed by the pickle."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise _Forbidden("it changes what it may call")


class _Type:
    """Stand in for ``numpy.dtype``, whose state could name the file's bytes as the addresses of objects."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any, align: Any = False, copy: Any = True) -> None:
        if not (isinstance(code, str) and _CODE.fullmatch(code)):
            raise _Forbidden(f"it holds an array of {code!r}, and only numbers and text are read")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) == 8):
            raise _Forbidden("the state of a type must have 8 parts")
        _, order, base, names, fields, size, _, flags = state
        if not (base is None and names is None and fields is None):
            raise _Forbidden("it holds a type with fields or a subarray, and only numbers and text are read")
        if size not in (-1, self.dtype.itemsize) or flags not in _FLAGS:
            raise _Forbidden(f"size or flags of the type {self.dtype} are those of another")
        if order not in (("<", ">", "=") if self.dtype.byteorder == "=" else ("<", ">", "=", "|")):
            raise _Forbidden(f"{order!r} is no byte order of the type {self.dtype}")
        if order != "|":
            self.dtype = self.dtype.newbyteorder(order)


class _Array(np.ndarray):
    """An array that a pickle fills once, with what belongs together."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        if self.size or self.base is not None:
            raise _Forbidden("it fills an array twice")
        if not (isinstance(state, tuple) and len(state) == 5):
            raise _Forbidden("the state of an array must have 5 parts")
        _, shape, kind, fortran, raw = state
        dtype, raw = _checked(shape, kind, raw)
        plain: Any = (1, shape, dtype, fortran is True or fortran == 1, raw)
        super().__setstate__(plain)


def _checked(shape: Any, kind: Any, raw: Any) -> tuple[np.dtype, bytes]:
    """Return type and bytes of an array, if they belong together and to its shape.

    A ``bytearray`` is copied: a pickle could make it longer, and so move it from under its array.
    """
    if not isinstance(kind, _Type):
        raise _Forbidden("it holds an array whose type is none")
    if not (isinstance(shape, tuple) and len(shape) <= _MOST_AXES and all(type(n) is int and n >= 0 for n in shape)):
        raise _Forbidden("the shape of an array must be a few whole numbers")
    if isinstance(raw, str):
        raw = raw.encode("latin1")
    if not isinstance(raw, bytes | bytearray):
        raise _Forbidden(f"it holds an array of Python objects ({type(raw).__name__}), not of bytes")
    raw = bytes(raw)
    size = math.prod(shape) * kind.dtype.itemsize
    if len(raw) != size:
        raise _Forbidden(f"{len(raw)} bytes for an array {list(shape)} of {kind.dtype}, which takes {size}")
    letters = np.frombuffer(raw, np.dtype("u4").newbyteorder(kind.dtype.byteorder)) if kind.dtype.kind == "U" else None
    if letters is not None and letters.max(initial=0) > sys.maxunicode:
        raise _Forbidden("it holds text of characters that do not exist")
    return kind.dtype, raw


def _reconstruct(kind: Any, shape: Any, code: Any) -> np.ndarray:
    """Return an empty array, to be filled: that is all that NumPy asks of this."""
    if kind is not _NDARRAY:
        raise _Forbidden("it makes an array of a class of its own")
    return np.ndarray.__new__(_Array, (0,), np.uint8)


def _frombuffer(raw: Any, kind: Any, shape: Any, order: Any, axes: Any = None) -> np.ndarray:
    dtype, raw = _checked(shape, kind, raw)
    if order not in ("C", "F", "K"):
        raise _Forbidden(f"{order!r} is no order of an array")
    array = np.ndarray(shape, dtype, raw, order="F" if order == "F" else "C")
    return (array if order != "K" or axes is None else array.transpose(axes)).view(_Array)


def _scalar(kind: Any, raw: Any) -> Any:
    dtype, raw = _checked((), kind, raw)
    return np.ndarray((), dtype, raw)[()]


def _latin1(text: Any, encoding: Any = "latin1") -> bytes:
    """Stand in for ``_codecs.encode``, by which old protocols write bytes: other encodings are modules to import."""
    if encoding not in ("latin1", "latin-1"):
        raise _Forbidden(f"it encodes as {encoding!r}")
    return str.encode(text, "latin1")


def _no_bytes() -> bytes:
    """Stand in for ``bytes``, by which old protocols write those of no length."""
    return b""


def _no_array(*_: Any) -> None:
    raise _Forbidden("it makes an array without its bytes")


_NDARRAY = _Call(_no_array)
_KNOWN = {
    ("_codecs", "encode"): _Call(_latin1),
    ("__builtin__", "bytes"): _Call(_no_bytes),
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Call(_Type),
    **dict.fromkeys([(module, "_reconstruct") for module in _ARRAY_MODULES], _Call(_reconstruct)),
    **dict.fromkeys([(module, "scalar") for module in _ARRAY_MODULES], _Call(_scalar)),
    **dict.fromkeys([(module, "_frombuffer") for module in _BUFFER_MODULES], _Call(_frombuffer)),
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise _Forbidden(f"it asks for {module}.{name}, and only plain arrays are read")
        return _KNOWN[module, name]


def read_pickle(path: str | Path) -> Any:
    """Read a pickle of plain values and NumPy arrays, of any protocol and of Python 2 too; keys become text.

    Arrays are of booleans, numbers or text, in either byte order.

    Raises
    ------
    Vis2imgError
        If it cannot be read, asks for anything but arrays, or for an array whose parts disagree; the message names
        the file and what it asked for.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            # latin1 keeps the bytes of arrays that Python 2 wrote as text.
            return _tidy(_ArraysOnly(file, encoding="latin1").load())
    except _Forbidden as error:
        raise Vis2imgError(f"{path} is refused: {_line(error)}") from error
    except OSError as error:
        raise Vis2imgError(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:  # a damaged pickle raises a dozen types
        raise Vis2imgError(f"{path} is not a pickle of arrays: {_line(error)}") from error


def _line(error: Exception) -> str:
    """Return the message of an error, which may hold anything of the file, as one line of plain characters."""
    words = " ".join(str(error).split()) or type(error).__name__
    return "".join(letter if letter.isprintable() else "?" for letter in words)[:_LONGEST_LINE]


def _tidy(value: Any) -> Any:
    """Return a value with keys of text, and with its arrays as NumPy's own."""
    if isinstance(value, dict):
        return {_text(key): _tidy(item) if isinstance(item, np.ndarray) else item for key, item in value.items()}
    return value.view(np.ndarray) if isinstance(value, np.ndarray) else value


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def batch_files(path: Path) -> list[Path]:
    """Return the training batches of a folder in order, or the batch itself; none where there are no batches.

    The test split of a published set is read only where it is named: ``FOLDER/test_batch``.
    """
    if path.is_file():
        return [path] if path.name == _TEST or _BATCH.fullmatch(path.name) else []
    numbered = [(int(match[1]), file) for file in path.iterdir() if (match := _BATCH.fullmatch(file.name))]
    return [file for _, file in sorted(numbered)]


def read_batches(files: list[Path]) -> Batches:
    """Read batches: dictionaries of ``data`` (uint8 [n, side * side], or pictures), ``labels`` and ``filenames``.

    The names of the labels come from ``batches.meta`` beside the first file; there are none where there is none.

    Raises
    ------
    Vis2imgError
        If a file is refused or damaged, or its arrays disagree; the message names file, array and row.
    """
    parts = [_read_batch(path) for path in files]
    shapes = {images.shape[1:] for images, *_ in parts}
    if len(shapes) > 1:
        raise Vis2imgError(f"{files[0].parent}: the batches hold pictures of different shapes, {sorted(shapes)}")
    images, labels, names, named = zip(*parts, strict=True)
    label_names = _label_names(files[0].parent / _META)
    return Batches(np.concatenate(images), np.concatenate(labels), label_names, sum(names, ()), all(named))


def _read_batch(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], bool]:
    batch = read_pickle(path)
    column = next((name for name in _LABELS if isinstance(batch, dict) and name in batch), None)
    if column is None or "data" not in batch:
        held = ", ".join(batch) if isinstance(batch, dict) else type(batch).__name__
        raise Vis2imgError(f"{path} is not a batch of cutouts: it needs data and labels, and holds {held}")
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
    try:
        return np.asarray(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise Vis2imgError(f"{path}: {name} is no array: {_line(error)}") from error


def _listed(path: Path, name: str, value: Any) -> list[Any]:
    if not isinstance(value, list | tuple | np.ndarray) or (isinstance(value, np.ndarray) and not value.ndim):
        raise Vis2imgError(f"{path}: {name} must be a list or an array, not {type(value).__name__}")
    return list(value)


def _texts(path: Path, name: str, value: Any) -> tuple[str, ...]:
    items = _listed(path, name, value)
    wrong = next((i for i, item in enumerate(items) if not isinstance(item, str | bytes)), None)
    if wrong is not None:
        raise Vis2imgError(f"{path}: {name} entry {wrong} must be text, not {type(items[wrong]).__name__}")
    return tuple(_text(item) for item in items)


def _pictures(path: Path, data: Any) -> np.ndarray:
    rows = [_array(path, f"data row {i}", row) for i, row in enumerate(_listed(path, "data", data))]
    if not rows:
        raise Vis2imgError(f"{path}: data is empty")
    first = rows[0]
    for i, picture in enumerate(rows):
        if picture.dtype.kind not in "iuf" or picture.shape != first.shape or not picture.size:
            found = f"{picture.dtype} {list(picture.shape)}"
            raise Vis2imgError(f"{path}: data row {i} must be numbers of shape {list(first.shape)}, not {found}")
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


def told_by_name(names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return ra, dec (deg), redshift and size_arcsec [n] as MiraBest's file names tell them; NaN where one does not."""
    found = np.full((len(names), 4), np.nan)
    for i, name in enumerate(names):
        if match := _NAME.fullmatch(Path(name).name):
            found[i] = [float(word) for word in match.groups()]
    return dict(zip(("ra", "dec", "redshift", "size_arcsec"), found.T, strict=True))
