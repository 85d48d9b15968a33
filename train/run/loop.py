"""One pass of the training loop: batches in, metrics and checkpoints out."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np

from vis2img.errors import Vis2imgError
from vis2img.loader.loader import Loader
from vis2img.models.dino_head import DINOModel
from vis2img.progress import Progress
from vis2img.train.hosts import any_host, gather, is_first
from vis2img.train.parallel import ParallelStep, make_parallel_step, replicate, shard, unreplicate
from vis2img.train.run.checkpoints import CheckpointStore
from vis2img.train.run.config import TrainConfig
from vis2img.train.run.flops import model_flops_per_sample, peak_flops
from vis2img.train.run.folder import note_start
from vis2img.train.run.metrics_log import MetricsLog, metrics_note
from vis2img.train.run.monitors import Finding, findings, rankme_of_moment
from vis2img.train.run.stopping import Stopped, StopRequest
from vis2img.train.run.under_way import Taken, UnderWay
from vis2img.train.state import TrainState
from vis2img.train.step import Metrics

_HISTORY = 200  # steps that the monitors look at
_RANK_EVERY = 100  # steps between looks at the rank: eigenvalues take a second for wide networks


@dataclass(frozen=True, eq=False)
class RunResult:
    """What a run left: its folder, the step reached, whether it was stopped early, findings, and data not used."""

    folder: Path
    step: int
    finished: bool
    findings: tuple[Finding, ...] = ()
    unused: dict[str, str] = field(default_factory=dict)
    """Measurement sets and fields that gave nothing, and why."""
    inputs: int = 0
    """Number of fields or pictures, those among them."""


@dataclass(eq=False)
class Loop:
    """The loop, with what must be remembered between steps."""

    config: TrainConfig
    folder: Path
    """Of the run."""
    store: CheckpointStore
    loader: Loader
    full_rate: float
    """Of :func:`full_rate`."""
    stop: StopRequest
    progress: Progress
    """Told of the steps whenever metrics are read."""
    on_warning: Callable[[str], None] | None
    """Called once for each thing that looks wrong, with one line."""

    def __post_init__(self) -> None:
        self.first, self.together = is_first(), jax.process_count() > 1
        self.stop.unsaved = self.together  # several hosts take a step before they can leave off together
        self.history: list[dict[str, float]] = []
        self.findings: dict[str, Finding] = {}
        self.waiting: list[tuple[int, Metrics]] = []
        self.since = time.perf_counter()
        self.loader_seconds = 0.0

    def run(self, state: TrainState, model: DINOModel) -> RunResult:
        """Train from ``state`` to the end, or until asked to stop.

        Raises
        ------
        Vis2imgError
            If the loss stays non-finite; the last good state is saved.
        """
        config = self.config
        step = self.saved = int(state.step)
        # Accelerators are short of memory and their steps are short; of a step that takes minutes, as on processors,
        # the state that it started from is wanted when the run is asked to stop. Hosts cannot leave one step alone.
        keeps_states = jax.default_backend() == "cpu" and not self.together
        step_fn = make_parallel_step(
            model,
            config.optim,
            total_steps=config.steps,
            n_devices=config.devices,
            donate=not keeps_states,
            views=config.data.views,
        )
        start = Taken(step, replicate(state, config.devices), {}, self.loader.state())
        self.steps = UnderWay(start, self.stop, together=self.together, keeps_states=keeps_states)

        with MetricsLog(self.folder, start_step=step) if self.first else nullcontext() as log:
            with suppress(Stopped):
                self._train(step_fn, log)
            self.steps.settle()
            last = self.steps.last.step
            self.waiting = [(number, metrics) for number, metrics in self.waiting if number <= last]
            if self.waiting:
                self._log(log)
            if last > self.saved:
                self._save()
        findings = tuple(self.findings.values())
        return RunResult(
            self.folder, last, last >= config.steps, findings, self.loader.unused(), self.loader.source.total
        )

    def _train(self, step_fn: ParallelStep, log: MetricsLog | None) -> None:
        """Take steps until the last, or until asked to stop: some may be under way then, and `Stopped` raised."""
        config, first = self.config, self.steps.last.step
        for step in range(first + 1, config.steps + 1):
            batch = self._next_batch()
            if log and (step - 1) % config.views_every == 0:
                self._show(log, batch, step - 1)
            self._begin(step_fn, batch, step)
            if self.first and step == first + 1:
                note_start(self.folder, first)

            due = step % config.checkpoint_every == 0 or step == config.steps
            stopping = self.stop.pending and not self.together
            # A checkpoint never knows steps that metrics.jsonl does not.
            if step % config.log_every == 0 or due:
                self.steps.finish()
                fatal = self._log(log)
                if fatal:
                    self._save()
                    where = f"{self.folder}: stopped at step {step}"
                    raise Vis2imgError(f"{where}: {fatal.message}")
                # Several hosts must leave off at the same step, and ask each other at these only.
                stopping = any_host(self.stop.pending)
                if due:
                    self._save()
            if stopping:
                break

    def _next_batch(self) -> dict[str, np.ndarray]:
        start = time.perf_counter()
        with nullcontext() if self.together else self.stop.interruptible():
            batch = self.loader.next_batch()
        self.loader_seconds += time.perf_counter() - start
        return batch.arrays()

    def _begin(self, step_fn: ParallelStep, batch: dict[str, np.ndarray], step: int) -> None:
        """Start a step."""
        loader, shares = self.loader.state(), shard(batch, self.config.devices)

        def take(before: Taken) -> Taken:
            state, metrics = step_fn(before.state, shares)
            return Taken(step, state, metrics, loader)

        self.waiting.append((step, self.steps.begin(take).metrics))
        self.stop.unsaved = True

    def _show(self, log: MetricsLog, batch: dict[str, np.ndarray], step: int) -> None:
        from vis2img.train.run.view_sheet import view_sheet  # loads matplotlib

        folder = self.folder / "views"
        folder.mkdir(exist_ok=True)
        # Pictures are not imaged: there is no prior to name.
        of = "cutouts" if self.config.data.cutouts else self.config.data.imaging
        note = f"{of}: views of step {step}"
        log.image("views", view_sheet(batch, folder / f"step{step:08d}.png", teacher_note=note), step)

    def _log(self, log: MetricsLog | None) -> Finding | None:
        """Read the metrics of the steps since the last call, write them, and judge them; return what ends the run."""
        step, state = self.steps.last.step, self.steps.last.state
        rows = [(number, {k: float(v) for k, v in unreplicate(metrics).items()}) for number, metrics in self.waiting]
        speed = self._speed(len(rows))
        if step % _RANK_EVERY < self.config.log_every or step == self.config.steps:
            rows[-1][1]["rankme"] = rankme_of_moment(np.asarray(unreplicate(state.moment)))
        if log:
            log.write([{"step": number, **metrics, **speed} for number, metrics in rows])

        self.history = [*self.history, *(metrics for _, metrics in rows)][-_HISTORY:]
        latest = findings(self.history, out_dim=self.config.model.out_dim, objective=self.config.optim.objective)
        for finding in latest:
            if finding.kind not in self.findings:
                self.findings[finding.kind] = finding
                self._tell(finding.message)
        if log and log.problem:
            self._tell(log.problem)
            log.problem = None
        if self.first:
            self.progress("training", step, self.config.steps, metrics_note({**rows[-1][1], **speed}))
        return next((finding for finding in latest if finding.stop), None)

    def _speed(self, steps: int) -> dict[str, float]:
        """Rates of the steps since the last call, the accelerator's and the loader's."""
        elapsed = max(1e-9, time.perf_counter() - self.since)
        rate, loader = self.config.data.batch_size * steps / elapsed, self.loader.report()
        speed = {
            "samples_per_s": rate,
            "mfu": rate / self.full_rate,
            "input_wait": self.loader_seconds / elapsed,
            **{name: loader[name] for name in ("fresh_draws", "draw_age", "draw_reuse")},
        }
        self.waiting, self.since, self.loader_seconds = [], time.perf_counter(), 0.0
        return speed

    def _tell(self, message: str) -> None:
        if self.on_warning and self.first:
            self.on_warning(message)

    def _save(self) -> None:
        """Save the last step that is finished."""
        last = self.steps.last
        states = gather(last.loader)
        if self.first:
            self.store.save(unreplicate(last.state), last.step, {"loader": states})
        self.saved = last.step
        self.stop.unsaved = self.together
        self.since = time.perf_counter()


def full_rate(config: TrainConfig, model: DINOModel) -> float:
    """Samples/s at which the devices would do nothing but the arithmetic of the network.

    Of devices whose peak is not published it is measured: ask while nothing else computes.
    """
    devices = config.devices or jax.local_device_count()
    peak, _ = peak_flops(jax.local_devices()[0], config.model.precision)
    # Simulated devices share the cores that the peak was measured on.
    if jax.default_backend() != "cpu":
        peak *= devices * jax.process_count()
    views, channels, optim = config.data.views, config.data.channels, config.optim
    return peak / model_flops_per_sample(model, views, channels, ibot=optim.ibot > 0.0, teacher=optim.has_teacher)
