"""Projector and predictor of BYOL (Grill et al. 2020, arXiv:2006.07733, section 3.1 and appendix J)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Float32

from vis2img.models.layers import Array, Linear, batch_norm


class BYOLHead(nn.Module):
    """Two MLPs of one hidden layer: the projector, and behind it, for the student alone, the predictor.

    Attributes
    ----------
    out_dim, hidden : int
        Width of the projections (256 in the paper) and of the hidden layers (4096).
    axis_name : str, optional
        Device axis of the batch statistics.
    dtype : dtype
        Of the computation; the result is float32.
    """

    out_dim: int = 256
    hidden: int = 4096
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, embedding: Float[Array, "row dim"], *, train: bool = False, student: bool = True
    ) -> Float32[Array, "row {self.out_dim}"]:
        """Map embeddings to projections, or the student's to predictions of the teacher's."""
        x = self._mlp(embedding, "projector", train)
        # The teacher runs through no predictor, but has its parameters, as its tree is the student's.
        return (self._mlp(x, "predictor", train) if student else x).astype(jnp.float32)

    def _mlp(self, x: Float[Array, "row dim"], name: str, train: bool) -> Float[Array, "row {self.out_dim}"]:
        x = Linear(self.hidden, self.dtype, name=f"{name}0")(x)
        x = batch_norm(x, train=train, axis_name=self.axis_name, dtype=self.dtype, name=f"{name}_bn")
        return Linear(self.out_dim, self.dtype, name=f"{name}1")(nn.relu(x))
