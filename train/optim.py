"""The optimisers of DINO, in optax: AdamW, and for residual networks SGD or LARS.

Loshchilov & Hutter 2019 (arXiv:1711.05101) with what the published DINO code adds: each parameter tensor is
clipped by itself, vectors are not decayed, and the prototypes of the head are frozen at first. Learning rate,
weight decay and the freeze are arguments of ``update``, so that a skipped step cannot put the optimiser's
count and the schedules out of step.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from vis2img.train.config import OptimConfig

LAST_LAYER = "last_layer"
_MOMENTUM = 0.9  # of SGD and LARS


def clip_per_tensor(max_norm: float) -> optax.GradientTransformation:
    """Scale every tensor whose Euclidean norm exceeds ``max_norm`` down to it; 0 does nothing.

    The published code's ``coefficient = max_norm / (norm + 1e-6)``, applied when below 1.
    """
    if max_norm == 0.0:
        return optax.identity()

    def clip(grad: jax.Array) -> jax.Array:
        return grad * jnp.minimum(1.0, max_norm / (jnp.linalg.norm(grad.ravel()) + 1e-6))

    return optax.stateless(lambda updates, params: jax.tree.map(clip, updates))


def add_decay() -> optax.GradientTransformationExtraArgs:
    """Add ``weight_decay * p``; vectors and scalars are not decayed."""

    def update(updates: Any, state: Any, params: Any, *, weight_decay: Any, **_: Any) -> Any:
        decayed = jax.tree.map(lambda g, p: g + weight_decay * p if p.ndim > 1 else g, updates, params)
        return decayed, state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def trust_ratio(eta: float = 0.001) -> optax.GradientTransformation:
    """Scale the update of each matrix to ``eta`` times its norm (LARS, You et al. 2017, arXiv:1708.03888)."""

    def scale(update: jax.Array, param: jax.Array) -> jax.Array:
        if param.ndim < 2:
            return update
        size, length = jnp.linalg.norm(param.ravel()), jnp.linalg.norm(update.ravel())
        ratio = jnp.where((size > 0.0) & (length > 0.0), eta * size / jnp.where(length > 0.0, length, 1.0), 1.0)
        return update * ratio

    return optax.stateless(lambda updates, params: jax.tree.map(scale, updates, params))


def scale_by_rate() -> optax.GradientTransformationExtraArgs:
    """Multiply by ``-lr``."""

    def update(updates: Any, state: Any, params: Any = None, *, lr: Any, **_: Any) -> Any:
        return jax.tree.map(lambda u: -lr * u, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def hold_while_frozen(inner: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    """Give no update and keep ``inner``'s state while ``frozen`` is true.

    A zero gradient would not do: weight decay would still act, and Adam's bias correction would count the
    frozen steps, which makes the first steps after the thaw three times too large.
    """

    def update(updates: Any, state: Any, params: Any, *, frozen: jax.Array, **extra: Any) -> Any:
        new_updates, new_state = inner.update(updates, state, params, **extra)
        new_updates = jax.tree.map(lambda u: jnp.where(frozen, jnp.zeros_like(u), u), new_updates)
        return new_updates, jax.tree.map(lambda old, new: jnp.where(frozen, old, new), state, new_state)

    return optax.GradientTransformationExtraArgs(inner.init, update)


def label_params(params: Any) -> Any:
    """Tree of "last_layer" (the head's prototypes) or "body"."""

    def label(path: tuple[Any, ...], _: Any) -> str:
        return LAST_LAYER if any(getattr(key, "key", None) == LAST_LAYER for key in path) else "body"

    return jax.tree_util.tree_map_with_path(label, params)


def make_optimizer(config: OptimConfig) -> optax.GradientTransformationExtraArgs:
    """Build the optimiser.

    Returns
    -------
    GradientTransformationExtraArgs
        ``update(grads, state, params, lr=..., weight_decay=..., frozen=...)``, the last a boolean for the
        prototypes.
    """

    groups = {"body": _rule(config.optimizer), LAST_LAYER: hold_while_frozen(_rule(config.optimizer))}
    return optax.chain(clip_per_tensor(config.clip_grad), optax.partition(groups, label_params))


def _rule(name: str) -> optax.GradientTransformationExtraArgs:
    if name == "adamw":
        return optax.chain(_adam(), add_decay(), scale_by_rate())
    # Weight decay comes first in these: it is part of the gradient, as in torch's SGD and in LARS.
    rules = [add_decay(), optax.trace(decay=_MOMENTUM), scale_by_rate()]
    if name == "lars":
        rules.insert(1, trust_ratio())
    return optax.chain(*rules)


def _adam() -> optax.GradientTransformation:
    inner = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        # optax raises a float to the power of its step count, which strict promotion of dtypes refuses.
        with jax.numpy_dtype_promotion("standard"):
            return inner.update(updates, state, params)

    return optax.GradientTransformation(inner.init, update)
