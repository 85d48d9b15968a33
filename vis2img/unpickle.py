"""Interpret pickles without running anything that they contain.

A pickle is a program: loading it with :mod:`pickle` runs whatever it names. The interpreter here takes the same
instructions, but looks every name up in one table of stand-ins and refuses any other before it is imported. Beyond
names it refuses what takes memory or time out of proportion to the file:

* the interpreter is that in Python and not that in C, in which one instruction (LONG_BINPUT) can ask for gigabytes;
* keys of dictionaries are plain values, as a tuple of tuples can take for ever to hash; sets keep nothing;
* a bytearray grows as the file is read, not to the length that the file claims.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import IO, Any, ClassVar

import numpy as np

_PIECE = 1 << 20  # bytes that are read at a time
_RESAVE = "load it where it was made and save its arrays alone"


class RefusedError(ValueError):
    """A file that is not read, for the reason told."""


class Inert:
    """Stand-in for an object we have no use for: takes any instruction of a pickle and keeps nothing."""

    __slots__ = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        return object.__new__(cls)

    # A pickle may also aim these at the class itself, so they take anything. Without __setstate__, BUILD would
    # write to the object's attributes.
    @staticmethod
    def __setstate__(*args: Any) -> None: ...

    __setitem__ = append = extend = add = __setstate__


class Call:
    """A function of ours that a pickle may call. Unlike a function or a class, it cannot be changed by the pickle."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise RefusedError("it changes what it may call")


def plain_key(value: Any) -> Any:
    """Return the value if it may be a key: hashing it takes no longer than reading it did."""
    if type(value) in (str, bytes, int, float, bool, type(None), Inert) or isinstance(value, np.generic):
        return value
    raise RefusedError(f"a key of a dictionary is neither text nor a number ({type(value).__name__}); {_RESAVE}")


_Interpreter: Any = pickle._Unpickler  # typeshed does not know what it is made of


class RestrictedUnpickler(_Interpreter):
    """Interprets a pickle with nothing but stand-ins: ``allowed`` has what a module's name stands for.

    A subclass says in :meth:`refusal` why any other name is refused.
    """

    allowed: ClassVar[Mapping[tuple[str, str], Any]] = {}

    def __init__(self, file: IO[bytes]) -> None:
        # latin-1 reads any byte string of Python 2, and keeps the bytes of arrays that it wrote as text.
        super().__init__(file, encoding="latin1")

    def refusal(self, module: str, name: str) -> str:
        raise NotImplementedError

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise RefusedError(self.refusal(module, name))
        return self.allowed[module, name]

    def load_setitem(self) -> None:
        plain_key(self.stack[-2])
        super().load_setitem()

    def load_setitems(self) -> None:
        for key in self.stack[::2]:
            plain_key(key)
        super().load_setitems()

    def load_dict(self) -> None:
        for key in self.stack[::2]:
            plain_key(key)
        super().load_dict()

    def load_empty_set(self) -> None:
        self.append(Inert())

    def load_frozenset(self) -> None:
        self.pop_mark()
        self.append(Inert())

    def load_bytearray8(self) -> None:
        left, raw = int.from_bytes(self.read(8), "little"), bytearray()
        while left:
            piece = self.read(min(left, _PIECE))
            if not piece:
                raise pickle.UnpicklingError("a bytearray in it is longer than the file")
            raw += piece
            left -= len(piece)
        self.append(raw)

    dispatch: ClassVar[dict[int, Any]] = {
        **_Interpreter.dispatch,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
        pickle.EMPTY_SET[0]: load_empty_set,
        pickle.FROZENSET[0]: load_frozenset,
        pickle.BYTEARRAY8[0]: load_bytearray8,
    }
