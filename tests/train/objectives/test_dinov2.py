"""Sinkhorn, KoLeo and iBOT against loops in float64, and on two devices against the whole batch on one."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vis2img.train.objectives.dinov2 import draw_masks, ibot_loss, koleo, sinkhorn


def np_softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def np_sinkhorn(logits, temperature, rounds=3):
    """Caron et al. 2020, listing 1, and DINOv2: prototypes to 1/K each, then samples to 1/N each."""
    q = np.exp((logits - logits.max()) / temperature).T  # (K, N)
    n_prototypes, n_samples = q.shape
    q = q / q.sum()
    for _ in range(rounds):
        for k in range(n_prototypes):
            q[k] = q[k] / q[k].sum() / n_prototypes
        for n in range(n_samples):
            q[:, n] = q[:, n] / q[:, n].sum() / n_samples
    return (q * n_samples).T


def cosines(n, k, seed=0):
    return np.random.default_rng(seed).uniform(-1.0, 1.0, (n, k))


@pytest.mark.parametrize("temperature", [0.04, 0.07, 1.0])
def test_sinkhorn_follows_the_published_loop(temperature):
    logits = cosines(24, 6)
    answers = np.exp(sinkhorn(jnp.asarray(logits, jnp.float32), temperature, axis_name=None))
    np.testing.assert_allclose(answers, np_sinkhorn(logits, temperature), atol=2e-4)
    np.testing.assert_allclose(answers.sum(1), 1.0, atol=1e-5)


def test_sinkhorn_uses_prototypes_alike_where_a_softmax_does_not():
    logits = cosines(64, 8)
    logits[:, 0] += 0.5  # a prototype that would win most samples
    shares = np.exp(sinkhorn(jnp.asarray(logits, jnp.float32), 0.1, axis_name=None)).sum(0) / 8
    plain = np.array(jax.nn.softmax(logits / 0.1)).sum(0) / 8
    assert plain[0] > 2.5
    np.testing.assert_allclose(shares, 1.0, atol=0.3)


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6])
def test_sinkhorn_does_not_overflow(scale):
    logits = jnp.asarray(scale * np.sign(cosines(16, 4)), jnp.float32)
    log_answers = sinkhorn(logits, 0.04, axis_name=None)
    assert np.isfinite(log_answers).all()
    np.testing.assert_allclose(np.exp(log_answers).sum(1), 1.0, atol=1e-5)


def test_sinkhorn_over_devices_is_that_of_the_whole_batch():
    logits = jnp.asarray(cosines(16, 5), jnp.float32)
    whole = sinkhorn(logits, 0.1, axis_name=None)
    halves = jax.vmap(partial(sinkhorn, temperature=0.1, axis_name="device"), axis_name="device")
    np.testing.assert_allclose(halves(logits.reshape(2, 8, 5)).reshape(16, 5), whole, atol=1e-5)
    apart = jnp.concatenate([sinkhorn(half, 0.1, axis_name=None) for half in (logits[:8], logits[8:])])
    assert np.abs(apart - whole).max() > 0.1, "the halves are too alike to show a difference"


def test_sinkhorn_has_no_gradient():
    gradient = jax.grad(lambda x: sinkhorn(x, 0.1, axis_name=None)[0, 0])(jnp.asarray(cosines(8, 3), jnp.float32))
    assert not np.any(gradient)


def np_koleo(embeddings):
    unit = [x / np.sqrt((x**2).sum()) for x in embeddings]
    total = 0.0
    for i, x in enumerate(unit):
        nearest = min(np.sqrt(((x - y) ** 2).sum()) for j, y in enumerate(unit) if j != i)
        total += -np.log(nearest + 1e-8)
    return total / len(unit)


def np_gradient(function, x, step=1e-6):
    """Central differences, number by number."""
    gradient = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[at], down[at] = x[at] + step, x[at] - step
        gradient[at] = (function(up) - function(down)) / (2 * step)
    return gradient


def test_koleo_and_its_gradient_follow_the_loop():
    embeddings = np.random.default_rng(1).normal(size=(7, 3)) * 5.0
    value, gradient = jax.jit(jax.value_and_grad(koleo))(jnp.asarray(embeddings, jnp.float32))
    np.testing.assert_allclose(value, np_koleo(embeddings), rtol=1e-5)
    # Both ends of each pair are moved, the sample and its neighbour.
    np.testing.assert_allclose(gradient, np_gradient(np_koleo, embeddings), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("embeddings", [np.ones((4, 3)), np.zeros((4, 3)), np.eye(4, 3)[[0, 0, 1, 2]]])
def test_koleo_of_duplicates_has_a_finite_gradient(embeddings):
    value, gradient = jax.jit(jax.value_and_grad(koleo))(jnp.asarray(embeddings, jnp.float32))
    assert np.isfinite(value) and np.isfinite(gradient).all()


def test_koleo_over_devices_is_that_of_the_whole_batch():
    rng = np.random.default_rng(2)
    x, weights = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((8, 5), (5, 3)))
    x = x.at[4].set(x[0] + 0.01)  # nearest neighbours on different devices

    def term(weights, x, axis_name):
        return koleo(x @ weights, axis_name=axis_name)

    whole, of_whole = jax.value_and_grad(term)(weights, x, None)
    halves = jax.vmap(
        lambda weights, x: jax.value_and_grad(term)(weights, x, "device"), in_axes=(None, 0), axis_name="device"
    )
    values, of_halves = jax.jit(halves)(weights, x.reshape(2, 4, 5))
    np.testing.assert_allclose(np.mean(values), whole, rtol=1e-5)
    np.testing.assert_allclose(np.mean(of_halves, axis=0), of_whole, rtol=1e-4, atol=1e-5)
    alone = np.mean([koleo(half @ weights) for half in (x[:4], x[4:])])
    assert abs(alone - float(whole)) > 0.1, "the neighbours are on the same device"


@pytest.mark.parametrize("n_patches", [1, 2, 9, 16])
def test_masks_and_candidates_agree(n_patches):
    keys = jax.random.split(jax.random.key(0), 300)
    masks = jax.jit(jax.vmap(partial(draw_masks, n_patches=n_patches)))(keys)
    hidden, chosen, weight = (np.asarray(x) for x in masks)
    assert hidden.shape == (300, n_patches) and chosen.shape == weight.shape
    for view in range(300):
        picked = [int(p) for p in chosen[view]]
        assert len(set(picked)) == len(picked) and all(0 <= p < n_patches for p in picked)
        missed = [p for p in range(n_patches) if hidden[view, p] and p not in picked]
        assert missed == []
        count = sum(hidden[view])
        for p, w in zip(picked, weight[view], strict=True):
            assert w == pytest.approx(1.0 / count if hidden[view, p] else 0.0)
        assert weight[view].sum() == pytest.approx(1.0 if count else 0.0, abs=1e-6)


def test_half_of_the_views_hide_a_share_in_range():
    masks = jax.jit(jax.vmap(partial(draw_masks, n_patches=64)))(jax.random.split(jax.random.key(1), 4000))
    hidden = np.asarray(masks.mask)
    shares = hidden.mean(1)
    masked = shares[shares > 0.0]
    assert abs(len(masked) / 4000 - 0.5) < 0.03  # 4 sigma
    assert masked.min() >= 0.1 - 0.5 / 64 and masked.max() <= 0.5
    # Uniform between 0.1 and 0.5, and everywhere in the picture.
    np.testing.assert_allclose([masked.mean(), masked.std()], [0.3, 0.4 / np.sqrt(12)], atol=0.01)
    np.testing.assert_allclose(hidden.mean(0), 0.15, atol=0.03)


def test_masks_take_other_settings():
    masks = jax.jit(jax.vmap(partial(draw_masks, n_patches=10, probability=1.0, ratio=(0.6, 0.8))))(
        jax.random.split(jax.random.key(2), 200)
    )
    counts = np.asarray(masks.mask).sum(1)
    assert set(counts) == {6, 7, 8} and masks.candidates.shape == (200, 8)


def patch_logits(n=3, m=4, k=5, seed=3):
    rng = np.random.default_rng(seed)
    student, teacher = (rng.uniform(-1.0, 1.0, (n, m, k)).astype(np.float32) for _ in range(2))
    weight = np.zeros((n, m), np.float32)
    weight[0, :2], weight[2, :3] = 1 / 2, 1 / 3  # view 1 hides nothing
    return student, teacher, rng.uniform(-0.2, 0.2, k).astype(np.float32), weight


def run_ibot(student, teacher, centre, weight):
    return ibot_loss(student, teacher, centre, weight, student_temp=0.1, teacher_temp=0.05, centre_momentum=0.9)


def test_ibot_loss_follows_the_loop():
    student, teacher, centre, weight = patch_logits()
    loss, new_centre = run_ibot(student, teacher, centre, weight)
    student, teacher, centre = (x.astype(np.float64) for x in (student, teacher, centre))
    total = 0.0
    for n, n_hidden in ((0, 2), (2, 3)):
        of_view = 0.0
        for m in range(n_hidden):
            target = np_softmax((teacher[n, m] - centre) / 0.05)
            of_view += -(target * np.log(np_softmax(student[n, m] / 0.1))).sum()
        total += of_view / n_hidden
    np.testing.assert_allclose(loss, total / 3, rtol=1e-5)
    mean = np.array([np.mean([teacher[n, m, k] for n in range(3) for m in range(4)]) for k in range(5)])
    np.testing.assert_allclose(new_centre, 0.9 * centre + 0.1 * mean, rtol=1e-5, atol=1e-7)


def hidden_rows(n, m, k, seed=4):
    """As `patch_logits`, with views that hide from none to all of their candidates."""
    rng = np.random.default_rng(seed)
    student, teacher = (rng.uniform(-1.0, 1.0, (n, m, k)).astype(np.float32) for _ in range(2))
    weight = np.zeros((n, m), np.float32)
    for view in range(n):
        count = view % (m + 1)
        weight[view, :count] = 1.0 / max(count, 1)
    return student, teacher, weight


def run_sinkhorn(student, teacher, weight, axis_name=None):
    """Whatever the centre is."""
    temps = {"student_temp": 0.1, "teacher_temp": 0.1, "centre_momentum": 0.9}
    centre = jnp.arange(student.shape[-1], dtype=jnp.float32)
    return ibot_loss(student, teacher, centre, weight, **temps, centring="sinkhorn", axis_name=axis_name)[0]


def np_ibot_sinkhorn(student, teacher, weight):
    """Of the hidden patches alone, each of which counts alike (DINOv2), however many its view hides."""
    at = np.argwhere(weight > 0.0)
    answers = np_sinkhorn(np.array([teacher[n, m] for n, m in at], np.float64), 0.1)
    total = 0.0
    for (n, m), target in zip(at, answers, strict=True):
        total -= weight[n, m] * (target * np.log(np_softmax(student[n, m].astype(np.float64) / 0.1))).sum()
    return total / len(weight)


def test_sinkhorn_of_hidden_patches_follows_the_loop():
    student, teacher, weight = hidden_rows(9, 4, 5)
    expected = np_ibot_sinkhorn(student, teacher, weight)
    np.testing.assert_allclose(run_sinkhorn(student, teacher, weight), expected, rtol=1e-4)
    # What other candidates are answered has no influence, nor has the order of views.
    other = np.where(weight[:, :, None] > 0.0, teacher, 50.0)
    np.testing.assert_allclose(run_sinkhorn(student, other, weight), expected, rtol=1e-4)
    all_alike = np_ibot_sinkhorn(student, teacher, np.full_like(weight, 1 / 4))
    assert abs(all_alike - expected) > 0.1
    softmax = run_ibot(student, teacher, np.zeros(5, np.float32), weight)[0]
    assert abs(float(softmax) - expected) > 0.01, "balanced answers are those of a softmax here"


def test_sinkhorn_of_hidden_patches_over_devices_is_that_of_the_whole_batch():
    student, teacher, weight = hidden_rows(10, 4, 5)
    weight[6:] = 0.0  # the last of the devices hides nothing, or little
    shares = [jnp.asarray(x).reshape(5, 2, *x.shape[1:]) for x in (student, teacher, weight)]
    losses = jax.vmap(partial(run_sinkhorn, axis_name="device"), axis_name="device")(*shares)
    np.testing.assert_allclose(np.mean(losses), np_ibot_sinkhorn(student, teacher, weight), rtol=1e-4)
    apart = np.mean([run_sinkhorn(*share) for share in zip(*shares, strict=True)])
    assert abs(apart - np.mean(losses)) > 0.02, "the devices are too alike to show a difference"


def test_sinkhorn_without_hidden_patches_is_no_loss():
    student, teacher, weight = hidden_rows(3, 4, 5)
    loss, gradient = jax.value_and_grad(run_sinkhorn)(student, 30.0 * teacher, 0.0 * weight)
    assert float(loss) == 0.0 and not np.any(gradient)


def test_ibot_moves_the_student_of_hidden_patches_alone():
    student, teacher, centre, weight = patch_logits()
    by_student, by_teacher = jax.grad(lambda s, t: run_ibot(s, t, centre, weight)[0], argnums=(0, 1))(student, teacher)
    assert not np.any(by_teacher)
    moved = np.abs(by_student).max(-1) > 0.0
    np.testing.assert_array_equal(moved, weight > 0.0)
