"""What networks here are made of: linear layer, normalisations and GELU, with gradients written out where that pays.

Parameters and values are those of ``flax.linen``. What XLA makes of the automatic gradients copies activations into
transposed order before products, which on CPUs takes a third of a training step (docs/benchmarks.md).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Num

Array = jax.Array | np.ndarray  # of inputs, too, that nothing has compiled yet
Scalar = float | Num[Array, ""]
Pair = tuple[Array, Array]
# As the published DINO: torch's trunc_normal_(std=0.02) cuts at -2 and 2, a hundred standard deviations away, which is
# nothing. JAX's truncated_normal cuts at two standard deviations, which leaves weights 12% smaller.
_LINEAR_INIT = nn.initializers.normal(stddev=0.02)


def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Exact GELU, ``x Phi(x)`` (Hendrycks & Gimpel 2016, arXiv:1606.08415), by erf.

    ``jax.nn.gelu`` takes erfc, which keeps more digits where the result is below 1e-7 anyway, and takes more than twice
    as long on CPUs.
    """
    return 0.5 * x * (1.0 + jax.lax.erf(x * 0.7071067811865476))


class Linear(nn.Module):
    """``x @ kernel + bias``, like ``nn.Dense``.

    Attributes
    ----------
    features : int
        Width of the result.
    dtype : dtype
        Of the computation; parameters are float32.
    kernel_init : callable
        Of the kernel (in, out); the bias (out,) starts at 0.
    """

    features: int
    dtype: Any = jnp.float32
    kernel_init: Any = _LINEAR_INIT

    @nn.compact
    def __call__(self, x: Float[Array, "*rows width"]) -> Float[Array, "*rows {self.features}"]:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return _product(x.astype(self.dtype), kernel) + _beside(bias.astype(self.dtype), x)


def _beside(vector: Float[Array, " width"], x: Float[Array, "*rows _"]) -> Float[Array, "*_ width"]:
    """Vector with as many axes as ``x``."""
    return jnp.expand_dims(vector, tuple(range(x.ndim - 1)))


@jax.custom_vjp
def _product(x: Float[Array, "*rows in"], kernel: Float[Array, "in out"]) -> Float[Array, "*rows out"]:
    return x @ kernel.astype(x.dtype)


def _product_forward(x: Array, kernel: Array) -> tuple[Array, Pair]:
    return _product(x, kernel), (x, kernel)


def _product_backward(residuals: Pair, gradient: Float[Array, "*rows out"]) -> Pair:
    x, kernel = residuals
    rows, of_rows = (y.reshape(-1, y.shape[-1]) for y in (x, gradient))
    # Over the rows of both as they are. The sum over rows is kept in float32, where the kernel is.
    dims = (((0,), (0,)), ((), ()))
    of_kernel = jax.lax.dot_general(rows, of_rows, dims, preferred_element_type=kernel.dtype)
    return gradient @ kernel.astype(x.dtype).T, of_kernel


_product.defvjp(_product_forward, _product_backward)


@jax.custom_vjp
def logits_of(x: Float[Array, "row dim"], prototypes: Float[Array, "dim out"]) -> Float32[Array, "row out"]:
    """Product of factors in the precision of the network, in float32: a softmax wants its digits."""
    return jnp.dot(x, prototypes, preferred_element_type=jnp.float32)


def _logits_forward(x: Array, prototypes: Array) -> tuple[Array, Pair]:
    return logits_of(x, prototypes), (x, prototypes)


def _logits_backward(residuals: Pair, gradient: Float32[Array, "row out"]) -> Pair:
    x, prototypes = residuals
    # Back in the precision of the factors: with a float32 gradient both products would run at the rate of float32.
    gradient = gradient.astype(x.dtype)
    return gradient @ prototypes.T, x.T @ gradient


logits_of.defvjp(_logits_forward, _logits_backward)


def batch_norm(
    x: Float[Array, "*shape"], *, train: bool, axis_name: str | None, dtype: Any, name: str
) -> Float[Array, "*shape"]:
    """Batch normalisation as PyTorch has it by default, over all devices of ``axis_name``; statistics in float32.

    0.9 is what PyTorch calls 0.1. Running variances are of the batch itself, where PyTorch's are n/(n-1) times it.
    """
    norm = nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, axis_name=axis_name, dtype=dtype, name=name)
    # Flax takes a mean in float32 off a bfloat16, which strict promotion of dtypes refuses.
    with jax.numpy_dtype_promotion("standard"):
        return norm(x)


def hidden_layers(
    x: Float[Array, "row in"],
    width: int,
    count: int,
    activation: Callable[[Array], Array],
    *,
    use_bn: bool,
    train: bool,
    axis_name: str | None,
    dtype: Any,
) -> Float[Array, "row {width}"]:
    """Linear layers "mlp0", "mlp1", ... of a head, each behind it normalised as "bn0", ... if so wanted, and bent."""
    for i in range(count):
        x = Linear(width, dtype, name=f"mlp{i}")(x)
        if use_bn:
            x = batch_norm(x, train=train, axis_name=axis_name, dtype=dtype, name=f"bn{i}")
        x = activation(x)
    return x


