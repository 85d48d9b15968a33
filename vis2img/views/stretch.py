"""How pixel values become what a network sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vis2img.errors import ParameterError
from vis2img.shapes import Float32, Float64, Num
from vis2img.views.resample import ASINH, LINEAR, POWER, over_peak, resample

_KINDS = ("asinh", "power", "linear", "peak", "quantile")
_UNIT_SIGMA = 5.0  # how many times the noise a pixel must be to become about 1
_CLIP_OF_PEAK = 3.0  # of what is divided by its peak
_MOST_CLIP, _MOST_GAMMA = 1000.0, 4.0


@dataclass(frozen=True)
class Stretch:
    """How flux densities become pixel values: in units of the noise of their draw, bright ones compressed."""

    kind: Literal["asinh", "power", "linear", "peak", "quantile"] = "asinh"
    """asinh: linear below softening times the noise, logarithmic above; power: a power law; linear: as it is; peak:
    over the largest pixel of the view, so that brightness is gone and shape is left; quantile: 0 and 1 are two
    quantiles of the view, and what is beyond them."""
    softening: float = 10.0
    """Of asinh, in units of the noise: s arcsinh(x / s noise) / 5."""
    power: float = 0.5
    """Exponent of the power law: sign(x) abs(x / 5 noise)^power."""
    clip: float | None = None
    """Pixels of the view below so many times the noise of the draw or picture become 0 before all else; 0: none do;
    default: 3 of kind peak, 0 of the others."""
    gamma: float = 1.0
    """Exponent of what peak and quantile make; below 1 faint parts come out."""
    quantiles: tuple[float, float] = (0.5, 0.999)
    """Of quantile: shares of the pixels of the view that are fainter than what becomes 0, and 1."""

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ParameterError(f"stretch kind {self.kind!r} is unknown; use {', '.join(_KINDS[:-1])} or {_KINDS[-1]}")
        if not self.softening > 0 or not 0 < self.power <= 1:
            raise ParameterError("stretch softening must be positive, and power above 0 and at most 1")
        if self.clip is not None and not 0 <= self.clip < _MOST_CLIP:
            raise ParameterError(
                f"stretch clip = {self.clip:g} must be from 0 (none) to {_MOST_CLIP:g} times the noise"
            )
        if not 0 < self.gamma <= _MOST_GAMMA:
            raise ParameterError(f"stretch gamma = {self.gamma:g} must be above 0 and at most {_MOST_GAMMA:g}")
        low, high = self.quantiles
        if not 0 <= low < high <= 1:
            raise ParameterError(f"stretch quantiles = ({low:g}, {high:g}) must be from 0 to 1, the lower one first")

    @property
    def floor(self) -> float:
        """What pixels are clipped below, times the noise; 0: not at all."""
        return self.clip if self.clip is not None else _CLIP_OF_PEAK if self.kind == "peak" else 0.0

    @property
    def of_view(self) -> bool:
        """Whether what a pixel becomes depends on the others of its view."""
        return self.kind in ("peak", "quantile")

    @property
    def shown(self) -> tuple[float, float]:
        """Pixel values that pictures of views show as black, and as white where nothing is brighter."""
        return (0.0, 1.0) if self.of_view else (-3 / _UNIT_SIGMA, 10 / _UNIT_SIGMA)

    def factors(self, noise: float) -> tuple[int, float, float, float, float]:
        """Return kind, scale, gain, exponent and floor for :func:`vis2img.views.resample.resample`.

        Of what depends on the whole view it is the part before: pixels in units of the noise.
        """
        floor = self.floor * noise
        if self.of_view:
            return LINEAR, 1.0, 1 / noise, 1.0, floor
        if self.kind == "asinh":
            return ASINH, 1 / (self.softening * noise), self.softening / _UNIT_SIGMA, 1.0, floor
        if self.kind == "power":
            return POWER, 1 / (_UNIT_SIGMA * noise), 1.0, self.power, floor
        return LINEAR, 1.0, 1 / (_UNIT_SIGMA * noise), 1.0, floor


Stretches = Stretch | Sequence[Stretch]


def stretches_of(stretch: Stretches | None) -> tuple[Stretch, ...]:
    """Return none, one or several stretches as a tuple."""
    return () if stretch is None else (stretch,) if isinstance(stretch, Stretch) else tuple(stretch)


def cut_stretched(
    image: np.ndarray, square: tuple[float, float, float], noise: float, stretch: Stretch, out: np.ndarray
) -> None:
    """Fill ``out`` with a square of an image, resampled, clipped and stretched, in this order.

    Pixels are clipped after they were resampled, by the noise of the whole draw or picture: the same number for every
    view of it. The noise that is left in a view is less the more pixels are averaged, so that a view of few pixels
    keeps faint extended emission that one of many loses.

    Parameters
    ----------
    image : float32 [y, x]
        Its background is 0.
    square : (float, float, float)
        Left, lower edge and side in pixels of the image, within it.
    noise : float
        Of the image, in its unit.
    stretch : Stretch
    out : float32 [size, size]
        Any strides.
    """
    left, lower, side = square
    resample(image, left, lower, side, *stretch.factors(noise), out)
    if stretch.of_view:
        _stretch_whole(out, stretch)


def stretch_view(view: np.ndarray, stretch: Stretch, out: np.ndarray) -> None:
    """Fill ``out`` with a view that was cut and changed already, clipped and stretched.

    Parameters
    ----------
    view : float32 [size, size]
        In units of the noise of the draw or picture.
    stretch : Stretch
    out : float32 [size, size]
        Any strides.
    """
    out[...] = stretched(view[..., np.newaxis], 1.0, stretch)[..., 0]


def stretched(
    data: Num[np.ndarray, "*place channel"], noise: Float64[np.ndarray, " _"] | float, stretch: Stretch
) -> Float32[np.ndarray, "*place channel"]:
    """Return pixel values of flux densities; a faint pixel of 5 sigma becomes about 1, but for peak and quantile.

    Parameters
    ----------
    data : float32 [..., channel]
        Jy/beam; for what depends on the whole view, [y, x, channel].
    noise : float64 [channel] or float
        Of each channel, Jy/beam.
    stretch : Stretch
        arcsinh as Lupton et al. 1999, AJ 118, 1406, in units of the noise. Clipped at 3 sigma and divided by the peak
        as MiraBest is (Porter & Scaife 2023, RASTI 2, 293).
    """
    x = np.asarray(data) / np.asarray(noise)
    if stretch.floor > 0:
        x = np.where(x < stretch.floor, np.zeros((), x.dtype), x)
    if stretch.kind == "asinh":
        x = np.arcsinh(x / stretch.softening) * (stretch.softening / _UNIT_SIGMA)
    elif stretch.kind == "power":
        x = np.sign(x) * np.abs(x / _UNIT_SIGMA) ** stretch.power
    elif stretch.kind == "linear":
        x = x / _UNIT_SIGMA
    x = x.astype(np.float32)
    if stretch.of_view:
        for channel in range(x.shape[-1]):
            _stretch_whole(x[..., channel], stretch)
    return x


def _stretch_whole(view: np.ndarray, stretch: Stretch) -> None:
    """Do in place what depends on all pixels of a view [y, x], which is clipped and in units of the noise."""
    if stretch.kind == "peak":
        over_peak(view, stretch.gamma)
        return
    low, high = map(np.float32, np.quantile(view, stretch.quantiles))
    # Where most pixels are alike, as where noise was clipped, the brightest is 1.
    high = high if high > low else view.max()
    if not high > low:
        view[...] = 0.0
        return
    view -= low
    view /= high - low
    np.clip(view, 0.0, 1.0, out=view)
    if stretch.gamma != 1.0:
        view **= np.float32(stretch.gamma)
