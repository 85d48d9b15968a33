"""Settings of a loader: what fits together, and files and options of before the engine was a value of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from vis2img.cluster.engine import Engine
from vis2img.configs.load import build, draft, override
from vis2img.configs.records import to_record
from vis2img.errors import ParameterError, UsageError
from vis2img.loader.config import ENGINE_KEYS, LoaderConfig

HERE = Path("run.yaml")


@dataclass(frozen=True)
class Run:
    """A configuration with a loader in it."""

    data: LoaderConfig


def test_the_engine_stands_among_the_keys_of_the_data() -> None:
    record = {"ms": ["a.ms"], "workers": 2, "worker_memory": "2GB", "mode": "sync", "draws_per_field": 3}
    config = build(LoaderConfig, record, HERE)
    assert config.engine == Engine(workers=2, worker_memory=2e9) and (config.mode, config.draws_per_field) == (
        "sync",
        3,
    )
    # As runs of before have it: a number of bytes, and every key.
    saved = to_record(config)
    assert {*record, *ENGINE_KEYS} <= set(saved) and "engine" not in saved
    assert build(LoaderConfig, {**saved, "worker_memory": 2000000000.0}, HERE, saved=True) == config


def test_options_of_the_engine_have_no_name_in_between() -> None:
    run = draft(Run, {"data": {"ms": ["a.ms"]}}, HERE)
    words = ["--data.workers", "32", "--data.scheduler", "slurm", "--data.worker-memory", "4GB", "--data.dashboard"]
    engine = override(run, words, "train").data.engine
    assert engine == Engine(scheduler="slurm", workers=32, worker_memory=4e9, dashboard=True)
    with pytest.raises(UsageError, match=r"data\.scheduler 'slrm' is neither slurm"):
        override(run, ["--data.scheduler", "slrm"], "train")
    with pytest.raises(ParameterError, match=r"run\.yaml: unknown key data\.wrkers; did you mean data\.workers"):
        build(Run, {"data": {"ms": ["a.ms"], "wrkers": 2}}, HERE)
