"""The DINO objective: self-distillation with no labels.

Caron et al. 2021 (arXiv:2104.14294), algorithm 1. The student sees every view, the teacher only the global
ones; each teacher view is a target for every student view but itself. Centring (against one dimension
winning) and sharpening (against the uniform answer) together keep the teacher from collapsing.
"""

from typing import Any

import jax
import jax.numpy as jnp

from vis2img.models.dino_head import l2_normalise
from vis2img.train.objectives.dinov2 import sinkhorn
from vis2img.train.objectives.pairs import check_pairs, mean_over_pairs


def dino_loss(
    student_logits: jax.Array,
    teacher_logits: jax.Array,
    centre: jax.Array,
    *,
    student_temp: float | jax.Array,
    teacher_temp: float | jax.Array,
    n_global: int,
    centre_momentum: float,
    centring: str = "mean",
    axis_name: str | None = None,
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Cross-entropy of the student under the teacher over all pairs of different views (equations 2 to 4).

    Parameters
    ----------
    student_logits : (V, B, K)
        All views, the ``n_global`` global ones first.
    teacher_logits : (n_global, B, K)
        The same global views in the same order; no gradient flows into them.
    centre : (K,)
        Moving average of the teacher's logits *before* this batch.
    student_temp, teacher_temp : float
        Softmax temperatures.
    n_global : int
        Number of global views.
    centre_momentum : float
        m in ``centre <- m centre + (1 - m) mean(teacher_logits)``.
    centring : str
        "mean" takes the centre off the teacher's logits; "sinkhorn" balances its answers over the batch instead
        (`vis2img.train.objectives.dinov2.sinkhorn`) and leaves the centre out.
    axis_name : str, optional
        Device axis, for "sinkhorn" alone: everything returned is of this device.

    Returns
    -------
    loss : ()
        Mean over pairs and samples [nat].
    new_centre : (K,)
    stats : dict
        "entropy" () of the teacher [nat], "kl" () from teacher to student [nat], and "used" (K,), 1 for the outputs
        that are the teacher's first choice for at least one view.

    Raises
    ------
    ValueError
        If the shapes disagree or there is no pair of different views.
    """
    check_pairs(student_logits, teacher_logits, n_global)
    batch, out_dim = teacher_logits.shape[1:]
    teacher_logits = jax.lax.stop_gradient(teacher_logits)
    log_student = jax.nn.log_softmax(student_logits / student_temp)  # (V, B, K)
    if centring == "sinkhorn":
        rows = sinkhorn(teacher_logits.reshape(-1, out_dim), teacher_temp, axis_name=axis_name)
        log_teacher = rows.reshape(teacher_logits.shape)
    else:
        log_teacher = jax.nn.log_softmax((teacher_logits - centre[None, None]) / teacher_temp)  # (n_global, B, K)
    teacher = jnp.exp(log_teacher)
    loss = -mean_over_pairs(log_student, teacher)
    new_centre = centre_momentum * centre + (1.0 - centre_momentum) * jnp.mean(teacher_logits, axis=(0, 1))
    # 0 log 0 = 0, where log_teacher may be -inf for far outliers.
    entropy = -jnp.sum(jnp.where(teacher > 0.0, teacher * log_teacher, 0.0)) / (n_global * batch)
    stats = {"entropy": entropy, "kl": jax.lax.stop_gradient(loss) - entropy, "used": _used(log_teacher)}
    return loss, new_centre, stats


def _used(log_teacher: jax.Array) -> jax.Array:
    """1 for the outputs (K,) that win at least one row of (n_global, B, K), else 0."""
    winners = jnp.argmax(log_teacher, axis=-1).reshape(-1, 1)  # (n_global * B, 1)
    # A comparison instead of a scatter, which is slow on TPUs.
    return jnp.any(winners == jnp.arange(log_teacher.shape[-1])[None], axis=0).astype(jnp.float32)


def feature_std(embeddings: jax.Array, axis_name: str | None = None) -> jax.Array:
    """Spread of the embeddings' directions over a batch (Chen & He 2021, arXiv:2011.10566).

    Parameters
    ----------
    embeddings : (..., D)
        Leading axes are samples.
    axis_name : str, optional
        Device axis of the batch.

    Returns
    -------
    ()
        ``sqrt(D)`` times the root mean square, over dimensions, of the standard deviation of the
        L2-normalised embeddings: 1 for directions spread evenly over the sphere, 0 when all are the same.
    """

    def over_devices(x: jax.Array) -> jax.Array:
        return x if axis_name is None else jax.lax.pmean(x, axis_name)

    unit = l2_normalise(embeddings.reshape(-1, embeddings.shape[-1]), axis=-1)  # (N, D)
    mean = over_devices(jnp.mean(unit, axis=0, keepdims=True))  # (1, D)
    # Two passes, because the mean of squares minus the squared mean loses all digits near a collapse.
    return jnp.sqrt(jnp.sum(over_devices(jnp.mean((unit - mean) ** 2, axis=0))))


def ema_update(teacher: Any, student: Any, momentum: float | jax.Array) -> Any:
    """``momentum * teacher + (1 - momentum) * student``, leaf by leaf."""
    return jax.tree.map(lambda t, s: momentum * t + (1.0 - momentum) * s, teacher, student)
