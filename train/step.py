"""One training step: algorithm 1 of Caron et al. 2021 (arXiv:2104.14294), as a pure function."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from models.dino_head import DINOModel
from train import schedules
from train.augment import turn_views
from train.config import OptimConfig
from train.dino import dino_loss, ema_update, feature_std, forward_views
from train.optim import make_optimizer
from train.state import TrainState

Metrics = dict[str, jax.Array]


def schedule_values(step: schedules.Step, optim: OptimConfig, *, batch: int, total_steps: int) -> Metrics:
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
        "momentum": schedules.teacher_momentum(step, start=optim.momentum_teacher, total_steps=total_steps),
        "teacher_temp": schedules.teacher_temperature(
            step,
            start=optim.warmup_teacher_temp,
            final=optim.teacher_temp,
            warmup_steps=optim.warmup_teacher_temp_steps,
        ),
    }


def train_step(
    state: TrainState,
    batch: Mapping[str, jax.Array],
    *,
    model: DINOModel,
    optim: OptimConfig,
    total_steps: int,
    axis_name: str | None = None,
) -> tuple[TrainState, Metrics]:
    """Take one step.

    Parameters
    ----------
    state : TrainState
    batch : dict of float32
        Share of this device: "global" (n_global, B, G, G, C) and "local" (L, B, S, S, C), where L may be 0; and
        "turns" (n_global + L, B) if the views are still to be turned, see `train.augment.turn_views`.
    model, optim, total_steps
        Static: network, settings and length of the run [step].
    axis_name : str, optional
        Device axis to average loss, gradients and centre over.

    Returns
    -------
    state : TrainState
        Unchanged apart from ``step`` if the loss or a gradient is not finite.
    metrics : dict of ()
        loss, entropy, kl [nat]; usage, feature_std; grad_norm (before clipping); lr, wd, momentum,
        teacher_temp; finite (1 or 0). The same on every device.
    """
    batch = turn_views(batch)
    devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    n_global, per_device = batch["global"].shape[:2]
    values = schedule_values(state.step, optim, batch=per_device * devices, total_steps=total_steps)
    teacher_logits, teacher_features = forward_views(model, state.teacher, batch, local=False)

    def objective(params: Any) -> tuple[jax.Array, tuple[jax.Array, Metrics]]:
        rng = _step_rng(state, axis_name)
        logits, _ = forward_views(model, params, batch, local=True, train=True, rng=rng)
        loss, centre, stats = dino_loss(
            logits,
            teacher_logits,
            state.centre,
            student_temp=optim.student_temp,
            teacher_temp=values["teacher_temp"],
            n_global=n_global,
            centre_momentum=optim.centre_momentum,
            axis_name=axis_name,
        )
        return loss, (centre, stats)

    (loss, (centre, stats)), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
    if axis_name is not None:
        loss, grads = jax.lax.pmean((loss, grads), axis_name)
    grad_norm = optax.tree.norm(grads)
    # After the averages, so that every device comes to the same verdict.
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    candidate = _apply(state, grads, centre, values, optim)
    kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), candidate, state)
    metrics = {
        **stats,
        **values,
        "loss": loss,
        "grad_norm": grad_norm,
        "feature_std": feature_std(teacher_features, axis_name),
        "finite": finite.astype(jnp.float32),
    }
    return dataclasses.replace(kept, step=state.step + 1), metrics


def _step_rng(state: TrainState, axis_name: str | None) -> jax.Array:
    """Key of this step on this device."""
    rng = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
    return rng if axis_name is None else jax.random.fold_in(rng, jax.lax.axis_index(axis_name))


def _apply(state: TrainState, grads: Any, centre: jax.Array, values: Metrics, optim: OptimConfig) -> TrainState:
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
    teacher = ema_update(state.teacher, params, values["momentum"])
    return dataclasses.replace(state, params=params, teacher=teacher, opt_state=opt_state, centre=centre)