class LayerNorm(nn.Module):
    """Normalise over the last axis (Ba et al. 2016, arXiv:1607.06450), in float32, epsilon 1e-6.

    In two passes: the mean of squares less the squared mean, as Flax has it by default, loses digits where the mean is
    large. ``dtype`` is that of the result.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*rows width"]) -> Float[Array, "*rows width"]:
        width = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, width)
        return _normalise(x, scale, self.param("bias", nn.initializers.zeros, width)).astype(self.dtype)


@jax.custom_vjp
def _normalise(
    x: Float[Array, "*rows width"], scale: Float[Array, " width"], bias: Float[Array, " width"]
) -> Float32[Array, "*rows width"]:
    return _normalise_forward(x, scale, bias)[0]


def _normalise_forward(x: Array, scale: Array, bias: Array) -> tuple[Array, Any]:
    y = x.astype(jnp.float32)
    mean = jnp.mean(y, axis=-1, keepdims=True)
    rate = jax.lax.rsqrt(jnp.mean((y - mean) ** 2, axis=-1, keepdims=True) + 1e-6)
    return (y - mean) * rate * _beside(scale, y) + _beside(bias, y), (x, mean, rate, scale)


def _normalise_backward(
    residuals: Any, gradient: Float32[Array, "*rows width"]
) -> tuple[Float[Array, "*rows width"], Float32[Array, " width"], Float32[Array, " width"]]:
    x, mean, rate, scale = residuals
    unit = (x.astype(jnp.float32) - mean) * rate
    of_unit = gradient * _beside(scale, gradient)
    of_x = of_unit - jnp.mean(of_unit, axis=-1, keepdims=True)
    of_x = rate * (of_x - unit * jnp.mean(of_unit * unit, axis=-1, keepdims=True))
    rows = tuple(range(x.ndim - 1))
    return of_x.astype(x.dtype), jnp.sum(gradient * unit, axis=rows), jnp.sum(gradient, axis=rows)


_normalise.defvjp(_normalise_forward, _normalise_backward)


class GroupNorm(nn.Module):
    """Normalise over pixels and over the channels of each of eight groups (Wu & He 2018, arXiv:1803.08494), in float32.

    Epsilon 1e-5, as PyTorch has it by default; in two passes, see `LayerNorm`. ``dtype`` is that of the result.
    """

    dtype: Any = jnp.float32
    groups: int = 8

    @nn.compact
    def __call__(self, x: Float[Array, "batch y x channel"]) -> Float[Array, "batch y x channel"]:
        width = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, width)
        bias = self.param("bias", nn.initializers.zeros, width)
        return _normalise_groups(x, scale, bias, self.groups).astype(self.dtype)


def _over_groups(sums: Float32[Array, "batch channel"], groups: int, pixels: int) -> Float32[Array, "batch 1 channel"]:
    """Mean of each group, of sums over pixels, at each of its channels."""
    batch, channels = sums.shape
    means = sums.reshape(batch, groups, -1).sum(axis=-1) * (groups / (pixels * channels))
    return jnp.repeat(means, channels // groups, axis=-1)[:, None]


def _rows(x: Array) -> Float32[Array, "batch pixel channel"]:
    return x.reshape(x.shape[0], -1, x.shape[-1]).astype(jnp.float32)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _normalise_groups(
    x: Float[Array, "batch y x channel"],
    scale: Float[Array, " channel"],
    bias: Float[Array, " channel"],
    groups: int,
) -> Float32[Array, "batch y x channel"]:
    return _normalise_groups_forward(x, scale, bias, groups)[0]


def _normalise_groups_forward(x: Array, scale: Array, bias: Array, groups: int) -> tuple[Array, Any]:
    y = _rows(x)
    mean = _over_groups(y.sum(axis=1), groups, y.shape[1])
    rate = jax.lax.rsqrt(_over_groups(((y - mean) ** 2).sum(axis=1), groups, y.shape[1]) + 1e-5)
    out = (y - mean) * (rate * _beside(scale, y)) + _beside(bias, y)
    return out.reshape(x.shape), (x, mean, rate, scale)


def _normalise_groups_backward(
    groups: int, residuals: Any, gradient: Float32[Array, "batch y x channel"]
) -> tuple[Float[Array, "batch y x channel"], Float32[Array, " channel"], Float32[Array, " channel"]]:
    x, mean, rate, scale = residuals
    y, of_y = _rows(x) - mean, _rows(gradient)
    of_scale, of_bias = (of_y * y).sum(axis=1) * rate[:, 0], of_y.sum(axis=1)  # (B, C)
    along, level = (_over_groups(sums * scale[None], groups, y.shape[1]) for sums in (of_scale, of_bias))
    # One pass over the pixels: what stands before them is (B, 1, C).
    of_x = of_y * (rate * _beside(scale, y)) - y * (rate**2 * along) - rate * level
    return of_x.reshape(x.shape).astype(x.dtype), of_scale.sum(axis=0), of_bias.sum(axis=0)


_normalise_groups.defvjp(_normalise_groups_forward, _normalise_groups_backward)
