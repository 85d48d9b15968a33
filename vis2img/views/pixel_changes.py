"""What is done to the pixels of a view, besides cropping, flipping and quarter turns: the image-only way.

Rotation by any angle, blur, noise, jitter of brightness and contrast, cut-off noise and erased squares, as in
self-supervised learning on survey cutouts (Slijepcevic et al. 2024, RASTI 3, 19) and on photographs (Grill et al.
2020, arXiv:2006.07733, app. B; erasing: Zhong et al. 2020, arXiv:1708.04896). All of it is done to flux densities in
units of the noise of the picture, before they are stretched. It is the augmentation that variation of the imaging is
measured against, and views of fields can vary so, too (:func:`cut_changed`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numba import njit

from vis2img.errors import ParameterError
from vis2img.random import log_uniform
from vis2img.views.crops import Crop, cut, fits
from vis2img.views.resample import fill_turned, turn_middle
from vis2img.views.stretch import Stretches, stretch_view, stretches_of

Range = tuple[float, float]
_LIMITS = {
    "noise": (0.0, 10.0),
    "gain": (0.1, 10.0),
    "offset": (-10.0, 10.0),
    "blur": (0.0, 10.0),
    "clip": (0.0, 10.0),
    "erase": (0.0, 0.5),
    "zoom": (0.2, 5.0),
    "power": (0.1, 10.0),
}
_MOST_SHIFT = 0.5  # of the side of a view
_CHANCES = ("blur_probability", "clip_probability", "erase_probability")
_FARTHEST = 3.0  # sigma at which the Gaussian of the blur ends
_MARGIN = 3  # pixels that a cubic needs beyond the corners of a turned view


@dataclass(frozen=True)
class CutoutAugment:
    """How views of cutouts vary, besides crops, flips and quarter turns (views); each view by itself, uniformly.

    A range whose ends agree fixes the value. Without arguments views are turned by any angle, and nothing else.
    """

    rotate: bool = True
    """Whether each view is turned by any angle about the middle of its picture; sources have no preferred one."""
    zoom: Range = (1.0, 1.0)
    """Factor by which what a view shows is enlarged, besides the scale of its crop; log-uniform, from 0.2 to 5. Below 1
    a view may show more than its patch."""
    shift: float = 0.0
    """How far a view is shifted at most along each axis, as a fraction of its own side, besides the place of its crop;
    from 0 to 0.5."""
    beyond: Literal["mirror", "background"] = "mirror"
    """What views show beyond the edge of a picture, where turns, zoom and shift lead there (never by turns alone with a
    patch_npix of at most 0.7 of its side): mirror; background, and then pictures smaller than a patch are used."""
    noise: Range = (0.0, 0.0)
    """Sigma of white noise added to the pixels of a view, times the noise of the picture; from 0 to 10."""
    gain: Range = (1.0, 1.0)
    """Factor on the brightness, which the stretch makes one of contrast; log-uniform, from 0.1 to 10."""
    offset: Range = (0.0, 0.0)
    """Brightness added everywhere, times the noise of the picture; from -10 to 10."""
    blur: Range = (0.5, 1.5)
    """Sigma of a Gaussian blur in pixels of the picture; from 0 to 10."""
    blur_probability: float = 0.0
    """How often a view is blurred, from 0 to 1."""
    clip: Range = (2.0, 4.0)
    """Threshold below which pixels are set to 0, times the noise of the picture, as in pictures whose noise was cut
    off; from 0 to 10."""
    clip_probability: float = 0.0
    """How often a view is cut off so, from 0 to 1."""
    erase: Range = (0.02, 0.15)
    """Part of the area of a view that is set to 0, a rectangle at a random place; from 0 to 0.5."""
    erase_probability: float = 0.0
    """How often a part is erased, from 0 to 1."""
    power: Range = (1.0, 1.0)
    """Exponent on the brightness that the network sees: of pixels divided by the brightest of their view, which stays;
    log-uniform, from 0.1 to 10. Below 1 what is faint comes out."""

    def __post_init__(self) -> None:
        for name, (least, most) in _LIMITS.items():
            low, high = getattr(self, name)
            if not least <= low <= high <= most:
                raise ParameterError(
                    f"augment.{name} = ({low:g}, {high:g}) must be (low, high) from {least:g} to {most:g}, low <= high"
                )
        for name in _CHANCES:
            if not 0 <= getattr(self, name) <= 1:
                raise ParameterError(f"augment.{name} = {getattr(self, name):g} must be from 0 to 1")
        if not 0 <= self.shift <= _MOST_SHIFT:
            raise ParameterError(f"augment.shift = {self.shift:g} must be from 0 to {_MOST_SHIFT:g}")
        if self.beyond not in ("mirror", "background"):
            raise ParameterError(f"augment.beyond {self.beyond!r} is unknown; use mirror or background")

    def draw(self, rng: np.random.Generator) -> ViewChange:
        """Return what is done to one view; each choice takes its random numbers whether it varies or not.

        But zoom, shift and power, which came later: runs that were started without them go on as they were.
        """
        angle = rng.uniform(0.0, 2 * math.pi)
        noise, offset = rng.uniform(*self.noise), rng.uniform(*self.offset)
        gain = log_uniform(rng, self.gain)
        blur, clip, area = (rng.uniform(*getattr(self, name)) for name in ("blur", "clip", "erase"))
        blurred, clipped, erased = rng.random(3) < [getattr(self, name) for name in _CHANCES]
        shape, x, y = rng.random(3)
        zoom = 1.0 if self.zoom == (1.0, 1.0) else log_uniform(rng, self.zoom)
        shift = rng.uniform(-self.shift, self.shift, 2) if self.shift else (0.0, 0.0)
        power = 1.0 if self.power == (1.0, 1.0) else log_uniform(rng, self.power)
        return ViewChange(
            angle=angle if self.rotate else 0.0,
            noise=noise,
            gain=gain,
            offset=offset,
            blur=blur if blurred else 0.0,
            clip=clip if clipped else 0.0,
            erase=_rectangle(area, shape, x, y) if erased else (0.0, 0.0, 0.0, 0.0),
            zoom=zoom,
            shift=(float(shift[0]), float(shift[1])),
            power=power,
            mirror=self.beyond == "mirror",
        )


@dataclass(frozen=True)
class ViewChange:
    """What is done to one view.

    Parameters
    ----------
    angle : float
        Turn about the middle of the picture, rad.
    noise, offset, clip : float
        In units of the noise of the picture.
    gain : float
        Factor.
    blur : float
        Sigma in pixels of the picture.
    erase : (float, float, float, float)
        Left, lower, width and height of a rectangle as fractions of the view; nothing where it has no width.
    zoom : float
        Factor by which what is shown is enlarged.
    shift : (float, float)
        Along x and y, before the turn, as a fraction of the side after the zoom.
    power : float
        Exponent on the pixels of the stretched view, over their largest magnitude.
    mirror : bool
        Whether the picture is mirrored beyond its edge; else there is background.
    """

    angle: float = 0.0
    noise: float = 0.0
    gain: float = 1.0
    offset: float = 0.0
    blur: float = 0.0
    clip: float = 0.0
    erase: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    zoom: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    power: float = 1.0
    mirror: bool = True

    def placed(self, x: float, y: float, side: float) -> tuple[float, float, float]:
        """Return the middle and side, in their unit, of a square that is zoomed and shifted."""
        side = side / self.zoom
        return x + self.shift[0] * side, y + self.shift[1] * side, side

    @property
    def stays_near(self) -> bool:
        """Whether a view shows no more than the corners of its patch beyond a picture, mirrored."""
        return self.mirror and self.zoom == 1.0 and not any(self.shift)

    @property
    def of_pixels(self) -> bool:
        """Whether pixel values change before they are stretched, besides by turn, zoom and shift."""
        return bool(self.noise or self.offset or self.blur or self.clip or self.erase[2] or self.gain != 1.0)


def _rectangle(area: float, shape: float, x: float, y: float) -> tuple[float, float, float, float]:
    """Return a rectangle within the unit square: of an area, up to twice as long as wide, at a place (0 to 1)."""
    ratio = 2.0 ** (2 * shape - 1)
    width, height = min(1.0, math.sqrt(area * ratio)), min(1.0, math.sqrt(area / ratio))
    return x * (1 - width), y * (1 - height), width, height


def change_pixels(view: np.ndarray, change: ViewChange, sigma: float, rng: np.random.Generator) -> None:
    """Blur, scale, add to, cut off and erase a view, in this order, in place.

    Parameters
    ----------
    view : float32 [size, size]
        In units of the noise of the picture.
    change : ViewChange
    sigma : float
        The blur in pixels of the view.
    rng : numpy Generator
        Of the noise.
    """
    size = len(view)
    if sigma > 0:
        _blur(view, _gaussian(sigma))
    if change.gain != 1.0:
        view *= np.float32(change.gain)
    if change.noise > 0:
        view += np.float32(change.noise) * rng.standard_normal(view.shape, np.float32)
    if change.offset:
        view += np.float32(change.offset)
    if change.clip > 0:
        view[view < change.clip] = 0.0
    left, lower, width, height = change.erase
    if width:
        edges = np.rint(np.array([left, left + width, lower, lower + height]) * size).astype(int)
        view[edges[2] : edges[3], edges[0] : edges[1]] = 0.0


def raise_to(view: np.ndarray, power: float) -> None:
    """Raise the pixels of a stretched view to a power over their largest magnitude, in place; signs stay.

    Parameters
    ----------
    view : float32 [...]
    power : float
        Exponent; 1 changes nothing.
    """
    if power == 1.0:
        return
    size = np.abs(view)
    peak = size.max()
    if peak > 0:
        size /= peak
        np.power(size, np.float32(power), out=size)
        size *= peak
        np.copysign(size, view, out=view)


def cut_changed(
    crop: Crop, size: int, stretch: Stretches, change: ViewChange, rng: np.random.Generator, out: np.ndarray
) -> tuple[float, tuple[float, float, float]]:
    """Cut a view of a draw and change it; return the angle by which it was turned, and its middle and side.

    Parameters
    ----------
    crop : Crop
        Where it lies. Where zoom and shift would lead beyond the image, it is neither zoomed nor shifted; where its
        corners would be turned beyond it, it is not turned.
    size : int
        Pixels a side.
    stretch : Stretch or sequence of Stretch
        Each gives the channels of the draw once more.
    change : ViewChange
        Noise, offset and clip in units of the noise of the draw; blur in pixels of the draw.
    rng : numpy Generator
        Of the noise.
    out : float32 [size, size, channel]
        Where to write.

    Returns
    -------
    float
        rad.
    (float, float, float)
        Direction cosines of the middle before the turn, and side in rad.
    """
    draw, near = crop.draw, change.stays_near
    box = change.placed(crop.l, crop.m, crop.side)
    if not fits(draw, *box):
        box = crop.l, crop.m, crop.side
    l, m, side = box
    step = side / size
    wide = math.ceil(size * math.sqrt(2)) + 2 * _MARGIN
    if not fits(draw, l, m, wide * step):
        change = replace(change, angle=0.0)
    square = cut(draw, l, m, wide * step, wide) if change.angle else cut(draw, l, m, side, size)
    if not near and not draw.usable.all():  # a view may show more than its patch, in which nothing is blank
        square[~np.isfinite(square)] = 0.0
    for channel in range(square.shape[-1]):
        view = np.ascontiguousarray(square[:, :, channel])
        view /= np.float32(draw.noise[channel])
        if change.angle:
            wider, view = view, np.empty((size, size), np.float32)
            if near:  # as it was before there were zoom and shift, to the last bit
                fill_turned(wider, 0.0, 0.0, size / 2, change.angle, 0.0, view)
            else:
                turn_middle(wider, change.angle, view)
        change_pixels(view, change, change.blur * draw.params.pixsize / step, rng)
        for number, each in enumerate(stretches_of(stretch)):
            stretched = out[:, :, number * square.shape[-1] + channel]
            stretch_view(view, each, stretched)
            raise_to(stretched, change.power)
    return change.angle, box


def _gaussian(sigma: float) -> np.ndarray:
    """Return a Gaussian float32 [odd] of sum 1."""
    reach = max(1, math.ceil(_FARTHEST * sigma))
    weight = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return (weight / weight.sum()).astype(np.float32)


@njit(nogil=True, cache=True, fastmath=True)
def _blur(view: np.ndarray, weight: np.ndarray) -> None:  # pragma: no cover - compiled
    """Convolve ``view`` with ``weight`` along both axes, in place; beyond the edge the edge goes on."""
    ny, nx = view.shape
    reach = len(weight) // 2
    padded = np.empty((ny, nx + 2 * reach), np.float32)
    for j in range(ny):
        for i in range(nx + 2 * reach):
            padded[j, i] = view[j, min(max(i - reach, 0), nx - 1)]
    along = np.empty((ny, nx), np.float32)
    for j in range(ny):
        for i in range(nx):
            along[j, i] = weight[0] * padded[j, i]
        for k in range(1, 2 * reach + 1):
            for i in range(nx):
                along[j, i] += weight[k] * padded[j, i + k]
    for j in range(ny):
        for i in range(nx):
            view[j, i] = 0.0
        for k in range(2 * reach + 1):
            source = min(max(j + k - reach, 0), ny - 1)
            for i in range(nx):
                view[j, i] += weight[k] * along[source, i]
