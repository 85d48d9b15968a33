"""The synthesised beam: the Gaussian that fits the main lobe of the point spread function.

The PSF around its peak follows from the weights summed on the density grid, without gridding the data again:
PSF(l, m) = sum W cos(2 pi (u l + v m)) / sum W over the cells. Where the lobe is so wide that cells are too coarse,
about a twentieth of the image, a patch of the PSF is gridded.

A lobe that the contour at half the peak does not close around, such as the fringe of two antennas, has no beam.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from vis2img.coordinates import pixel_to_lm
from vis2img.imaging.gridding import vis_to_dirty
from vis2img.shapes import Float32, Float64
from vis2img.units import FWHM_OF_SIGMA
from vis2img.visibilities import SPEED_OF_LIGHT, Visibilities

_PATCH = 31  # samples of the PSF in either direction
_REACH = 1.3  # half the width of the patch, in expected beam widths
_LEVEL = 0.35  # the main lobe is fitted above this fraction of the peak
_PRECISE = {"xtol": 1e-10, "ftol": 1e-10, "gtol": 1e-10}  # beams then agree to 1e-6, whatever the route of the fit
_CLOSED = 0.5  # the contour at this fraction of the peak is closed where there is a beam
_WIDEST = 0.7  # rad; half the longest patch, whose corners then lie within the horizon
_NPIX, _EPSILON = 64, 1e-5  # of patches that are gridded
_TOO_COARSE = 0.05  # turns over a cell at the edge of the patch; a beam is then good to 1%
_COARSE = 0.02  # turns over a cell at the edge of the patch; the PSF is then right to (pi 0.02)^2 / 6


Beam = tuple[float, float, float]


def beam_solid_angle(major: float, minor: float) -> float:
    """Return the solid angle in sr of a Gaussian beam, of FWHM in rad: 2 pi sigma_major sigma_minor."""
    return 2 * math.pi * major * minor / FWHM_OF_SIGMA**2


def fit_beam(cells: Float64[np.ndarray, "y x"], first: int, cell: tuple[float, float]) -> Beam | None:
    """Return (major, minor, position angle north through east) in rad, FWHM, of the fitted Gaussian.

    Parameters
    ----------
    cells : float64 [y, x]
        Sum of imaging weights in cells of the half plane v >= 0.
    first : int
        Number of the first column, counted from u = 0.
    cell : (float, float)
        Size of a cell in u and v, wavelengths.

    Returns
    -------
    (float, float, float) or None
        None where the main lobe is so wide that the cells do not tell: see :func:`fit_beam_of_samples`.
    """
    rows, cols = np.flatnonzero(cells.any(axis=1)), np.flatnonzero(cells.any(axis=0))
    filled = cells[np.ix_(rows, cols)]
    u = (cols + first + 0.5) * cell[0]
    v = (rows + 0.5) * cell[1]
    start = _axes(_moments(filled, u, v))

    reach = _REACH
    while max(cell) * reach * start[0] <= _TOO_COARSE:
        factors = [max(1, int(_COARSE / (reach * start[0] * size))) for size in cell]
        u_, v_, summed = _coarser(filled, u, v, factors)
        offset = np.linspace(-reach, reach, _PATCH)
        # Sample the patch along the axes of the expected beam, so that long and narrow ones are covered evenly.
        along, across = np.meshgrid(offset * start[0], offset * start[1], indexing="ij")
        l, m = _turned(along, across, start[2])
        psf = _psf_at(summed, u_, v_, l.ravel(), m.ravel()).reshape(l.shape)
        if _is_closed(psf):
            return _fit(psf, l, m, start)
        reach *= 2
    return None


def fit_beam_of_samples(
    parts: Sequence[Visibilities], weights: Sequence[Float32[np.ndarray, "_ _"]], nthreads: int = 1
) -> Beam | None:
    """Return the beam as :func:`fit_beam`, from the samples: as slow as an image, and right for a lobe of any width.

    Parameters
    ----------
    parts : sequence of Visibilities
        Towards one phase centre.
    weights : sequence of float32 [row, chan]
        Imaging weights of each.
    nthreads : int
        Threads of ducc0.

    Returns
    -------
    (float, float, float) or None
        None where the PSF has no closed main lobe.
    """
    start = _axes(_moments_of_samples(parts, weights))
    major, minor, angle = start
    reach = _REACH
    while major < 2 * _WIDEST:
        half = (min(reach * minor, _WIDEST), min(reach * major, _WIDEST))
        psf, along, across = _gridded_psf(parts, weights, half, angle, nthreads)
        if _is_closed(psf):
            return _fit(psf, *_turned(along, across, angle), start)
        if half[1] == _WIDEST:
            break
        reach *= 2
    return None


def mean_beam(beams: Sequence[Beam | None], weights: Sequence[float]) -> Beam | None:
    """Return the beam of the weighted mean of point spread functions that are Gaussians; None if none has a beam."""
    known = [(beam, weight) for beam, weight in zip(beams, weights, strict=True) if beam is not None and weight > 0]
    if not known:
        return None
    shares = np.array([weight for _, weight in known]) / sum(weight for _, weight in known)
    precisions = np.array([_precision(beam) for beam, _ in known])
    start = _axes(np.tensordot(shares, precisions, 1))

    offset = np.linspace(-_REACH, _REACH, _PATCH)
    l, m = _turned(*np.meshgrid(offset * start[0], offset * start[1], indexing="ij"), start[2])
    x = np.stack([l, m], axis=-1)
    psf = np.tensordot(shares, np.exp(-0.5 * np.einsum("yxi,pij,yxj->pyx", x, precisions, x)), 1)
    return _fit(psf, l, m, start)


def _turned(along: np.ndarray, across: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (l, m) of distances along the major axis of a beam and across it."""
    return along * math.sin(angle) + across * math.cos(angle), along * math.cos(angle) - across * math.sin(angle)


