"""Settings that lie over others: keys and values for a part of a configuration, whose names are known later.

A setting of the type `Overlay` takes any keys. :func:`lay_over` puts them over a dataclass, with the checks and the
messages of a file of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import yaml

from vis2img.configs.load import build
from vis2img.configs.yaml_text import parse_yaml
from vis2img.errors import ParameterError
from vis2img.units import Form

Config = TypeVar("Config")
_WIDEST = 10_000  # letters of a line of YAML


def lay_over(config: Config, settings: Mapping[str, Any], where: str) -> Config:
    """Return a configuration, checked, with settings over it.

    Parameters
    ----------
    config : dataclass
    settings : mapping
        Its keys, nested or with dots (``optim.objective``), and values as YAML gives them.
    where : str
        What messages begin with.

    Raises
    ------
    ParameterError
        If a key is unknown, or there twice, or a value illegal; one line that names it.
    """
    return build(type(config), nested(settings, where), where, vars(config))


def nested(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return settings without dots and dashes in their keys, ``{optim: {base_lr: 1}}`` for ``{optim.base-lr: 1}``.

    Raises
    ------
    ParameterError
        If a key is there twice, or is a value and has keys.
    """
    record: dict[str, Any] = {}
    for name, value in settings.items():
        first, *rest = str(name).replace("-", "_").split(".")
        for part in reversed(rest):
            value = {part: value}
        _merge(record, first, nested(value, where) if isinstance(value, Mapping) else value, where)
    return record


def _merge(record: dict[str, Any], name: str, value: Any, where: str) -> None:
    if name not in record:
        record[name] = value
        return
    if not isinstance(record[name], dict) or not isinstance(value, dict):
        raise ParameterError(f"{where}: the key {name} is there twice")
    for each, inner in value.items():
        _merge(record[name], each, inner, where)


def _parse(text: str) -> dict[str, Any]:
    try:
        value = parse_yaml(text.encode(), "it")
    except ParameterError as error:
        raise ValueError(str(error)) from error
    if not isinstance(value, dict):
        raise ValueError(f"{text!r} holds no keys; write {{KEY: VALUE, ...}} as in YAML")
    return value


def _spell(settings: Mapping[str, Any]) -> str:
    return str(yaml.safe_dump(dict(settings), default_flow_style=True, sort_keys=False, width=_WIDEST)).strip()


class _Overlay(Form):
    """How an overlay is written: keys and values in a YAML file, the same in braces on the command line."""

    def read(self, value: Any) -> Any:
        """Return the keys and values that a YAML file holds."""
        return dict(value)

    def write(self, value: Any) -> Any:
        """Return the keys and values for a YAML file."""
        return dict(value)


Overlay = Annotated[
    Mapping[str, Any],
    _Overlay(
        nargs=1,
        metavar="{KEYS}",
        instance_from_str=lambda args: _parse(args[0]),
        is_instance=lambda value: isinstance(value, Mapping),
        str_from_instance=lambda value: [_spell(value)],
        spell=_spell,
        takes_keys=True,
    ),
]
