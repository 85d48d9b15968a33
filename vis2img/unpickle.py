"""Interpret pickles without running anything that they contain.

A pickle is a program: loading it with :mod:`pickle` runs whatever it names. The interpreter here takes the same
instructions, but looks every name up in one table of stand-ins and refuses any other before it is imported. Beyond
names it refuses what takes memory or time out of proportion to the file:

* the interpreter is that in Python and not that in C, in which one instruction (LONG_BINPUT) can ask for gigabytes;
* keys of dictionaries are plain values, as a tuple of tuples can take for ever to hash; sets keep nothing;
* nothing is read beyond the end of the file, whatever length it claims;
* what is handed to a stand-in, again and again perhaps, is together no more than a few times the file;
* lists, tuples, dictionaries and notes for later, of which one byte makes a hundred, are counted.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from typing import IO, Any, ClassVar

import numpy as np

_MOST_OBJECTS = 5_000_000  # lists, tuples, dictionaries and notes for later
_MOST_COPIES = 4  # of the file, that stand-ins are handed
_SPARE_BYTES = 1 << 20
_MOST_BITS = 64  # of a whole number that is a key: others share hashes, or take long to hash
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
    if type(value) is int and value.bit_length() > _MOST_BITS:
        raise RefusedError(f"a key of a dictionary is a number of {value.bit_length()} bits; {_RESAVE}")
    if type(value) in (str, bytes, int, float, bool, type(None), Inert) or isinstance(value, np.generic):
        return value
    raise RefusedError(f"a key of a dictionary is neither text nor a number ({type(value).__name__}); {_RESAVE}")


_Interpreter: Any = pickle._Unpickler  # typeshed does not know what it is made of


class _Bounded:
    """A file of which no more can be asked for than it has."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, place = file, file.tell()
        self.end = file.seek(0, os.SEEK_END)
        self.size = self.end - place
        file.seek(place)
        self.readline = file.readline

    def read(self, length: int) -> bytes:
        if length > self.end - self._file.tell():
            raise pickle.UnpicklingError("something in it is longer than the file")
        return self._file.read(length)


def _counted(instruction: Callable[[Any], None]) -> Callable[[Any], None]:
    def count(self: Any) -> None:
        self.objects += 1
        if self.objects > _MOST_OBJECTS:
            raise RefusedError(f"it holds more than {_MOST_OBJECTS:,} lists, tuples and dictionaries; {_RESAVE}")
        instruction(self)

    return count


def _spending(instruction: Callable[[Any], None], top: int) -> Callable[[Any], None]:
    def spend(self: Any) -> None:
        for arguments in self.stack[-top:] if top else [self.stack]:
            self.spend(arguments)
        instruction(self)

    return spend


# Instructions that hand a stand-in so many from the top of the stack; 0: the whole of it.
_COPYING = {pickle.REDUCE: 1, pickle.BUILD: 1, pickle.NEWOBJ: 1, pickle.NEWOBJ_EX: 2, pickle.OBJ: 0, pickle.INST: 0}
# Instructions of a byte or a few that leave something much larger behind.
_GROWING = (
    *(pickle.EMPTY_LIST, pickle.EMPTY_DICT, pickle.LIST, pickle.MARK),
    *(pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
    *(pickle.MEMOIZE, pickle.PUT, pickle.BINPUT, pickle.LONG_BINPUT),
)


class RestrictedUnpickler(_Interpreter):
    """Interprets a pickle with nothing but stand-ins: ``allowed`` has what a module's name stands for.

    A subclass says in :meth:`refusal` why any other name is refused.
    """

    allowed: ClassVar[Mapping[tuple[str, str], Any]] = {}

    def __init__(self, file: IO[bytes]) -> None:
        bounded = _Bounded(file)
        # latin-1 reads any byte string of Python 2, and keeps the bytes of arrays that it wrote as text.
        super().__init__(bounded, encoding="latin1")
        self.objects, self.left = 0, _MOST_COPIES * bounded.size + _SPARE_BYTES

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
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))

    def spend(self, arguments: Any) -> None:
        """Take what a stand-in is handed, and may copy, off what is left."""
        items = arguments if isinstance(arguments, tuple | list) else (arguments,)
        for item in (items, *items):
            self.left -= len(item) if isinstance(item, str | bytes | bytearray | list | tuple | dict) else 0
        if self.left < 0:
            raise RefusedError(f"it copies the same again and again; {_RESAVE}")

    dispatch: ClassVar[dict[int, Any]] = {
        **_Interpreter.dispatch,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
        pickle.EMPTY_SET[0]: load_empty_set,
        pickle.FROZENSET[0]: load_frozenset,
        pickle.BYTEARRAY8[0]: load_bytearray8,
        **{code[0]: _spending(_Interpreter.dispatch[code[0]], top) for code, top in _COPYING.items()},
        **{code[0]: _counted(_Interpreter.dispatch[code[0]]) for code in _GROWING},
    }
