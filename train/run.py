"""The training loop: views in, teacher out; resumable, watched, and stopped in good order.

The run folder (:mod:`train.run_folder`) gets ``metrics.jsonl``, a line a step, and ``checkpoints/``. The same command
goes on from the last checkpoint.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from train.checkpoints import CheckpointStore
from train.monitors import Finding, diagnose
from train.parallel import make_parallel_step, replicate, shard, unreplicate
from train.run_config import TrainConfig
from train.run_folder import open_folder, read_config_of, write_text
from train.state import TrainState, build_model, create_state
from vis2img.cluster import Connection, connect
from vis2img.errors import Vis2imgError
from vis2img.loader import Loader

Progress = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True, eq=False)
class RunResult:
    """What a run left: its folder, the step reached, whether it was stopped early, findings, and data not used."""

    folder: Path
    step: int
    finished: bool
    findings: tuple[Finding, ...] = ()
    unused: dict[str, str] = field(default_factory=dict)
    """Measurement sets and fields that gave nothing, and why."""


def train(
    config: TrainConfig,
    *,
    progress: Progress | None = None,
    on_fill: Callable[[int, int], None] | None = None,
    on_dashboard: Callable[[str], None] | None = None,
) -> RunResult:
    """Train until ``config.steps``, from the last checkpoint of ``config.out`` if there is one.

    Parameters
    ----------
    config : TrainConfig
        The run.
    progress : callable, optional
        Called with (step, steps, metrics) whenever metrics are read.
    on_fill : callable, optional
        Called with (draws made, draws wanted) while the pool fills.
    on_dashboard : callable, optional
        Called with the address of Dask's dashboard, if there is one.

    Raises
    ------
    Vis2imgError
        If the folder holds another run, data cannot be used, or the loss stays non-finite.
    """
    folder = Path(config.out)
    open_folder(folder, config)
    # Workers before JAX: it may take the accelerator and start threads, which new processes had better not inherit.
    with connect(config.data.engine) as connection:
        if on_dashboard and connection.dashboard_link:
            on_dashboard(connection.dashboard_link)
        return _train(config, folder, connection, progress, on_fill)


def _train(
    config: TrainConfig,
    folder: Path,
    connection: Connection,
    progress: Progress | None,
    on_fill: Callable[[int, int], None] | None,
) -> RunResult:
    _check_batch(config)
    model = build_model(config.model, config.data.views.global_size)
    template = create_state(jax.random.key(config.seed), model, config.optim, _shape(config))
    with CheckpointStore(folder / "checkpoints", max_to_keep=config.keep_checkpoints) as store:
        steps = store.steps()
        state, extra = store.restore(template) if steps else (template, {})
        start = int(state.step)
        if start >= config.steps:
            return RunResult(folder, start, True)
        with Loader(
            config.data,
            config.seed,
            connection=connection,
            state=extra.get("loader"),
            host=jax.process_index(),
            hosts=jax.process_count(),
            progress=on_fill,
        ) as loader:
            return _Loop(config, folder, store, loader, progress).run(state, model)


def _shape(config: TrainConfig) -> tuple[int, int, int]:
    size = config.data.views.global_size
    return size, size, config.data.channels


def _check_batch(config: TrainConfig) -> None:
    devices = (config.devices or jax.local_device_count()) * jax.process_count()
    if config.data.batch_size % devices:
        raise Vis2imgError(
            f"data.batch_size = {config.data.batch_size} is not a multiple of the {devices} devices; "
            f"use {config.data.batch_size + devices - config.data.batch_size % devices}"
        )


class _Loop:
    """One pass of the loop, with what must be remembered between steps."""

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        store: CheckpointStore,
        loader: Loader,
        progress: Progress | None,
    ) -> None:
        self.config, self.folder, self.store, self.loader, self.progress = (
            config,
            folder,
            store,
            loader,
            progress,
        )
        self.history: list[dict[str, float]] = []
        self.findings: dict[str, Finding] = {}
        self.waiting: list[tuple[int, Any]] = []
        self.since = time.perf_counter()
        self.loader_seconds = 0.0

    def run(self, state: TrainState, model: Any) -> RunResult:
        config, first = self.config, int(state.step)
        self._cut_metrics(first)
        step_fn = make_parallel_step(model, config.optim, total_steps=config.steps, n_devices=config.devices)
        replicated = replicate(state, config.devices)
        saved = first
        step = first
        with _stop_signal() as stopped:
            while step < config.steps and not stopped():
                replicated, metrics = step_fn(replicated, shard(self._next_batch(), config.devices))
                step += 1
                self.waiting.append((step, metrics))
                if step % config.log_every == 0 or step == config.steps:
                    self._log(step)
                if step % config.checkpoint_every == 0 or step == config.steps:
                    self._save(replicated, step)
                    saved = step
            self._log(step)
            if step > saved:
                self._save(replicated, step)
        findings = tuple(self.findings.values())
        return RunResult(self.folder, step, step >= config.steps, findings, self.loader.unused())

    def _next_batch(self) -> dict[str, np.ndarray]:
        start = time.perf_counter()
        batch = self.loader.next_batch()
        self.loader_seconds += time.perf_counter() - start
        return batch.arrays()

    def _log(self, step: int) -> None:
        """Fetch the metrics of the steps since the last call, write them, and judge them."""
        if not self.waiting:
            return
        fetched = [(n, {k: float(v) for k, v in unreplicate(m).items()}) for n, m in self.waiting]
        elapsed = max(1e-9, time.perf_counter() - self.since)
        told = self.loader.report()
        speed = {
            "samples_per_s": self.config.data.batch_size * len(self.waiting) / elapsed,
            "input_wait": self.loader_seconds / elapsed,
            **{name: told[name] for name in ("fresh_draws", "draw_age", "draw_reuse")},
        }
        self.waiting, self.since, self.loader_seconds = [], time.perf_counter(), 0.0
        with (self.folder / "metrics.jsonl").open("a") as file:
            for number, metrics in fetched:
                file.write(json.dumps({"step": number, **metrics, **speed}) + "\n")
                self.history.append(metrics)
        self.history = self.history[-200:]
        finding = diagnose(self.history, out_dim=self.config.model.out_dim)
        if finding:
            self.findings[finding.kind] = finding
            if finding.stop:
                raise Vis2imgError(f"{self.folder}: stopped at step {step}: {finding.message}")
        if self.progress:
            self.progress(step, self.config.steps, {**fetched[-1][1], **speed})

    def _save(self, replicated: TrainState, step: int) -> None:
        self.store.save(unreplicate(replicated), step, {"loader": self.loader.state()})
        self.since = time.perf_counter()

    def _cut_metrics(self, step: int) -> None:
        """Drop lines of steps that the checkpoint does not know, so that a resumed run has each step once."""
        path = self.folder / "metrics.jsonl"
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if json.loads(line)["step"] <= step]
            write_text(path, "".join(line + "\n" for line in kept))


@contextmanager
def _stop_signal() -> Iterator[Callable[[], bool]]:
    """Turn SIGTERM (Slurm's warning before the time limit) into a request to save and stop."""
    asked: list[int] = []
    try:
        before = signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    except ValueError:  # not the main thread: leave signals to whoever runs us
        yield lambda: False
        return
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGTERM, before)


def load_run(folder: str | Path) -> tuple[TrainConfig, TrainState, Any]:
    """Return configuration, last state and model of a run folder.

    Raises
    ------
    Vis2imgError
        If the folder holds no run, or no checkpoint that can be read.
    """
    folder = Path(folder)
    config = read_config_of(folder)
    model = build_model(config.model, config.data.views.global_size)
    template = create_state(jax.random.key(config.seed), model, config.optim, _shape(config))
    with CheckpointStore(folder / "checkpoints", max_to_keep=config.keep_checkpoints) as store:
        state, _ = store.restore(template)
    return config, state, model


def read_metrics(folder: str | Path) -> dict[str, np.ndarray]:
    """Return the metrics of a run by name, one value a step."""
    lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return {name: np.array([line[name] for line in lines]) for name in (lines[0] if lines else {})}
