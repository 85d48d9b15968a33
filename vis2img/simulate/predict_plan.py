"""How to predict visibilities: what to put on a grid, which grid, how many spectral terms, the band in how many parts.

Whatever is chosen, the result is the same within the accuracy asked for; only the time differs. The choice depends
on the sky, the coverage and the options alone, neither on the number of threads nor on the machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from scipy.fft import next_fast_len

from vis2img.errors import ParameterError
from vis2img.simulate.rasterise import Grid, Sky, kernel_of
from vis2img.visibilities import SPEED_OF_LIGHT

_OVERSAMPLING = 2.4  # pixels per shortest period: fewer cost a wider kernel, more cost larger FFTs
_MOST_PARTS = 16  # of the band
_WIDEST = 0.65  # rad, half a side: the corners of the grid stay in front of the hemisphere
# CPU seconds, measured with ducc0 0.42 on one core of an AMD EPYC; they only choose between ways to the same result.
_GRID_CALL = 0.01
_GRID_SAMPLE = 220e-9
_GRID_PIXEL = 16e-9  # of the image, and plane of w
_FURTHER_TERM = 0.65  # of the first: they are weaker and degridded less exactly
_DIRECT_SAMPLE = 1.0e-9  # and item
_DIRECT_ROW = 45e-9  # and item


@dataclass(frozen=True, eq=False)
class Coverage:
    """Where the visibilities are: uvw [row, 3] in m, freq [chan] in Hz, and uv_max in wavelengths, if given."""

    uvw: np.ndarray
    freq: np.ndarray
    uv_max: float | None

    def __post_init__(self) -> None:
        uvw, freq = self.uvw, self.freq
        if uvw.ndim != 2 or uvw.shape[1] != 3 or not np.isfinite(uvw).all():
            raise ParameterError(f"uvw {list(uvw.shape)} must be finite and [row, 3]")
        if freq.ndim != 1 or not len(freq) or not np.isfinite(freq).all() or freq[0] <= 0 or np.any(np.diff(freq) <= 0):
            raise ParameterError("chan_freq must be [chan], finite, above 0 and increasing")
        longest = float(np.abs(uvw[:, :2]).max(initial=0.0)) * freq[-1] / SPEED_OF_LIGHT
        if self.uv_max is not None and self.uv_max < longest * (1 - 1e-9):
            raise ParameterError(f"uv_max = {self.uv_max:g} wavelengths is below the {longest:.6g} of the baselines")

    @cached_property
    def across(self) -> np.ndarray:
        """Largest |u| or |v| that the grid is made for, m; [row]."""
        if self.uv_max is not None:
            return np.full(len(self.uvw), self.uv_max * SPEED_OF_LIGHT / self.freq[-1])
        return np.abs(self.uvw[:, :2]).max(axis=1)

    @cached_property
    def depth(self) -> np.ndarray:
        """|w| in m; [row]."""
        return np.abs(self.uvw[:, 2])

    def periods(self, radius: float, top: float) -> float:
        """Return the highest frequency along l or m, per rad, seen within ``radius`` up to ``top`` (Hz)."""
        tilt = radius / math.sqrt(1 - 2 * radius**2)  # largest l / n
        return float((self.across + self.depth * tilt).max(initial=0.0) * top / SPEED_OF_LIGHT)

    @property
    def spacing(self) -> float:
        """Half the shortest period of the baselines in rad: how far apart the points of a picture may be."""
        return 0.5 / max(self.periods(0.0, self.freq[-1]), 1e-9)


@dataclass(frozen=True)
class PredictionOptions:
    """How to predict.

    Raises
    ------
    ParameterError
        If a value is out of range.
    """

    uv_max: float | None = None
    """Largest |u| or |v| in wavelengths that the grid is made for, so that parts of an observation share one; default:
    that of the baselines."""
    fov: float | None = None
    """Side of the grid in rad; default: what is cheapest for these sources."""
    spectra_error: float = 1e-3
    """Error of the spectra in any channel, rms over sources relative to the rms of their fluxes."""
    epsilon: float = 1e-5
    """Accuracy of degridding and of the images, relative L2; 1e-5 at best."""
    nthreads: int = 2
    """Threads; they change no digit that ``epsilon`` leaves standing."""
    method: Literal["auto", "grid", "direct"] = "auto"
    """Degrid, sum up source by source, or whichever is cheaper; both agree to ``spectra_error`` and ``epsilon``."""

    def __post_init__(self) -> None:
        if self.uv_max is not None and not 0 <= self.uv_max < math.inf:
            raise ParameterError(f"uv_max = {self.uv_max:g} wavelengths must be finite and not negative")
        if self.fov is not None and not 0 < self.fov <= 2 * _WIDEST:
            raise ParameterError(f"fov = {self.fov:g} rad must be above 0 and at most {2 * _WIDEST:g}")
        if not 1e-5 <= self.spectra_error < 1:
            raise ParameterError(f"spectra_error = {self.spectra_error:g} must be at least 1e-5 and below 1")
        if not 1e-5 <= self.epsilon <= 1e-2:
            raise ParameterError(f"epsilon = {self.epsilon:g} must be from 1e-5 to 1e-2")
        if self.nthreads < 1:
            raise ParameterError(f"nthreads = {self.nthreads} must be at least 1")
        if self.method not in ("auto", "grid", "direct"):
            raise ParameterError(f"method = {self.method!r} must be auto, grid or direct")


@dataclass(frozen=True, eq=False)
class Part:
    """A part of the band: its channels, grid, spectral terms [term, chan] and what gives shares [chan, term]."""

    chans: slice
    grid: Grid
    basis: np.ndarray
    project: np.ndarray


def spectral_terms(moments: np.ndarray, error: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the fewest spectra of which all others are sums, and what gives the share of each.

    Parameters
    ----------
    moments : float64 [chan, chan]
        ``spectra.T @ spectra`` of spectra [item, chan].
    error : float
        Allowed in any channel: rms over items, relative to their rms.

    Returns
    -------
    basis : float64 [term, chan]
    project : float64 [chan, term]
        ``spectra @ project @ basis`` is close to ``spectra``.
    """
    scale = np.sqrt(np.diag(moments))
    scale = np.where(scale > 0, scale, 1.0)  # a channel without flux
    values, vectors = np.linalg.eigh(moments / np.outer(scale, scale))  # ascending
    left = np.cumsum(np.maximum(values, 0.0) * vectors**2, axis=1)  # [chan, dropped terms - 1]
    dropped = min(int(np.sum(left.max(axis=0) <= error**2)), len(scale) - 1)
    lead = vectors[:, dropped:][:, ::-1]
    return lead.T * scale, lead / scale[:, None]


