"""Watch a run from the host: collapse, non-finite steps, and the effective rank of features.

The two ways in which DINO collapses are those of Caron et al. 2021 (arXiv:2104.14294), section 5.3: the
teacher answers uniformly, or always with the same output.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Finding:
    """Something wrong with a run.

    Attributes
    ----------
    kind : str
        "non-finite", "uniform collapse" or "one-dimension collapse".
    message : str
        What was seen and what to try, in one line.
    stop : bool
        Whether going on is pointless.
    """

    kind: str
    message: str
    stop: bool


def diagnose(
    history: Sequence[Mapping[str, float]],
    *,
    out_dim: int,
    window: int = 100,
    tolerance: float = 0.01,
    max_non_finite: int = 5,
) -> Finding | None:
    """Judge the latest metrics of a run.

    Parameters
    ----------
    history : sequence of dict
        Metrics of consecutive steps, oldest first, with "loss", "entropy" [nat], "usage" and "finite".
    out_dim : int
        Number of outputs K.
    window : int
        Steps that must all agree before a collapse is called; a healthy run starts close to uniform, so give
        the first steps time. Nothing is said about a collapse before there are that many finite ones.
    tolerance : float
        Fraction of ln K within which loss and entropy count as being there.
    max_non_finite : int
        Non-finite steps in a row after which the run should stop.

    Returns
    -------
    Finding or None
    """
    streak = 0
    for metrics in reversed(history):
        if metrics["finite"]:
            break
        streak += 1
    if streak:
        return _non_finite(streak, max_non_finite)
    recent = [metrics for metrics in history if metrics["finite"]][-window:]
    if len(recent) < window:
        return None
    return _collapse(recent, out_dim, tolerance)


def _non_finite(streak: int, limit: int) -> Finding:
    stop = streak >= limit
    message = f"loss or gradients not finite for {streak} step(s) in a row; the last good state is kept"
    advice = "look for NaN in the images, then lower base_lr or clip_grad, or lengthen warmup_steps"
    return Finding("non-finite", f"{message}; {advice}" if stop else message, stop)


def _collapse(recent: Sequence[Mapping[str, float]], out_dim: int, tolerance: float) -> Finding | None:
    uniform = math.log(out_dim)
    losses = [metrics["loss"] for metrics in recent]
    entropies = [metrics["entropy"] for metrics in recent]
    used = [metrics["usage"] * out_dim for metrics in recent]
    margin = tolerance * uniform
    if min(entropies) > uniform - margin and max(abs(loss - uniform) for loss in losses) < margin:
        message = (
            f"uniform collapse: loss {losses[-1]:.3f} and teacher entropy {entropies[-1]:.3f} have been at "
            f"ln({out_dim}) = {uniform:.3f} for {len(recent)} steps; sharpen the teacher (lower "
            "warmup_teacher_temp and teacher_temp), raise base_lr, or make the views differ more"
        )
        return Finding("uniform collapse", message, stop=False)
    if max(entropies) < margin and max(used) < 1.5:
        message = (
            f"one-dimension collapse: teacher entropy {entropies[-1]:.4f} and 1 of {out_dim} outputs used "
            f"for {len(recent)} steps; lower centre_momentum, raise teacher_temp or freeze_last_layer_steps"
        )
        return Finding("one-dimension collapse", message, stop=False)
    return None


def rankme(features: np.ndarray, epsilon: float = 1e-7) -> float:
    """Effective rank of a set of features (Garrido et al. 2023, arXiv:2210.02885, equation 1).

    ``exp(-sum p_k ln p_k)`` with ``p_k = sigma_k / sum(sigma) + epsilon`` of the singular values sigma.

    Parameters
    ----------
    features : (N, D)
        One row per sample; the paper uses about 25,000 rows, and N must exceed the rank that is to be seen.
    epsilon : float
        Guards the logarithm.

    Returns
    -------
    float
        Between 1 (one direction) and min(N, D); 0 for features that are all zero.

    Raises
    ------
    ValueError
        If ``features`` is not a finite matrix.
    """
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or features.size == 0 or not np.isfinite(features).all():
        raise ValueError(f"features must be a finite (N, D) matrix, got shape {features.shape}")
    sigma = np.linalg.svd(features, compute_uv=False)  # (min(N, D),)
    total = sigma.sum()
    if total == 0.0:
        return 0.0
    p = sigma / total + epsilon
    return float(np.exp(-np.sum(p * np.log(p))))
