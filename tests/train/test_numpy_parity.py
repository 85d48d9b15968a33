"""Objective, teacher, clipping and schedules against float64 NumPy, over values rather than examples.

The oracles are written from the paper (Caron et al. 2021, arXiv:2104.14294); the schedules are also built the way the
published code stores them, as an array with one value per step.
"""

from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vis2img.train import schedules
from vis2img.train.config import OptimConfig
from vis2img.train.objectives.dino import dino_loss, ema_update
from vis2img.train.optim import clip_per_tensor
from vis2img.train.step import schedule_values

# A new shape is a new compilation: few shapes, many values.
SHAPES = ((2, 2, 3, 8), (6, 2, 4, 33), (3, 1, 2, 8))  # V, n_global, B, K
many = settings(max_examples=25, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
# From logits that hardly differ to softmaxes with a single winner.
spreads = st.floats(1e-3, 30.0)
temperatures = st.floats(0.02, 1.0)


def np_log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def np_objective(student, teacher, centre, student_temp, teacher_temp):
    """Loss, entropy and KL [nat], a pair of views at a time."""
    log_target = np_log_softmax((teacher - centre) / teacher_temp)
    log_student = np_log_softmax(student / student_temp)
    target = np.exp(log_target)
    pairs = [(q, v) for q in range(len(teacher)) for v in range(len(student)) if v != q]
    loss = np.mean([-(target[q] * log_student[v]).sum(-1).mean() for q, v in pairs])
    kl = np.mean([(target[q] * (log_target[q] - log_student[v])).sum(-1).mean() for q, v in pairs])
    return loss, -(target * log_target).sum(-1).mean(), kl


@partial(jax.jit, static_argnames="n_global")
def objective(student, teacher, centre, student_temp, teacher_temp, n_global):
    temps = {"student_temp": student_temp, "teacher_temp": teacher_temp}
    return dino_loss(student, teacher, centre, **temps, n_global=n_global, centre_momentum=0.9)


def logits(shape, seed, spread):
    n_views, n_global, batch, out_dim = shape
    rng = np.random.default_rng(seed)
    student = rng.normal(0.0, spread, (n_views, batch, out_dim)).astype(np.float32)
    teacher = rng.normal(0.0, spread, (n_global, batch, out_dim)).astype(np.float32)
    return student, teacher, rng.normal(0.0, 0.1, out_dim).astype(np.float32)


@many
@given(st.sampled_from(SHAPES), seeds, spreads, temperatures, temperatures)
def test_objective(shape, seed, spread, student_temp, teacher_temp):
    arrays = logits(shape, seed, spread)
    loss, _, stats = objective(*arrays, student_temp, teacher_temp, n_global=shape[1])
    expected = np_objective(*(x.astype(np.float64) for x in arrays), student_temp, teacher_temp)
    # float32 rounds a logit before the temperature divides it, so that errors grow with the largest quotient.
    tolerance = 1e-6 * (10.0 + 4.0 * spread / min(student_temp, teacher_temp))
    got = (loss, stats["entropy"], stats["kl"])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=tolerance)
    assert -tolerance <= float(stats["entropy"]) <= np.log(shape[3]) + tolerance
    assert float(stats["kl"]) >= -tolerance


@many
@given(st.sampled_from(SHAPES), seeds, st.floats(-5.0, 5.0))
def test_what_the_objective_does_not_see(shape, seed, shift):
    """A shift of all of a view's logits, the order of the outputs, and the order of the samples."""
    student, teacher, centre = logits(shape, seed, 0.3)
    run = partial(objective, student_temp=0.1, teacher_temp=0.05, n_global=shape[1])
    loss, new_centre, _ = run(student, teacher, centre)
    shifted, _, _ = run(student + np.float32(shift), teacher, centre + np.float32(shift))
    assert float(shifted) == pytest.approx(float(loss), rel=1e-4)
    rng = np.random.default_rng(seed)
    samples, outputs = rng.permutation(shape[2]), rng.permutation(shape[3])
    mixed, mixed_centre, _ = run(student[:, samples][..., outputs], teacher[:, samples][..., outputs], centre[outputs])
    assert float(mixed) == pytest.approx(float(loss), rel=1e-5)
    np.testing.assert_allclose(mixed_centre, np.asarray(new_centre)[outputs], atol=1e-6)


