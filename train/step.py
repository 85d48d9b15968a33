"""One training step: algorithm 1 of Caron et al. 2021 (arXiv:2104.14294), as a pure function."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float32, Key

from vis2img.models.dino_head import DINOModel
from vis2img.models.layers import Array, Scalar
from vis2img.train import schedules
from vis2img.train.config import OptimConfig
from vis2img.train.objectives.augment import jitter_views, turn_views
from vis2img.train.objectives.choices import Metrics
from vis2img.train.objectives.devices import device_count, first_sample, over_devices
from vis2img.train.objectives.dino import ema_update, feature_std
from vis2img.train.objectives.nuisance import standardised
from vis2img.train.objectives.objective import Extras, Memory, objective
from vis2img.train.optim import make_optimizer
from vis2img.train.state import TrainState
from vis2img.views.crops import ViewConfig

_DECAY = 0.98  # of moving averages that only tell how a run is: about the last 50 batches
_IN_USE = (1.0 - _DECAY) * _DECAY**50  # what is left of one use that long ago


def schedule_values(step: Scalar, optim: OptimConfig, *, batch: int, total_steps: int) -> Metrics:
    """Learning rate "lr", weight decay "wd", "momentum" and "teacher_temp" at a step, for a global batch."""
    return {
        "lr": schedules.cosine_with_warmup(
            step,
            peak=schedules.scaled_lr(optim.base_lr, batch),
            final=optim.min_lr,
            total_steps=total_steps,
            warmup_steps=optim.warmup_steps,
        ),
        "wd": schedules.weight_decay(
            step, start=optim.weight_decay, final=optim.weight_decay_end, total_steps=total_steps
        ),
        "momentum": schedules.teacher_momentum(step, start=optim.momentum_teacher, total_steps=total_steps)
        if optim.has_teacher
        else schedules.average_momentum(step, most=optim.momentum_teacher),
        "teacher_temp": schedules.teacher_temperature(
            step,
            start=optim.warmup_teacher_temp,
            final=optim.teacher_temp,
            warmup_steps=optim.warmup_teacher_temp_steps,
        ),
    }


def train_step(
    state: TrainState,
    batch: Mapping[str, Array],
    *,
    model: DINOModel,
    optim: OptimConfig,
    total_steps: int,
    axis_name: str | None = None,
    views: ViewConfig | None = None,
) -> tuple[TrainState, Metrics]:
    """Take one step.

    Parameters
    ----------
    state : TrainState
    batch : dict of float32
        Share of this device: "global" (n_global, B, G, G, C) and "local" (L, B, S, S, C), where L may be 0; and
        "turns" (n_global + L, B) if the views are still to be turned, see
        `vis2img.train.objectives.augment.turn_views`; what else travels with samples:
        `vis2img.loader.batches.Batch.arrays`.
    model, optim, total_steps
        Static: network, settings and length of the run [step]. With ``optim.accumulate`` parts the batch goes through
        the network in so many parts one after the other; batch statistics, Sinkhorn and KoLeo are then of the parts.
    axis_name : str, optional
        Device axis to average loss, gradients and centre over.
    views : ViewConfig, optional
        Static: how views still vary (`vis2img.train.objectives.augment.jitter_views`); default: they do not.

    Returns
    -------
    state : TrainState
        Unchanged apart from ``step`` if the loss or a gradient is not finite.
    metrics : dict of ()
        loss; entropy, kl [nat], usage (share of the prototypes, in this batch) and prototypes (number, in the last 50)
        of DINO; accuracy and same_sky of SimCLR; the terms of other objectives; koleo, ibot [nat] and nuisance where
        they are on; feature_std; grad_norm (before clipping); lr, wd, momentum, teacher_temp; finite (1 or 0). The same
        on every device.
    """
    batch = turn_views(batch)
    per_device = batch["global"].shape[1]
    values = schedule_values(state.step, optim, batch=per_device * device_count(axis_name), total_steps=total_steps)
    key = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
    keys = _sample_keys(key, per_device, axis_name)
    batch = (jitter_views(batch, keys, views) if views else batch) | {"keys": keys}
    if optim.nuisance != "none":
        batch["numbers"], batch["known"] = standardised(batch["imaging"], axis_name)

    settings: dict[str, Any] = {"model": model, "optim": optim, "axis_name": axis_name}
    loss = partial(objective, teacher=state.teacher, key=key, teacher_temp=values["teacher_temp"], **settings)
    total, grads, extras = _gradients(loss, state, batch, optim.accumulate)
    spread, moment = feature_std(extras.embeddings, axis_name), _second_moment(extras.embeddings)
    averages = (total, grads, extras.means, extras.memory, moment)
    total, grads, means, memory, moment = over_devices(jax.lax.pmean, averages, axis_name)
    winners = over_devices(jax.lax.pmax, extras.winners, axis_name)

    grad_norm = optax.tree.norm(grads)
    # After the averages, so that every device comes to the same verdict.
    finite = jnp.isfinite(total) & jnp.isfinite(grad_norm)
    usage = _DECAY * state.usage + (1.0 - _DECAY) * winners
    candidate = dataclasses.replace(_apply(state, grads, memory, moment, values, optim), usage=usage)
    state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), candidate, state).replace(step=state.step + 1)
    metrics = means | values | {"grad_norm": grad_norm, "feature_std": spread, "finite": finite.astype(jnp.float32)}
    if optim.objective == "dino":
        metrics["usage"] = jnp.mean(winners)
        metrics["prototypes"] = jnp.sum(state.usage > _IN_USE).astype(jnp.float32)
    return state, metrics


def _gradients(
    loss: Callable[..., tuple[Float32[Array, ""], Extras]], state: TrainState, batch: Mapping[str, Array], parts: int
) -> tuple[Float32[Array, ""], Any, Extras]:
    """Value, gradient and extras of a batch that goes through the network in ``parts`` one after the other."""
    evaluate = jax.value_and_grad(loss, has_aux=True)
    memory = Memory(state.stats, state.centre, state.patch_centre)
    if parts == 1:
        (total, extras), grads = evaluate(state.params, memory, batch)
        return total, grads, extras

    def cut(name: str, x: Array) -> Array:  # (V, B, ...) becomes (parts, V, B / parts, ...)
        if name == "keys":
            return x.reshape(parts, -1)
        return jnp.moveaxis(x.reshape(x.shape[0], parts, -1, *x.shape[2:]), 1, 0)

    def body(carry: tuple[Any, Any], part: Any) -> tuple[tuple[Any, Any], tuple[Array, Extras]]:
        sums, stats = carry
        (total, extras), grads = evaluate(state.params, memory._replace(stats=stats), part)
        sums = jax.tree.map(jnp.add, sums, grads)
        # Batch statistics move on from part to part; the rest is averaged below.
        return (sums, extras.memory.stats), (total, extras._replace(memory=extras.memory._replace(stats=())))

    start = (jax.tree.map(jnp.zeros_like, state.params), memory.stats)
    (sums, stats), (totals, extras) = jax.lax.scan(body, start, {name: cut(name, x) for name, x in batch.items()})

    grads = jax.tree.map(lambda x: x / parts, sums)
    averages = jax.tree.map(lambda x: jnp.mean(x, axis=0), (totals, extras.memory, extras.means))
    total, averaged, means = averages
    embeddings = jnp.moveaxis(extras.embeddings, 0, 1)  # (n_global, parts, B / parts, D)
    embeddings = embeddings.reshape(embeddings.shape[0], -1, embeddings.shape[-1])  # (n_global, B, D)
    return total, grads, Extras(averaged._replace(stats=stats), means, jnp.max(extras.winners, axis=0), embeddings)


def _second_moment(embeddings: Float32[Array, "*samples dim"]) -> Float32[Array, "dim dim"]:
    """Mean of z z^T over samples z."""
    flat = embeddings.reshape(-1, embeddings.shape[-1])
    # Its small eigenvalues are wanted, which fewer digits would drown.
    return jnp.matmul(flat.T, flat, precision=jax.lax.Precision.HIGHEST) / flat.shape[0]


def _sample_keys(key: Key[Array, ""], per_device: int, axis_name: str | None) -> Key[Array, " {per_device}"]:
    """Random keys of a step's samples, by their place in the global batch.

    So what is random is the same on any number of devices and in any number of parts.
    """
    samples = first_sample(per_device, axis_name) + jnp.arange(per_device)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(samples)


def _apply(
    state: TrainState, grads: Any, memory: Memory, moment: Array, values: Metrics, optim: OptimConfig
) -> TrainState:
    """Update the student, then the teacher from the updated student."""
    updates, opt_state = make_optimizer(optim).update(
        grads,
        state.opt_state,
        state.params,
        lr=values["lr"],
        weight_decay=values["wd"],
        frozen=state.step < optim.freeze_last_layer_steps,
    )
    params = optax.apply_updates(state.params, updates)
    return dataclasses.replace(
        state,
        params=params,
        teacher=ema_update(state.teacher, params, values["momentum"]),
        opt_state=opt_state,
        stats=memory.stats,
        centre=memory.centre,
        patch_centre=memory.patch_centre,
        moment=_DECAY * state.moment + (1.0 - _DECAY) * moment,
    )
