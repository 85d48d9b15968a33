"""DINO projection head, and the backbone-plus-head network that student and teacher share.

Caron et al. 2021 (arXiv:2104.14294), section 3.1 and appendix C: a three-layer MLP, an L2-normalised
bottleneck and a weight-normalised last layer, so that the logits are cosines between the bottleneck and K
prototypes.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

_LINEAR_INIT = nn.initializers.truncated_normal(stddev=0.02)
# Only the direction of v matters to the output, but its length sets how fast that direction can turn: keep
# the published U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
_PROTOTYPE_INIT = nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")


def l2_normalise(x: jax.Array, axis: int) -> jax.Array:
    """Divide by the Euclidean norm along ``axis``, in float32; zero stays zero, with a finite gradient."""
    x = x.astype(jnp.float32)
    square = jnp.sum(x * x, axis=axis, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))


class DINOHead(nn.Module):
    """MLP, L2-normalised bottleneck, weight-normalised linear layer without bias.

    Attributes
    ----------
    out_dim : int
        Number of prototypes K.
    hidden, bottleneck : int
        Width of the two hidden layers and of the bottleneck.
    norm_last_layer : bool
        Keep the prototypes' length g at 1; otherwise g is learned (Salimans & Kingma 2016, arXiv:1602.07868).
    dtype : dtype
        Of the MLP; the normalisations and the logits are float32.
    """

    out_dim: int
    hidden: int = 2048
    bottleneck: int = 256
    norm_last_layer: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, embedding: jax.Array) -> jax.Array:
        """Map embeddings (N, D) to logits (N, K)."""
        x = embedding
        for i, width in enumerate((self.hidden, self.hidden, self.bottleneck)):
            x = nn.Dense(width, dtype=self.dtype, kernel_init=_LINEAR_INIT, name=f"mlp{i}")(x)
            if i < 2:
                x = nn.gelu(x, approximate=False)
        x = l2_normalise(x, axis=-1)  # (N, bottleneck)
        return _LastLayer(self.out_dim, self.norm_last_layer, name="last_layer")(x)


class _LastLayer(nn.Module):
    """``g * x @ v / |v|``, norm per output; a module, so that one name is enough to freeze it by."""

    out_dim: int
    norm_last_layer: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        v = self.param("v", _PROTOTYPE_INIT, (x.shape[-1], self.out_dim))
        logits = x @ l2_normalise(v, axis=0)  # (N, K)
        if not self.norm_last_layer:
            logits = logits * self.param("g", nn.initializers.ones, (self.out_dim,))
        return logits


class DINOModel(nn.Module):
    """Backbone and head; parameters are ``{"backbone": ..., "head": ...}``."""

    backbone: nn.Module
    head: nn.Module

    def __call__(self, crops: Sequence[jax.Array], *, train: bool = False) -> tuple[jax.Array, jax.Array]:
        """Embed crops of several resolutions and project them.

        Parameters
        ----------
        crops : sequence of (N_i, y_i, x_i, C)
            One array per resolution: one backbone pass each, and one head pass over all.

        Returns
        -------
        logits : (sum N_i, K)
        embeddings : (sum N_i, D)
        """
        embeddings = jnp.concatenate([self.backbone(crop, train=train)[0] for crop in crops])
        return self.head(embeddings), embeddings