def test_centring_takes_back_what_all_teacher_views_share():
    """A centre that has caught up with a bias of one output leaves the targets as if there were no bias."""
    student, teacher, _ = logits(SHAPES[1], 0, 0.3)
    bias = np.zeros(SHAPES[1][3], np.float32)
    bias[3] = 2.0
    run = partial(objective, student_temp=0.1, teacher_temp=0.05, n_global=2)
    centre, history = np.zeros_like(bias), []
    for _ in range(120):
        _, centre, _ = run(student, teacher + bias, centre)
        history.append(np.asarray(centre))
    # m = 0.9 from 0: 1 - 0.9^t of the mean after t batches.
    mean = (teacher.astype(np.float64) + bias).mean((0, 1))
    for t in (1, 10, 60):
        np.testing.assert_allclose(history[t - 1], (1.0 - 0.9**t) * mean, atol=1e-5)
    biased, _, _ = run(student, teacher + bias, centre)
    plain, _, _ = run(student, teacher, teacher.mean((0, 1)))
    assert float(biased) == pytest.approx(float(plain), rel=1e-4)


@many
@given(seeds, st.sampled_from([2, 4]))
def test_equal_shares_average_to_the_batch(seed, shares):
    """What devices and parts of a batch rely on: means of loss and centre over shares are those of the whole."""
    student, teacher, centre = logits((4, 2, 8, 16), seed, 0.3)
    run = partial(objective, student_temp=0.1, teacher_temp=0.05, n_global=2)
    loss, new_centre, stats = run(student, teacher, centre)
    split = zip(*(np.split(x, shares, axis=1) for x in (student, teacher)), strict=True)
    losses, centres, found = zip(*(run(s, t, centre) for s, t in split), strict=True)
    assert np.mean(losses) == pytest.approx(float(loss), rel=1e-5)
    np.testing.assert_allclose(np.mean(centres, axis=0), new_centre, atol=1e-6)
    for name in ("entropy", "kl"):
        assert np.mean([f[name] for f in found]) == pytest.approx(float(stats[name]), rel=1e-4)


def test_teacher_over_a_run_is_the_weighted_sum_of_its_students():
    """Written out, the moving average weighs student t by (1 - m_t) times the momenta after it."""
    rng, total = np.random.default_rng(0), 200
    students = rng.normal(size=(total, 5)).astype(np.float32)
    step = jax.jit(lambda t, s, i: ema_update(t, s, schedules.teacher_momentum(i, start=0.95, total_steps=total)))
    teacher = first = rng.normal(size=5).astype(np.float32)
    for i, student in enumerate(students):
        teacher = step(teacher, student, i)
    momenta = 1.0 + 0.5 * (0.95 - 1.0) * (1.0 + np.cos(np.pi * np.arange(total) / total))
    after = np.append(np.cumprod(momenta[::-1])[::-1], 1.0)  # after[i]: product of momenta i, i + 1, ...
    expected = after[0] * first + ((1.0 - momenta) * after[1:]) @ students.astype(np.float64)
    np.testing.assert_allclose(teacher, expected, rtol=1e-4, atol=1e-5)


@many
@given(seeds, st.floats(-8.0, 12.0), st.floats(0.01, 100.0))
def test_clipping_scales_and_never_turns(seed, magnitude, max_norm):
    grad = (np.random.default_rng(seed).normal(size=(4, 5)) * 10.0**magnitude).astype(np.float32)
    transform = clip_per_tensor(max_norm)
    got = np.asarray(jax.tree.leaves(transform.update({"p": grad}, transform.init({"p": grad}))[0])[0], np.float64)
    norm = np.sqrt((grad.astype(np.float64) ** 2).sum())
    np.testing.assert_allclose(got, grad * min(1.0, max_norm / (norm + 1e-6)), rtol=1e-5)
    assert np.sqrt((got**2).sum()) <= max_norm * (1.0 + 1e-5)


