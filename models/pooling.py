"""What an embedding is made of: class token, mean, maximum and attention over the last map, joined.

Mean and maximum of a map hold different things: how much there is of a feature, and whether there is any. Attention is
the mean that a learned query weighs, softmax(x q / sqrt(D)) (Touvron et al. 2021, arXiv:2112.13692, in its simplest
form).
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
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
