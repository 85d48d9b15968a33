"""Settings that are known to go wrong, and who says so.

The help of DINO's code is that of ``main_dino.py`` in github.com/facebookresearch/dino; the paper is Caron et al. 2021
(arXiv:2104.14294). What nobody has shown to be fragile is not warned of.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from vis2img.train.run.config import TrainConfig
from vis2img.train.schedules import scaled_lr

_SMALL_BATCH = 128
_STEADY_MOMENTUM = 0.9995
_STEADY_STEPS = 10_000  # five times the 1 / (1 - 0.9995) steps that so slow a teacher remembers
_SAMPLES_PER_OUTPUT = 30
_FEWEST_OUTPUTS = 64  # half of what the demonstration has
_LONGEST_AVERAGE = 0.25  # of the steps; where the learning rate is below a seventh of its peak
_LARGEST_RATE, _LARGEST_BASE_RATE = 5e-3, 1.6e-2


def fragile(config: TrainConfig) -> list[str]:
    """Return warnings of settings known to be fragile: the setting, why, and what to use, one line each."""
    if not config.optim.has_teacher:
        return [*_student_alone(config), *_start(config)]
    of_dino = [*_teacher(config), *_outputs(config)] if config.optim.objective == "dino" else []
    return [*of_dino, *_averages(config), *_rates(config), *_start(config), *_network(config)]


def _student_alone(config: TrainConfig) -> Iterator[str]:
    """Judge what objectives without a teacher live on: negatives, and the average that is embedded with."""
    optim, batch = config.optim, config.data.batch_size
    if optim.objective == "simclr" and batch < _SMALL_BATCH:
        yield (
            f"data.batch_size = {batch} with optim.objective = simclr: its negatives are the other samples of the "
            "batch, and more of them teach more (Chen et al. 2020, arXiv:2002.05709, figure 9); use 256"
        )
    if optim.momentum_teacher > _momentum(_LONGEST_AVERAGE * config.steps):
        yield (
            f"optim.momentum_teacher = {optim.momentum_teacher:g}: the average of the student, which is embedded with, "
            f"reaches back over much of the {config.steps} steps; use {_momentum(config.steps / 10):.3g}"
        )


def _momentum(steps: float) -> float:
    """Momentum of a moving average that remembers so many steps."""
    return 1.0 - 1.0 / max(steps, 2.0)


def _teacher(config: TrainConfig) -> Iterator[str]:
    """Judge temperatures and centre, which keep the teacher of DINO from collapsing."""
    optim = config.optim
    first = optim.warmup_teacher_temp if optim.warmup_teacher_temp_steps else optim.teacher_temp
    if optim.teacher_temp > 0.07:
        yield (
            f"optim.teacher_temp = {optim.teacher_temp:g}: above 0.07 most runs are unstable (help of DINO's "
            "code); use 0.04, "
            "or up to 0.07 after a warm-up"
        )
    if first > 0.06:
        yield (
            f"the teacher starts at temperature {first:g}: above 0.06 the network learns nothing, its loss "
            "stays at ln(out_dim) (DINO paper, appendix "
            "D); start at optim.warmup_teacher_temp = 0.04 with warmup_teacher_temp_steps of 30% of the steps"
        )
    if max(first, optim.teacher_temp) >= optim.student_temp:
        yield (
            f"optim.student_temp = {optim.student_temp:g} is not above the teacher's: only a sharper teacher "
            "keeps all outputs from becoming alike, which teaches nothing (DINO paper, section 5.3); use 0.1"
        )
    if optim.centring == "mean" and optim.centre_momentum > 0.99:
        yield (
            f"optim.centre_momentum = {optim.centre_momentum:g}: a centre that follows slowly (0.999) let "
            "all outputs become alike "
            "(DINO paper, appendix D); use 0.9"
        )


def _outputs(config: TrainConfig) -> Iterator[str]:
    model, optim = config.model, config.optim
    samples = config.steps * config.data.batch_size / model.out_dim
    if samples < _SAMPLES_PER_OUTPUT:
        yield (
            f"model.out_dim = {model.out_dim} outputs, and a run with {samples:.0f} samples for each: too few, all "
            "outputs stay alike and nothing is learnt (docs/results.md; large values are for large data "
            f"sets); {_fewer_outputs(config)}"
        )
    if not model.norm_last_layer and model.variant == "base":
        yield (
            "model.norm_last_layer = False with variant base can make training unstable (help of DINO's "
            "code: false for small, true "
            "for base); use True"
        )
    elif not model.norm_last_layer and optim.freeze_last_layer_steps == 0:
        yield (
            "model.norm_last_layer = False with optim.freeze_last_layer_steps = 0: each of them can make "
            "the start unstable "
            "(help of DINO's code); freeze the last layer for 1% of the steps"
        )


def _fewer_outputs(config: TrainConfig) -> str:
    """Return what to do about too many outputs; below some number they say nothing, and only more steps help."""
    batch, samples = config.data.batch_size, 4 * _SAMPLES_PER_OUTPUT
    fewer = config.steps * batch // samples
    if fewer >= _FEWEST_OUTPUTS:
        return f"use {fewer} or fewer"
    outputs = min(_FEWEST_OUTPUTS, config.model.out_dim)
    steps = math.ceil(outputs * samples / batch)
    return f"{config.steps} steps are too few to learn from: use {steps} or more, with model.out_dim = {outputs}"


def _averages(config: TrainConfig) -> Iterator[str]:
    optim, batch = config.optim, config.data.batch_size
    if optim.momentum_teacher < 0.9:
        yield (
            f"optim.momentum_teacher = {optim.momentum_teacher:g}: a teacher that is nearly the student collapses "
            "(DINO paper, section 5.2; Grill et al. 2020, arXiv:2006.07733, table 5); use 0.99 to 0.9995"
        )
    elif optim.momentum_teacher == 1.0:
        yield (
            "optim.momentum_teacher = 1: a teacher that never moves teaches little (Grill et al. 2020, "
            "arXiv:2006.07733, table 5); use 0.99 to 0.9995"
        )
    elif batch < _SMALL_BATCH and optim.momentum_teacher < _STEADY_MOMENTUM and config.steps >= _STEADY_STEPS:
        yield (
            f"optim.momentum_teacher = {optim.momentum_teacher:g} with data.batch_size = {batch}: small batches want a "
            f"slower teacher (help of DINO's code); use {_STEADY_MOMENTUM}"
        )


def _rates(config: TrainConfig) -> Iterator[str]:
    optim = config.optim
    rate = scaled_lr(optim.base_lr, config.data.batch_size)
    if optim.optimizer == "adamw" and rate > _LARGEST_RATE:
        yield (
            f"optim.base_lr = {optim.base_lr:g} is a peak of {rate:.2g} at data.batch_size = {config.data.batch_size}: "
            "the paper's is 0.002 (section 3.2); use a base_lr of 5e-4"
        )
    elif optim.optimizer == "adamw" and optim.base_lr >= _LARGEST_BASE_RATE:
        yield (
            f"optim.base_lr = {optim.base_lr:g}: 0.016 left two outputs in use where 0.008 worked "
            "(docs/results.md); use 8e-3 "
            "at most"
        )


def _start(config: TrainConfig) -> Iterator[str]:
    optim = config.optim
    if optim.warmup_steps < 0.01 * config.steps:
        yield (
            f"optim.warmup_steps = {optim.warmup_steps} is below 1% of the {config.steps} steps: transformers want a "
            f"slow start (DINO paper, section 3.2: 10%); use {config.steps // 10}"
        )


def _network(config: TrainConfig) -> Iterator[str]:
    model, optim, views = config.model, config.optim, config.data.views
    if model.is_resnet and optim.optimizer == "adamw":
        yield (
            f"optim.optimizer = adamw with model.variant = {model.variant}: unlike in the published command "
            "for ResNet-50; use sgd, and weight_decay = weight_decay_end = 1e-4"
        )
    elif not model.is_resnet and optim.optimizer != "adamw":
        yield (
            f"optim.optimizer = {optim.optimizer} with a transformer: adamw is recommended (help of DINO's code); "
            "use adamw"
        )
    if model.variant == "base" and optim.clip_grad == 0.0:
        yield (
            "optim.clip_grad = 0 with model.variant = base: larger transformers want clipping (help of DINO's "
            "code); use 0.3 to 1"
        )
    if not model.is_resnet and views.n_local and views.local_size < 2 * model.patch:
        yield (
            f"data.views.local_size = {views.local_size} is one patch of {model.patch} pixels, which leaves "
            f"attention nothing to mix (the paper's local views are 6 x 6 patches); use {3 * model.patch} or more"
        )
