"""Bright peaks of a draw, and where it can be used."""

from __future__ import annotations

import math

import numpy as np

from vis2img.coordinates import beyond_horizon, lm_to_pixel, pixel_to_lm
from vis2img.imaging.params import ImagingParams

PEAK_SIGMA = 8.0  # how far above the noise a peak must be; dirty images have sidelobes of bright sources
_PEAK_BLOCK = 12  # pixels a side; peaks are at least one and at most three blocks apart
_EMISSION_SIGMA = 4.0  # of pixels that count for the middle of emission
_WIDTH, _SAME = 1 / 6, 1 / 20  # of a patch: sigma within which emission counts, and distance of middles that are one
_FARTHEST = 3.0  # sigma at which its Gaussian ends
_STEPS, _STILL = 20, 0.05  # steps towards a middle at most, and pixels of a step after which it is reached
_CELLS = 64  # of the map of usable pixels, along an axis


def find_peaks(data: np.ndarray, noise: float, params: ImagingParams) -> np.ndarray:
    """Return direction cosines (l, m) [peak, 2] of the brightest pixels around, above ``PEAK_SIGMA`` times ``noise``.

    A peak is the brightest pixel of its block of 12 x 12 pixels and of the eight blocks around. Blocks with a blank
    pixel have none.
    """
    from scipy.ndimage import maximum_filter

    ny, nx = data.shape
    rows, columns = np.arange(0, ny, _PEAK_BLOCK), np.arange(0, nx, _PEAK_BLOCK)
    highest = np.nan_to_num(_reduced(np.maximum, data, rows, columns), nan=-np.inf, posinf=-np.inf, neginf=-np.inf)
    peaks = []
    for j, i in np.argwhere((highest > PEAK_SIGMA * noise) & (highest == maximum_filter(highest, size=3))):
        block = data[rows[j] : rows[j] + _PEAK_BLOCK, columns[i] : columns[i] + _PEAK_BLOCK]
        y, x = np.unravel_index(int(np.argmax(block)), block.shape)
        peaks.append(pixel_to_lm(float(columns[i] + x), float(rows[j] + y), params.npix, params.pixsize))
    return np.array(peaks, dtype=np.float64).reshape(-1, 2)


def middles_of_emission(
    data: np.ndarray, noise: float, params: ImagingParams, peaks: np.ndarray, side: float
) -> np.ndarray:
    """Return direction cosines (l, m) [place, 2] of the middles of what shines around peaks; each comes once.

    From each peak, the mean of the positions of pixels above ``_EMISSION_SIGMA`` times ``noise``, weighed by the root
    of their brightness and by a Gaussian around the place so far, until it stays where it is (mean shift; Cheng 1995,
    IEEE TPAMI 17, 790). Between the lobes of a double source it ends in its middle.

    Parameters
    ----------
    data : float32 [y, x]
    noise : float
        In the unit of ``data``.
    params : ImagingParams
        Of the image.
    peaks : float64 [peak, 2]
        As :func:`find_peaks` gives them.
    side : float
        Of a patch, rad: the Gaussian has a sixth of it as sigma.
    """
    from scipy.spatial import cKDTree

    pixsize = params.pixsize
    sigma = side * _WIDTH / pixsize  # pixels, as all below
    places = np.stack(lm_to_pixel(peaks[:, 0], peaks[:, 1], params.npix, pixsize), axis=-1)
    for i in range(len(places)):
        for _ in range(_STEPS):
            before, places[i] = places[i].copy(), _mean_around(data, _EMISSION_SIGMA * noise, places[i], sigma)
            if np.abs(places[i] - before).max() < _STILL:
                break
    again = {second for _, second in cKDTree(places).query_pairs(_SAME * side / pixsize)} if len(places) else set()
    places = np.delete(places, sorted(again), axis=0)
    return np.stack(pixel_to_lm(places[:, 0], places[:, 1], params.npix, pixsize), axis=-1)


def _mean_around(data: np.ndarray, least: float, place: np.ndarray, sigma: float) -> np.ndarray:
    """Return the mean place (x, y), in pixels, of what is above ``least`` around one; itself if nothing is."""
    reach = math.ceil(_FARTHEST * sigma)
    left, lower = (max(0, int(at) - reach) for at in place)
    square = data[lower : lower + 2 * reach + 1, left : left + 2 * reach + 1]
    bright = np.where(square > least, square, 0.0)  # what is blank is not above
    column, row = left + np.arange(square.shape[1]), lower + np.arange(square.shape[0])
    x, y = (np.exp(-0.5 * ((at - centre) / sigma) ** 2) for at, centre in zip((column, row), place, strict=True))
    weight = np.sqrt(bright) * y[:, None] * x[None, :]
    total = weight.sum()
    return np.array([(weight * column).sum(), (weight * row[:, None]).sum()]) / total if total > 0 else place


def _reduced(function: np.ufunc, values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return ``function`` over the blocks of ``values`` [y, x] that start at ``rows`` and ``columns``."""
    return function.reduceat(function.reduceat(values, rows, axis=0), columns, axis=1)


def usable_cells(data: np.ndarray, pixsize: float) -> np.ndarray:
    """Return which of 64 x 64 cells of images [channel, y, x] hold no blank pixel, bool [y, x].

    Blank is a pixel that is not finite, or where the SIN projection has no sky (l^2 + m^2 > 1); and a cell that
    holds zeros only.
    """
    ny, nx = data.shape[-2:]
    edges_y, edges_x = (np.linspace(0, n, min(_CELLS, n) + 1).astype(int)[:-1] for n in (ny, nx))
    usable = np.ones((len(edges_y), len(edges_x)), bool)
    for image in data:
        # The largest magnitude of a cell is NaN if one of its pixels is, and 0 if all are.
        largest = _reduced(np.maximum, np.abs(image), edges_y, edges_x)
        usable &= np.isfinite(largest) & (largest > 0)
    beyond = beyond_horizon((nx, ny), pixsize)
    if beyond is not None:
        usable &= ~_reduced(np.logical_or, beyond, edges_y, edges_x)
    return usable