def _is_closed(psf: Float64[np.ndarray, "y x"]) -> bool:
    """Return whether the lobe in the middle falls below half the peak before the edge of the patch."""
    from scipy import ndimage

    lobes, _ = ndimage.label(psf > _CLOSED)
    main = lobes == lobes[lobes.shape[0] // 2, lobes.shape[1] // 2]
    return not any(edge.any() for edge in (main[0], main[-1], main[:, 0], main[:, -1]))


def _gridded_psf(
    parts: Sequence[Visibilities],
    weights: Sequence[Float32[np.ndarray, "_ _"]],
    half: tuple[float, float],
    angle: float,
    nthreads: int,
) -> tuple[Float64[np.ndarray, "y x"], Float64[np.ndarray, "y x"], Float64[np.ndarray, "y x"]]:
    """Return a patch of the PSF whose y axis lies at ``angle``, and distances in rad along it and across.

    ``half`` is half its size in rad across and along.
    """
    pixsize = (2 * half[0] / _NPIX, 2 * half[1] / _NPIX)
    total = float(sum(weight.sum(dtype=np.float64) for weight in weights))
    psf = np.zeros((_NPIX, _NPIX))
    for part, weight in zip(parts, weights, strict=True):
        u, v, w = part.uvw.T
        # u l + v m is kept: u is turned as l is.
        turned = np.stack([u * math.cos(angle) - v * math.sin(angle), u * math.sin(angle) + v * math.cos(angle), w], 1)
        ones = np.broadcast_to(np.complex64(1), weight.shape)
        psf += vis_to_dirty(
            turned, part.chan_freq, ones, weight, (_NPIX, _NPIX), pixsize, total=total, epsilon=_EPSILON,
            nthreads=nthreads,
        )  # fmt: skip
    y, x = np.mgrid[:_NPIX, :_NPIX]
    across, _ = pixel_to_lm(x, y, (_NPIX, _NPIX), pixsize[0])
    _, along = pixel_to_lm(x, y, (_NPIX, _NPIX), pixsize[1])
    return psf, along, across


def _moments_of_samples(
    parts: Sequence[Visibilities], weights: Sequence[Float32[np.ndarray, "_ _"]]
) -> Float64[np.ndarray, "2 2"]:
    """Return what :func:`_moments` does, of samples where they are."""
    second, total = np.zeros((2, 2)), 0.0
    for part, weight in zip(parts, weights, strict=True):
        uv = part.uvw[:, :2] / SPEED_OF_LIGHT * part.chan_freq[-1]
        by_row = weight @ ((part.chan_freq / part.chan_freq[-1]) ** 2).astype(np.float32)
        second += uv.T @ (uv * by_row[:, None])
        total += float(weight.sum(dtype=np.float64))
    return second / total * (2 * np.pi) ** 2


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
) -> Float64[np.ndarray, "2 2"]:
    """Return the precision P of the Gaussian exp(-x P x / 2) with the curvature of the PSF at its peak.

    The second derivatives of the PSF are -4 pi^2 <u^2>, -4 pi^2 <uv>, -4 pi^2 <v^2>; a Gaussian of dispersion
    s along an axis has -1/s^2.
    """
    total, by_u, by_v = weights.sum(), weights.sum(axis=0), weights.sum(axis=1)
    uv = float(v @ (weights @ u)) / total
    second = np.array([[float(by_u @ u**2) / total, uv], [uv, float(by_v @ v**2) / total]])
    return second * (2 * np.pi) ** 2


def _axes(precision: Float64[np.ndarray, "2 2"]) -> Beam:
    """Return FWHM and position angle of exp(-x P x / 2), x = (l, m)."""
    inverse, directions = np.linalg.eigh(precision)  # increasing: the first axis is the longest
    major, minor = (min(math.pi, FWHM_OF_SIGMA / math.sqrt(max(p, 1e-300))) for p in inverse)
    east, north = directions[:, 0]
    return major, minor, math.atan2(east, north) % math.pi


def _precision(beam: Beam) -> Float64[np.ndarray, "2 2"]:
    """Return P of the Gaussian exp(-x P x / 2), x = (l, m)."""
    major, minor, angle = beam
    axes = np.array([[math.sin(angle), math.cos(angle)], [math.cos(angle), -math.sin(angle)]])
    return axes.T @ np.diag([(FWHM_OF_SIGMA / width) ** 2 for width in (major, minor)]) @ axes


def _fit(
    psf: Float64[np.ndarray, "along across"],
    l: Float64[np.ndarray, "along across"],
    m: Float64[np.ndarray, "along across"],
    start: Beam,
) -> Beam:
    """Fit exp(-x P x / 2) to the main lobe by least squares, from the curvature at the peak."""
    from scipy import ndimage, optimize

    lobes, _ = ndimage.label(psf > _LEVEL)
    main = lobes == lobes[lobes.shape[0] // 2, lobes.shape[1] // 2]
    scale = start[0]
    x, y, value = l[main] / scale, m[main] / scale, psf[main]
    squares = np.stack([x * x, 2 * x * y, y * y], axis=1) / 2

    guess = _precision(start) * scale**2
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
