"""One whole step against the paper's algorithm, and what must not change."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.config import ModelConfig, OptimConfig
from train.dino import dino_loss
from train.forward import forward_views
from train.state import build_model, create_state
from train.step import schedule_values, train_step


def same(a, b):
    equal = jax.tree.map(lambda x, y: np.array_equal(np.asarray(x), np.asarray(y)), a, b)
    return jax.tree.all(equal)


def loop_loss(model, params, teacher, batch, rng):
    """Algorithm 1 with a pair and a sample at a time; centre 0, temperatures 0.1 and 0.04."""
    views = [*batch["global"], *batch["local"]]  # (B, y, x, C) each

    def run(weights, drops):
        rows = []
        for b in range(4):
            # The numbers of drop path belong to the sample, wherever it is in the batch.
            u = jax.random.uniform(jax.random.fold_in(jax.random.fold_in(rng, b), 0), (4, 4)) if drops else None
            of_views = []
            for v, view in enumerate(views):
                drop = None if u is None else u[v : v + 1]
                token, _ = model.backbone.apply({"params": weights["backbone"]}, view[b : b + 1], drop=drop)
                of_views.append(model.head.apply({"params": weights["head"]}, token)[0])
            rows.append(of_views)
        return jnp.stack([jnp.stack(row) for row in rows], axis=1)  # (V, B, K)

    student, target = run(params, True), jax.lax.stop_gradient(run(teacher, False))
    total = 0.0
    for q in range(2):
        for v in range(4):
            if v != q:
                p = jax.nn.softmax(target[q] / 0.04, axis=-1)
                total += -(p * jnp.log(jax.nn.softmax(student[v] / 0.1, axis=-1))).sum(-1).mean()
    return total / 6


def test_first_step_follows_the_paper(model, initial, step, make_batch, quick_jit):
    batch = make_batch(0)
    state, metrics = step(initial, batch)
    rng = jax.random.fold_in(jax.random.wrap_key_data(initial.rng), 0)
    loss, grads = quick_jit(jax.value_and_grad(lambda p: loop_loss(model, p, initial.teacher, batch, rng)))(
        initial.params
    )
    assert float(metrics["loss"]) == pytest.approx(float(loss), rel=1e-4)
    leaves = [np.asarray(g, np.float64) for g in jax.tree.leaves(grads)]
    norm = np.sqrt(sum((g**2).sum() for g in leaves))
    assert float(metrics["grad_norm"]) == pytest.approx(norm, rel=1e-3)

    # Adam's first direction is g / (|g| + eps), whatever the clipping; compare where g is not rounding noise.
    rate, decay = 0.064 * 4 / 256, 0.04
    before, after = jax.tree.leaves(initial.params["backbone"]), jax.tree.leaves(state.params["backbone"])
    for p, new, g in zip(before, after, jax.tree.leaves(grads["backbone"]), strict=True):
        p, new, g = (np.asarray(x, np.float64) for x in (p, new, g))
        expected = p - rate * (np.sign(g) + (decay * p if p.ndim > 1 else 0.0))
        clear = np.abs(g) > 1e-3
        np.testing.assert_allclose(new[clear], expected[clear], atol=2e-6)

    for t, s, new in zip(
        *(jax.tree.leaves(tree) for tree in (initial.teacher, state.params, state.teacher)), strict=True
    ):
        np.testing.assert_allclose(new, 0.996 * np.asarray(t) + 0.004 * np.asarray(s), atol=1e-6)
    crops = batch["global"].reshape(-1, 8, 8, 1)
    logits = jax.jit(lambda p: model.apply({"params": p}, [crops])[0])(initial.teacher)
    np.testing.assert_allclose(state.centre, 0.1 * np.asarray(logits).mean(0), atol=1e-6)
    assert int(state.step) == 1


def test_last_layer_is_frozen_and_then_moves(initial, step, make_batch):
    state, frozen = initial, initial.params["head"]["last_layer"]
    for i in range(2):
        state, _ = step(state, make_batch(i))
        assert same(state.params["head"]["last_layer"], frozen)
        assert not same(state.params["head"]["mlp2"], initial.params["head"]["mlp2"])
    state, _ = step(state, make_batch(2))
    assert np.abs(np.asarray(state.params["head"]["last_layer"]["v"]) - frozen["v"]).min() > 1e-5


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_non_finite_batch_leaves_the_state_but_not_the_step(initial, step, make_batch, value):
    good, _ = step(initial, make_batch(0))
    batch = make_batch(1)
    batch["local"][1, 2, 0, 0, 0] = value
    kept, metrics = step(good, batch)
    assert float(metrics["finite"]) == 0.0
    assert int(kept.step) == 2
    assert same(kept.replace(step=good.step), good)
    onward, metrics = step(kept, make_batch(2))
    assert float(metrics["finite"]) == 1.0
    assert not same(onward.params, kept.params)


def test_training_lowers_the_loss(model, initial, step, make_batch):
    """After some steps on one batch, the student agrees with its teacher far better than an untrained one."""
    state, batch = initial, make_batch(0)
    for _ in range(8):
        state, _ = step(state, batch)

    @jax.jit
    def kl(params):
        student = forward_views(model, params, batch, student=True).logits
        teacher = forward_views(model, state.teacher, batch, student=False).logits
        temps = {"student_temp": 0.1, "teacher_temp": 0.04}
        return dino_loss(student, teacher, state.centre, **temps, n_global=2, centre_momentum=0.9)[2]["kl"]

    assert float(kl(state.params)) < 0.6 * float(kl(initial.params))


def test_drop_path_differs_between_steps(initial, step, make_batch):
    first, _ = step(initial, make_batch(0))
    again, _ = step(initial, make_batch(0))
    later, _ = step(initial.replace(step=jnp.asarray(1, jnp.int32)), make_batch(0))
    assert same(first, again)
    assert not same(first.params["backbone"]["norm"], later.params["backbone"]["norm"])


def test_schedules_enter_with_their_own_settings():
    optim = OptimConfig(base_lr=1e-3, min_lr=1e-5, warmup_steps=10, warmup_teacher_temp_steps=20, teacher_temp=0.08)
    start = schedule_values(0, optim, batch=512, total_steps=100)
    peak = schedule_values(10, optim, batch=512, total_steps=100)
    end = schedule_values(100, optim, batch=512, total_steps=100)
    assert [float(v["lr"]) for v in (start, peak, end)] == pytest.approx([0.0, 2e-3, 1e-5])
    assert [float(v["wd"]) for v in (start, end)] == pytest.approx([0.04, 0.4])
    assert [float(v["momentum"]) for v in (start, end)] == pytest.approx([0.996, 1.0])
    assert [float(v["teacher_temp"]) for v in (start, peak, end)] == pytest.approx([0.04, 0.06, 0.08])


def test_a_warmup_longer_than_the_run_is_refused(model, initial, make_batch):
    with pytest.raises(ValueError, match="warmup_steps"):
        train_step(initial, make_batch(0), model=model, optim=OptimConfig(warmup_steps=50), total_steps=20)


def test_the_teacher_starts_as_the_student(initial):
    assert same(initial.params, initial.teacher)
    assert not np.any(initial.centre)
    assert np.std(initial.params["backbone"]["block00"]["fc1"]["kernel"]) == pytest.approx(0.0176, rel=0.1)


def test_create_state_from_configs():
    config = ModelConfig(variant="micro", patch=16, out_dim=8, hidden=4, bottleneck=3, norm_last_layer=False)
    model = build_model(config, 32)
    make = partial(create_state, model=model, optim=OptimConfig(), image_shape=(32, 32, 2))
    state = jax.eval_shape(make, jax.random.PRNGKey(0))
    assert state.params["backbone"]["pos_embed"].shape == (1, 5, 96)
    assert state.params["head"]["last_layer"]["v"].shape == (3, 8)
    assert model.backbone.drop_path == config.drop_path
    assert state.centre.shape == (8,)
    with pytest.raises(ValueError, match="known"):
        build_model(ModelConfig(variant="giant"), 32)
