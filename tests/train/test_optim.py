"""The optimiser against AdamW written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vis2img.train.config import OptimConfig
from vis2img.train.optim import clip_per_tensor, label_params, make_optimizer

RATES = (0.1, 0.05, 0.02, 0.01, 0.03)
DECAYS = (0.04, 0.1, 0.2, 0.3, 0.4)
FROZEN_STEPS = 3


def params():
    rng = np.random.default_rng(0)
    return {
        "backbone": {"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=2)},
        "head": {"last_layer": {"v": rng.normal(size=(2, 4)), "g": rng.normal(size=4)}},
    }


def as_float32(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def np_adamw(param, grads, rates, decays, decayed, max_norm):
    """Loshchilov & Hutter 2019, algorithm 2, on gradients clipped tensor by tensor."""
    m, v = np.zeros_like(param), np.zeros_like(param)
    for t, (grad, rate, decay) in enumerate(zip(grads, rates, decays, strict=True), start=1):
        norm = np.sqrt((grad**2).sum())
        if max_norm and max_norm / (norm + 1e-6) < 1.0:
            grad = grad * max_norm / (norm + 1e-6)
        m, v = 0.9 * m + 0.1 * grad, 0.999 * v + 0.001 * grad**2
        direction = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        if decayed:
            param = param * (1.0 - rate * decay)
        param = param - rate * direction
    return param


@pytest.mark.parametrize("max_norm", [0.0, 1.0])
def test_update_matches_adamw_by_hand(max_norm):
    optimizer = make_optimizer(OptimConfig(clip_grad=max_norm))
    start = params()
    rng = np.random.default_rng(1)
    grads = [jax.tree.map(lambda x: rng.normal(0.0, 2.0, x.shape), start) for _ in RATES]
    current, state = as_float32(start), optimizer.init(as_float32(start))
    for i, (grad, rate, decay) in enumerate(zip(grads, RATES, DECAYS, strict=True)):
        updates, state = optimizer.update(
            as_float32(grad),
            state,
            current,
            lr=rate,
            weight_decay=decay,
            frozen=jnp.asarray(i < FROZEN_STEPS),
        )
        current = jax.tree.map(lambda p, u: p + u, current, updates)
        if i < FROZEN_STEPS:
            for name, value in as_float32(start)["head"]["last_layer"].items():
                np.testing.assert_array_equal(current["head"]["last_layer"][name], value)

    for group, name, decayed, skip in (
        ("backbone", "kernel", True, 0),
        ("backbone", "bias", False, 0),
        ("last_layer", "v", True, FROZEN_STEPS),
        ("last_layer", "g", False, FROZEN_STEPS),
    ):

        def pick(tree, group=group, name=name):
            return (tree["head"]["last_layer"] if group == "last_layer" else tree[group])[name]

        # The frozen group starts its Adam at the thaw, with bias correction from t = 1.
        by_hand = np_adamw(pick(start), [pick(g) for g in grads[skip:]], RATES[skip:], DECAYS[skip:], decayed, max_norm)
        np.testing.assert_allclose(pick(current), by_hand, rtol=1e-5, atol=1e-6)


def test_tensors_are_clipped_by_themselves():
    grads = {"large": jnp.array([30.0, 40.0]), "small": jnp.array([0.3, 0.4]), "none": jnp.zeros(2)}
    clipped, _ = clip_per_tensor(5.0).update(grads, clip_per_tensor(5.0).init(grads))
    np.testing.assert_allclose(clipped["large"], [3.0, 4.0], rtol=1e-6)
    np.testing.assert_array_equal(clipped["small"], grads["small"])
    np.testing.assert_array_equal(clipped["none"], grads["none"])


def test_only_the_prototypes_are_in_the_frozen_group():
    labels = label_params(params())
    assert set(jax.tree.leaves(labels["head"]["last_layer"])) == {"last_layer"}
    assert set(jax.tree.leaves(labels["backbone"])) == {"body"}


def np_momentum(param, grads, rates, decays, decayed, lars):
    """torch.optim.SGD with momentum 0.9 and no dampening; with ``lars``, the class LARS of the published DINO code."""
    buffer = np.zeros_like(param)
    for grad, rate, decay in zip(grads, rates, decays, strict=True):
        direction = grad + decay * param if decayed else grad
        if lars and decayed:
            size, length = np.sqrt((param**2).sum()), np.sqrt((direction**2).sum())
            direction = direction * (0.001 * size / length if size > 0.0 and length > 0.0 else 1.0)
        buffer = 0.9 * buffer + direction
        param = param - rate * buffer
    return param


@pytest.mark.parametrize("name", ["sgd", "lars"])
def test_update_matches_momentum_by_hand(name):
    optimizer = make_optimizer(OptimConfig(optimizer=name, clip_grad=0.0))
    start = params()
    start["backbone"]["zeros"] = np.zeros((2, 2))  # has no size for a trust ratio to keep to
    start["backbone"]["still"] = np.ones((2, 2))
    rng = np.random.default_rng(1)
    grads = [jax.tree.map(lambda x: rng.normal(0.0, 2.0, x.shape), start) for _ in RATES]
    for grad in grads:
        grad["backbone"]["still"] = np.zeros((2, 2))
    # LARS takes steps of a thousandth of a matrix: larger rates, or there is nothing to compare.
    scale = 100.0 if name == "lars" else 1.0
    current, state = as_float32(start), optimizer.init(as_float32(start))
    for i, (grad, rate, decay) in enumerate(zip(grads, RATES, DECAYS, strict=True)):
        settings = {"lr": scale * rate, "weight_decay": decay, "frozen": jnp.asarray(i < FROZEN_STEPS)}
        updates, state = optimizer.update(as_float32(grad), state, current, **settings)
        current = jax.tree.map(lambda p, u: p + u, current, updates)

    rates = [scale * rate for rate in RATES]
    for names, decayed, skip in (
        (("backbone", "kernel"), True, 0),
        (("backbone", "bias"), False, 0),
        (("backbone", "zeros"), True, 0),
        (("backbone", "still"), True, 0),
        (("head", "last_layer", "v"), True, FROZEN_STEPS),
        (("head", "last_layer", "g"), False, FROZEN_STEPS),
    ):

        def pick(tree, names=names):
            for key in names:
                tree = tree[key]
            return tree

        # While it is frozen a group gathers no momentum.
        by_hand = np_momentum(
            pick(start), [pick(g) for g in grads[skip:]], rates[skip:], DECAYS[skip:], decayed, name == "lars"
        )
        assert np.abs(by_hand - pick(start)).max() > 1e-2
        np.testing.assert_allclose(pick(current), by_hand, rtol=1e-4, atol=1e-5, err_msg=str(names))


@pytest.mark.parametrize("name", ["sgd", "lars"])
def test_tensors_are_clipped_before_decay_and_momentum(name):
    optimizer = make_optimizer(OptimConfig(optimizer=name, clip_grad=0.5))
    start = {"kernel": np.ones((2, 2)), "bias": np.ones(2)}
    grad = {"kernel": np.full((2, 2), 3.0), "bias": np.array([3.0, 4.0])}
    settings = {"lr": 0.1, "weight_decay": 0.2, "frozen": jnp.asarray(False)}
    updates, _ = optimizer.update(as_float32(grad), optimizer.init(as_float32(start)), as_float32(start), **settings)
    for key, decayed in (("kernel", True), ("bias", False)):
        clipped = grad[key] * 0.5 / np.sqrt((grad[key] ** 2).sum())
        by_hand = np_momentum(start[key], [clipped], [0.1], [0.2], decayed, name == "lars")
        np.testing.assert_allclose(updates[key], by_hand - start[key], rtol=1e-4)
