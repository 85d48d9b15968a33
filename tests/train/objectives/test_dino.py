"""The loss against the paper's algorithm 1, with explicit loops over pairs."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vis2img.train.objectives.dino import dino_loss, ema_update, feature_std
from vis2img.train.objectives.forward import forward_views

SETTINGS = {"student_temp": 0.1, "teacher_temp": 0.05, "n_global": 2, "centre_momentum": 0.9}


def np_softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def np_loss(student, teacher, centre, student_temp, teacher_temp):
    """H(teacher view, student view) averaged over samples and over pairs of different views."""
    pairs = []
    for q in range(len(teacher)):
        for v in range(len(student)):
            if v == q:
                continue
            for b in range(student.shape[1]):
                target = np_softmax((teacher[q, b] - centre) / teacher_temp)
                pairs.append(-(target * np.log(np_softmax(student[v, b] / student_temp))).sum())
    return np.mean(pairs)


def logits(n_views, batch=3, out_dim=6, seed=0):
    rng = np.random.default_rng(seed)
    student = rng.uniform(-1, 1, (n_views, batch, out_dim)).astype(np.float32)
    teacher = rng.uniform(-1, 1, (2, batch, out_dim)).astype(np.float32)
    return student, teacher, rng.uniform(-0.2, 0.2, out_dim).astype(np.float32)


@pytest.mark.parametrize("n_views", [2, 5])
def test_loss_is_the_sum_over_pairs(n_views):
    student, teacher, centre = logits(n_views)
    loss, _, _ = dino_loss(student, teacher, centre, **SETTINGS)
    expected = np_loss(*(x.astype(np.float64) for x in (student, teacher, centre)), 0.1, 0.05)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_one_global_view_is_a_target_for_the_local_ones():
    student, teacher, centre = logits(3)
    loss, _, _ = dino_loss(student, teacher[:1], centre, **{**SETTINGS, "n_global": 1})
    np.testing.assert_allclose(loss, np_loss(student, teacher[:1], centre, 0.1, 0.05), rtol=1e-5)


def test_centre_is_a_moving_average_of_raw_teacher_logits():
    student, teacher, centre = logits(4)
    _, new_centre, _ = dino_loss(student, teacher, centre, **SETTINGS)
    mean = np.array([teacher[:, :, k].mean() for k in range(6)])
    np.testing.assert_allclose(new_centre, 0.9 * centre + 0.1 * mean, rtol=1e-5)


def test_stats():
    student, teacher, centre = logits(4)
    loss, _, stats = dino_loss(student, teacher, centre, **SETTINGS)
    p = np.array([[np_softmax((t - centre) / 0.05) for t in view] for view in teacher.astype(np.float64)])
    entropy = np.mean(-(p * np.log(p)).sum(-1))
    kl = []
    for q in range(2):
        for v in range(4):
            if v != q:
                s = np.array([np_softmax(x / 0.1) for x in student[v].astype(np.float64)])
                kl.append((p[q] * np.log(p[q] / s)).sum(-1).mean())
    assert float(stats["entropy"]) == pytest.approx(entropy, rel=1e-4)
    assert float(stats["kl"]) == pytest.approx(np.mean(kl), rel=1e-4)
    assert set(np.flatnonzero(stats["winners"])) == set(p.argmax(-1).ravel())
    assert float(loss) == pytest.approx(float(stats["entropy"] + stats["kl"]), rel=1e-5)


def test_used_outputs_tell_one_dimension_collapse_and_entropy_stays_finite():
    student, teacher, centre = logits(2)
    teacher = np.zeros_like(teacher)
    teacher[..., 3] = 1e4
    _, _, stats = dino_loss(student, teacher, centre, **SETTINGS)
    assert list(stats["winners"]) == [0, 0, 0, 1, 0, 0]
    assert float(stats["entropy"]) == 0.0


def test_no_gradient_reaches_teacher_and_the_student_gradient_is_that_of_the_loops():
    student, teacher, centre = logits(3)
    grads = jax.grad(lambda s, t: dino_loss(s, t, centre, **SETTINGS)[0], argnums=(0, 1))(student, teacher)
    assert not np.any(grads[1])
    # d/ds of cross-entropy: (softmax(s / T) - target) / T, over the pairs that the view is in.
    expected = np.zeros(student.shape)
    for v in range(3):
        for q in range(2):
            if v != q:
                for b in range(3):
                    target = np_softmax((teacher[q, b] - centre) / 0.05)
                    expected[v, b] += (np_softmax(student[v, b] / 0.1) - target) / 0.1 / (4 * 3)
    np.testing.assert_allclose(grads[0], expected, atol=1e-5)


@pytest.mark.parametrize(("n_views", "n_global", "words"), [(1, 1, "two views"), (3, 1, "match"), (1, 2, "match")])
def test_impossible_views_are_refused(n_views, n_global, words):
    student, teacher, centre = logits(n_views)
    teacher = teacher[:1] if n_views == 1 and n_global == 1 else teacher
    with pytest.raises(ValueError, match=words):
        dino_loss(student, teacher, centre, **{**SETTINGS, "n_global": n_global})


def test_ema():
    teacher, student = {"a": jnp.array([1.0, 2.0])}, {"a": jnp.array([3.0, -2.0])}
    np.testing.assert_allclose(ema_update(teacher, student, 0.75)["a"], [1.5, 1.0])


def test_feature_std_is_one_on_the_sphere_and_zero_after_a_collapse():
    spread = np.random.default_rng(0).normal(size=(2, 500, 8)).astype(np.float32)
    assert float(feature_std(spread)) == pytest.approx(1.0, abs=0.01)
    scaled = np.ones((4, 8), np.float32) * np.array([[1.0], [2.0], [3.0], [4.0]], np.float32)
    assert float(feature_std(scaled)) < 1e-6


def run_views(model, **kwargs):
    return partial(forward_views, model, train=False, **kwargs)


def test_views_of_one_resolution_share_a_pass_and_keep_their_order(model, initial, make_batch, quick_jit):
    batch = make_batch(0)
    got = quick_jit(run_views(model, student=True))(initial.params, batch)
    assert got.logits.shape == (4, 4, 16)
    assert got.embeddings.shape == (4, 4, 24)
    singles = [batch["global"][0], batch["global"][1], batch["local"][0], batch["local"][1]]
    run = quick_jit(lambda crops: model.apply({"params": initial.params}, [crops])[0])
    for view, crops in enumerate(singles):
        expected = run(crops)
        np.testing.assert_allclose(got.logits[view], expected, atol=1e-5)


@pytest.mark.parametrize("with_empty", [True, False])
def test_no_local_views(model, initial, make_batch, quick_jit, with_empty):
    batch = make_batch(0, n_local=0)
    if not with_empty:
        del batch["local"]
    got = quick_jit(run_views(model, student=True))(initial.params, batch)
    expected = quick_jit(run_views(model, student=False))(initial.params, make_batch(0))
    assert got.logits.shape == (2, 4, 16)
    np.testing.assert_allclose(got.logits, expected.logits, atol=1e-6)
