"""What the source classes share: components in a source's own frame, before they are seen from anywhere, and places.

x runs along the radio axis (for a bent source along the tails), y across it, in units of about the length of
an arm; flux fractions add up to 1 over the source. :mod:`vis2img.simulate.sky.draw` projects, turns and scales.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vis2img.errors import ParameterError

NODES = 5  # components per jet, lobe or tail
_TRIES = 2000  # per source


@dataclass(frozen=True, eq=False)
class Part:
    """Components in a source's own frame: centre [n, 2], FWHM along and across [n, 2]; the rest [n]."""

    centre: np.ndarray
    fwhm: np.ndarray
    tilt: np.ndarray
    flux: np.ndarray
    spectral_index: np.ndarray


def core_part(rng: np.random.Generator, fraction: float) -> Part:
    """Return a point at the nucleus with a flat spectrum."""
    return Part(np.zeros((1, 2)), np.zeros((1, 2)), np.zeros(1), np.array([fraction]), rng.uniform(-0.3, 0.2, 1))


def shares(rng: np.random.Generator, core: float, ratio: float) -> list[tuple[float, float]]:
    """Return (side, flux fraction) of both sides, whose fluxes differ by up to ``ratio`` either way."""
    weight = rng.uniform(1.0, ratio) ** rng.choice([-1.0, 1.0])
    return [(1.0, (1 - core) * weight / (1 + weight)), (-1.0, (1 - core) / (1 + weight))]


def fading(rng: np.random.Generator, s: np.ndarray, decay: float, total: float) -> np.ndarray:
    """Return fluxes [n] that fall as exp(-s / decay), each up to 20% off, with the sum ``total``."""
    flux = np.exp(-s / decay) * rng.uniform(0.8, 1.2, len(s))
    return flux * total / flux.sum()


def free_place(
    rng: np.random.Generator, fov: float, size: float, places: np.ndarray, apart: np.ndarray, what: str
) -> np.ndarray:
    """Return (l, m) of a source of ``size`` inside a square of side ``fov``, ``apart`` [n] from ``places`` [n, 2].

    Raises
    ------
    ParameterError
        If there is no room; ``what`` says for what. Random packing stalls well before a field is full.
    """
    half = (fov - size) / 2
    for _ in range(_TRIES if half > 0 else 0):
        trial = rng.uniform(-half, half, 2)
        if np.all(np.hypot(*(places - trial).T) >= apart):
            return trial
    raise ParameterError(
        f"no room for {what} in a field of {np.degrees(fov):.3g} degrees; "
        "use fewer or smaller ones, a smaller min_separation or a larger fov"
    )


def loguniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw one number that is uniform in its logarithm."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
