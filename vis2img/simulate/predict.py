"""Visibilities of a sky: thousands of sources at once, as accurate as the sum over them.

    sources, beam -> apparent spectra -> a few spectral terms -> one image per term -> degridding -> sum

    V(u, v, w, nu) = sum_k S_k(nu) B_k(nu) exp(+2 pi i (u l_k + v m_k + w (n_k - 1)) nu / c)

(Thompson, Moran & Swenson 2017, *Interferometry and Synthesis in Radio Astronomy*, ch. 3). The images are made by
:mod:`vis2img.simulate.rasterise` and degridded by ducc0 with its w-gridding (Arras et al. 2021, A&A 646, A58).
Spectra of all sources are S_k(nu) B_k(nu) = sum_t c_kt b_t(nu) with the fewest terms that are good to
``spectra_error``: the leading eigenvectors of their second moments, which are the best basis there is (Eckart & Young
1936). Channels may be predicted in parts, where fewer terms do, if that is cheaper. What lies outside the grid, and
everything where there is little of it, is summed up source by source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from vis2img.errors import ParameterError
from vis2img.imaging.gridding import dirty_to_vis
from vis2img.machine import free_bytes
from vis2img.simulate.predict_kernels import direct_sum
from vis2img.simulate.predict_plan import Coverage, Part, PredictionOptions, choose_items, choose_parts
from vis2img.simulate.rasterise import Grid, Sky, cutout_points, rasterise, sky_of
from vis2img.simulate.sky.source import SkySource

Beam = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Called with l [n], m [n] (from the phase centre) and freq [chan] (Hz); returns the power beam [n, chan]."""

_LEAST_ACCURATE = 1e-3  # degridding of a weak spectral term, relative to the term
_BLOCK_ITEMS = 512  # in the direct sum: their phasors stay in cache
_BLOCK_SAMPLES = 1 << 16  # of the direct sum at a time: threads end together


@dataclass(frozen=True, eq=False)
class Prediction:
    """Visibilities, and how they were made."""

    vis: np.ndarray
    """Stokes I in Jy, complex64 [row, chan]."""
    grids: tuple[Grid, ...]
    """The grid of each part of the band; empty if none was used."""
    terms: tuple[int, ...]
    """Spectral terms in each part of the band."""
    n_gridded: int
    """Components and cutouts that went through the grid."""
    n_direct: int
    """Those that were summed up."""


def predict(
    sources: Sequence[SkySource],
    uvw: np.ndarray,
    chan_freq: np.ndarray,
    phase_centre: tuple[float, float],
    options: PredictionOptions,
    beam: Beam | None = None,
) -> Prediction:
    """Predict the visibilities of an unpolarised sky.

    Parameters
    ----------
    sources : sequence of SkySource
    uvw : float64 [row, 3]
        Baseline coordinates in m, towards ``phase_centre``.
    chan_freq : float64 [chan]
        Frequencies in Hz, increasing.
    phase_centre : (float, float)
        RA and Dec in rad.
    options : PredictionOptions
    beam : callable, optional
        See :data:`Beam`; it is taken at the middle of each component and cutout.

    Returns
    -------
    Prediction

    Raises
    ------
    ParameterError
        If an argument is out of range, a source lies 90 degrees or more from the phase centre, or the images
        would not fit the memory.
    """
    uvw, chan_freq = np.ascontiguousarray(uvw, np.float64), np.ascontiguousarray(chan_freq, np.float64)
    coverage = Coverage(uvw, chan_freq, options.uv_max)
    sky = sky_of(sources, phase_centre)
    spectra = _spectra(sky, coverage.freq, beam)
    gridded = choose_items(sky, spectra, coverage, options)
    parts = choose_parts(sky, spectra, gridded, coverage, options) if gridded.any() else []

    vis = np.zeros((len(coverage.uvw), len(coverage.freq)), np.complex64)
    inner = sky.subset(gridded)
    for part in parts:
        _add_gridded(inner, spectra[gridded], coverage, part, options.nthreads, vis)
    _add_direct(sky.subset(~gridded), spectra[~gridded], coverage, options.nthreads, vis)

    n_gridded = int(gridded.sum())
    grids, terms = tuple(part.grid for part in parts), tuple(len(part.basis) for part in parts)
    return Prediction(vis, grids, terms, n_gridded, len(gridded) - n_gridded)


