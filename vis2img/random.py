"""Random streams: every number that tells one stream from another."""

from __future__ import annotations

import numpy as np


def draw_rng(seed: int, field: int, index: int) -> np.random.Generator:
    """Return the generator of draw ``index`` of ``field`` in a run with ``seed``."""
    return np.random.default_rng(np.random.SeedSequence([seed, field, index]))
