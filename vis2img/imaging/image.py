"""Visibilities to a dirty image: :func:`make_image`.

    [Visibilities], ImagingParams -> select_parts -> rotate -> imaging_weights -> vis_to_dirty -> Image

Every step is a pure function of its arguments: the same visibilities and parameters give the same image.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vis2img.coordinates import beyond_horizon
from vis2img.errors import EmptyImageError, MeasurementSetError, ParameterError, Vis2imgWarning
from vis2img.imaging.beam import Beam, fit_beam, fit_beam_of_samples
from vis2img.imaging.gridding import vis_to_dirty
from vis2img.imaging.memory import check_memory, copied_bytes
from vis2img.imaging.params import ImagingParams
from vis2img.imaging.rotation import in_one_frame, rotate
from vis2img.imaging.sampling import band_extent, select_parts
from vis2img.units import format_angle, format_direction, format_freq
from vis2img.visibilities import Origin, Visibilities, merge

if TYPE_CHECKING:
    from astropy.wcs import WCS
    from matplotlib.axes import Axes

    from vis2img.imaging.weighting import ImagingWeights

_SHARE_OF_TOLERANCE = 0.2  # of averaged data, that gridding may add: 8e-4 measured at 1%, in quadrature nothing


@dataclass(frozen=True)
class Split:
    """Which part of a band and of an observation an image is; None: of all channels."""

    channels_out: int | None
    channel: int | None
    intervals_out: int
    interval: int


@dataclass(frozen=True, eq=False)
class Image:
    """A dirty image with all that is needed to make it again.

    Parameters
    ----------
    data : float32 [y, x]
        Dirty image in Jy/beam; NaN beyond the horizon (l^2 + m^2 > 1), where there is no sky.
    psf : float32 [y, x] or None
        Point spread function, 1 at the reference pixel.
    params : ImagingParams
        How it was made.
    phase_centre : (float, float)
        RA and Dec of the reference pixel in rad.
    freq : (float, float)
        Weighted mean frequency and bandwidth in Hz.
    band_centre : float
        Middle between the edges of the lowest and highest channel, Hz.
    beam : (float, float, float) or None
        FWHM of the major and minor axis and position angle (north through east), rad, of the Gaussian
        that fits the main lobe of the PSF; None where that has no closed main lobe, or the image is blank.
    stokes : {"I", "Q", "U", "V"}
        Stokes parameter.
    channels : (float64 [chan], float64 [chan]) or None
        Frequencies in Hz and the sum of the imaging weights of each.
    times : (float64 [time], float64 [time]) or None
        Times that have weight, s (MJD), and the sum of the imaging weights of each.
    weight_sum : float
        Sum of the imaging weights.
    nvis : int
        Number of visibilities with weight; 0 in a blank plane of a cube, whose pixels are NaN.
    cells : (int, float32 [y, x]) or None
        Sum of the imaging weights on the density grid from this column on, which a mean of images needs.
    off_grid : float
        Fraction of the data weight that is left out, of baselines that the pixels are too coarse for.
    unit : str
        Unit of ``data``; empty for a ratio, such as a primary beam.
    origin : Origin
        Where the visibilities come from: telescope, field name, data column, ...
    time_start : float
        First time that has weight, s (MJD); NaN where it is not known.
    split : Split or None
        Which part of a cube or of an observation it is.
    """

    data: np.ndarray
    params: ImagingParams
    phase_centre: tuple[float, float]
    freq: tuple[float, float]
    beam: Beam | None
    weight_sum: float
    nvis: int
    band_centre: float = math.nan
    stokes: str = "I"
    channels: tuple[np.ndarray, np.ndarray] | None = None
    times: tuple[np.ndarray, np.ndarray] | None = None
    cells: tuple[int, np.ndarray] | None = field(default=None, repr=False)
    off_grid: float = 0.0
    unit: str = "JY/BEAM"
    psf: np.ndarray | None = None
    origin: Origin = field(default_factory=Origin)
    time_start: float = math.nan
    split: Split | None = None

    @property
    def wcs(self) -> WCS:
        """Celestial WCS (SIN projection) of ``data``."""
        from vis2img.imaging.fits import celestial_wcs

        return celestial_wcs(self)

    def noise(self) -> float:
        """Robust noise: 1.4826 times the median absolute deviation, Jy/beam."""
        return robust_noise(self.data)

    def to_fits(self, path: str | Path, overwrite: bool = False) -> list[Path]:
        """Write the image (and ``-psf`` beside it) as FITS; return the paths. See :mod:`vis2img.imaging.fits`."""
        from vis2img.imaging.fits import write_image

        return write_image(self, Path(path), overwrite=overwrite)

    def plot(self, ax: Axes | None = None, **options: Any) -> Axes:
        """Draw the image with sky coordinates; return the matplotlib axes."""
        from vis2img.imaging.picture import draw_image

        return draw_image(self, ax, **options)

    def __repr__(self) -> str:
        ny, nx = self.data.shape
        return (
            f"Image({nx} x {ny} px of {format_angle(self.params.pixsize, 4)}, {self.params.weighting}, "
            f"{self.nvis:,} visibilities at {format_freq(self.freq[0])}, "
            f"peak {np.nanmax(self.data):.3g}, noise {self.noise():.2g} Jy/beam)"
        )


def robust_noise(data: np.ndarray) -> float:
    """Return 1.4826 times the median absolute deviation of ``data``, the sigma of a Gaussian."""
    sample = data if data.size <= 1 << 20 else data.ravel()[:: data.size >> 20]
    sample = sample if np.isfinite(sample).all() else sample[np.isfinite(sample)]
    return float(1.4826 * np.median(np.abs(sample - np.median(sample))))


def make_image(
    vis: Visibilities | Sequence[Visibilities],
    params: ImagingParams,
    *,
    psf: bool = False,
    nthreads: int = 1,
    reuse: bool = False,
    keep_cells: bool = False,
    selected: bool = False,
) -> Image:
    """Image ``vis`` under ``params``, in five stages.

    1. Check: one Stokes parameter, averages within their facet, enough memory.
    2. Select: what the sampling fields keep, rotated to the phase centre.
    3. Weigh: data weights times density weights, tapers and uv range.
    4. Grid: the adjoint transform of the visibilities; of ones for the point spread function.
    5. Describe: beam, frequencies, times and origin, as weighted.

    Parameters
    ----------
    vis : Visibilities or sequence of Visibilities
        One Stokes parameter; several spectral windows or measurement sets go into one image, towards
        ``params.phase_centre`` or else the phase centre of the first.
    params : ImagingParams
    psf : bool
        Make the point spread function as well.
    nthreads : int
        Threads of the weighting and of ducc0.
    reuse : bool
        Overwrite the data weights of ``vis``, to save memory where they are not needed again.
    keep_cells : bool
        Keep the weights on the density grid, for :func:`vis2img.imaging.cubes.mean_image`.
    selected : bool
        ``vis`` is what the sampling fields of ``params`` keep: no more is to be thinned out.

    Raises
    ------
    MeasurementSetError
        If every baseline is zero.
    EmptyImageError
        If no visibility with weight is left.
    ParameterError
        If the parts do not belong together, or the image does not fit into memory.
    """
    parts = in_one_frame([vis] if isinstance(vis, Visibilities) else list(vis))
    centre = params.phase_centre or parts[0].phase_centre

    _check(parts, params, centre)
    check_memory(params, psf=psf, copied=0 if selected else copied_bytes(parts, params, reuse))

    samples = _select(parts, params, centre, selected)
    weights = _weigh(samples, params, nthreads, reuse)
    data, response = _grid(samples, weights, params, psf, nthreads)
    if not math.isfinite(data[params.npix[1] // 2, params.npix[0] // 2]):  # a single one spreads over all pixels
        where = ", ".join(parts[0].origin.paths) or "the visibilities"
        raise ParameterError(f"{where}: the image has no finite pixel: UVW or visibilities are beyond all measure")

    image = _describe(data, params, centre, samples, weights, nthreads)
    cells = (weights.first, weights.cells.astype(np.float32)) if keep_cells else None
    origin = parts[0].origin.with_all(part.origin for part in samples)
    return replace(image, psf=response, cells=cells, origin=origin)


def _check(parts: Sequence[Visibilities], params: ImagingParams, centre: tuple[float, float]) -> None:
    """Refuse parts that do not belong together, and averages beyond the facet that they were averaged for."""
    if len({part.stokes for part in parts}) != 1:
        raise ParameterError(f"one image takes one Stokes parameter; got {''.join(part.stokes for part in parts)}")
    if len(frames := {part.origin.freq_frame for part in parts}) > 1:
        named = ", ".join(sorted(frame or "none that is known" for frame in frames))
        warnings.warn(
            f"frequencies in several frames go into one image, as if they were in one ({named})",
            Vis2imgWarning,
            stacklevel=2,
        )

    for part in parts:
        if part.averages is None:
            continue
        facet = part.averages.facet
        most = (size + 2 * params.pixsize for size in facet)  # sides are rounded to even numbers of pixels
        if any(fov > size for fov, size in zip(params.fov, most, strict=True)) or centre != part.phase_centre:
            raise ParameterError(
                f"the data were averaged for a facet of {format_angle(facet[0], 4)} x {format_angle(facet[1], 4)} at "
                f"{format_direction(part.phase_centre)}; image within it, or average for another (vis2img average)"
            )


def _select(
    parts: list[Visibilities], params: ImagingParams, centre: tuple[float, float], selected: bool
) -> list[Visibilities]:
    """Return what the sampling fields keep, all of it if ``selected``, rotated to ``centre``."""
    samples = parts if selected else select_parts(parts, params)
    samples = [part if part.phase_centre == centre else rotate(part, centre) for part in samples]
    if not any(np.any(part.uvw) for part in samples):
        raise MeasurementSetError("all UVW are zero: the UVW column was not filled; recompute it (e.g. CASA fixvis)")
    return samples


def _weigh(samples: list[Visibilities], params: ImagingParams, nthreads: int, reuse: bool) -> ImagingWeights:
    # Compiled with numba, which takes a third of a second to load: commands that make no image do without.
    from vis2img.imaging.weighting import imaging_weights

    no_weight = not any(np.any(part.weight) for part in samples)  # asked before they may be overwritten
    weights = imaging_weights(samples, params, nthreads=nthreads, reuse=reuse)
    if weights.nvis == 0:
        raise EmptyImageError(_nothing_left(samples, params, no_weight))
    return weights


def _grid(
    samples: list[Visibilities], weights: ImagingWeights, params: ImagingParams, psf: bool, nthreads: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the dirty image, and the point spread function if it is wanted; NaN beyond the horizon."""
    weighted = merge([replace(part, weight=weight) for part, weight in zip(samples, weights.parts, strict=True)])
    response = None
    if psf:
        ones = [np.broadcast_to(np.complex64(1), part.vis.shape) for part in weighted]
        response = _transform(weighted, ones, weights.total, params, nthreads)
    image = _transform(weighted, [part.vis for part in weighted], weights.total, params, nthreads)

    beyond = beyond_horizon(params.npix, params.pixsize)
    if beyond is not None:
        for plane in (image, response):
            if plane is not None:
                plane[beyond] = np.nan
    return image, response


