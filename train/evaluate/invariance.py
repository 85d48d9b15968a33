"""Invariance: how far the embedding of a patch moves when it is imaged otherwise, against how far patches lie apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vis2img.errors import ParameterError
from vis2img.train.evaluate.equal import equal_rows
from vis2img.train.evaluate.neighbours import Index, unit_vectors
from vis2img.train.evaluate.scores import Name, Pairs


@dataclass(frozen=True)
class Invariance:
    """How little each imaging parameter changes the embeddings.

    All vectors are centred by the mean of the gallery, as what all patches have in common would make every distance
    small.
    """

    def run(self, gallery: np.ndarray, queries: Mapping[str, np.ndarray], seeds: Sequence[int] = (0,)) -> Pairs:
        """Yield two values for each imaging parameter, whose name is the setting.

        "distance ratio": mean cosine distance 1 - cos between the two embeddings of a patch over that between different
        patches of the gallery; 0 is invariant, 1 no nearer than any other patch. "retrieval at 1": share of patches
        whose nearest neighbour in the gallery is the patch itself.

        ``gallery`` [n, dim] are embeddings of patches imaged in the fixed way; ``queries`` are, for each imaging
        parameter, embeddings of the same patches with that parameter changed. Nothing is drawn. A representation that
        has collapsed is refused.
        """
        gallery = np.asarray(gallery, dtype=np.float64)
        count = len(gallery)
        if count < 2:
            raise ParameterError(f"invariance needs at least two patches, not {count}")
        mean = gallery.mean(axis=0)
        fixed = unit_vectors(gallery - mean)

        # The sum of the cosines of all pairs is the squared length of the sum of the vectors.
        same = float((fixed.astype(np.float64) ** 2).sum())
        together = float((fixed.sum(axis=0, dtype=np.float64) ** 2).sum())
        between = 1 - (together - same) / (count * (count - 1))
        if not fixed.any() or between <= 0:
            raise ParameterError(f"all {count} reference embeddings are the same; the representation has collapsed")

        index, equals = Index(fixed, exact_up_to=count), equal_rows(gallery)
        for name, vectors in queries.items():
            if np.shape(vectors) != gallery.shape:
                raise ParameterError(
                    f"embeddings under {name!r} have the shape {np.shape(vectors)}; the reference has {gallery.shape}"
                )
            moved = unit_vectors(np.asarray(vectors, dtype=np.float64) - mean)
            within = 1 - float((fixed * moved).sum(axis=1, dtype=np.float64).mean())
            nearest = index.search(moved, 1)[0][:, 0]
            found = equals[nearest] == equals  # which of equal patches is the nearest, nobody can tell
            yield Name("invariance", name, "distance ratio", seed=seeds[0]), within / between
            yield Name("invariance", name, "retrieval at 1", seed=seeds[0]), found.mean()
