"""Classification: how often k-NN and a linear probe on frozen vectors are right, with all labels and with few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vis2img.errors import ParameterError
from vis2img.train.evaluate.classifiers import FITS, cross_predictions
from vis2img.train.evaluate.folds import Samples, check_classes, check_names, validation_folds, without_leaks
from vis2img.train.evaluate.scores import Name, Pairs

SHARES = (0.01, 0.05, 0.1, 0.3, 0.5, 1.0)


@dataclass(frozen=True)
class Classification:
    """Accuracy of k-NN and a linear probe with shares of the labels.

    Parameters
    ----------
    shares : sequence of float
        Shares of the labels of the training part that are used, stratified, at least one of each class.
    folds : int
        Parts of a cross-validation, each tested once by what was trained on the others.
    """

    shares: Sequence[float] = SHARES
    folds: int = 5

    def run(self, train: Samples, test: Samples | None = None, seeds: Sequence[int] = range(5)) -> Pairs:
        """Yield "accuracy" and "balanced accuracy" (mean recall of the classes) of all test samples; x is the share.

        Vectors are ([view,] n, dim). On a test set of its own all labels leave nothing to draw: a share of 1 is scored
        once.
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
                for setting, fit in FITS.items():
                    (predicted,) = cross_predictions(fit, train, [queries.inputs], fold, float(share), seed)
                    yield from accuracies(setting, share, seed, queries.label, predicted)


def accuracies(setting: str, share: float, seed: int, label: np.ndarray, predicted: np.ndarray) -> Pairs:
    """Yield the share of right predictions, over all and as the mean over classes."""
    name = Name("classification", setting, "accuracy", float(share), seed)
    yield replace(name, count=len(label)), (predicted == label).mean()
    yield replace(name, metric="balanced accuracy"), balanced_accuracy(label, predicted)


def balanced_accuracy(label: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean over classes of the share of right predictions."""
    return float(np.mean([(predicted == label)[label == name].mean() for name in np.unique(label)]))
