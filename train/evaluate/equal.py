"""Equal vectors: which rows of a table are the same patch, embedded more than once.

Tiles that overlap, one field in two measurement sets and blank patches put equal rows into a table. Methods that reckon
with distances fail on them (the density of more equal vectors than neighbours is infinite), and a score is too good
where one of two equal samples is learnt and the other asked.
"""

from __future__ import annotations

import numpy as np

# Of the spread of the vectors, and of their length: far below what patches differ by, above what rounding does.
_OF_SPREAD, _OF_LENGTH = 1e-5, 1e-6
_PROJECTIONS = 4


def equal_rows(vectors: np.ndarray) -> np.ndarray:
    """Return for each row of ``vectors`` [n, ...] the first row that it equals, int64 [n]: itself, if it is the first.

    Equal is what differs by rounding alone: by less than 1e-5 of the spread of the vectors and 1e-6 of their length.
    Rows are sorted by random projections, n log n in all. Rows that are not finite equal none.
    """
    count = len(vectors)
    if count < 2 or not np.size(vectors):
        return np.arange(count)
    rows = np.asarray(vectors, dtype=np.float32).reshape(count, -1)
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        first = np.arange(count)
        first[finite] = np.flatnonzero(finite)[equal_rows(rows[finite])]
        return first

    offset = rows - rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
    spread = np.sqrt(np.einsum("nd,nd->n", offset, offset, dtype=np.float64).mean())
    tolerance = _OF_SPREAD * spread + _OF_LENGTH * lengths.max()

    # Rows stay in one group as long as no projection has a gap between them; the last word has their distance.
    group, rng = np.zeros(count, np.int64), np.random.default_rng(0)
    for _ in range(_PROJECTIONS):
        place = offset.astype(np.float64) @ rng.normal(size=rows.shape[1])
        order = np.lexsort((place, group))
        apart = (np.diff(group[order]) != 0) | (np.diff(place[order]) > 4 * tolerance)
        group[order] = np.concatenate([[0], np.cumsum(apart)])
    _, first, code = np.unique(group, return_index=True, return_inverse=True)
    first = first[code]
    difference = np.linalg.norm(rows - rows[first], axis=1)
    return np.where(difference <= 2 * tolerance, first, np.arange(count))
