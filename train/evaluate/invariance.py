"""Invariance: how far the embedding of a patch moves when it is imaged otherwise, against how far patches lie apart."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vis2img.errors import ParameterError
from vis2img.train.evaluate.scores import Score
from vis2img.train.evaluate.similarity import Index, unit_vectors


def invariance(
    representation: str, reference: np.ndarray, otherwise: Mapping[str, np.ndarray], seed: int = 0
) -> list[Score]:
    """Score how little each imaging parameter changes the embeddings.

    All vectors are centred by the mean of the reference, as what all patches have in common would make every
    distance small.

    Parameters
    ----------
    representation : str
        Name in the table.
    reference : float [n, dim]
        Embeddings of patches imaged in the fixed way.
    otherwise : mapping of str to float [n, dim]
        For each imaging parameter, embeddings of the same patches with that parameter changed.
    seed : int
        Of the representation; nothing is drawn here.

    Returns
    -------
    list of Score
        Each setting is the name of a parameter. "distance ratio": mean cosine distance 1 - cos between the two
        embeddings of a patch over that between different patches of the reference; 0 is invariant, 1 no nearer
        than any other patch. "retrieval at 1": share of patches whose nearest neighbour among the reference is
        the patch itself.

    Raises
    ------
    ParameterError
        If there are fewer than two patches, the shapes differ, or all patches of the reference look the same.
    """
    reference = np.asarray(reference, dtype=np.float64)
    count = len(reference)
    if count < 2:
        raise ParameterError(f"invariance needs at least two patches, not {count}")
    mean = reference.mean(axis=0)
    fixed = unit_vectors(reference - mean)
    # The sum of the cosines of all pairs is the squared length of the sum of the vectors.
    same = float((fixed.astype(np.float64) ** 2).sum())
    together = float((fixed.sum(axis=0, dtype=np.float64) ** 2).sum())
    between = 1 - (together - same) / (count * (count - 1))
    if not fixed.any() or between <= 0:
        raise ParameterError(f"all {count} reference embeddings are the same; the representation has collapsed")
    index = Index(fixed, exact_up_to=count)
    scores = []
    for name, vectors in otherwise.items():
        if np.shape(vectors) != reference.shape:
            raise ParameterError(
                f"embeddings under {name!r} have the shape {np.shape(vectors)}; the reference has {reference.shape}"
            )
        moved = unit_vectors(np.asarray(vectors, dtype=np.float64) - mean)
        within = 1 - float((fixed * moved).sum(axis=1, dtype=np.float64).mean())
        nearest = index.search(moved, 1)[0][:, 0]
        values = {"distance ratio": within / between, "retrieval at 1": float((nearest == np.arange(count)).mean())}
        for metric, value in values.items():
            scores.append(Score("invariance", representation, name, metric, float("nan"), seed, value))
    return scores
