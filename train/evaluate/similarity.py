"""Similarity search: the patches whose embeddings point the same way, and how often they are of the same class.

As the galaxy finder of Stein et al. 2021 (arXiv:2110.13151), which ranks the images of a survey by the cosine
similarity of their embeddings to that of a query.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vis2img.errors import ParameterError, Vis2imgError
from vis2img.files import atomic_output
from vis2img.train.evaluate.scores import Score

# Up to here an exact search takes seconds; a graph misses neighbours and takes longer to build.
EXACT_UP_TO = 100_000


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """Return vectors [n, dim] of length 1 as float32; a vector of zeros stays one.

    Raises
    ------
    ParameterError
        If they are not a table of finite numbers.
    """
    vectors = np.asarray(vectors, dtype=np.float32)
    if vectors.ndim != 2:
        raise ParameterError(f"embeddings have the shape {vectors.shape}; give one row for each patch")
    if not np.isfinite(vectors).all():
        broken = int((~np.isfinite(vectors).all(axis=1)).sum())
        raise ParameterError(f"{broken} of {len(vectors)} embeddings hold NaN or infinity; leave those rows out")
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


class Index:
    """An index of embeddings by cosine similarity.

    Parameters
    ----------
    vectors : float [n, dim]
        Embeddings; kept as float32 of length 1.
    ids : [n], optional
        What to call each: numbers or strings; by default their row numbers.
    group : [n], optional
        What belongs together, such as patches of one source; by default each is its own.
    exact_up_to : int
        Larger indices use a graph (HNSW by usearch; Malkov & Yashunin 2018, arXiv:1603.09320), which may miss a
        neighbour.
    """

    def __init__(
        self,
        vectors: np.ndarray,
        ids: np.ndarray | None = None,
        group: np.ndarray | None = None,
        *,
        exact_up_to: int = EXACT_UP_TO,
    ) -> None:
        self.vectors = unit_vectors(vectors)
        count = len(self.vectors)
        self.ids = np.arange(count) if ids is None else np.asarray(ids)
        self.group = np.arange(count) if group is None else np.asarray(group)
        if not len(self.ids) == len(self.group) == count:
            raise ParameterError(f"{len(self.ids)} ids and {len(self.group)} groups for {count} embeddings")
        self._graph: Any = None
        if count > exact_up_to:
            from usearch.index import Index as Graph

            self._graph = Graph(ndim=self.vectors.shape[1], metric="cos", dtype="f32")
            self._graph.add(np.arange(count), self.vectors)

    def __len__(self) -> int:
        return len(self.vectors)

    def search(
        self, queries: np.ndarray, k: int, exclude_group: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of the nearest embeddings and their similarities, nearest first.

        Parameters
        ----------
        queries : float [m, dim]
            Embeddings to find the like of.
        k : int
            Neighbours of each.
        exclude_group : [m], optional
            The group of each query, of which nothing may be found.

        Returns
        -------
        rows : int [m, k]
            Rows of the index; ``self.ids[rows]`` names them.
        similarity : float32 [m, k]
            Cosines.

        Raises
        ------
        ParameterError
            If a query has fewer than ``k`` neighbours outside its group, or another number of dimensions.
        """
        queries = unit_vectors(queries)
        if queries.shape[1] != self.vectors.shape[1]:
            raise ParameterError(
                f"queries of {queries.shape[1]} numbers cannot be sought among embeddings of {self.vectors.shape[1]}"
            )
        hidden = self._hidden(len(queries), exclude_group)
        if not 1 <= k <= len(self) - hidden.max(initial=0):
            raise ParameterError(
                f"{k} neighbours are impossible: {len(self) - hidden.max(initial=0)} of {len(self)} embeddings are "
                f"left outside the group of a query"
            )
        rows, similarity = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        # One large group must not make the search for all others wider.
        width = np.where(hidden > 0, 2 ** np.ceil(np.log2(np.maximum(hidden, 1))), 0).astype(np.int64)
        for extra in np.unique(width):
            mine = np.flatnonzero(width == extra)
            found, cosine = self._nearest(queries[mine], min(k + int(extra), len(self)))
            if exclude_group is not None:
                # A stable sort by "hidden" moves those behind the rest and keeps the order otherwise.
                same = self.group[found] == np.asarray(exclude_group)[mine, None]
                order = np.argsort(same, axis=1, kind="stable")
                found, cosine = (np.take_along_axis(values, order, axis=1) for values in (found, cosine))
            rows[mine], similarity[mine] = found[:, :k], cosine[:, :k]
        return rows, similarity

    def _hidden(self, count: int, exclude_group: np.ndarray | None) -> np.ndarray:
        """Return how many embeddings each of ``count`` queries must not find."""
        if exclude_group is None:
            return np.zeros(count, np.int64)
        names, size = np.unique(self.group, return_counts=True)
        place = np.minimum(np.searchsorted(names, exclude_group), len(names) - 1)
        return np.where(names[place] == exclude_group, size[place], 0)

    def _nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and cosines [m, k] of the nearest, whatever their group."""
        if self._graph is None:
            from sklearn.neighbors import NearestNeighbors

            # Between vectors of length 1 the squared distance is 2 - 2 cos.
            distance, rows = NearestNeighbors(algorithm="brute").fit(self.vectors).kneighbors(queries, k)
            return rows, (1 - distance**2 / 2).astype(np.float32)
        matches = self._graph.search(queries, k)
        return matches.keys.reshape(-1, k).astype(np.int64), 1 - matches.distances.reshape(-1, k)

    def save(self, path: Path) -> None:
        """Write the index with its ids and groups as one file, in one move.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        arrays = {"vectors": self.vectors, "ids": self.ids, "group": self.group}
        if self._graph is not None:
            arrays["graph"] = np.frombuffer(self._graph.save(), np.uint8)
        with atomic_output(path, overwrite=True) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> Index:
        """Read what :meth:`save` wrote.

        Raises
        ------
        Vis2imgError
            If the file is missing or is no index.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            index = cls(arrays["vectors"], arrays["ids"], arrays["group"], exact_up_to=len(arrays["vectors"]))
        except (OSError, ValueError, KeyError, AttributeError, zipfile.BadZipFile) as error:
            raise Vis2imgError(f"cannot read {path} as an index of embeddings; build it anew ({error})") from error
        # To make their length 1 once more would change the last digits.
        index.vectors = arrays["vectors"]
        if "graph" in arrays:
            from usearch.index import Index as Graph

            index._graph = Graph.restore(arrays["graph"].tobytes())
        return index


def precision_at(
    representation: str,
    vectors: np.ndarray,
    label: np.ndarray,
    group: np.ndarray,
    *,
    asked: tuple[np.ndarray, np.ndarray] | None = None,
    ks: Sequence[int] = (1, 3, 5, 10),
    seed: int = 0,
) -> list[Score]:
    """Return the share of the nearest patches that are of the query's class, each patch being the query once.

    Vectors are centred, as for k-NN: the cosine of vectors that have much in common tells little.

    Parameters
    ----------
    representation : str
        Name in the table.
    vectors : float [n, dim]
        Embeddings.
    label : [n]
        Class.
    group : [n]
        The query and whatever is of its group are never found.
    asked : (float [m, dim], [m]), optional
        Vectors and classes of other sources that are the queries instead; all of ``vectors`` may be found.
    ks : sequence of int
        How many of the nearest count; what is more than can be found is left out.
    seed : int
        Of the representation; nothing is drawn here.

    Returns
    -------
    list of Score
        "precision" over all queries and "balanced precision", the mean over classes of the mean over their
        queries; x is k.

    Raises
    ------
    ParameterError
        If not even the smallest k can be found for a query outside its group, or there is one class only.
    """
    label = np.asarray(label)
    if len(np.unique(label)) < 2:
        raise ParameterError("similarity needs sources of at least two classes: of one, all are alike")
    mean = vectors.mean(axis=0)
    index = Index(vectors - mean, group=group, exact_up_to=len(vectors))
    queries, wanted = (vectors, label) if asked is None else (asked[0], np.asarray(asked[1]))
    hidden = np.unique(np.asarray(group), return_counts=True)[1].max() if asked is None else 0
    ks = [k for k in ks if k <= len(vectors) - hidden] or [min(ks)]
    rows, _ = index.search(queries - mean, max(ks), exclude_group=index.group if asked is None else None)
    same = label[rows] == wanted[:, None]
    _, code, size = np.unique(wanted, return_inverse=True, return_counts=True)
    scores = []
    for k in ks:
        share = same[:, :k].mean(axis=1)
        of_class = np.bincount(code, weights=share) / size
        for metric, value in (("precision", share.mean()), ("balanced precision", of_class.mean())):
            scores.append(Score("similarity", representation, "cosine", metric, float(k), seed, float(value)))
    return scores
