"""YAML that is damaged, or a bomb: one line that names file, and line or key; no time, no memory."""

from __future__ import annotations

import os
import time
import tracemalloc
from pathlib import Path

import pytest

from tests.configs.test_load import Settings
from vis2img.configs.load import load, read_config
from vis2img.errors import ParameterError, Vis2imgError


def bomb(levels: int = 40) -> str:
    """A list of ten lists of ten lists..., each the same: 10**levels values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a: " + b"[" * 100_000, "line 1: more than 20 levels"),
        (b"\n".join(b" " * i + b"a:" for i in range(900)), "line 20: more than 20 levels"),
        (bomb().encode(), "more than 100,000 values"),
        (bomb().replace("a1: &a1 [", "a1: &a1 [{<<: *a0}, ").encode(), "more than 100,000 values"),
        (b"a: &a [1, *a]", "line 1: *a stands within itself"),
        (b"seed: 1\nsteps: 2\nseed: 3", "line 3: the key seed is there twice"),
        (b"batch_size: 1\nbatch-size: 2", "line 2: the key batch-size is there twice"),
        (b"data: {ms: [a.ms], ms: [b.ms]}", "line 1: the key ms is there twice"),
        (b"a:\n\t- 1", "line 2: found character '\\t'"),
        (b"a: " + b"9" * 5000, "line 1: '9999999999999999999999999999999999999999' is no number"),
        (b"a: \xff\xfe", "invalid"),
        (b"a: 2026-99-99", "month must be in 1..12"),
        (b"a: !!python/object/apply:os.system [true]", "could not determine a constructor"),
        (b"a: !!int ''", "line 1: '' is no number"),
        (b"a: *nothing", "undefined alias"),
        (b"a: \x00", "not valid YAML"),
        (b"? [1]\n: 2", "unhashable key"),
    ],
)
def test_text_that_is_not_yaml_or_too_much(tmp_path: Path, text: bytes, words: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(text)
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(ParameterError) as caught:
        read_config(path)
    assert time.process_time() - start < 3
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()
    message = str(caught.value)
    assert message.startswith(f"{path} is not valid YAML: ") and words in message
    assert "\n" not in message and len(message) < len(str(path)) + 250


def test_aliases_of_a_few_values_stay(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("a: &scale [0.1, 1.0]\nb: *scale\nc: &c {x: 1, y: 2}\nd: {<<: *c, x: 3}\n")
    record = read_config(path)
    assert record["b"] == [0.1, 1.0] and record["d"] == {"x": 3, "y": 2}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("steps: 1" + "0" * 400, "steps: 1000"),
        ("data: {memory: 1" + "0" * 400 + "}", "data.memory"),
        ("data: {span: [.nan, 1.0]}", "data.span: nan is not a number"),
        ("steps: .inf", "steps: inf is not a whole number"),
        ("data: {fov: 1e400deg}", "data.fov: '1e400deg' is not an angle"),
        ("data: {uvrange: 'nan:nan'}", "data.uvrange: 'nan:nan' is not a uv range"),
        ("data: {uvrange: []}", "data.uvrange: '[]' is not a uv range"),
        ("data: {centre: 'nan,1'}", "data.centre"),
        ("data: {npix: [[1], 2]}", "data.npix"),
        ("data: {ms: {a: 1}}", "data.ms takes a value"),
        ("data: {ms: [{a: 1}]}", "data.ms: {'a': 1} is not text"),
        ("data: {mode: [sync]}", "data.mode: ['sync'] is unknown"),
        ("steps: " + "[" + "1, " * 300 + "1]", "steps: [1, 1"),
        ("steps: 0x" + "f" * 9000, "steps"),
    ],
)
def test_values_that_are_none(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"out: x\n{text}\n")
    with pytest.raises(ParameterError) as caught:
        load(Settings, path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and words in message and len(message) < len(str(path)) + 450


def test_only_files_are_opened(tmp_path: Path) -> None:
    pipe, large = tmp_path / "pipe.yaml", tmp_path / "large.yaml"
    os.mkfifo(pipe)
    with large.open("wb") as file:
        file.truncate(1 << 30)
    for path, words in {
        pipe: "is a named pipe, not a file",
        Path("/dev/zero"): "is a device, not a file",
        tmp_path: "is a folder, not a file",
        large: "has 1,073,741,824 bytes",
        tmp_path / "none.yaml": "No such file",
        tmp_path / ("x" * 300): "too long",
    }.items():
        with pytest.raises(Vis2imgError, match=words):
            read_config(path)
