"""Visibilities to a dirty image: thin out, rotate, weigh, grid.

    [Visibilities], ImagingParams -> select_samples -> rotate -> imaging_weights -> vis_to_dirty -> Image

Every step is a pure function of its arguments: the same visibilities and parameters give the same image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vis2img.beam import fit_beam
from vis2img.errors import MeasurementSetError, ParameterError
from vis2img.gridding import vis_to_dirty
from vis2img.options import format_angle
from vis2img.params import ImagingParams
from vis2img.phase import rotate
from vis2img.visibilities import Visibilities, merge
from vis2img.weighting import ImagingWeights, cell_size, imaging_weights

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
    band_centre : float
        Middle between the edges of the lowest and highest channel, Hz.
    beam : (float, float, float)
        FWHM of the major and minor axis and position angle (north through east), rad, of the Gaussian
        that fits the main lobe of the PSF.
    stokes : {"I", "Q", "U", "V"}
        Stokes parameter.
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
    band_centre: float = math.nan
    stokes: str = "I"
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
    return _select([vis], params)[0]


def _select(parts: Sequence[Visibilities], params: ImagingParams) -> list[Visibilities]:
    freqs = np.unique(np.concatenate([part.chan_freq for part in parts]))
    low, high = params.band
    first = min(int(low * len(freqs)), len(freqs) - 1)
    band = freqs[first : max(first + 1, math.ceil(high * len(freqs) - 1e-9))]
    result = []
    for part in parts:
        start, stop = np.searchsorted(part.chan_freq, [band[0], np.nextafter(band[-1], math.inf)])
        rows = _rows_kept(part, params)
        if start == stop or not rows.any():
            continue
        whole = rows.all() and (start, stop) == (0, len(part.chan_freq))
        result.append(part if whole else part.subset(rows, slice(int(start), int(stop))))
    if not result:
        raise ParameterError("the sampling parameters (band, time_span, keep_*) leave no visibilities")
    return result


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
        if vis.is_averaged:
            raise ParameterError("averaged data no longer know their antennas; set keep_antennas to 1")
        nant = int(max(vis.antenna1.max(), vis.antenna2.max())) + 1
        present = np.zeros(nant, dtype=bool)
        present[vis.antenna1] = present[vis.antenna2] = True
        kept = _keep_some(rng, present, params.keep_antennas, least=2)
        rows &= kept[vis.antenna1] & kept[vis.antenna2]
    if params.keep_baselines < 1:
        if vis.is_averaged:  # uv cells are what is left of baselines
            rows &= rng.random(vis.nrow) < params.keep_baselines
        else:
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


def make_image(
    vis: Visibilities | Sequence[Visibilities],
    params: ImagingParams,
    *,
    psf: bool = False,
    nthreads: int = 1,
    reuse: bool = False,
) -> Image:
    """Image ``vis`` under ``params``.

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

    Raises
    ------
    MeasurementSetError
        If every baseline is zero.
    ParameterError
        If no visibility with weight is left, or the image does not fit into memory.
    """
    parts = [vis] if isinstance(vis, Visibilities) else list(vis)
    if len({part.stokes for part in parts}) != 1:
        raise ParameterError(f"one image takes one Stokes parameter; got {''.join(part.stokes for part in parts)}")
    check_memory(params)
    centre = params.phase_centre or parts[0].phase_centre
    chosen = merge([part if part.phase_centre == centre else rotate(part, centre) for part in _select(parts, params)])
    if not any(np.any(part.uvw) for part in chosen):
        raise MeasurementSetError("all UVW are zero: the UVW column was not filled; recompute it (e.g. CASA fixvis)")
    troubled = not any(np.any(part.weight) for part in chosen)
    weights = imaging_weights(chosen, params, nthreads=nthreads, reuse=reuse)
    if weights.nvis == 0:
        raise ParameterError(_nothing_left(chosen, params, troubled))
    response = None
    if psf:
        units = [np.broadcast_to(np.complex64(1), part.vis.shape) for part in chosen]
        response = _transform(chosen, units, weights, params, nthreads)
    data = _transform(chosen, [part.vis for part in chosen], weights, params, nthreads)
    mean_freq, centre_freq, bandwidth = _band(chosen, weights)
    return Image(
        data=data,
        psf=response,
        params=params,
        phase_centre=centre,
        freq=(mean_freq, bandwidth),
        band_centre=centre_freq,
        beam=fit_beam(weights.cells, cell_size(params)),
        weight_sum=weights.total,
        nvis=weights.nvis,
        stokes=parts[0].stokes,
        meta={**parts[0].meta, "time_start": float(min(part.time.min() for part in chosen))},
    )


def _transform(
    parts: list[Visibilities],
    values: list[np.ndarray],
    weights: ImagingWeights,
    params: ImagingParams,
    nthreads: int,
) -> np.ndarray:
    """Return the sum over ``parts`` of their share of the image."""
    image = None
    for part, value, weight in zip(parts, values, weights.parts, strict=True):
        share = vis_to_dirty(
            part.uvw, part.chan_freq, value, weight, params.npix, params.pixsize,
            total=weights.total, nthreads=nthreads,
        )  # fmt: skip
        image = share if image is None else image + share
    assert image is not None
    return image


def _band(parts: list[Visibilities], weights: ImagingWeights) -> tuple[float, float, float]:
    """Return weighted mean frequency, middle and width of the band, Hz."""
    freqs = np.concatenate([part.chan_freq for part in parts])
    low, high = [], []
    for part in parts:
        spacing = float(np.median(np.diff(part.chan_freq))) if len(part.chan_freq) > 1 else 0.0
        width = float(part.meta.get("chan_width", spacing)) or spacing
        low.append(float(part.chan_freq[0]) - width / 2)
        high.append(float(part.chan_freq[-1]) + width / 2)
    mean = float(np.average(freqs, weights=np.concatenate(weights.chans)))
    return mean, (min(low) + max(high)) / 2, max(high) - min(low)


def make_cube(
    vis: Visibilities | Sequence[Visibilities],
    params: ImagingParams,
    *,
    channels_out: int = 1,
    intervals_out: int = 1,
    psf: bool = False,
    nthreads: int = 1,
) -> list[list[Image]]:
    """Image parts of the band and of the observation one by one, split as WSClean splits them.

    Parameters
    ----------
    vis, params, psf, nthreads
        As :func:`make_image`.
    channels_out : int
        Number of parts of the band: of n distinct frequencies, part i has those from i n / channels_out on.
    intervals_out : int
        Number of parts of the observation, likewise of its distinct times.

    Returns
    -------
    list of list of Image
        Indexed [interval][channel].

    Raises
    ------
    ParameterError
        If there are fewer channels or times than parts, or a part holds no visibility with weight.
    """
    parts = [vis] if isinstance(vis, Visibilities) else list(vis)
    freqs = np.unique(np.concatenate([part.chan_freq for part in parts]))
    times = np.unique(np.concatenate([part.time for part in parts]))
    for name, count, there in (("channels_out", channels_out, freqs), ("intervals_out", intervals_out, times)):
        if not 1 <= count <= len(there):
            what = "channels" if there is freqs else "times"
            raise ParameterError(f"{name} = {count}, but there are {len(there)} {what}")
    if params.phase_centre is None:
        params = replace(params, phase_centre=parts[0].phase_centre)
    cube = []
    for interval in _parts_of(times, intervals_out):
        planes = []
        for band in _parts_of(freqs, channels_out):
            piece = [chosen for part in parts if (chosen := _within(part, interval, band)) is not None]
            try:
                if not piece:
                    raise ParameterError("no visibility is there")
                planes.append(make_image(piece, params, psf=psf, nthreads=nthreads))
            except ParameterError as error:
                raise ParameterError(
                    f"the part of {band[0] / 1e6:.6g} to {band[-1] / 1e6:.6g} MHz from "
                    f"{interval[0] - times[0]:.0f} to {interval[-1] - times[0]:.0f} s cannot be imaged: {error}"
                ) from error
        cube.append(planes)
    return cube


def _parts_of(values: np.ndarray, count: int) -> list[np.ndarray]:
    edges = [len(values) * i // count for i in range(count + 1)]
    return [values[a:b] for a, b in pairwise(edges)]


def _within(part: Visibilities, times: np.ndarray, freqs: np.ndarray) -> Visibilities | None:
    """Return what ``part`` holds between the ends of ``times`` and ``freqs``, both included."""
    start, stop = np.searchsorted(part.chan_freq, [freqs[0], np.nextafter(freqs[-1], math.inf)])
    rows = (part.time >= times[0]) & (part.time <= times[-1])
    if start == stop or not rows.any():
        return None
    whole = rows.all() and (start, stop) == (0, len(part.chan_freq))
    return part if whole else part.subset(rows, slice(int(start), int(stop)))


def mean_image(planes: Sequence[Image]) -> Image:
    """Return the mean of the planes of a cube by their weights: WSClean's MFS image."""
    share = np.array([plane.weight_sum for plane in planes]) / sum(plane.weight_sum for plane in planes)

    def mean(name: str) -> np.ndarray:
        return np.sum([s * getattr(plane, name) for s, plane in zip(share, planes, strict=True)], axis=0, dtype=float)

    low = min(plane.band_centre - plane.freq[1] / 2 for plane in planes)
    high = max(plane.band_centre + plane.freq[1] / 2 for plane in planes)
    middle = planes[len(planes) // 2]
    return replace(
        middle,
        data=mean("data").astype(np.float32),
        psf=None if middle.psf is None else mean("psf").astype(np.float32),
        freq=(float(share @ [plane.freq[0] for plane in planes]), high - low),
        band_centre=(low + high) / 2,
        weight_sum=float(sum(plane.weight_sum for plane in planes)),
        nvis=sum(plane.nvis for plane in planes),
    )


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
