"""Damage to bytes and to folders, whatever they hold."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

_ODD_BYTES = (0, 1, 0x7F, 0x80, 0xFF)


def damaged_bytes(rng: np.random.Generator, content: bytes) -> tuple[bytes, str]:
    """Return ``content`` damaged in one of the ways that disks, copies and writers have, and the name of the way."""
    data = bytearray(content)
    size = len(data)
    if not size:
        return bytes(rng.integers(0, 256, 64, dtype=np.uint8)), "noise"
    way = rng.choice(["flip", "flips", "cut", "zeros", "noise", "odd", "shift", "longer", "swap"])
    at, length = int(rng.integers(size)), int(min(size, 1 + rng.exponential(64)))
    if way == "flip":
        data[at] ^= 1 << rng.integers(8)
    elif way == "flips":
        for place in rng.integers(size, size=int(rng.integers(2, 30))):
            data[place] = rng.integers(256)
    elif way == "cut":
        del data[at:]
    elif way == "zeros":
        data[at : at + 16 * length] = bytes(len(data[at : at + 16 * length]))
    elif way == "noise":
        data[at : at + length] = rng.integers(0, 256, len(data[at : at + length]), dtype=np.uint8).tobytes()
    elif way == "odd":
        data[at : at + 8] = bytes([rng.choice(_ODD_BYTES)]) * len(data[at : at + 8])
    elif way == "shift":
        del data[at : at + length]
    elif way == "longer":
        data[at:at] = bytes(rng.integers(0, 256, length, dtype=np.uint8))
    elif way == "swap":
        other = int(rng.integers(size))
        first, second = data[at : at + length], data[other : other + length]
        data[at : at + len(second)], data[other : other + len(first)] = second, first
    return bytes(data), str(way)


def damage_file(rng: np.random.Generator, path: Path) -> str:
    """Damage the content of a file; return what was done."""
    content, way = damaged_bytes(rng, path.read_bytes())
    path.write_bytes(content)
    return f"{way} in {path.name}"


def replace_file(rng: np.random.Generator, folder: Path, path: Path) -> str:
    """Put something else in the place of a file below ``folder``; return what was done."""
    way = rng.choice(["removed", "empty", "a folder", "a pipe", "a device", "a dangling link", "a circle", "another"])
    others = [other for other in sorted(folder.rglob("*")) if other.is_file() and other != path]
    if way == "another" and others:
        shutil.copyfile(others[rng.integers(len(others))], path)
        return f"{path.name} is another file"
    path.unlink()
    if way == "empty":
        path.touch()
    elif way == "a folder":
        path.mkdir()
    elif way == "a pipe":
        os.mkfifo(path)
    elif way == "a device":
        path.symlink_to(rng.choice(["/dev/zero", "/dev/full", "/dev/null"]))
    elif way == "a dangling link":
        path.symlink_to("nowhere")
    elif way == "a circle":
        path.symlink_to(path.name)
    return f"{path.name} is {way}"


_ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 2**31, 2**63, 10**30, 1e-300, 1e300, float("nan"), float("inf")),
    *("", "x", "a\nb", "../../x", "\u00e9", "x" * 60_000, [], [None], [[]], {}, {"": None}, [1, "a"]),
)


def odd_json(rng: np.random.Generator, value: Any) -> tuple[Any, str]:
    """Return plain values with one of them odd, lost or there twice, and what was done."""
    if isinstance(value, dict) and value and rng.random() < 0.93:
        key = sorted(value)[rng.integers(len(value))]
        if rng.random() < 0.12:
            return {name: each for name, each in value.items() if name != key}, f"no {key}"
        changed, what = odd_json(rng, value[key])
        return {**value, key: changed}, f"{key}: {what}"
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = int(rng.integers(len(value)))
        way = rng.random()
        if way < 0.1:
            return value[:at] + value[at + 1 :], "one less"
        if way < 0.2:
            return value[:at] + value[at : at + 1] + value[at:], "one twice"
        changed, what = odd_json(rng, value[at])
        return [*value[:at], changed, *value[at + 1 :]], f"[{at}] {what}"
    odd = _ODD_VALUES[rng.integers(len(_ODD_VALUES))]
    return odd, f"{odd!r}"[:40]
