"""The DINO objective: self-distillation with no labels.

Caron et al. 2021 (arXiv:2104.14294), algorithm 1. The student sees every view, the teacher only the global
ones; each teacher view is a target for every student view but itself. Centring (against one dimension
winning) and sharpening (against the uniform answer) together keep the teacher from collapsing.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from models.dino_head import DINOModel, l2_normalise


def _mean_over_devices(tree: Any, axis_name: str | None) -> Any:
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def dino_loss(
    student_logits: jax.Array,
    teacher_logits: jax.Array,
    centre: jax.Array,
    *,
    student_temp: float | jax.Array,
    teacher_temp: float | jax.Array,
    n_global: int,
    centre_momentum: float,
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
    axis_name : str, optional
        Device axis; the centre and the stats are then averaged over it, the loss stays that of this device.

    Returns
    -------
    loss : ()
        Mean over pairs and samples [nat].
    new_centre : (K,)
    stats : dict of ()
        "entropy" of the teacher [nat], "kl" from teacher to student [nat], and "usage", the fraction of the K
        outputs that are the teacher's first choice for at least one view of the (global) batch.

    Raises
    ------
    ValueError
        If the shapes disagree or there is no pair of different views.
    """
    n_views, batch, out_dim = student_logits.shape
    if teacher_logits.shape != (n_global, batch, out_dim) or n_global > n_views:
        raise ValueError(f"{n_global} teacher views {teacher_logits.shape} do not match {student_logits.shape}")
    n_pairs = n_global * (n_views - 1)
    if n_pairs == 0:
        raise ValueError("DINO needs at least two views, one of them global")
    teacher_logits = jax.lax.stop_gradient(teacher_logits)
    log_student = jax.nn.log_softmax(student_logits / student_temp)  # (V, B, K)
    log_teacher = jax.nn.log_softmax((teacher_logits - centre) / teacher_temp)  # (n_global, B, K)
    teacher = jnp.exp(log_teacher)
    # All views but itself = sum over views minus itself: V + n_global passes over K instead of V * n_global.
    others = jnp.sum(log_student, axis=0) - log_student[:n_global]  # (n_global, B, K)
    loss = -jnp.sum(teacher * others) / (n_pairs * batch)

    batch_centre = _mean_over_devices(jnp.mean(teacher_logits, axis=(0, 1)), axis_name)  # (K,)
    new_centre = centre_momentum * centre + (1.0 - centre_momentum) * batch_centre

    # 0 log 0 = 0, where log_teacher may be -inf for far outliers.
    entropy = -jnp.sum(jnp.where(teacher > 0.0, teacher * log_teacher, 0.0)) / (n_global * batch)
    stats = {"entropy": entropy, "kl": jax.lax.stop_gradient(loss) - entropy}
    stats = _mean_over_devices(stats, axis_name)
    stats["usage"] = _usage(log_teacher, axis_name)
    return loss, new_centre, stats


def _usage(log_teacher: jax.Array, axis_name: str | None) -> jax.Array:
    """Fraction of outputs that win at least one row of (n_global, B, K)."""
    winners = jnp.argmax(log_teacher, axis=-1).reshape(-1, 1)  # (n_global * B, 1)
    # A comparison instead of a scatter, which is slow on TPUs.
    used = jnp.any(winners == jnp.arange(log_teacher.shape[-1]), axis=0)  # (K,)
    if axis_name is not None:
        used = jax.lax.pmax(used.astype(jnp.int32), axis_name)
    return jnp.mean(used.astype(jnp.float32))


def feature_std(embeddings: jax.Array, axis_name: str | None = None) -> jax.Array:
    """Spread of the embeddings' directions over a batch (Chen & He 2021, arXiv:2011.10566).

    Parameters
    ----------
    embeddings : (..., D)
        Leading axes are samples.

    Returns
    -------
    ()
        ``sqrt(D)`` times the root mean square, over dimensions, of the standard deviation of the
        L2-normalised embeddings: 1 for directions spread evenly over the sphere, 0 when all are the same.
    """
    unit = l2_normalise(embeddings.reshape(-1, embeddings.shape[-1]), axis=-1)  # (N, D)
    mean = _mean_over_devices(jnp.mean(unit, axis=0), axis_name)  # (D,)
    # Two passes, because the mean of squares minus the squared mean loses all digits near a collapse.
    variance = _mean_over_devices(jnp.mean((unit - mean) ** 2, axis=0), axis_name)  # (D,)
    return jnp.sqrt(jnp.sum(variance))


def forward_views(
    model: DINOModel,
    params: Any,
    batch: Mapping[str, jax.Array],
    *,
    local: bool,
    train: bool = False,
    rng: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Run the network on the views of a batch, one backbone pass per resolution.

    Parameters
    ----------
    model, params : DINOModel and its parameters
    batch : dict
        "global" (n_global, B, G, G, C) and, unless ``local`` is False, "local" (L, B, S, S, C); L may be 0.
    local : bool
        Include the local views (student) or not (teacher).
    train, rng : bool, key
        Apply drop path, drawn from ``rng``.

    Returns
    -------
    logits : (V, B, K)
    embeddings : (V, B, D)
        Global views first.
    """
    views = [batch["global"]]
    if local and "local" in batch and batch["local"].shape[0] > 0:
        views.append(batch["local"])
    crops = [view.reshape(-1, *view.shape[2:]) for view in views]  # (V_i * B, y, x, C) each
    rngs = {} if rng is None else {"drop_path": rng}
    outputs: Any = model.apply({"params": params}, crops, train=train, rngs=rngs)
    logits, embeddings = outputs  # (V * B, K), (V * B, D)
    n_views, batch_size = sum(view.shape[0] for view in views), views[0].shape[1]
    return logits.reshape(n_views, batch_size, -1), embeddings.reshape(n_views, batch_size, -1)


def ema_update(teacher: Any, student: Any, momentum: float | jax.Array) -> Any:
    """``momentum * teacher + (1 - momentum) * student``, leaf by leaf."""
    return jax.tree.map(lambda t, s: momentum * t + (1.0 - momentum) * s, teacher, student)
