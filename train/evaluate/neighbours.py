"""Nearest neighbours by cosine similarity: an index of embeddings, and what the neighbours of a vector say of it."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from sklearn.neighbors import NearestNeighbors

from vis2img.errors import ParameterError, Vis2imgError
from vis2img.files import atomic_output
from vis2img.train.evaluate.equal import equal_rows

if TYPE_CHECKING:
    from usearch.index import Index as Graph

# Up to here an exact search takes seconds; a graph misses neighbours and takes longer to build.
EXACT_UP_TO = 100_000
# Of an exponential vote exp(cos / T), with the T of Wu et al. 2018 (arXiv:1805.01978), as in DINO's evaluation.
TEMPERATURE = 0.07
_LEAST_VOTE = 1e-6  # of neighbours that point elsewhere: where all do, all have the same
_QUERIES = 1024  # whose neighbours are weighed at a time


@dataclass(frozen=True)
class Voting:
    """How the nearest neighbours of a vector say what it is."""

    neighbours: int = 20
    """Samples that vote; fewer where there are fewer."""
    votes: Literal["cosine", "exponential"] = "cosine"
    """What the vote of each weighs: its cosine, or exp(cosine / 0.07), as in DINO's evaluation."""

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise ParameterError(f"neighbours must be at least 1, not {self.neighbours}")

    def weights(self, cosine: np.ndarray) -> np.ndarray:
        """Return the weight of each vote."""
        # Relative to the vote of a vector equal to the query, as only ratios count.
        return np.exp((cosine - 1) / TEMPERATURE) if self.votes == "exponential" else np.maximum(cosine, _LEAST_VOTE)


VOTING = Voting()
# Few and near: for numbers that change along the way, and the few sources of fields. Of 187 in four fields they tell
# more (components of pixels 0.86 against 0.72, the demonstration's network 0.63 against 0.55).
NEAR = Voting(10, "exponential")