def grid_for(options: PredictionOptions, coverage: Coverage, radius: float, top: float) -> Grid:
    """Return the grid for what lies within ``radius`` and for frequencies up to ``top``."""
    radius = min(options.fov / 2 if options.fov else radius, _WIDEST)
    periods = max(coverage.periods(radius, top), 1e-9)
    half = kernel_of(_OVERSAMPLING, options.epsilon)[0]
    pixsize = min(1 / (_OVERSAMPLING * periods), max(_WIDEST - radius, 0.05) / (half + 2))
    npix = 2 * (math.ceil(radius / pixsize) + half + 1)
    return Grid(_good_size(max(npix, 32)), pixsize, min(1 / (pixsize * periods), 4.0), options.epsilon)


def _grid_cost(coverage: Coverage, grid: Grid, chans: slice, terms: int) -> float:
    """Return the CPU seconds of degridding the images of so many spectral terms."""
    freq = coverage.freq[chans]
    depth = 1 - math.sqrt(max(0.0, 1 - 0.5 * (grid.npix * grid.pixsize) ** 2))  # 1 - n in the corners
    span = float(np.ptp(coverage.depth)) * freq[-1] / SPEED_OF_LIGHT
    planes = 7 + 1.8 * span * depth
    first = _GRID_CALL + _GRID_SAMPLE * len(coverage.uvw) * len(freq) + _GRID_PIXEL * planes * grid.npix**2
    return first * (1 + _FURTHER_TERM * (terms - 1))


def choose_items(sky: Sky, spectra: np.ndarray, coverage: Coverage, options: PredictionOptions) -> np.ndarray:
    """Return which items to grid, bool [item]: those whose grid costs less than their sum."""
    none = np.zeros(len(sky.flux), bool)
    if options.method == "direct" or not len(none) or not coverage.uvw.size:
        return none
    extent = sky.extent(options.epsilon)
    if options.fov:
        radii = [options.fov / 2]
    else:
        order = np.sort(extent[extent < _WIDEST - 0.05])[::-1]
        fewer = [0] if options.method == "grid" else [2**i - 1 for i in range(20)]  # left to the sum
        radii = [float(order[i]) for i in fewer if i < len(order)]
    items = np.ones(len(none))
    items[sky.ncomponent :] = [c.pixels.size for c in sky.cutouts]
    per_item = len(coverage.uvw) * (_DIRECT_ROW + _DIRECT_SAMPLE * len(coverage.freq))
    terms = len(spectral_terms(spectra.T @ spectra, options.spectra_error)[0])
    best, cost = none, math.inf if options.method == "grid" else per_item * items.sum()
    for radius in radii:
        inside = extent <= radius
        grid = grid_for(options, coverage, radius, coverage.freq[-1])
        total = _grid_cost(coverage, grid, slice(None), terms) + per_item * items[~inside].sum()
        if inside.any() and total < cost:
            best, cost = inside, total
    return best


def choose_parts(
    sky: Sky, spectra: np.ndarray, gridded: np.ndarray, coverage: Coverage, options: PredictionOptions
) -> list[Part]:
    """Return the parts of the band that are cheapest to predict."""
    radius = float(sky.extent(options.epsilon)[gridded].max())
    moments = spectra[gridded].T @ spectra[gridded]
    best: list[Part] = []
    lowest, count = math.inf, 1
    while count <= min(_MOST_PARTS, len(coverage.freq)):
        bounds = np.linspace(0, len(coverage.freq), count + 1).astype(int).tolist()
        parts, cost = [], 0.0
        for chans in map(slice, bounds[:-1], bounds[1:]):
            grid = grid_for(options, coverage, radius, coverage.freq[chans][-1])
            parts.append(Part(chans, grid, *spectral_terms(moments[chans, chans], options.spectra_error)))
            cost += _grid_cost(coverage, grid, chans, len(parts[-1].basis))
        if cost < lowest:
            best, lowest = parts, cost
        count *= 2
    return best


def _good_size(npix: int) -> int:
    """Return the next even size from ``npix`` with no prime factor above 5."""
    return 2 * int(next_fast_len((npix + 1) // 2, real=True))
