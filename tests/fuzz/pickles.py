"""Damaged and forged pickles of pictures: bytes, instructions at random, and bombs."""

from __future__ import annotations

import functools
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.damage import damaged_bytes
from tests.fuzz.frame import Case, kind

_PUSHES = (
    *(b"K\x01", b"N", b"]", b"}", b")", b"\x8c\x01a", b"C\x02ab", b"G" + bytes(8), b"\x8a\x02\xff\x00", b"(", b"2"),
    *(b"h\x00", b"\x94", b"a", b"s", b"t", b"R", b"b", b"\x86"),
)
_NAMES = (
    *(b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"cnumpy.core.multiarray\n_reconstruct\n"),
    *(b"c_codecs\nencode\n", b"cos\nsystem\n"),
)


@functools.cache
def _originals() -> tuple[bytes, ...]:
    batch = {
        "data": np.random.default_rng(0).integers(0, 256, (4, 1024), np.uint8),
        "labels": [0, 1, 0, 1],
        "filenames": ["a", "b", "c", "d"],
    }
    lists: dict[str, Any] = {**batch, "data": batch["data"].tolist(), b"batch_label": b"x"}
    return tuple(pickle.dumps(each, protocol) for each in (batch, lists) for protocol in range(6))


def _case(folder: Path, content: bytes, what: str) -> Case:
    path = folder / "data_batch_1"
    path.write_bytes(content)
    return Case(("read", "labelled", path), (path,), what)


@kind(share=2)
def bytes_of_files(rng: np.random.Generator, folder: Path) -> Case:
    """Damage bytes, most of them where the structure is."""
    content = _originals()[rng.integers(len(_originals()))]
    cut = 200 if rng.random() < 0.6 else len(content)
    damaged, what = damaged_bytes(rng, content[:cut])
    return _case(folder, damaged + content[cut:], what)


@kind()
def instructions(rng: np.random.Generator, folder: Path) -> Case:
    """Run instructions at random, those that push something more often."""
    parts = [b"\x80\x04"]
    for _ in range(int(rng.integers(2, 60))):
        way = rng.random()
        if way < 0.5:
            parts.append(_PUSHES[rng.integers(len(_PUSHES))])
        elif way < 0.6:
            parts.append(_NAMES[rng.integers(len(_NAMES))])
        else:
            parts.append(bytes([int(rng.integers(256))]))
    return _case(folder, b"".join(parts) + b".", "instructions at random")


@kind()
def bombs(rng: np.random.Generator, folder: Path) -> Case:
    """Take, or seem to take, far more than the file has."""
    n = int(rng.choice([30, 60, 1000]))
    many = int(rng.choice([10**5, 10**6, 2 * 10**6]))
    wide: Any = [1] * 1000
    for _ in range(int(rng.integers(1, 8))):
        wide = [wide] * 50
    deep: Any = 1
    for _ in range(n):
        deep = (deep, deep)
    batch = {"data": np.zeros((1, 64), np.uint8), "labels": [1]}
    again = b"h\x00h\x01\x85R"
    large = b"\x8e" + struct.pack("<Q", 1 << 20) + bytes(1 << 20)
    codes: list[bytes] = [
        b"(" * many, b"]" * many, b"}" * many, b"N" + b"\x85" * many, b"N" + b"\x94" * many, b"N" + b"2" * many,
        b"K\x01" + b"2\x86" * n, b"}" + b"K\x01" + b"2\x86" * n + b"Ns",
        b"\x8b" + struct.pack("<I", 2**31 - 1), b"\x8d" + struct.pack("<Q", 2**62), b"\x95" + struct.pack("<Q", 2**62),
        b"K\x01r" + struct.pack("<I", 2**32 - 1), b"I" + b"9" * 10**6 + b"\n", b"L" + b"9" * 10**5 + b"L\n",
        b"c_codecs\nencode\nq\x000X" + (1 << 20).to_bytes(4, "little") + b"a" * (1 << 20) + b"q\x010" + again * 900,
        large + b"q\x000]" + b"h\x00a" * 2000,
    ]  # fmt: skip
    whole = [{**batch, "data": deep}, {**batch, "labels": deep}, {**batch, "data": wide}, {**batch, "filenames": wide}]
    at = int(rng.integers(len(codes) + len(whole)))
    if at < len(codes):
        return _case(folder, b"\x80\x04" + codes[at] + b".", f"bomb {at} of {many}")
    return _case(folder, pickle.dumps(whole[at - len(codes)], 4) if n < 900 else b"N.", f"bomb {at} of {n}")
