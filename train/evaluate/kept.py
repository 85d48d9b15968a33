"""Predictions that took long, kept on disk under a name that tells what they are of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from vis2img.files import atomic_output


def kept(folder: Path | None, inputs: object, predict: Callable[[], np.ndarray]) -> np.ndarray:
    """Return what ``predict`` returns, from ``folder`` where the same ``inputs`` were asked before.

    Parameters
    ----------
    folder : Path, optional
        Made where it is missing; None: nothing is kept.
    inputs : tree of arrays and values
        All that the predictions depend on; what is no array counts by its text.
    predict : callable
    """
    if folder is None:
        return predict()
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(inputs):
        array = np.asarray(leaf) if hasattr(leaf, "dtype") else None
        digest.update(repr(leaf if array is None else (array.shape, str(array.dtype))).encode())
        if array is not None:
            digest.update(np.ascontiguousarray(array).tobytes())
    path = folder / f"{digest.hexdigest()[:24]}.npy"
    if path.exists():
        return np.load(path, allow_pickle=False)
    predicted = predict()
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_output(path, overwrite=True) as temporary, temporary.open("wb") as file:
        np.save(file, predicted, allow_pickle=False)
    return predicted
