"""Configurations as plain values, as options of a command line, and what differs between two of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from vis2img.configs.values import keys_of


def to_record(config: Any) -> dict[str, Any]:
    """Return a configuration as plain values, as YAML and JSON can hold them, and as they can be given again."""
    record: dict[str, Any] = {}
    for name, key in keys_of(type(config)).items():
        value = getattr(config, name)
        if not key.nested:
            record[name] = key.write(value)
        else:
            record |= to_record(value) if key.flat else {name: to_record(value)}
    return record


def to_options(config: Any) -> list[str]:
    """Return the options of a command line that spell what differs from the defaults, without rounding."""
    words = []
    for name, key in keys_of(type(config)).items():
        value = getattr(config, name)
        if value != key.default:
            plain = [key.form.spell(value)] if key.form else map(str, value if isinstance(value, tuple) else [value])
            words += [f"--{name.replace('_', '-')}", *plain]
    return words


class Difference(NamedTuple):
    """A setting in which two configurations differ."""

    key: str
    there: Any
    here: Any

    def __str__(self) -> str:
        return f"{self.key} ({self.there} there, {self.here} here)"


def differences(there: Any, here: Any, ignore: Collection[str] = (), prefix: str = "") -> list[Difference]:
    """Return where two configurations differ, in the order of their keys.

    Parameters
    ----------
    there, here : dataclass or mapping
        Configurations, or what :func:`to_record` makes of them.
    ignore : collection of str
        Full names, such as ``data.workers``, of what may differ.
    """
    found: list[Difference] = []
    there, here = (each if isinstance(each, Mapping) else to_record(each) for each in (there, here))
    for name in {**here, **there}:
        key, old, new = f"{prefix}{name}", there.get(name), here.get(name)
        if key in ignore or old == new:
            continue
        nested = isinstance(old, Mapping) and isinstance(new, Mapping)
        found += differences(old, new, ignore, f"{key}.") if nested else [Difference(key, old, new)]
    return found
