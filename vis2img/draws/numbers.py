"""Imaging parameters as numbers of the order of one: what a network can be told, or must not tell, of a view."""

from __future__ import annotations

import math

import numpy as np

from vis2img.imaging.params import ImagingParams
from vis2img.shapes import Float32

NUMBERS = (
    "robust",  # natural weighting is 2, uniform -2
    "taper",  # FWHM, suggested pixels
    "shortest baseline",  # in longest baselines of the field
    "longest baseline",
    "middle of the band",  # as a share of the channels, from the lowest
    "width of the band",
    "time",  # share that is kept
    "baselines",  # share that is kept
    "pixel",  # log2 of suggested pixels
)


def imaging_numbers(params: ImagingParams, unit: float, imaged: bool = True) -> Float32[np.ndarray, 9]:
    """Return what :data:`NUMBERS` names.

    Parameters
    ----------
    params : ImagingParams
        Of a draw.
    unit : float
        Suggested pixel of its field, rad: a third of the finest fringe.
    imaged : bool
        Whether the parameters tell how the image came about; of finished images the pixel alone is known, and the
        others are NaN.
    """
    pixel = math.log2(params.pixsize / unit)
    if not imaged:
        return np.array([math.nan] * (len(NUMBERS) - 1) + [pixel], np.float32)
    shortest, longest = (3 * unit * length for length in params.uvrange)
    (low, high), (first, last) = params.band, params.time_span
    numbers = (
        {"natural": 2.0, "uniform": -2.0}.get(params.weighting, params.robust),
        params.taper / unit,
        shortest,
        min(1.0, longest),
        (low + high) / 2,
        high - low,
        (last - first) * params.keep_times,
        params.keep_antennas**2 * params.keep_baselines,
        pixel,
    )
    return np.array(numbers, np.float32)
