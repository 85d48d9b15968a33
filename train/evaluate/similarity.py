"""Similarity: how often the patches whose embeddings point the same way are of the same class.

As the galaxy finder of Stein et al. 2021 (arXiv:2110.13151), which ranks the images of a survey by the cosine
similarity of their embeddings to that of a query.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vis2img.errors import ParameterError, Vis2imgWarning
from vis2img.train.evaluate.folds import Samples, check_classes, check_names, without_leaks
from vis2img.train.evaluate.neighbours import Index
from vis2img.train.evaluate.scores import Name, Pairs


@dataclass(frozen=True)
class Similarity:
    """The share of the nearest patches that are of the query's class.

    Vectors are centred, as for k-NN: the cosine of vectors that have much in common tells little.

    Parameters
    ----------
    ks : sequence of int
        How many of the nearest count; what is more than there are is left out, but for the smallest.
    """

    ks: Sequence[int] = (1, 3, 5, 10)

    def run(self, gallery: Samples, queries: Samples | None = None, seeds: Sequence[int] = (0,)) -> Pairs:
        """Yield "precision" over all queries and "balanced precision", the mean over classes of their means; x is k.

        By default each of the gallery is a query, and none of its own group is searched. Nothing is drawn.
        """
        gallery, queries = without_leaks(gallery, queries, 2)
        if queries is not None:
            check_classes(gallery, queries)
        if len(np.unique(gallery.label)) < 2:
            raise ParameterError("similarity needs sources of at least two classes: of one, all are alike")
        check_names(gallery.label)
        if queries is None:
            _tell_alone(gallery)
        mean = gallery.inputs.mean(axis=0)
        index = Index(gallery.inputs - mean, group=gallery.group, exact_up_to=len(gallery))
        left = len(gallery)
        if queries is None:
            left -= np.unique(gallery.group, return_counts=True)[1].max()
        ks = [k for k in self.ks if k <= left] or [min(self.ks)]

        exclude_group = gallery.group if queries is None else None
        queries = gallery if queries is None else queries
        rows, _ = index.search(queries.inputs - mean, max(ks), exclude_group)
        same = gallery.label[rows] == queries.label[:, None]
        _, code, size = np.unique(queries.label, return_inverse=True, return_counts=True)
        for k in ks:
            share = same[:, :k].mean(axis=1)
            of_class = np.bincount(code, weights=share) / size
            yield Name("similarity", "cosine", "precision", float(k), seeds[0]), share.mean()
            yield Name("similarity", "cosine", "balanced precision", float(k), seeds[0]), of_class.mean()


def _tell_alone(gallery: Samples) -> None:
    """Warn of classes that lie in one group: as none of it is searched, their like cannot be found."""
    names = np.unique(gallery.label)
    alone = [str(name) for name in names if len(np.unique(gallery.group[gallery.label == name])) == 1]
    if alone:
        warnings.warn(
            f"the class {', '.join(alone)} is in one group only, of which nothing is searched: its precision is 0, "
            "whatever the representation",
            Vis2imgWarning,
            stacklevel=3,
        )
