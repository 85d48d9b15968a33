"""YAML files as the command lines they stand for: one parser, one set of units, ranges and error messages."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from vis2img.errors import ParameterError, Vis2imgError


def read_config(path: Path) -> dict[str, Any]:
    """Return the keys and values of a YAML file.

    Raises
    ------
    Vis2imgError
        If the file cannot be read, or holds something else.
    """
    try:
        record = yaml.safe_load(path.read_text())
    except OSError as error:
        raise Vis2imgError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParameterError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(record, dict):
        raise ParameterError(f"{path} must hold keys and values, such as 'seed: 1'")
    return record


def config_arguments(
    record: dict[str, Any], cls: type, path: Path, defaults: Mapping[str, Any] | None = None
) -> list[str]:
    """Return the command line that the record of a YAML file stands for.

    Parameters
    ----------
    record : dict
        From :func:`read_config`.
    cls : type
        Dataclass whose fields, nested ones too, are the keys.
    path : Path
        The file, for messages.
    defaults : mapping, optional
        Values of flags that differ from the defaults of ``cls``.

    Raises
    ------
    ParameterError
        If a key is unknown; the message names file and key.
    """
    return list(_arguments(record, cls, path, defaults or {}))


def advice(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return the end of a complaint about an unknown name: what may have been meant, or what there is."""
    known = list(known)
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {prefix}{near[0]}?" if near else f"; known: {', '.join(known)}"


def check_options(argv: Iterable[str], cls: type) -> None:
    """Refuse options that are no field of a dataclass, nested ones included, before they are parsed.

    Parameters
    ----------
    argv : iterable of str
        A command line; values and ``--help`` are passed over.
    cls : type
        Dataclass whose fields are the options.

    Raises
    ------
    ParameterError
        If an option is unknown; the message says which may have been meant, or which there are in its group.
    """
    for word in argv:
        if word.startswith("--") and word != "--help":
            _check_option(word.partition("=")[0], cls)


def _check_option(option: str, cls: Any) -> None:
    prefix = "--"
    for name in option.removeprefix("--").replace("-", "_").split("."):
        hints = typing.get_type_hints(cls) if dataclasses.is_dataclass(cls) else {}
        plain = name if name in hints else name.removeprefix("no_")
        if plain not in hints or (plain != name and hints[plain] is not bool):
            known = [key.replace("_", "-") for key in hints]
            raise ParameterError(f"unknown option {option}{advice(name.replace('_', '-'), known, prefix)}")
        cls = hints[plain]
        prefix += f"{name.replace('_', '-')}."


def _arguments(
    record: dict[str, Any], cls: Any, path: Path, changed: Mapping[str, Any], prefix: str = ""
) -> Iterator[str]:
    hints = typing.get_type_hints(cls)
    record = {str(key).replace("-", "_"): value for key, value in record.items()}
    defaults = {**{f.name: f.default for f in dataclasses.fields(cls)}, **changed}
    for key, value in record.items():
        if key not in hints:
            raise ParameterError(f"{path}: unknown key {prefix}{key}{advice(str(key), hints, prefix)}")
        nested = dataclasses.is_dataclass(hints[key])
        if nested != isinstance(value, dict):
            raise ParameterError(f"{path}: {prefix}{key} takes {'keys of its own' if nested else 'a value, not keys'}")
        leaf = key.replace("_", "-")
        if isinstance(value, dict):
            yield from _arguments(value, hints[key], path, {}, f"{prefix}{key}.")
        elif isinstance(value, bool):
            # A flag is spelled only to change it: --x where it is off, --no-x where it is on.
            if value != defaults[key]:
                yield f"--{prefix}{leaf if value else 'no-' + leaf}".replace("_", "-")
        elif isinstance(value, list):
            if value and all(item is None for item in value):
                continue  # no limit at either end, as saved configurations say it
            yield from (f"--{prefix}{leaf}".replace("_", "-"), *map(str, value))
        elif value is not None:
            yield f"--{prefix}{leaf}".replace("_", "-")
            yield str(_whole(value) if int in (hints[key], *typing.get_args(hints[key])) else value)


def _whole(value: Any) -> Any:
    """Return 10000 for what YAML reads as the text 1e4 or the number 1.0e4; anything else as it is."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return value
    return int(number) if number.is_integer() and not isinstance(value, int) else value
