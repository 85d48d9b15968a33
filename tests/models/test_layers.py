"""The layers against Flax's, values and gradients, and where digits could be lost."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vis2img.models.layers import GroupNorm, LayerNorm, Linear, gelu

INIT = nn.initializers.normal(0.3)


def both(ours, theirs, x):
    """Values and gradients by input and parameters, in float64 of the same parameters for theirs."""
    params = ours.init(jax.random.key(0), x)
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(jax.random.key(p.size), p.shape), params)
    found = []
    for layer in (ours, theirs):
        value = lambda p, x, layer=layer: jnp.sum(jnp.sin(layer.apply(p, x)))  # noqa: E731
        found.append((layer.apply(params, x), *jax.grad(value, argnums=(0, 1))(params, x)))
    return found


@pytest.mark.parametrize("shape", [(7, 5), (3, 4, 5), (2, 3, 4, 5)])
def test_layers_are_those_of_flax(shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    pairs = (
        (Linear(6, kernel_init=INIT), nn.Dense(6, kernel_init=INIT)),
        (LayerNorm(), nn.LayerNorm(epsilon=1e-6, use_fast_variance=False)),
    )
    for ours, theirs in pairs:
        mine, flax = both(ours, theirs, x)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), mine, flax)


def test_group_norm_is_that_of_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch, the reference, is not installed")
    rng = np.random.default_rng(0)
    x, weight = (rng.normal(5.0, 2.0, size=(3, 4, 5, 16)).astype(np.float32) for _ in range(2))
    params = {name: rng.normal(size=16).astype(np.float32) for name in ("scale", "bias")}
    layer = GroupNorm()

    def value(params, x):
        out = layer.apply({"params": params}, x)
        return jnp.sum(out * weight), out

    (_, out), (of_params, of_x) = jax.jit(jax.value_and_grad(value, argnums=(0, 1), has_aux=True))(params, x)
    theirs = [
        torch.tensor(each, dtype=torch.float64, requires_grad=True) for each in (params["scale"], params["bias"], x)
    ]
    scale, bias, images = theirs
    expected = torch.nn.functional.group_norm(images.permute(0, 3, 1, 2), 8, scale, bias).permute(0, 2, 3, 1)
    (expected * torch.from_numpy(weight)).sum().backward()
    np.testing.assert_allclose(out, expected.detach(), rtol=1e-5, atol=1e-5)
    for ours, tensor in zip((of_params["scale"], of_params["bias"], of_x), theirs, strict=True):
        np.testing.assert_allclose(ours, tensor.grad, rtol=1e-4, atol=1e-4)
    assert GroupNorm(jnp.bfloat16).apply({"params": params}, x).dtype == jnp.bfloat16


def test_bfloat16_keeps_parameters_and_sums_in_float32():
    x = np.random.default_rng(0).normal(size=(4096, 8)).astype(np.float32)
    layer = Linear(4, jnp.bfloat16, INIT)
    params = layer.init(jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert layer.apply(params, x).dtype == jnp.bfloat16
    gradient = jax.grad(lambda p: jnp.sum(layer.apply(p, x).astype(jnp.float32) * 1.001))(params)["params"]["kernel"]
    assert gradient.dtype == jnp.float32
    exact = np.repeat(x.astype(jnp.bfloat16).astype(np.float64).sum(0)[:, None], 4, axis=1)
    # A bfloat16 holds three digits: sums of 4096 of them are good to better only if they are kept longer.
    np.testing.assert_allclose(gradient, exact, rtol=1e-2, atol=0.05)
    norm = LayerNorm(jnp.bfloat16)
    assert norm.apply(norm.init(jax.random.key(0), x), x).dtype == jnp.bfloat16


def test_layer_norm_keeps_its_digits_far_from_zero():
    x = np.random.default_rng(0).normal(size=(16, 64)) + 1000.0
    layer = LayerNorm()
    got = layer.apply(layer.init(jax.random.key(0), x), x.astype(np.float32))
    x = x.astype(np.float32).astype(np.float64)
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(got, expected, atol=1e-3)


def test_gelu():
    x = np.linspace(-8, 8, 4001, dtype=np.float32)
    np.testing.assert_allclose(gelu(x), jax.nn.gelu(x, approximate=False), atol=1e-6)
    np.testing.assert_allclose(
        jax.vmap(jax.grad(gelu))(x), jax.vmap(jax.grad(lambda y: jax.nn.gelu(y, approximate=False)))(x), atol=1e-6
    )
