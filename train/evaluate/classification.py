"""Classification: how often k-NN and a linear probe on frozen vectors are right, with all labels and with few."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from sklearn.metrics import f1_score

from vis2img.errors import ParameterError
from vis2img.train.evaluate.classifiers import FITS, Fit, cross_predictions
from vis2img.train.evaluate.folds import (
    Samples,
    check_classes,
    check_names,
    share_or_count,
    validation_folds,
    without_leaks,
)
from vis2img.train.evaluate.scores import Name, Pairs

SHARES = (0.01, 0.05, 0.1, 0.3, 0.5, 1.0)


@dataclass(frozen=True)
class Classification:
    """Accuracy and macro-F1 of k-NN and a linear probe with shares of the labels.

    Parameters
    ----------
    shares : sequence of float or int
        Shares of the labels of the training part that are used, stratified, at least one of each class; above 1 the
        number of labels.
    folds : int
        Parts of a cross-validation, each tested once by what was trained on the others.
    fits : mapping
        What is fitted: see :data:`vis2img.train.evaluate.classifiers.FITS`.
    """

    shares: Sequence[float] = SHARES
    folds: int = 5
    fits: Mapping[str, Fit] = field(default_factory=lambda: FITS)

    def run(self, train: Samples, test: Samples | None = None, seeds: Sequence[int] = range(5)) -> Pairs:
        """Yield "accuracy", "balanced accuracy" (mean recall of the classes) and "macro-F1" of all test samples.

        x is the share; a number of labels is named in the setting. Vectors are ([view,] n, dim). On a test set of its
        own all labels leave nothing to draw: a share of 1 is scored once.
        """
        train, test = without_leaks(train, test, self.folds)
        if len(np.unique(train.label)) < 2:
            raise ParameterError("classification needs sources of at least two classes")
        check_names(train.label)
        if test is not None:
            check_classes(train, test)
        for seed in seeds:
            fold = validation_folds(train.label, train.group, self.folds, seed) if test is None else None
            queries = train if test is None else test
            for share in self.shares:
                if share == 1 and test is not None and seed != seeds[0]:
                    continue
                for setting, fit in self.fits.items():
                    few = share_or_count(share)
                    (predicted,) = cross_predictions(fit, train, [queries.inputs], fold, few, seed)
                    yield from accuracies(setting, share, seed, queries.label, predicted)


def accuracies(setting: str, share: float, seed: int, label: np.ndarray, predicted: np.ndarray) -> Pairs:
    """Yield the share of right predictions, over all and as the mean over classes, and macro-F1."""
    name = Name("classification", setting, "accuracy", float(share), seed)
    if share > 1:
        name = replace(name, setting=f"{setting}, {share:g} labels", x=math.nan)
    yield replace(name, count=len(label)), (predicted == label).mean()
    yield replace(name, metric="balanced accuracy"), balanced_accuracy(label, predicted)
    # Over the classes that are tested: of one that none is of, there is nothing to be found.
    yield replace(name, metric="macro-F1"), f1_score(label, predicted, labels=np.unique(label), average="macro")


def balanced_accuracy(label: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean over classes of the share of right predictions."""
    return float(np.mean([(predicted == label)[label == name].mean() for name in np.unique(label)]))
