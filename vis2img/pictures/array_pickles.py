"""Pickles of NumPy arrays and plain values, read without running what they may hold.

:mod:`vis2img.unpickle` interprets them, with stand-ins for what rebuilds arrays; these take numbers and text only.
"""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

from vis2img.errors import Vis2imgError
from vis2img.inputs import check_file
from vis2img.unpickle import Call, RefusedError, RestrictedUnpickler

_CODE = re.compile(r"b1|[iu][1248]|f[248]|[SU]\d{1,5}")
_FLAGS = (0, 8)  # of NumPy's types; 8 is that of text, and all others are of types with objects
_MOST_AXES = 32
_LONGEST_LINE = 300
# NumPy has moved these in version 2, and pickles name the place where they were when written.
_ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_BUFFER_MODULES = ("numpy.core.numeric", "numpy._core.numeric")


class _Type:
    """Stand in for ``numpy.dtype``, whose state could name the file's bytes as the addresses of objects."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any, align: Any = False, copy: Any = True) -> None:
        if not (isinstance(code, str) and _CODE.fullmatch(code)):
            raise RefusedError(f"it holds an array of {code!r}, and only numbers and text are read")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) == 8):
            raise RefusedError("the state of a type must have 8 parts")
        _, order, base, names, fields, size, _, flags = state
        if not (base is None and names is None and fields is None):
            raise RefusedError("it holds a type with fields or a subarray, and only numbers and text are read")
        if size not in (-1, self.dtype.itemsize) or flags not in _FLAGS:
            raise RefusedError(f"size or flags of the type {self.dtype} are those of another")
        if order not in (("<", ">", "=") if self.dtype.byteorder == "=" else ("<", ">", "=", "|")):
            raise RefusedError(f"{order!r} is no byte order of the type {self.dtype}")
        if order != "|":
            self.dtype = self.dtype.newbyteorder(order)


class _Array(np.ndarray):
    """An array that a pickle fills once, with what belongs together."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        if self.size or self.base is not None:
            raise RefusedError("it fills an array twice")
        if not (isinstance(state, tuple) and len(state) == 5):
            raise RefusedError("the state of an array must have 5 parts")
        _, shape, kind, fortran, raw = state
        dtype, raw = _checked(shape, kind, raw)
        plain: Any = (1, shape, dtype, fortran is True or fortran == 1, raw)
        super().__setstate__(plain)


def _checked(shape: Any, kind: Any, raw: Any) -> tuple[np.dtype, bytes]:
    """Return type and bytes of an array, if they belong together and to its shape.

    A ``bytearray`` is copied: a pickle could make it longer, and so move it from under its array.
    """
    if not isinstance(kind, _Type):
        raise RefusedError("it holds an array whose type is none")
    if not (isinstance(shape, tuple) and len(shape) <= _MOST_AXES and all(type(n) is int and n >= 0 for n in shape)):
        raise RefusedError("the shape of an array must be a few whole numbers")
    if isinstance(raw, str):
        raw = raw.encode("latin1")
    if not isinstance(raw, bytes | bytearray):
        raise RefusedError(f"it holds an array of Python objects ({type(raw).__name__}), not of bytes")
    raw = bytes(raw)
    size = math.prod(shape) * kind.dtype.itemsize
    if len(raw) != size:
        raise RefusedError(f"{len(raw)} bytes for an array {list(shape)} of {kind.dtype}, which takes {size}")
    letters = np.frombuffer(raw, np.dtype("u4").newbyteorder(kind.dtype.byteorder)) if kind.dtype.kind == "U" else None
    if letters is not None and letters.max(initial=0) > sys.maxunicode:
        raise RefusedError("it holds text of characters that do not exist")
    return kind.dtype, raw


def _reconstruct(kind: Any, shape: Any, code: Any) -> np.ndarray:
    """Return an empty array, to be filled: that is all that NumPy asks of this."""
    if kind is not _NDARRAY:
        raise RefusedError("it makes an array of a class of its own")
    return np.ndarray.__new__(_Array, (0,), np.uint8)


def _frombuffer(raw: Any, kind: Any, shape: Any, order: Any, axes: Any = None) -> np.ndarray:
    dtype, raw = _checked(shape, kind, raw)
    if order not in ("C", "F", "K"):
        raise RefusedError(f"{order!r} is no order of an array")
    array = np.ndarray(shape, dtype, raw, order="F" if order == "F" else "C")
    return (array if order != "K" or axes is None else array.transpose(axes)).view(_Array)


def _scalar(kind: Any, raw: Any) -> Any:
    dtype, raw = _checked((), kind, raw)
    return np.ndarray((), dtype, raw)[()]


def _latin1(text: Any, encoding: Any = "latin1") -> bytes:
    """Stand in for ``_codecs.encode``, by which old protocols write bytes: other encodings are modules to import."""
    if encoding not in ("latin1", "latin-1"):
        raise RefusedError(f"it encodes as {encoding!r}")
    return str.encode(text, "latin1")


def _no_array(*_: Any) -> None:
    raise RefusedError("it makes an array without its bytes")


_NDARRAY = Call(_no_array)
_NUMPY: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): Call(_latin1),
    ("__builtin__", "bytes"): Call(lambda: b""),  # by which old protocols write those of no length
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): Call(_Type),
    **dict.fromkeys([(module, "_reconstruct") for module in _ARRAY_MODULES], Call(_reconstruct)),
    **dict.fromkeys([(module, "scalar") for module in _ARRAY_MODULES], Call(_scalar)),
    **dict.fromkeys([(module, "_frombuffer") for module in _BUFFER_MODULES], Call(_frombuffer)),
}


class _ArrayUnpickler(RestrictedUnpickler):
    allowed = _NUMPY

    def refusal(self, module: str, name: str) -> str:
        return f"it asks for {module}.{name}, and only plain arrays are read"


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
    check_file(path)
    try:
        with path.open("rb") as file:
            return _tidy(_ArrayUnpickler(file).load())
    except RefusedError as error:
        raise Vis2imgError(f"{path} is refused: {one_line(error)}") from error
    except OSError as error:
        raise Vis2imgError(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:  # a damaged pickle raises a dozen types
        raise Vis2imgError(f"{path} is not a pickle of arrays: {one_line(error)}") from error


def one_line(error: Exception) -> str:
    """Return the message of an error, which may hold anything of the file, as one line of plain characters."""
    words = " ".join(str(error).split()) or type(error).__name__
    return "".join(letter if letter.isprintable() else "?" for letter in words)[:_LONGEST_LINE]


def _tidy(value: Any) -> Any:
    """Return a value with keys of text, and with its arrays as NumPy's own."""
    if isinstance(value, dict):
        return {as_text(key): _tidy(item) if isinstance(item, np.ndarray) else item for key, item in value.items()}
    return value.view(np.ndarray) if isinstance(value, np.ndarray) else value


def as_text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
