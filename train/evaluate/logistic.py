"""Logistic regression with an L2 penalty, for many penalties and subsets of the rows at once.

What a probe costs is the choice of its penalty: six penalties, each fitted to three to five subsets, in every fold. All
share one matrix of features, so here they are columns of one product with it. In the basis of the principal components
of the rows the second derivative of the loss lies below a diagonal matrix that no weights change (Böhning 1992, Ann.
Inst. Statist. Math. 44, 197), whose inverse makes the steps; they are accelerated (Nesterov 1983), and start anew where
they turn uphill (O'Donoghue & Candès 2015, arXiv:1204.3982). No step length is searched for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from vis2img.errors import ParameterError

# Of the largest entry of the gradient, per row: far below what changes an answer.
TOLERANCE = 1e-5
# A fit that stops early is one with a little more of the penalty.
STEPS = 500
_NULL = 1e-10  # of the largest variance: directions that the rows do not span


@dataclass(frozen=True, eq=False)
class Logits:
    """Fitted weights float64 [dim, fit, column] and intercepts [fit, column]; two classes have one column."""

    weight: np.ndarray
    intercept: np.ndarray

    def probabilities(self, rows: np.ndarray) -> np.ndarray:
        """Return probabilities float64 [fit, m, class] of rows [m, dim]."""
        dim, fits, columns = self.weight.shape
        logits = np.asarray(rows, np.float64) @ self.weight.reshape(dim, -1)
        return np.moveaxis(_softmax(logits.reshape(len(rows), fits, columns) + self.intercept), 0, 1)


def fit_logistic(
    rows: np.ndarray, code: np.ndarray, strengths: Sequence[float], used: np.ndarray | None = None
) -> Logits:
    """Fit logistic regression (of more than two classes the multinomial one), as scikit-learn's with ``C`` does.

    Parameters
    ----------
    rows : float [n, dim]
        Features, standardised.
    code : int [n]
        Classes from 0, each of which must be used in every fit.
    strengths : sequence of float
        C of each fit: the loss is C times the sum over rows, plus half the square of the weights.
    used : bool [n, fit], optional
        Which rows each fit is of; default: all.

    Raises
    ------
    ParameterError
        If there is one class alone.
    """
    classes = int(code.max(initial=0)) + 1
    if classes < 2:
        raise ParameterError("logistic regression needs samples of at least two classes")
    columns = 1 if classes == 2 else classes
    mean = rows.mean(axis=0, dtype=np.float64)
    basis, variance = _components(np.asarray(rows, np.float64) - mean)
    features = np.concatenate([(rows - mean) @ basis, np.ones((len(rows), 1))], axis=1)

    penalty = 1 / np.asarray(strengths, np.float64)
    used = np.ones((len(rows), len(penalty)), bool) if used is None else used
    # The second derivative of the log of a softmax is at most a half, of one logit a quarter.
    bound = (0.25 if columns == 1 else 0.5) * np.append(variance, len(rows))
    weight = _minimise(features, _targets(code, columns), penalty, used, bound)

    spanned = np.tensordot(basis, weight[:-1], axes=1)
    return Logits(spanned, weight[-1] - np.tensordot(mean, spanned, axes=1))


def _components(centred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return an orthonormal basis [dim, m] of what the rows span, and the sum of the squares along each [m]."""
    wide = centred.shape[1] > len(centred)
    variance, vectors = np.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
    spanned = variance > _NULL * max(float(variance[-1]), 1e-300)
    variance, vectors = variance[spanned], vectors[:, spanned]
    return (centred.T @ vectors / np.sqrt(variance) if wide else vectors), variance


def _targets(code: np.ndarray, columns: int) -> np.ndarray:
    return code[:, None].astype(np.float64) if columns == 1 else np.eye(columns)[code]


def _minimise(
    features: np.ndarray, target: np.ndarray, penalty: np.ndarray, used: np.ndarray, bound: np.ndarray
) -> np.ndarray:
    """Return the weights [component, fit, column] of the least loss; the last component has no penalty."""
    shape = features.shape[1], len(penalty), target.shape[1]
    cost = np.repeat(penalty[None], shape[0], axis=0)
    cost[-1] = 0
    weight = np.zeros(shape)
    active = np.arange(len(penalty))  # fits that go on
    now, ahead, pace = weight.copy(), weight.copy(), np.ones(len(penalty))

    for _ in range(STEPS):
        logits = (features @ ahead.reshape(shape[0], -1)).reshape(len(features), len(active), -1)
        error = (_rights(logits) - target[:, None]) * used[:, active, None]
        slope = (features.T @ error.reshape(len(features), -1)).reshape(ahead.shape)
        slope += cost[:, active, None] * ahead
        step = ahead - slope / (bound[:, None] + cost[:, active])[..., None]

        uphill = np.einsum("kfc,kfc->f", slope, step - now) > 0
        pace_then = np.where(uphill, 1.0, pace)
        pace = (1 + np.sqrt(1 + 4 * pace_then**2)) / 2
        ahead = step + ((pace_then - 1) / pace)[None, :, None] * (step - now)
        now = step

        done = np.abs(slope).max(axis=(0, 2)) < TOLERANCE * len(features)
        if done.any():
            weight[:, active[done]] = now[:, done]
            active, now, ahead, pace = active[~done], now[:, ~done], ahead[:, ~done], pace[~done]
            if not len(active):
                return weight
    weight[:, active] = now
    return weight


def _rights(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities that belong to logits [..., column]."""
    return _softmax(logits)[..., 1:] if logits.shape[-1] == 1 else _softmax(logits)


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities [..., class] of logits [..., column]: of one column those of two classes."""
    if logits.shape[-1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=-1)
    return softmax(logits, axis=-1)
