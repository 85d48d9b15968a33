"""Draws through shared memory: whole or not at all, given back when done, nothing left behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vis2img.errors import OutputError
from vis2img.loader.handover import SharedFolder, leave


def test_an_array_goes_through_the_folder_and_outlives_it(tmp_path: Path) -> None:
    folder, data = SharedFolder(1000, tmp_path), np.arange(12.0).reshape(3, 4)
    assert leave(str(folder.path), folder.key, "a.npy", data)
    taken = folder.take("a.npy")
    assert {p.name for p in folder.path.iterdir()} == {"key", "lock"}
    folder.close()
    assert not folder.path.exists() and np.array_equal(taken, data)
    assert not taken.flags.writeable


def test_a_worker_elsewhere_leaves_nothing(tmp_path: Path) -> None:
    folder = SharedFolder(1000, tmp_path)
    data = np.zeros(3)
    assert not leave(str(tmp_path / "none"), folder.key, "a.npy", data)
    assert not leave(str(folder.path), "of another loader", "a.npy", data)
    folder.close()
    assert not leave(str(folder.path), folder.key, "a.npy", data)


def test_a_folder_without_room_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="draws_per_field"):
        SharedFolder(1 << 60, tmp_path)


def test_what_a_killed_loader_left_is_removed_and_what_a_living_one_has_is_not(tmp_path: Path) -> None:
    living = SharedFolder(1000, tmp_path)
    code = (
        "import os, sys; from vis2img.loader.handover import SharedFolder\n"
        f"f = SharedFolder(1000, {str(tmp_path)!r}); print(f.path); sys.stdout.flush(); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    left = Path(done.stdout.strip())
    assert done.returncode == -9 and left.is_dir()
    other = SharedFolder(1000, tmp_path)
    assert not left.exists() and living.path.is_dir()
    for folder in (living, other):
        folder.close()
    assert list(tmp_path.iterdir()) == []
