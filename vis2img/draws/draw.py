"""A draw: one field imaged once under one drawn set of imaging parameters, the unit of work of the loader.

A field costs seconds to image and holds hundreds of patches, so draws are made by Dask workers and views
are cut from them (``docs/decisions/0002-image-the-field-crop-the-views.md``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from vis2img.coordinates import lm_to_pixel
from vis2img.draws.peaks import find_peaks, middles_of_emission, usable_cells
from vis2img.imaging.beam import beam_solid_angle
from vis2img.imaging.params import ImagingParams


@dataclass(frozen=True)
class Channel:
    """What one image of a draw shows: Stokes parameter, band as in ``ImagingParams``, mean frequency in Hz."""

    stokes: str
    band: tuple[float, float]
    freq: float


@dataclass(frozen=True, eq=False)
class Draw:
    """The dirty images of a field under one set of parameters."""

    data: np.ndarray
    """float32 [channel, y, x]: Dirty images in Jy/beam: Stokes parameters, the sub-bands of each from low to high
    frequency."""
    params: ImagingParams
    """How they were made; the ``band`` of each channel is in ``channels``."""
    phase_centre: tuple[float, float]
    """RA and Dec of the reference pixel in rad."""
    noise: np.ndarray
    """float64 [channel]: Robust noise in Jy/beam, by which views are stretched."""
    channels: tuple[Channel, ...]
    peaks: np.ndarray
    """float64 [peak, 2]: Direction cosines (l, m) of the local maxima above 8 times the noise in the first channel."""
    usable: np.ndarray
    """bool [64, 64]: Which parts of the image hold no blank pixel (NaN, zero throughout, or beyond the horizon), y and
    x."""
    turn: float = 0.0
    """Position angle of m in rad: images in other frames are not north up."""
    field: int = 0
    index: int = 0
    """Which field of the loader, which draw of it."""
    beam_area: float = math.nan
    """Solid angle of the beam of the first channel, sr; NaN where it is not known."""

    @classmethod
    def of_images(
        cls,
        data: np.ndarray,
        params: ImagingParams,
        phase_centre: tuple[float, float],
        noise: np.ndarray,
        channels: tuple[Channel, ...],
        turn: float = 0.0,
        beam: tuple[float, ...] | None = None,
    ) -> Draw:
        """Return the draw of images [channel, y, x], with their peaks and where they can be used.

        ``beam`` is major and minor axis of the first, FWHM in rad.
        """
        peaks = find_peaks(data[0], float(noise[0]), params)
        usable = usable_cells(data, params.pixsize)
        area = math.nan if beam is None else beam_solid_angle(beam[0], beam[1]) or math.nan
        return cls(data, params, phase_centre, noise, channels, peaks, usable, turn, beam_area=area)

    def middles(self, side: float) -> np.ndarray:
        """Return the middles of what shines around the peaks, for patches of ``side`` rad: float64 [place, 2]."""
        return middles_of_emission(self.data[0], float(self.noise[0]), self.params, self.peaks, side)

    def flux_at(self, places: np.ndarray) -> np.ndarray:
        """Return the brightness in the first channel at (l, m) [place, 2] within it, Jy/beam: float64 [place]."""
        ny, nx = self.data.shape[1:]
        x, y = lm_to_pixel(places[:, 0], places[:, 1], (nx, ny), self.params.pixsize)
        return self.data[0, np.rint(y).astype(int), np.rint(x).astype(int)].astype(np.float64)

    def record(self) -> dict[str, Any]:
        """Return what travels with a view: field, draw index and imaging parameters."""
        shown = [{"stokes": c.stokes, "band": c.band, "freq": c.freq} for c in self.channels]
        return {"field": self.field, "index": self.index, "channels": shown, **self.params.to_dict()}
