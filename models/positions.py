"""Learned positions at other sizes than they were learned at, as the code that published them resizes them.

All do so bicubically, and no two alike; what a network was trained with is part of it, as are its weights.
"""

import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vis2img.models.layers import Array

Resizing = Literal["dino", "plain", "antialias"]
"""How positions are resized, all with PyTorch's ``interpolate(mode="bicubic", align_corners=False)``.

dino
    To the scale (size + 0.1) / side: DINO (``vision_transformer.py``), iBOT, and DINOv2 without registers.
plain
    To the size: DeiT and MAE (``util/pos_embed.py``), and transformers' ViT, ViTMAE and Dinov2.
antialias
    To the size, smoothed where the grid becomes coarser: DINOv2 with registers (``dinov2/hub/backbones.py``:
    ``interpolate_antialias=True, interpolate_offset=0.0``), timm (``resample_abs_pos_embed``), lightly.
"""
RESIZINGS: tuple[Resizing, ...] = get_args(Resizing)

_OFFSET = 0.1  # against rounding; it shifts the grid a little, and weights learned with it expect that
_SHARP, _SMOOTH = -0.75, -0.5  # Keys's a without antialiasing and with it


def resize_positions(
    positions: Float[Array, "side side dim"], rows: int, columns: int, resizing: Resizing = "dino"
) -> Float[Array, "{rows} {columns} dim"]:
    """Resize a square grid of learned positions.

    Parameters
    ----------
    positions
        At the native size, which is returned as it is.
    rows, columns
        Wanted grid, in patches.
    resizing
        One of `Resizing`.
    """
    side = positions.shape[0]
    if (rows, columns) == (side, side):
        return positions
    down, right = _resize_matrix(side, rows, resizing), _resize_matrix(side, columns, resizing)
    return jnp.einsum("ip,jq,pqd->ijd", down, right, positions, precision=jax.lax.Precision.HIGHEST)


def _resize_matrix(side: int, size: int, resizing: Resizing) -> np.ndarray:
    """Weights (size, side) of a bicubic interpolation along one axis."""
    if resizing == "antialias":
        return _smooth_matrix(side, size)

    weights = np.zeros((size, side), np.float32)
    step = side / (size + _OFFSET) if resizing == "dino" else side / size
    for i in range(size):
        at = (i + 0.5) * step - 0.5
        for j in range(math.floor(at) - 1, math.floor(at) + 3):
            # Beyond the edges they repeat.
            weights[i, min(max(j, 0), side - 1)] += _cubic(at - j, _SHARP)
    return weights


def _smooth_matrix(side: int, size: int) -> np.ndarray:
    """Weights (size, side) of a kernel as wide as the coarser of both grids, cut at the edges, with a sum of 1."""
    step = side / size
    width = max(step, 1.0)
    at = (np.arange(size)[:, None] + 0.5) * step - 0.5
    distance = (at - np.arange(side)) / width
    weights = np.vectorize(lambda t: _cubic(t, _SMOOTH))(distance)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _cubic(t: float, a: float) -> float:
    """Cubic convolution (Keys 1981, doi:10.1109/TASSP.1981.1163711, equation 10)."""
    t = abs(t)
    if t <= 1.0:
        return (a + 2.0) * t**3 - (a + 3.0) * t**2 + 1.0
    return a * (t**3 - 5.0 * t**2 + 8.0 * t - 4.0) if t < 2.0 else 0.0
