"""Visibilities to a dirty image: thin out, rotate, weigh, grid.

    Visibilities, ImagingParams -> select_samples -> rotate -> imaging_weights -> vis_to_dirty -> Image

Every step is a pure function of its arguments: the same visibilities and parameters give the same image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vis2img.errors import MeasurementSetError, ParameterError
from vis2img.gridding import vis_to_dirty
from vis2img.options import format_angle
from vis2img.params import ImagingParams
from vis2img.phase import rotate
from vis2img.visibilities import SPEED_OF_LIGHT, Visibilities
from vis2img.weighting import imaging_weights, within_uv_range

if TYPE_CHECKING:
    from astropy.wcs import WCS

# ducc0 holds the image, the oversampled grid (at most 2.6^2, single-precision complex) and the result.
_BYTES_PER_PIXEL = 4 * (2 + 2 * 2.6**2)


@dataclass(frozen=True, eq=False)
class Image:
    """A dirty image with all that is needed to make it again.

    Parameters
    ----------
    data : float32 [y, x]
        Dirty image in Jy/beam.
    psf : float32 [y, x] or None
        Point spread function, 1 at the reference pixel.
    params : ImagingParams
        How it was made.
    phase_centre : (float, float)
        RA and Dec of the reference pixel in rad.
    freq : (float, float)
        Weighted mean frequency and bandwidth in Hz.
    beam : (float, float, float)
        FWHM of the major and minor axis and position angle (north through east), rad, of the Gaussian
        with the curvature of the PSF at its peak.
    weight_sum : float
        Sum of the imaging weights.
    nvis : int
        Number of visibilities with weight.
    """

    data: np.ndarray
    params: ImagingParams
    phase_centre: tuple[float, float]
    freq: tuple[float, float]
    beam: tuple[float, float, float]
    weight_sum: float
    nvis: int
    psf: np.ndarray | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def wcs(self) -> WCS:
        """Celestial WCS (SIN projection) of ``data``."""
        from vis2img.fits import celestial_wcs

        return celestial_wcs(self)

    def noise(self) -> float:
        """Robust noise: 1.4826 times the median absolute deviation, Jy/beam."""
        return robust_noise(self.data)

    def to_fits(self, path: str | Path, overwrite: bool = False) -> list[Path]:
        """Write the image (and ``-psf`` beside it) as FITS; return the paths. See :mod:`vis2img.fits`."""
        from vis2img.fits import write_image

        return write_image(self, Path(path), overwrite=overwrite)

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """Draw the image with sky coordinates; return the matplotlib axes."""
        from vis2img.quicklook import draw_image

        return draw_image(self, ax, **options)

    def __repr__(self) -> str:
        ny, nx = self.data.shape
        return (
            f"Image({nx} x {ny} px of {format_angle(self.params.pixsize, 4)}, {self.params.weighting}, "
            f"{self.nvis:,} visibilities at {self.freq[0] / 1e6:.1f} MHz, "
            f"peak {self.data.max():.3g}, noise {self.noise():.2g} Jy/beam)"
        )


def robust_noise(data: np.ndarray) -> float:
    """Return 1.4826 times the median absolute deviation of ``data``, the sigma of a Gaussian."""
    sample = data if data.size <= 1 << 20 else data.ravel()[:: data.size >> 20]
    return float(1.4826 * np.median(np.abs(sample - np.median(sample))))


def select_samples(vis: Visibilities, params: ImagingParams) -> Visibilities:
    """Return what the sampling fields of ``params`` keep of ``vis``; replays from ``sampling_seed``.

    Raises
    ------
    ParameterError
        If nothing is left.
    """
    nchan = len(vis.chan_freq)
    low, high = params.band
    first = min(int(low * nchan), nchan - 1)
    chans = slice(first, max(first + 1, math.ceil(high * nchan - 1e-9)))
    rows = _rows_kept(vis, params)
    if not rows.any():
        raise ParameterError("the sampling parameters (time_span, keep_*) leave no visibilities")
    return vis if rows.all() and chans == slice(0, nchan) else vis.subset(rows, chans)


def _rows_kept(vis: Visibilities, params: ImagingParams) -> np.ndarray:
    rng = np.random.default_rng(params.sampling_seed)
    rows = np.ones(vis.nrow, dtype=bool)
    if params.time_span != (0.0, 1.0) or params.keep_times < 1:
        times, index = np.unique(vis.time, return_inverse=True)
        low, high = params.time_span
        first = min(int(low * len(times)), len(times) - 1)
        kept = np.zeros(len(times), dtype=bool)
        kept[first : max(first + 1, math.ceil(high * len(times) - 1e-9))] = True
        kept &= _keep_some(rng, kept, params.keep_times)
        rows &= kept[index]
    if params.keep_antennas < 1:
        nant = int(max(vis.antenna1.max(), vis.antenna2.max())) + 1
        present = np.zeros(nant, dtype=bool)
        present[vis.antenna1] = present[vis.antenna2] = True
        kept = _keep_some(rng, present, params.keep_antennas, least=2)
        rows &= kept[vis.antenna1] & kept[vis.antenna2]
    if params.keep_baselines < 1:
        pair = vis.antenna1.astype(np.int64) << 32 | vis.antenna2
        pairs, index = np.unique(pair, return_inverse=True)
        rows &= _keep_some(rng, np.ones(len(pairs), dtype=bool), params.keep_baselines)[index]
    return rows


def _keep_some(rng: np.random.Generator, among: np.ndarray, fraction: float, least: int = 1) -> np.ndarray:
    """Return a mask that keeps ``fraction`` of the True entries of ``among``, at least ``least`` of them."""
    candidates = np.flatnonzero(among)
    count = min(len(candidates), max(least, round(fraction * len(candidates))))
    kept = np.zeros_like(among)
    kept[rng.choice(candidates, size=count, replace=False)] = True
    return kept


def make_image(vis: Visibilities, params: ImagingParams, *, psf: bool = False, nthreads: int = 1) -> Image:
    """Image ``vis`` under ``params``.

    Raises
    ------
    MeasurementSetError
        If every baseline is zero.
    ParameterError
        If no visibility with weight is left, or the image does not fit into memory.
    """
    check_memory(params)
    chosen = select_samples(vis, params)
    if params.phase_centre is not None and params.phase_centre != vis.phase_centre:
        chosen = rotate(chosen, params.phase_centre)
    if not np.any(chosen.uvw):
        raise MeasurementSetError("all UVW are zero: the UVW column was not filled; recompute it (e.g. CASA fixvis)")
    weight = imaging_weights(chosen.uvw, chosen.chan_freq, chosen.weight, params)
    nvis = int(np.count_nonzero(weight))
    if nvis == 0:
        raise ParameterError(_nothing_left(chosen, params))

    def transform(values: np.ndarray) -> np.ndarray:
        return vis_to_dirty(
            chosen.uvw, chosen.chan_freq, values, weight, params.npix, params.pixsize, nthreads=nthreads
        )

    data = transform(chosen.vis)
    response = transform(np.ones_like(chosen.vis)) if psf else None
    by_chan = weight.sum(axis=0, dtype=np.float64)
    width = float(np.median(np.diff(chosen.chan_freq))) if len(chosen.chan_freq) > 1 else 0.0
    width = float(vis.meta.get("chan_width", width)) or width
    return Image(
        data=data,
        psf=response,
        params=params,
        phase_centre=chosen.phase_centre,
        freq=(
            float(np.average(chosen.chan_freq, weights=by_chan)),
            float(chosen.chan_freq[-1] - chosen.chan_freq[0] + width),
        ),
        beam=beam_of_weights(chosen.uvw, chosen.chan_freq, weight),
        weight_sum=float(by_chan.sum()),
        nvis=nvis,
        meta=dict(vis.meta),
    )


def _nothing_left(vis: Visibilities, params: ImagingParams) -> str:
    if not np.any(vis.weight):
        return "no visibility with weight is left by the sampling parameters (band, time_span, keep_*)"
    if not np.any(within_uv_range(vis.uvw, vis.chan_freq, vis.weight, params.uvrange)):
        low, high = params.uvrange
        return (
            f"uvrange {low:g}:{high:g} wavelengths keeps no visibility; "
            f"the longest baseline is {vis.uv_max():.0f} wavelengths"
        )
    coarsest = format_angle(1 / (2 * vis.uv_max()), 3)
    return (
        f"pixsize {format_angle(params.pixsize)} is too coarse for these baselines: "
        f"every sample falls outside the grid; use at most {coarsest}"
    )


def check_memory(params: ImagingParams) -> None:
    """Raise ParameterError when an image of this size cannot fit into the free memory."""
    import psutil

    need = params.npix[0] * params.npix[1] * _BYTES_PER_PIXEL
    free = psutil.virtual_memory().available
    if need > free:
        raise ParameterError(
            f"npix {params.npix[0]},{params.npix[1]} needs about {need / 1e9:.1f} GB of memory, "
            f"{free / 1e9:.1f} GB is free; choose a smaller npix"
        )


def beam_of_weights(uvw: np.ndarray, chan_freq: np.ndarray, weight: np.ndarray) -> tuple[float, float, float]:
    """Return (major, minor, position angle) in rad of the Gaussian with the PSF's curvature at its peak.

    PSF(l, m) = sum w cos(2 pi (u l + v m)) / sum w has the second derivatives -4 pi^2 <u^2>, -4 pi^2 <uv>,
    -4 pi^2 <v^2>; a Gaussian of dispersion s along an axis has -1/s^2.
    """
    by_row = weight.astype(np.float64) @ (chan_freq / SPEED_OF_LIGHT) ** 2
    total = weight.sum(dtype=np.float64)
    u, v = uvw[:, 0], uvw[:, 1]
    moments = np.array([[by_row @ (u * u), by_row @ (u * v)], [by_row @ (u * v), by_row @ (v * v)]]) / total
    spread, axes = np.linalg.eigh(moments)  # increasing: the first axis has the widest beam
    to_fwhm = math.sqrt(8 * math.log(2)) / (2 * math.pi)
    major, minor = (to_fwhm / math.sqrt(max(s, 1e-300)) for s in spread)
    east, north = axes[:, 0]
    return min(major, math.pi), min(minor, math.pi), math.atan2(east, north) % math.pi
