"""Presets of runs: each builds, and its head says what a reader wants to know first."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

import vis2img.train.run.presets as presets
from vis2img.train.demo_config import DemoConfig, train_config
from vis2img.train.run.presets import preset
from vis2img.train.study.config import StudyConfig

FILES = sorted(Path(presets.__file__).parent.glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_preset_is_a_run_and_its_head_tells_command_time_and_expected_score(path: Path, tmp_path: Path) -> None:
    run = preset(path.stem, tmp_path / "run", [tmp_path / "a.ms", tmp_path / "b.ms"])
    assert run.out == str(tmp_path / "run") and run.data.ms == (str(tmp_path / "a.ms"), str(tmp_path / "b.ms"))
    head = path.read_text().partition("\ndata:")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert re.search(r": vis2img \w+", head) and re.search(r"minutes|hours", head) and re.search(r"0\.\d\d", head)


def test_there_are_presets() -> None:
    assert [path.stem for path in FILES] == ["demo", "study"]


def test_the_demonstration_is_its_preset_with_its_own_steps_and_seed(tmp_path: Path) -> None:
    run = train_config(DemoConfig(out=tmp_path, fields=2, steps=80, seed=3))
    base = preset("demo", tmp_path / "run", [tmp_path / "data" / f"field{i}.ms" for i in range(2)])
    assert run == replace(base, optim=replace(base.optim, warmup_steps=8), steps=80, seed=3, checkpoint_every=20)


def test_a_study_trains_the_network_of_its_preset_and_takes_options_over_it(tmp_path: Path) -> None:
    base = preset("study")
    config = StudyConfig(out=tmp_path, optim=replace(base.optim, base_lr=1e-3), steps=500)
    run = config.run_config("full", 2)
    assert (run.model, run.data.views, run.data.near_peaks) == (base.model, base.data.views, base.data.near_peaks)
    assert (run.optim.base_lr, run.steps, run.seed, run.data.imaging) == (1e-3, 500, 2, "full")
