"""One whole step against the paper's algorithm, and what must not change."""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vis2img.models.dino_head import DINOHead, DINOModel
from vis2img.models.vit import ViT
from vis2img.train.config import ModelConfig, OptimConfig
from vis2img.train.objectives.dino import dino_loss
from vis2img.train.objectives.forward import forward_views
from vis2img.train.state import build_model, create_state
from vis2img.train.step import schedule_values, train_step


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
    logits, z = map(np.asarray, jax.jit(lambda p: model.apply({"params": p}, [crops]))(initial.teacher))
    np.testing.assert_allclose(state.centre, 0.1 * logits.mean(0), atol=1e-6)
    # A fiftieth of the mean of z z^T over the teacher's embeddings of the global views.
    moment = sum(np.outer(x, x) for x in z.astype(np.float64)) / len(z)
    np.testing.assert_allclose(state.moment, 0.02 * moment, rtol=1e-4, atol=1e-5)
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


@jax.custom_vjp
def spoil(x, pixel):
    """``x``, with a gradient whose norm is infinite where the pixel is 2, and no number where it is 3."""
    return x


def spoil_backward(pixel, gradient):
    return gradient * jnp.where(pixel == 2.0, 1e30, jnp.where(pixel == 3.0, jnp.nan, 1.0)), jnp.zeros_like(pixel)


spoil.defvjp(lambda x, pixel: (x, pixel), spoil_backward)


class Spoiled(ViT):
    """A transformer whose gradient the first pixel of the first image can spoil, and nothing else."""

    def __call__(self, images, **options):
        token, out = super().__call__(images, **options)
        return spoil(token, images[0, 0, 0, 0]), out


def test_a_finite_loss_with_a_gradient_that_is_not_leaves_the_state(optim, make_batch, quick_jit):
    spoiled = DINOModel(Spoiled(patch=4, dim=24, depth=1, heads=2, img_size=8), DINOHead(16, hidden=32, bottleneck=8))
    before, batch = create_state(jax.random.key(0), spoiled, optim, (8, 8, 1)), make_batch(0, n_local=0)
    step = quick_jit(partial(train_step, model=spoiled, optim=optim, total_steps=20))
    for pixel in (1.0, 2.0, 3.0):
        batch["global"][0, 0, 0, 0, 0] = pixel
        after, metrics = step(before, batch)
        assert np.isfinite(metrics["loss"]) and int(after.step) == 1
        good = pixel == 1.0
        assert float(metrics["finite"]) == good and np.isfinite(metrics["grad_norm"]) == good
        assert same(after.replace(step=before.step), before) == (not good)


def test_a_student_learns_the_answers_of_a_teacher_that_stands_still(model, initial, step, make_batch):
    # Other prototypes, so that there is much to learn.
    head = initial.teacher["head"]
    teacher = {**initial.teacher, "head": {**head, "last_layer": {"v": head["last_layer"]["v"][:, ::-1]}}}
    state, batch = initial, make_batch(0)
    for _ in range(8):
        state, _ = step(state.replace(teacher=teacher, centre=initial.centre), batch)

    @jax.jit
    def kl(params):
        student = forward_views(model, params, batch, student=True).logits
        target = forward_views(model, teacher, batch, student=False).logits
        temps = {"student_temp": 0.1, "teacher_temp": 0.04}
        return dino_loss(student, target, initial.centre, **temps, n_global=2, centre_momentum=0.9)[2]["kl"]

    assert float(kl(state.params)) < 0.6 * float(kl(initial.params))


def test_drop_path_differs_between_steps(initial, step, make_batch):
    first, _ = step(initial, make_batch(0))
    again, _ = step(initial, make_batch(0))
    later, _ = step(initial.replace(step=jnp.asarray(1, jnp.int32)), make_batch(0))
    assert same(first, again)
    assert not same(first.params["backbone"]["norm"], later.params["backbone"]["norm"])


def test_every_block_has_its_own_numbers_for_drop_path(quick_jit):
    model = ViT(patch=4, dim=24, depth=3, heads=2, img_size=8, drop_path=0.5)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
    variables = quick_jit(model.init)(jax.random.key(0), images)
    run = quick_jit(lambda drop: model.apply(variables, images, drop=drop)[1])
    names = ("stem", "block00", "block01", "block02")
    # The first block drops nothing; of the others, dropped in both branches, tokens come out as they went in.
    for first, dropped in ((0, set()), (2, {"block01"}), (4, {"block02"})):
        drop = np.full((2, 6), 0.9, np.float32)
        drop[1, first : first + 2] = 0.0
        out = run(drop)
        still = {new for old, new in pairwise(names) if np.array_equal(out[old][1], out[new][1])}
        assert still == dropped
        assert not any(np.array_equal(out[old][0], out[new][0]) for old, new in pairwise(names))


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


def test_initial_weights_are_as_wide_as_the_published_ones(quick_jit):
    """N(0, 0.02^2), cut nowhere: a cut at two standard deviations would leave 0.0176."""
    backbone = ViT(patch=4, dim=24, depth=1, heads=2, img_size=64)
    model = DINOModel(backbone, DINOHead(out_dim=16, hidden=96, bottleneck=64))
    params = quick_jit(model.init)(jax.random.key(0), [np.zeros((1, 8, 8, 1), np.float32)])["params"]
    block, head = params["backbone"]["block00"], params["head"]
    of_layers = [block["attn"]["qkv"], block["attn"]["proj"], block["fc1"], block["fc2"], head["mlp0"], head["mlp2"]]
    for weights in (params["backbone"]["pos_embed"], *(layer["kernel"] for layer in of_layers)):
        weights = np.ravel(weights)
        assert np.std(weights) == pytest.approx(0.02, rel=4.0 / np.sqrt(2 * weights.size))
        assert np.abs(weights).max() > 0.05


def test_create_state_from_configs():
    config = ModelConfig(variant="micro", patch=16, out_dim=8, hidden=4, bottleneck=3, norm_last_layer=False)
    model = build_model(config, 32)
    make = partial(create_state, model=model, optim=OptimConfig(), image_shape=(32, 32, 2))
    state = jax.eval_shape(make, jax.random.PRNGKey(0))
    assert state.params["backbone"]["pos_embed"].shape == (1, 5, 96)
    assert state.params["head"]["last_layer"]["v"].shape == (3, 8)
    assert model.backbone.drop_path == config.drop_path
    assert state.centre.shape == (8,)
    with pytest.raises(ValueError, match="giant"):
        build_model(ModelConfig(variant="giant"), 32)
