"""Rotation of visibilities to another phase centre."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vis2img.coordinates import uvw_basis
from vis2img.visibilities import SPEED_OF_LIGHT, Visibilities

_BLOCK_SAMPLES = 1 << 20  # samples rotated at a time, so that the phases stay in cache-sized pieces


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
