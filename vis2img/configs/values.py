"""What one setting takes: from the values of YAML to the type of a dataclass field, and back.

Own code, as cattrs 26.2 and mashumaro 3.23 take 1.5 and ``true`` for the whole number 1 and ``a.ms`` for a list of four
letters, msgspec 0.22 passes over unknown keys, and neither it nor dacite 1.9 can be told that ``2arcsec`` is a float.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union

import tyro

from vis2img.inputs import expand_home
from vis2img.units import Form

FLAT = tyro.conf.arg(name="")
"""Marks a dataclass in a dataclass, ``Annotated[Engine, FLAT]``, whose keys stand among those of the one around it."""


@dataclasses.dataclass(frozen=True)
class FirstOf:
    """Marks a dataclass in a dataclass of which YAML may give a list: its first item; ``rest`` is the key of others."""

    rest: str


_LARGEST = 2**64  # of whole numbers
_LONGEST_SHOWN = 80  # letters of a value in a message
_TYPES = {int: "a whole number", float: "a number", str: "text", Path: "a path"}


class Key(NamedTuple):
    """What a field of a dataclass takes."""

    kind: Any
    form: Form | None
    optional: bool
    flat: bool
    default: Any = tyro.MISSING
    rest: str = ""

    @classmethod
    def of(cls, hint: Any, default: Any = tyro.MISSING) -> Key:
        """Return what an annotation says, without its marks."""
        marks, optional = list[Any](), False
        while True:
            if typing.get_origin(hint) is typing.Annotated:
                marks += hint.__metadata__
                hint = hint.__origin__
            elif typing.get_origin(hint) in (Union, types.UnionType) and type(None) in typing.get_args(hint):
                optional, hint = True, Union[tuple(set(typing.get_args(hint)) - {type(None)})]  # noqa: UP007
            else:
                form = next((mark for mark in marks if isinstance(mark, Form)), None)
                rest = next((mark.rest for mark in marks if isinstance(mark, FirstOf)), "")
                return cls(hint, form, optional, FLAT in marks, default, rest)

    @property
    def nested(self) -> bool:
        """Whether it holds keys of its own."""
        return dataclasses.is_dataclass(self.kind)

    @property
    def takes_keys(self) -> bool:
        """Whether a YAML file gives keys and values for it: those of a dataclass, or any."""
        return self.nested or (self.form is not None and self.form.takes_keys)

    def read(self, value: Any, default: Any, saved: bool = False) -> Any:
        """Return what ``value`` of a YAML file means; a ValueError says what is wrong with it."""
        if value is None:
            return None if self.optional else default
        return self._read(value, saved)

    def _read(self, value: Any, saved: bool) -> Any:
        if self.form:
            native = saved and not self.form.bare and not isinstance(value, str)
            return self.form.read(self.form.spell(value) if native else value)
        if typing.get_origin(self.kind) is tuple:
            return self._read_tuple(value if isinstance(value, list) else [value], saved)
        if typing.get_origin(self.kind) is Literal:
            choices = {str(choice): choice for choice in typing.get_args(self.kind)}
            if not isinstance(value, str | int | float) or str(value) not in choices:
                raise ValueError(f"{shown(value)} is unknown{advice(str(value), choices)}")
            return choices[str(value)]
        return scalar(self.kind, value)

    def _read_tuple(self, values: list[Any], saved: bool) -> tuple[Any, ...]:
        keys = self.items(len(values))
        if len(keys) != len(values):
            raise ValueError(f"{shown(values)} must be {len(keys)} values")
        return tuple(key._read(value, saved) for key, value in zip(keys, values, strict=True))

    def items(self, count: int) -> list[Key]:
        """Return what the items of a tuple take, ``count`` of them where any number may be."""
        kinds = typing.get_args(self.kind)
        return [Key.of(kind) for kind in (kinds[:1] * count if kinds[-1] is Ellipsis else kinds)]

    def write(self, value: Any) -> Any:
        """Return ``value`` as a YAML file holds it."""
        if value is not None and self.form:
            return self.form.write(value)
        if isinstance(value, tuple):
            return [key.write(item) for key, item in zip(self.items(len(value)), value, strict=True)]
        return str(value) if isinstance(value, Path) else value


def scalar(kind: Any, value: Any) -> Any:
    """Return 10000 for what YAML reads as the text 1e4 or as the number 1.0e4; text for a number; and so on."""
    if kind is bool:
        if not isinstance(value, bool):
            raise ValueError(f"{shown(value)} is neither true nor false")
        return value
    try:
        if isinstance(value, bool | list | dict) or value is None:
            raise ValueError
        if kind in (str, Path):
            return kind(expand_home(str(value)))
        if kind is int and not str(value).lstrip("+-").replace("_", "").isdigit():
            value = float(value)
            if not value.is_integer():
                raise ValueError
        number = kind(value)
        if number != number or (kind is int and abs(number) > _LARGEST):  # .nan, which no comparison refuses
            raise ValueError
        return number
    except (ValueError, OverflowError):
        raise ValueError(f"{shown(value)} is not {_TYPES.get(kind, kind)}") from None


def shown(value: Any) -> str:
    """Return a value as messages show it: the start of one that is long."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole number of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def keys_of(cls: type) -> Mapping[str, Key]:
    """Return what the fields of a dataclass take."""
    key: Any = cls  # mypy does not know that classes can be hashed
    return _keys_of(key)


@functools.cache  # asked for again and again, and type hints take long to resolve
def _keys_of(cls: Any) -> Mapping[str, Key]:
    hints = typing.get_type_hints(cls, include_extras=True)
    keys = {}
    for field in dataclasses.fields(cls):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        keys[field.name] = Key.of(hints[field.name], tyro.MISSING if default is dataclasses.MISSING else default)
    return types.MappingProxyType(keys)


def names_of(cls: type) -> list[str]:
    """Return the keys of a dataclass as they are written, those of its flat ones among them."""
    return [each for name, key in keys_of(cls).items() for each in (names_of(key.kind) if key.flat else [name])]


# What others call the settings of a training.
_OTHER_WORDS = {"learning_rate": "base_lr", "lr": "base_lr", "tau": "temperature", "arch": "variant", "epochs": "steps"}


def advice(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return the end of a complaint about an unknown name: what may have been meant, or what there is."""
    known = list(known)
    word = _OTHER_WORDS.get(name.replace("-", "_"))
    near = [each for each in known if each.replace("-", "_") == word] or difflib.get_close_matches(name, known, 1)
    return f"; did you mean {prefix}{near[0]}?" if near else f"; known: {', '.join(known)}"
