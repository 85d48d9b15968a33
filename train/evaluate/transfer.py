"""Transfer: learn the classes on images made one way, and be tested on images made another way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vis2img.errors import ParameterError
from vis2img.train.evaluate.classification import balanced_accuracy
from vis2img.train.evaluate.classifiers import FITS, Fit, cross_predictions
from vis2img.train.evaluate.folds import Samples, check_classes, validation_folds, without_copies, without_leaks
from vis2img.train.evaluate.scores import Name, Pairs


@dataclass(frozen=True)
class Transfer:
    """Balanced accuracy of classifiers that are fitted to sources imaged one way and tested on them imaged otherwise.

    A source is never tested by a classifier that learnt it, imaged in whatever way.

    Parameters
    ----------
    folds : int
        Parts of the cross-validation.
    fits : mapping
        What is fitted: of :data:`vis2img.train.evaluate.classifiers.FITS`.
    """

    folds: int = 5
    fits: Mapping[str, Fit] = field(default_factory=lambda: FITS)

    def run(self, train: Samples, tests: Mapping[str, np.ndarray], seeds: Sequence[int] = range(5)) -> Pairs:
        """Yield the "balanced accuracy" on each test set, settings "NAME, k-NN" and "NAME, linear probe".

        ``tests`` are vectors ([view,] n, dim) of the training sources, imaged in other ways, by what changes; they must
        be of one shape.
        """
        for name, vectors in tests.items():
            if vectors.shape != train.inputs.shape:
                shapes = f"{train.inputs.shape} and {vectors.shape}"
                raise ParameterError(f"transfer {name!r}: vectors of shape {shapes} must be of one shape")

        train, rows = without_copies(train, self.folds)
        tests = {name: vectors[..., rows, :] for name, vectors in tests.items()}
        for seed in seeds:
            fold = validation_folds(train.label, train.group, self.folds, seed)
            for setting, fit in self.fits.items():
                predictions = cross_predictions(fit, train, [*tests.values()], fold, 1.0, seed)
                for name, predicted in zip(tests, predictions, strict=True):
                    yield _name(f"{name}, {setting}", seed), balanced_accuracy(train.label, predicted)


@dataclass(frozen=True)
class TransferToOthers:
    """Balanced accuracy of classifiers that are fitted to some fields and tested on those of another telescope or band.

    Parameters
    ----------
    share : float
        Share of the labels that each seed draws, so that seeds differ.
    fits : mapping
        As for :class:`Transfer`.
    """

    share: float = 0.8
    fits: Mapping[str, Fit] = field(default_factory=lambda: FITS)

    def run(self, train: Samples, test: Samples, seeds: Sequence[int] = range(5)) -> Pairs:
        """Yield the "balanced accuracy", settings "to other fields, k-NN" and "to other fields, linear probe".

        A class that is tested and cannot be learnt is refused.
        """
        train, others = without_leaks(train, test, 1)
        test = others if others is not None else test
        check_classes(train, test)
        for seed in seeds:
            for setting, fit in self.fits.items():
                (predicted,) = cross_predictions(fit, train, [test.inputs], None, self.share, seed)
                yield _name(f"to other fields, {setting}", seed), balanced_accuracy(test.label, predicted)


def _name(setting: str, seed: int) -> Name:
    return Name("transfer", setting, "balanced accuracy", seed=seed)
