"""Pooling: what an embedding is made of, and the maximum behind the stem of a ResNet.

An embedding joins class token, mean, maximum and attention over the last map.

Mean and maximum of a map hold different things: how much there is of a feature, and whether there is any. Attention is
the mean that a learned query weighs, softmax(x q / sqrt(D)) (Touvron et al. 2021, arXiv:2112.13692, in its simplest
form).
"""

from functools import partial, reduce
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from vis2img.models.layers import Array

Part = Literal["class", "mean", "max", "attention"]
PARTS: tuple[Part, ...] = ("class", "mean", "max", "attention")


class Pooling(nn.Module):
    """Join what is wanted of a class token and of patch tokens, or of the pixels of a map.

    Attributes
    ----------
    parts : tuple of str
        Of ``PARTS``, in the order of the result. "attention" has a parameter "query" (D,), which starts at 0, as the
        mean.
    """

    parts: tuple[Part, ...]

    @nn.compact
    def __call__(
        self, token: Float[Array, "batch dim"], patches: Float[Array, "batch patch dim"]
    ) -> Float[Array, "batch joined"]:
        """Return the parts side by side, in the precision of the tokens; sums are kept in float32."""
        return jnp.concatenate([self._part(part, token, patches) for part in self.parts], axis=-1)

    def _part(self, part: Part, token: Array, patches: Array) -> Array:
        if part == "class":
            return jnp.asarray(token)
        if part == "max":
            return patches.max(axis=1)
        x = patches.astype(jnp.float32)
        if part == "mean":
            return x.mean(axis=1).astype(patches.dtype)
        query = self.param("query", nn.initializers.zeros, (patches.shape[-1],))
        weights = jax.nn.softmax(x @ query * patches.shape[-1] ** -0.5, axis=1)  # (B, N)
        return jnp.einsum("bn,bnd->bd", weights, x).astype(patches.dtype)


def embedding_dim(parts: tuple[Part, ...], dim: int) -> int:
    """Length of an embedding of these parts of tokens of ``dim``; none stand for the class token or the mean."""
    return max(len(parts), 1) * dim


def max_pool(x: Float[Array, "batch y x channel"]) -> Float[Array, "batch row column channel"]:
    """Maximum over 3 x 3 pixels around every second one, the first included, as behind the stem of a ResNet.

    The same numbers as of ``nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))``; XLA's gradient of that takes a sixth of
    a training step on CPUs. Of equal largest values the topmost of the first column has the gradient.
    """
    return _max_of_three(_max_of_three(jnp.asarray(x), 1), 2)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_of_three(x: jax.Array, axis: int) -> jax.Array:
    return _max_of_three_forward(x, axis)[0]


def _max_of_three_forward(x: jax.Array, axis: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    largest = reduce(jnp.maximum, _threes(x, axis))
    return largest, (x, largest)


def _max_of_three_backward(axis: int, residuals: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array]:
    x, largest = residuals
    before, here, _ = _threes(x, axis)
    first = before == largest
    second = ~first & (here == largest)
    nothing = jnp.zeros((), gradient.dtype)
    of_before = jnp.where(first, gradient, nothing)
    of_here = jnp.where(second, gradient, nothing)
    of_behind = jnp.where(first | second, nothing, gradient)

    # What stands before one stands behind the one before: every second pixel has two gradients.
    ahead = lax.slice_in_dim(of_before, 1, None, axis=axis)
    of_behind += jnp.pad(ahead, [(0, int(i == axis)) for i in range(x.ndim)])
    pairs = jnp.stack([of_here, of_behind], axis=axis + 1)
    joined = pairs.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])
    return (lax.slice_in_dim(joined, 0, x.shape[axis], axis=axis),)


_max_of_three.defvjp(_max_of_three_forward, _max_of_three_backward)


def _threes(x: jax.Array, axis: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Every second pixel along an axis, between the one before it and the one behind."""
    size = x.shape[axis]
    low = jnp.asarray(-jnp.inf, x.dtype)
    even = lax.pad(x, low, [(0, size % 2 if i == axis else 0, 0) for i in range(x.ndim)])
    pairs = even.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
    here, behind = (lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in (0, 1))
    before = lax.pad(behind, low, [(1, -1, 0) if i == axis else (0, 0, 0) for i in range(x.ndim)])
    return before, here, behind
