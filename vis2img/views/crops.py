"""Views: crops of one sky position from different draws, as DINO's multi-crop wants them.

A crop is an angle on the sky around a direction, whatever the pixel scale of the draw; it is resampled,
antialiased, to a fixed number of pixels. Global views show the whole patch, local views a part of it
(Caron et al. 2021, arXiv:2104.14294, sec. 3.2).

Crops are planned first (:class:`Crop`: which draw, which square, how turned) and cut later, by any thread. Turns are
not carried out here but handed on, as the accelerator turns a batch in no time: :func:`turned` says what they mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from vis2img.configs.values import FirstOf
from vis2img.coordinates import lm_to_pixel
from vis2img.draws.draw import Draw
from vis2img.errors import ParameterError
from vis2img.shapes import Float32
from vis2img.views.jitter import ViewJitter
from vis2img.views.resample import PLAIN, resample
from vis2img.views.stretch import Stretch, Stretches, cut_stretched, stretches_of
from vis2img.views.stretch_list import StretchList

TURNS = 8  # symmetries of a square: bit 0 transposes, bit 1 flips x, bit 2 flips y, in this order


@dataclass(frozen=True)
class ViewConfig:
    """How views are cut: numbers, sizes and jitter."""

    patch_npix: int = 64
    """Side of a patch in suggested pixels (a third of the finest fringe); sets its angle on the sky."""
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
    """Whether views are flipped, and turned by multiples of 90 degrees, at random."""
    stretch: Annotated[Stretch, FirstOf("more_stretches")] = field(default_factory=Stretch)
    """How flux densities become pixel values; in a file also a list, each of which gives input channels of its own."""
    more_stretches: StretchList = ()
    """Further stretches of the same views, each with input channels of its own behind those of stretch: a kind, or
    settings such as '{kind: peak, clip: 3}'."""

    jitter: ViewJitter = field(default_factory=ViewJitter)
    """How the accelerator varies views besides."""

    def __post_init__(self) -> None:
        if min(self.patch_npix, self.global_size, self.local_size) < 8:
            raise ParameterError("patch_npix, global_size and local_size must be at least 8 pixels")
        if self.n_global < 2 or self.n_local < 0:
            raise ParameterError("views need n_global of at least 2 and n_local of at least 0")
        for name in ("global_scale", "local_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise ParameterError(f"{name} = ({low}, {high}) must be fractions, 0 < low <= high <= 1")

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """All stretches, in the order of their channels: all channels of a draw by the first, then by the next."""
        return self.stretch, *self.more_stretches

    @property
    def margin(self) -> float:
        """How many times as wide as their views at most the squares are that are cut for them."""
        return max(self.jitter.cut_size(size) / size for size in (self.global_size, self.local_size))

    @property
    def n_views(self) -> int:
        """Views of a sample."""
        return self.n_global + self.n_local


def turned(view: Any, turn: int | np.integer) -> Any:
    """Return ``view`` [y, x, ...] under symmetry ``turn`` of the square, 0 to 7: a view into the same memory."""
    view = view.swapaxes(0, 1) if turn & 1 else view
    view = view[:, ::-1] if turn & 2 else view
    return view[::-1] if turn & 4 else view


def cut(
    draw: Draw,
    l: float,
    m: float,
    side: float,
    size: int,
    stretch: Stretches | None = None,
    out: Float32[np.ndarray, "{size} {size} channel"] | None = None,
) -> Float32[np.ndarray, "{size} {size} channel"]:
    """Return the square of angle ``side`` around direction cosines (``l``, ``m``) in ``size`` pixels.

    Parameters
    ----------
    draw : Draw
        The images to cut from.
    l, m : float
        Centre relative to the reference pixel of the draw, direction cosines.
    side : float
        Angle on the sky in rad.
    size : int
        Pixels a side of the result.
    stretch : Stretch or sequence of Stretch, optional
        Default: none, Jy/beam. Of several, each gives the channels of the draw once more.
    out : float32 [size, size, channel], optional
        Where to write.

    Returns
    -------
    float32 [size, size, channel]
        Bilinear with antialiasing; see :func:`vis2img.views.resample.resample`.

    Raises
    ------
    ParameterError
        If the square reaches beyond the image.
    """
    count, ny, nx = draw.data.shape
    left, lower, width = square_of(draw, l, m, side)
    if not _inside(draw, left, lower, width):
        x, y = left + width / 2 - 0.5, lower + width / 2 - 0.5
        raise ParameterError(f"the patch at pixel ({x:.1f}, {y:.1f}) reaches beyond the {nx} x {ny} image")
    stretches = stretches_of(stretch)
    if out is None:
        out = np.empty((size, size, count * max(1, len(stretches))), np.float32)
    for channel in range(count):
        image, noise = draw.data[channel], float(draw.noise[channel])
        if not stretches:
            resample(image, left, lower, width, *PLAIN, out[:, :, channel])
        for number, each in enumerate(stretches):
            cut_stretched(image, (left, lower, width), noise, each, out[:, :, number * count + channel])
    return out


def fits(draw: Draw, l: float, m: float, side: float) -> bool:
    """Return whether a square, as :func:`cut` takes it, lies within the image."""
    return _inside(draw, *square_of(draw, l, m, side))


def _inside(draw: Draw, left: float, lower: float, width: float) -> bool:
    ny, nx = draw.data.shape[1:]
    return bool(min(left, lower) >= -1e-6 and left + width <= nx + 1e-6 and lower + width <= ny + 1e-6)


def square_of(draw: Draw, l: float, m: float, side: float) -> tuple[float, float, float]:
    """Return left and lower edge and width of a square in pixels of the draw."""
    ny, nx = draw.data.shape[1:]
    pixsize = draw.params.pixsize
    x, y = lm_to_pixel(l, m, (nx, ny), pixsize)
    width = side / pixsize
    # Pixel centres are whole numbers to the WCS; to the resampler a pixel spans [i, i + 1].
    return x + 0.5 - width / 2, y + 0.5 - width / 2, width


@dataclass(frozen=True, eq=False)
class Crop:
    """One view before it is cut: the draw, its square (direction cosines and angle, rad), and how it is turned."""

    draw: Draw
    l: float
    m: float
    side: float
    turn: int


def plan_crops(
    rng: np.random.Generator, draws: list[Draw], l: float, m: float, patch: float, config: ViewConfig
) -> list[Crop]:
    """Choose the views of one sky patch from different draws of its field.

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
    list of Crop
        Global views first.
    """
    count = config.n_views
    rounds = math.ceil(count / len(draws))
    order = np.concatenate([rng.permutation(len(draws)) for _ in range(rounds)])[:count]
    low, high = np.repeat([config.global_scale, config.local_scale], [config.n_global, config.n_local], axis=0).T
    side = patch * rng.uniform(low, high)
    shift = rng.uniform(-0.5, 0.5, (2, count)) * (patch - side)
    turns = rng.integers(TURNS, size=count) if config.rotate else np.zeros(count, int)
    return [
        Crop(draws[order[i]], l + shift[0, i], m + shift[1, i], float(side[i]), int(turns[i])) for i in range(count)
    ]
