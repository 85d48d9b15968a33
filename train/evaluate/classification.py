"""Classification on frozen vectors: weighted k-NN and a linear probe, with all labels and with few.

Vectors are [n, dim], or [view, n, dim] for embeddings of each image rotated and flipped: all views of the training
samples are trained on, and the probabilities of a test sample are averaged over its views. That average is a gain of
its own (test-time augmentation), so representations are compared with the same views.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from vis2img.errors import ParameterError
from vis2img.train.evaluate.folds import few_labels, validation_folds
from vis2img.train.evaluate.scores import Score
from vis2img.train.evaluate.similarity import unit_vectors

K_NEIGHBOURS = 10
SHARES = (0.01, 0.05, 0.1, 0.3, 0.5, 1.0)
# A neighbour's vote is exp(cos / T), with the T of Wu et al. 2018 (arXiv:1805.01978), as in DINO's evaluation.
TEMPERATURE = 0.07
STRENGTHS = tuple(10.0**power for power in range(-5, 1))
# Where a class has one group only, nothing can be held out: strong, as labels are few then.
DEFAULT_STRENGTH = 1e-3
# Rows (views times samples) that C is chosen on; more change the choice little and take their time.
SELECTION_ROWS = 3000
_QUERIES = 1024  # whose similarities are held at a time


@dataclass(frozen=True, eq=False)
class Classifier:
    """What was learnt: the classes [class], and a function of vectors [n, dim] to probabilities [n, class]."""

    classes: np.ndarray
    probabilities: Callable[[np.ndarray], np.ndarray]

    def averaged(self, vectors: np.ndarray) -> np.ndarray:
        """Return probabilities [n, class] of vectors ([view,] n, dim), averaged over the views."""
        views = as_views(vectors)
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


def similarity_weights(distance: np.ndarray) -> np.ndarray:
    """Return the votes exp(cos / T) of neighbours at a Euclidean distance between vectors of length 1.

    Relative to the vote of a vector equal to the query, as only ratios count.
    """
    return np.exp(-(distance**2) / 2 / TEMPERATURE)


def knn_classifier(
    vectors: np.ndarray,
    label: np.ndarray,
    group: np.ndarray | None = None,
    *,
    unlabelled: np.ndarray | None = None,
    k: int = K_NEIGHBOURS,
) -> Classifier:
    """Return the k-NN classifier by cosine similarity of centred features, the nearer voting with more weight.

    Features keep their scale: to divide each by its spread would make the result depend on how the axes of the
    space are turned, and raise the noise of those that hardly vary.

    Parameters
    ----------
    vectors : float ([view,] n, dim)
        Training samples. Of several views of a sample the nearest counts, so that it has one vote however many there
        are and however alike they look.
    label : [n]
        Their classes.
    group : [n], optional
        Not needed; for the same form as :func:`linear_probe`.
    unlabelled : float ([view,] m, dim), optional
        What the mean of the features is measured on; by default the training samples.
    k : int
        Samples that vote (fewer where there are fewer).
    """
    views = as_views(vectors)
    known = as_rows(views if unlabelled is None else unlabelled)
    mean = known.mean(axis=0, dtype=np.float64).astype(np.float32)
    gallery = [unit_vectors(view - mean) for view in views]
    classes, code = np.unique(np.asarray(label), return_inverse=True)
    member = np.eye(len(classes), dtype=np.float32)[code]
    count = min(k, len(code))

    def probabilities(asked: np.ndarray) -> np.ndarray:
        found = np.empty((len(asked), len(classes)), np.float32)
        for start in range(0, len(asked), _QUERIES):
            queries = unit_vectors(asked[start : start + _QUERIES] - mean)
            cosine = reduce(np.maximum, [queries @ view.T for view in gallery])
            nearest = np.argpartition(-cosine, count - 1, axis=1)[:, :count]
            votes = np.exp((np.take_along_axis(cosine, nearest, axis=1) - 1) / TEMPERATURE)
            total = np.einsum("qk,qkc->qc", votes, member[nearest])
            found[start : start + len(queries)] = total / total.sum(axis=1, keepdims=True)
        return found

    return Classifier(classes, probabilities)


def linear_probe(
    vectors: np.ndarray,
    label: np.ndarray,
    group: np.ndarray | None = None,
    *,
    unlabelled: np.ndarray | None = None,
) -> Classifier:
    """Return logistic regression on standardised features, with an L2 penalty chosen by inner validation.

    Parameters
    ----------
    vectors : float ([view,] n, dim)
        Training samples, of at least two classes.
    label : [n]
        Their classes.
    group : [n], optional
        What the inner folds must not split; by default each sample is its own.
    unlabelled : float ([view,] m, dim), optional
        What mean and spread of the features are measured on; by default the training samples, of which there may
        be too few.
    """
    from sklearn.preprocessing import StandardScaler

    views, label = as_views(vectors), np.asarray(label)
    group = np.arange(len(label)) if group is None else np.asarray(group)
    scale = StandardScaler().fit(as_rows(views if unlabelled is None else unlabelled))
    scaled = scale.transform(as_rows(views)).reshape(views.shape)
    probe = _probes(scaled, label, [_best_strength(scaled, label, group)])[0]
    return Classifier(probe.classes, lambda x: probe.probabilities(scale.transform(x)))


def _probes(views: np.ndarray, label: np.ndarray, strengths: Sequence[float]) -> list[Classifier]:
    """Return a probe of standardised features for each C, each started from the one before."""
    from copy import deepcopy

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    rows, label = as_rows(views), np.tile(label, len(views))
    model = LogisticRegression(max_iter=200, warm_start=True)
    probes = []
    for strength in strengths:
        model.C = strength
        # The products of this fit are thin: threads of BLAS wait for each other far longer than they work.
        with warnings.catch_warnings(), threadpool_limits(1):
            # A fit that stops early is one with a little more of the penalty.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(rows, label)
        probes.append(Classifier(model.classes_, deepcopy(model).predict_proba))
    return probes


def _best_strength(views: np.ndarray, label: np.ndarray, group: np.ndarray) -> float:
    """Return the C with the least log loss on samples held out of the training part, whole groups at a time."""
    kept = np.arange(len(label))
    if views[..., 0].size > SELECTION_ROWS:
        kept = few_labels(label, max(SELECTION_ROWS // len(views), 1), seed=0)
    label, group = label[kept], group[kept]
    classes, code = np.unique(label, return_inverse=True)
    groups = min(len(np.unique(group[code == i])) for i in range(len(classes)))
    folds = min(groups, 5 if len(kept) * len(views) <= SELECTION_ROWS // 3 else 3)
    if folds < 2:
        return DEFAULT_STRENGTH
    try:
        fold = validation_folds(label, group, folds, seed=0)
    except ParameterError:
        return DEFAULT_STRENGTH
    loss = np.zeros(len(STRENGTHS))
    for held_out in range(folds):
        train, test = kept[fold != held_out], kept[fold == held_out]
        for i, probe in enumerate(_probes(views[:, train], label[fold != held_out], STRENGTHS)):
            chance = probe.averaged(views[:, test])[np.arange(len(test)), code[fold == held_out]]
            loss[i] -= np.log(np.maximum(chance, 1e-7)).sum()
    return STRENGTHS[int(loss.argmin())]


FITS: dict[str, Callable[..., Classifier]] = {"k-NN": knn_classifier, "linear probe": linear_probe}


def classify(
    representation: str,
    vectors: np.ndarray,
    label: np.ndarray,
    group: np.ndarray,
    *,
    shares: Sequence[float] = SHARES,
    folds: int = 5,
    seeds: Sequence[int] = range(5),
) -> list[Score]:
    """Cross-validate k-NN and a linear probe with shares of the labels.

    Parameters
    ----------
    representation : str
        Name in the table.
    vectors : float ([view,] n, dim)
        Embeddings.
    label : [n]
        Class.
    group : [n]
        What no two folds share, such as a source.
    shares : sequence of float
        Shares of the labels of the training part that are used, stratified, at least one of each class. Mean and
        spread of the features are those of the whole training part, as they need no labels.
    folds : int
        Parts, each tested once by what was trained on the others.
    seeds : sequence of int
        Each draws its folds and its labels.

    Returns
    -------
    list of Score
        "accuracy" and "balanced accuracy" (mean recall of the classes) of all samples; x is the share.

    Raises
    ------
    ParameterError
        If the folds are impossible, a share is outside (0, 1], or the vectors are not finite.
    """
    views, label, group = as_views(vectors), np.asarray(label), np.asarray(group)
    _check_classes(label)
    scores: list[Score] = []
    for seed in seeds:
        fold = validation_folds(label, group, folds, seed)
        for share in shares:
            for setting, fit in FITS.items():
                guess = np.empty_like(label)
                for i in range(folds):
                    part = np.flatnonzero(fold != i)
                    train = part[few_labels(label[part], float(share), seed)]
                    model = fit(views[:, train], label[train], group[train], unlabelled=views[:, part])
                    guess[fold == i] = model.predict(views[:, fold == i])
                scores += _accuracies(representation, setting, share, seed, label, guess)
    return scores


def classify_split(
    representation: str,
    train_vectors: np.ndarray,
    train_label: np.ndarray,
    train_group: np.ndarray,
    test_vectors: np.ndarray,
    test_label: np.ndarray,
    *,
    shares: Sequence[float] = SHARES,
    seeds: Sequence[int] = range(5),
) -> list[Score]:
    """Train k-NN and a linear probe on one set and test them on another.

    Parameters are those of :func:`classify`. With all labels nothing is drawn, so that a share of 1 is scored
    once, under the first seed.

    Returns
    -------
    list of Score
        "accuracy" and "balanced accuracy" on the test set; x is the share.
    """
    views, label, group = as_views(train_vectors), np.asarray(train_label), np.asarray(train_group)
    _check_classes(label)
    scores: list[Score] = []
    for share in shares:
        for seed in seeds if share < 1 else list(seeds)[:1]:
            kept = few_labels(label, float(share), seed)
            for setting, fit in FITS.items():
                guess = fit(views[:, kept], label[kept], group[kept], unlabelled=views).predict(test_vectors)
                scores += _accuracies(representation, setting, share, seed, np.asarray(test_label), guess)
    return scores


def _check_classes(label: np.ndarray) -> None:
    if len(np.unique(label)) < 2:
        raise ParameterError("classification needs sources of at least two classes")


def _accuracies(
    representation: str, setting: str, share: float, seed: int, label: np.ndarray, guess: np.ndarray
) -> list[Score]:
    """Return the share of right guesses, over all and as the mean over classes."""
    right = guess == label
    values = {
        "accuracy": right.mean(),
        "balanced accuracy": np.mean([right[label == name].mean() for name in np.unique(label)]),
    }
    return [
        Score("classification", representation, setting, metric, float(share), seed, float(value), count)
        for (metric, value), count in zip(values.items(), (len(label), 0), strict=True)
    ]
