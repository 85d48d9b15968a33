"""Draws that were not imaged: of given pixels, or of a Gaussian."""

from __future__ import annotations

import math

import numpy as np

from vis2img.draws.draw import Channel, Draw
from vis2img.imaging.params import ImagingParams

ARCSEC = math.pi / 180 / 3600


def draw_of(data: np.ndarray, pixsize: float, noise: float = 0.01, index: int = 0) -> Draw:
    """Return a draw that holds ``data`` [channel, y, x]."""
    count, ny, nx = data.shape
    return Draw(
        data=data.astype(np.float32),
        params=ImagingParams((nx, ny), pixsize),
        phase_centre=(0.5, -0.5),
        noise=np.full(count, noise),
        field=0,
        index=index,
        channels=(Channel("I", (0.0, 1.0), 1e9),) * count,
        peaks=np.zeros((0, 2)),
        usable=np.ones((8, 8), bool),
    )


def gaussian_draw(npix: int, pixsize: float, l: float, m: float, sigma: float, index: int = 0) -> Draw:
    """Return a draw whose sky is a Gaussian of unit peak and dispersion ``sigma`` (rad) at (l, m)."""
    east = (npix // 2 - np.arange(npix)) * pixsize
    north = (np.arange(npix) - npix // 2) * pixsize
    data = np.exp(-((east[None, :] - l) ** 2 + (north[:, None] - m) ** 2) / (2 * sigma**2))
    return draw_of(data[np.newaxis], pixsize, index=index)