def finite_vectors(vectors: np.ndarray) -> np.ndarray:
    """Return vectors [n, dim] as float32; refuse what is no table of finite numbers."""
    vectors = np.asarray(vectors, dtype=np.float32)
    if vectors.ndim != 2:
        raise ParameterError(f"embeddings have the shape {vectors.shape}; give one row for each patch")
    broken = int((~np.isfinite(vectors).all(axis=1)).sum())
    if broken:
        raise ParameterError(f"{broken} of {len(vectors)} embeddings hold NaN or infinity; leave those rows out")
    return vectors


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """Return vectors [n, dim] of length 1 as :func:`finite_vectors` does; a vector of zeros stays one."""
    vectors = finite_vectors(vectors)
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
        neighbour. Equal vectors are one node of it, and are found together.
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
        self._graph: Graph | None = None
        self._equals: Equals | None = None
        if count > exact_up_to:
            from usearch.index import Index as Graph  # of the extra "evaluate", for large indices alone

            # Equal vectors would be linked to each other alone, and what lies behind them never be found.
            self._equals = Equals(self.vectors)
            self._graph = Graph(ndim=self.vectors.shape[1], metric="cos", dtype="f32")
            self._graph.add(self._equals.first, self.vectors[self._equals.first])

    def __len__(self) -> int:
        return len(self.vectors)

    def search(
        self, queries: np.ndarray, k: int, exclude_group: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of the nearest embeddings and their similarities, nearest first.

        Parameters
        ----------
        queries : float [m, dim]
            Embeddings.
        k : int
            Neighbours of each.
        exclude_group : [m], optional
            The group of each query, none of which may be among its neighbours.

        Returns
        -------
        rows : int [m, k]
            Rows of the index; ``self.ids[rows]`` names them.
        similarity : float [m, k]
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
        excluded = self._group_sizes(len(queries), exclude_group)
        left = len(self) - excluded.max(initial=0)
        if not 1 <= k <= left:
            raise ParameterError(
                f"{k} neighbours are impossible: {left} of {len(self)} embeddings are left outside the group of a query"
            )

        rows, similarity = np.empty((len(queries), k), np.int64), np.empty((len(queries), k))
        # One large group must not make the search for all others wider.
        width = np.where(excluded > 0, 2 ** np.ceil(np.log2(np.maximum(excluded, 1))), 0).astype(np.int64)
        for extra in np.unique(width):
            some = np.flatnonzero(width == extra)
            nearest, cosine = self._nearest(queries[some], min(k + int(extra), len(self)))
            if exclude_group is not None:
                # A stable sort moves those of the query's group behind the rest and keeps the order otherwise.
                same = self.group[nearest] == np.asarray(exclude_group)[some, None]
                order = np.argsort(same, axis=1, kind="stable")
                nearest, cosine = (np.take_along_axis(values, order, axis=1) for values in (nearest, cosine))
            rows[some], similarity[some] = nearest[:, :k], cosine[:, :k]
        return rows, similarity

    def _group_sizes(self, count: int, exclude_group: np.ndarray | None) -> np.ndarray:
        """Return how many embeddings are of the excluded group of each of ``count`` queries."""
        if exclude_group is None:
            return np.zeros(count, np.int64)
        names, size = np.unique(self.group, return_counts=True)
        place = np.minimum(np.searchsorted(names, exclude_group), len(names) - 1)
        return np.where(names[place] == exclude_group, size[place], 0)

    def _nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and cosines [m, k] of the nearest, whatever their group."""
        if self._graph is None:
            # Between vectors of length 1 the squared distance is 2 - 2 cos.
            distance, rows = NearestNeighbors(algorithm="brute").fit(self.vectors).kneighbors(queries, k)
            return rows, 1 - distance**2 / 2
        assert self._equals is not None
        wanted = min(k, len(self._equals.first))
        matches = self._graph.search(queries, wanted)
        keys, cosine = matches.keys.reshape(-1, wanted), 1 - matches.distances.reshape(-1, wanted)
        assert hasattr(matches, "counts")  # of several queries
        short = np.flatnonzero(matches.counts < wanted)
        if len(short):
            # What the graph has no way to is found by all distances.
            kinds = NearestNeighbors(algorithm="brute").fit(self.vectors[self._equals.first])
            distance, rows = kinds.kneighbors(queries[short], wanted)
            keys[short], cosine[short] = self._equals.first[rows], 1 - distance**2 / 2
        if len(self._equals.first) == len(self):
            return keys.astype(np.int64), cosine
        return self._equals.expand(keys.astype(np.int64), cosine, k)

    def save(self, path: Path) -> None:
        """Write the index with its ids and groups as one file, in one move."""
        arrays = {"vectors": self.vectors, "ids": self.ids, "group": self.group}
        if self._graph is not None:
            arrays["graph"] = np.frombuffer(self._graph.save() or b"", np.uint8)
        with atomic_output(path, overwrite=True) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> Index:
        """Read what :meth:`save` wrote; refuse a file that is missing or no index."""
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
            index._equals = Equals(index.vectors)
        return index


class Equals:
    """Equal vectors of an index: ``first`` [m] of each kind, and all rows behind it."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.first, kind = np.unique(equal_rows(vectors), return_inverse=True)
        self._rows = np.argsort(kind, kind="stable")
        self._start = np.searchsorted(kind[self._rows], np.arange(len(self.first) + 1))

    def expand(self, rows: np.ndarray, similarity: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the ``k`` nearest rows and their similarities [q, k], given the first ones [q, m] of their kinds."""
        kind = np.searchsorted(self.first, rows)
        out, cosine = np.empty((len(rows), k), np.int64), np.empty((len(rows), k))
        for i, kinds in enumerate(kind):
            size = self._start[kinds + 1] - self._start[kinds]
            enough = int(np.searchsorted(size.cumsum(), k)) + 1
            found = [self._rows[self._start[each] : self._start[each + 1]] for each in kinds[:enough]]
            out[i] = np.concatenate(found)[:k]
            cosine[i] = np.repeat(similarity[i, :enough], [len(each) for each in found])[:k]
        return out, cosine


def neighbour_means(
    views: np.ndarray, values: np.ndarray, mean: np.ndarray, voting: Voting = VOTING
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function of vectors [m, dim] to the means [m, c] of what their neighbours are, the nearer weighing more.

    Parameters
    ----------
    views : float [view, n, dim]
        Vectors of the samples. Of several views of a sample the nearest counts, so that it has one vote however many
        there are and however alike they look.
    values : float [n, c]
        Of each sample.
    mean : float [dim]
        Taken off all vectors, as the cosine of vectors that have much in common tells little.
    voting : Voting
    """
    count, samples = len(views), len(values)
    # A score must not depend on neighbours that a graph has missed.
    index = Index((views - mean).reshape(-1, views.shape[2]), exact_up_to=count * samples)
    k = min(voting.neighbours, samples)

    def means(vectors: np.ndarray) -> np.ndarray:
        parts = []
        for start in range(0, len(vectors), _QUERIES):
            # The k nearest samples are among the k x views nearest views.
            rows, cosine = index.search(vectors[start : start + _QUERIES] - mean, k * count)
            sample = rows % samples
            votes = voting.weights(cosine)
            if count > 1:
                votes *= _first_of_each(sample, k)
            parts.append(np.einsum("qk,qkc->qc", votes, values[sample]) / votes.sum(axis=1, keepdims=True))
        return np.concatenate(parts)

    return means


def _first_of_each(sample: np.ndarray, k: int) -> np.ndarray:
    """Return where in the rows of ``sample`` [m, n] one of the first k different numbers comes first."""
    order = np.argsort(sample, axis=1, kind="stable")
    new = np.diff(np.take_along_axis(sample, order, axis=1), axis=1, prepend=-1) != 0
    first = np.empty_like(new)
    np.put_along_axis(first, order, new, axis=1)
    return first & (first.cumsum(axis=1) <= k)
