"""Phase rotation: point an observation at another phase centre.

With direction cosines (l, m, n) of the new centre in the old frame, the baseline vector b is projected on
the axes of the new frame, and visibilities are multiplied by the phase that takes the delay of the new
centre out (Thompson, Moran & Swenson 2017, *Interferometry and Synthesis in Radio Astronomy*, ch. 3).
The sign of the phase is that of :mod:`vis2img.gridding`.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from vis2img.visibilities import SPEED_OF_LIGHT, Visibilities

_BLOCK_SAMPLES = 1 << 20  # samples rotated at a time, so that the phases stay in cache-sized pieces


def uvw_basis(ra: float, dec: float) -> np.ndarray:
    """Return the unit vectors of u (east), v (north) and w (to the source) as rows, in equatorial axes.

    Parameters
    ----------
    ra, dec : float
        Direction in rad.

    Returns
    -------
    float64 [3, 3]
    """
    sin_ra, cos_ra, sin_dec, cos_dec = math.sin(ra), math.cos(ra), math.sin(dec), math.cos(dec)
    return np.array(
        [
            [-sin_ra, cos_ra, 0.0],
            [-sin_dec * cos_ra, -sin_dec * sin_ra, cos_dec],
            [cos_dec * cos_ra, cos_dec * sin_ra, sin_dec],
        ]
    )


def direction_cosines(ra: np.ndarray, dec: np.ndarray, centre: tuple[float, float]) -> np.ndarray:
    """Return (l, m, n) of the directions ``ra``, ``dec`` [...] (rad) as seen from ``centre``; shape [..., 3]."""
    ra, dec = np.asarray(ra, float), np.asarray(dec, float)
    towards = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)
    return towards @ uvw_basis(*centre).T


def sky_position(l: np.ndarray, m: np.ndarray, centre: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return right ascension (0 to 2 pi) and declination in rad of the direction cosines ``l``, ``m``."""
    l, m = np.asarray(l, float), np.asarray(m, float)
    lmn = np.stack([l, m, np.sqrt(np.maximum(0.0, 1 - l**2 - m**2))], axis=-1)
    x, y, z = np.moveaxis(lmn @ uvw_basis(*centre), -1, 0)
    return np.mod(np.arctan2(y, x), 2 * np.pi), np.arcsin(np.clip(z, -1, 1))


def rotate(vis: Visibilities, centre: tuple[float, float]) -> Visibilities:
    """Return ``vis`` with its phase centre moved to ``centre`` (RA, Dec in rad)."""
    old, new = uvw_basis(*vis.phase_centre), uvw_basis(*centre)
    uvw = vis.uvw @ (new @ old.T).T
    delay = (uvw[:, 2] - vis.uvw[:, 2]) / SPEED_OF_LIGHT  # (row) s
    rotated = np.empty_like(vis.vis)
    step = max(1, _BLOCK_SAMPLES // len(vis.chan_freq))
    for start in range(0, vis.nrow, step):
        rows = slice(start, start + step)
        # In turns, and modulo one turn before going to single precision: delays are thousands of turns.
        turns = np.outer(delay[rows], vis.chan_freq)
        phase = (-2 * np.pi * (turns - np.rint(turns))).astype(np.float32)
        rotated[rows] = vis.vis[rows] * (np.cos(phase) + 1j * np.sin(phase))
    return replace(vis, uvw=uvw, vis=rotated, phase_centre=centre)
