"""A hundred damaged inputs through the command line, the same each time; ``make fuzz`` tries thousands of others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.frame import MODULES, judge, try_one
from tests.fuzz.server import Run, Server

SEED = 17
INPUTS = 105


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    started = Server()
    yield started
    started.close()


@pytest.mark.parametrize("module", MODULES)
def test_damaged_input_is_done_or_refused_in_one_line(server: Server, tmp_path: Path, module: str) -> None:
    room = module.replace("_", " ")
    tried = [try_one(server, SEED, number, tmp_path / str(number), room) for number in range(INPUTS // len(MODULES))]
    assert [each for each in tried if each.faulty] == []
    assert any(each.outcome == "refused" for each in tried)  # the damage is met


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, "done"),
        ({"code": 1, "err": "vis2img: error: a.ms is damaged\n"}, "refused"),
        ({"code": 1, "err": "vis2img: error: one\nand another line\n"}, "not one line"),
        ({"code": 1, "err": "vis2img: error: this is a bug in vis2img: KeyError\n"}, "called a bug"),
        ({"code": 1, "err": "Traceback (most recent call last):\n"}, "traceback"),
        ({"code": 0, "err": "numpy: invalid value\n"}, "words of libraries"),
        ({"code": -11}, "killed by signal 11"),
        ({"stopped": "more than 1 GB"}, "more than 1 GB"),
    ],
)
def test_faults_are_told_apart(tmp_path: Path, changes: dict, outcome: str) -> None:
    run = Run(**{"code": 0, "out": "", "err": "", "seconds": 0.1, "stopped": "", "peak_bytes": 0, **changes})
    assert judge(run, tmp_path) == outcome


def test_half_an_output_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "a.zarr.partial").mkdir()
    assert judge(Run(code=0, out="", err="", seconds=0.1, stopped="", peak_bytes=0), tmp_path) == "half an output"
