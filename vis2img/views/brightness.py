"""How bright a patch is, as numbers beside its vector: a network that sees shapes alone cannot tell.

They are taken from the pixels of the image within the patch, before anything is resampled or stretched. Of a dirty
image they are what it shows: the flux of sources wider than its shortest baselines resolve is missing, and sidelobes
above the clip count. Jy/beam changes with the beam, so that peaks of extended sources are not comparable between
weightings; fluxes in Jy are, as far as all of the emission lies above the clip; nor are signal-to-noise ratios, whose
noise is that of the image.
"""

from __future__ import annotations

import math

import numpy as np

from vis2img.draws.draw import Draw
from vis2img.shapes import Float64
from vis2img.views.crops import square_of

CLIP = 3.0  # times the noise, above which pixels count as flux
NUMBERS = ("peak", "flux", "snr")


def patch_brightness(draw: Draw, l: float, m: float, side: float) -> Float64[np.ndarray, 3]:
    """Return the brightness of a patch in the first channel of a draw.

    Parameters
    ----------
    draw : Draw
    l, m : float
        Centre, direction cosines.
    side : float
        Angle on the sky, rad.

    Returns
    -------
    float64 [3]
        Peak in Jy/beam; flux in Jy, NaN where the beam is not known; peak over noise.
    """
    left, lower, width = square_of(draw, l, m, side)
    rows, columns = (slice(max(0, math.ceil(at - 0.5)), max(0, math.ceil(at + width - 0.5))) for at in (lower, left))
    area = draw.beam_area
    pixels = draw.params.pixsize**2 / area if area > 0 else math.nan
    return pixel_brightness(draw.data[0, rows, columns], float(draw.noise[0]), pixels)


def pixel_brightness(
    pixels: np.ndarray, noise: float, beams: float = math.nan, unit: float = 1.0
) -> Float64[np.ndarray, 3]:
    """Return peak, flux and signal-to-noise ratio of pixels [y, x] above their background.

    Parameters
    ----------
    pixels : float32 [y, x]
        Those that are not finite do not count.
    noise : float
        In the unit of the pixels.
    beams : float
        Solid angle of a pixel over that of the beam; NaN where it is not known.
    unit : float
        Jy/beam of a unit of the pixels; NaN where it is not known.
    """
    finite = pixels[np.isfinite(pixels)].astype(np.float64)
    if not len(finite):
        return np.full(3, np.nan)
    peak = float(finite.max())
    flux = float(finite[finite >= CLIP * noise].sum()) * beams
    return np.array([peak * unit, flux * unit, peak / noise])


def log_brightness(
    brightness: Float64[np.ndarray, "patch 3"],
) -> Float64[np.ndarray, "patch 3"]:
    """Return log10 of peak, flux and signal-to-noise ratio, at least those of one beam at the noise; NaN is 0."""
    peak, flux, snr = brightness.T
    noise = np.abs(peak) / np.maximum(np.abs(snr), 1e-30)  # peak over noise is what snr is
    least = np.maximum(noise, 1e-30)
    logs = np.stack([np.maximum(peak, least), np.maximum(flux, least), np.maximum(snr, 1.0)], axis=1)
    return np.nan_to_num(np.log10(logs))
