"""Outputs are written whole or not at all, by one process at a time, whatever ends the process."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vis2img import files
from vis2img.errors import OutputError
from vis2img.files import atomic_output, discard, is_fits, publish, recover, remove_left_over, staging, write_text


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(OutputError, match=r"a\.txt exists already"):
        write_text(path, "new", overwrite=False)
    with pytest.raises(ZeroDivisionError), atomic_output(path, overwrite=True) as temporary:
        temporary.write_text("half")
        1 / 0  # noqa: B018

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match=r"a\.txt cannot be written: No space left"):
            write_text(path, "new")
    assert path.read_text() == "old" and left_in(tmp_path) == {"a.txt"}
    write_text(path, "new")
    assert path.read_text() == "new" and left_in(tmp_path) == {"a.txt"}


def test_work_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), staging(tmp_path / "out") as stage:
        (stage / "x").mkdir()
        1 / 0  # noqa: B018
    assert left_in(tmp_path) == set()
    with pytest.raises(OutputError, match=r"cannot write in"), staging(tmp_path / "no" / "out"):
        pass


def write_set(folder: Path, text: str) -> list[Path]:
    """A file and a folder that belong together."""
    folder.mkdir(exist_ok=True)
    (folder / "truth").write_text(text)
    (folder / "data").mkdir()
    (folder / "data" / "part").write_text(text)
    return [folder / "truth", folder / "data"]


def read_set(folder: Path) -> tuple[str, str]:
    return (folder / "truth").read_text(), (folder / "data" / "part").read_text()


def stops_at(step: int, error: BaseException, real: Callable) -> Callable:
    """A rename that fails at its ``step``-th call."""
    calls = iter(range(100))

    def rename(path: Path, target: Path) -> Path:
        if next(calls) == step:
            raise error
        return real(path, target)

    return rename


@pytest.mark.parametrize("step", range(6))
def test_a_kill_between_any_two_moves_leaves_all_as_before_or_all_as_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    places = write_set(tmp_path / "out", "old")
    moves = list(zip(write_set(tmp_path / "stage", "new"), places, strict=True))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stops_at(step, KeyboardInterrupt(), Path.rename))
        if step < 5:  # two away, two there, one to the trash
            with pytest.raises(KeyboardInterrupt):
                publish(moves, overwrite=True)
        else:
            publish(moves, overwrite=True)
    recover(places)
    assert read_set(tmp_path / "out") == (("new", "new") if step > 3 else ("old", "old"))
    assert left_in(tmp_path / "out") == {"truth", "data"}


@pytest.mark.parametrize("step", range(4))
def test_a_move_that_fails_puts_everything_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    places = write_set(tmp_path / "out", "old")
    moves = list(zip(write_set(tmp_path / "stage", "new"), places, strict=True))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stops_at(step, OSError(errno.EIO, "Input/output error"), Path.rename))
        with pytest.raises(OutputError, match=r"cannot write .*data: Input/output error"):
            publish(moves, overwrite=True)
    assert read_set(tmp_path / "out") == ("old", "old") and left_in(tmp_path / "out") == {"truth", "data"}


def test_what_is_there_is_replaced_only_on_request(tmp_path: Path) -> None:
    places = write_set(tmp_path / "out", "old")
    moves = list(zip(write_set(tmp_path / "stage", "new"), places, strict=True))
    with pytest.raises(OutputError, match=r"cannot write .*data: Directory not empty"):
        publish(moves, overwrite=False)
    assert read_set(tmp_path / "out") == ("old", "old") and left_in(tmp_path / "out") == {"truth", "data"}


def test_a_deletion_that_was_killed_is_finished_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path / "out", "x")

    def killed(path: Path, **options: object) -> None:
        if path.exists():
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            discard(tmp_path / "out", tmp_path / "out")
    write_set(tmp_path / "out", "y")
    discard(tmp_path / "out", tmp_path / "out")
    discard(tmp_path / "out", tmp_path / "out")  # what is not there needs no deletion
    (tmp_path / "file").write_text("z")
    discard(tmp_path / "file", tmp_path / "out")
    assert left_in(tmp_path) == set()


def test_names_of_fits_files() -> None:
    for name in ("a.fits", "a.FIT", "a.fts", "a.fits.gz", "a.fts.fz", "b/a.Fits"):
        assert is_fits(name) and is_fits(Path(name)), name
    for name in ("a.png", "fits", "a.gz", "a.fits.png", "a.npz"):
        assert not is_fits(name), name


def test_work_in_progress_is_private_and_what_is_left_of_dead_processes_goes(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with atomic_output(path, overwrite=False) as temporary:
        assert temporary.name == "a.txt" and temporary.parent.stat().st_mode & 0o077 == 0
        temporary.write_text("x")
    host = socket.gethostname()
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    # Of this process, but from before it began: another process had its number.
    for pid in (int(dead.stdout), os.getpid()):
        (tmp_path / f".a.txt.partial-{host}-{pid}-abcd").mkdir()
    mine = tmp_path / f".a.txt.partial-{host}-{os.getpid()}-live"
    there = tmp_path / ".a.txt.partial-elsewhere-1-abcd"
    there.mkdir()
    remove_left_over(path)
    assert left_in(tmp_path) == {"a.txt", there.name, f".a.txt.partial-{host}-{os.getpid()}-abcd"}
    mine.mkdir()
    with staging(path, alone=True):
        assert not there.exists()


def test_names_as_long_as_a_disk_takes_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 251 + ".txt")
    write_text(path, "whole")
    assert path.read_text() == "whole" and left_in(tmp_path) == {path.name}


def test_a_link_in_the_place_of_what_is_thrown_away_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "data").write_text("theirs")
    (tmp_path / ".out.trash").symlink_to(victim)
    (tmp_path / ".out.old").symlink_to(victim)
    write_set(tmp_path / "out", "x")
    recover([tmp_path / "out"])
    discard(tmp_path / "out", tmp_path / "out")
    assert left_in(tmp_path) == {"victim"} and (victim / "data").read_text() == "theirs"
