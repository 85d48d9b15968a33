"""The inner loops of views: a square of an image, resampled with antialiasing and stretched in one pass; or turned.

The resampling is that of Pillow's ``resize(..., BILINEAR, box=...)``: a triangle as wide as an output pixel, but never
narrower than an input pixel, normalised where the image ends. One pass over a view takes a third
of what Pillow and NumPy take for the same (``docs/benchmarks.md``), and releases the interpreter lock.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

LINEAR, ASINH, POWER = 0, 1, 2
PLAIN = LINEAR, 1.0, 1.0, 1.0, 0.0  # as it is
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
    floor: float,
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
    floor : float
        Values below it become 0 before they are stretched; 0: none do.
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
    row, line = np.empty(width, np.float32), np.empty(size, np.float32)
    factor, height, power = np.float32(scale), np.float32(gain), np.float32(gamma)
    least = np.float32(floor)
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
        if least > 0:
            for i in range(size):
                line[i] = line[i] if line[i] >= least else np.float32(0)
        _stretch(line, kind, factor, height, power)
        for i in range(size):
            out[j, i] = line[i]


@njit(nogil=True, cache=True, inline="always", error_model="numpy", fastmath=True, boundscheck=False)
def _stretch(
    line: np.ndarray, kind: int, factor: np.float32, height: np.float32, power: np.float32
) -> None:  # pragma: no cover - compiled
    """Stretch a line of pixels in place."""
    one, tiny = np.float32(1), np.float32(1e-30)
    if kind == ASINH:
        for i in range(len(line)):
            x = abs(line[i]) * factor
            line[i] = math.copysign(height * _log(x + np.sqrt(x * x + one)), line[i])
    elif kind == POWER:
        for i in range(len(line)):
            line[i] = math.copysign(height * _exp(power * _log(abs(line[i]) * factor + tiny)), line[i])
    else:
        for i in range(len(line)):
            line[i] *= height


@njit(nogil=True, cache=True, error_model="numpy")
def over_peak(view: np.ndarray, gamma: float) -> None:  # pragma: no cover - compiled
    """Divide a view by its largest pixel, by absolute value, and raise it to a power, in place; 0 stays 0.

    Parameters
    ----------
    view : float32 [size, size]
        Any strides.
    gamma : float
        Exponent: sign(x) abs(x)^gamma of what was divided.
    """
    ny, nx = view.shape
    peak, power = np.float32(0), np.float32(gamma)
    for j in range(ny):
        for i in range(nx):
            peak = max(peak, abs(view[j, i]))
    if not peak > 0:
        return
    for j in range(ny):
        for i in range(nx):
            x = view[j, i] / peak
            view[j, i] = x if power == 1 else math.copysign(abs(x) ** power, x)


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


@njit(nogil=True, cache=True, fastmath={"contract", "arcp", "nsz"})
def fill_turned(
    image: np.ndarray, x: float, y: float, half: float, angle: float, background: float, out: np.ndarray
) -> None:  # pragma: no cover - compiled
    """Fill ``out`` with a square about the middle of ``image``, turned about it, above the background.

    Between pixels a cubic goes through them (Keys 1981, IEEE TASSP 29, 1153, a = -1/2), which keeps the noise better
    than a line would. Blank pixels are background; beyond the edge the picture is mirrored.

    Parameters
    ----------
    image : integers or float32 [y, x]
    x, y : float
        Middle of the square before the turn, from the middle of the picture.
    half : float
        From there to the edge of the first pixel of ``out``, whose pixels are as large as those of the picture.
    angle : float
        By which the square is turned, counterclockwise where x runs to the right and y up, rad; what it shows turns
        the other way.
    background : float
    out : float32 [n, n]
    """
    ny, nx = image.shape
    cos, sin = math.cos(angle), math.sin(angle)
    zero = np.float32(background)
    wx, wy = np.empty(4, np.float32), np.empty(4, np.float32)
    for j in range(out.shape[0]):
        b = y - half + j + 0.5
        for i in range(out.shape[1]):
            a = x - half + i + 0.5
            px = nx / 2 + cos * a - sin * b - 0.5
            py = ny / 2 + sin * a + cos * b - 0.5
            fx, fy = math.floor(px), math.floor(py)
            _keys(np.float32(px - fx), wx)
            _keys(np.float32(py - fy), wy)
            x0, y0 = int(fx) - 1, int(fy) - 1
            inside = x0 >= 0 and y0 >= 0 and x0 + 3 < nx and y0 + 3 < ny
            total = np.float32(0)
            for k in range(4):
                row = y0 + k if inside else _mirrored(y0 + k, ny)
                line = np.float32(0)
                for q in range(4):
                    column = x0 + q if inside else _mirrored(x0 + q, nx)
                    value = np.float32(image[row, column])
                    if math.isfinite(value):
                        line += wx[q] * (value - zero)
                total += wy[k] * line
            out[j, i] = total


@njit(nogil=True, cache=True, fastmath=True, error_model="numpy", boundscheck=False)
def turn_middle(square: np.ndarray, angle: float, out: np.ndarray) -> None:  # pragma: no cover - compiled
    """Fill ``out`` with the middle of a square of the same pixels, as :func:`fill_turned` in a quarter of the time.

    Parameters
    ----------
    square : float32 [n, n]
        Without blank pixels; at least sqrt(2) times as wide as ``out``, and 4 pixels.
    angle : float
        rad.
    out : float32 [size, size]
    """
    n, size = square.shape[0], out.shape[0]
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    middle, half = np.float32((n - 1) / 2), np.float32((size - 1) / 2)
    wx, wy = np.empty((4, size), np.float32), np.empty((4, size), np.float32)
    x0, y0 = np.empty(size, np.int64), np.empty(size, np.int64)
    weight = np.empty(4, np.float32)
    for j in range(size):
        b = np.float32(j) - half
        # Places and weights of a line first: loops that the compiler makes vector instructions of.
        for i in range(size):
            a = np.float32(i) - half
            px, py = middle + cos * a - sin * b, middle + sin * a + cos * b
            fx, fy = np.floor(px), np.floor(py)
            x0[i], y0[i] = np.int64(fx) - 1, np.int64(fy) - 1
            _keys(px - fx, weight)
            wx[0, i], wx[1, i], wx[2, i], wx[3, i] = weight[0], weight[1], weight[2], weight[3]
            _keys(py - fy, weight)
            wy[0, i], wy[1, i], wy[2, i], wy[3, i] = weight[0], weight[1], weight[2], weight[3]
        for i in range(size):
            x, y = np.uint64(x0[i]), np.uint64(y0[i])
            va, vb, vc, vd = wx[0, i], wx[1, i], wx[2, i], wx[3, i]
            total = np.float32(0)
            for k in range(4):
                row = square[y + np.uint64(k)]
                total += wy[k, i] * (va * row[x] + vb * row[x + _ONE] + vc * row[x + _TWO] + vd * row[x + _THREE])
            out[j, i] = total


@njit(nogil=True, cache=True, error_model="numpy")
def fill_region(
    image: np.ndarray, top: int, left: int, background: float, mirror: bool, out: np.ndarray
) -> None:  # pragma: no cover - compiled
    """Fill ``out`` with the part of ``image`` that starts at row ``top`` and column ``left``, above the background.

    Parameters
    ----------
    image : integers or float32 [y, x]
        Blank pixels are background.
    top, left : int
        Of any size: the part may lie anywhere, also far beyond the image.
    background : float
    mirror : bool
        Whether the image is mirrored at its edges, again and again; else background lies beyond them.
    out : float32 [rows, columns]
    """
    ny, nx = image.shape
    zero = np.float32(background)
    for j in range(out.shape[0]):
        y = top + j
        if not mirror and (y < 0 or y >= ny):
            out[j] = 0.0
            continue
        row = image[_mirrored_again(y, ny)]
        for i in range(out.shape[1]):
            x = left + i
            if x < 0 or x >= nx:
                if not mirror:
                    out[j, i] = 0.0
                    continue
                x = _mirrored_again(x, nx)
            value = np.float32(row[x])
            out[j, i] = value - zero if math.isfinite(value) else np.float32(0)


@njit(nogil=True, cache=True, inline="always")
def _mirrored_again(i: int, n: int) -> int:  # pragma: no cover - compiled
    """Return the pixel that stands for pixel ``i``, however far beyond the edge."""
    i %= 2 * n
    return 2 * n - 1 - i if i >= n else i


@njit(nogil=True, cache=True, inline="always")
def _keys(f: np.float32, weight: np.ndarray) -> None:  # pragma: no cover - compiled
    half, one = np.float32(0.5), np.float32(1)
    two, three, four, five = np.float32(2), np.float32(3), np.float32(4), np.float32(5)
    weight[0] = half * f * (f * (two - f) - one)
    weight[1] = half * (f * f * (three * f - five) + two)
    weight[2] = half * f * (f * (four - three * f) + one)
    weight[3] = half * f * f * (f - one)


@njit(nogil=True, cache=True, inline="always")
def _mirrored(i: int, n: int) -> int:  # pragma: no cover - compiled
    """Return the pixel that stands for pixel ``i``, which may be beyond the edge by up to ``n`` pixels."""
    i = -1 - i if i < 0 else i
    i = 2 * n - 1 - i if i >= n else i
    return min(max(i, 0), n - 1)
