"""Schedules against the formulas of the paper, at Python steps and at traced ones."""

import math
from functools import partial

import jax
import numpy as np
import pytest

from vis2img.train import schedules


def test_learning_rate_warms_up_and_decays():
    rate = partial(schedules.cosine_with_warmup, peak=2.0, final=0.5, total_steps=110, warmup_steps=10)
    steps = np.arange(130)
    expected = []
    for i in steps:
        if i < 10:
            expected.append(2.0 * i / 9)
        elif i < 110:
            expected.append(0.5 + 1.5 * 0.5 * (1 + math.cos(math.pi * (i - 10) / 100)))
        else:
            expected.append(0.5)
    np.testing.assert_allclose([rate(int(i)) for i in steps], expected, atol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.vmap(rate))(steps), expected, atol=1e-6)


def test_no_warmup_starts_at_the_peak():
    assert schedules.cosine_with_warmup(0, peak=2.0, final=0.0, total_steps=5, warmup_steps=0) == 2.0


def test_learning_rate_scales_with_the_batch():
    assert schedules.scaled_lr(5e-4, 1024) == pytest.approx(2e-3)


@pytest.mark.parametrize(("total", "warmup"), [(10, 10), (10, 11), (0, 0), (10, -1)])
def test_warmup_must_fit(total, warmup):
    with pytest.raises(ValueError, match="warmup_steps"):
        schedules.cosine_with_warmup(0, peak=1.0, final=0.0, total_steps=total, warmup_steps=warmup)


@pytest.mark.parametrize(
    ("schedule", "start", "middle", "end"),
    [(schedules.weight_decay, 0.04, 0.22, 0.4), (schedules.teacher_momentum, 0.996, 0.998, 1.0)],
)
def test_cosines_hit_start_middle_and_end(schedule, start, middle, end):
    got = [float(jax.jit(partial(schedule, total_steps=100))(i)) for i in (0, 50, 100, 200)]
    assert got == pytest.approx([start, middle, end, end], abs=1e-6)


def test_quarter_of_a_cosine_is_not_linear():
    got = schedules.weight_decay(25, start=0.0, final=1.0, total_steps=100)
    assert float(got) == pytest.approx(0.5 - math.sqrt(0.5) / 2, abs=1e-6)


def test_teacher_temperature_rises_linearly():
    temperature = jax.jit(partial(schedules.teacher_temperature, warmup_steps=30))
    got = [float(temperature(i)) for i in (0, 10, 30, 1000)]
    assert got == pytest.approx([0.04, 0.05, 0.07, 0.07])
    assert float(schedules.teacher_temperature(0, warmup_steps=0)) == pytest.approx(0.07)
