"""The loops of :mod:`vis2img.imaging.weighting` over samples and density cells, compiled."""

from __future__ import annotations

import math

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, error_model="numpy", inline="always")
def shape_factor(
    q: float, gauss: float, low: float, inner: float, high: float, outer: float
) -> float:  # pragma: no cover - compiled
    """Return the taper at baseline length ``q`` (wavelengths), 0 outside the uv range.

    Gaussian exp(gauss q^2); Tukey transitions of width ``inner`` above ``low`` and ``outer`` below ``high``.
    """
    if q < low or q > high:
        return 0.0
    factor = math.exp(gauss * q * q) if gauss != 0 else 1.0
    if inner > 0 and q < low + inner:
        factor *= 0.5 * (1 + math.cos(math.pi / inner * (q - low - inner)))
    if outer > 0 and q > high - outer:
        factor *= 0.5 * (1 + math.cos(math.pi / outer * (high - q - outer)))
    return factor


@njit(nogil=True, cache=True, error_model="numpy")
def count_density(
    uvw: np.ndarray,
    chan_freq: np.ndarray,
    weight: np.ndarray,
    pixsize: float,
    speed: float,
    low: float,
    high: float,
    size: tuple,
    x0: int,
    grid: np.ndarray,
) -> None:  # pragma: no cover - compiled
    """Add the weights [row, chan] of samples from ``low`` to ``high`` wavelengths to ``grid`` [y, x].

    ``size`` is that of the whole half-plane grid, (nx, ny / 2); ``grid`` begins at ``y = 0, x = x0`` of it.
    """
    nx, half = size
    height, width = grid.shape
    bounded = low > 0 or high < np.inf
    for row in range(len(uvw)):
        u, v = uvw[row, 0] / speed, uvw[row, 1] / speed
        if v < 0:  # the visibility at (-u, -v) is the conjugate of that at (u, v)
            u, v = -u, -v
        length = math.sqrt(u * u + v * v)
        ux, vy = u * (nx * pixsize), v * (2 * half * pixsize)
        for chan in range(len(chan_freq)):
            w = weight[row, chan]
            if w <= 0:
                continue
            freq = chan_freq[chan]
            x, y = math.floor(ux * freq + nx // 2) - x0, math.floor(vy * freq)
            if x < 0 or x >= width or y >= height:
                continue
            if bounded and not low <= length * freq <= high:
                continue
            grid[int(y), int(x)] += w


@njit(nogil=True, cache=True, error_model="numpy")
def apply_factors(
    uvw: np.ndarray,
    chan_freq: np.ndarray,
    weight: np.ndarray,
    pixsize: float,
    speed: float,
    size: tuple,
    x0: int,
    factors: np.ndarray,
    by_sample: bool,
    shape: tuple,
    out: np.ndarray,
    by_cell: np.ndarray,
    by_chan: np.ndarray,
) -> int:  # pragma: no cover - compiled
    """Write ``weight`` times the factor of its cell to ``out`` and return how many samples keep a weight.

    With ``by_sample`` the taper of each sample at its own (u, v) comes on top. ``by_cell`` [y, x] and
    ``by_chan`` [chan] collect the sums of the result. ``size`` and ``x0`` are those of :func:`count_density`.
    """
    nx, half = size
    height, width = factors.shape
    gauss, low, inner, high, outer = shape
    kept = 0
    for row in range(len(uvw)):
        u, v = uvw[row, 0] / speed, uvw[row, 1] / speed
        if v < 0:
            u, v = -u, -v
        length = math.sqrt(u * u + v * v)
        ux, vy = u * (nx * pixsize), v * (2 * half * pixsize)
        for chan in range(len(chan_freq)):
            w = weight[row, chan]
            out[row, chan] = 0
            if w <= 0:
                continue
            freq = chan_freq[chan]
            x, y = math.floor(ux * freq + nx // 2) - x0, math.floor(vy * freq)
            if x < 0 or x >= width or y >= height:
                continue
            w *= factors[int(y), int(x)]
            if by_sample:
                w *= np.float32(shape_factor(length * freq, gauss, low, inner, high, outer))
            if w > 0:
                out[row, chan] = w
                by_cell[int(y), int(x)] += w
                by_chan[chan] += w
                kept += 1
    return kept


@njit(nogil=True, cache=True, error_model="numpy")
def taper_cells(factors: np.ndarray, first: int, cell: tuple, shape: tuple) -> None:  # pragma: no cover - compiled
    """Multiply ``factors`` [y, x] by the taper at the lower corner of each cell, as WSClean does.

    ``first`` is the number of the first column, counted from u = 0; ``cell`` the size of a cell in u and v,
    wavelengths.
    """
    height, width = factors.shape
    gauss, low, inner, high, outer = shape
    for y in range(height):
        v = y * cell[1]
        for x in range(width):
            if factors[y, x] != 0:
                u = (x + first) * cell[0]
                factors[y, x] *= shape_factor(math.sqrt(u * u + v * v), gauss, low, inner, high, outer)


@njit(nogil=True, cache=True, error_model="numpy")
def rank_filter(factors: np.ndarray, limit: float, window: int) -> np.ndarray:  # pragma: no cover - compiled
    """Return ``factors`` [y, x] cut to ``limit`` times the mean of the cells that are not 0 around each.

    The window holds the cells from ``-window / 2`` to ``window / 2 - 1`` in either direction.
    """
    ny, nx = factors.shape
    reach = window // 2
    result = factors.copy()
    sums, counts = np.zeros(nx + 1), np.zeros(nx + 1, np.int64)
    columns, filled = np.empty(nx), np.empty(nx, np.int64)
    for y in range(ny):
        y1, y2 = max(0, y - reach), min(ny, y + reach)
        columns[:] = 0
        filled[:] = 0
        for row in range(y1, y2):
            for x in range(nx):
                columns[x] += factors[row, x]
                filled[x] += factors[row, x] != 0
        for x in range(nx):
            sums[x + 1], counts[x + 1] = sums[x] + columns[x], counts[x] + filled[x]
        for x in range(nx):
            value = factors[y, x]
            if value != 0:
                x1, x2 = max(0, x - reach), min(nx, x + reach)
                most = limit * (sums[x2] - sums[x1]) / (counts[x2] - counts[x1])
                if value > most:
                    result[y, x] = most
    return result


@njit(nogil=True, cache=True)
def spread(chan: np.ndarray, weight: np.ndarray, by_chan: np.ndarray) -> None:  # pragma: no cover - compiled
    """Add ``weight`` [row] to the two channels beside ``chan`` [row], so that the mean channel is kept."""
    last = len(by_chan) - 1
    for row in range(len(chan)):
        lower = min(last, max(0, int(chan[row])))
        share = min(1.0, max(0.0, chan[row] - lower))
        by_chan[lower] += weight[row] * (1 - share)
        by_chan[min(last, lower + 1)] += weight[row] * share
