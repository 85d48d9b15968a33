"""The explicit transform: what visibilities and images are by definition, with constants of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LIGHT_SPEED = 299792458.0  # m/s


def dft(uvw: np.ndarray, freq: np.ndarray, sources: Sequence[tuple[float, float, float]]) -> np.ndarray:
    """Return the visibilities complex128 [row, chan] of point ``sources`` (Jy, l, m), term by term."""
    total = np.zeros((len(uvw), len(freq)), complex)
    for flux, l, m in sources:
        path = uvw[:, 0] * l + uvw[:, 1] * m + uvw[:, 2] * (np.sqrt(1 - l * l - m * m) - 1)
        total += flux * np.exp(2j * np.pi * np.outer(path, freq) / LIGHT_SPEED)
    return total
