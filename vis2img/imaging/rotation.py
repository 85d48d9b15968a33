"""Rotation of visibilities to another phase centre, and to the axes of another equatorial frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vis2img.coordinates import direction_vectors, frame_turn, uvw_basis
from vis2img.errors import ParameterError
from vis2img.visibilities import SPEED_OF_LIGHT, Visibilities

_BLOCK_SAMPLES = 1 << 20  # samples rotated at a time, so that the phases stay in cache-sized pieces


IMAGE_FRAMES = ("ICRS", "J2000")


def in_one_frame(parts: Sequence[Visibilities]) -> list[Visibilities]:
    """Return visibilities with phase centres and axes in the frame of the first; themselves where they are.

    Raises
    ------
    ParameterError
        If they are in frames that are not equatorial.
    """
    frame = parts[0].origin.frame
    return [part if part.origin.frame == frame else _in_frame(part, frame) for part in parts]


def _in_frame(vis: Visibilities, frame: str) -> Visibilities:
    origin = vis.origin
    if not {origin.frame, frame} <= set(IMAGE_FRAMES):
        raise ParameterError(f"visibilities in {origin.frame} do not go into one image with those in {frame}")
    turn = frame_turn(origin.frame, frame)
    x, y, z = turn @ direction_vectors(*vis.phase_centre)
    centre = math.atan2(y, x) % (2 * math.pi), math.atan2(z, math.hypot(x, y))
    uvw = vis.uvw @ (uvw_basis(*centre) @ turn @ uvw_basis(*vis.phase_centre).T).T
    return replace(vis, uvw=uvw, phase_centre=centre, origin=replace(origin, frame=frame))


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
