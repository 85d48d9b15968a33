"""Classifiers of frozen vectors: weighted k-NN and a linear probe.

Vectors are [n, dim], or [view, n, dim] for embeddings of each image rotated and flipped: all views of the training
samples are trained on, and the probabilities of a test sample are averaged over its views. That average is a gain of
its own (test-time augmentation), so representations are compared with the same views.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from vis2img.errors import ParameterError
from vis2img.train.evaluate.folds import Samples, few_labels, validation_folds
from vis2img.train.evaluate.logistic import fit_logistic
from vis2img.train.evaluate.neighbours import VOTING, Voting, neighbour_means

STRENGTHS = tuple(10.0**power for power in range(-5, 1))
# Where a class has one group only, nothing can be held out: strong, as labels are few then.
DEFAULT_STRENGTH = 1e-3
# Rows (views times samples) that C is chosen on; more change the choice little and take their time.
SELECTION_ROWS = 3000


@dataclass(frozen=True, eq=False)
class Classifier:
    """Classes [class], and a function of vectors [n, dim] to their probabilities [n, class].

    With ``first_view`` the first view of what is tested stands for all.
    """

    classes: np.ndarray
    probabilities: Callable[[np.ndarray], np.ndarray]
    first_view: bool = False

    def averaged(self, vectors: np.ndarray) -> np.ndarray:
        """Return probabilities [n, class] of vectors ([view,] n, dim), averaged over the views."""
        views = as_views(vectors)[: 1 if self.first_view else None]
        every = self.probabilities(as_rows(views))
        return every.reshape(*views.shape[:2], -1).mean(axis=0)

    def predict(self, vectors: np.ndarray) -> np.ndarray:
        """Return the likeliest class [n] of vectors ([view,] n, dim)."""
        return self.classes[self.averaged(vectors).argmax(axis=1)]


def as_views(vectors: np.ndarray) -> np.ndarray:
    """Return vectors ([view,] n, dim) as float32 [view, n, dim]."""
    vectors = np.asarray(vectors, dtype=np.float32)
    if vectors.ndim not in (2, 3):
        raise ParameterError(f"embeddings have the shape {vectors.shape}; give [patch, dim] or [view, patch, dim]")
    return vectors[None] if vectors.ndim == 2 else vectors


def as_rows(vectors: np.ndarray) -> np.ndarray:
    """Return vectors ([view,] n, dim) as float32 [view n, dim]."""
    return as_views(vectors).reshape(-1, np.shape(vectors)[-1])


def knn_classifier(train: Samples, unlabelled: np.ndarray | None = None, voting: Voting = VOTING) -> Classifier:
    """Return the k-NN classifier by cosine similarity of centred features, the nearer voting with more weight.

    Features keep their scale: to divide each by its spread would make the result depend on how the axes of the
    space are turned, and raise the noise of those that hardly vary.

    Parameters
    ----------
    train : Samples
        Vectors ([view,] n, dim) and classes; of several views of a sample the nearest counts.
    unlabelled : float ([view,] m, dim), optional
        What the mean of the features is measured on; by default the training samples.
    voting : Voting
    """
    views = as_views(train.inputs)
    mean = as_rows(views if unlabelled is None else unlabelled).mean(axis=0, dtype=np.float64).astype(np.float32)
    classes, code = np.unique(train.label, return_inverse=True)
    return Classifier(classes, neighbour_means(views, np.eye(len(classes))[code], mean, voting))


def linear_probe(train: Samples, unlabelled: np.ndarray | None = None) -> Classifier:
    """Return logistic regression on standardised features, with an L2 penalty chosen by inner validation.

    Parameters
    ----------
    train : Samples
        Vectors ([view,] n, dim), of at least two classes; the inner folds do not split the groups.
    unlabelled : float ([view,] m, dim), optional
        What mean and spread of the features are measured on; by default the training samples, of which there may
        be too few.
    """
    views = as_views(train.inputs)
    scale = StandardScaler().fit(as_rows(views if unlabelled is None else unlabelled))
    scaled = Samples(scale.transform(as_rows(views)).reshape(views.shape), train.label, train.group)
    probe = _probe(scaled, _best_strength(scaled))
    return Classifier(probe.classes, lambda x: probe.probabilities(scale.transform(x)))


def _probe(train: Samples, strength: float) -> Classifier:
    """Return a probe of standardised features [view, n, dim]."""
    classes, code = np.unique(train.label, return_inverse=True)
    # The products of a fit are thin: threads of BLAS wait for each other far longer than they work.
    with threadpool_limits(1):
        fitted = fit_logistic(as_rows(train.inputs), np.tile(code, len(train.inputs)), [strength])
    return Classifier(classes, lambda x: fitted.probabilities(x)[0])


def _best_strength(train: Samples) -> float:
    """Return the C with the least log loss on samples held out of the training part, whole groups at a time."""
    views = len(train.inputs)
    if views * len(train) > SELECTION_ROWS:
        train = train.take(few_labels(train.label, max(SELECTION_ROWS // views, 1), seed=0))
    classes, code = np.unique(train.label, return_inverse=True)
    groups = min(len(np.unique(train.group[code == i])) for i in range(len(classes)))
    folds = min(groups, 5 if views * len(train) <= SELECTION_ROWS // 3 else 3)
    if folds < 2:
        return DEFAULT_STRENGTH
    try:
        fold = validation_folds(train.label, train.group, folds, seed=0)
    except ParameterError:
        return DEFAULT_STRENGTH

    # Each strength with each fold left out is one fit.
    left_out = np.repeat(np.arange(folds), len(STRENGTHS))
    used = np.tile(fold, views)[:, None] != left_out
    rows = as_rows(train.inputs)
    with threadpool_limits(1):
        fitted = fit_logistic(rows, np.tile(code, views), STRENGTHS * folds, used)
        of_views = fitted.probabilities(rows).reshape(len(left_out), views, len(train), -1)
    right = of_views.mean(axis=1)[:, np.arange(len(train)), code]
    loss = -np.log(np.maximum(right, 1e-7)) * (fold == left_out[:, None])
    return STRENGTHS[int(loss.sum(axis=1).reshape(folds, -1).sum(axis=0).argmin())]


Fit = Callable[[Samples, np.ndarray], Classifier]
KNN, LINEAR = "k-NN", "linear probe"
FITS: dict[str, Fit] = {KNN: knn_classifier, LINEAR: linear_probe}


def fits_of(voting: Voting, *, linear: bool = True, turned: bool = False) -> Mapping[str, Fit]:
    """Return what is fitted, with neighbours that vote as ``voting`` says.

    ``turned`` is of vectors of all turns that turn with the picture, as pixels do: each turn of what is tested has the
    same neighbours then, so one is enough.
    """

    def knn(train: Samples, unlabelled: np.ndarray) -> Classifier:
        return replace(knn_classifier(train, unlabelled, voting), first_view=turned)

    return {KNN: knn, **({LINEAR: linear_probe} if linear else {})}


def cross_predictions(
    fit: Fit, train: Samples, tests: Sequence[np.ndarray], fold: np.ndarray | None, share: float | int, seed: int
) -> list[np.ndarray]:
    """Return the classes [m] that a classifier gives each set of test vectors ([view,] m, dim).

    With ``fold`` [n] the test vectors are of the training samples themselves, as they are or seen otherwise, and each
    is tested by a classifier that was trained on the other folds. ``seed`` draws the ``share`` (or the number) of
    labels that is used, stratified, at least one of each class; mean and spread of the features are those of the whole
    training part, as they need no labels.
    """
    if fold is None:
        few = train.take(few_labels(train.label, share, seed))
        model = fit(few, train.inputs)
        return [model.predict(vectors) for vectors in tests]

    predicted = [np.empty_like(train.label) for _ in tests]
    for i in range(fold.max() + 1):
        part, test = train.take(fold != i), fold == i
        few = part.take(few_labels(part.label, share, seed))
        model = fit(few, part.inputs)
        for classes, vectors in zip(predicted, tests, strict=True):
            classes[test] = model.predict(vectors[..., test, :])
    return predicted
