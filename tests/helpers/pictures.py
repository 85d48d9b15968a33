"""Pictures as surveys store them."""

from __future__ import annotations

import numpy as np


def noisy_pictures(count: int = 7, npix: int = 48, seed: int = 0) -> np.ndarray:
    """Noise of 4 units and a source in the middle, int16 [n, y, x], as surveys are stored."""
    y, x = np.indices((npix, npix)) - (npix - 1) / 2
    source = np.exp(-((x / 3) ** 2 + (y / 1.5) ** 2) / 2)
    noise = np.random.default_rng(seed).normal(scale=4.0, size=(count, npix, npix))
    return np.rint(noise + 200 * np.arange(1, count + 1)[:, None, None] * source).astype(np.int16)
