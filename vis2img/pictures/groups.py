"""Groups of pictures that may show the same source."""

from __future__ import annotations

import numpy as np

from vis2img.errors import ParameterError


def position_groups(ra: np.ndarray, dec: np.ndarray, radius: float) -> np.ndarray:
    """Return the group of each position: whatever is linked by steps of at most ``radius`` is one group.

    Parameters
    ----------
    ra, dec : float [n]
        Positions in rad. A position that is NaN is a group of its own.
    radius : float
        Largest step in rad, along a great circle.

    Returns
    -------
    int [n]
        Numbers from 0.

    Raises
    ------
    ParameterError
        If ``radius`` is negative or not finite.
    """
    from scipy.spatial import cKDTree

    if not (np.isfinite(radius) and radius >= 0):
        raise ParameterError(f"radius {radius} of position groups must be finite and not negative (rad)")
    ra, dec = np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64)
    known = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    a, d = ra[known], dec[known]
    tree = cKDTree(np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=1))
    # The chord between two points of the unit sphere; no two are more than half a circle apart.
    chord = 2 * np.sin(min(radius, np.pi) / 2)
    pairs = known[tree.query_pairs(chord, output_type="ndarray")]
    return linked(len(ra), pairs[:, 0], pairs[:, 1])


def linked(count: int, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the group, int64 [count], of each of ``count`` things of which ``one[i]`` and ``other[i]`` are linked.

    Groups are numbered from 0, by the first of each.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(one), bool), (one, other)), shape=(count, count))
    return connected_components(links, directed=False)[1].astype(np.int64)
