"""The synthesised beam: the Gaussian that fits the main lobe of the point spread function.

The PSF around its peak follows from the weights summed on the density grid, without gridding the data again:
PSF(l, m) = sum W cos(2 pi (u l + v m)) / sum W over the cells.
"""

from __future__ import annotations

import math

import numpy as np

from vis2img.shapes import Float64
from vis2img.units import FWHM_OF_SIGMA

_PATCH = 31  # samples of the PSF in either direction
_REACH = 1.3  # half the width of the patch, in expected beam widths
_LEVEL = 0.35  # the main lobe is fitted above this fraction of the peak
_PRECISE = {"xtol": 1e-10, "ftol": 1e-10, "gtol": 1e-10}  # beams then agree to 1e-6, whatever the route of the fit
_COARSE = 0.02  # turns over a cell at the edge of the patch; the PSF is then right to (pi 0.02)^2 / 6


def fit_beam(cells: Float64[np.ndarray, "y x"], first: int, cell: tuple[float, float]) -> tuple[float, float, float]:
    """Return (major, minor, position angle north through east) in rad, FWHM, of the fitted Gaussian.

    Parameters
    ----------
    cells : float64 [y, x]
        Sum of imaging weights in cells of the half plane v >= 0.
    first : int
        Number of the first column, counted from u = 0.
    cell : (float, float)
        Size of a cell in u and v, wavelengths.
    """
    rows, cols = np.flatnonzero(cells.any(axis=1)), np.flatnonzero(cells.any(axis=0))
    filled = cells[np.ix_(rows, cols)]
    u = (cols + first + 0.5) * cell[0]
    v = (rows + 0.5) * cell[1]
    start = _moments(filled, u, v)
    if start[0] >= math.pi:
        return start
    u, v, filled = _coarser(filled, u, v, [max(1, int(_COARSE / (_REACH * start[0] * size))) for size in cell])
    offset = np.linspace(-_REACH, _REACH, _PATCH)
    major, minor, angle = start
    # Sample the patch along the axes of the expected beam, so that long and narrow ones are covered evenly.
    along, across = np.meshgrid(offset * major, offset * minor, indexing="ij")
    l = along * math.sin(angle) + across * math.cos(angle)
    m = along * math.cos(angle) - across * math.sin(angle)
    psf = _psf_at(filled, u, v, l.ravel(), m.ravel()).reshape(l.shape)
    return _fit(psf, l, m, start)


def _coarser(
    weights: Float64[np.ndarray, "v u"], u: Float64[np.ndarray, " u"], v: Float64[np.ndarray, " v"], factors: list[int]
) -> tuple[
    Float64[np.ndarray, " coarse_u"], Float64[np.ndarray, " coarse_v"], Float64[np.ndarray, "coarse_v coarse_u"]
]:
    """Sum blocks of cells, at their mean coordinates; returns (u, v, weights)."""
    x, y = np.arange(0, len(u), factors[0]), np.arange(0, len(v), factors[1])
    summed = np.add.reduceat(np.add.reduceat(weights, x, axis=1), y, axis=0)
    means = [np.add.reduceat(c, i) / np.diff(np.append(i, len(c))) for c, i in ((u, x), (v, y))]
    return means[0], means[1], summed


def _psf_at(
    weights: Float64[np.ndarray, "v u"],
    u: Float64[np.ndarray, " u"],
    v: Float64[np.ndarray, " v"],
    l: Float64[np.ndarray, " point"],
    m: Float64[np.ndarray, " point"],
) -> Float64[np.ndarray, " point"]:
    """Return the PSF at the directions (l, m) [point]; one matrix product over the cells."""
    phase_u, phase_v = 2j * np.pi * np.outer(u, l), 2j * np.pi * np.outer(v, m)
    inner = weights @ np.exp(phase_u)  # [v, point]
    return np.einsum("vp,vp->p", np.exp(phase_v), inner).real / weights.sum()


def _moments(
    weights: Float64[np.ndarray, "v u"], u: Float64[np.ndarray, " u"], v: Float64[np.ndarray, " v"]
) -> tuple[float, float, float]:
    """Return the Gaussian with the curvature of the PSF at its peak.

    The second derivatives of the PSF are -4 pi^2 <u^2>, -4 pi^2 <uv>, -4 pi^2 <v^2>; a Gaussian of dispersion
    s along an axis has -1/s^2.
    """
    total, by_u, by_v = weights.sum(), weights.sum(axis=0), weights.sum(axis=1)
    uv = float(v @ (weights @ u)) / total
    second = np.array([[float(by_u @ u**2) / total, uv], [uv, float(by_v @ v**2) / total]])
    return _axes(second * (2 * np.pi) ** 2)


def _axes(precision: Float64[np.ndarray, "2 2"]) -> tuple[float, float, float]:
    """Return FWHM and position angle of exp(-x P x / 2), x = (l, m)."""
    inverse, directions = np.linalg.eigh(precision)  # increasing: the first axis is the longest
    major, minor = (min(math.pi, FWHM_OF_SIGMA / math.sqrt(max(p, 1e-300))) for p in inverse)
    east, north = directions[:, 0]
    return major, minor, math.atan2(east, north) % math.pi


def _fit(
    psf: Float64[np.ndarray, "along across"],
    l: Float64[np.ndarray, "along across"],
    m: Float64[np.ndarray, "along across"],
    start: tuple[float, float, float],
) -> tuple[float, float, float]:
    """Fit exp(-x P x / 2) to the main lobe by least squares, from the curvature at the peak."""
    from scipy import ndimage, optimize

    lobes, _ = ndimage.label(psf > _LEVEL)
    main = lobes == lobes[lobes.shape[0] // 2, lobes.shape[1] // 2]
    scale = start[0]
    x, y, value = l[main] / scale, m[main] / scale, psf[main]
    squares = np.stack([x * x, 2 * x * y, y * y], axis=1) / 2

    major, minor, angle = start
    axes = np.array([[math.sin(angle), math.cos(angle)], [math.cos(angle), -math.sin(angle)]])
    guess = axes.T @ np.diag([(FWHM_OF_SIGMA * scale / width) ** 2 for width in (major, minor)]) @ axes
    p = optimize.least_squares(
        lambda p: np.exp(-squares @ p) - value,
        [guess[0, 0], guess[0, 1], guess[1, 1]],
        lambda p: -squares * np.exp(-squares @ p)[:, None],
        **_PRECISE,
    ).x

    if p[0] <= 0 or p[0] * p[2] <= p[1] ** 2:  # no Gaussian
        return start
    major, minor, angle = _axes(np.array([[p[0], p[1]], [p[1], p[2]]]))
    return min(math.pi, major * scale), min(math.pi, minor * scale), angle
