"""Stretches in files and on command lines: the further ones of views whose channels are stretched in several ways."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from vis2img.configs.values import advice, keys_of
from vis2img.configs.yaml_text import parse_yaml
from vis2img.errors import ParameterError
from vis2img.units import Form
from vis2img.views.stretch import Stretch


def _stretch(value: Any) -> Stretch:
    """Return the stretch that a kind or a mapping of YAML means; a ValueError says what is wrong with it."""
    record = {"kind": value} if isinstance(value, str) else value
    if not isinstance(record, dict):
        raise ValueError(f"{value!r} is neither a kind of stretch nor its settings, such as {{kind: peak, clip: 3}}")
    keys, settings = keys_of(Stretch), {}
    for name, setting in record.items():
        if name not in keys:
            raise ValueError(f"unknown key {name}{advice(str(name), keys)}")
        settings[name] = keys[name].read(setting, keys[name].default)
    try:
        return Stretch(**settings)
    except ParameterError as error:
        raise ValueError(str(error)) from error


def _parse(words: Sequence[str]) -> tuple[Stretch, ...]:
    try:
        return tuple(_stretch(parse_yaml(word.encode(), Path(word))) for word in words)
    except ParameterError as error:
        raise ValueError(str(error)) from error


def _record(stretch: Stretch) -> dict[str, Any]:
    """Return what differs from the defaults, and the kind."""
    keys = keys_of(Stretch)
    values = {name: getattr(stretch, name) for name in keys}
    return {n: keys[n].write(value) for n, value in values.items() if n == "kind" or value != keys[n].default}


def _text(stretch: Stretch) -> str:
    return "{" + ", ".join(f"{name}: {value}" for name, value in _record(stretch).items()) + "}"


@dataclasses.dataclass(frozen=True)
class _StretchForm(Form):
    """Kinds, or mappings, in a list."""

    def read(self, value: Any) -> tuple[Stretch, ...]:
        """Return what a list of YAML means; see :meth:`Form.read`."""
        return tuple(map(_stretch, value if isinstance(value, list) else [value]))

    def write(self, value: tuple[Stretch, ...]) -> list[dict[str, Any]]:
        """Return a list of mappings; see :meth:`Form.write`."""
        return [_record(each) for each in value]


StretchList = Annotated[
    tuple[Stretch, ...],
    _StretchForm(
        nargs="*",
        metavar="STRETCH",
        instance_from_str=_parse,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [_text(each) for each in value],
    ),
]
