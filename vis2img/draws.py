"""A draw: one field imaged once under one drawn set of imaging parameters, the unit of work of the loader.

A field costs seconds to image and holds hundreds of patches, so draws are made by Dask workers and views
are cut from them (``docs/decisions/0002-image-the-field-crop-the-views.md``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vis2img.errors import EmptyImageError
from vis2img.field_data import field_data
from vis2img.gridding import pixel_to_lm
from vis2img.imaging import Image, make_image, robust_noise
from vis2img.options import Angle
from vis2img.params import ImagingParams, Selection
from vis2img.prior import ImagingPrior, draw_rng
from vis2img.sampling import chans_within
from vis2img.visibilities import Visibilities

PEAK_SIGMA = 8.0  # how far above the noise a peak must be; dirty images have sidelobes of bright sources
DRAW_MEMORY = 1e9  # bytes that the visibilities of one draw take, unless said otherwise
_PEAK_BLOCK = 12  # pixels a side; peaks are at least one and at most three blocks apart
_ATTEMPTS = 12  # parameters that are tried for a draw before it is given up
_CELLS = 64  # of the map of usable pixels, along an axis


@dataclass(frozen=True)
class FieldSource:
    """Where a field comes from and how it may be imaged: what a worker needs to make a draw."""

    ms: str
    """Measurement set, averaged data, or FITS image."""
    selection: Selection
    prior: ImagingPrior
    pixsize: Angle = 0.0
    """Suggested pixel size, in which patches are counted; 0: the largest of the prior."""
    subbands: int = 1
    """Parts of the band that are imaged each by itself, from low to high frequency."""
    memory: float = DRAW_MEMORY
    """Bytes that the visibilities of one draw may take; timesteps are thinned out until they do."""
    name: str = ""
    """What messages call it; default: the path."""

    @property
    def channels(self) -> int:
        """Number of images in a draw: Stokes parameters times sub-bands."""
        return self.subbands * len(self.selection.stokes)

    def __str__(self) -> str:
        return self.name or self.ms


@dataclass(frozen=True)
class Channel:
    """What one image of a draw shows: Stokes parameter, band as in ``ImagingParams``, mean frequency in Hz."""

    stokes: str
    band: tuple[float, float]
    freq: float


@dataclass(frozen=True, eq=False)
class Draw:
    """The dirty images of a field under one set of parameters.

    Parameters
    ----------
    data : float32 [channel, y, x]
        Dirty images in Jy/beam: Stokes parameters, the sub-bands of each from low to high frequency.
    params : ImagingParams
        How they were made; the ``band`` of each channel is in ``channels``.
    phase_centre : (float, float)
        RA and Dec of the reference pixel in rad.
    noise : float64 [channel]
        Robust noise in Jy/beam, by which views are stretched.
    field, index : int
        Which field of the loader, which draw of it.
    channels : tuple of Channel
    peaks : float64 [peak, 2]
        Direction cosines (l, m) of the local maxima above 8 times the noise in the first channel.
    usable : bool [64, 64]
        Which parts of the image hold no blank pixel (NaN, zero throughout, or beyond the horizon), y and x.
    """

    data: np.ndarray
    params: ImagingParams
    phase_centre: tuple[float, float]
    noise: np.ndarray
    field: int
    index: int
    channels: tuple[Channel, ...]
    peaks: np.ndarray
    usable: np.ndarray

    def record(self) -> dict[str, Any]:
        """Return what travels with a view: field, draw index and imaging parameters."""
        shown = [{"stokes": c.stokes, "band": c.band, "freq": c.freq} for c in self.channels]
        return {"field": self.field, "index": self.index, "channels": shown, **self.params.to_dict()}


def make_draw(source: FieldSource, seed: int, field: int, index: int, nthreads: int = 1) -> Draw:
    """Image ``source`` under the parameters of (seed, field, index).

    Parameters that leave no visibility with weight (a part of the band that is all flagged), nothing but zeros or fewer
    channels than sub-bands are drawn again.

    Raises
    ------
    MeasurementSetError
        If the field cannot be read.
    EmptyImageError
        If several sets of parameters in a row leave nothing.
    """
    rng = draw_rng(seed, field, index)
    for attempt in range(_ATTEMPTS):
        try:
            return image_draw(source, source.prior.draw(rng), field, index, nthreads)
        except EmptyImageError as error:
            if attempt == _ATTEMPTS - 1:
                raise EmptyImageError(f"{source}: {_ATTEMPTS} sets of parameters left nothing: {error}") from error
    raise AssertionError("unreachable")


def image_draw(source: FieldSource, params: ImagingParams, field: int = 0, index: int = 0, nthreads: int = 1) -> Draw:
    """Image ``source`` under given ``params``; a source that is a FITS image is that image whatever they are."""
    from vis2img.image_field import fits_draw, is_image

    if is_image(source.ms):
        return fits_draw(source.ms, field, index, fov=source.prior.fov)
    data = field_data(source.ms, source.selection, source.memory)
    params = data.thinned(params)
    parts = data.select(params, nthreads)
    freqs = np.unique(np.concatenate([part.chan_freq for part in parts]))
    if len(freqs) < source.subbands:
        raise EmptyImageError(f"{len(freqs)} channels are kept, fewer than {source.subbands} sub-bands")
    images, channels, every = [], [], data.freqs
    for stokes in source.selection.stokes:
        for band in np.array_split(freqs, source.subbands):
            image = make_image(_within(parts, stokes, band), params, nthreads=nthreads, selected=True)
            if not image.data.any():
                raise EmptyImageError("the visibilities that are kept are zero")
            images.append(image)
            channels.append(Channel(stokes, _fractions(every, band), image.freq[0]))
    return _as_draw(images, channels, params, field, index)


def _as_draw(images: list[Image], channels: list[Channel], params: ImagingParams, field: int, index: int) -> Draw:
    data = np.stack([image.data for image in images]) if len(images) > 1 else images[0].data[np.newaxis]
    noise = np.array([max(robust_noise(image.data), 1e-30) for image in images])
    return Draw(
        data=data,
        params=params,
        phase_centre=images[0].phase_centre,
        noise=noise,
        field=field,
        index=index,
        channels=tuple(channels),
        peaks=find_peaks(data[0], float(noise[0]), params),
        usable=usable_cells(data, params.pixsize),
    )


def _within(parts: list[Visibilities], stokes: str, band: np.ndarray) -> list[Visibilities]:
    """Return the channels in ``band`` of the parts of one Stokes parameter."""
    chosen = []
    for part in parts:
        chans = chans_within(part.chan_freq, band)
        if part.stokes == stokes and chans.start < chans.stop:
            chosen.append(part.subset(np.ones(part.nrow, bool), chans))
    return chosen


def _fractions(freqs: np.ndarray, band: np.ndarray) -> tuple[float, float]:
    """Return ``band`` as :attr:`ImagingParams.band` counts it among all frequencies ``freqs``."""
    first, last = np.searchsorted(freqs, [band[0], band[-1]])
    return float(first / len(freqs)), float((last + 1) / len(freqs))


def find_peaks(data: np.ndarray, noise: float, params: ImagingParams) -> np.ndarray:
    """Return direction cosines (l, m) [peak, 2] of the brightest pixels around, above ``PEAK_SIGMA`` times ``noise``.

    A peak is the brightest pixel of its block of 12 x 12 pixels and of the eight blocks around. Blocks with a blank
    pixel have none.
    """
    from scipy.ndimage import maximum_filter

    ny, nx = data.shape
    rows, columns = np.arange(0, ny, _PEAK_BLOCK), np.arange(0, nx, _PEAK_BLOCK)
    highest = np.nan_to_num(_reduced(np.maximum, data, rows, columns), nan=-np.inf, posinf=-np.inf, neginf=-np.inf)
    found = []
    for j, i in np.argwhere((highest > PEAK_SIGMA * noise) & (highest == maximum_filter(highest, size=3))):
        block = data[rows[j] : rows[j] + _PEAK_BLOCK, columns[i] : columns[i] + _PEAK_BLOCK]
        y, x = np.unravel_index(int(np.argmax(block)), block.shape)
        found.append(pixel_to_lm(float(columns[i] + x), float(rows[j] + y), params.npix, params.pixsize))
    return np.array(found, dtype=np.float64).reshape(-1, 2)


def _reduced(function: np.ufunc, values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return ``function`` over the blocks of ``values`` [y, x] that start at ``rows`` and ``columns``."""
    return function.reduceat(function.reduceat(values, rows, axis=0), columns, axis=1)


def usable_cells(data: np.ndarray, pixsize: float) -> np.ndarray:
    """Return which of 64 x 64 cells of images [channel, y, x] hold no blank pixel, bool [y, x].

    Blank is a pixel that is not finite, or where the SIN projection has no sky (l^2 + m^2 >= 1); and a cell that
    holds zeros only.
    """
    ny, nx = data.shape[-2:]
    edges_y, edges_x = (np.linspace(0, n, min(_CELLS, n) + 1).astype(int)[:-1] for n in (ny, nx))
    usable = np.ones((len(edges_y), len(edges_x)), bool)
    for image in data:
        # The largest magnitude of a cell is NaN if one of its pixels is, and 0 if all are.
        largest = _reduced(np.maximum, np.abs(image), edges_y, edges_x)
        usable &= np.isfinite(largest) & (largest > 0)
    if max(nx, ny) * pixsize > 1.2:  # else the corners are within the hemisphere
        m, l = np.ogrid[:ny, :nx]
        beyond = ((l - nx // 2) * pixsize) ** 2 + ((m - ny // 2) * pixsize) ** 2 >= 1
        usable &= ~_reduced(np.logical_or, beyond, edges_y, edges_x)
    return usable
