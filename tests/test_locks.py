"""One process at a time makes an output; what others put in the place of a lock is neither followed nor written to."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vis2img.errors import BusyError, OutputError
from vis2img.files import staging
from vis2img.locks import claimed, locked

HOLDER = """
import sys, time
from pathlib import Path
from vis2img.files import staging
from vis2img.locks import locked
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


def test_the_owner_is_told_with_host_and_time(tmp_path: Path) -> None:
    told = r"run is being trained by process \d+ on \S+ since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}; wait"
    with locked(tmp_path / "run") as held, pytest.raises(BusyError, match=told):
        assert held
        with locked(tmp_path / "run", "being trained"):
            pass


def plant_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def plant_second_name(path: Path, victim: Path) -> None:
    path.hardlink_to(victim)


def plant_fifo(path: Path, victim: Path) -> None:
    os.mkfifo(path)


def plant_folder(path: Path, victim: Path) -> None:
    path.mkdir()


def plant_file(path: Path, victim: Path) -> None:
    path.write_text("somebody's own notes")


def plant_dangling_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim.with_name("made by the lock"))


@pytest.mark.parametrize(
    "plant", [plant_link, plant_second_name, plant_fifo, plant_folder, plant_file, plant_dangling_link]
)
def test_what_lies_in_the_place_of_a_lock_is_refused_and_left_as_it_is(tmp_path: Path, plant) -> None:
    victim, lock = tmp_path / "victim", tmp_path / ".out.lock"
    victim.write_text("process 1 on host")  # even if it looks like a lock
    plant(lock, victim)
    before = lock.lstat()
    with pytest.raises(OutputError, match=rf"{re.escape(str(lock))} is in the way"), locked(tmp_path / "out"):
        pass
    assert lock.lstat().st_ino == before.st_ino and victim.read_text() == "process 1 on host"
    assert left_in(tmp_path) == {"victim", ".out.lock"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_lock_of_another_user_who_is_dead_is_replaced_and_of_a_living_one_respected(tmp_path: Path) -> None:
    lock = tmp_path / ".out.lock"
    lock.write_text("process 12 on there since 2026-01-01 10:00:00 +0000\n")
    os.chown(lock, 65534, 65534)
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        told = r"process 12 on there since 2026-01-01 10:00:00 \+0000"
        with pytest.raises(BusyError, match=told), locked(tmp_path / "out"):
            pass
        theirs = os.fstat(file.fileno()).st_ino
        assert lock.stat().st_ino == theirs
        fcntl.flock(file, fcntl.LOCK_UN)
        with locked(tmp_path / "out"):
            assert lock.stat().st_ino != theirs and lock.stat().st_uid == os.geteuid()
        file.seek(0)
        assert file.read().startswith("process 12 on there")  # never written to
    assert left_in(tmp_path) == set()
