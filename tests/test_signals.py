"""Signals to commands at any moment: they end soon and in good order, and leave nobody and nothing behind.

`make kill` stops a training at thirty moments, the fast tests at one. The moments are drawn from a seed, and counted
from what shows how far it is. Commands are real ones, in a group of processes of their own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import psutil
import pytest
import yaml

from tests.helpers.runs import small_environment, small_ms, small_training
from vis2img.train.run.run import load_run, read_metrics

COMMAND = Path(sys.executable).with_name("vis2img")
MEMORY = Path("/dev/shm")
PATIENCE = 240.0  # s
SOON = 60.0  # s within which a command must end, also on a busy machine
STEPS, EVERY = 8, 3
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
# What a training is at, and how many seconds of it at most.
MOMENTS = {"start": 2.0, "loading": 3.0, "compile": 4.0, "step": 0.05, "checkpoint": 0.05, "end": 1.0}

pytestmark = [
    pytest.mark.timeout(3000),
    pytest.mark.skipif(not (COMMAND.exists() and MEMORY.is_dir()), reason="the command or /dev/shm is not there"),
]


class Stopping:
    """A command with folders of its own for temporary files and for draws; whatever it leaves there is its own."""

    def __init__(self, folder: Path, environment: dict[str, str], argv: Sequence[object]) -> None:
        self.scratch = Path(tempfile.mkdtemp(dir=folder))
        self.logs = [self.scratch.with_suffix(f".{name}") for name in ("out", "err")]
        with self.logs[0].open("w") as out, self.logs[1].open("w") as err:
            self.process = subprocess.Popen(
                [str(COMMAND), *map(str, argv)],
                stdout=out,
                stderr=err,
                env={**os.environ, **environment, "TMPDIR": str(self.scratch)},
                start_new_session=True,
            )
        self.mapped: set[str] = set()

    @property
    def out(self) -> str:
        return self.logs[0].read_text()

    @property
    def err(self) -> str:
        return self.logs[1].read_text()

    @property
    def said(self) -> str:
        return f"exit status {self.process.returncode}\n{self.out}{self.err}"

    @property
    def listens(self) -> bool:
        """Whether a handler of ours is there for the last signal of those that a training listens to."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
        return bool(int(caught.split()[1], 16) >> (signal.SIGUSR2 - 1) & 1)

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition, or for the end."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and not condition():
            assert time.monotonic() < deadline, f"it does not get there: {self.said}"
            time.sleep(0.002)

    def family(self) -> list[psutil.Process]:
        """Return the processes of this command, by the folder that they were given."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("TMPDIR") == str(self.scratch):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def send(self, number: int, group: bool) -> bool:
        """Send a signal to the process or all of its group; return whether the command still ran."""
        for process in self.family():
            try:
                self.mapped |= {each.path for each in process.memory_maps() if each.path.startswith(f"{MEMORY}/")}
            except psutil.Error:
                continue
        if self.process.poll() is not None:
            return False
        (os.killpg if group else os.kill)(self.process.pid, number)
        return True

    def end(self) -> int:
        """Wait for the end, after which nothing is left; return the exit status."""
        try:
            self.process.wait(SOON)
        except subprocess.TimeoutExpired:
            pytest.fail(f"it does not end within {SOON:.0f} s: {self.said}")
        _, alive = psutil.wait_procs(self.family(), timeout=10)
        assert not alive, f"left: {alive}\n{self.said}"
        assert list(self.scratch.iterdir()) == [], self.said
        # Of names that may be another's by now, only those that are made for this command count.
        left = [name for name in self.mapped if Path(name.removesuffix(" (deleted)")).exists()]
        assert not left, self.said
        return self.process.returncode

    def close(self) -> None:
        for process in self.family():
            process.kill()
        self.process.wait()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Stopping]]:
    """Start a command; what a failed test leaves running ends with it."""
    started: list[Stopping] = []

    def start(environment: dict[str, str], *argv: object) -> Stopping:
        started.append(Stopping(tmp_path, environment, argv))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture
def draws() -> Iterator[Path]:
    """A folder in shared memory for draws, in which nothing is left."""
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="test-signals-") as folder:
        yield Path(folder)
        assert list(Path(folder).iterdir()) == []


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return small_environment(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="module")
def ms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_ms(tmp_path_factory.mktemp("ms"))


@dataclass(frozen=True)
class Whole:
    """A training that nobody stopped."""

    config: Path
    run: Path
    said: list[str]
    """What it says of settings for so short a run."""
    leaves: list[np.ndarray]

    def assert_same(self, run: Path) -> None:
        """Another run has the same numbers, to the bit, and a line for each step."""
        for ours, theirs in zip(jax.tree.leaves(load_run(run)[1]), self.leaves, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        metrics = read_metrics(run)
        assert list(metrics["step"]) == list(range(1, STEPS + 1))
        np.testing.assert_array_equal(metrics["loss"], read_metrics(self.run)["loss"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, ms: Path, environment: dict[str, str]) -> Whole:
    place = tmp_path_factory.mktemp("whole")
    settings = {**small_training(ms, place / "run"), "steps": STEPS, "checkpoint_every": EVERY, "keep_checkpoints": 9}
    (place / "run.yaml").write_text(yaml.safe_dump(settings))
    done = subprocess.run(
        [str(COMMAND), "train", str(place / "run.yaml"), "--quiet"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0 and done.stdout.endswith(f"step {STEPS} of {STEPS}, finished\n"), done.stderr
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(load_run(place / "run")[1])]
    return Whole(place / "run.yaml", place / "run", done.stderr.splitlines(), leaves)


def reached(run: Path, moment: str, steps: int) -> bool:
    """Whether a training is where a moment is counted from; ``steps`` are those taken before, for some."""
    if moment == "start":
        return True
    if moment == "loading":
        return (run / "config.yaml").exists()
    if moment == "compile":
        return (run / "views" / "step00000000.png").exists()
    if moment == "step":
        return (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").read_bytes().count(b"\n") >= steps
    saves = [path.name for path in (run / "checkpoints").glob("*")]
    return str(STEPS) in saves if moment == "end" else bool(saves)


def words(whole: Whole, run: Path, draws: Path) -> list[object]:
    return ["train", whole.config, "--out", run, "--data.shared", draws, "--quiet"]


def assert_in_good_order(command: Stopping, run: Path, whole: Whole, sent: bool) -> None:
    """The end is one that ``docs/training.md`` promises, to who sends a signal and to who does not."""
    assert command.end() == 0, command.said
    said = [line for line in command.err.splitlines() if line not in whole.said]
    line = command.out.removesuffix("\n")
    if not sent:
        assert (line, said) == (f"{run}: step {STEPS} of {STEPS}, finished", []), command.said
        return
    ends = ("finished", "stopped, run the same command to go on")
    begun = [line == f"{run}: step {step} of {STEPS}, {end}" for step in range(STEPS + 1) for end in ends]
    assert any(begun) or line == "stopped before the run began, run the same command to start it", command.said
    # None where it came too late to be answered, all being done.
    assert [text.partition(":")[0] for text in said] in (["stopping"], []), command.said


def stop_and_go_on(
    moment: str,
    seed: int,
    start: Callable[..., Stopping],
    environment: dict[str, str],
    whole: Whole,
    run: Path,
    draws: Path,
) -> str:
    """Stop a training at a moment that the seed decides on, and let it go on; return what was seen."""
    rng = np.random.default_rng([seed, list(MOMENTS).index(moment)])
    number, group = SIGNALS[rng.integers(len(SIGNALS))], bool(rng.integers(2))
    steps, delay = int(rng.integers(1, STEPS)), float(rng.uniform(0, MOMENTS[moment]))
    cold = {"JAX_COMPILATION_CACHE_DIR": ""} if moment == "compile" else {}
    command = start({**environment, **cold}, *words(whole, run, draws))
    command.until(lambda: reached(run, moment, steps))
    time.sleep(delay)
    listens = command.process.poll() is None and command.listens
    there = command.send(number, group)
    seen = "late"
    if there and not listens and (code := command.end()) != 0:
        # Python itself begins, or ends: nothing is lost, and nothing can be said.
        assert code in (130, -number), command.said
        seen = f"before ({code})"
    else:
        assert_in_good_order(command, run, whole, there)
        if there:
            seen = "finished" if "finished" in command.out else "saved" if "saving" in command.err else "left"
    again = start(environment, *words(whole, run, draws))
    again.until(lambda: False)
    assert_in_good_order(again, run, whole, False)
    whole.assert_same(run)
    return f"{moment}, {number.name}{' to all' if group else ''} after {delay:.2f} s: {seen}"


@pytest.mark.parametrize("moment", [pytest.param("loading", marks=pytest.mark.slow), "step"])
def test_a_stopped_training_goes_on(moment, start, environment, whole, tmp_path, draws) -> None:
    stop_and_go_on(moment, 0, start, environment, whole, tmp_path / "run", draws)


@pytest.mark.slow
def test_a_training_stopped_thirty_times(start, environment, whole, tmp_path, draws, capsys) -> None:
    for seed in range(30 // len(MOMENTS)):
        for moment in MOMENTS:
            seen = stop_and_go_on(moment, 1 + seed, start, environment, whole, tmp_path / f"{moment}{seed}", draws)
            with capsys.disabled():
                print(f"\n{seen}", end="", flush=True)


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "between"), [("loading", 0.3), ("step", 0.01)])
def test_a_second_ctrl_c_ends_at_once(moment, between, start, environment, whole, tmp_path, draws) -> None:
    run = tmp_path / "run"
    command = start(environment, *words(whole, run, draws))
    command.until(lambda: reached(run, moment, EVERY + 1))
    assert command.send(signal.SIGINT, group=True)
    time.sleep(between)
    command.send(signal.SIGINT, group=True)
    sent = time.monotonic()
    status = command.end()
    # 5 s after which it ends whatever it does, and some for the machine; or the first was answered in full by then.
    assert status in (0, 130) and time.monotonic() - sent < 20, command.said
    said = command.err.splitlines()
    assert "Traceback" not in command.err and len(said) <= 3, command.said
    again = start(environment, *words(whole, run, draws))
    again.until(lambda: False)
    assert_in_good_order(again, run, whole, False)
    whole.assert_same(run)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("simulate", signal.SIGTERM),
        ("loader-bench", signal.SIGTERM),
        *(
            pytest.param(name, number, marks=pytest.mark.slow)
            for name, number in (
                ("simulate", signal.SIGINT),
                ("loader-bench", signal.SIGINT),
                ("embed", signal.SIGINT),
                ("embed", signal.SIGTERM),
            )
        ),
    ],
)
def test_other_commands_end_with_one_line(name, number, start, environment, whole, tmp_path, draws) -> None:
    out = tmp_path / "out"
    out.mkdir()
    argv: list[object] = {
        "simulate": ["-o", out / "one.ms", "--ntimes", 40, "--nchan", 16, "--n-sources", 3],
        "loader-bench": ["--config", whole.config, "--shared", draws, "--rate", 0],
        "embed": [whole.run, *(tmp_path / f"{i:02}.npz" for i in range(40)), "-o", out / "out.parquet"],
    }[name]
    if name == "embed":
        for i in range(40):
            np.savez(tmp_path / f"{i:02}.npz", images=np.zeros((300, 24, 24), np.float32))
    command = start(environment, name, *argv, "--quiet")
    command.until(lambda: [each for folder in (out, draws) for each in folder.iterdir() if each.suffix != ".lock"])
    time.sleep(0.2)
    assert command.send(number, group=True), command.said
    assert command.end() == 128 + number, command.said
    told = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
    assert (command.out, command.err) == ("", f"vis2img: error: {told}\n")
    assert list(out.iterdir()) == [] or name == "embed", command.said  # which goes on with what it has
