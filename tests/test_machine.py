"""What this process may use: the limits of a job count, also where its control group lies deep."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from vis2img import machine
from vis2img.machine import stderr_dropped


@pytest.mark.parametrize(
    ("groups", "folder", "name"),
    [
        ("0::/slice/job_7/step_0\n", "slice/job_7", "memory.max"),
        ("9:cpu:/x\n4:memory:/slurm/job_7/step_0\n0::/other\n", "memory/slurm/job_7", "memory.limit_in_bytes"),
    ],
)
def test_the_memory_of_a_job_is_that_of_its_control_group(tmp_path, monkeypatch, groups, folder, name) -> None:
    (tmp_path / folder / "step_0").mkdir(parents=True)
    (tmp_path / "own").write_text(groups)
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "_OWN_CGROUPS", tmp_path / "own")
    assert machine.memory_limit() == psutil.virtual_memory().total
    (tmp_path / folder / "step_0" / name).write_text("max")
    (tmp_path / folder / name).write_text("1000000\n")
    assert machine.memory_limit() == 1_000_000


def test_threads_that_drop_stderr_put_it_back() -> None:
    def drop(_: int) -> None:
        with stderr_dropped():
            os.write(2, b"dropped")
            time.sleep(0.002)

    before = os.fstat(2)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(drop, range(40)))
    after = os.fstat(2)
    assert (before.st_dev, before.st_ino) == (after.st_dev, after.st_ino)
