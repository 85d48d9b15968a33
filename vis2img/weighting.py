"""Imaging weights: natural, uniform and Briggs density weighting, Gaussian taper, uv range.

Pure functions of arrays. The density is counted on the half-plane grid of WSClean 3.1, which follows the
*padded* image (``docs/conventions.md``), so that weights, and with them images, equal WSClean's.

References
----------
Briggs 1995, PhD thesis, New Mexico Tech, ch. 3: robust weighting.
Offringa et al. 2014, MNRAS 444, 606: WSClean.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from vis2img.params import ImagingParams
from vis2img.visibilities import SPEED_OF_LIGHT

_PADDING = 1.2  # WSClean's default image padding, which its density grid follows
_BLOCK_SAMPLES = 1 << 20  # bounds the float64 temporaries to a few tens of MB


def density_grid_size(npix: int) -> int:
    """Return the side of WSClean's density grid: ``npix`` padded by 1.2, rounded up to a multiple of 4."""
    padded = math.ceil(npix * _PADDING)
    return -(-padded // 4) * 4


def imaging_weights(uvw: np.ndarray, chan_freq: np.ndarray, weight: np.ndarray, params: ImagingParams) -> np.ndarray:
    """Return data weights times density weights times taper, zero outside the uv range.

    Parameters
    ----------
    uvw : float64 [row, 3]
        Baseline coordinates in m.
    chan_freq : float64 [chan]
        Frequencies in Hz.
    weight : float32 [row, chan]
        Data weights; 0 for flagged samples.
    params : ImagingParams
        ``weighting``, ``robust``, ``taper``, ``uvrange``, ``npix`` and ``pixsize`` are used.

    Returns
    -------
    float32 [row, chan]
    """
    result = within_uv_range(uvw, chan_freq, weight, params.uvrange)
    if params.weighting != "natural":
        density = _density(uvw, chan_freq, result, params)
        squared = _briggs_factor(density, params) if params.weighting == "briggs" else None
        for rows, cells in _cells(uvw, chan_freq, params):
            of_sample = density[cells]
            with np.errstate(divide="ignore", invalid="ignore"):
                if squared is None:
                    block = result[rows] / of_sample
                else:
                    block = result[rows] / (1 + of_sample * squared)
            # The last cell collects what lies beyond the grid; WSClean gives that no weight.
            result[rows] = np.where((cells < density.size - 1) & (result[rows] > 0), block, 0)
    if params.taper > 0:
        _apply_taper(result, uvw, chan_freq, params.taper)
    return result


def within_uv_range(
    uvw: np.ndarray, chan_freq: np.ndarray, weight: np.ndarray, uvrange: tuple[float, float]
) -> np.ndarray:
    """Return a copy of ``weight`` [row, chan], zero where the baseline is outside ``uvrange`` wavelengths."""
    low, high = uvrange
    if low == 0 and math.isinf(high):
        return weight.copy()
    length = np.hypot(uvw[:, 0], uvw[:, 1]) / SPEED_OF_LIGHT  # (row) wavelengths per Hz
    result = np.empty_like(weight)
    for rows in _row_blocks(len(uvw), len(chan_freq)):
        wavelengths = np.outer(length[rows], chan_freq)
        result[rows] = weight[rows] * ((wavelengths >= low) & (wavelengths <= high))
    return result


def _row_blocks(nrow: int, nchan: int) -> Iterator[slice]:
    step = max(1, _BLOCK_SAMPLES // nchan)
    for start in range(0, nrow, step):
        yield slice(start, min(start + step, nrow))


def _cells(uvw: np.ndarray, chan_freq: np.ndarray, params: ImagingParams) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield blocks of rows with the flat density cell [row, chan] of each sample; the last cell is outside."""
    nx, ny = (density_grid_size(n) for n in params.npix)
    scale = chan_freq / SPEED_OF_LIGHT * params.pixsize
    # Samples are folded to v >= 0: the visibility at (-u, -v) is the conjugate of that at (u, v).
    sign = np.where(uvw[:, 1] < 0, -1.0, 1.0)
    u, v = uvw[:, 0] * sign, uvw[:, 1] * sign
    for rows in _row_blocks(len(uvw), len(chan_freq)):
        x = np.floor(np.outer(u[rows], scale) * nx + nx / 2)
        y = np.floor(np.outer(v[rows], scale) * ny)
        inside = (x >= 0) & (x < nx) & (y < ny / 2)
        yield rows, np.where(inside, y * nx + x, nx * (ny // 2)).astype(np.int64)


def _density(uvw: np.ndarray, chan_freq: np.ndarray, weight: np.ndarray, params: ImagingParams) -> np.ndarray:
    """Return the sum of weights per cell, float64 [ny / 2 * nx + 1]; what is outside is not counted."""
    nx, ny = (density_grid_size(n) for n in params.npix)
    size = nx * (ny // 2) + 1
    density = np.zeros(size)
    for rows, cells in _cells(uvw, chan_freq, params):
        density += np.bincount(cells.ravel(), weights=weight[rows].ravel(), minlength=size)
    density[-1] = 0
    return density


def _briggs_factor(density: np.ndarray, params: ImagingParams) -> float:
    """Return f^2 = (5 * 10^-R)^2 / (sum W_cell^2 / sum W_cell) (Briggs 1995, eq. 3.7)."""
    total = density.sum()
    return (5 * 10**-params.robust) ** 2 * total / np.sum(density**2) if total > 0 else 0.0


def _apply_taper(weight: np.ndarray, uvw: np.ndarray, chan_freq: np.ndarray, fwhm: float) -> None:
    """Multiply in place by the transform of a Gaussian of ``fwhm`` rad: exp(-(pi fwhm q)^2 / (4 ln 2))."""
    squared = (uvw[:, 0] ** 2 + uvw[:, 1] ** 2) / SPEED_OF_LIGHT**2
    factor = -((math.pi * fwhm) ** 2) / (4 * math.log(2))
    for rows in _row_blocks(len(uvw), len(chan_freq)):
        weight[rows] *= np.exp(factor * np.outer(squared[rows], chan_freq**2)).astype(np.float32)
