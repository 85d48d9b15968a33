"""Bright peaks of a draw, and where it can be used."""

from __future__ import annotations

import numpy as np

from vis2img.coordinates import beyond_horizon, pixel_to_lm
from vis2img.imaging.params import ImagingParams

PEAK_SIGMA = 8.0  # how far above the noise a peak must be; dirty images have sidelobes of bright sources
_PEAK_BLOCK = 12  # pixels a side; peaks are at least one and at most three blocks apart
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
