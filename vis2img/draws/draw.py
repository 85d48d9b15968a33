"""A draw: one field imaged once under one drawn set of imaging parameters, the unit of work of the loader.

A field costs seconds to image and holds hundreds of patches, so draws are made by Dask workers and views
are cut from them (``docs/decisions/0002-image-the-field-crop-the-views.md``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vis2img.draws.field_data import field_data
from vis2img.draws.peaks import find_peaks, usable_cells
from vis2img.draws.prior import ImagingPrior
from vis2img.errors import EmptyImageError
from vis2img.imaging.image import Image, make_image, robust_noise
from vis2img.imaging.params import ImagingParams
from vis2img.imaging.sampling import chans_within
from vis2img.ms.selection import Selection
from vis2img.random import draw_rng
from vis2img.units import Angle
from vis2img.visibilities import Visibilities

DRAW_MEMORY = 1e9  # bytes that the visibilities of one draw take, unless said otherwise
_ATTEMPTS = 12  # parameters that are tried for a draw before it is given up


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
    from vis2img.draws.fits_field import fits_draw, is_image

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