def _spectra(sky: Sky, freq: np.ndarray, beam: Beam | None) -> np.ndarray:
    """Return the apparent flux of every item in every channel in Jy, float64 [item, chan]."""
    _check_memory(2 * 8 * len(sky.flux) * len(freq), "the spectra")
    spectra = sky.flux[:, None] * (freq[None, :] / sky.ref_freq[:, None]) ** sky.index[:, None]
    if beam is not None and len(spectra):
        power = np.asarray(beam(sky.lmn[:, 0], sky.lmn[:, 1], freq), float)
        if power.shape != spectra.shape or not np.isfinite(power).all():
            raise ParameterError(f"the beam is {list(power.shape)}; it must be finite and {list(spectra.shape)}")
        spectra *= power
    return spectra


def _add_gridded(sky: Sky, spectra: np.ndarray, coverage: Coverage, part: Part, nthreads: int, vis: np.ndarray) -> None:
    """Add the visibilities of ``sky`` in the channels of ``part`` to ``vis``, by way of an image."""
    freq = coverage.freq[part.chans]
    # The images, ducc0's copies of one of them, and what it returns.
    room = (4 * len(part.basis) + 48) * part.grid.npix**2 + 8 * len(coverage.uvw) * len(freq)
    _check_memory(room, f"a grid of {part.grid.npix} pixels a side")
    flux = spectra[:, part.chans] @ part.project
    images = rasterise(sky, flux, part.grid, coverage.spacing, nthreads)
    power = (flux**2).sum(axis=0) * (part.basis**2).sum(axis=1)  # what each term adds, falling fast
    for image, spectrum, share in zip(images, part.basis, np.sqrt(power / max(power.max(), 1e-300)), strict=True):
        epsilon = min(part.grid.accuracy / max(share, 1e-9), _LEAST_ACCURATE)
        seen = dirty_to_vis(coverage.uvw, freq, image, part.grid.pixsize, epsilon=epsilon, nthreads=nthreads)
        seen *= spectrum.astype(np.float32)
        vis[:, part.chans] += seen


def _add_direct(sky: Sky, spectra: np.ndarray, coverage: Coverage, nthreads: int, vis: np.ndarray) -> None:
    """Add the visibilities of ``sky`` to ``vis`` by the sum itself; cutouts pixel by pixel."""
    freq, uvw = coverage.freq, coverage.uvw
    if not vis.size or not len(spectra):
        return

    even = bool(np.abs(freq - np.linspace(freq[0], freq[-1], len(freq))).max() <= 1e-11 * freq[-1])
    step = max(1, _BLOCK_SAMPLES // len(freq))
    starts = range(0, len(uvw), step)

    extended = np.any(sky.axes != 0, axis=(1, 2))
    blocks = []
    for which in (np.flatnonzero(~extended), np.flatnonzero(extended)):
        axes = sky.axes[which] if extended[which].any() else np.empty((0, 2, 3))
        blocks.append((sky.lmn[which], axes, which, np.ones(len(which))))
    for i, cutout in enumerate(sky.cutouts):
        lmn, share = cutout_points(cutout, sky.turns[i], coverage.spacing)
        blocks.append((lmn, np.empty((0, 2, 3)), np.full(len(lmn), sky.ncomponent + i), share))

    with ThreadPoolExecutor(nthreads) as pool:
        for lmn, axes, item, share in blocks:
            for first in range(0, len(lmn), _BLOCK_ITEMS):
                some = slice(first, first + _BLOCK_ITEMS)
                place = lmn[some] - np.array([0.0, 0.0, 1.0])
                flux = np.ascontiguousarray((spectra[item[some]] * share[some, None]).T)
                blur = np.ascontiguousarray(axes[some])

                def add(start: int, place=place, blur=blur, flux=flux) -> None:
                    rows = slice(start, start + step)
                    direct_sum(uvw[rows], freq, even, place, blur, flux, vis[rows])

                list(pool.map(add, starts))


def _check_memory(needed: int, what: str) -> None:
    free = free_bytes()
    if needed > free:
        raise ParameterError(f"{what} would take {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free")
