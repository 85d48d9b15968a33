"""Defaults are not warned of; each setting that is known to be fragile is, in one line that says what to use."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from vis2img.loader.config import LoaderConfig
from vis2img.train.config import ModelConfig, OptimConfig
from vis2img.train.demo_config import DemoConfig, train_config
from vis2img.train.run.config import TrainConfig
from vis2img.train.run.fragile import fragile
from vis2img.views.crops import ViewConfig

SGD = {"optimizer": "sgd"}


def config(
    batch: int = 128,
    steps: int = 10_000,
    model: dict[str, Any] | None = None,
    optim: dict[str, Any] | None = None,
    views: dict[str, Any] | None = None,
) -> TrainConfig:
    data = LoaderConfig(ms=("a.ms",), batch_size=batch, views=ViewConfig(**views or {}))
    return TrainConfig("run", data, ModelConfig(**model or {}), OptimConfig(**optim or {}), steps=steps)


@pytest.mark.parametrize("batch", [128, 256, 1024])
def test_the_defaults_are_sound(batch: int) -> None:
    assert fragile(config(batch)) == []


def test_the_demonstration_is_sound() -> None:
    assert fragile(train_config(DemoConfig())) == []


def test_published_runs_are_sound() -> None:
    """The 800 epochs of ViT-S/16 and ViT-B/16, and ResNet-50, as far as there are settings here."""
    steps = 800 * 1251
    shares = {"warmup_steps": steps // 80, "warmup_teacher_temp_steps": steps * 3 // 80, "teacher_temp": 0.07}
    small = {"variant": "small", "patch": 16, "out_dim": 65536, "norm_last_layer": False}
    assert fragile(config(1024, steps, small, shares | {"freeze_last_layer_steps": 1251})) == []
    base = {"variant": "base", "patch": 16, "out_dim": 65536}
    assert fragile(config(1024, steps, base, shares | {"base_lr": 7.5e-4, "clip_grad": 0.3})) == []
    decay = {"weight_decay": 1e-4, "weight_decay_end": 1e-4}
    resnet = {"variant": "resnet50", "out_dim": 60000}
    assert fragile(config(1024, steps, resnet, shares | decay | SGD | {"base_lr": 0.03})) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"optim": {"teacher_temp": 0.08}}, "optim.teacher_temp = 0.08: above 0.07"),
        ({"optim": {"warmup_teacher_temp": 0.065}}, "starts at temperature 0.065"),
        ({"optim": {"teacher_temp": 0.07, "warmup_teacher_temp_steps": 0}}, "starts at temperature 0.07"),
        ({"optim": {"student_temp": 0.04}}, "optim.student_temp = 0.04 is not above"),
        ({"optim": {"centre_momentum": 0.999}}, "optim.centre_momentum = 0.999"),
        ({"model": {"out_dim": 65536}}, "model.out_dim = 65536 outputs, and a run with 20 samples"),
        ({"steps": 300, "optim": {"warmup_steps": 30}}, "model.out_dim = 4096 outputs, and a run with 9 samples"),
        ({"model": {"norm_last_layer": False, "variant": "base"}}, "norm_last_layer = False with variant base"),
        (
            {"model": {"norm_last_layer": False}, "optim": {"freeze_last_layer_steps": 0}},
            "norm_last_layer = False with optim.freeze_last_layer_steps = 0",
        ),
        ({"batch": 64}, "optim.momentum_teacher = 0.996 with data.batch_size = 64"),
        ({"optim": {"momentum_teacher": 0.5}}, "nearly the student"),
        ({"optim": {"momentum_teacher": 1.0}}, "never moves"),
        ({"batch": 1024, "optim": {"base_lr": 2e-3}}, "is a peak of 0.008"),
        ({"batch": 32, "optim": {"base_lr": 1.6e-2, "momentum_teacher": 0.9995}}, "use 8e-3 at most"),
        ({"optim": {"warmup_steps": 50}}, "optim.warmup_steps = 50 is below 1% of the 10000 steps"),
        ({"model": {"variant": "resnet18"}}, "optim.optimizer = adamw with model.variant = resnet18"),
        ({"optim": SGD}, "optim.optimizer = sgd with a transformer"),
        ({"model": {"variant": "base"}, "optim": {"clip_grad": 0.0}}, "optim.clip_grad = 0"),
        ({"views": {"local_size": 8}}, "data.views.local_size = 8"),
        ({"batch": 64, "optim": {"objective": "simclr"}}, "data.batch_size = 64 with optim.objective = simclr"),
        (
            {"steps": 500, "optim": {"objective": "simclr", "warmup_steps": 50}},
            "reaches back over much of the 500 steps; use 0.98",
        ),
    ],
)
def test_what_is_known_to_be_fragile_is_told(settings: dict[str, Any], words: str) -> None:
    (warning,) = fragile(config(**settings))
    assert words in warning
    assert "\n" not in warning and ("use" in warning or "start at" in warning or "freeze" in warning)


@pytest.mark.parametrize(("steps", "batch", "out_dim"), [(20, 4, 4096), (60, 4, 64), (200, 32, 1024)])
def test_a_trial_is_told_how_long_a_run_would_have_to_be(steps: int, batch: int, out_dim: int) -> None:
    """Fewer prototypes than there are kinds of sources are no advice; who follows it hears no more."""
    trial = config(batch, steps, {"out_dim": out_dim}, {"warmup_steps": max(1, steps // 10)})
    (warning,) = fragile(trial)
    found = re.search(r"use (\d+) or more, with model\.out_dim = (\d+)$", warning)
    assert found, warning
    wanted, outputs = int(found[1]), int(found[2])
    assert wanted > steps and outputs == min(64, out_dim)
    assert fragile(config(batch, wanted, {"out_dim": outputs}, {"warmup_steps": wanted // 10})) == []


def test_what_does_not_apply_is_not_told() -> None:
    # A short run has no time for a slow teacher; byol has neither temperatures nor outputs; sinkhorn has no centre.
    short = config(64, steps=2000, model={"out_dim": 1024}, optim={"warmup_steps": 200})
    assert fragile(short) == []
    assert fragile(config(optim={"objective": "byol", "teacher_temp": 0.2}, model={"out_dim": 65536})) == []
    assert fragile(config(optim={"objective": "simclr", "base_lr": 2e-3, "teacher_temp": 0.2})) == []
    assert fragile(config(optim={"centring": "sinkhorn", "centre_momentum": 0.999})) == []
    assert fragile(config(views={"local_size": 8, "n_local": 0})) == []
    sound = config(model={"variant": "resnet18"}, optim=SGD, views={"local_size": 8})
    assert fragile(sound) == []
    assert fragile(replace(sound, steps=20_000)) == []
