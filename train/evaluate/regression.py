"""Regression on frozen vectors: how many sources a patch holds, their flux, their redshift."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from vis2img.errors import ParameterError
from vis2img.train.evaluate.classification import K_NEIGHBOURS, similarity_weights
from vis2img.train.evaluate.folds import validation_folds
from vis2img.train.evaluate.scores import Score
from vis2img.train.evaluate.similarity import unit_vectors

PENALTIES = tuple(10.0**power for power in range(-1, 7))
REDSHIFT = "redshift"
# |dz| / (1 + z) of a catastrophic outlier, as in Hildebrandt et al. 2010 (arXiv:1008.0658).
OUTLIER = 0.15

Fit = Callable[[np.ndarray, np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]


def ridge(vectors: np.ndarray, target: np.ndarray, group: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return ridge regression on standardised features, its penalty chosen by inner validation of whole groups.

    Where there is one group only, single samples are held out instead.
    """
    group = group if len(np.unique(group)) > 1 else np.arange(len(target))
    groups = len(np.unique(group))
    fold = validation_folds(np.zeros(len(target)), group, min(groups, 3), seed=0)
    loss = np.zeros(len(PENALTIES))
    for held_out in np.unique(fold):
        train = fold != held_out
        guess = _ridges(vectors[train], target[train], PENALTIES)(vectors[~train])
        loss += ((guess - target[~train, None]) ** 2).sum(axis=0)
    model = _ridges(vectors, target, [PENALTIES[int(loss.argmin())]])
    return lambda x: model(x)[:, 0]


def _ridges(vectors: np.ndarray, target: np.ndarray, penalties: Sequence[float]) -> Callable[[np.ndarray], np.ndarray]:
    """Return ridge regression with each penalty as a function of vectors [n, dim] to predictions [n, penalty]."""
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # One target for each penalty shares the product of the features with themselves, which takes most of the time.
    model = make_pipeline(StandardScaler(), Ridge(np.array(penalties), solver="cholesky"))
    model.fit(vectors, np.repeat(target[:, None], len(penalties), axis=1))
    return lambda x: model.predict(x).reshape(len(x), len(penalties))


def knn_regressor(
    vectors: np.ndarray, target: np.ndarray, group: np.ndarray | None = None, *, k: int = K_NEIGHBOURS
) -> Callable[[np.ndarray], np.ndarray]:
    """Return k-NN regression by cosine similarity of centred features, weighted as the k-NN classifier is."""
    from sklearn.neighbors import KNeighborsRegressor

    mean = vectors.mean(axis=0)
    model = KNeighborsRegressor(min(k, len(vectors)), algorithm="brute", weights=similarity_weights)
    model.fit(unit_vectors(vectors - mean), target)
    return lambda x: model.predict(unit_vectors(x - mean))


FITS: dict[str, Fit] = {"ridge": ridge, "k-NN": knn_regressor}


def regress(
    representation: str,
    vectors: np.ndarray,
    target: np.ndarray,
    group: np.ndarray,
    *,
    target_name: str,
    folds: int = 5,
    seeds: Sequence[int] = range(5),
    log: bool = False,
) -> list[Score]:
    """Cross-validate ridge regression and k-NN, no group in two folds.

    Parameters
    ----------
    representation : str
        Name in the table.
    vectors : float [n, dim]
        Embeddings.
    target : float [n]
        What to predict; samples where it is NaN are left out.
    group : [n]
        What no two folds share.
    target_name : str
        "flux", "number of sources", ...; "redshift" adds the measures of photometric redshifts.
    folds : int
        Parts, each predicted once from the others.
    seeds : sequence of int
        Each draws its folds.
    log : bool
        Predict, and measure errors in, log10 of the target (dex). The measures of redshift are of z itself.

    Returns
    -------
    list of Score
        Settings "<target>, ridge" and "<target>, k-NN". "R2", "mean absolute error" and "RMSE", in the unit of the
        target; for redshift "NMAD" and "outlier share" by :func:`redshift_errors`.

    Raises
    ------
    ParameterError
        If the folds are impossible, or ``log`` is set and a target is not positive.
    """
    x, y, known = _usable(vectors, target, target_name, log)
    group = np.asarray(group)[known]
    scores = []
    for seed in seeds:
        fold = validation_folds(np.zeros(len(y)), group, folds, seed)
        for method, fit in FITS.items():
            guess = np.empty_like(y)
            for i in range(folds):
                train = fold != i
                guess[~train] = fit(x[train], y[train], group[train])(x[~train])
            scores += _scores(representation, target_name, method, seed, y, guess, log)
    return scores


