"""Samples, and which are trained on and which tested: folds that keep a source whole, and subsets with few labels."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from vis2img.errors import ParameterError, Vis2imgWarning
from vis2img.train.evaluate.equal import equal_rows


@dataclass(frozen=True, eq=False)
class Samples:
    """Sources, or patches of sky, that something is learnt from or tested on.

    Parameters
    ----------
    inputs : float
        Vectors [n, dim], vectors of several views of each [view, n, dim], or images [n, y, x, channel].
    label : [n]
        Class, or the number that is predicted.
    group : [n]
        What no split may part, such as the patches of a field.
    """

    inputs: np.ndarray
    label: np.ndarray
    group: np.ndarray

    def __len__(self) -> int:
        return len(self.label)

    def take(self, rows: np.ndarray) -> Samples:
        """Return the samples at ``rows`` (numbers or booleans)."""
        inputs = self.inputs[:, rows] if self.inputs.ndim == 3 else self.inputs[rows]
        return Samples(inputs, self.label[rows], self.group[rows])


def mean_view(samples: Samples) -> Samples:
    """Return the samples with the mean over their views, where they have several."""
    return replace(samples, inputs=mean_vectors(samples.inputs))


def mean_vectors(vectors: np.ndarray) -> np.ndarray:
    """Return vectors [n, dim], of several views [view, n, dim] their mean."""
    return vectors.mean(axis=0) if vectors.ndim == 3 else vectors


def without_copies(samples: Samples, folds: int = 1) -> tuple[Samples, np.ndarray]:
    """Return the samples without copies, and the rows [m] that they were; a warning tells how many are left out.

    A copy has the inputs and the label of a sample of another group: one learnt, the other is known. Samples whose
    inputs are equal across labels, as of a representation that has collapsed, stay: nothing is known by them. So do
    all where fewer than two of a class, or fewer groups than ``folds``, would be left.
    """
    first = _first_alike(samples.inputs, samples.label)
    copies = samples.group != samples.group[first]
    rows = np.flatnonzero(~copies)
    left = np.unique(samples.label[rows], return_counts=True)[1]
    if not copies.any() or len(np.unique(samples.group[rows])) < folds or left.min() < 2:
        return samples, np.arange(len(samples))
    warnings.warn(
        f"{int(copies.sum())} of {len(samples)} samples are copies of one in another group (equal patches) and are "
        "left out: one learnt, the other would be known",
        Vis2imgWarning,
        stacklevel=2,
    )
    return samples.take(rows), rows


def without_known(test: Samples, train: Samples) -> Samples:
    """Return the test samples that are no copies of training samples; a warning tells how many are left out.

    Raises
    ------
    ParameterError
        If none is left.
    """
    axis = 1 if test.inputs.ndim == 3 else 0
    inputs = np.concatenate([train.inputs, test.inputs], axis=axis)
    known = (_first_alike(inputs, np.concatenate([train.label, test.label])) < len(train))[len(train) :]
    if not known.any():
        return test
    if known.all():
        raise ParameterError(f"all {len(test)} test samples are copies of training samples; give others to test on")
    warnings.warn(
        f"{int(known.sum())} of {len(test)} test samples are copies of training samples (equal patches) and are left "
        "out",
        Vis2imgWarning,
        stacklevel=2,
    )
    return test.take(~known)


def _first_alike(inputs: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return the first sample that each is a copy of, int [n]; itself where equal ones have different labels."""
    first = equal_rows(np.moveaxis(inputs, 1, 0) if inputs.ndim == 3 else inputs)
    mixed = np.zeros(len(first), bool)
    mixed[first[label != label[first]]] = True
    return np.where(mixed[first], np.arange(len(first)), first)


def without_leaks(train: Samples, test: Samples | None, folds: int) -> tuple[Samples, Samples | None]:
    """Return both without copies: :func:`without_copies` of each, and :func:`without_known` of the test samples."""
    train, _ = without_copies(train, folds if test is None else 1)
    if test is None:
        return train, None
    return train, without_copies(without_known(test, train), 1)[0]


def check_names(label: np.ndarray) -> None:
    """Refuse names of classes that differ by case or spaces alone: they are one class, called twice."""
    names: dict[str, str] = {}
    for name in map(str, np.unique(label)):
        other = names.setdefault("".join(name.casefold().split()), name)
        if other != name:
            raise ParameterError(f"the classes {other!r} and {name!r} differ by case or spaces alone; call them alike")


