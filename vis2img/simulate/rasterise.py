"""A sky as points and Gaussians, and its picture on a grid of pixels that a degridder may transform.

Positions are not rounded to pixels: a point is added as the kernel sinc(t) window(t), whose transform is 1 for
all that the visibilities can see and 0 for all that aliases into it. This is a low-pass filter in the sense of Kaiser
1974 (*Nonrecursive digital filter design using the I0-sinh window function*), which gives its width; the window
exp(beta (sqrt(1 - t^2) - 1)) stands in for his Bessel function (Barnett, Magland & af Klinteberg 2019, SIAM J. Sci.
Comput. 41, C479). Gaussians that the grid samples well enough are sampled, narrower ones become points by
the trapezium rule, and so do pictures, pixel by pixel, after a cubic spline where their pixels are coarser than the
baselines resolve. A w term w shifts the spatial frequency at (l, m) by -w l / n: the grid is fine enough for that too.

The picture is in direction cosines from the phase centre (SIN projection), oriented as in
:mod:`vis2img.imaging.gridding`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.interpolate import make_interp_spline

from vis2img.coordinates import lm_to_pixel, pixel_to_lm, uvw_basis
from vis2img.errors import ParameterError
from vis2img.simulate.predict_kernels import gaussian_nodes, sample_gaussians, spread_points
from vis2img.simulate.sky.source import SkyCutout, SkySource
from vis2img.units import SIGMA_OF_FWHM

_MARGIN = 8  # pixels around a picture: there its spline has rung out to 3e-5 of what is at the edge
_OFFSETS = 1024  # of the kernel in its table
_NODES_AT_ONCE = 1 << 20


@dataclass(frozen=True, eq=False)
class Sky:
    """Components and, after them, cutouts, as seen from a phase centre."""

    lmn: np.ndarray  # [item, 3] direction cosines of the positions
    axes: np.ndarray  # [component, 2, 3] standard deviation vectors in the same axes, rad; 0 for points
    flux: np.ndarray  # [item] Jy at ref_freq; of a cutout the sum of the absolute values of its pixels
    ref_freq: np.ndarray  # [item] Hz
    index: np.ndarray  # [item] spectral index
    cutouts: tuple[SkyCutout, ...]
    turns: np.ndarray  # [cutout, 3, 3] from the axes of each (east, north, to it) to those of the phase centre

    @property
    def ncomponent(self) -> int:
        return len(self.axes)

    def extent(self, accuracy: float) -> np.ndarray:
        """Return the |l| or |m| that each item reaches but for ``accuracy`` of its flux; float64 [item]."""
        cutouts = [0.5 * math.hypot(*(n + 2 * _MARGIN + 2 for n in c.pixels.shape)) * c.pixsize for c in self.cutouts]
        gaussians = sigmas_of(accuracy) * np.sqrt((self.axes**2).sum(axis=2).max(axis=1, initial=0.0))
        return np.abs(self.lmn[:, :2]).max(axis=1) + np.concatenate([gaussians, cutouts])

    def subset(self, kept: np.ndarray) -> Sky:
        """Return the sky of the items where ``kept`` (bool [item]) is true."""
        parts, pictures = kept[: self.ncomponent], kept[self.ncomponent :]
        return Sky(
            self.lmn[kept], self.axes[parts], self.flux[kept], self.ref_freq[kept], self.index[kept],
            tuple(c for c, keep in zip(self.cutouts, pictures, strict=True) if keep), self.turns[pictures],
        )  # fmt: skip


def sky_of(sources: Sequence[SkySource], phase_centre: tuple[float, float]) -> Sky:
    """Return the components and cutouts of ``sources`` as seen from ``phase_centre`` (RA, Dec in rad).

    Raises
    ------
    ParameterError
        If anything lies 90 degrees or more from the phase centre.
    """
    components = [c for source in sources for c in source.components]
    cutouts = tuple(s.cutout for s in sources if s.cutout is not None and np.any(s.cutout.pixels))
    columns = ("ra", "dec", "flux", "ref_freq", "spectral_index", "pa", "major", "minor")
    table = np.array([[getattr(c, name) for name in columns] for c in components]).reshape(-1, len(columns))
    ra, dec, flux, ref_freq, index, pa, major, minor = table.T
    east, north, towards = np.moveaxis(uvw_basis(ra, dec), -2, 0)
    sin_pa, cos_pa = np.sin(pa)[:, None], np.cos(pa)[:, None]
    axes = np.stack([sin_pa * east + cos_pa * north, cos_pa * east - sin_pa * north], axis=1)
    axes *= (SIGMA_OF_FWHM * np.stack([major, minor], axis=1))[:, :, None]
    frame = uvw_basis(*phase_centre)
    turns = np.array([frame @ uvw_basis(c.ra, c.dec).T for c in cutouts]).reshape(-1, 3, 3)
    lmn = np.concatenate([towards @ frame.T, turns[:, :, 2]])
    if np.any(lmn[:, 2] <= 0):
        raise ParameterError(f"{int(np.sum(lmn[:, 2] <= 0))} sources lie 90 degrees or more from the phase centre")
    return Sky(
        lmn=lmn,
        axes=axes @ frame.T,
        flux=np.concatenate([flux, [np.abs(c.pixels).sum(dtype=float) for c in cutouts]]),
        ref_freq=np.concatenate([ref_freq, [c.ref_freq for c in cutouts]]),
        index=np.concatenate([index, [c.spectral_index for c in cutouts]]),
        cutouts=cutouts,
        turns=turns,
    )


def cutout_points(cutout: SkyCutout, turn: np.ndarray, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the points that stand for a cutout: direction cosines [point, 3] and shares [point].

    Parameters
    ----------
    cutout : SkyCutout
    turn : float64 [3, 3]
        See :class:`Sky`.
    spacing : float
        In rad. Where pixels are larger, points no farther apart are taken from the cubic spline through the
        pixels, which is 0 beyond the picture; its sum is that of the pixels.

    Returns
    -------
    tuple of float64 arrays
        Shares are relative to the sum of the absolute values of the pixels.

    Raises
    ------
    ParameterError
        If the picture reaches around the sky.
    """
    pixels = cutout.pixels.astype(float)
    ny, nx = pixels.shape
    x, y = np.arange(nx, dtype=float), np.arange(ny, dtype=float)
    fine = math.ceil(cutout.pixsize / spacing)
    share = pixels / np.abs(pixels).sum()
    if fine > 1:
        share, x, y = _finer(share, fine)
    offset_x, offset_y = np.meshgrid(*pixel_to_lm(x, y, (nx, ny), cutout.pixsize))
    lit = share != 0
    along, across = offset_x[lit], offset_y[lit]
    sin_pa, cos_pa = math.sin(cutout.pa), math.cos(cutout.pa)
    east, north = along * cos_pa + across * sin_pa, across * cos_pa - along * sin_pa
    depth = 1 - east**2 - north**2
    lmn = np.stack([east, north, np.sqrt(np.maximum(depth, 0.0))], axis=-1) @ turn.T
    if np.any(depth <= 0) or np.any(lmn[:, 2] <= 0):
        raise ParameterError(f"cutout {cutout.origin or 'without a name'} reaches 90 degrees from the phase centre")
    return lmn, share[lit]


