"""The inner loop of views: a square of a draw, resampled with antialiasing and stretched, in one compiled pass.

The resampling is that of Pillow's ``resize(..., BILINEAR, box=...)``: a triangle as wide as an output pixel, but never
narrower than an input pixel, normalised where the image ends. One pass over a view takes a third
of what Pillow and NumPy take for the same (``docs/benchmarks.md``), and releases the interpreter lock.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

LINEAR, ASINH, POWER = 0, 1, 2
_ONE, _TWO, _THREE = np.uint64(1), np.uint64(2), np.uint64(3)


@njit(nogil=True, cache=True, error_model="numpy", fastmath=True, boundscheck=False)
def resample(
    image: np.ndarray,
    left: float,
    lower: float,
    side: float,
    kind: int,
    scale: float,
    gain: float,
    gamma: float,
    out: np.ndarray,
) -> None:  # pragma: no cover - compiled
    """Fill ``out`` with the square of ``image`` that starts at (left, lower), resampled and stretched.

    Parameters
    ----------
    image : float32 [y, x]
        An image whose pixel i covers the interval from i to i + 1.
    left, lower, side : float
        The square, in pixels of the image; within it.
    kind : {0, 1, 2}
        Stretch of a value x: ``gain`` x; ``gain`` arcsinh(x ``scale``); or ``gain`` sign(x) abs(x ``scale``)^``gamma``.
    scale, gain, gamma : float
        Of the stretch.
    out : float32 [size, size]
        Any strides.
    """  # fmt: skip
    ny, nx = image.shape
    size = out.shape[0]
    first_x, weight_x = _taps(left, side, size, nx)
    first_y, weight_y = _taps(lower, side, size, ny)
    start = first_x[0]
    columns = first_x - start
    width = columns[size - 1] + len(weight_x)
    row = np.empty(width, np.float32)
    line = np.empty(size, np.float32)
    factor, height, power = np.float32(scale), np.float32(gain), np.float32(gamma)
    one, tiny = np.float32(1), np.float32(1e-30)
    for j in range(size):
        # Four taps at a time, over slices: in this form the compiler makes vector instructions of the loops.
        for k in range(0, len(weight_y), 4):
            y = first_y[j] + k
            wa, wb, wc, wd = weight_y[k, j], weight_y[k + 1, j], weight_y[k + 2, j], weight_y[k + 3, j]
            a, b = image[y, start : start + width], image[y + 1, start : start + width]
            c, d = image[y + 2, start : start + width], image[y + 3, start : start + width]
            if k == 0:
                for i in range(width):
                    row[i] = wa * a[i] + wb * b[i] + wc * c[i] + wd * d[i]
            else:
                for i in range(width):
                    row[i] += wa * a[i] + wb * b[i] + wc * c[i] + wd * d[i]
        for k in range(0, len(weight_x), 4):
            va, vb, vc, vd = weight_x[k], weight_x[k + 1], weight_x[k + 2], weight_x[k + 3]
            shifted = row[k:]
            for i in range(size):
                # Unsigned, so that no index can count from the end.
                at = np.uint64(columns[i])
                total = va[i] * shifted[at] + vb[i] * shifted[at + _ONE]
                total += vc[i] * shifted[at + _TWO] + vd[i] * shifted[at + _THREE]
                line[i] = total if k == 0 else line[i] + total
        if kind == ASINH:
            for i in range(size):
                x = abs(line[i]) * factor
                line[i] = math.copysign(height * _log(x + np.sqrt(x * x + one)), line[i])
        elif kind == POWER:
            for i in range(size):
                line[i] = math.copysign(height * _exp(power * _log(abs(line[i]) * factor + tiny)), line[i])
        else:
            for i in range(size):
                line[i] *= height
        for i in range(size):
            out[j, i] = line[i]


@njit(nogil=True, cache=True, inline="always")
def _taps(start: float, side: float, size: int, npix: int) -> tuple[np.ndarray, np.ndarray]:  # pragma: no cover
    """Return the first input pixel of each output pixel, and the weights of it and those behind it."""
    step = side / size
    reach = max(step, 1.0)
    count = (math.ceil(2 * reach) + 4) // 4 * 4
    first = np.empty(size, np.int64)
    weight = np.zeros((count, size), np.float32)
    for i in range(size):
        centre = start + (i + 0.5) * step
        begin = min(max(math.floor(centre - reach + 0.5), 0), npix - count)
        total = 0.0
        for k in range(count):
            share = 1.0 - abs(begin + k + 0.5 - centre) / reach
            if share > 0:
                weight[k, i] = share
                total += share
        for k in range(count):
            weight[k, i] /= total
        first[i] = begin
    return first, weight


@njit(nogil=True, cache=True, inline="always", fastmath=True)
def _log(x: np.float32) -> np.float32:  # pragma: no cover - compiled
    """Return the natural logarithm of a float32 above 1e-37, to 1e-7 (Cephes, Moshier 1992: ``logf``)."""
    bits = np.float32(x).view(np.int32)
    # From sqrt(1/2) to sqrt(2), so that the series is short on both sides of 1.
    shifted = np.int32(bits - np.int32(0x3F3504F3))
    exponent = np.int32(shifted >> np.int32(23))
    f = np.int32(bits - np.int32(exponent << np.int32(23))).view(np.float32) - np.float32(1)
    z = f * f
    y = np.float32(7.0376836292e-2)
    y = y * f + np.float32(-1.1514610310e-1)
    y = y * f + np.float32(1.1676998740e-1)
    y = y * f + np.float32(-1.2420140846e-1)
    y = y * f + np.float32(1.4249322787e-1)
    y = y * f + np.float32(-1.6668057665e-1)
    y = y * f + np.float32(2.0000714765e-1)
    y = y * f + np.float32(-2.4999993993e-1)
    y = y * f + np.float32(3.3333331174e-1)
    return f + (y * f * z - np.float32(0.5) * z) + np.float32(exponent) * np.float32(0.69314718056)


@njit(nogil=True, cache=True, inline="always", fastmath=True)
def _exp(x: np.float32) -> np.float32:  # pragma: no cover - compiled
    """Return e^x of a float32 from -87 to 88, to 2e-7 (Cephes: ``expf``)."""
    n = np.floor(np.float32(x) * np.float32(1.44269504089) + np.float32(0.5))
    f = np.float32(x) - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
    y = np.float32(1.9875691500e-4)
    y = y * f + np.float32(1.3981999507e-3)
    y = y * f + np.float32(8.3334519073e-3)
    y = y * f + np.float32(4.1665795894e-2)
    y = y * f + np.float32(1.6666665459e-1)
    y = y * f + np.float32(5.0000001201e-1)
    y = y * f * f + f + np.float32(1)
    return y * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
