"""Views of fields that vary as views of finished pictures do: turned by any angle, blurred, with noise and gain.

It is the augmentation of images that variation of the imaging is measured against (:mod:`vis2img.views.pixel_changes`).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from vis2img.pictures.cutting import fill_turned
from vis2img.views.crops import Crop, cut, fits
from vis2img.views.pixel_changes import ViewChange, change_pixels
from vis2img.views.stretch import Stretch, stretched

_MARGIN = 3  # pixels that a cubic needs beyond the corners


def cut_changed(
    crop: Crop, size: int, stretch: Stretch, change: ViewChange, rng: np.random.Generator, out: np.ndarray
) -> None:
    """Cut a view of a draw and change it.

    Parameters
    ----------
    crop : Crop
        Where it lies. Where its corners would be turned beyond the image, it is not turned.
    size : int
        Pixels a side.
    stretch : Stretch
    change : ViewChange
        Noise, offset and clip in units of the noise of the draw; blur in pixels of the draw.
    rng : numpy Generator
        Of the noise.
    out : float32 [size, size, channel]
        Where to write.
    """
    draw, step = crop.draw, crop.side / size
    wide = math.ceil(size * math.sqrt(2)) + 2 * _MARGIN
    if not fits(draw, crop.l, crop.m, wide * step):
        change = replace(change, angle=0.0)
    square = (
        cut(draw, crop.l, crop.m, wide * step, wide) if change.angle else cut(draw, crop.l, crop.m, crop.side, size)
    )
    for channel in range(square.shape[-1]):
        view = np.ascontiguousarray(square[:, :, channel])
        view /= np.float32(draw.noise[channel])
        if change.angle:
            wider, view = view, np.empty((size, size), np.float32)
            fill_turned(wider, 0.0, 0.0, size / 2, change.angle, 0.0, view)
        change_pixels(view, change, change.blur * draw.params.pixsize / step, rng)
        out[:, :, channel] = stretched(view, 1.0, stretch)