def _describe(
    data: np.ndarray,
    params: ImagingParams,
    centre: tuple[float, float],
    samples: list[Visibilities],
    weights: ImagingWeights,
    nthreads: int,
) -> Image:
    """Return the image with what its weights tell of it."""
    beam = fit_beam(weights.cells, weights.first, params.density_cell)
    if beam is None:
        beam = fit_beam_of_samples(samples, weights.parts, nthreads)
    freqs, by_freq = weights.by_channel(samples)
    times, by_time = weights.by_time(samples)
    band_centre, bandwidth = band_extent([(part.chan_freq, part.origin.chan_width) for part in samples])
    return Image(
        data=data,
        params=params,
        phase_centre=centre,
        freq=(float(np.average(freqs, weights=by_freq)), bandwidth),
        band_centre=band_centre,
        beam=beam,
        weight_sum=weights.total,
        nvis=weights.nvis,
        off_grid=weights.off_grid,
        stokes=samples[0].stokes,
        channels=(freqs, by_freq),
        times=(times, by_time),
        time_start=float(times[0]),
    )


def _transform(
    parts: list[Visibilities], values: list[np.ndarray], total: float, params: ImagingParams, nthreads: int
) -> np.ndarray:
    """Return the sum over ``parts``, whose weights are imaging weights, of their share of the image."""
    image = None
    for part, value in zip(parts, values, strict=True):
        # Averaged data are not gridded more exactly than they are.
        epsilon = max(params.epsilon, _SHARE_OF_TOLERANCE * part.averages.tolerance if part.averages else 0.0)
        share = vis_to_dirty(
            part.uvw, part.chan_freq, value, part.weight, params.npix, params.pixsize,
            total=total, epsilon=epsilon, nthreads=nthreads,
        )  # fmt: skip
        image = share if image is None else image + share
    assert image is not None
    return image


def _nothing_left(parts: list[Visibilities], params: ImagingParams, no_weight: bool) -> str:
    if no_weight:
        return "no visibility with weight is left by the sampling parameters (band, time_span, keep_*)"
    uv_max = max(part.uv_max() for part in parts)
    low, high = params.uvrange
    if low > uv_max or high < min(part.uv_min() for part in parts):
        kept = f"uvrange {low:g}:{high:g} wavelengths keeps no visibility"
        return f"{kept}; the longest baseline is {uv_max:.0f} wavelengths"
    coarsest = format_angle(1 / (2 * uv_max), 3)
    return (
        f"pixsize {format_angle(params.pixsize)} is too coarse for these baselines: "
        f"every sample falls outside the grid; use at most {coarsest}"
    )
