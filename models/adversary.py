"""What is to be forgotten: a head that tells it from the vectors, and a gradient that turns round on its way to them.

Ganin & Lempitsky 2015 (arXiv:1409.7495): the head learns to tell, and the backbone to keep it from telling.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Float32

from vis2img.models.dino_head import l2_normalise
from vis2img.models.layers import Array, Linear


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def reverse_gradient(x: Float[Array, "*shape"], weight: float) -> Float[Array, "*shape"]:
    """``x``; its gradient is ``-weight`` times that of the result."""
    return x


def _reverse_forward(x: Array, weight: float) -> tuple[Array, None]:
    return x, None


def _reverse_backward(weight: float, _: None, gradient: Array) -> tuple[Array]:
    return (-weight * gradient,)


reverse_gradient.defvjp(_reverse_forward, _reverse_backward)


class Adversary(nn.Module):
    """Guess numbers from the directions of vectors, by an MLP of one hidden layer behind `reverse_gradient`.

    Attributes
    ----------
    out_dim, hidden : int
        How many numbers, and width of the hidden layer.
    weight : float
        Of the reversed gradient.
    dtype : dtype
        Of the computation; the result is float32.
    """

    out_dim: int
    hidden: int = 256
    weight: float = 1.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, embedding: Float[Array, "row dim"]) -> Float32[Array, "row {self.out_dim}"]:
        """Guess the numbers of each row."""
        # Of length sqrt(D): the backbone cannot hide by making its vectors small.
        unit = l2_normalise(embedding, axis=-1) * embedding.shape[-1] ** 0.5
        x = reverse_gradient(unit, self.weight)
        x = nn.relu(Linear(self.hidden, self.dtype, name="mlp0")(x))
        return Linear(self.out_dim, self.dtype, name="mlp1")(x).astype(jnp.float32)
