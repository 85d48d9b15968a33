"""Runs of training: small ones for the command line, how they are stopped, and whether two ended alike."""

import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tests.helpers.measurement_sets import build_ms
from vis2img.train.run.run import load_run, read_metrics

SKY = ((1.0, 1e-3, -2e-3), (0.5, -2e-3, 1e-3))


def small_ms(folder: Path) -> Path:
    """Write a measurement set that a small training images in no time; return its path."""
    return build_ms(folder / "a.ms", antennas=8, times=8, channels=6, sources=SKY).path


def small_environment(compiled: Path) -> dict[str, str]:
    """Return what commands that train are to see: one processor, and code that is compiled once, in a hurry."""
    return {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=1 --xla_backend_optimization_level=0",
        "JAX_COMPILATION_CACHE_DIR": str(compiled),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def small_training(ms: Path, out: Path) -> dict[str, Any]:
    """Return a configuration of four steps, a checkpoint each."""
    return {
        **{"out": str(out), "steps": 4, "checkpoint_every": 1, "keep_checkpoints": 2, "log_every": 1},
        "views_every": 2,
        "data": {
            **{"ms": [str(ms)], "batch_size": 4, "field_npix": 80, "draws_per_field": 2, "mode": "sync"},
            **{"workers": 1, "imaging": "gentle"},
            "views": {"patch_npix": 24, "global_size": 16, "local_size": 8, "n_local": 0},
        },
        "model": {"variant": "micro", "patch": 8, "out_dim": 32, "hidden": 16, "bottleneck": 8, "drop_path": 0.0},
        "optim": {"warmup_steps": 1, "freeze_last_layer_steps": 1, "warmup_teacher_temp_steps": 2},
    }


def stop_at(number):
    """What ``train`` may call for its progress, and what asks the run to stop at step ``number``."""

    def interrupt(stage, step, *_):
        if (stage, step) == ("training", number):
            signal.raise_signal(signal.SIGTERM)

    return interrupt


def assert_same_end(first, second):
    """Two run folders hold the same state and the same losses, to the bit."""
    states = [jax.tree.leaves(load_run(folder)[1]) for folder in (first, second)]
    for ours, theirs in zip(*states, strict=True):
        assert np.array_equal(ours, theirs)
    assert np.array_equal(read_metrics(first)["loss"], read_metrics(second)["loss"])
