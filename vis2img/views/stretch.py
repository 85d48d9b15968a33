"""How pixel values become what a network sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from vis2img.errors import ParameterError
from vis2img.shapes import Float32, Float64, Num
from vis2img.views.resample import ASINH, LINEAR, POWER

_UNIT_SIGMA = 5.0  # how many times the noise a pixel must be to become about 1


@dataclass(frozen=True)
class Stretch:
    """How flux densities become pixel values: in units of the noise of their draw, bright ones compressed."""

    kind: Literal["asinh", "power", "linear"] = "asinh"
    """asinh: linear below softening times the noise, logarithmic above; power: a power law; linear: as it is."""
    softening: float = 10.0
    """Of asinh, in units of the noise: s arcsinh(x / s noise) / 5."""
    power: float = 0.5
    """Exponent of the power law: sign(x) abs(x / 5 noise)^power."""

    def __post_init__(self) -> None:
        if self.kind not in ("asinh", "power", "linear"):
            raise ParameterError(f"stretch kind {self.kind!r} is unknown; use asinh, power or linear")
        if not self.softening > 0 or not 0 < self.power <= 1:
            raise ParameterError("stretch softening must be positive, and power above 0 and at most 1")

    def factors(self, noise: float) -> tuple[int, float, float, float]:
        """Return kind, scale, gain and exponent for :func:`vis2img.views.resample.resample`."""
        if self.kind == "asinh":
            return ASINH, 1 / (self.softening * noise), self.softening / _UNIT_SIGMA, 1.0
        if self.kind == "power":
            return POWER, 1 / (_UNIT_SIGMA * noise), 1.0, self.power
        return LINEAR, 1.0, 1 / (_UNIT_SIGMA * noise), 1.0


def stretched(
    data: Num[np.ndarray, "*place channel"], noise: Float64[np.ndarray, " _"] | float, stretch: Stretch
) -> Float32[np.ndarray, "*place channel"]:
    """Return pixel values of flux densities; a faint pixel of 5 sigma becomes about 1.

    Parameters
    ----------
    data : float32 [..., channel]
        Jy/beam.
    noise : float64 [channel] or float
        Of each channel, Jy/beam.
    stretch : Stretch
        arcsinh as Lupton et al. 1999, AJ 118, 1406, in units of the noise.
    """
    x = np.asarray(data) / np.asarray(noise)
    if stretch.kind == "asinh":
        x = np.arcsinh(x / stretch.softening) * (stretch.softening / _UNIT_SIGMA)
    elif stretch.kind == "power":
        x = np.sign(x) * np.abs(x / _UNIT_SIGMA) ** stretch.power
    else:
        x = x / _UNIT_SIGMA
    return x.astype(np.float32)
