"""Anomalies: outlier scores of embeddings, and how many planted rare sources the strangest patches hold.

Features are prepared and scored as in Astronomaly (Lochner & Bassett 2021, arXiv:2010.11202): standardised, reduced
by principal components, then an isolation forest or the local outlier factor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor
from sklearn.preprocessing import StandardScaler

from vis2img.errors import ParameterError
from vis2img.train.evaluate.equal import equal_rows
from vis2img.train.evaluate.neighbours import finite_vectors
from vis2img.train.evaluate.scores import Name, Pairs

METHODS = ("isolation forest", "local outlier factor")
KEPT_VARIANCE = 0.95
LOOKED_AT = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
# Share looked at for the one number that a method is judged by.
HEADLINE = 0.05


def components(vectors: np.ndarray) -> np.ndarray:
    """Return standardised vectors [n, dim] as the principal components [n, m] that hold 95% of the variance.

    Raises
    ------
    ParameterError
        If the vectors are not finite, none, or all the same.
    """
    vectors = finite_vectors(vectors)
    if not vectors.size:
        raise ParameterError(f"a table of shape {vectors.shape} holds no embeddings; there is nothing to rank")
    scaled = StandardScaler().fit_transform(vectors)
    if not scaled.any() or not equal_rows(vectors).any():
        raise ParameterError(f"all {len(vectors)} embeddings are the same; there is nothing to tell them apart by")
    # Many more rows than columns are quick by their covariance; the full decomposition is for wide tables.
    solver = "covariance_eigh" if len(scaled) > scaled.shape[1] else "full"
    return PCA(KEPT_VARIANCE, svd_solver=solver).fit_transform(scaled)


def outlier_scores(method: str, vectors: np.ndarray, seed: int) -> np.ndarray:
    """Return how strange each vector is, float [n], the strangest highest.

    Parameters
    ----------
    method : str
        "isolation forest" (Liu et al. 2008, 100 trees) or "local outlier factor" (Breunig et al. 2000, 20
        neighbours; equal vectors count as one).
    vectors : float [n, dim]
    seed : int
        Of the forest; the local outlier factor draws nothing.

    Raises
    ------
    ParameterError
        If the method is unknown or the vectors cannot be used.
    """
    if method not in METHODS:
        raise ParameterError(f"unknown anomaly method {method!r}; choose one of: {', '.join(METHODS)}")
    features = components(vectors)
    if method == "isolation forest":
        return -IsolationForest(random_state=seed).fit(features).score_samples(features)
    # The density of more equal vectors than neighbours would be infinite, and all around them outliers: as in the paper
    # (definition 6), what counts are neighbours at different places.
    different, place = np.unique(equal_rows(vectors), return_inverse=True)
    features = features[different]
    # A search tree is slower than all distances for this many dimensions.
    factor = LocalOutlierFactor(min(20, len(features) - 1), algorithm="brute")
    return -factor.fit(features).negative_outlier_factor_[place]


def recall_curve(order: np.ndarray, planted: np.ndarray) -> np.ndarray:
    """Return the share of what was planted that has been seen after each patch looked at.

    Element i of float [n + 1] is the recall among the first i of ``order`` [n], in which the patches are looked at, of
    those where ``planted`` [n] is true.

    Raises
    ------
    ParameterError
        If nothing is planted.
    """
    planted = np.asarray(planted, dtype=bool)
    if not planted.any():
        raise ParameterError("no patch is a planted anomaly; recall needs at least one")
    return np.concatenate([[0], np.cumsum(planted[np.asarray(order)])]) / planted.sum()


@dataclass(frozen=True)
class Anomaly:
    """Recall of planted anomalies against the share of patches looked at.

    Parameters
    ----------
    looked_at : sequence of float
        Shares of the patches; the number is rounded, and at least 1.
    """

    looked_at: Sequence[float] = LOOKED_AT

    def run(self, vectors: np.ndarray, planted: np.ndarray, seeds: Sequence[int] = range(5)) -> Pairs:
        """Yield "recall" and, at 5%, "recall over random"; x is the share looked at.

        There is a recall of each method, and of "random order": its expectation, which is the share itself.

        ``planted`` [n] tells which patches of ``vectors`` [n, dim] are the anomalies; ``seeds`` are of the isolation
        forest.
        """
        count = len(vectors)
        for method in METHODS:
            for seed in seeds if method == "isolation forest" else seeds[:1]:
                order = np.argsort(-outlier_scores(method, vectors, seed), kind="stable")
                curve = recall_curve(order, planted)
                for share in self.looked_at:
                    yield Name("anomaly", method, "recall", float(share), seed), curve[patches(share, count)]
                first = patches(HEADLINE, count)
                name = Name("anomaly", method, "recall over random", HEADLINE, seed)
                yield name, curve[first] / (first / count)
        for share in self.looked_at:
            yield Name("anomaly", "random order", "recall", float(share), seeds[0]), patches(share, count) / count


def patches(share: float, count: int) -> int:
    """Return how many patches a share of ``count`` is: at least one."""
    return max(round(share * count), 1)
