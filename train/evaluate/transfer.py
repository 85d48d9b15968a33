"""Transfer: learn the classes on images made one way, and be asked about images made another way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vis2img.errors import ParameterError
from vis2img.train.evaluate.classification import FITS, as_views
from vis2img.train.evaluate.folds import few_labels, validation_folds
from vis2img.train.evaluate.scores import Score


def transfer(
    representation: str,
    learnt: np.ndarray,
    asked: Mapping[str, np.ndarray],
    label: np.ndarray,
    group: np.ndarray,
    *,
    folds: int = 5,
    seeds: Sequence[int] = range(5),
    fits: Mapping[str, Any] = FITS,
) -> list[Score]:
    """Cross-validate k-NN and a linear probe that are fitted to one set of vectors and tested on others.

    A source is never asked about by a classifier that learnt it, imaged in whatever way.

    Parameters
    ----------
    representation : str
        Name in the table.
    learnt : float ([view,] n, dim)
        Vectors of the sources.
    asked : dict of str to float ([view,] n, dim)
        Vectors of the same n sources, imaged in other ways, by what changes.
    label : [n]
        Class.
    group : [n]
        What no two folds share.
    folds : int
    seeds : sequence of int
        Each draws its folds.
    fits : mapping
        What is fitted: of :data:`vis2img.train.evaluate.classification.FITS`.

    Returns
    -------
    list of Score
        Settings "NAME, k-NN" and "NAME, linear probe"; "balanced accuracy" of ``asked``.

    Raises
    ------
    ParameterError
        If the sets of vectors differ in shape, or the folds are impossible.
    """
    learnt, label, group = as_views(learnt), np.asarray(label), np.asarray(group)
    others = {name: as_views(vectors) for name, vectors in asked.items()}
    for name, vectors in others.items():
        if vectors.shape != learnt.shape:
            raise ParameterError(
                f"transfer {name!r}: vectors of shape {learnt.shape} and {vectors.shape} must be of one shape"
            )
    scores = []
    for seed in seeds:
        fold = validation_folds(label, group, folds, seed)
        for setting, fit in fits.items():
            guess = {name: np.empty_like(label) for name in others}
            for i in range(folds):
                model = fit(learnt[:, fold != i], label[fold != i], group[fold != i])
                for name, vectors in others.items():
                    guess[name][fold == i] = model.predict(vectors[:, fold == i])
            for name in others:
                scores.append(_score(representation, f"{name}, {setting}", seed, label, guess[name]))
    return scores


def transfer_to_others(
    representation: str,
    learnt: np.ndarray,
    label: np.ndarray,
    group: np.ndarray,
    asked: np.ndarray,
    asked_label: np.ndarray,
    *,
    share: float = 0.8,
    seeds: Sequence[int] = range(5),
) -> list[Score]:
    """Fit k-NN and a linear probe to sources of some fields, and test them on those of another telescope or band.

    Parameters
    ----------
    representation : str
        Name in the table.
    learnt, label, group
        As for :func:`transfer`.
    asked : float ([view,] m, dim)
        Vectors of the other sources.
    asked_label : [m]
        Their classes.
    share : float
        Share of the labels that each seed draws, so that seeds differ.
    seeds : sequence of int

    Returns
    -------
    list of Score
        Settings "to other fields, k-NN" and "to other fields, linear probe"; "balanced accuracy" of ``asked``.

    Raises
    ------
    ParameterError
        If a class of the other sources was not learnt.
    """
    views, label, group = as_views(learnt), np.asarray(label), np.asarray(group)
    strange = np.setdiff1d(asked_label, label)
    if len(strange):
        raise ParameterError(f"the other fields have sources of the class '{strange[0]}', of which none can be learnt")
    scores = []
    for seed in seeds:
        kept = few_labels(label, share, seed)
        for setting, fit in FITS.items():
            guess = fit(views[:, kept], label[kept], group[kept], unlabelled=views).predict(asked)
            scores.append(_score(representation, f"to other fields, {setting}", seed, asked_label, guess))
    return scores


def _score(representation: str, setting: str, seed: int, label: np.ndarray, guess: np.ndarray) -> Score:
    from sklearn.metrics import balanced_accuracy_score

    value = float(balanced_accuracy_score(label, guess))
    return Score("transfer", representation, setting, "balanced accuracy", float("nan"), seed, value)
