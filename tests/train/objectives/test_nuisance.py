"""Imaging parameters: standardised over all devices, guessed by an adversary, and forgotten by a network."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vis2img.errors import ParameterError
from vis2img.models.adversary import Adversary, reverse_gradient
from vis2img.models.dino_head import DINOModel
from vis2img.models.projector import Projector
from vis2img.models.vit import ViT
from vis2img.train.config import ModelConfig, OptimConfig
from vis2img.train.objectives.nuisance import nuisance_loss, standardised
from vis2img.train.state import build_model, create_state
from vis2img.train.step import train_step

STEP = (-1e-6, 1e-6)


def test_numbers_are_standardised_over_what_is_known_on_any_number_of_devices(quick_jit):
    rng = np.random.default_rng(0)
    numbers = (rng.normal(size=(2, 8, 4)) * [1.0, 5.0, 0.0, 2.0] + 3.0).astype(np.float32)
    numbers[rng.random((2, 8, 4)) < 0.3] = np.nan
    numbers[..., 3] = np.nan
    flat = numbers.reshape(-1, 4)[:, :2].astype(np.float64)
    expected = (flat - np.nanmean(flat, axis=0)) / np.nanstd(flat, axis=0)
    guesses = rng.normal(size=(2, 8, 4)).astype(np.float32)
    error = np.nanmean((guesses.reshape(-1, 4)[:, :2] - expected) ** 2)

    def run(numbers, guesses):
        values, known = standardised(numbers, "device")
        return values, known, nuisance_loss(guesses, values, known, "device")

    for devices in (1, 2, 8):
        shares = [np.moveaxis(x.reshape(2, devices, -1, 4), 1, 0) for x in (numbers, guesses)]
        values, known, loss = quick_jit(jax.vmap(run, axis_name="device"))(*shares)
        values, known = (np.moveaxis(np.asarray(x), 0, 1).reshape(-1, 4) for x in (values, known))
        np.testing.assert_array_equal(known[:, :2], np.isfinite(expected))
        assert not known[:, 2:].any() and not values[~known].any()
        np.testing.assert_allclose(values[:, :2][known[:, :2]], expected[np.isfinite(expected)], atol=1e-5)
        assert np.mean(loss) == pytest.approx(error, rel=1e-5)


def slow_loss(params, x, target):
    """The head in float64."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True) * np.sqrt(x.shape[1])
    hidden = np.maximum(unit @ params["mlp0"]["kernel"] + params["mlp0"]["bias"], 0.0)
    return np.mean((hidden @ params["mlp1"]["kernel"] + params["mlp1"]["bias"] - target) ** 2)


def test_the_gradient_turns_round_and_nothing_else(quick_jit):
    """Against finite differences: the head's own gradient is as it is, that of its input is reversed."""
    rng = np.random.default_rng(0)
    x, target = rng.normal(size=(3, 5)), rng.normal(size=(3, 2))
    head = Adversary(2, hidden=8, weight=0.25)
    shapes = jax.eval_shape(head.init, jax.random.key(0), jnp.zeros((3, 5)))["params"]
    params, ways = (jax.tree.map(lambda s: rng.normal(size=s.shape), shapes) for _ in range(2))

    def loss(params, x):
        return jnp.mean((head.apply({"params": params}, x) - jnp.asarray(target, jnp.float32)) ** 2)

    single = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), (params, x))
    by_params, by_x = quick_jit(jax.grad(loss, argnums=(0, 1)))(*single)
    for i in np.ndindex(x.shape):
        ends = [slow_loss(params, x + step * (np.arange(15).reshape(3, 5) == i[0] * 5 + i[1]), target) for step in STEP]
        assert float(by_x[i]) == pytest.approx(-0.25 * (ends[1] - ends[0]) / 2e-6, rel=1e-3, abs=1e-4)
    ends = [slow_loss(jax.tree.map(lambda p, w, s=s: p + s * w, params, ways), x, target) for s in STEP]
    ours = sum(float(np.sum(g * w)) for g, w in zip(jax.tree.leaves(by_params), jax.tree.leaves(ways), strict=True))
    assert ours == pytest.approx((ends[1] - ends[0]) / 2e-6, rel=1e-3) and np.abs(by_x).max() > 0.01
    np.testing.assert_array_equal(reverse_gradient(x, 0.5), x.astype(np.float32))


def test_settings_make_the_networks(quick_jit):
    config = ModelConfig(variant="micro", patch=8, hidden=16, bottleneck=8)
    image = (16, 16, 1)
    shapes = {}
    for nuisance in ("none", "adversarial", "condition"):
        optim = OptimConfig(objective="simclr", nuisance=nuisance, nuisance_weight=0.7)
        model = build_model(config, 16, optim)
        make = partial(create_state, model=model, optim=optim, image_shape=image)
        shapes[nuisance] = jax.eval_shape(make, jax.random.key(0)).params
    assert set(shapes["none"]) == set(shapes["condition"]) == {"backbone", "head"}
    assert set(shapes["adversarial"]) == {"backbone", "head", "adversary"}
    widths = [shapes[name]["head"]["mlp0"]["kernel"].shape[0] for name in ("none", "condition")]
    assert widths[1] == widths[0] + 9
    assert build_model(config, 16, OptimConfig(nuisance="adversarial", nuisance_weight=0.7)).adversary.weight == 0.7
    with pytest.raises(ParameterError, match=r"set optim\.ibot to 0"):
        OptimConfig(nuisance="condition", ibot=1.0)


BACKBONE = ViT(patch=4, dim=24, depth=1, heads=2, img_size=8)
BATCH = 32


def make_batch(seed):
    """Two views of things that are a few patterns in one half; the level of the other is how both were imaged."""
    rng, patterns = np.random.default_rng(seed), np.random.default_rng(0).normal(size=(4, 8, 4))
    numbers = np.full((2, BATCH, 9), np.nan, np.float32)
    numbers[..., 0] = rng.normal(size=BATCH)
    views = 0.1 * rng.normal(size=(2, BATCH, 8, 8, 1))
    views[:, :, :, :4, 0] += np.tensordot(rng.normal(size=(BATCH, 4)), patterns, 1)
    views[:, :, :, 4:, 0] += numbers[:, :, None, None, 0]
    return {"global": views.astype(np.float32), "imaging": numbers}


def test_the_projector_is_told_and_the_backbone_is_not(quick_jit):
    model = DINOModel(BACKBONE, Projector(8, 16), conditions=9)
    optim = OptimConfig(objective="simclr", nuisance="condition", warmup_steps=0)
    state = create_state(jax.random.key(0), model, optim, (8, 8, 1))
    step = quick_jit(partial(train_step, model=model, optim=optim, total_steps=10))
    batch = make_batch(0)
    _, metrics = step(state, batch)
    _, others = step(state, {**batch, "imaging": batch["imaging"][:, ::-1]})
    assert float(metrics["loss"]) != float(others["loss"]) and float(metrics["feature_std"]) == float(
        others["feature_std"]
    )
