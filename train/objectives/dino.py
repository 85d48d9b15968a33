"""The DINO objective: self-distillation with no labels.

Caron et al. 2021 (arXiv:2104.14294), algorithm 1. The student sees every view, the teacher only the global
ones; each teacher view is a target for every student view but itself. Centring (against one dimension
winning) and sharpening (against the uniform answer) together keep the teacher from collapsing.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Float32

from vis2img.models.dino_head import l2_normalise
from vis2img.models.layers import Array, Scalar
from vis2img.train.objectives.devices import over_devices
from vis2img.train.objectives.dinov2 import sinkhorn
from vis2img.train.objectives.pairs import check_pairs, mean_over_pairs


def dino_loss(
    student_logits: Float32[Array, "view batch out"],
    teacher_logits: Float32[Array, "global_view batch out"],
    centre: Float32[Array, " out"],
    *,
    student_temp: Scalar,
    teacher_temp: Scalar,
    n_global: int,
    centre_momentum: float,
    centring: str = "mean",
    axis_name: str | None = None,
) -> tuple[Float32[Array, ""], Float32[Array, " out"], dict[str, Float32[Array, "..."]]]:
    """Cross-entropy of the student under the teacher over all pairs of different views (equations 2 to 4).

    Parameters
    ----------
    student_logits
        All views, the ``n_global`` global ones first.
    teacher_logits
        The same global views in the same order; no gradient flows into them.
    centre
        Moving average of the teacher's logits *before* this batch.
    student_temp, teacher_temp
        Softmax temperatures.
    n_global
        Number of global views.
    centre_momentum
        m in ``centre <- m centre + (1 - m) mean(teacher_logits)``.
    centring
        "mean" takes the centre off the teacher's logits; "sinkhorn" balances its answers over the batch instead
        (`vis2img.train.objectives.dinov2.sinkhorn`) and leaves the centre out.
    axis_name
        Device axis, for "sinkhorn" alone: everything returned is of this device.

    Returns
    -------
    loss
        Mean over pairs and samples [nat].
    new_centre
    stats
        "entropy" () of the teacher [nat], "kl" () from teacher to student [nat], and "winners" (K,), 1 for the outputs
        that are the teacher's first choice for at least one view.

    Raises
    ------
    ValueError
        If the shapes disagree or there is no pair of different views.
    """
    check_pairs(student_logits, teacher_logits, n_global)
    teacher_logits = jax.lax.stop_gradient(teacher_logits)
    log_student = jax.nn.log_softmax(student_logits / student_temp)  # (V, B, K)
    log_teacher = _log_answers(teacher_logits, centre, teacher_temp, centring, axis_name)
    teacher = jnp.exp(log_teacher)

    loss = -mean_over_pairs(log_student, teacher)
    new_centre = centre_momentum * centre + (1.0 - centre_momentum) * jnp.mean(teacher_logits, axis=(0, 1))
    entropy = _entropy(teacher, log_teacher)
    stats = {"entropy": entropy, "kl": jax.lax.stop_gradient(loss) - entropy, "winners": _winners(log_teacher)}
    return loss, new_centre, stats


def _log_answers(
    logits: Float32[Array, "view batch out"], centre: Array, temp: Scalar, centring: str, axis_name: str | None
) -> Float32[Array, "view batch out"]:
    if centring == "sinkhorn":
        return sinkhorn(logits.reshape(-1, centre.size), temp, axis_name=axis_name).reshape(logits.shape)
    return jax.nn.log_softmax((logits - centre[None, None]) / temp)


def _entropy(p: Float32[Array, "view batch out"], log_p: Float32[Array, "view batch out"]) -> Float32[Array, ""]:
    # 0 log 0 = 0, where log_p may be -inf for far outliers.
    return -jnp.sum(jnp.where(p > 0.0, p * log_p, 0.0)) / (p.shape[0] * p.shape[1])


def _winners(log_teacher: Float32[Array, "view batch out"]) -> Float32[Array, " out"]:
    """1 for the outputs that win at least one row, else 0."""
    first = jnp.argmax(log_teacher, axis=-1).reshape(-1, 1)  # (n_global * B, 1)
    # A comparison instead of a scatter, which is slow on TPUs.
    return jnp.any(first == jnp.arange(log_teacher.shape[-1])[None], axis=0).astype(jnp.float32)


def feature_std(embeddings: Float[Array, "*samples dim"], axis_name: str | None = None) -> Float32[Array, ""]:
    """Spread of the embeddings' directions over a batch (Chen & He 2021, arXiv:2011.10566).

    Parameters
    ----------
    embeddings
        Of all samples of this device.
    axis_name
        Device axis of the batch.

    Returns
    -------
    spread
        ``sqrt(D)`` times the root mean square, over dimensions, of the standard deviation of the
        L2-normalised embeddings: 1 for directions spread evenly over the sphere, 0 when all are the same.
    """
    unit = l2_normalise(embeddings.reshape(-1, embeddings.shape[-1]), axis=-1)  # (N, D)
    mean = over_devices(jax.lax.pmean, jnp.mean(unit, axis=0), axis_name)  # (D,)
    # Two passes, because the mean of squares minus the squared mean loses all digits near a collapse.
    variance = over_devices(jax.lax.pmean, jnp.mean((unit - mean[None]) ** 2, axis=0), axis_name)
    return jnp.sqrt(jnp.sum(variance))


def ema_update(teacher: Any, student: Any, momentum: Scalar) -> Any:
    """``momentum * teacher + (1 - momentum) * student``, leaf by leaf."""
    return jax.tree.map(lambda t, s: momentum * t + (1.0 - momentum) * s, teacher, student)
