"""Convolutions of square kernels with an odd side, padded by half of it, that are fast on CPUs, too.

Values and parameters are those of ``flax.linen.Conv``; the gradients are written out. On accelerators these are XLA's
convolutions and nothing else. On CPUs, XLA (0.10) is good at the values and at the gradients by the input of wide maps;
elsewhere it is two to two hundred times as slow as matrix products of the same numbers (docs/benchmarks.md):

- Of small maps and of 1 x 1 kernels a convolution is a sum over *taps*, the places of the kernel: the pixels that a tap
  reaches, times its matrix, added where they belong. On a map of 2 x 2 a kernel of 3 x 3 reaches 16 pairs of pixels of
  36; what lies outside of the map is never multiplied.
- The gradient by the kernel of wide maps is a product over all pixels, *columns* of what each tap sees by what comes
  back, summed over few images at a time, so that the columns stay in the cache.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from vis2img.models.layers import Array

Pair = tuple[jax.Array, jax.Array]

# Kaiming normal over fan_out (He et al. 2015, arXiv:1502.01852, equation 10), as torchvision.
KAIMING = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_SMALL = 4  # pixels of a map for which taps are faster
_COLUMNS = 600_000  # numbers that stay in the second cache of a core (2 MB), about


class Conv(nn.Module):
    """Convolution, like ``nn.Conv`` without bias and padded by ``kernel // 2`` on each side.

    "SAME" would pad more on the far side when the stride is 2, PyTorch pads the same on both.

    Attributes
    ----------
    features : int
        Channels of the result.
    kernel : int
        Side, odd.
    stride : int
    dtype : dtype
        Of the computation; the parameter "kernel" (y, x, in, out) is float32.
    """

    features: int
    kernel: int
    stride: int = 1
    dtype: Any = jnp.float32
    kernel_init: Any = KAIMING

    @nn.compact
    def __call__(self, x: Float[Array, "batch y x channel"]) -> Float[Array, "batch row column {self.features}"]:
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        return convolve(jnp.asarray(x, self.dtype), self.param("kernel", self.kernel_init, shape), self.stride)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(
    x: Float[jax.Array, "batch y x in"], kernel: Float[jax.Array, "side side in out"], stride: int = 1
) -> Float[jax.Array, "batch row column out"]:
    """Convolve images, in their precision; rows and columns are those of the images over ``stride``, rounded up."""
    plain = partial(_plain, stride=stride)
    fast = partial(_by_taps, stride=stride) if _taps_pay(x, kernel, stride) else plain
    return lax.platform_dependent(x, kernel.astype(x.dtype), cpu=fast, default=plain)


def _forward(x: jax.Array, kernel: jax.Array, stride: int) -> tuple[jax.Array, Pair]:
    return convolve(x, kernel, stride), (x, kernel)


def _backward(stride: int, residuals: Pair, gradient: Float[jax.Array, "batch row column out"]) -> Pair:
    x, kernel = residuals
    taps_pay = _taps_pay(x, kernel, stride)

    def by_input(x: jax.Array, kernel: jax.Array, gradient: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda x: _plain(x, kernel, stride=stride), x)(gradient)[0]

    def by_kernel(x: jax.Array, gradient: jax.Array) -> jax.Array:
        like = jax.ShapeDtypeStruct(kernel.shape, x.dtype)
        plain = jax.linear_transpose(lambda kernel: _plain(x, kernel, stride=stride), like)
        return plain(gradient)[0].astype(kernel.dtype)

    fast_input = partial(_taps_by_input, stride=stride) if taps_pay else by_input
    fast_kernel = partial(_taps_by_kernel if taps_pay else _columns_by_kernel, like=kernel, stride=stride)
    of_input = lax.platform_dependent(x, kernel.astype(x.dtype), gradient, cpu=fast_input, default=by_input)
    return of_input, lax.platform_dependent(x, gradient, cpu=fast_kernel, default=by_kernel)


convolve.defvjp(_forward, _backward)


def _plain(x: jax.Array, kernel: jax.Array, *, stride: int) -> jax.Array:
    pad = kernel.shape[0] // 2
    return lax.conv_general_dilated(x, kernel, (stride, stride), [(pad, pad)] * 2, dimension_numbers=_LAYOUT)


def _taps_pay(x: jax.Array, kernel: jax.Array, stride: int) -> bool:
    rows, columns = (-(-side // stride) for side in x.shape[1:3])
    return kernel.shape[0] == 1 or rows * columns <= _SMALL


class _Reach(NamedTuple):
    """What a tap reaches along one axis: pixels ``first``, ``first + stride``, ... of the input, for the ``number``
    pixels of the output that begin at ``start``."""

    first: int
    start: int
    number: int


def _reach(tap: int, side: int, size: int, stride: int) -> _Reach:
    offset = tap - side // 2  # of the input's pixel from stride times the output's
    outputs = [i for i in range(-(-size // stride)) if 0 <= i * stride + offset < size]
    return _Reach(outputs[0] * stride + offset, outputs[0], len(outputs)) if outputs else _Reach(0, 0, 0)


def _taps(x: jax.Array, side: int, stride: int) -> Iterator[tuple[int, int, _Reach, _Reach]]:
    """Yield place and reach, both along y and x, of the taps that reach anything."""
    for i in range(side):
        for j in range(side):
            y, z = (_reach(tap, side, size, stride) for tap, size in ((i, x.shape[1]), (j, x.shape[2])))
            if y.number and z.number:
                yield i, j, y, z


def _seen(x: jax.Array, y: _Reach, z: _Reach, stride: int) -> jax.Array:
    """Return the pixels of the input that a tap reaches, as rows (B * number * number, in)."""
    last_y, last_x = (reach.first + (reach.number - 1) * stride + 1 for reach in (y, z))
    return x[:, y.first : last_y : stride, z.first : last_x : stride].reshape(-1, x.shape[-1])


def _met(gradient: jax.Array, y: _Reach, z: _Reach) -> jax.Array:
    """Return the pixels of the output that a tap adds to, as rows (B * number * number, out)."""
    part = gradient[:, y.start : y.start + y.number, z.start : z.start + z.number]
    return part.reshape(-1, gradient.shape[-1])


def _by_taps(x: jax.Array, kernel: jax.Array, *, stride: int) -> jax.Array:
    rows, columns = (-(-side // stride) for side in x.shape[1:3])
    total = jnp.zeros((x.shape[0], rows, columns, kernel.shape[-1]), x.dtype)
    for i, j, y, z in _taps(x, kernel.shape[0], stride):
        part = (_seen(x, y, z, stride) @ kernel[i, j]).reshape(-1, y.number, z.number, kernel.shape[-1])
        around = [(reach.start, size - reach.start - reach.number) for reach, size in ((y, rows), (z, columns))]
        total += jnp.pad(part, [(0, 0), *around, (0, 0)])
    return total


def _taps_by_input(x: jax.Array, kernel: jax.Array, gradient: jax.Array, *, stride: int) -> jax.Array:
    total = jnp.zeros_like(x)
    for i, j, y, z in _taps(x, kernel.shape[0], stride):
        part = (_met(gradient, y, z) @ kernel[i, j].T).reshape(-1, y.number, z.number, x.shape[-1])
        around = []
        for reach, size in ((y, x.shape[1]), (z, x.shape[2])):
            last = reach.first + (reach.number - 1) * stride
            around.append((reach.first, size - last - 1, stride - 1))
        total += lax.pad(part, jnp.zeros((), x.dtype), [(0, 0, 0), *around, (0, 0, 0)])
    return total


def _taps_by_kernel(x: jax.Array, gradient: jax.Array, *, like: jax.Array, stride: int) -> jax.Array:
    side = like.shape[0]
    of_taps = {
        (i, j): _over_rows(_seen(x, y, z, stride), _met(gradient, y, z), like.dtype)
        for i, j, y, z in _taps(x, side, stride)
    }
    nothing = jnp.zeros(like.shape[2:], like.dtype)
    stacked = jnp.stack([of_taps.get((i, j), nothing) for i in range(side) for j in range(side)])
    return stacked.reshape(like.shape)


def _columns_by_kernel(x: jax.Array, gradient: jax.Array, *, like: jax.Array, stride: int) -> jax.Array:
    batch, rows, columns, out = gradient.shape
    side = like.shape[0]
    pad = side // 2
    width = like.size // out
    images = max(1, _COLUMNS // (rows * columns * width))
    while batch % images:
        images -= 1

    def add(total: jax.Array, part: Pair) -> tuple[jax.Array, None]:
        x, gradient = part
        padded = jnp.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
        seen = [
            padded[:, i : i + (rows - 1) * stride + 1 : stride, j : j + (columns - 1) * stride + 1 : stride]
            for i in range(side)
            for j in range(side)
        ]
        by_tap = jnp.concatenate(seen, axis=-1).reshape(-1, width)
        return total + _over_rows(by_tap, gradient.reshape(-1, out), like.dtype), None

    parts = x.reshape(-1, images, *x.shape[1:]), gradient.reshape(-1, images, rows, columns, out)
    total, _ = lax.scan(add, jnp.zeros((width, out), like.dtype), parts)
    return total.reshape(like.shape)


def _over_rows(left: jax.Array, right: jax.Array, dtype: Any) -> jax.Array:
    """Return ``left.T @ right``, the sum kept in the precision of the parameters."""
    return lax.dot_general(left, right, (((0,), (0,)), ((), ())), preferred_element_type=dtype)
