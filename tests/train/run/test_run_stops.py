"""Runs of the real command that are stopped, killed, starved of disk or led astray end in order, and go on exactly.

Each run is a process of its own. All share compiled code, so that only the first compiles; that changes no bit, as the
reference run is compared with all others.
"""

from __future__ import annotations

import copy
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import psutil
import pytest
import yaml

from tests.helpers.disks import own_mounts
from tests.helpers.measurement_sets import build_ms
from vis2img.configs.load import load
from vis2img.train.run import loop
from vis2img.train.run.config import TrainConfig
from vis2img.train.run.run import load_run, read_metrics
from vis2img.train.run.stopping import StopRequest

COMMAND = Path(sys.executable).with_name("vis2img")
STEPS, EVERY = 60, 20
PATIENCE = 240.0  # s for whatever a run is waited for; compiling on a busy machine takes a minute
PRIOR = "preset: gentle\nrobust: [-1.0, 1.0]\n"

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(not COMMAND.exists(), reason=f"{COMMAND} is not installed"),
]


class Run:
    """``vis2img train`` as a process of its own; what it says goes to files, as a full pipe would stop it."""

    def __init__(self, bench: Bench, *args: object) -> None:
        self.logs = [bench.fresh("log") for _ in range(2)]
        with self.logs[0].open("w") as out, self.logs[1].open("w") as err:
            command = [str(COMMAND), "train", *(str(arg) for arg in args)]
            self.process = subprocess.Popen(command, stdout=out, stderr=err, env=bench.env)
        bench.running.append(self)

    @property
    def out(self) -> str:
        return self.logs[0].read_text()

    @property
    def err(self) -> str:
        return self.logs[1].read_text()

    def until(self, condition: Callable[[], Any]) -> None:
        """Wait for a condition, which must come while the run runs."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None, f"the run ended too soon\n{self.out}{self.err}"
            assert time.monotonic() < deadline, f"the run does not get there\n{self.out}{self.err}"
            time.sleep(0.01)

    def ask(self) -> None:
        """Ask it to stop."""
        self.process.send_signal(signal.SIGTERM)

    def end(self, code: int = 0, seconds: float = PATIENCE) -> str:
        """Wait for its end, and return its last line."""
        self.process.wait(seconds)
        assert self.process.returncode == code, f"{self.out}{self.err}"
        assert "Traceback" not in self.err
        return (self.err if code else self.out).splitlines()[-1]


class Bench:
    """A measurement set, a configuration, and the environment of the runs on them."""

    def __init__(self, root: Path) -> None:
        self.root, self.running = root, list[Run]()
        self._names = iter(range(1000))
        self.env = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            # Unoptimised code compiles twice as fast.
            "XLA_FLAGS": "--xla_force_host_platform_device_count=1 --xla_backend_optimization_level=0",
            "JAX_COMPILATION_CACHE_DIR": str(root / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        ms = build_ms(
            root / "obs.ms", antennas=8, times=4, channels=6, sources=((1.0, 1e-3, -2e-3), (0.5, -2e-3, 1e-3))
        )
        prior = root / "prior.yaml"
        prior.write_text(PRIOR)
        views = {"patch_npix": 24, "global_size": 16, "local_size": 8, "n_local": 1}
        self.settings: dict[str, Any] = {
            "steps": STEPS,
            "checkpoint_every": EVERY,
            "keep_checkpoints": 100,
            "log_every": 1,
            "data": {
                "ms": [str(ms.path)],
                "batch_size": 4,
                "field_npix": 64,
                "draws_per_field": 2,
                "refresh_every": 2,
                "mode": "sync",
                "workers": 1,
                "cutters": 1,
                "imaging": str(prior),
                "subbands": 2,
                "views": views,
            },
            "model": {"variant": "micro", "patch": 8, "out_dim": 32, "hidden": 16, "bottleneck": 8, "drop_path": 0.0},
            "optim": {"warmup_steps": 1, "freeze_last_layer_steps": 1, "warmup_teacher_temp_steps": 2},
        }

    def fresh(self, name: str) -> Path:
        return self.root / f"{name}{next(self._names)}"

    def config(self, **changes: Any) -> tuple[Path, Path]:
        """Write a configuration; return it and its run folder. Values that are mappings change single keys."""
        settings = copy.deepcopy(self.settings)
        folder = self.fresh("run")
        for key, value in {"out": str(folder), **changes}.items():
            settings[key] = {**settings[key], **value} if isinstance(settings.get(key), dict) else value
        path = folder.with_suffix(".yaml")
        path.write_text(yaml.safe_dump(settings))
        return path, Path(settings["out"])


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("stops"))


@pytest.fixture
def bench(rooms: Bench) -> Iterator[Bench]:
    """The bench; whatever a failed test leaves running ends with it."""
    yield rooms
    for run in rooms.running:
        if run.process.poll() is None:
            run.process.kill()
            run.process.wait()
    rooms.running.clear()


@pytest.fixture(scope="module")
def whole(rooms: Bench) -> Any:
    """The run that nobody disturbs: its leaves and its losses."""
    path, folder = rooms.config()
    line = Run(rooms, path).end()
    assert line == f"{folder}: step {STEPS} of {STEPS}, finished"
    return SimpleNamespace(leaves=leaves(folder), loss=read_metrics(folder)["loss"])


def leaves(folder: Path) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(load_run(folder)[1])]


def logged(folder: Path) -> int:
    """Step that the metrics have reached, whole lines only."""
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def saved(folder: Path) -> list[int]:
    """Steps of the checkpoints that are complete."""
    return sorted(int(path.name) for path in (folder / "checkpoints").glob("*") if path.name.isdigit())


def starts(folder: Path) -> list[int]:
    """Steps that the run was started from."""
    return [json.loads(line)["step"] for line in (folder / "starts.jsonl").read_text().splitlines()]


def assert_as_if_never_stopped(folder: Path, whole: Any) -> None:
    assert saved(folder)[-1] == STEPS
    metrics = read_metrics(folder)
    assert list(metrics["step"]) == list(range(1, STEPS + 1))
    np.testing.assert_array_equal(metrics["loss"], whole.loss)
    for ours, theirs in zip(leaves(folder), whole.leaves, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_a_run_that_is_asked_to_stop_saves_and_goes_on(bench: Bench, whole: Any) -> None:
    path, folder = bench.config()
    run = Run(bench, path)
    run.until(lambda: logged(folder) > EVERY + 2)
    run.ask()
    line = run.end(seconds=120)
    step = logged(folder)
    assert EVERY < step < STEPS, "the signal came too late to say anything"
    assert line == f"{folder}: step {step} of {STEPS}, stopped, run the same command to go on"
    assert "stopping: saving; Ctrl-C to leave without" in run.err.splitlines()
    assert saved(folder) == sorted({*range(EVERY, step, EVERY), step})
    assert Run(bench, path).end() == f"{folder}: step {STEPS} of {STEPS}, finished"
    assert starts(folder) == [0, step]
    assert_as_if_never_stopped(folder, whole)


@pytest.mark.slow
def test_a_run_on_slow_steps_stops_within_seconds(bench: Bench) -> None:
    """Steps of seconds, and nothing that waits for them: without a bound, dozens are under way at the signal."""
    views = {"patch_npix": 64, "global_size": 64, "local_size": 32, "n_local": 1}
    slow = {"steps": 1000, "data": {"batch_size": 64, "field_npix": 128, "views": views}}
    each, seldom = ("--checkpoint-every", 1, "--log-every", 1), ("--checkpoint-every", 1000, "--log-every", 1000)

    def until_step_4(path: Path, folder: Path) -> None:
        run = Run(bench, path, *each)
        run.until(lambda: saved(folder)[-1:] >= [4])
        run.ask()
        run.end()

    path, watched = bench.config(**slow)
    until_step_4(path, watched)

    path, folder = bench.config(**slow)
    run = Run(bench, path, *seldom)
    run.until((folder / "starts.jsonl").exists)
    time.sleep(2.5 * 64 / read_metrics(watched)["samples_per_s"][-1])
    run.ask()
    asked = time.monotonic()
    line = run.end(seconds=120)
    assert time.monotonic() - asked < 15  # 2 s of grace, saving, workers: on a busy machine
    step = (saved(folder) or [0])[-1]
    assert line == f"{folder}: step {step} of 1000, stopped, run the same command to go on"
    assert step == logged(folder) < 4

    until_step_4(path, folder)
    np.testing.assert_array_equal(*(read_metrics(place)["loss"][:4] for place in (folder, watched)))
    states = [jax.tree.leaves(load_run(place, 4)[1]) for place in (folder, watched)]
    for ours, theirs in zip(*states, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_run_that_is_killed_loses_what_came_after_its_checkpoint(bench: Bench, whole: Any) -> None:
    prior = bench.fresh("prior")
    prior.write_text(PRIOR)
    path, folder = bench.config(data={"imaging": str(prior)})
    run = Run(bench, path)
    run.until(lambda: saved(folder) and logged(folder) > EVERY + 2)
    workers = psutil.Process(run.process.pid).children(recursive=True)
    assert len(workers) >= 2  # the scheduler's process and the worker's
    run.process.kill()
    run.process.wait()
    reached, checkpoint = logged(folder), saved(folder)[-1]
    assert checkpoint < reached < STEPS, "the kill came too late to say anything"
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive, "workers outlive their run"
    # The run has its own copy of the prior, and of its configuration.
    prior.unlink()
    path.unlink()
    assert Run(bench, folder, "--resume").end() == f"{folder}: step {STEPS} of {STEPS}, finished"
    assert starts(folder) == [0, checkpoint]
    # A checkpoint is due each 20 steps, and the lines of the metrics come before it.
    assert reached - checkpoint <= EVERY
    assert_as_if_never_stopped(folder, whole)


@pytest.mark.slow
def test_a_full_disk_stops_a_run_that_goes_on_when_there_is_room(bench: Bench, whole: Any) -> None:
    alone = own_mounts()
    disk = bench.fresh("disk")
    disk.mkdir()
    path, folder = bench.config(out=str(disk / "run"))
    kept = bench.fresh("kept")
    command = f"{shlex.quote(str(COMMAND))} train {shlex.quote(str(path))}"
    # A checkpoint takes 7 MB. The disk is seen from inside only, and gone with the last process that saw it.
    script = f"""
        mount -t tmpfs -o size=11m tmpfs {disk} || exit 99
        {command} >{kept}.out 2>{kept}.err; echo $? >{kept}.code
        cp -r {folder} {kept}.full
        mount -o remount,size=64m {disk} || exit 99
        {command} >{kept}.out2 2>{kept}.err2; echo $? >{kept}.code2
        cp -r {folder} {kept}.end
    """
    done = subprocess.run([*alone, "sh", "-c", script], env=bench.env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    read = {name: kept.with_suffix(f".{name}").read_text() for name in ("code", "out", "err", "code2", "out2", "err2")}
    assert (read["code"], read["out"]) == ("1\n", ""), read["err"]
    assert "Traceback" not in read["err"]
    errors = [line for line in read["err"].splitlines() if line.startswith("vis2img: error: ")]
    assert read["err"].splitlines()[-1:] == errors, read["err"]
    assert str(folder) in errors[0] and "the disk has" in errors[0], errors[0]
    assert "free some space" in errors[0] and "this is a bug" not in errors[0], errors[0]
    full, end = kept.with_suffix(".full"), kept.with_suffix(".end")
    assert saved(full) == [EVERY]
    assert int(load_run(full)[1].step) == EVERY
    assert read["code2"] == "0\n", read["err2"]
    assert read["out2"].splitlines()[-1] == f"{folder}: step {STEPS} of {STEPS}, finished"
    assert starts(end) == [0, EVERY]
    assert not list((end / "checkpoints").glob("*tmp*")), "what was half written stays for ever"
    assert_as_if_never_stopped(end, whole)


# As under a quota, which nobody knows of before it is reached: the disk seems to have room.
QUOTA = """
import shutil, sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from vis2img.train.run.checkpoints import CheckpointError, CheckpointStore

