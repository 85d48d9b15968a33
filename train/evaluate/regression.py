"""Regression on frozen vectors: how many sources a patch holds, their flux, their redshift."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vis2img.errors import ParameterError
from vis2img.train.evaluate.folds import Samples, validation_folds, without_leaks
from vis2img.train.evaluate.neighbours import NEAR, Voting, finite_vectors, neighbour_means
from vis2img.train.evaluate.scores import Name, Pairs

PENALTIES = tuple(10.0**power for power in range(-1, 7))
REDSHIFT = "redshift"
# |dz| / (1 + z) of a catastrophic outlier, as in Hildebrandt et al. 2010 (arXiv:1008.0658).
OUTLIER = 0.15

Predict = Callable[[np.ndarray], np.ndarray]


def ridge(train: Samples) -> Predict:
    """Return ridge regression on standardised features, its penalty chosen by inner validation of whole groups.

    Where there is one group only, single samples are held out instead.
    """
    groups = len(np.unique(train.group))
    if groups == 1:
        train, groups = replace(train, group=np.arange(len(train))), len(train)
    fold = validation_folds(np.zeros(len(train)), train.group, min(groups, 3), seed=0)

    loss = np.zeros(len(PENALTIES))
    for held_out in np.unique(fold):
        part, test = train.take(fold != held_out), train.take(fold == held_out)
        loss += ((_ridges(part, PENALTIES)(test.inputs) - test.label[:, None]) ** 2).sum(axis=0)
    model = _ridges(train, [PENALTIES[int(loss.argmin())]])
    return lambda x: model(x)[:, 0]


def _ridges(train: Samples, penalties: Sequence[float]) -> Predict:
    """Return ridge regression with each penalty as a function of vectors [n, dim] to predictions [n, penalty]."""
    # One target for each penalty shares the product of the features with themselves, which takes most of the time.
    model = make_pipeline(StandardScaler(), Ridge(np.array(penalties), solver="cholesky"))
    model.fit(train.inputs, np.repeat(train.label[:, None], len(penalties), axis=1))
    return lambda x: model.predict(x).reshape(len(x), len(penalties))


def knn_regressor(train: Samples, voting: Voting = NEAR) -> Predict:
    """Return k-NN regression by cosine similarity of centred features; exponential votes of ten neighbours."""
    means = neighbour_means(train.inputs[None], train.label[:, None], train.inputs.mean(axis=0), voting)
    return lambda x: means(x)[:, 0]


FITS: dict[str, Callable[[Samples], Predict]] = {"ridge": ridge, "k-NN": knn_regressor}


@dataclass(frozen=True)
class Regression:
    """How well ridge regression and k-NN tell a number of each source from its vector.

    Parameters
    ----------
    target : str
        What the number is.
    folds : int
        Parts of a cross-validation, each predicted once by what was fitted to the others.
    log : bool
        Predict, and measure errors in, log10 of the target (dex). The measures of redshift are of z itself.
    methods : tuple of str
        Of "ridge" and "k-NN".
    """

    target: str
    folds: int = 5
    log: bool = False
    methods: tuple[str, ...] = tuple(FITS)

    def run(self, train: Samples, test: Samples | None = None, seeds: Sequence[int] = range(5)) -> Pairs:
        """Yield errors under the settings "TARGET, ridge" and "TARGET, k-NN".

        They are "R2", "mean absolute error" and "RMSE", in the unit of the target; of redshift "NMAD" and "outlier
        share", too, by :func:`redshift_errors`.

        Labels are the targets; what has none (NaN) is left out. On a test set of its own nothing is drawn.
        With ``log`` a target that is not positive is refused.
        """
        train, test = without_leaks(self._usable(train), None if test is None else self._usable(test), self.folds)
        if not len(train) or (test is not None and not len(test)):
            raise ParameterError(f"no {'training' if not len(train) else 'test'} sample has a value of {self.target}")
        if test is not None:
            for method in self.methods:
                yield from self._errors(method, seeds[0], test.label, FITS[method](train)(test.inputs))
            return

        for seed in seeds:
            fold = validation_folds(np.zeros(len(train)), train.group, self.folds, seed)
            for method in self.methods:
                predicted, fit = np.empty_like(train.label), FITS[method]
                for i in range(self.folds):
                    predicted[fold == i] = fit(train.take(fold != i))(train.inputs[fold == i])
                yield from self._errors(method, seed, train.label, predicted)

    def _usable(self, samples: Samples) -> Samples:
        """Return what has a target, as it is predicted, in float64."""
        target = np.asarray(samples.label, dtype=np.float64)
        # In float64, as the sums of squares of ridge regression lose digits of float32.
        usable = Samples(np.asarray(samples.inputs, np.float64), target, samples.group).take(np.isfinite(target))
        finite_vectors(usable.inputs)
        if not self.log:
            return usable
        wrong = int((usable.label <= 0).sum())
        if wrong:
            raise ParameterError(f"{wrong} values of {self.target} are not positive; use log=False")
        return replace(usable, label=np.log10(usable.label))

    def _errors(self, method: str, seed: int, true: np.ndarray, predicted: np.ndarray) -> Pairs:
        values = errors(true, predicted)
        if self.target == REDSHIFT:
            values |= redshift_errors(10**true, 10**predicted) if self.log else redshift_errors(true, predicted)
        for metric, value in values.items():
            yield Name("regression", f"{self.target}, {method}", metric, seed=seed), value


def errors(true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Return R2 (NaN for a target that does not vary), the mean absolute error and the RMSE of predictions [n]."""
    difference = predicted - true
    spread = float(((true - true.mean()) ** 2).sum())
    return {
        "R2": 1 - float((difference**2).sum()) / spread if spread > 0 else float("nan"),
        "mean absolute error": float(np.abs(difference).mean()),
        "RMSE": float(np.sqrt((difference**2).mean())),
    }


def redshift_errors(true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Return the scatter and the share of outliers of photometric redshifts.

    With d = (z_predicted - z_true) / (1 + z_true), "NMAD" is 1.4826 median(\\|d - median(d)\\|), as in Pasquet et al.
    2019 (arXiv:1806.06607) and Hayat et al. 2021 (arXiv:2101.04293), and "outlier share" that of \\|d\\| > 0.15.
    """
    d = (predicted - true) / (1 + true)
    return {
        "NMAD": float(1.4826 * np.median(np.abs(d - np.median(d)))),
        "outlier share": float((np.abs(d) > OUTLIER).mean()),
    }
