"""The network on the views of a batch, one backbone pass per resolution, as student or as teacher."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Bool, Float, Float32

from vis2img.models.dino_head import DINOModel, Outputs
from vis2img.models.layers import Array


class Views(NamedTuple):
    """What a network gives for a batch.

    Attributes
    ----------
    logits, embeddings
        Of all views, the global ones first.
    patches
        Patch tokens of the global views, on request.
    stats
        Batch statistics after the pass; {} of networks without.
    guesses
        Of the adversary, of a student that has one.
    """

    logits: Float32[Array, "view batch out"]
    embeddings: Float32[Array, "view batch dim"]
    patches: Float[Array, "global_view batch patch dim"] | None
    stats: Any
    guesses: Float32[Array, "view batch number"] | None = None


def forward_views(
    model: DINOModel,
    params: Any,
    batch: Mapping[str, Array],
    *,
    student: bool,
    stats: Any = None,
    train: bool = True,
    drops: Float[Array, "view batch drop"] | None = None,
    masks: Bool[Array, "global_view batch patch"] | None = None,
    patches: bool = False,
) -> Views:
    """Run the network on the views of a batch: the student on all, the teacher on the global ones.

    Parameters
    ----------
    model, params
        Network and its parameters.
    batch
        "global" (n_global, B, G, G, C) and, for the student, "local" (L, B, S, S, C); L may be 0. "numbers" (view, B,
        number), where the head is told how views were imaged.
    student
        Which role the network plays.
    stats
        Batch statistics before the pass.
    train
        Normalise by the batch and update the statistics, or normalise by them.
    drops
        Random numbers of drop path.
    masks
        Patches to hide.
    patches
        Return patch tokens of the global views.
    """
    views = [batch["global"]]
    if student and "local" in batch and batch["local"].shape[0] > 0:
        views.append(batch["local"])
    n_global, n_views, batch_size = views[0].shape[0], sum(view.shape[0] for view in views), views[0].shape[1]

    outputs, changed = model.apply(
        {"params": params, "batch_stats": stats or {}},
        [_merge(view) for view in views],  # (V_i * B, y, x, C) each
        train=train,
        student=student,
        drops=None if drops is None else [_merge(part) for part in (drops[:n_global], drops[n_global:n_views])],
        masks=None if masks is None else _merge(masks),
        patches=patches,
        conditions=_merge(batch["numbers"][:n_views]) if model.conditions else None,
        method=DINOModel.forward,
        mutable=["batch_stats"],
    )
    return _split(outputs, n_views, batch_size, changed.get("batch_stats", {}))


def _split(outputs: Outputs, n_views: int, batch_size: int, stats: Any) -> Views:
    logits, embeddings = (x.reshape(n_views, batch_size, -1) for x in (outputs.logits, outputs.embeddings))
    patches = outputs.patches
    if patches is not None:
        patches = patches.reshape(-1, batch_size, *patches.shape[1:])
    guesses = None if outputs.guesses is None else outputs.guesses.reshape(n_views, batch_size, -1)
    return Views(logits, embeddings.astype(jnp.float32), patches, stats, guesses)


def _merge(x: Array) -> Array:
    """Join views and samples: (V, B, ...) becomes (V * B, ...)."""
    return x.reshape(-1, *x.shape[2:])