def _finer(pixels: np.ndarray, fine: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ``pixels`` [y, x] ``fine`` times finer along each axis, and the x and y of the result in old pixels."""
    padded = np.pad(pixels, _MARGIN)
    places = []
    for axis in (0, 1):
        at = (np.arange(padded.shape[axis] * fine) + 0.5) / fine - 0.5
        at = at[(at >= 0) & (at <= padded.shape[axis] - 1)]
        padded = make_interp_spline(np.arange(padded.shape[axis]), padded, k=3, axis=axis)(at) / fine
        places.append(at - _MARGIN)
    return padded, places[1], places[0]


@dataclass(frozen=True)
class Grid:
    """A square grid of pixels and the kernel that puts points on it."""

    npix: int
    """Side in pixels."""
    pixsize: float
    """Pixel size in rad."""
    oversampling: float
    """Pixels per shortest period that visibilities see, above 2."""
    accuracy: float
    """Of the kernel, relative to the flux of a point."""


def sigmas_of(accuracy: float) -> float:
    """Return the standard deviations beyond which less than ``accuracy`` of a two-dimensional Gaussian lies."""
    return math.sqrt(2 * math.log(1 / accuracy))


def kernel_of(oversampling: float, accuracy: float) -> tuple[int, float]:
    """Return half width (pixels) and steepness of the kernel good to ``accuracy``, by Kaiser's formulae."""
    decibel = -20 * math.log10(accuracy)
    width = (decibel - 8) / (2.285 * 2 * math.pi * (1 - 2 / oversampling)) + 1
    return math.ceil(width / 2), 0.1102 * (decibel - 8.7)


def kernel_table(half: int, steepness: float) -> np.ndarray:
    """Return sinc(t) exp(beta (sqrt(1 - (t / half)^2) - 1)), float32 [offset, pixel].

    In line i of n + 1 the first pixel lies ``half - i / n`` before the point; linear between lines, it is
    good to 4e-7.
    """
    t = half - np.linspace(0, 1, _OFFSETS + 1)[:, None] - np.arange(2 * half)
    window = np.exp(steepness * (np.sqrt(np.maximum(0.0, 1 - (t / half) ** 2)) - 1))
    return (np.sinc(t) * window).astype(np.float32)


def rasterise(sky: Sky, flux: np.ndarray, grid: Grid, spacing: float, nthreads: int) -> np.ndarray:
    """Return images of ``sky``, one per spectral term.

    Parameters
    ----------
    sky : Sky
        All half a kernel and a pixel inside the edges of ``grid``.
    flux : float64 [item, term]
        Jy.
    grid : Grid
    spacing : float
        See :func:`cutout_points`.
    nthreads : int
        The result does not depend on it.

    Returns
    -------
    float32 [term, y, x]
        Jy per pixel.
    """
    image = np.zeros((flux.shape[1], grid.npix, grid.npix), np.float32)
    edges = np.linspace(0, grid.npix, 4 * nthreads + 1).astype(int)
    table = kernel_table(*kernel_of(grid.oversampling, grid.accuracy))
    with ThreadPoolExecutor(nthreads) as pool:

        def by_rows(add: Callable[[tuple[int, int]], None]) -> None:
            list(pool.map(add, zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)))

        x, y = _pixels(sky.lmn[: sky.ncomponent], grid)
        unit, covariance, sigma = _ellipses(sky.axes, grid)
        # The transform of a Gaussian must be small at the nearest frequency that aliases into what is seen.
        clear = (grid.oversampling - 1) / grid.oversampling  # periods per pixel
        sampled = sigma[:, 1] * clear * math.pi * math.sqrt(2) >= math.sqrt(math.log(1 / grid.accuracy))
        some = np.flatnonzero(sampled)
        gaussians = (x[some], y[some], covariance[some], flux[some], sigmas_of(grid.accuracy))
        by_rows(partial(sample_gaussians, *gaussians, image))
        for points in _points(sky, grid, np.flatnonzero(~sampled), x, y, unit, sigma, spacing):
            by_rows(partial(spread_points, *points, flux, table, image))
    return image


