"""The Gaussians, points and cutouts of sources as columns: on the sky, and in a picture.

A **box** holds the 0.1 contour of every Gaussian (2.15 sigma to each side), hence at least 93% of the flux at any
angle (Sidak 1967); of a cutout it cuts off as much of the flux on each side as of a Gaussian, 1.6%.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vis2img.coordinates import direction_vectors
from vis2img.simulate.sky.source import SkyCutout, SkySource
from vis2img.simulate.truth.frames import fwhm_covariance
from vis2img.units import SIGMA_OF_FWHM

MASK_FLUX = 0.9  # share of the flux in a mask
BOX_SIGMAS = math.sqrt(2 * math.log(1 / (1 - MASK_FLUX)))  # from the middle of a Gaussian to its 0.1 contour
_BOX_TAIL = 0.5 * math.erfc(BOX_SIGMAS / math.sqrt(2))  # share of a Gaussian beyond one side of its box


@dataclass(frozen=True, eq=False)
class SkyParts:
    """All parts of all sources, in the order of the sources; k parts, n sources."""

    owner: np.ndarray  # [k]
    first: np.ndarray  # [n + 1] first part of each source
    ra: np.ndarray
    dec: np.ndarray
    flux: np.ndarray
    ref_freq: np.ndarray
    spectral_index: np.ndarray
    covariance: np.ndarray  # [k, 2, 2] (east, north), rad^2
    corners: np.ndarray  # [k, 4, 2] (east, north) of the box of a cutout, rad; 0 for Gaussians
    cutout: list[SkyCutout | None]
    vector: np.ndarray  # [n, 3] to the sources
    radius: np.ndarray  # [n] of the circle around the box of a source, rad


@dataclass(frozen=True, eq=False)
class Parts:
    """The parts of the sources in a view; k of them."""

    owner: np.ndarray  # int [k], the number of the source in the view, ascending
    xy: np.ndarray  # [k, 2] pixel position
    covariance: np.ndarray  # [k, 2, 2] of the Gaussian, blurred by the beam, pixels^2; of a cutout: of the beam
    flux: np.ndarray  # [k] Jy
    scale: np.ndarray  # [k] what a cutout is multiplied by
    cutout: list[SkyCutout | None]
    turn: np.ndarray  # [k, 2, 2] pixels per rad east and north


def sky_parts(sources: Sequence[SkySource]) -> SkyParts:
    """Return the parts of ``sources``."""
    rows: list[tuple[float, ...]] = []
    cutouts: list[SkyCutout | None] = []
    first = [0]
    for i, source in enumerate(sources):
        for c in source.components:
            rows.append((i, c.ra, c.dec, c.flux, c.ref_freq, c.spectral_index, c.major, c.minor, c.pa))
            cutouts.append(None)
        if source.cutout is not None:
            p = source.cutout
            rows.append((i, p.ra, p.dec, p.flux, p.ref_freq, p.spectral_index, 0.0, 0.0, p.pa))
            cutouts.append(p)
        first.append(len(rows))
    table = np.array(rows, dtype=float).reshape(-1, 9).T
    owner, (ra, dec, flux, ref_freq, index, major, minor, pa) = table[0].astype(int), table[1:]
    corners = np.zeros((len(rows), 4, 2))
    for k, cutout in enumerate(cutouts):
        if cutout is not None:
            corners[k] = _cutout_corners(cutout)

    vector = direction_vectors(np.array([s.ra for s in sources]), np.array([s.dec for s in sources]))
    chord = np.linalg.norm(direction_vectors(ra, dec) - vector[owner], axis=1)
    reach = 2 * np.arcsin(np.minimum(chord / 2, 1)) + np.linalg.norm(corners, axis=2).max(axis=1, initial=0)
    radius = np.zeros(len(sources))
    np.maximum.at(radius, owner, reach + BOX_SIGMAS * SIGMA_OF_FWHM * major)
    covariance = fwhm_covariance(major, minor, pa)
    bounds = np.array(first)
    return SkyParts(owner, bounds, ra, dec, flux, ref_freq, index, covariance, corners, cutouts, vector, radius)


def _cutout_corners(cutout: SkyCutout) -> np.ndarray:
    """Return [4, 2] (east, north), rad, of the box that leaves ``_BOX_TAIL`` of the flux out on each side."""
    bright, sides = np.maximum(cutout.pixels, 0).astype(float), []
    for axis in (0, 1):  # x, then y
        share = np.append(0.0, np.cumsum(bright.sum(axis=axis)))
        edges = np.interp(np.array([_BOX_TAIL, 1 - _BOX_TAIL]) * share[-1], share, np.arange(len(share)) - 0.5)
        edges += (-0.5, 0.5)  # linear interpolation spreads a pixel by half a pixel
        sides.append((edges - bright.shape[1 - axis] // 2) * cutout.pixsize)
    west, up = (side.ravel() for side in np.meshgrid(*sides))
    sin, cos = math.sin(cutout.pa), math.cos(cutout.pa)
    return np.stack([-west * cos + up * sin, west * sin + up * cos], axis=-1)


def boxes(
    xy: np.ndarray, turn: np.ndarray, covariance: np.ndarray, corners: np.ndarray, owner: np.ndarray, n: int
) -> np.ndarray:
    """Return the boxes (x0, y0, x1, y1) [n, 4] around the parts of each source."""
    if not n:
        return np.zeros((0, 4))
    half = BOX_SIGMAS * np.sqrt(covariance[:, [0, 1], [0, 1]])
    at = corners @ np.swapaxes(turn, 1, 2)  # (k, corner, xy)
    first = np.searchsorted(owner, np.arange(n))
    low = np.minimum.reduceat(xy + at.min(axis=1) - half, first)
    high = np.maximum.reduceat(xy + at.max(axis=1) + half, first)
    middle = (low + high) / 2
    return np.concatenate([np.minimum(low, middle - 0.5), np.maximum(high, middle + 0.5)], axis=1)
