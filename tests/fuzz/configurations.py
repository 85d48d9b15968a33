"""Damaged configurations: bytes and values of YAML, bombs, what is no file; of runs, simulations and priors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.fuzz.damage import damaged_bytes, odd_json, replace_file
from tests.fuzz.frame import Case, kind

RUN: dict[str, Any] = {
    "out": "out/run",
    "steps": 100,
    "seed": 3,
    "checkpoint_every": 10,
    "data": {
        "ms": ["nothing.ms", "none.fits"],
        "batch_size": 4,
        "fov": "1deg",
        "imaging": "full",
        "workers": 1,
        "worker_memory": "2GB",
        "views": {"patch_npix": 32, "global_scale": [0.5, 1.0], "stretch": {"kind": "asinh", "softening": 5.0}},
        "selection": {"channels": "0:4", "spw": "all", "stokes": "I", "antennas": "a,b"},
    },
    "model": {"variant": "tiny", "patch": 8, "weights": None},
    "optim": {"base_lr": 1.0e-3, "warmup_steps": 10, "ibot": 0.0},
}
_PRIOR = {
    "preset": "gentle",
    "pixsize": [0.9, 1.1],
    "weightings": ["briggs", "uniform"],
    "uv_max": None,
    "taper": 2.0,
}
_SIMULATION = {
    "out": "out/a.ms", "telescope": "meerkat", "n_sources": 5, "seed": 1, "fov": "1deg", "classes": ["compact"],
    "start_time": "2026-01-01T00:00:00", "phase_centre": "12h30m,-30d", "gain_phase": "5deg",
}  # fmt: skip
_ORIGINALS: tuple[tuple[str, dict[str, Any]], ...] = (("run", RUN), ("prior", _PRIOR), ("simulation", _SIMULATION))
_LINES = (
    "a: " + "[" * 3000,
    "b0: &b0 [x, x, x, x, x]\n" + "\n".join(f"b{i}: &b{i} [{', '.join([f'*b{i - 1}'] * 9)}]" for i in range(1, 12)),
    "seed: 1" + "0" * 400, "seed: " + "9" * 6000, "seed: .nan", "steps: .inf", "steps: 1e400", "seed: 0x" + "f" * 9000,
    "\tseed: 1", "? [1, 2]\n: 3", "<<: 7", "a: &a [*a]", "--- 1\n--- 2", "out: !!binary x",
    "a: !!python/name:os.system",
    "seed: 2026-99-99", "'': 1", "null: 2", "1: 2", "seed: ~", "out: ''", "out: '\\0'", "out: \"\\ud800\"",
    "!!set {a, b}: 1",
)  # fmt: skip


def _case(rng: np.random.Generator, which: str, path: Path, what: str) -> Case:
    command = ("train", path) if which == "run" and rng.random() < 0.6 else ("read", which, path)
    return Case(command, (path,) if path.is_file() and path.parent.name != "dev" else (), what)


def _original(rng: np.random.Generator) -> tuple[str, dict[str, Any]]:
    return _ORIGINALS[rng.choice(len(_ORIGINALS), p=[0.6, 0.2, 0.2])]


@kind(share=2)
def values(rng: np.random.Generator, folder: Path) -> Case:
    """Put odd values, as YAML can hold them, in the place of good ones."""
    which, record = _original(rng)
    path, told = folder / "a.yaml", []
    for _ in range(int(rng.choice([1, 1, 2]))):
        changed, what = odd_json(rng, record)
        record = changed if isinstance(changed, dict) else {"a": changed}
        told.append(what)
    path.write_text(yaml.safe_dump(record))
    return _case(rng, which, path, ", ".join(told))


@kind()
def bytes_of_text(rng: np.random.Generator, folder: Path) -> Case:
    """Damage bytes."""
    which, record = _original(rng)
    path = folder / "a.yaml"
    content, what = damaged_bytes(rng, yaml.safe_dump(record).encode())
    path.write_bytes(content)
    return _case(rng, which, path, what)


@kind()
def lines(rng: np.random.Generator, folder: Path) -> Case:
    """Put lines between the others that parsers trip over."""
    which, record = _original(rng)
    path, line = folder / "a.yaml", str(rng.choice(_LINES))
    whole = yaml.safe_dump(record).splitlines()
    at = int(rng.integers(len(whole) + 1))
    path.write_text("\n".join([*whole[:at], line, *whole[at:]]))
    return _case(rng, which, path, f"{line[:30]!r} at line {at}")


@kind(share=0.3)
def no_files(rng: np.random.Generator, folder: Path) -> Case:
    """Name what is no file, or none of text."""
    which, record = _original(rng)
    path = folder / "a.yaml"
    path.write_text(yaml.safe_dump(record))
    way = rng.integers(5)
    if way == 0:
        path = Path(str(rng.choice(["/dev/zero", "/dev/stdin", "/dev/full"])))
        return _case(rng, which, path, str(path))
    if way == 1:
        with path.open("r+b") as file:
            os.truncate(file.fileno(), 1 << 31)
        return Case(("read", which, path), (), "2 GB of zeros")
    if way == 2:
        path.write_bytes(yaml.safe_dump(record).encode(str(rng.choice(["utf-16", "utf-32", "cp037"]))))
        return _case(rng, which, path, "another encoding")
    return Case(("read", which, path), (), replace_file(rng, folder, path))
