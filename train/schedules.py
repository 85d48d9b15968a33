"""What changes over a run: learning rate, weight decay, teacher momentum and teacher temperature.

Caron et al. 2021 (arXiv:2104.14294), section 4, "Implementation details". Every function is pure in ``step``,
which may be a Python integer or a traced value, and returns a float32 scalar; beyond the end of a run the
final value holds.
"""

import math

import jax.numpy as jnp
from jaxtyping import Float32

from vis2img.models.layers import Array, Scalar


def scaled_lr(base_lr: float, batch: int) -> float:
    """Peak rate of a global batch, ``base_lr * batch / 256`` (Goyal et al. 2017, arXiv:1706.02677)."""
    return base_lr * batch / 256.0


def cosine(step: Scalar, *, start: float, final: float, total_steps: int) -> Float32[Array, ""]:
    """Half a cosine from ``start`` at step 0 to ``final`` at ``total_steps``.

    Loshchilov & Hutter 2017 (arXiv:1608.03983), equation 5, without restarts.

    Raises
    ------
    ValueError
        If ``total_steps`` is not positive.
    """
    if total_steps <= 0:
        raise ValueError(f"total_steps must be positive, got {total_steps}")
    progress = jnp.clip(jnp.asarray(step, jnp.float32) / total_steps, 0.0, 1.0)
    return final + 0.5 * (start - final) * (1.0 + jnp.cos(math.pi * progress))


def cosine_with_warmup(
    step: Scalar, *, peak: float, final: float, total_steps: int, warmup_steps: int
) -> Float32[Array, ""]:
    """Linear from 0 to ``peak`` in ``warmup_steps`` values, then half a cosine to ``final`` at ``total_steps``.

    The published array: the warm-up's last value and the cosine's first are both the peak.

    Raises
    ------
    ValueError
        If the warm-up does not end before the run does.
    """
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(f"warmup_steps ({warmup_steps}) must be in [0, total_steps={total_steps})")
    step = jnp.asarray(step, jnp.float32)
    decay = cosine(step - warmup_steps, start=peak, final=final, total_steps=total_steps - warmup_steps)
    return jnp.where(step < warmup_steps, peak * step / max(warmup_steps - 1, 1), decay)


def weight_decay(step: Scalar, *, start: float = 0.04, final: float = 0.4, total_steps: int) -> Float32[Array, ""]:
    """Weight decay, rising along a cosine."""
    return cosine(step, start=start, final=final, total_steps=total_steps)


def teacher_momentum(step: Scalar, *, start: float = 0.996, final: float = 1.0, total_steps: int) -> Float32[Array, ""]:
    """Momentum of the teacher's moving average, rising along a cosine to a teacher that stands still."""
    return cosine(step, start=start, final=final, total_steps=total_steps)


def average_momentum(step: Scalar, *, most: float) -> Float32[Array, ""]:
    """Momentum of an average of weights that nothing learns from: constant, but at first, when it would hardly move.

    ``min(most, (1 + step) / (10 + step))``, so that the initial weights are soon forgotten.
    """
    step = jnp.asarray(step, jnp.float32)
    return jnp.minimum(most, (1.0 + step) / (10.0 + step))


def teacher_temperature(
    step: Scalar, *, start: float = 0.04, final: float = 0.07, warmup_steps: int
) -> Float32[Array, ""]:
    """Teacher temperature: linear from ``start`` to ``final`` over ``warmup_steps``, then constant."""
    progress = jnp.asarray(step, jnp.float32) / warmup_steps if warmup_steps > 0 else jnp.float32(1.0)
    return start + (final - start) * jnp.clip(progress, 0.0, 1.0)
