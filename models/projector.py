"""Projector of objectives without prototypes: an MLP between the vectors and the loss (Chen et al. 2020,
arXiv:2002.05709, section 2.1).
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Float32

from vis2img.models.layers import Array, Linear, hidden_layers


class Projector(nn.Module):
    """Linear layers with ReLU between them, none behind the last.

    Attributes
    ----------
    out_dim, hidden : int
        Width of the projections and of the hidden layers.
    layers : int
        In all; 2 is one hidden layer.
    use_bn : bool
        Batch normalisation before each ReLU.
    axis_name : str, optional
        Device axis of the batch statistics.
    dtype : dtype
        Of the computation; the result is float32.
    """

    out_dim: int = 256
    hidden: int = 1024
    layers: int = 2
    use_bn: bool = False
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, embedding: Float[Array, "row dim"], *, train: bool = False, student: bool = True
    ) -> Float32[Array, "row {self.out_dim}"]:
        """Map embeddings to projections; ``student`` changes nothing."""
        settings: dict[str, Any] = {"use_bn": self.use_bn, "axis_name": self.axis_name, "dtype": self.dtype}
        x = hidden_layers(embedding, self.hidden, self.layers - 1, nn.relu, train=train, **settings)
        return Linear(self.out_dim, self.dtype, name=f"mlp{self.layers - 1}")(x).astype(jnp.float32)
