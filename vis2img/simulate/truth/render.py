"""Sources on pixels: the integral of Gaussians over each pixel, and cutouts interpolated linearly.

Brightness is in Jy per pixel. Gaussians are sampled so densely that their flux is kept to 1e-3 and better.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.signal import fftconvolve

from vis2img.simulate.sky.source import SkyCutout
from vis2img.simulate.truth.parts import Parts

_RENDER_SIGMAS = 5.0  # 4e-6 of a Gaussian lies farther out
_POINT_SIGMA = 0.1  # pixels; smaller Gaussians lie in one pixel
_SIGMA_SAMPLES = 0.7  # samples per sigma: the sum is the integral within 2 exp(-2 pi^2 0.7^2) = 1.3e-4
_CUTOUT_SAMPLES = 4  # per pixel of a cutout
_MAX_SAMPLES = 20_000_000  # per Gaussian or cutout, a second of work


def reach(parts: Parts, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and highest (x, y) that part ``k`` has a share of its flux at."""
    half, corners = _RENDER_SIGMAS * np.sqrt(np.diag(parts.covariance[k])), parts.xy[k][None]
    cutout = parts.cutout[k]
    if cutout is not None:
        corners = _cutout_ends(cutout.pixels, corners, _cutout_matrix(cutout, parts.turn[k]))
    return corners.min(axis=0) - half, corners.max(axis=0) + half


def add_part(image: np.ndarray, parts: Parts, k: int, corner: np.ndarray, pixel: int) -> None:
    """Add part ``k`` to ``image`` [y, x] in place, each pixel ``pixel`` of the view wide, from ``corner`` (x, y) on."""
    xy = (parts.xy[k] - corner + 0.5) / pixel - 0.5
    covariance, cutout = parts.covariance[k] / pixel**2, parts.cutout[k]
    if cutout is None:
        _add_gaussian(image, xy, covariance, float(parts.flux[k]))
    else:
        matrix = _cutout_matrix(cutout, parts.turn[k]) / pixel
        _add_cutout(image, xy, matrix, cutout.pixels * parts.scale[k], covariance)


def _cutout_matrix(cutout: SkyCutout, turn: np.ndarray) -> np.ndarray:
    """Return [2, 2]: image pixels (x, y) per pixel (x, y) of the cutout."""
    sin, cos, side = math.sin(cutout.pa), math.cos(cutout.pa), cutout.pixsize
    return turn @ np.array([[-cos, sin], [sin, cos]]) * side  # x to the west, y to the north; north through east


def _cutout_ends(pixels: np.ndarray, xy: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return the image pixels (x, y) [4, 2] of the corners of a cutout and a pixel around it."""
    ny, nx = pixels.shape
    return xy + (np.array([[x, y] for x in (-1, nx) for y in (-1, ny)]) - (nx // 2, ny // 2)) @ matrix.T


def _steps(wanted: float, area: int) -> int:
    return max(1, min(math.ceil(wanted), math.isqrt(_MAX_SAMPLES // max(area, 1))))


def _window(low: np.ndarray, high: np.ndarray, shape: tuple[int, int]) -> tuple[slice, slice]:
    """Return the slices [y, x] of the pixels from position ``low`` to ``high``, both (x, y)."""
    first = np.maximum(np.floor(low + 0.5), 0).astype(int)
    last = np.minimum(np.floor(high + 0.5) + 1, shape[::-1]).astype(int)
    (x0, y0), (x1, y1) = first.tolist(), np.maximum(first, last).tolist()
    return slice(y0, y1), slice(x0, x1)


def _samples(window: slice, steps: int) -> np.ndarray:
    """Return the positions of ``steps`` samples in each pixel of ``window``."""
    return window.start - 0.5 + (np.arange((window.stop - window.start) * steps) + 0.5) / steps


def _add_gaussian(image: np.ndarray, xy: np.ndarray, covariance: np.ndarray, flux: float) -> None:
    """Add a Gaussian of ``flux`` to ``image`` [y, x] in place, integrated over pixels."""
    middle = (covariance[0, 0] + covariance[1, 1]) / 2
    spread = math.hypot((covariance[0, 0] - covariance[1, 1]) / 2, covariance[0, 1])
    if middle + spread < _POINT_SIGMA**2:
        image[_window(xy, xy, image.shape)] += flux
        return
    half = _RENDER_SIGMAS * np.sqrt(np.maximum(np.diag(covariance), _POINT_SIGMA**2))
    rows, columns = window = _window(xy - half, xy + half, image.shape)
    target = image[window]
    minor = math.sqrt(max(middle - spread, 0.0))
    steps = _steps(_SIGMA_SAMPLES / max(minor, _POINT_SIGMA), target.size)
    thinnest = max(_POINT_SIGMA, _SIGMA_SAMPLES / steps) if steps > 1 or minor < _SIGMA_SAMPLES else 0.0
    # A box of side d has the second moment d^2 / 12, so that samples of the sum are integrals to fourth order.
    covariance = covariance + (max(0.0, thinnest**2 - minor**2) + 1 / (12 * steps**2)) * np.eye(2)
    (a, b), (_, c) = np.linalg.inv(covariance)
    scale = flux / (2 * math.pi * math.sqrt(np.linalg.det(covariance))) / steps**2
    x, y = _samples(columns, steps) - xy[0], _samples(rows, steps) - xy[1]
    for row in range(steps):
        dy = y[row::steps, None]
        value = np.exp(-0.5 * (a * x**2 + (2 * b * x + c * dy) * dy))  # (y, x samples)
        target += scale * value.reshape(*target.shape, steps).sum(axis=-1)


def _add_cutout(
    image: np.ndarray, xy: np.ndarray, matrix: np.ndarray, pixels: np.ndarray, covariance: np.ndarray
) -> None:
    """Add a cutout to ``image`` [y, x] in place, its reference pixel at ``xy``, blurred by ``covariance``."""
    pad = math.ceil(_RENDER_SIGMAS * math.sqrt(covariance.diagonal().max())) if covariance.any() else 0
    canvas = np.zeros((image.shape[0] + 2 * pad, image.shape[1] + 2 * pad))
    xy = xy + pad
    ends = _cutout_ends(pixels, xy, matrix)
    rows, columns = window = _window(ends.min(axis=0), ends.max(axis=0), canvas.shape)
    target, inverse = canvas[window], np.linalg.inv(matrix)
    steps = _steps(_CUTOUT_SAMPLES * np.linalg.norm(inverse, axis=0).max(), target.size)
    scale = abs(np.linalg.det(inverse)) / steps**2
    x, y = _samples(columns, steps) - xy[0], _samples(rows, steps) - xy[1]
    for row in range(steps):
        dx, dy = np.broadcast_arrays(x, y[row::steps, None])
        where = [
            inverse[1, 0] * dx + inverse[1, 1] * dy + pixels.shape[0] // 2,
            inverse[0, 0] * dx + inverse[0, 1] * dy + pixels.shape[1] // 2,
        ]
        value = map_coordinates(pixels, where, output=np.float64, order=1, mode="grid-constant")
        target += scale * value.reshape(*target.shape, steps).sum(axis=-1)
    if pad:
        kernel = np.zeros((2 * pad + 1, 2 * pad + 1))
        _add_gaussian(kernel, np.array([pad, pad], float), covariance, 1.0)
        canvas = fftconvolve(canvas, kernel, mode="same")[pad:-pad, pad:-pad]
    image += canvas
