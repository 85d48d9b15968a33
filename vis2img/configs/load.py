"""The one way from YAML files and command lines to the dataclasses of settings.

A file is read key by key into the types of the fields, with units as on the command line. What it says becomes the
defaults of that command line; only when both are known is the dataclass made, which checks that all fits together.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from vis2img.configs.command_line import parse
from vis2img.configs.help_text import HELP
from vis2img.configs.values import advice, keys_of, names_of
from vis2img.configs.yaml_text import MOST_BYTES, parse_yaml
from vis2img.errors import ParameterError, UsageError, Vis2imgError
from vis2img.inputs import check_file

Config = TypeVar("Config")
_LONGEST = 400  # letters of what is wrong with a value


def read_config(path: Path) -> dict[str, Any]:
    """Return the keys and values of a YAML file.

    Raises
    ------
    Vis2imgError
        If the file cannot be read, or is no file.
    ParameterError
        If it holds something else; one line that names file and line.
    """
    check_file(path, MOST_BYTES)
    try:
        text = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Vis2imgError(f"cannot read the configuration {path}: {reason}") from error
    record = parse_yaml(text, path)
    if not isinstance(record, dict):
        raise ParameterError(f"{path} must hold keys and values, such as 'seed: 1'")
    return record


def load(cls: type[Config], path: Path, options: Sequence[str] | None = None, prog: str = "") -> Config:
    """Return the configuration in a YAML file, with the options of a command line over it.

    Parameters
    ----------
    cls : type
        Dataclass whose fields, those of nested ones too, are keys and options.
    path : Path
    options : sequence of str, optional
        Options such as ``--data.batch-size 64``.
    prog : str
        The command, for messages about options.

    Raises
    ------
    Vis2imgError
        If the file cannot be read.
    ParameterError
        If a key is unknown or a value illegal; one line that names file and key.
    UsageError
        If an option is, or file and options do not fit together.
    """
    record = read_config(path)
    return build(cls, record, path) if options is None else override(draft(cls, record, path), options, prog)


def build(
    cls: type[Config],
    record: Mapping[str, Any],
    path: Path | str,
    base: Mapping[str, Any] | None = None,
    *,
    saved: bool = False,
) -> Config:
    """Return the configuration that a record holds, checked; arguments and errors are those of :func:`draft`."""
    config = draft(cls, record, path, base, saved=saved)
    try:
        return _checked(config)
    except ParameterError as error:
        raise ParameterError(f"{path}: {_in_full(str(error), config)}") from error


def _checked(config: Any) -> Any:
    values = {name: getattr(config, name) for name in keys_of(type(config))}
    lacking = ", ".join(name for name, value in values.items() if value is tyro.MISSING)
    if lacking:
        raise ParameterError(f"{lacking} is missing")
    return type(config)(
        **{n: _checked(value) if dataclasses.is_dataclass(value) else value for n, value in values.items()}
    )


def draft(
    cls: type[Config],
    record: Mapping[str, Any],
    path: Path | str,
    base: Mapping[str, Any] | None = None,
    *,
    saved: bool = False,
    prefix: str = "",
) -> Config:
    """Return a configuration whose values have their types but have not been checked against each other.

    Parameters
    ----------
    cls : type
        Dataclass whose fields, those of nested ones too, are the keys.
    record : mapping
        Keys, with _ or -, and values as YAML gives them.
    path : Path or str
        Where they come from, for messages.
    base : mapping, optional
        Values, in their types, of what the record leaves out; default: those of ``cls``. What neither has is
        ``tyro.MISSING``.
    saved : bool
        Whether a run of an earlier version wrote the record, which knew angles as bare numbers in radians.
    prefix : str
        What stands in front of the keys in messages.

    Raises
    ------
    ParameterError
        If a key is unknown or has no such value; one line that names file and key.
    """
    record = {str(key).replace("-", "_"): value for key, value in record.items()}
    config, keys = object.__new__(cls), keys_of(cls)
    for name, key in keys.items():
        if key.rest and isinstance(record.get(name), list) and record[name]:
            if record.get(key.rest):
                raise ParameterError(f"{path}: {prefix}{key.rest} and a list in {prefix}{name} cannot both be given")
            record[name], *record[key.rest] = record[name]
    for name, key in keys.items():
        value = (base or {}).get(name, key.default)
        if name in record and key.takes_keys != isinstance(record[name], dict):
            wanted = "keys of its own" if key.takes_keys else "a value, not keys"
            raise ParameterError(f"{path}: {prefix}{name} takes {wanted}")
        if key.nested:
            part = record.pop(name, {})
            part = {**part, **{each: record.pop(each) for each in [*record] if key.flat and each in names_of(key.kind)}}
            if part or value is tyro.MISSING:
                inner = {} if value is tyro.MISSING else vars(value)
                below = prefix if key.flat else f"{prefix}{name}."
                value = draft(key.kind, part, path, inner, saved=saved, prefix=below)
        elif name in record:
            try:
                value = key.read(record.pop(name), value, saved)
            except (ValueError, TypeError, OverflowError) as error:
                raise ParameterError(f"{path}: {prefix}{name}: {str(error)[:_LONGEST]}") from error
        object.__setattr__(config, name, value)
    for unknown in record:
        raise ParameterError(f"{path}: unknown key {prefix}{unknown}{advice(unknown, names_of(cls), prefix)}")
    return config


def override(config: Config, options: Sequence[str], prog: str) -> Config:
    """Return a configuration, checked or not yet, with the options of a command line over it.

    Raises
    ------
    UsageError
        If an option is unknown or illegal; one line that names it.
    """
    settings = dict(_settings(config))
    words = [word for word in options if not _is_said(word, settings, prog)]
    try:
        return parse(type(config), words, prog, default=config)
    except UsageError as error:
        raise UsageError(_in_full(str(error), config)) from None


def _in_full(message: str, config: Any) -> str:
    """Return a complaint with the full name of the setting: a dataclass knows not which group of keys it is."""
    name, settings = re.split(r"[^\w.]", message, maxsplit=1)[0], [key for key, _ in _settings(config)]
    groups = [key[: match.start()] for key in settings for match in re.finditer(r"\.", key)]
    full = [key for key in (*settings, *groups) if name and key.endswith(f".{name}")]
    return full[0] + message.removeprefix(name) if full and name not in settings else message


def _settings(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the full name and the value of each setting."""
    for name, key in keys_of(type(config)).items():
        value = getattr(config, name)
        if key.nested:
            yield from _settings(value, prefix if key.flat else f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _is_said(word: str, settings: Mapping[str, Any], prog: str) -> bool:
    """Return whether a word is a flag that says what is so already, which tyro has no name for; refuse unknown ones."""
    if not word.startswith("--") or word in HELP:
        return False
    option = word.partition("=")[0]
    name = option[2:].replace("-", "_")
    group, dot, leaf = name.rpartition(".")
    positive = f"{group}{dot}{leaf.removeprefix('no_')}"
    if name in settings:
        return settings[name] is True
    if isinstance(settings.get(positive), bool):
        return settings[positive] is False
    beside = [key.replace("_", "-").rpartition(".")[2] for key in settings if key.rpartition(".")[0] == group]
    if not beside:
        group, dot, leaf, beside = "", "", name, [key.replace("_", "-") for key in settings]
    help_text = advice(leaf.replace("_", "-"), beside, f"--{group}{dot}".replace("_", "-"))
    raise UsageError(f"unknown option {option}{help_text} ({prog} --help)")