def regress_split(
    representation: str,
    vectors: np.ndarray,
    target: np.ndarray,
    group: np.ndarray,
    asked_vectors: np.ndarray,
    asked_target: np.ndarray,
    *,
    target_name: str,
    seed: int = 0,
    log: bool = False,
) -> list[Score]:
    """Fit ridge regression and k-NN to one set and predict another.

    Parameters are those of :func:`regress`, for either set; nothing is drawn, so that there is one score under
    ``seed``.

    Returns
    -------
    list of Score

    Raises
    ------
    ParameterError
        As :func:`regress`.
    """
    x, y, known = _usable(vectors, target, target_name, log)
    asked, true, _ = _usable(asked_vectors, asked_target, target_name, log)
    scores = []
    for method, fit in FITS.items():
        guess = fit(x, y, np.asarray(group)[known])(asked)
        scores += _scores(representation, target_name, method, seed, true, guess, log)
    return scores


def _usable(
    vectors: np.ndarray, target: np.ndarray, target_name: str, log: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return vectors and targets that are known, in float64, and which they are."""
    target = np.asarray(target, dtype=np.float64)
    known = np.isfinite(target)
    # In float64, as the sums of squares of ridge regression lose digits of float32.
    x, y = np.asarray(vectors, dtype=np.float64)[known], target[known]
    if not np.isfinite(x).all():
        raise ParameterError("embeddings hold NaN or infinity; leave those rows out")
    if log:
        if (y <= 0).any():
            raise ParameterError(f"{int((y <= 0).sum())} values of {target_name} are not positive; use log=False")
        y = np.log10(y)
    return x, y, known


def _scores(
    representation: str, target_name: str, method: str, seed: int, y: np.ndarray, guess: np.ndarray, log: bool
) -> list[Score]:
    values = errors(y, guess)
    if target_name == REDSHIFT:
        values |= redshift_errors(10**y, 10**guess) if log else redshift_errors(y, guess)
    return [
        Score("regression", representation, f"{target_name}, {method}", metric, float("nan"), seed, value)
        for metric, value in values.items()
    ]


def errors(true: np.ndarray, guess: np.ndarray) -> dict[str, float]:
    """Return R2 (NaN for a target that does not vary), the mean absolute error and the RMSE of guesses [n]."""
    difference = guess - true
    spread = float(((true - true.mean()) ** 2).sum())
    return {
        "R2": 1 - float((difference**2).sum()) / spread if spread > 0 else float("nan"),
        "mean absolute error": float(np.abs(difference).mean()),
        "RMSE": float(np.sqrt((difference**2).mean())),
    }


def redshift_errors(true: np.ndarray, guess: np.ndarray) -> dict[str, float]:
    """Return the scatter and the share of outliers of photometric redshifts.

    With d = (z_guess - z_true) / (1 + z_true), "NMAD" is 1.4826 median(\\|d - median(d)\\|), as in Pasquet et al. 2019
    (arXiv:1806.06607) and Hayat et al. 2021 (arXiv:2101.04293), and "outlier share" that of \\|d\\| > 0.15.
    """
    d = (guess - true) / (1 + true)
    return {
        "NMAD": float(1.4826 * np.median(np.abs(d - np.median(d)))),
        "outlier share": float((np.abs(d) > OUTLIER).mean()),
    }
