"""Damaged stores of averages: bytes, files, values of the metadata, and numbers with a checksum that is right."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from tests.fuzz.damage import damage_file, odd_json, replace_file
from tests.fuzz.frame import Case, kind, scratch
from tests.helpers.measurement_sets import CENTRE, build_ms
from vis2img.averaging.params import AveragingParams
from vis2img.averaging.run import average
from vis2img.ms.metadata import read_metadata

_NUMBERS = (np.nan, np.inf, -np.inf, -1.0, 0.0, 1e-40, 1e9, 1e30, 3e38)
_INTS = (-1, 1, 2, 255, 2**31 - 1, -(2**31))


@functools.cache
def _original() -> Path:
    folder = scratch()
    meta = read_metadata(build_ms(folder / "set.ms", antennas=6, times=8, sources=((1.0, 2e-4, 1e-4),)).path)
    params = AveragingParams((64, 64), 2e-5, CENTRE, time_block=30.0, channel_blocks=2)
    return average(meta, folder / "a.zarr", params).path


def _copy(folder: Path) -> Path:
    return Path(shutil.copytree(_original(), folder / "a.zarr"))


def _files(path: Path) -> list[Path]:
    return [each for each in sorted(path.rglob("*")) if each.is_file()]


def _pick(rng: np.random.Generator, choice: list[Path]) -> Path:
    return choice[rng.integers(len(choice))]


def _case(rng: np.random.Generator, folder: Path, path: Path, what: str) -> Case:
    out = folder / "out"
    if rng.random() < 0.3:
        return Case(("info", path, *(["--json"] * int(rng.integers(2)))), (path,), what)
    some: list[list[object]] = [[], ["--psf"], ["--times", "0:1"], ["--channels", "1:2"], ["--weighting", "uniform"]]
    return Case(("image", path, "-o", out / "a.fits", "--no-png", *some[rng.integers(len(some))]), (path,), what)


@kind(share=2)
def bytes_of_files(rng: np.random.Generator, folder: Path) -> Case:
    """Damage bytes of any file."""
    path = _copy(folder)
    victim = _pick(rng, _files(path))
    return _case(rng, folder, path, f"{damage_file(rng, victim)} of {victim.parent.name}")


@kind()
def files_replaced(rng: np.random.Generator, folder: Path) -> Case:
    """Put something else where a file is."""
    path = _copy(folder)
    victim = _pick(rng, _files(path))
    return _case(rng, folder, path, f"in {victim.parent.name}: {replace_file(rng, path, victim)}")


@kind(share=3)
def values_of_metadata(rng: np.random.Generator, folder: Path) -> Case:
    """Put odd values into JSON, and tell the block of the new sizes."""
    path = _copy(folder)
    victim = _pick(rng, [each for each in _files(path) if each.name == "zarr.json"])
    changed, what = odd_json(rng, json.loads(victim.read_text()))
    victim.write_text(json.dumps(changed))
    block = victim.parent.parent / "zarr.json"
    if victim.parent.parent.name.startswith("block-"):
        found: dict[str, Any] = json.loads(block.read_text())
        found["attributes"]["files"][f"{victim.parent.name}/zarr.json"] = victim.stat().st_size
        block.write_text(json.dumps(found))
    return _case(rng, folder, path, f"{what} of {victim.parent.name}")


@kind(share=2)
def numbers_of_arrays(rng: np.random.Generator, folder: Path) -> Case:
    """Put odd numbers into chunks, and the checksum that goes with them."""
    path = _copy(folder)
    victim = _pick(rng, [each for each in _files(path) if "c" in each.relative_to(path).parts])
    raw = victim.read_bytes()[:-4]
    whole = "channel_block" in victim.parts
    numbers = np.frombuffer(raw, np.int32 if whole else np.float32).copy()
    odd = rng.choice(_INTS) if whole else rng.choice(_NUMBERS)
    numbers[slice(None) if rng.random() < 0.2 else rng.integers(len(numbers), size=rng.integers(1, 9))] = odd
    raw = numbers.tobytes()
    victim.write_bytes(raw + google_crc32c.value(raw).to_bytes(4, "little"))
    return _case(rng, folder, path, f"{odd} in {victim.relative_to(path)}")
