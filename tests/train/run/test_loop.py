"""The loop without a network: what it measures, in which order it writes, and how it ends where the loss is lost."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vis2img.errors import Vis2imgError
from vis2img.loader.config import LoaderConfig
from vis2img.progress import no_progress
from vis2img.train.config import OptimConfig
from vis2img.train.run import loop
from vis2img.train.run.checkpoints import CheckpointStore
from vis2img.train.run.config import TrainConfig
from vis2img.train.run.stopping import StopRequest

LOADING, STEPPING = 0.01, 0.02  # s
BATCH = 8


class Loader:
    """A loader that takes its time."""

    batches = 0
    source = SimpleNamespace(total=1)

    def next_batch(self) -> Any:
        time.sleep(LOADING)
        self.batches += 1
        return SimpleNamespace(arrays=dict)

    def state(self) -> dict[str, int]:
        return {"batches": self.batches}

    def report(self) -> dict[str, float]:
        return {"fresh_draws": 0.0, "draw_age": 1.0, "draw_reuse": 1.0}

    def unused(self) -> dict[str, str]:
        return {}


@pytest.fixture
def run(tmp_path: Path, monkeypatch):
    """Make a loop, its first state, its metrics as they stand, and what stood in them at each checkpoint."""
    for name in ("replicate", "unreplicate", "shard"):
        monkeypatch.setattr(loop, name, lambda value, *_: value)
    monkeypatch.setattr(loop.Loop, "_show", lambda *_: None)
    saved: list[tuple[int, int, bool]] = []

    def lines() -> list[dict[str, float]]:
        path = tmp_path / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def start(*, steps: int, lost_at: int = 10**9, **changes: Any) -> tuple[Any, list[dict[str, float]], Any]:
        def step(state: Any, batch: Any) -> Any:
            time.sleep(STEPPING)
            finite = state.step < lost_at
            metrics = {"loss": 1.0 if finite else np.nan, "finite": float(finite), "entropy": 1.0, "kl": 0.1}
            metrics |= {"usage": 1.0, "feature_std": 1.0}
            return SimpleNamespace(step=state.step + 1, moment=np.eye(4)), metrics

        monkeypatch.setattr(loop, "make_parallel_step", lambda *_, **__: step)
        config = TrainConfig(
            out=str(tmp_path), data=LoaderConfig(ms=("a.ms",), batch_size=BATCH), steps=steps, **changes
        )

        def save(state: Any, step: int, extra: dict[str, Any]) -> None:
            assert extra["loader"][0]["batches"] == step
            time.sleep(0.2)  # what a checkpoint takes is no part of a step
            saved.append((step, len(lines()), bool(lines()[-1]["finite"])))

        store: Any = SimpleNamespace(save=save)
        with StopRequest().listening() as stop:
            args = (config, tmp_path, store, Loader(), 1e4, stop, no_progress, None)
            return loop.Loop(*args), SimpleNamespace(step=0, moment=np.eye(4)), (lines, saved)

    return start


def small(**changes: Any) -> dict[str, Any]:
    return {"optim": OptimConfig(warmup_steps=1), "views_every": 1000, **changes}


@pytest.mark.parametrize("checkpoint_every", [7, 10, 25])
def test_speed_and_waiting_are_those_of_the_steps(run, checkpoint_every: int) -> None:
    made, state, (lines, _) = run(steps=30, **small(log_every=10, checkpoint_every=checkpoint_every))
    assert made.run(state, None).finished
    found = lines()
    assert [row["step"] for row in found] == list(range(1, 31))
    for row in found:
        # Sleeping takes longer on a busy machine, never shorter.
        assert 0 < row["samples_per_s"] <= BATCH / (LOADING + STEPPING) * 1.001
        assert 0 < row["input_wait"] < 0.9
        assert row["mfu"] == pytest.approx(row["samples_per_s"] / 1e4)


def test_a_checkpoint_knows_no_step_that_the_metrics_do_not(run) -> None:
    made, state, (_, saved) = run(steps=30, **small(log_every=10, checkpoint_every=7))
    made.run(state, None)
    assert [(step, known) for step, known, _ in saved] == [(7, 7), (14, 14), (21, 21), (28, 28), (30, 30)]


def test_a_loss_that_is_lost_ends_the_run_with_the_state_saved(run) -> None:
    made, state, (lines, saved) = run(steps=40, lost_at=12, **small(log_every=5, checkpoint_every=100))
    with pytest.raises(Vis2imgError, match=r"stopped at step 20: .*not finite for 8 step"):
        made.run(state, None)
    assert [step for step, _, _ in saved] == [20]
    assert [row["finite"] for row in lines()] == [1.0] * 12 + [0.0] * 8


def test_checkpoints_to_keep_for_good_stay(tmp_path: Path, initial) -> None:
    with CheckpointStore(tmp_path / "checkpoints", max_to_keep=2, keep_every=4) as store:
        for step in range(1, 11):
            store.save(initial, step)
        assert store.steps() == [4, 8, 9, 10]
