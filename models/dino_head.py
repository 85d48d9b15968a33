"""DINO projection head, and the backbone-plus-head network that student and teacher share.

Caron et al. 2021 (arXiv:2104.14294), section 3.1 and appendix C: a three-layer MLP, an L2-normalised
bottleneck and a weight-normalised last layer, so that the logits are cosines between the bottleneck and K
prototypes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Float32

from vis2img.models.layers import Array, Linear, gelu, hidden_layers, logits_of

# Only the direction of v matters to the output, but its length sets how fast that direction can turn: keep
# the published U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
_PROTOTYPE_INIT = nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")


def l2_normalise(x: Float[Array, "*shape"], axis: int) -> Float32[Array, "*shape"]:
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
        Width of the hidden layers and of the bottleneck.
    norm_last_layer : bool
        Keep the prototypes' length g at 1; otherwise g is learned (Salimans & Kingma 2016, arXiv:1602.07868).
    layers : int
        Layers of the MLP, the bottleneck's included.
    use_bn : bool
        Batch normalisation after each hidden layer.
    axis_name : str, optional
        Device axis of the batch statistics.
    dtype : dtype
        Of the computation; the normalisations are float32, and so are the logits.
    """

    out_dim: int
    hidden: int = 2048
    bottleneck: int = 256
    norm_last_layer: bool = True
    layers: int = 3
    use_bn: bool = False
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, embedding: Float[Array, "row dim"], *, train: bool = False, student: bool = True
    ) -> Float32[Array, "row {self.out_dim}"]:
        """Map embeddings to logits; ``student`` changes nothing, as both roles are alike."""
        settings: dict[str, Any] = {"use_bn": self.use_bn, "axis_name": self.axis_name, "dtype": self.dtype}
        x = hidden_layers(embedding, self.hidden, self.layers - 1, gelu, train=train, **settings)
        x = Linear(self.bottleneck, self.dtype, name=f"mlp{self.layers - 1}")(x)
        x = l2_normalise(x, axis=-1)  # (N, bottleneck)
        return _LastLayer(self.out_dim, self.norm_last_layer, self.dtype, name="last_layer")(x)


class _LastLayer(nn.Module):
    """``g * x @ v / |v|``, norm per output; a module, so that one name is enough to freeze it by."""

    out_dim: int
    norm_last_layer: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "row dim"]) -> Float32[Array, "row {self.out_dim}"]:
        v = self.param("v", _PROTOTYPE_INIT, (x.shape[-1], self.out_dim))
        unit = l2_normalise(v, axis=0).astype(self.dtype)
        logits = logits_of(x.astype(self.dtype), unit)  # (N, K)
        if not self.norm_last_layer:
            # (1, K) and not (K,): the published optimiser decays it, as it decays all but vectors.
            logits = logits * self.param("g", nn.initializers.ones, (1, self.out_dim))
        return logits


class Outputs(NamedTuple):
    """What a network gives for crops of several resolutions.

    Attributes
    ----------
    logits
        Of the head.
    embeddings
        Of the backbone.
    patches
        Patch tokens of the crops of the first resolution, on request.
    guesses
        Of the adversary, of a student that has one.
    """

    logits: Float32[Array, "row out"]
    embeddings: Float[Array, "row dim"]
    patches: Float[Array, "batch patch dim"] | None = None
    guesses: Float32[Array, "row number"] | None = None


class DINOModel(nn.Module):
    """Backbone and head; parameters are ``{"backbone": ..., "head": ...}``.

    Attributes
    ----------
    backbone, head : Module
    turns : int
        What becomes of a trained one: over how many symmetries of the square, 1 or 8, the vector of a picture is
        averaged. Training looks at each view as it is.
    stages : int
        Of a trained residual network: how many of its last stages a vector is made of.
    adversary : Module, optional
        What the embeddings are to keep things from (`vis2img.models.adversary`), with parameters "adversary".
    conditions : int
        How many numbers the head, and not the backbone, is told of each crop.
    """

    backbone: nn.Module
    head: nn.Module
    turns: int = 1
    stages: int = 1
    adversary: nn.Module | None = None
    conditions: int = 0

    def __call__(
        self, crops: Sequence[Array], *, train: bool = False
    ) -> tuple[Float32[Array, "row out"], Float[Array, "row dim"]]:
        """Embed crops of several resolutions and project them: logits and embeddings, as `forward`."""
        outputs = self.forward(crops, train=train)
        return outputs.logits, outputs.embeddings

    def forward(
        self,
        crops: Sequence[Float[Array, "_ _ _ channel"]],
        *,
        train: bool = False,
        student: bool = True,
        drops: Sequence[Float[Array, "_ drop"]] | None = None,
        masks: Bool[Array, "batch patch"] | None = None,
        patches: bool = False,
        conditions: Float[Array, "row number"] | None = None,
    ) -> Outputs:
        """Embed crops of several resolutions and project them.

        Parameters
        ----------
        crops
            (batch, y, x, channel), one array per resolution: one backbone pass each, and one head pass over all.
        train : bool
            Use and update batch statistics, of networks that have them.
        student : bool
            Which role the head plays; only that of BYOL makes a difference.
        drops
            Random numbers of drop path for each resolution.
        masks
            Patches to hide in the crops of the first resolution.
        patches : bool
            Return the patch tokens of the crops of the first resolution.
        conditions
            What the head is told, of all crops in turn; default: zeros.
        """
        embeddings, tokens = [], None
        for i, crop in enumerate(crops):
            wanted = patches and i == 0
            embedding, out = self.backbone(
                crop,
                train=train,
                drop=None if drops is None else drops[i],
                masks=masks if i == 0 else None,
                patches=wanted,
            )
            embeddings.append(embedding)
            tokens = out["patches"] if wanted else tokens
        joined = jnp.concatenate(embeddings)
        told = joined
        if self.conditions:
            if conditions is None:
                conditions = jnp.zeros((joined.shape[0], self.conditions), joined.dtype)
            told = jnp.concatenate([joined, conditions.astype(joined.dtype)], axis=1)
        logits = self.head(told, train=train, student=student)
        guesses = self.adversary(joined) if self.adversary is not None and student else None
        return Outputs(logits, joined, tokens, guesses)

    def project(self, tokens: Float[Array, "row dim"], *, train: bool = False) -> Float32[Array, "row out"]:
        """Project tokens with the head."""
        return self.head(tokens, train=train)
