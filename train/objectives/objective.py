"""The objective of a run on a batch: which loss, of which views, with which terms beside it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float32, Int32, Key

from vis2img.models.dino_head import DINOModel
from vis2img.models.layers import Array
from vis2img.random import DROPS, MASKS
from vis2img.train.config import OptimConfig
from vis2img.train.objectives.choices import OBJECTIVES, Given, Metrics, settings_of_answers
from vis2img.train.objectives.dinov2 import Masks, draw_masks, ibot_loss, koleo
from vis2img.train.objectives.forward import Views, forward_views
from vis2img.train.objectives.nuisance import nuisance_loss


class Memory(NamedTuple):
    """What a step remembers beside the parameters.

    Attributes
    ----------
    stats : dict
        Batch statistics of "student" and "teacher".
    centre, patch_centre
        Moving averages of the teacher's logits: of views, and of patches with iBOT.
    """

    stats: Any
    centre: Float32[Array, " out"]
    patch_centre: Float32[Array, " out"]


class Extras(NamedTuple):
    """What the objective gives besides its value; all of this device and of this part of the batch.

    Attributes
    ----------
    memory
        As it is after the batch.
    means
        Metrics to average over devices and parts.
    winners
        1 for the prototypes in use, to join.
    embeddings
        The teacher's; the student's of objectives without one.
    """

    memory: Memory
    means: Metrics
    winners: Float32[Array, " out"]
    embeddings: Float32[Array, "global_view batch dim"]


def objective(
    params: Any,
    memory: Memory,
    batch: Mapping[str, Array],
    *,
    teacher: Any,
    key: Key[Array, ""],
    model: DINOModel,
    optim: OptimConfig,
    teacher_temp: Float32[Array, ""],
    axis_name: str | None,
) -> tuple[Float32[Array, ""], Extras]:
    """Value of the objective.

    Parameters
    ----------
    params, teacher
        Of student and teacher; the gradient is that by the first.
    memory : Memory
    batch
        Views, and "keys" (B,), the random key of each sample.
    key
        Of the step.
    model, optim, teacher_temp, axis_name
        As in `vis2img.train.step.train_step`.
    """
    masks = _masks(model, batch) if optim.ibot else None
    view = _of_student(model, params, memory, batch, masks)
    target = _of_teacher(model, teacher, memory, batch, masks) if optim.has_teacher else None
    n_global = batch["global"].shape[0]
    given = Given(view, target, n_global, batch, memory.centre, key, optim, teacher_temp, axis_name)

    value = OBJECTIVES[optim.objective](given)
    total, means = value.loss, {"loss": value.loss, **value.means}
    patch_centre = memory.patch_centre
    # Without a teacher its statistics are the student's, as its weights are an average of the student's.
    stats = {"student": view.stats, "teacher": (target or view).stats}

    if optim.koleo:
        # Summed over the views, as DINOv2 does: its weight means that.
        means["koleo"] = jnp.sum(jnp.stack([koleo(x, axis_name=axis_name) for x in view.embeddings[:n_global]]))
        total = total + optim.koleo * means["koleo"]

    if masks is not None and target is not None:
        student_logits, stats["student"] = _patch_logits(model, params, view, masks.candidates)
        teacher_logits, stats["teacher"] = _patch_logits(model, teacher, target, masks.candidates)
        weight = masks.weight.reshape(teacher_logits.shape[:2])  # (n_global * B, M)
        means["ibot"], patch_centre = ibot_loss(
            student_logits, teacher_logits, patch_centre, weight, **settings_of_answers(given)
        )
        total = total + optim.ibot * means["ibot"]

    if view.guesses is not None:
        # The weight is that of the reversed gradient: the head itself learns at the full rate.
        values, known = batch["numbers"][: len(view.guesses)], batch["known"][: len(view.guesses)]
        means["nuisance"] = nuisance_loss(view.guesses, values, known, axis_name)
        total = total + means["nuisance"]

    stats, embeddings = jax.lax.stop_gradient((stats, (target or view).embeddings[:n_global]))
    return total, Extras(Memory(stats, value.centre, patch_centre), means, value.winners, embeddings)


def _of_teacher(
    model: DINOModel, params: Any, memory: Memory, batch: Mapping[str, Array], masks: Masks | None
) -> Views:
    """What the teacher makes of the global views, in full sight."""
    patches = masks is not None
    return forward_views(model, params, batch, student=False, stats=memory.stats["teacher"], patches=patches)


def _of_student(
    model: DINOModel, params: Any, memory: Memory, batch: Mapping[str, Array], masks: Masks | None
) -> Views:
    """What the student makes of all views, with patches hidden if there are masks."""
    return forward_views(
        model,
        params,
        batch,
        student=True,
        stats=memory.stats["student"],
        drops=_drops(model, batch),
        masks=None if masks is None else masks.mask,
        patches=masks is not None,
    )


def _drops(model: DINOModel, batch: Mapping[str, Array]) -> Float32[Array, "view batch drop"] | None:
    """Random numbers for drop path: of each sample by its own key, however the batch is spread."""
    n_drops = getattr(model.backbone, "n_drops", 0)
    if not n_drops:
        return None
    n_views = sum(batch[name].shape[0] for name in ("global", "local") if name in batch)
    draw = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, DROPS), (n_views, n_drops)))
    return draw(batch["keys"]).swapaxes(0, 1)


def _masks(model: DINOModel, batch: Mapping[str, Array]) -> Masks:
    n_global, _, height, width = batch["global"].shape[:4]
    n_patches = (height // model.backbone.patch) * (width // model.backbone.patch)

    def of_view(key: Array, view: Array) -> Masks:
        return draw_masks(jax.random.fold_in(jax.random.fold_in(key, MASKS), view), n_patches)

    of_sample = jax.vmap(of_view, in_axes=(0, None))
    return jax.vmap(of_sample, in_axes=(None, 0))(batch["keys"], jnp.arange(n_global))  # (n_global, B, ...)


def _patch_logits(
    model: DINOModel, params: Any, views: Views, candidates: Int32[Array, "global_view batch candidate"]
) -> tuple[Float32[Array, "global_view*batch candidate out"], Any]:
    """Logits of candidate patches, by the head that the class token has, and batch statistics.

    Batch normalisation in the head, if any, is by the candidates of the batch, and moves its statistics on from where
    the class tokens left them.
    """
    assert views.patches is not None
    tokens = jnp.take_along_axis(views.patches, candidates[..., None], axis=2)  # (n_global, B, M, D)
    flat, changed = model.apply(
        {"params": params, "batch_stats": views.stats},
        tokens.reshape(-1, tokens.shape[-1]),
        train=True,
        method=DINOModel.project,
        mutable=["batch_stats"],
    )
    return flat.reshape(-1, candidates.shape[-1], flat.shape[-1]), changed.get("batch_stats", {})
