"""Watch a run from the host: collapse, learning that does not start, non-finite steps, the effective rank of features.

The two ways in which DINO's outputs collapse are those of Caron et al. 2021 (arXiv:2104.14294), section 5.3: the
teacher answers uniformly, or always with the same output. Features may collapse, too, whatever the objective: to a
point, or to few dimensions (Jing et al. 2022, arXiv:2110.09348).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_FEW_OUTPUTS = 2.5  # of a batch; two were left in a failed run of docs/results.md, and three to five in one that worked
_STARVING = 0.1  # of the prototypes, over 50 batches; of 128 about five were in use in a run that learnt little
_SAME_FEATURES = 0.03  # feature_std, which is 1 for even directions; 0.2 and more in runs that work
_FEW_DIMENSIONS, _LOST_RANK = 2.0, 0.1  # RankMe, and RankMe over its highest value
_READINGS = 5  # of RankMe, which is not there at each step
_ROUNDING = 1e-6  # of the largest eigenvalue; below lies what float32 made of nothing

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Finding:
    """Something wrong with a run.

    Attributes
    ----------
    kind : str
        "non-finite", "uniform collapse", "one-dimension collapse", "feature collapse", "dimensional collapse", "few
        outputs", "no learning" or "starving prototypes".
    message : str
        What was seen and what to try, in one line.
    stop : bool
        Whether going on is pointless.
    """

    kind: str
    message: str
    stop: bool = False


def findings(
    history: Sequence[Metrics],
    *,
    out_dim: int,
    objective: str = "dino",
    window: int = 100,
    tolerance: float = 0.01,
    max_non_finite: int = 5,
) -> tuple[Finding, ...]:
    """Judge the latest metrics of a run.

    Parameters
    ----------
    history : sequence of dict
        Metrics of consecutive steps, oldest first, with "loss" and "finite"; "entropy" [nat] and "usage" for DINO;
        "prototypes", "feature_std", "rankme" and "lr" where there are any.
    out_dim : int
        Number of outputs K.
    objective : str
        "dino", or "byol", which has no outputs to judge.
    window : int
        Steps that must all agree before anything but a non-finite step is called; a healthy run starts close to
        uniform, so give the first steps time. Nothing is said before there are that many finite ones, and, apart from
        answers that are all the same, nothing while the learning rate still rises: little is learned until then.
    tolerance : float
        Fraction of ln K within which loss and entropy count as being there.
    max_non_finite : int
        Non-finite steps in a row after which the run should stop.

    Returns
    -------
    tuple of Finding
        The most serious one first, at most one of each kind. The same ones again as long as they hold.
    """
    streak = next((n for n, metrics in enumerate(reversed(history)) if metrics["finite"]), len(history))
    if streak:
        return (_non_finite(streak, max_non_finite),)
    finite = [metrics for metrics in history if metrics["finite"]]
    recent = finite[-window:]
    if len(recent) < window:
        return ()
    settled = recent[-1].get("lr", 0.0) <= recent[0].get("lr", math.inf)
    verdicts = [_outputs(recent, out_dim, tolerance, settled)] if objective == "dino" else []
    if settled:
        ranks = [m["rankme"] for m in finite if not math.isnan(m.get("rankme", math.nan))]
        verdicts += [_features(recent), _rank(ranks)]
    return tuple(finding for finding in verdicts if finding)


def _non_finite(streak: int, limit: int) -> Finding:
    stop = streak >= limit
    message = f"loss or gradients not finite for {streak} step(s) in a row; the last good state is kept"
    advice = "look for NaN in the images, then lower base_lr or clip_grad, or lengthen warmup_steps"
    return Finding("non-finite", f"{message}; {advice}" if stop else message, stop)


def _outputs(recent: Sequence[Metrics], out_dim: int, tolerance: float, settled: bool) -> Finding | None:
    """Judge what the teacher answers; each case rules out those below it."""
    uniform, count = math.log(out_dim), len(recent)
    losses = [metrics["loss"] for metrics in recent]
    entropies = [metrics["entropy"] for metrics in recent]
    used = [metrics["usage"] * out_dim for metrics in recent]
    margin = tolerance * uniform
    if max(entropies) < margin and max(used) < 1.5:
        message = (
            f"one-dimension collapse: teacher entropy {entropies[-1]:.4f} and 1 of {out_dim} outputs used "
            f"for {count} steps; lower centre_momentum, raise teacher_temp or freeze_last_layer_steps"
        )
        return Finding("one-dimension collapse", message)
    if not settled:
        return None
    at_uniform = max(abs(loss - uniform) for loss in losses) < margin
    if at_uniform and min(entropies) > uniform - margin:
        if _spread(recent) < _SAME_FEATURES:
            advice = "the features are all the same: lower base_lr to a tenth, or lengthen warmup_steps"
        else:
            advice = (
                "sharpen the teacher (lower warmup_teacher_temp and teacher_temp, to 0.03), lower out_dim, raise "
                "base_lr, or make the views differ more"
            )
        message = (
            f"uniform collapse: loss {losses[-1]:.3f} and teacher entropy {entropies[-1]:.3f} have been at "
            f"ln({out_dim}) = {uniform:.3f} for {count} steps; {advice}"
        )
        return Finding("uniform collapse", message)
    if max(used) < _FEW_OUTPUTS:
        message = (
            f"few outputs: at most {max(used):.0f} of {out_dim} have been used in a batch for {count} steps, so the "
            "teacher tells hardly anything apart; lower base_lr to half, or set centring to sinkhorn"
        )
        return Finding("few outputs", message)
    if at_uniform and max(entropies) < uniform - margin:
        message = (
            f"no learning: the loss has been at ln({out_dim}) = {uniform:.3f} for {count} steps though the teacher "
            f"answers (entropy {entropies[-1]:.3f}); double base_lr, lower warmup_teacher_temp to 0.03, or raise "
            "freeze_last_layer_steps"
        )
        return Finding("no learning", message)
    return _starving(recent, out_dim)


def _starving(recent: Sequence[Metrics], out_dim: int) -> Finding | None:
    """Judge how many prototypes have been in use over some 50 batches."""
    most = max(metrics.get("prototypes", math.inf) for metrics in recent)
    if most >= _STARVING * out_dim:
        return None
    message = (
        f"starving prototypes: {most:.0f} of {out_dim} have been in use in the last 50 batches, for {len(recent)} "
        f"steps; set centring to sinkhorn, which uses all alike, or model.out_dim to {max(2, round(4 * most))}"
    )
    return Finding("starving prototypes", message)


def _spread(recent: Sequence[Metrics]) -> float:
    return max(metrics.get("feature_std", math.inf) for metrics in recent)


def _features(recent: Sequence[Metrics]) -> Finding | None:
    spread = _spread(recent)
    if spread >= _SAME_FEATURES:
        return None
    message = (
        f"feature collapse: feature_std has been below {_SAME_FEATURES} for {len(recent)} steps, so all patches look "
        "alike to the network; lower base_lr to a tenth, lengthen warmup_steps, or set koleo to 0.1"
    )
    return Finding("feature collapse", message)


def _rank(ranks: Sequence[float]) -> Finding | None:
    """Judge readings of RankMe, oldest first."""
    latest = ranks[-_READINGS:]
    if len(latest) < _READINGS:
        return None
    if max(latest) < _FEW_DIMENSIONS:
        seen = f"below {_FEW_DIMENSIONS:g}"
    elif max(latest) < _LOST_RANK * max(ranks):
        seen = f"below a tenth of the {max(ranks):.0f} that it was"
    else:
        return None
    message = (
        f"dimensional collapse: the effective rank of the features (rankme), {latest[-1]:.1f}, has been {seen} for "
        f"{_READINGS} readings; set koleo to 0.1, lower base_lr to half, or make the views differ less"
    )
    return Finding("dimensional collapse", message)


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
    return _effective_rank(np.linalg.svd(features, compute_uv=False), epsilon)


def rankme_of_moment(moment: np.ndarray, epsilon: float = 1e-7) -> float:
    """`rankme` from the second moment of the features: its eigenvalues are the squares of singular values.

    Parameters
    ----------
    moment : (D, D)
        Mean of z z^T over features z (D,), in float32, of which eigenvalues below 1e-6 of the largest are rounding and
        count as zero: directions a thousand times weaker than the strongest are not seen.
    epsilon : float
        Guards the logarithm.

    Returns
    -------
    float
        Between 1 and D; 0 if all features were zero; NaN if the moment is not finite, as a monitor must not end a run.

    Raises
    ------
    ValueError
        If ``moment`` is not a square matrix.
    """
    moment = np.asarray(moment, dtype=np.float64)
    if moment.ndim != 2 or moment.shape[0] != moment.shape[1] or moment.size == 0:
        raise ValueError(f"the second moment must be a (D, D) matrix, got shape {moment.shape}")
    if not np.isfinite(moment).all():
        return math.nan
    eigenvalues = np.linalg.eigvalsh(moment)  # (D,)
    clear = np.where(eigenvalues > _ROUNDING * eigenvalues.max(), eigenvalues, 0.0)
    return _effective_rank(np.sqrt(np.maximum(clear, 0.0)), epsilon)


def _effective_rank(sigma: np.ndarray, epsilon: float) -> float:
    total = sigma.sum()
    if total == 0.0:
        return 0.0
    p = sigma / total + epsilon
    return float(np.exp(-np.sum(p * np.log(p))))
