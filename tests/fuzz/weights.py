"""Damaged files of weights: safetensors, the archive of PyTorch and its older layout."""

from __future__ import annotations

import functools
import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from tests.fuzz.configurations import RUN
from tests.fuzz.damage import damaged_bytes, odd_json, replace_file
from tests.fuzz.frame import Case, kind, scratch
from tests.train.weights.test_files import program, tensor, write_legacy, write_zip
from vis2img.draws.presets import PRESETS


@functools.cache
def originals() -> dict[str, bytes]:
    """Return whole files by name: of two tensors, and of another kind."""
    folder, numbers = scratch(), np.arange(4096, dtype="<f4")
    code = program(
        a=tensor("FloatStorage", "s", 4096, 0, (64, 64), (64, 1)),
        b=tensor("FloatStorage", "s", 4096, 7, (9,), (2,), view=("v", 4, 3000)),
    )
    raw = numbers.tobytes()
    return {
        "a.safetensors": save({"a": numbers.reshape(64, 64), "b": numbers[:9].astype(np.float16)}, {"format": "pt"}),
        "a.pth": write_zip(folder / "a.pth", code, s=raw).read_bytes(),
        "b.pth": write_legacy(folder / "b.pth", code, s=(4096, raw)).read_bytes(),
    }


def _write(folder: Path, name: str, content: bytes, what: str) -> Case:
    path = folder / name
    path.write_bytes(content)
    return Case(("read", "weights", path), (path,), what)


@kind(share=2)
def bytes_of_files(rng: np.random.Generator, folder: Path) -> Case:
    """Damage bytes, most of them where the structure is."""
    name = str(rng.choice([*originals()]))
    content = originals()[name]
    head = content[:900] if rng.random() < 0.6 else content
    damaged, what = damaged_bytes(rng, head)
    return _write(folder, name, damaged + content[len(head) :], what)


@kind()
def headers_of_safetensors(rng: np.random.Generator, folder: Path) -> Case:
    """Put odd values into the header, or an odd length before it."""
    content = originals()["a.safetensors"]
    length = int.from_bytes(content[:8], "little")
    if rng.random() < 0.3:
        odd = int(rng.choice([0, 1, 7, 2**20, 2**31, 2**32 - 1, 2**32, 2**40, 2**63 - 1]))
        return _write(folder, "a.safetensors", struct.pack("<Q", odd) + content[8:], f"a header of {odd} bytes")
    changed, what = odd_json(rng, json.loads(content[8 : 8 + length]))
    header = json.dumps(changed).encode()
    return _write(folder, "a.safetensors", struct.pack("<Q", len(header)) + header + content[8 + length :], what)


@kind()
def headers_of_exports(rng: np.random.Generator, folder: Path) -> Case:
    """Put odd values into what an exported network tells of its run."""
    record = {**RUN, "data": {**RUN["data"], "imaging": json.dumps(PRESETS["gentle"].to_dict())}}
    told: dict[str, Any] = {"config": record, "patch_angle_rad": [1e-3], "network": "teacher", "step": 7}
    changed, what = odd_json(rng, told)
    if not isinstance(changed, dict):
        changed = {"config": changed}
    header = {key: each if isinstance(each, str) else json.dumps(each) for key, each in changed.items()}
    if rng.random() < 0.3:
        key = str(rng.choice([*header]))
        content, what = damaged_bytes(rng, header[key].encode())
        header[key] = content.decode("latin1")
    content = save({"a": np.ones(4, np.float32)}, header)
    path = folder / "a.safetensors"
    path.write_bytes(content)
    return Case(("read", "export", path), (path,), what)


@kind()
def parts_of_archives(rng: np.random.Generator, folder: Path) -> Case:
    """Damage, drop, double, compress or rename a part of an archive."""
    parts = {}
    with zipfile.ZipFile(io.BytesIO(originals()["a.pth"])) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    victim, way = str(rng.choice([*parts])), str(rng.choice(["damaged", "lost", "compressed", "renamed", "zeros"]))
    packing = zipfile.ZIP_DEFLATED if way == "compressed" else zipfile.ZIP_STORED
    if way == "damaged":
        parts[victim], way = damaged_bytes(rng, parts[victim])
    elif way == "lost":
        del parts[victim]
    elif way == "renamed":
        parts[str(rng.choice(["../../x", "a/data.pkl", "x", "weights/data/" + "9" * 200]))] = parts.pop(victim)
    elif way == "zeros":
        parts[victim] = bytes(1 << 20)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return _write(folder, "a.pth", buffer.getvalue(), f"{victim} {way}")


@kind(share=0.2)
def no_files(rng: np.random.Generator, folder: Path) -> Case:
    """Put something else in the place of the file."""
    name = str(rng.choice([*originals()]))
    path = folder / name
    path.write_bytes(originals()[name])
    return Case(("read", "weights", path), (), replace_file(rng, folder, path))
