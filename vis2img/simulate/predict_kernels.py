"""Compiled loops of prediction and rasterising: pure functions that release the GIL.

Images are ``[term, y, x]``: one plane per spectral term. A thread adds to its own rows of an image, in the order of
the components, so that every pixel is the same sum whatever the number of threads.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

SPEED_OF_LIGHT = 299_792_458.0  # m/s, exact (SI); numba compiles it in
_BLOCK = 64  # channels between exact phases: a recurrence this long loses 2e-14


@njit(nogil=True, cache=True, error_model="numpy")
def _weights(at, table, out):
    """Fill ``out`` with the kernel around the position ``at`` (pixels); return the first pixel."""
    half = table.shape[1] // 2
    first = math.ceil(at - half)
    place = (half - (at - first)) * (len(table) - 1)
    line = min(max(int(place), 0), len(table) - 2)
    part = np.float32(place - line)
    for i in range(2 * half):
        out[i] = table[line, i] + part * (table[line + 1, i] - table[line, i])
    return first


@njit(nogil=True, cache=True, error_model="numpy")
def spread_points(
    x: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray,
    item: np.ndarray,
    flux: np.ndarray,
    table: np.ndarray,
    image: np.ndarray,
    rows: tuple[int, int],
) -> None:  # pragma: no cover - compiled
    """Add points, each as a kernel along x and y.

    Parameters
    ----------
    x, y : float64 [point]
        Pixel positions, not less than half a kernel from the edges.
    weight : float64 [point]
        Share in the flux of the item.
    item : int64 [point]
        Which row of ``flux`` a point belongs to.
    flux : float64 [item, term]
        Jy.
    table : float32 [offset, pixel]
        The kernel in an even number of pixels, at evenly spaced sub-pixel offsets from 0 to 1.
    image : float32 [term, y, x]
        Jy per pixel.
    rows : (int, int)
        First row of the image to add to, and the row after the last.
    """
    half = table.shape[1] // 2
    kx, ky = np.empty(2 * half, np.float32), np.empty(2 * half, np.float32)
    for i in range(len(x)):
        if y[i] + half < rows[0] or y[i] - half >= rows[1]:
            continue
        first_x = _weights(x[i], table, kx)
        first_y = _weights(y[i], table, ky)
        for k in range(len(image)):
            share = np.float32(weight[i] * flux[item[i], k])
            for b in range(max(0, rows[0] - first_y), min(2 * half, rows[1] - first_y)):
                factor = share * ky[b]
                line = image[k, first_y + b, first_x : first_x + 2 * half]
                for a in range(2 * half):
                    line[a] += factor * kx[a]


@njit(nogil=True, cache=True, error_model="numpy")
def sample_gaussians(
    x: np.ndarray,
    y: np.ndarray,
    covariance: np.ndarray,
    flux: np.ndarray,
    sigmas: float,
    image: np.ndarray,
    rows: tuple[int, int],
) -> None:  # pragma: no cover - compiled
    """Add Gaussians, each sampled at the pixels within ``sigmas`` standard deviations.

    Parameters
    ----------
    x, y : float64 [gaussian]
        Pixel positions, not less than their reach from the edges.
    covariance : float64 [gaussian, 3]
        xx, xy and yy in pixels squared.
    flux : float64 [gaussian, term]
        Jy.
    image, rows
        See :func:`spread_points`.
    """
    for i in range(len(x)):
        xx, xy, yy = covariance[i, 0], covariance[i, 1], covariance[i, 2]
        det = xx * yy - xy * xy
        reach = sigmas * math.sqrt(yy)
        for row in range(max(rows[0], math.ceil(y[i] - reach)), min(rows[1] - 1, math.floor(y[i] + reach)) + 1):
            dy = row - y[i]
            middle, along = x[i] + dy * xy / yy, sigmas * sigmas - dy * dy / yy
            chord = math.sqrt(max(0.0, along) * det / yy)
            scale = math.exp(-0.5 * dy * dy / yy) / (2 * math.pi * math.sqrt(det))
            for column in range(math.ceil(middle - chord), math.floor(middle + chord) + 1):
                value = scale * math.exp(-0.5 * (column - middle) ** 2 * yy / det)
                for k in range(len(image)):
                    image[k, row, column] += np.float32(flux[i, k] * value)


@njit(nogil=True, cache=True, error_model="numpy")
def gaussian_nodes(
    axes: np.ndarray, count: np.ndarray, step: np.ndarray, sigmas: float, place: np.ndarray, share: np.ndarray
) -> np.ndarray:  # pragma: no cover - compiled
    """Fill offsets and weights of the points that stand for Gaussians; return how many each has.

    The trapezium rule along both axes: evenly spaced nodes, whose error falls exponentially with their density.

    Parameters
    ----------
    axes : float64 [gaussian, 2, 2]
        Both principal axes (x, y), their length the standard deviation in pixels.
    count : int64 [gaussian, 2]
        Nodes on either side of the centre along each axis.
    step : float64 [gaussian, 2]
        Distance of nodes in standard deviations.
    sigmas : float
        Nodes beyond so many standard deviations are left out.
    place : float64 [point, 2]
    share : float64 [point]
    """
    made = np.zeros(len(axes), np.int64)
    at = 0
    for i in range(len(axes)):
        start, total = at, 0.0
        for a in range(-count[i, 0], count[i, 0] + 1):
            for b in range(-count[i, 1], count[i, 1] + 1):
                s, t = a * step[i, 0], b * step[i, 1]
                if s * s + t * t > sigmas * sigmas:
                    continue
                share[at] = math.exp(-0.5 * (s * s + t * t))
                total += share[at]
                for c in range(2):
                    place[at, c] = s * axes[i, 0, c] + t * axes[i, 1, c]
                at += 1
        share[start:at] /= total
        made[i] = at - start
    return made


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
def direct_sum(
    uvw: np.ndarray,
    freq: np.ndarray,
    even: bool,
    lmn: np.ndarray,
    axes: np.ndarray,
    spectra: np.ndarray,
    out: np.ndarray,
) -> None:  # pragma: no cover - compiled
    """Add the visibilities of points and Gaussians to ``out`` complex64 [row, chan] by the sum itself.

    Evenly spaced channels are stepped through by products, of the phasor and of the Gaussian (whose exponent is
    quadratic in frequency), and started anew every 64.

    Parameters
    ----------
    uvw, freq : float64 [row, 3], [chan]
        m and Hz; ``even`` says whether channels are evenly spaced.
    lmn, spectra : float64 [item, 3], [chan, item]
        l, m and n - 1; Jy.
    axes : float64 [item, 2, 3] or [0, 2, 3]
        Standard deviation vectors of the Gaussians in the axes of ``uvw``, rad; none: all are points.
    """
    nitem, nchan, extended = len(lmn), len(freq), len(axes) > 0
    block = _BLOCK if even else 1
    df = (freq[-1] - freq[0]) / max(1, nchan - 1)
    re, im, step_re, step_im = np.empty(nitem), np.empty(nitem), np.empty(nitem), np.empty(nitem)
    size, ratio, curve = np.ones(nitem), np.ones(nitem), np.ones(nitem)
    for row in range(len(uvw)):
        u, v, w = uvw[row, 0] / SPEED_OF_LIGHT, uvw[row, 1] / SPEED_OF_LIGHT, uvw[row, 2] / SPEED_OF_LIGHT
        for start in range(0, nchan, block):
            f = freq[start]
            for i in range(nitem):
                delay = u * lmn[i, 0] + v * lmn[i, 1] + w * lmn[i, 2]
                turns = delay * f
                angle = 2 * math.pi * (turns - np.rint(turns))
                re[i], im[i] = math.cos(angle), math.sin(angle)
                if even:
                    turns = delay * df
                    angle = 2 * math.pi * (turns - np.rint(turns))
                    step_re[i], step_im[i] = math.cos(angle), math.sin(angle)
                if extended:
                    a = u * axes[i, 0, 0] + v * axes[i, 0, 1] + w * axes[i, 0, 2]
                    b = u * axes[i, 1, 0] + v * axes[i, 1, 1] + w * axes[i, 1, 2]
                    q = 2 * math.pi * math.pi * (a * a + b * b)
                    size[i] = math.exp(-q * f * f)
                    ratio[i], curve[i] = math.exp(-q * df * (2 * f + df)), math.exp(-2 * q * df * df)
            for chan in range(start, min(start + block, nchan)):
                total_re, total_im = 0.0, 0.0
                for i in range(nitem):
                    flux = spectra[chan, i] * size[i]
                    total_re += flux * re[i]
                    total_im += flux * im[i]
                    product = re[i] * step_re[i] - im[i] * step_im[i]
                    im[i] = re[i] * step_im[i] + im[i] * step_re[i]
                    re[i] = product
                    size[i] *= ratio[i]
                    ratio[i] *= curve[i]
                out[row, chan] += np.complex64(complex(total_re, total_im))
