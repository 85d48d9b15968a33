"""Convolutions against XLA's own in float64, on every form that is chosen by shapes, and where digits could be lost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from vis2img.models.convolution import convolve
from vis2img.train.run.flops import count_flops

# rows, columns, channels in and out, side of the kernel, stride
SHAPES = {
    "two pixels a side": (2, 2, 5, 6, 3, 1),
    "down to two a side": (4, 3, 5, 6, 3, 2),
    "a single pixel": (1, 1, 3, 4, 3, 1),
    "kernel wider than the map": (2, 1, 3, 4, 7, 2),
    "wide": (8, 6, 3, 4, 3, 1),
    "wide, odd, down": (9, 7, 3, 4, 3, 2),
    "stem": (16, 14, 1, 4, 5, 2),
    "one by one": (7, 8, 3, 4, 1, 1),
    "one by one, down": (7, 8, 3, 4, 1, 2),
}


def exact(x, kernel, stride):
    """XLA's convolution, which in float64 is a plain loop."""
    pad = kernel.shape[0] // 2
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), [(pad, pad)] * 2, dimension_numbers=numbers)


def arrays(shape, batch=6):
    rows, columns, inside, outside, side, _ = shape
    rng = np.random.default_rng(0)
    return rng.normal(size=(batch, rows, columns, inside)), rng.normal(size=(side, side, inside, outside))


@pytest.mark.parametrize("name", SHAPES)
def test_values_and_gradients_are_those_of_a_convolution(name):
    shape = SHAPES[name]
    x, kernel = arrays(shape)
    found = []
    for function, dtype in ((convolve, np.float32), (exact, np.float64)):
        with jax.enable_x64(dtype == np.float64):
            values = lambda x, kernel, f=function: jnp.sin(f(x, kernel, shape[-1]))  # noqa: E731
            pair = x.astype(dtype), kernel.astype(dtype)
            gradients = jax.grad(lambda *pair, f=values: f(*pair).sum(), argnums=(0, 1))
            found.append(jax.jit(lambda *pair, f=values, g=gradients: (f(*pair), *g(*pair)))(*pair))
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=2e-4), *found)


def test_it_maps_and_computes_again():
    """As pmap, accumulation and remat need it."""
    x, kernel = (each.astype(np.float32) for each in arrays(SHAPES["wide"]))
    gradient = jax.jit(jax.grad(lambda x, kernel: jnp.sum(convolve(x, kernel, 1) ** 2), argnums=1))
    whole = gradient(x, kernel)
    halves = jax.vmap(jax.checkpoint(gradient), in_axes=(0, None))(x.reshape(2, 3, *x.shape[1:]), kernel)
    np.testing.assert_allclose(halves.sum(axis=0), whole, rtol=1e-4)


@pytest.mark.parametrize("name", ["two pixels a side", "wide"])
def test_bfloat16_keeps_the_sum_over_pixels_in_float32(name):
    shape = SHAPES[name]
    x, kernel = (each.astype(np.float32) for each in arrays(shape, batch=256))
    x = jnp.asarray(x, jnp.bfloat16)
    values = jax.eval_shape(lambda *pair: convolve(*pair, 1), x, kernel)
    gradient = jax.grad(lambda *pair: convolve(*pair, 1).astype(jnp.float32).sum(), argnums=(0, 1))
    of_x, of_kernel = jax.jit(gradient)(x, kernel)
    assert (values.dtype, of_x.dtype, of_kernel.dtype) == (jnp.bfloat16, jnp.bfloat16, jnp.float32)
    like = jnp.asarray(x, jnp.float32), jnp.asarray(kernel)
    expected = jax.jit(jax.grad(lambda kernel: exact(like[0], kernel, 1).sum()))(like[1])
    np.testing.assert_allclose(of_kernel, expected, rtol=1e-3, atol=0.02)


def test_arithmetic_counts_as_that_of_a_convolution():
    """Whatever form is chosen, so that a share of the peak means the same everywhere."""
    for name, (rows, columns, inside, outside, side, stride) in SHAPES.items():
        x, kernel = (jax.ShapeDtypeStruct(each.shape, np.float32) for each in arrays(SHAPES[name]))
        pixels = -(-rows // stride) * -(-columns // stride)
        expected = 2 * 6 * pixels * side**2 * inside * outside
        assert count_flops(lambda x, kernel, s=stride: convolve(x, kernel, s), x, kernel) == expected


def test_accelerators_get_plain_convolutions():
    x, kernel = (jax.ShapeDtypeStruct(each.shape, np.float32) for each in arrays(SHAPES["two pixels a side"]))
    step = jax.jit(jax.grad(lambda x, kernel: convolve(x, kernel, 1).sum(), argnums=(0, 1)))
    text = {name: step.trace(x, kernel).lower(lowering_platforms=(name,)).as_text() for name in ("cpu", "cuda", "tpu")}
    for name in ("cuda", "tpu"):
        assert text[name].count("stablehlo.convolution") == 2 and "dot_general" not in text[name]
    assert "stablehlo.convolution" not in text["cpu"]
