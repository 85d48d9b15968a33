"""Start from weights of others: published DINO, DINOv2 or timm files, or our own exports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vis2img.errors import Vis2imgError
from vis2img.train.weights.files import read_weights
from vis2img.train.weights.names import from_torch


def load_pretrained(
    variables: Mapping[str, Any], path: str | Path, key: str = "teacher", patch: int | None = None
) -> dict[str, Any]:
    """Return a backbone's variables with the values in a file of weights.

    Parameters
    ----------
    variables : mapping
        ``{"params": ..., "batch_stats": ...}`` of the backbone, arrays or their shapes.
    path : path
        PyTorch's ``.pth`` or safetensors; nothing in it is executed.
    key : str
        Which network of a full checkpoint: "teacher" or "student".
    patch : int, optional
        Patch side [pixel] of the model, to be compared with the file's.

    Returns
    -------
    dict
        Like ``variables``, with float32 NumPy arrays.

    Raises
    ------
    Vis2imgError
        If the file cannot be read or is of another network; one line with file, key and remedy.
    """
    try:
        arrays = read_weights(path)
    except ValueError as error:
        raise Vis2imgError(str(error)) from error
    except OSError as error:
        raise Vis2imgError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        return from_torch(arrays, variables, key, patch)
    except ValueError as error:
        raise Vis2imgError(f"{path}: {error}") from error
