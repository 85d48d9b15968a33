"""Groups of pictures that may show the same source."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from vis2img.coordinates import direction_vectors
from vis2img.errors import ParameterError
from vis2img.pictures.labels import LabelledImages


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
    if not (np.isfinite(radius) and radius >= 0):
        raise ParameterError(f"radius {radius} of position groups must be finite and not negative (rad)")
    ra, dec = np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64)
    finite = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    tree = cKDTree(direction_vectors(ra[finite], dec[finite]))
    # The chord between two points of the unit sphere; no two are more than half a circle apart.
    chord = 2 * np.sin(min(radius, np.pi) / 2)
    pairs = finite[tree.query_pairs(chord, output_type="ndarray")]
    return linked(len(ra), pairs[:, 0], pairs[:, 1])


def linked(count: int, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the group, int64 [count], of each of ``count`` things of which ``one[i]`` and ``other[i]`` are linked.

    Groups are numbered from 0, by the first of each.
    """
    links = coo_array((np.ones(len(one), bool), (one, other)), shape=(count, count))
    return connected_components(links, directed=False)[1].astype(np.int64)


def source_groups(images: LabelledImages, radius: float) -> np.ndarray:
    """Return the group of each cutout; cutouts that show one source are in one group.

    Joined are cutouts with positions within ``radius``, those with the same pixels, and those of one name where
    neither has a position; and whatever these link. Names that only count the rows of a file
    (:attr:`LabelledImages.named`) join none, nor do pictures that are 0 everywhere.

    Parameters
    ----------
    images : LabelledImages
    radius : float
        Largest distance between positions of one source in rad.

    Returns
    -------
    int64 [n]
        Numbers from 0.

    Raises
    ------
    ParameterError
        If ``radius`` is negative or not finite.
    """
    return _groups([images], radius)


def shared_sources(a: LabelledImages, b: LabelledImages, radius: float) -> np.ndarray:
    """Return which cutouts of ``b`` show a source that is in ``a`` too, bool [len(b)].

    Parameters
    ----------
    a, b : LabelledImages
        Pixels are compared as the network sees them, so both must be read with the same views and crop.
    radius : float
        Largest distance between positions of one source in rad; sources are told apart as in :func:`source_groups`.

    Raises
    ------
    ParameterError
        If ``radius`` is negative or not finite.
    """
    group = _groups([a, b], radius)
    return np.isin(group[len(a) :], group[: len(a)])


def _groups(sets: Sequence[LabelledImages], radius: float) -> np.ndarray:
    """Return the groups of several sets, one after another."""
    position = np.concatenate([images.position for images in sets])
    n = len(position)
    places = position_groups(position[:, 0], position[:, 1], radius).tolist()
    pixels = [key for images in sets for key in map(_pixel_key, images.images)]
    names = [key for images in sets for key in _name_keys(images)]
    first = np.concatenate([_first_alike(keys) for keys in (places, pixels, names)])
    return linked(n, np.tile(np.arange(n), 3), first)


def _first_alike(keys: Sequence[Hashable]) -> np.ndarray:
    """Return for each key where the first like it is, int [n]; None is like no other."""
    first: dict[Hashable, int] = {}
    return np.array([i if key is None else first.setdefault(key, i) for i, key in enumerate(keys)], np.int64)


def _pixel_key(image: np.ndarray) -> bytes | None:
    """Return a hash of the pixels; None where all are 0, which tells nothing."""
    pixels = np.ascontiguousarray(image, np.float32) + np.float32(0)  # -0 becomes 0
    return hashlib.blake2b(pixels.tobytes(), digest_size=16).digest() if pixels.any() else None


def _name_keys(images: LabelledImages) -> list[str | None]:
    unplaced = ~np.isfinite(images.position).all(axis=1)
    return [name if name and free and images.named else None for name, free in zip(images.name, unplaced, strict=True)]