# --- schedules -----------------------------------------------------------------------------------------------------


def published(base, final, total_steps, warmup_steps=0):
    """One value per step: ``np.linspace`` up to ``base``, then a cosine from ``base`` towards ``final``."""
    steps = np.arange(total_steps - warmup_steps)
    cosine = final + 0.5 * (base - final) * (1.0 + np.cos(np.pi * steps / len(steps)))
    return np.concatenate([np.linspace(0.0, base, warmup_steps), cosine])


def over(schedule, total_steps):
    return np.asarray(jax.vmap(schedule)(np.arange(total_steps)), np.float64)


@pytest.mark.parametrize("total_steps", [7, 1000])
def test_cosines_are_the_published_arrays(total_steps):
    """Weight decay and momentum agree step by step; the final value is that of the step after the last."""
    for schedule, base, final in ((schedules.weight_decay, 0.04, 0.4), (schedules.teacher_momentum, 0.996, 1.0)):
        got = over(partial(schedule, total_steps=total_steps), total_steps)
        np.testing.assert_allclose(got, published(base, final, total_steps), rtol=1e-6)


@pytest.mark.parametrize(("total_steps", "warmup_steps"), [(20, 2), (1000, 100), (1000, 0)])
def test_learning_rate_is_the_published_array(total_steps, warmup_steps):
    rate = partial(
        schedules.cosine_with_warmup, peak=2e-3, final=1e-6, total_steps=total_steps, warmup_steps=warmup_steps
    )
    theirs = published(2e-3, 1e-6, total_steps, warmup_steps)
    np.testing.assert_allclose(over(rate, total_steps), theirs, rtol=1e-5, atol=1e-10)


def test_teacher_temperature_follows_the_published_one_between_epochs():
    """Theirs stands still over an epoch and then jumps; ours rises in between, and is never further than a jump."""
    per_epoch, warmup_epochs, epochs = 50, 30, 40
    steps = per_epoch * epochs
    ours = over(partial(schedules.teacher_temperature, warmup_steps=warmup_epochs * per_epoch), steps)
    theirs = np.append(np.linspace(0.04, 0.07, warmup_epochs), np.full(epochs - warmup_epochs, 0.07))
    jump = 0.03 / (warmup_epochs - 1)
    assert np.abs(ours - np.repeat(theirs, per_epoch)).max() <= jump * (1.0 + 1e-4)
    np.testing.assert_allclose(ours[warmup_epochs * per_epoch :], 0.07, rtol=1e-6)


@many
@given(st.integers(2, 5000), st.floats(0.0, 0.99), st.integers(1, 4096))
def test_schedules_stay_in_their_range_and_turn_once(total_steps, share, batch):
    warmup = int(share * total_steps)
    optim = OptimConfig(warmup_steps=warmup, warmup_teacher_temp_steps=warmup, teacher_temp=0.07)
    steps = np.unique(np.linspace(0, total_steps, 101).astype(int)).astype(np.float32)
    values = jax.vmap(lambda i: schedule_values(i, optim, batch=batch, total_steps=total_steps))(steps)
    lr, decay, momentum, temperature = (
        np.asarray(values[k], np.float64) for k in ("lr", "wd", "momentum", "teacher_temp")
    )
    peak = 5e-4 * batch / 256
    slack = 1e-6 * max(peak, 1e-6)
    rising = steps < warmup
    assert (np.diff(lr[rising]) >= 0.0).all()
    if peak >= 1e-6:
        assert (np.diff(lr[~rising]) <= slack).all()
    assert (lr >= 0.0).all()
    assert (lr <= max(peak, 1e-6) + slack).all()
    for rises, first, last in ((decay, 0.04, 0.4), (momentum, 0.996, 1.0), (temperature, 0.04, 0.07)):
        assert (np.diff(rises) >= -1e-7).all()
        assert rises[0] == pytest.approx(first if warmup or rises is not temperature else last, rel=1e-6)
        assert rises[-1] == pytest.approx(last, rel=1e-6)
        assert (rises <= last * (1.0 + 1e-6)).all()