shutil.disk_usage = lambda path: SimpleNamespace(free=1 << 40)
rng, folder = np.random.default_rng(0), Path(sys.argv[1])
state = {f"layer{i}": rng.normal(size=(200, 500)) for i in range(9)}  # 7 MB
with CheckpointStore(folder, max_to_keep=100) as store:
    store.save(state, 20)
    try:
        store.save(state, 40)
    except CheckpointError as error:
        print(error)
    assert [path.name for path in folder.iterdir()] == ["20"], "what was half written takes room"
    restored, _ = store.restore(state)
assert all(np.array_equal(restored[name], np.float32(state[name])) for name in state)
"""


def test_a_checkpoint_that_meets_the_end_of_the_disk_is_removed(bench: Bench) -> None:
    disk = bench.fresh("disk")
    disk.mkdir()
    script = f"mount -t tmpfs -o size=11m tmpfs {disk} && exec {sys.executable} -c {shlex.quote(QUOTA)} {disk}/run"
    env = {**bench.env, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([*own_mounts(), "sh", "-c", script], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1 and done.stderr == "", done.stderr
    assert f"{disk}/run" in done.stdout and "the disk is full; free some space" in done.stdout


def test_to_resume_without_a_run_is_an_error(cli, bench: Bench) -> None:
    path, folder = bench.config()
    message = cli("train", path, "--resume").error()
    assert str(folder) in message and "leave out --resume" in message
    assert not folder.exists()
    folder.mkdir()
    message = cli("train", folder, "--resume").error()
    assert str(folder) in message and "holds no run" in message
    assert f"{folder}s: there is no such run folder" in cli("train", f"{folder}s", "--resume").error()


def test_a_stop_at_the_moment_a_batch_arrives_loses_no_batch(tmp_path: Path, monkeypatch, bench: Bench) -> None:
    """The loader has counted the batch, the loop has not taken its step: the checkpoint must not count it either."""
    notes: list[tuple[int, int]] = []
    result = _pretend(bench, tmp_path, monkeypatch, notes, stop_at_batch=3)
    assert (result.step, result.finished) == (2, False)
    assert notes == [(2, 2)]
    assert starts(tmp_path) == [0]


def test_a_stop_before_anything_is_trained_leaves_at_once(tmp_path: Path, monkeypatch, bench: Bench) -> None:
    """The first step compiles, which nothing interrupts; nothing is lost with it, and no start is noted."""
    notes: list[tuple[int, int]] = []
    ended = threading.Event()

    def compiling(state: Any, batch: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        ended.wait(PATIENCE)
        return state, {}

    result = _pretend(bench, tmp_path, monkeypatch, notes, step=compiling)
    ended.set()
    assert (result.step, result.finished) == (0, False)
    assert _pretend(bench, tmp_path, monkeypatch, notes, stop_at_batch=1).step == 0
    assert notes == [] and not (tmp_path / "starts.jsonl").exists()


def _pretend(
    bench: Bench,
    folder: Path,
    monkeypatch: Any,
    notes: list[tuple[int, int]],
    *,
    stop_at_batch: int = 0,
    step: Callable[[Any, Any], Any] = lambda state, batch: (state, {}),
) -> loop.RunResult:
    """Run the loop without a network; ``notes`` gets the step and the batches of each checkpoint."""
    path, _ = bench.config()
    monkeypatch.setattr(loop, "make_parallel_step", lambda *_, **__: step)
    for name in ("replicate", "unreplicate", "shard"):
        monkeypatch.setattr(loop, name, lambda value, *_: value)
    monkeypatch.setattr(loop.Loop, "_log", lambda self, *_: self.waiting.clear())
    monkeypatch.setattr(loop.Loop, "_show", lambda *_: None)

    class Loader:
        batches, source = 0, SimpleNamespace(total=0)

        def next_batch(self) -> Any:
            self.batches += 1
            if self.batches == stop_at_batch:
                signal.raise_signal(signal.SIGTERM)
            return SimpleNamespace(arrays=dict)

        def state(self) -> dict[str, int]:
            return {"batches": self.batches}

        def unused(self) -> dict[str, str]:
            return {}

    def save(state: Any, step: int, extra: dict[str, Any]) -> None:
        notes.append((step, extra["loader"][0]["batches"]))

    store: Any = SimpleNamespace(save=save)
    loader: Any = Loader()
    with StopRequest().listening() as stop:
        start: Any = SimpleNamespace(step=0)
        return loop.Loop(load(TrainConfig, path), folder, store, loader, 1.0, stop, None, None).run(start, None)


def test_the_sheet_of_views_names_what_they_are_of(tmp_path: Path, monkeypatch, bench: Bench) -> None:
    notes: list[str] = []
    monkeypatch.setattr("vis2img.train.run.view_sheet.view_sheet", lambda *_, teacher_note: notes.append(teacher_note))
    config = load(TrainConfig, bench.config(data={"imaging": "gentle", "subbands": 1})[0])
    pictures = replace(config, data=replace(config.data, ms=(), cutouts=("a.npz",)))
    nothing: Any = SimpleNamespace(state=dict, image=lambda *_: None)
    for each in (config, pictures):
        loop.Loop(each, tmp_path, nothing, nothing, 1.0, StopRequest(), None, None)._show(nothing, {}, 7)
    assert notes == ["gentle: views of step 7", "cutouts: views of step 7"]


@pytest.mark.slow
def test_a_stop_before_the_first_step_breaks_nothing(bench: Bench, whole: Any) -> None:
    path, folder = bench.config()
    filling = Run(bench, path)
    filling.until((folder / "config.yaml").exists)
    filling.ask()
    nothing = f"{folder}: step 0 of {STEPS}, stopped, run the same command to go on"
    assert filling.end(seconds=120) == nothing
    # While it compiles, which nothing can interrupt, there is nothing to wait for.
    bench.env["JAX_COMPILATION_CACHE_DIR"] = ""
    try:
        compiling = Run(bench, path)
    finally:
        bench.env["JAX_COMPILATION_CACHE_DIR"] = str(bench.root / "compiled")
    compiling.until((folder / "views" / "step00000000.png").exists)  # the last thing before
    time.sleep(1.0)
    compiling.ask()
    assert compiling.end(seconds=20) == nothing
    assert compiling.err.splitlines()[-1] == "stopping"
    assert saved(folder) == [] and logged(folder) == 0
    assert not (folder / "starts.jsonl").exists()
    Run(bench, path).end()
    assert starts(folder) == [0]
    assert_as_if_never_stopped(folder, whole)


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_the_run(bench: Bench) -> None:
    path, folder = bench.config(optim={"base_lr": 1e30, "clip_grad": 0.0})
    line = Run(bench, path).end(code=1)
    assert line.startswith(f"vis2img: error: {folder}: stopped at step "), line
    assert "not finite" in line and "lower base_lr" in line
    assert sum(text.startswith("vis2img: error") for text in bench.running[-1].err.splitlines()) == 1
    step = saved(folder)[-1]
    assert step < STEPS and list(read_metrics(folder)["finite"][-5:]) == [0] * 5
    assert all(np.isfinite(leaf).all() for leaf in leaves(folder) if np.issubdtype(leaf.dtype, np.floating))


@pytest.mark.slow
def test_two_hosts_stop_together_and_go_on(bench: Bench) -> None:
    path, folder = bench.config()

    def both() -> list[Run]:
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port = probe.getsockname()[1]
        hosts = ["--hosts.coordinator", f"localhost:{port}", "--hosts.count", 2, "--hosts.index"]
        return [Run(bench, path, *hosts, index) for index in range(2)]

    runs = both()
    runs[0].until(lambda: logged(folder) > 3)
    runs[1].ask()  # and nobody tells the first
    lines = [run.end(seconds=120) for run in runs]
    step = saved(folder)[-1]
    assert 3 < step < STEPS and logged(folder) == step
    assert lines == [f"{folder}: step {step} of {STEPS}, stopped, run the same command to go on"] * 2
    # Alone it would be another run: each host has its share of the draws.
    assert "holds a run on 2 hosts" in Run(bench, path).end(code=1)
    assert [run.end() for run in both()] == [f"{folder}: step {STEPS} of {STEPS}, finished"] * 2
    assert starts(folder)[0] == 0 and set(starts(folder)[1:]) == {step}
    assert list(read_metrics(folder)["step"]) == list(range(1, STEPS + 1))