def check_classes(train: Samples, test: Samples) -> None:
    """Refuse a test set that is empty, or has a class of which nothing can be learnt; say which classes it lacks."""
    check_names(np.concatenate([train.label, test.label]))
    if not len(test):
        raise ParameterError("there are no test samples; give some, or leave the test set out for a cross-validation")
    unknown = np.setdiff1d(test.label, train.label)
    if len(unknown):
        known = ", ".join(map(str, np.unique(train.label)))
        raise ParameterError(
            f"there are test samples of the class {str(unknown[0])!r}, of which none can be learnt: there are {known}"
        )
    absent = np.setdiff1d(train.label, test.label)
    if len(absent):
        warnings.warn(
            f"no test sample is of the class {', '.join(map(str, absent))}: means over classes are over the "
            f"{len(np.unique(test.label))} others",
            Vis2imgWarning,
            stacklevel=2,
        )


def validation_folds(label: np.ndarray, group: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return the fold int [n] of each sample, from 0: stratified by label [n], and no group [n] in two folds.

    A group is what must not be split, such as views of one source; ``seed`` is of the shuffle.

    Raises
    ------
    ParameterError
        If there are fewer groups than folds, or a class falls into one fold only, so that a classifier tested
        on it has never seen it.
    """
    label, code = np.unique(np.asarray(label), return_inverse=True)
    _, group = np.unique(np.asarray(group), return_inverse=True)
    count = int(group.max(initial=-1)) + 1
    if not 2 <= folds <= count:
        raise ParameterError(f"{folds} folds of {count} groups are impossible; choose 2 to {max(count, 2)} folds")
    largest = np.bincount(code).max()
    if largest < folds:
        raise ParameterError(
            f"{folds} folds need a class of as many samples, the largest has {largest}; use fewer folds"
        )

    if count == len(group):
        # The splitter of groups goes through them one by one, which is needless where each is one sample.
        splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(code, code)
    else:
        splits = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(code, code, group)
    fold = np.empty(len(group), np.int64)
    for i, (_, test) in enumerate(splits):
        fold[test] = i

    for i, name in enumerate(label):
        if len(np.unique(fold[code == i])) < 2:
            raise ParameterError(
                f"class {name} is in one fold only, so it cannot be both trained and tested; leave it out, "
                f"or give it samples of more groups"
            )
    return fold


def share_or_count(value: float) -> float | int:
    """Return a number of a setting as :func:`few_labels` takes it: up to 1 a share, above it how many."""
    return int(value) if value > 1 else float(value)


def few_labels(label: np.ndarray, share_or_count: float, seed: int) -> np.ndarray:
    """Return which samples keep their label: a stratified subset with at least one of each class.

    With one seed a smaller subset lies within each larger one.

    Parameters
    ----------
    label : [n]
        Class.
    share_or_count : float or int
        A share of the samples (float, up to 1.0) or how many (int). Where that is fewer than the classes, one of
        each is taken.
    seed : int
        Of the draw.

    Returns
    -------
    int [m]
        Sorted indices.

    Raises
    ------
    ParameterError
        If the share is outside (0, 1] or the count outside 1 to n.
    """
    label = np.asarray(label)
    if isinstance(share_or_count, int | np.integer):
        count = int(share_or_count)
        if not 1 <= count <= len(label):
            raise ParameterError(f"{count} labels of {len(label)} samples are impossible; choose 1 to {len(label)}")
    else:
        if not 0 < share_or_count <= 1:
            raise ParameterError(f"share of labels {share_or_count} must lie above 0 and up to 1")
        count = round(share_or_count * len(label))

    _, code, size = np.unique(label, return_inverse=True, return_counts=True)
    shuffled = np.random.default_rng(seed).permutation(len(label))
    rank = np.empty(len(label), np.int64)
    for i in range(len(size)):
        members = shuffled[code[shuffled] == i]
        rank[members] = np.arange(len(members))

    # Samples in the order of their place within their class keep its share at every length of the subset.
    place = np.where(rank == 0, -1.0, (rank + 0.5) / size[code])
    order = shuffled[np.argsort(place[shuffled], kind="stable")]
    return np.sort(order[: max(count, len(size))])
