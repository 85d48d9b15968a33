"""Outputs are written whole or not at all, by one process at a time, whatever ends the process."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vis2img import files
from vis2img.errors import BusyError, OutputError
from vis2img.files import atomic_output, claimed, discard, is_fits, locked, publish, recover, staging, write_text

HOLDER = """
import sys, time
from pathlib import Path
from vis2img.files import locked, staging
out = Path(sys.argv[1])
with locked(out), staging(out) as stage:
    (stage / "half").write_text("x")
    print(stage, flush=True)
    time.sleep(60)
"""


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def holder(tmp_path: Path):
    """A process that holds the lock of ``out`` and works on it, with the folder that it works in."""
    command = [sys.executable, "-c", HOLDER, tmp_path / "out"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process, Path(process.stdout.readline().strip())
        process.kill()


def test_one_process_writes_and_the_others_are_told_which(tmp_path: Path, holder) -> None:
    process, stage = holder
    out = tmp_path / "out"
    with (
        pytest.raises(BusyError, match=rf"out is being written by process {process.pid} on .*; wait for it"),
        locked(out),
    ):
        pass
    with claimed(out) as free:
        assert not free
    with staging(out) as ours:  # what a living process has is left alone
        assert stage.is_dir() and ours != stage
    process.send_signal(signal.SIGKILL)
    process.wait()
    with locked(out), staging(out) as ours:
        assert left_in(tmp_path) == {".out.lock", ours.name}
    assert left_in(tmp_path) == set()


def test_a_lock_is_held_within_one_process_too(tmp_path: Path) -> None:
    with claimed(tmp_path / "a") as free, claimed(tmp_path / "a") as again, claimed(tmp_path / "b") as other:
        assert (free, again, other) == (True, False, True)
    with claimed(tmp_path / "a") as free:
        assert free


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_where_the_file_system_cannot_lock_the_work_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuses(file: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuses)
    with locked(tmp_path / "a"), claimed(tmp_path / "b") as free:
        assert free
    assert left_in(tmp_path) == set()


def test_other_errors_of_a_lock_are_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for out, words in ((tmp_path / "no" / "a", "the folder .*no for a does not exist"), (Path("/"), "is no name")):
        with pytest.raises(OutputError, match=words), locked(out):
            pass

    def refuses(file: int, operation: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", refuses)
    with pytest.raises(OutputError, match=r"cannot write .*a: Input/output error"), locked(tmp_path / "a"):
        pass


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
