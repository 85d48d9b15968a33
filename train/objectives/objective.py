"""The objective of a run on a batch: which loss, of which views, with which terms beside it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vis2img.models.dino_head import DINOModel
from vis2img.random import DROPS, MASKS
from vis2img.train.config import OptimConfig
from vis2img.train.objectives.byol import byol_loss
from vis2img.train.objectives.dino import dino_loss
from vis2img.train.objectives.dinov2 import Masks, draw_masks, ibot_loss, koleo
from vis2img.train.objectives.forward import Views, forward_views

Metrics = dict[str, jax.Array]


class Memory(NamedTuple):
    """What a step remembers beside the parameters.

    Attributes
    ----------
    stats : dict
        Batch statistics of "student" and "teacher".
    centre, patch_centre : (K,)
        Moving averages of the teacher's logits: of views, and of patches with iBOT.
    """

    stats: Any
    centre: jax.Array
    patch_centre: jax.Array


class Found(NamedTuple):
    """What the objective found besides its value; all of this device and of this part of the batch.

    Attributes
    ----------
    memory : Memory
        As it is after the batch.
    means : dict of ()
        Metrics to average over devices and parts.
    used : (K,)
        Prototypes in use, to join.
    embeddings : (n_global, B, D)
        The teacher's.
    """

    memory: Memory
    means: Metrics
    used: jax.Array
    embeddings: jax.Array


def objective(
    params: Any,
    teacher: Any,
    memory: Memory,
    batch: Mapping[str, jax.Array],
    *,
    model: DINOModel,
    optim: OptimConfig,
    teacher_temp: jax.Array,
    axis_name: str | None,
) -> tuple[jax.Array, Found]:
    """Value of the objective.

    Parameters
    ----------
    params, teacher : dict
        Of student and teacher; the gradient is that by the first.
    memory : Memory
    batch : dict
        Views, and "keys" (B,), the random key of each sample.
    model, optim, teacher_temp, axis_name
        As in `vis2img.train.step.train_step`.

    Returns
    -------
    loss : ()
    found : Found
    """
    masks = _masks(model, batch) if optim.ibot else None
    with_patches = masks is not None
    seen = forward_views(model, teacher, batch, student=False, stats=memory.stats["teacher"], patches=with_patches)
    view = forward_views(
        model,
        params,
        batch,
        student=True,
        stats=memory.stats["student"],
        drops=_drops(model, batch),
        masks=None if masks is None else masks.hidden,
        patches=with_patches,
    )
    of_student, of_teacher = view.stats, seen.stats
    n_global = batch["global"].shape[0]
    centre, patch_centre, used = memory.centre, memory.patch_centre, jnp.zeros_like(memory.centre)
    means: Metrics = {}
    settings: dict[str, Any] = {
        "student_temp": optim.student_temp,
        "teacher_temp": teacher_temp,
        "centre_momentum": optim.centre_momentum,
        "centring": optim.centring,
        "axis_name": axis_name,
    }
    if optim.objective == "byol":
        loss = byol_loss(view.logits, seen.logits, n_global=n_global)
    else:
        loss, centre, found = dino_loss(view.logits, seen.logits, centre, n_global=n_global, **settings)
        used = found["used"]
        means |= {"entropy": found["entropy"], "kl": found["kl"]}
    total = loss
    if optim.koleo:
        # Summed over the views, as DINOv2 does: its weight means that.
        spread = jnp.sum(jnp.stack([koleo(x, axis_name=axis_name) for x in view.embeddings[:n_global]]))
        total, means["koleo"] = total + optim.koleo * spread, spread
    if masks is not None:
        student, of_student = _patch_logits(model, params, view, masks.chosen)
        target, of_teacher = _patch_logits(model, teacher, seen, masks.chosen)
        weight = masks.weight.reshape(target.shape[:2])
        hidden, patch_centre = ibot_loss(student, target, patch_centre, weight, **settings)
        total, means["ibot"] = total + optim.ibot * hidden, hidden
    means["loss"] = loss
    stats = {"student": of_student, "teacher": jax.lax.stop_gradient(of_teacher)}
    return total, Found(Memory(stats, centre, patch_centre), means, used, seen.embeddings)


def _drops(model: DINOModel, batch: Mapping[str, jax.Array]) -> jax.Array | None:
    """Random numbers (V, B, n) for drop path: of each sample by its own key, however the batch is spread."""
    n_drops = getattr(model.backbone, "n_drops", 0)
    if not n_drops:
        return None
    n_views = sum(batch[name].shape[0] for name in ("global", "local") if name in batch)
    draw = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, DROPS), (n_views, n_drops)))
    return draw(batch["keys"]).swapaxes(0, 1)


def _masks(model: DINOModel, batch: Mapping[str, jax.Array]) -> Masks:
    n_global, _, height, width = batch["global"].shape[:4]
    n_patches = (height // model.backbone.patch) * (width // model.backbone.patch)

    def of_view(key: jax.Array, view: jax.Array) -> Masks:
        return draw_masks(jax.random.fold_in(jax.random.fold_in(key, MASKS), view), n_patches)

    of_sample = jax.vmap(of_view, in_axes=(0, None))
    return jax.vmap(of_sample, in_axes=(None, 0))(batch["keys"], jnp.arange(n_global))  # (n_global, B, ...)


def _patch_logits(model: DINOModel, weights: Any, views: Views, chosen: jax.Array) -> tuple[jax.Array, Any]:
    """Logits (n_global * B, M, K) of candidate patches, by the head that the class token has, and batch statistics.

    Batch normalisation in the head, if any, is by the candidates of the batch, and moves its statistics on from where
    the class tokens left them.
    """
    assert views.patches is not None
    tokens = jnp.take_along_axis(views.patches, chosen[..., None], axis=2)  # (n_global, B, M, D)
    flat, changed = model.apply(
        {"params": weights, "batch_stats": views.stats},
        tokens.reshape(-1, tokens.shape[-1]),
        train=True,
        method=DINOModel.project,
        mutable=["batch_stats"],
    )
    return flat.reshape(-1, chosen.shape[-1], flat.shape[-1]), changed.get("batch_stats", {})
