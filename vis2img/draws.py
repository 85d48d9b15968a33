"""A draw: one field imaged once under one drawn set of imaging parameters, the unit of work of the loader.

A field costs seconds to image and holds hundreds of patches, so draws are made by Dask workers and views
are cut from them (``docs/decisions/0002-image-the-field-crop-the-views.md``).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from vis2img.gridding import pixel_to_lm
from vis2img.imaging import make_image, robust_noise
from vis2img.measurementset import open_ms
from vis2img.params import ImagingParams, Selection
from vis2img.prior import ImagingPrior, draw_rng
from vis2img.visibilities import Visibilities

PEAK_SIGMA = 8.0  # how far above the noise a peak must be; dirty images have sidelobes of bright sources
_PEAK_SEPARATION = 24  # pixels within which only the brightest pixel is a peak
_CACHE_BYTES = 1 << 30  # visibilities that a worker keeps, so that a field is read once


@dataclass(frozen=True)
class FieldSource:
    """Where a field comes from and how it may be imaged: what a worker needs to make a draw."""

    ms: str
    selection: Selection
    prior: ImagingPrior


@dataclass(frozen=True, eq=False)
class Draw:
    """One dirty image of a field with the parameters that made it.

    Parameters
    ----------
    data : float32 [y, x]
        Dirty image in Jy/beam.
    params : ImagingParams
        How it was made.
    phase_centre : (float, float)
        RA and Dec of the reference pixel in rad.
    noise : float
        Robust noise in Jy/beam.
    field, index : int
        Which field of the loader, which draw of it.
    freq : float
        Weighted mean frequency in Hz.
    peaks : float64 [peak, 2]
        Direction cosines (l, m) of the local maxima above 8 times the noise.
    """

    data: np.ndarray
    params: ImagingParams
    phase_centre: tuple[float, float]
    noise: float
    field: int
    index: int
    freq: float
    peaks: np.ndarray

    def record(self) -> dict[str, Any]:
        """Return what travels with a view: field, draw index and imaging parameters."""
        return {"field": self.field, "index": self.index, "freq": self.freq, **self.params.to_dict()}


_cache: OrderedDict[tuple[str, Selection], list[Visibilities]] = OrderedDict()


def field_visibilities(source: FieldSource) -> list[Visibilities]:
    """Return the visibilities of a field, kept in this process until others need the room."""
    key = (source.ms, source.selection)
    if key in _cache:
        _cache.move_to_end(key)
        return _cache[key]
    parts = open_ms(source.ms).read_parts(source.selection, nthreads=1)
    _cache[key] = parts
    while len(_cache) > 1 and sum(part.nbytes for kept in _cache.values() for part in kept) > _CACHE_BYTES:
        _cache.popitem(last=False)
    return parts


def make_draw(source: FieldSource, seed: int, field: int, index: int) -> Draw:
    """Image ``source`` under the parameters of (seed, field, index), on one thread.

    Raises
    ------
    MeasurementSetError, ParameterError
        If the field cannot be read, or the drawn parameters leave no visibility.
    """
    return image_draw(source, source.prior.draw(draw_rng(seed, field, index)), field, index)


def image_draw(source: FieldSource, params: ImagingParams, field: int = 0, index: int = 0) -> Draw:
    """Image ``source`` under given ``params``, on one thread."""
    image = make_image(field_visibilities(source), params, nthreads=1)
    noise = max(robust_noise(image.data), 1e-30)
    return Draw(
        data=image.data,
        params=params,
        phase_centre=image.phase_centre,
        noise=noise,
        field=field,
        index=index,
        freq=image.freq[0],
        peaks=find_peaks(image.data, noise, params),
    )


def find_peaks(data: np.ndarray, noise: float, params: ImagingParams) -> np.ndarray:
    """Return direction cosines (l, m) [peak, 2] of local maxima above ``PEAK_SIGMA`` times ``noise``."""
    from scipy.ndimage import maximum_filter

    highest = maximum_filter(data, size=_PEAK_SEPARATION, mode="nearest")
    y, x = np.nonzero((data == highest) & (data > PEAK_SIGMA * noise))
    found = [pixel_to_lm(float(i), float(j), params.npix, params.pixsize) for i, j in zip(x, y, strict=True)]
    return np.array(found, dtype=np.float64).reshape(-1, 2)
