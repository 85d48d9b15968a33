"""Views: crops of one sky position from different draws, as DINO's multi-crop wants them.

A crop is an angle on the sky around a direction, whatever the pixel scale of the draw; it is resampled,
antialiased, to a fixed number of pixels. Global views show the whole patch, local views a part of it
(Caron et al. 2021, arXiv:2104.14294, sec. 3.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image as PillowImage

from vis2img.draws import Draw
from vis2img.errors import ParameterError
from vis2img.gridding import lm_to_pixel

_UNIT_SIGMA = 5.0  # how many times the noise a faint pixel must be to become 1


@dataclass(frozen=True)
class ViewConfig:
    """How views are cut: numbers, sizes and jitter."""

    patch_npix: int = 64
    """Side of a patch in pixels of the largest pixel scale; sets its angle on the sky."""
    global_size: int = 64
    """Side of a global view in pixels."""
    local_size: int = 32
    """Side of a local view in pixels."""
    n_global: int = 2
    """Global views of a sample."""
    n_local: int = 4
    """Local views of a sample."""
    global_scale: tuple[float, float] = (0.7, 1.0)
    """Side of a global crop as a fraction of the patch."""
    local_scale: tuple[float, float] = (0.35, 0.6)
    """Side of a local crop as a fraction of the patch."""
    rotate: bool = True
    """Flip and turn views by 90 degrees at random."""
    stretch: float = 10.0
    """Softening of the arcsinh stretch in units of the noise of the draw."""

    def __post_init__(self) -> None:
        if min(self.patch_npix, self.global_size, self.local_size) < 8:
            raise ParameterError("patch_npix, global_size and local_size must be at least 8 pixels")
        if self.n_global < 2 or self.n_local < 0:
            raise ParameterError("views need n_global of at least 2 and n_local of at least 0")
        for name in ("global_scale", "local_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise ParameterError(f"{name} = ({low}, {high}) must be fractions, 0 < low <= high <= 1")
        if not self.stretch > 0:
            raise ParameterError("stretch must be positive")


def stretch(data: np.ndarray, noise: float, softening: float) -> np.ndarray:
    """Return s arcsinh(data / (s noise)) / 5 for a softening of s: a faint pixel of 5 sigma becomes 1.

    Linear below ``softening`` times the noise and logarithmic above (Lupton et al. 2004, PASP 116, 133).
    """
    scaled = np.arcsinh(data / np.float32(softening * noise))
    return (scaled * np.float32(softening / _UNIT_SIGMA)).astype(np.float32, copy=False)


def cut(draw: Draw, l: float, m: float, side: float, size: int) -> np.ndarray:
    """Return the square of angle ``side`` around direction cosines (``l``, ``m``) in ``size`` pixels.

    Parameters
    ----------
    draw : Draw
        The image to cut from.
    l, m : float
        Centre relative to the reference pixel of the draw, direction cosines.
    side : float
        Angle on the sky in rad.
    size : int
        Pixels a side of the result.

    Returns
    -------
    float32 [size, size]
        Jy/beam, bilinear with antialiasing.

    Raises
    ------
    ParameterError
        If the square reaches beyond the image.
    """
    ny, nx = draw.data.shape
    pixsize = draw.params.pixsize
    x, y = lm_to_pixel(l, m, (nx, ny), pixsize)
    half = side / pixsize / 2
    # Pixel centres are whole numbers to the WCS; to the resampler a pixel spans [i, i + 1].
    left, lower = x + 0.5 - half, y + 0.5 - half
    if min(left, lower) < -1e-6 or left + 2 * half > nx + 1e-6 or lower + 2 * half > ny + 1e-6:
        raise ParameterError(f"the patch at pixel ({x:.1f}, {y:.1f}) reaches beyond the {nx} x {ny} image")
    x0, y0 = max(0, math.floor(left) - 2), max(0, math.floor(lower) - 2)
    x1, y1 = min(nx, math.ceil(left + 2 * half) + 2), min(ny, math.ceil(lower + 2 * half) + 2)
    piece = PillowImage.fromarray(np.ascontiguousarray(draw.data[y0:y1, x0:x1], dtype=np.float32))
    box = (
        max(0.0, left - x0),
        max(0.0, lower - y0),
        min(float(x1 - x0), left - x0 + 2 * half),
        min(float(y1 - y0), lower - y0 + 2 * half),
    )
    return np.asarray(piece.resize((size, size), PillowImage.Resampling.BILINEAR, box=box))


def random_position(
    rng: np.random.Generator, reach: float, patch: float, peaks: np.ndarray, near_peaks: float
) -> tuple[float, float]:
    """Return the centre (l, m) of a patch: anywhere, or near a bright peak.

    Parameters
    ----------
    rng : numpy Generator
        Source of the choice.
    reach : float
        Largest |l| and |m| of a centre in rad.
    patch : float
        Side of the patch in rad; a peak is at most an eighth of it from the centre.
    peaks : float64 [peak, 2]
        Direction cosines of peaks.
    near_peaks : float
        How often a patch is placed near a peak.

    Returns
    -------
    (float, float)
    """
    inside = peaks[np.all(np.abs(peaks) <= reach, axis=1)] if len(peaks) else peaks
    if len(inside) and rng.random() < near_peaks:
        l, m = inside[int(rng.integers(len(inside)))] + rng.uniform(-patch / 8, patch / 8, 2)
        return float(np.clip(l, -reach, reach)), float(np.clip(m, -reach, reach))
    return float(rng.uniform(-reach, reach)), float(rng.uniform(-reach, reach))


def multi_crop(
    rng: np.random.Generator,
    draws: list[Draw],
    l: float,
    m: float,
    patch: float,
    config: ViewConfig,
) -> tuple[np.ndarray, np.ndarray, list[Draw]]:
    """Cut the views of one sky patch from different draws of its field.

    Parameters
    ----------
    rng : numpy Generator
        Chooses draws, scales, shifts and turns.
    draws : list of Draw
        Draws of one field; views take them in random order without repeating one before all were used.
    l, m : float
        Centre of the patch, direction cosines.
    patch : float
        Side of the patch in rad.
    config : ViewConfig
        Sizes and numbers.

    Returns
    -------
    global views : float32 [n_global, global_size, global_size]
    local views : float32 [n_local, local_size, local_size]
    used : list of Draw
        The draw of each view, global ones first.
    """
    total = config.n_global + config.n_local
    rounds = -(-total // len(draws))
    order = np.concatenate([rng.permutation(len(draws)) for _ in range(rounds)])[:total]
    used = [draws[i] for i in order]
    views = []
    for i, draw in enumerate(used):
        is_global = i < config.n_global
        size = config.global_size if is_global else config.local_size
        side = patch * rng.uniform(*(config.global_scale if is_global else config.local_scale))
        shift = (patch - side) / 2
        view = cut(draw, l + rng.uniform(-shift, shift), m + rng.uniform(-shift, shift), side, size)
        view = stretch(view, draw.noise, config.stretch)
        if config.rotate:
            view = np.rot90(view, int(rng.integers(4)))
            view = view[:, ::-1] if rng.random() < 0.5 else view
        views.append(view)
    globals_, locals_ = views[: config.n_global], views[config.n_global :]
    local = np.stack(locals_) if locals_ else np.zeros((0, config.local_size, config.local_size), np.float32)
    return np.stack(globals_), local, used
