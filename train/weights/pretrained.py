"""Start from weights of others (see `vis2img.train.weights.families`), or from our own exports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vis2img.errors import Vis2imgError
from vis2img.models.positions import Resizing
from vis2img.train.weights.describe import Architecture, describe
from vis2img.train.weights.families import read_backbone
from vis2img.train.weights.files import read_header, read_weights
from vis2img.train.weights.names import from_torch, native_side


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
    arrays, metadata = _read(path)
    try:
        return from_torch(arrays, variables, key, patch, metadata)
    except ValueError as error:
        raise Vis2imgError(f"{path}: {error}") from error


def learned_positions(
    path: str | Path, model: Architecture, key: str = "teacher"
) -> tuple[Resizing | None, int | None]:
    """Return how the network of a file of weights resizes its positions, and the image size [pixel] they are of.

    Both are None of a residual network.

    Raises
    ------
    Vis2imgError
        If the file cannot be read, or is of another network than ``model``.
    """
    arrays, metadata = _read(path)
    try:
        backbone = read_backbone(arrays, key, metadata)
        found = describe(backbone.arrays)
        advice = found.advice(model)
        if advice:
            raise Vis2imgError(f"{path}{advice}")
        if found.patch is None or "pos_embed" not in backbone.arrays:
            return None, None
        return backbone.positions, found.patch * native_side(backbone.arrays)[1]
    except ValueError as error:
        raise Vis2imgError(f"{path}: {error}") from error


def _read(path: str | Path) -> tuple[dict[str, Any], dict[str, str] | None]:
    try:
        return read_weights(path), read_header(path)
    except ValueError as error:
        raise Vis2imgError(str(error)) from error
    except OSError as error:
        raise Vis2imgError(f"{path} cannot be read: {error.strerror or error}") from error
