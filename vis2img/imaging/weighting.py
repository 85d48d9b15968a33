"""Imaging weights: natural, uniform and Briggs density weighting, rank filter, tapers, uv range.

Pure functions of arrays. The density is counted on the half-plane grid of WSClean 3.1, which follows the
*padded* image, and factors apply to whole cells of that grid in WSClean's order (``docs/conventions.md``),
so that weights, and with them images, equal WSClean's.

References
----------
Briggs 1995, PhD thesis, New Mexico Tech, ch. 3: robust weighting.
Offringa et al. 2014, MNRAS 444, 606: WSClean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np

from vis2img.imaging import weighting_kernels as kernels
from vis2img.imaging.contents import channels_of, times_of
from vis2img.imaging.params import ImagingParams, density_grid_size
from vis2img.shapes import Float32, Float64
from vis2img.visibilities import SPEED_OF_LIGHT, Visibilities

Result = TypeVar("Result")
_RANK_WINDOW = 16  # cells; WSClean's default
_ROWS = 1 << 14  # looked at at a time
_MAX_GRID_BYTES = 1 << 28  # of the grids that threads count into side by side


@dataclass(frozen=True, eq=False)
class ImagingWeights:
    """The weights of one image.

    Parameters
    ----------
    parts : list of float32 [row, chan]
        Imaging weight of each sample of each part.
    cells : float64 [y, x]
        Sum of the imaging weights in the cells of the half-plane density grid that the baselines reach.
    first : int
        Number of the first column of ``cells``, counted from u = 0.
    chans : list of float64 [chan]
        Sum of the imaging weights of each channel of each part.
    nvis : int
        Number of samples with weight.
    off_grid : float
        Fraction of the data weight beyond the density grid, on baselines that the pixels are too coarse for.
    """

    parts: list[Float32[np.ndarray, "_ _"]]
    cells: Float64[np.ndarray, "y x"]
    first: int
    chans: list[Float64[np.ndarray, " _"]]
    nvis: int
    off_grid: float

    @property
    def total(self) -> float:
        """Sum of all imaging weights."""
        return float(sum(by_chan.sum() for by_chan in self.chans))

    def by_channel(
        self, parts: Sequence[Visibilities]
    ) -> tuple[Float64[np.ndarray, " chan"], Float64[np.ndarray, " chan"]]:
        """Return the frequencies in Hz of all samples of ``parts``, float64 [chan], and the sums of their weights."""
        each = [channels_of(*one) for one in zip(parts, self.parts, self.chans, strict=True)]
        freqs, sums = zip(*each, strict=True)
        return np.concatenate(freqs), np.concatenate(sums)

    def by_time(
        self, parts: Sequence[Visibilities]
    ) -> tuple[Float64[np.ndarray, " time"], Float64[np.ndarray, " time"]]:
        """Return the distinct times with weight, s (MJD), float64 [time], and the sums of their weights."""
        return times_of(parts, self.parts)


def imaging_weights(
    parts: Sequence[Visibilities], params: ImagingParams, *, nthreads: int = 1, reuse: bool = False
) -> ImagingWeights:
    """Return data weights times density weights times taper, zero outside the uv range and the grid.

    Parameters
    ----------
    parts : sequence of Visibilities
        All that goes into the image: the density is counted over all of them.
    params : ImagingParams
        ``weighting``, ``robust``, ``rank_filter``, tapers, ``uvrange``, ``npix`` and ``pixsize`` are used.
    nthreads : int
        Threads over rows. Sums are taken in another order with another number of threads.
    reuse : bool
        Write the result over the data weights of ``parts``, to save their memory.
    """
    grid = _extent(parts, params)
    off_grid = _off_grid(parts, params)
    factors = _cell_factors(_density(parts, params, grid, nthreads), params, grid)

    cells, nvis = np.zeros(grid.shape), 0
    results, chans = [], []
    for part in parts:
        result = part.weight if reuse else np.empty_like(part.weight)

        def apply(
            rows: slice, part: Visibilities = part, result: np.ndarray = result
        ) -> tuple[int, np.ndarray, np.ndarray]:
            by_cell, by_chan = np.zeros(grid.shape), np.zeros(len(part.chan_freq))
            nvis = kernels.apply_factors(
                part.uvw[rows], part.chan_freq, part.weight[rows], params.pixsize, SPEED_OF_LIGHT, grid.size, grid.x0,
                factors, params.taper_by == "sample", _shape(params), result[rows], by_cell, by_chan,
            )  # fmt: skip
            return nvis, by_cell, by_chan

        counts, by_cells, by_chans = zip(*_over_rows(apply, part.nrow, nthreads, cells.nbytes), strict=True)
        nvis += sum(counts)
        for by_cell in by_cells:
            cells += by_cell
        chans.append(np.sum(by_chans, axis=0))
        results.append(result)

    return ImagingWeights(results, cells, grid.x0 - grid.size[0] // 2, chans, nvis, off_grid)


class _Grid(NamedTuple):
    """The part of the half-plane grid that is kept: all rows from v = 0 and columns from ``x0`` that data reach."""

    size: tuple[int, int]
    """Columns and rows of the whole half plane."""
    x0: int
    shape: tuple[int, int]
    """Rows and columns kept."""


def _extent(parts: Sequence[Visibilities], params: ImagingParams) -> _Grid:
    nx, ny = (density_grid_size(n) for n in params.npix)
    x = y = 0.0
    for part in parts:
        if part.nrow:
            scale = part.chan_freq[-1] / SPEED_OF_LIGHT * params.pixsize
            x = max(x, float(np.abs(part.uvw[:, 0]).max()) * scale * nx)
            y = max(y, float(np.abs(part.uvw[:, 1]).max()) * scale * ny)

    # A margin as wide as the window of the rank filter keeps the empty cells that it looks at.
    x0 = max(0, nx // 2 - min(nx, int(x) + 1) - _RANK_WINDOW)
    width = min(nx, nx // 2 + min(nx, int(x) + 1) + _RANK_WINDOW) - x0
    return _Grid((nx, ny // 2), x0, (min(ny // 2, int(min(y, ny)) + 1 + _RANK_WINDOW), width))


def _off_grid(parts: Sequence[Visibilities], params: ImagingParams) -> float:
    """Return the fraction of the data weight of samples beyond abs(u), abs(v) = 1 / (2 pixsize)."""
    reach = SPEED_OF_LIGHT / (2 * params.pixsize)  # m Hz
    beyond = 0.0
    for part in parts:
        farthest = np.abs(part.uvw[:, :2]).max(axis=1, initial=0.0)
        rows = np.flatnonzero(farthest * part.chan_freq[-1] > reach)
        for some in np.array_split(rows, len(rows) // _ROWS + 1):
            beyond += float(part.weight[some][farthest[some, np.newaxis] * part.chan_freq > reach].sum())
    return beyond / sum(float(part.weight.sum(dtype=np.float64)) for part in parts) if beyond else 0.0


def _density(
    parts: Sequence[Visibilities], params: ImagingParams, grid: _Grid, nthreads: int
) -> Float64[np.ndarray, "y x"]:
    """Return the sum of data weights per cell, float64 [y, x]."""
    # Cell by cell, the range cuts what was counted over all samples, as in WSClean.
    low, high = params.uvrange if params.taper_by == "sample" else (0.0, math.inf)
    total = np.zeros(grid.shape)
    for part in parts:

        def count(rows: slice, part: Visibilities = part) -> np.ndarray:
            density = np.zeros(grid.shape)
            kernels.count_density(
                part.uvw[rows], part.chan_freq, part.weight[rows], params.pixsize, SPEED_OF_LIGHT, low, high,
                grid.size, grid.x0, density,
            )  # fmt: skip
            return density

        for density in _over_rows(count, part.nrow, nthreads, total.nbytes):
            total += density
    return total


def _over_rows(work: Callable[[slice], Result], nrow: int, nthreads: int, grid_bytes: int) -> list[Result]:
    """Return ``work(rows)`` of as many slices of the rows as threads whose grids fit into memory."""
    pieces = max(1, min(nthreads, _MAX_GRID_BYTES // grid_bytes, nrow))
    edges = np.linspace(0, nrow, pieces + 1).astype(int)
    slices = [slice(a, b) for a, b in pairwise(edges)]

    if pieces == 1:
        return [work(slices[0])]
    with ThreadPoolExecutor(pieces) as pool:
        return list(pool.map(work, slices))


def _cell_factors(
    density: Float64[np.ndarray, "y x"], params: ImagingParams, grid: _Grid
) -> Float32[np.ndarray, "y x"]:
    """Turn ``density`` [y, x] into what the data weights of a cell are multiplied by, float32."""
    factors = density
    filled = density > 0
    if params.weighting == "natural":
        factors = filled.astype(np.float64)
    elif params.weighting == "uniform":
        np.divide(1.0, density, out=factors, where=filled)
    else:
        factors = 1 / (1 + density * _briggs_factor(density, params))  # 1 where empty: the rank filter sees that

    if params.rank_filter and params.weighting != "natural":  # natural factors are all alike
        factors = kernels.rank_filter(factors, params.rank_filter, _RANK_WINDOW)
    if params.taper_by == "cell" and _shape(params) != (0.0, 0.0, 0.0, math.inf, 0.0):
        kernels.taper_cells(factors, grid.x0 - grid.size[0] // 2, params.density_cell, _shape(params))
    return factors.astype(np.float32)


def _briggs_factor(density: Float64[np.ndarray, "y x"], params: ImagingParams) -> float:
    """Return f^2 = (5 * 10^-R)^2 / (sum W_cell^2 / sum W_cell) (Briggs 1995, eq. 3.7)."""
    total, squared = density.sum(), float(np.vdot(density, density))
    return (5 * 10**-params.robust) ** 2 * total / squared if squared > 0 else 0.0


def _shape(params: ImagingParams) -> tuple[float, float, float, float, float]:
    """Return the numbers of ``shape_factor``; the transform of a Gaussian of FWHM t is exp(-(pi t q)^2 / (4 ln 2))."""
    gauss = -((math.pi * params.taper) ** 2) / (4 * math.log(2))
    low, high = params.uvrange
    return gauss, float(low), float(params.tukey_inner_taper), float(high), float(params.tukey_taper)