def _pixels(lmn: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    x, y = lm_to_pixel(lmn[:, 0], lmn[:, 1], (grid.npix, grid.npix), grid.pixsize)
    return np.ascontiguousarray(x), np.ascontiguousarray(y)


def _ellipses(axes: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return Gaussians as the grid sees them, in pixels: principal vectors, covariances and their square roots.

    Returns
    -------
    tuple of arrays
        float64 [gaussian, 2, 2] (axis, xy) of unit length; [gaussian, 3] xx, xy, yy; [gaussian, 2] standard
        deviations, the larger first.
    """
    flat = np.stack(lm_to_pixel(axes[:, :, 0], axes[:, :, 1], (0, 0), grid.pixsize), axis=-1)
    matrix = np.einsum("iab,iac->ibc", flat, flat)
    squares, vectors = np.linalg.eigh(matrix)
    sigma = np.sqrt(np.maximum(squares[:, ::-1], 0.0))
    covariance = np.stack([matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 1, 1]], axis=-1)
    return np.swapaxes(vectors, 1, 2)[:, ::-1], covariance, sigma


def _points(
    sky: Sky,
    grid: Grid,
    narrow: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    unit: np.ndarray,
    sigma: np.ndarray,
    spacing: float,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield points (x, y, share, item): ``narrow`` components in blocks of similar number, then each cutout."""
    seen = math.sqrt(2) / grid.oversampling  # largest frequency seen in any direction, periods per pixel
    enough = math.sqrt(math.log(1 / grid.accuracy) / 2) / math.pi
    # The alias of the nodes lies 1 / step from what is seen: exp(-2 pi^2 sigma^2 (1 / step - seen)^2).
    step = 1 / (seen * sigma[narrow] + enough)  # in standard deviations
    visible = sigma[narrow] * seen * math.pi * math.sqrt(2) > math.sqrt(grid.accuracy)
    count = np.where(visible, np.ceil(sigmas_of(grid.accuracy) / step), 0).astype(np.int64)
    room = np.prod(2 * count + 1, axis=1)
    block = np.cumsum(room) // _NODES_AT_ONCE
    for number in np.unique(block):
        members = np.flatnonzero(block == number)
        place, share = np.empty((room[members].sum(), 2)), np.empty(room[members].sum())
        vectors = np.ascontiguousarray(unit[narrow[members]] * sigma[narrow[members], :, None])
        made = gaussian_nodes(vectors, count[members], step[members], sigmas_of(grid.accuracy), place, share)
        item = np.repeat(narrow[members], made)
        place, share = place[: len(item)], share[: len(item)]
        yield x[item] + place[:, 0], y[item] + place[:, 1], share, item
    for i, cutout in enumerate(sky.cutouts):
        lmn, share = cutout_points(cutout, sky.turns[i], spacing)
        yield *_pixels(lmn, grid), share, np.full(len(share), sky.ncomponent + i)
