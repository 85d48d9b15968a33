"""The optimiser against AdamW written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.config import OptimConfig
from train.optim import clip_per_tensor, label_params, make_optimizer

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
