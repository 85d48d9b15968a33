"""Names and layouts of PyTorch's weights, and those of the networks here: plain arrays, both ways.

Read are the names of all that `vis2img.train.weights.families` knows; written are those of timm, which for a ResNet are
torchvision's. Matrices are transposed, as PyTorch
keeps (out, in); convolutions go from (out, in, y, x) to (y, x, in, out), and that of the patches on to a matrix over
(y, x, channel).
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vis2img.models.positions import Resizing, resize_positions
from vis2img.train.weights.describe import Architecture, architecture, describe
from vis2img.train.weights.families import read_backbone

__all__ = ["Architecture", "describe", "from_torch", "to_timm"]

_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_RENAMES = (
    (r"^block(\d+)\.", lambda match: f"blocks.{int(match[1])}."),
    (r"\.(fc\d)\.", r".mlp.\1."),
    (r"\.(ls\d)$", r".\1.gamma"),
    (r"^registers$", "reg_token"),
    (r"^patch_embed\.", "patch_embed.proj."),
    (r"^layer(\d)_(\d+)\.", r"layer\1.\2."),
    (r"\.downsample_conv\.", ".downsample.0."),
    (r"\.downsample_bn\.", ".downsample.1."),
)
_STEMS = ("patch_embed.proj.weight", "conv1.weight")
_RGB = 3


def from_torch(
    arrays: Mapping[str, Any],
    template: Mapping[str, Any],
    key: str = "teacher",
    patch: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the variables of a backbone from PyTorch's arrays.

    Projection heads and classifiers are left out. The stem of an RGB network is adapted to another number of
    channels (`adapt_stem`). Positions are resized as the code of the file resizes them if the grid of the template is
    another one; what computes at several sizes had better keep the grid of the file, as the published networks do.
    Positions of timm without one for the class token get zero for it. A mask token, which only training needs, and the
    query of attention pooling are zero if the file has none.

    Parameters
    ----------
    arrays : mapping
        Names to arrays, or a full checkpoint with such mappings inside; see `vis2img.train.weights.files.read_weights`.
    template : mapping
        ``{"params": ..., "batch_stats": ...}`` of the backbone, arrays or their shapes.
    key : str
        Which network of a full checkpoint to take.
    patch : int, optional
        Patch side [pixel] of the model. Shapes alone cannot tell 8 pixels of one channel from 4 pixels of four, so
        without it the file's is believed.
    metadata : mapping, optional
        Header of a safetensors file; see `vis2img.train.weights.families.read_backbone`.

    Returns
    -------
    dict
        Like the template, with float32 arrays.

    Raises
    ------
    ValueError
        If a key is missing, unexpected or of the wrong shape; the message names it and the likely cause.
    """
    backbone = read_backbone(arrays, key, metadata)
    source = {name: np.asarray(value, np.float32) for name, value in backbone.arrays.items()}
    wanted = {torch_name(path): (path, leaf) for path, leaf in flatten_dict(template).items()}
    cause = _cause(source, wanted, patch)
    # (1, D) in DINOv2 and iBOT.
    blank = np.zeros_like(source["cls_token"]) if "cls_token" in source else np.zeros(1, np.float32)
    source["mask_token"] = source.get("mask_token", blank).reshape(1, 1, -1)
    if "pool.query" in wanted:  # of attention, which others do not have: it starts as the mean
        source.setdefault("pool.query", np.zeros(wanted["pool.query"][1].shape, np.float32))
    if "pos_embed" in source and "pos_embed" in wanted:
        source |= _with_positions(source, math.isqrt(wanted["pos_embed"][1].shape[1] - 1), backbone.positions)
    variables = {
        path: _convert(name, source[name], leaf.shape, patch, cause)
        for name, (path, leaf) in wanted.items()
        if name in source
    }
    # After the shapes, which say more of the cause.
    _check_names(source, wanted, cause)
    return {**{collection: {} for collection in template}, **unflatten_dict(variables)}


def _check_names(source: Mapping[str, np.ndarray], wanted: Mapping[str, Any], cause: str) -> None:
    missing = [name for name in wanted if name not in source]
    extra = [name for name in source if name not in wanted and name != "mask_token"]
    for names, words in ((missing, "is not in the file"), (extra, "is in the file, but not in the model here")):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            array = wanted[names[0]][1] if names[0] in wanted else source[names[0]]
            raise ValueError(f"{names[0]} of shape {tuple(array.shape)}{more} {words}{cause}")


def to_timm(variables: Mapping[str, Any], patch: int | None = None) -> dict[str, np.ndarray]:
    """Return a backbone's variables with the names and layouts of timm, without a mask token.

    With registers, as timm's ``vit_*_reg4_dinov2``: the position of the class token is added to the token itself, and
    the positions are those of the patches (``no_embed_class=True``).

    Parameters
    ----------
    variables : mapping
        ``{"params": ..., "batch_stats": ...}``.
    patch : int
        Patch side [pixel] of a ViT.

    Raises
    ------
    ValueError
        If it is a ViT and the patch is missing or does not divide its kernel.
    """
    arrays = {}
    for path, leaf in flatten_dict(variables).items():
        name, array = torch_name(path), np.asarray(leaf, np.float32)
        if name == _STEMS[0]:
            if not patch or array.shape[0] % patch**2:
                raise ValueError(f"a kernel over {array.shape[0]} numbers a patch is not of patches of {patch} pixels")
            array = array.reshape(patch, patch, -1, array.shape[1])
        if array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
        arrays[name] = np.ascontiguousarray(array.T if array.ndim == 2 else array)
    arrays.pop("mask_token", None)
    if "reg_token" in arrays:
        positions = arrays["pos_embed"]
        arrays["cls_token"] = arrays["cls_token"] + positions[:, :1]
        arrays["pos_embed"] = np.ascontiguousarray(positions[:, 1:])
    return arrays


def torch_name(path: tuple[str, ...]) -> str:
    """Return the name in PyTorch of a leaf, given its path below "params" or "batch_stats"."""
    *_, last = path
    name = ".".join((*path[1:-1], _LEAVES.get(last, last)))
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def adapt_stem(weight: np.ndarray, channels: int) -> np.ndarray:
    """Adapt an RGB convolution (out, 3, y, x) to another number of channels.

    As ``adapt_input_conv`` of timm (``timm/models/_manipulate.py``): one channel gets the sum over the colours, so
    that the output is that of a grey image; several get them in turn, times 3 / ``channels``, so that the sum over
    channels, and with it the scale of the output, is kept (for multiples of three exactly).

    Raises
    ------
    ValueError
        If ``weight`` is not of three channels, nor of as many as wanted.
    """
    have = weight.shape[1]
    if have == channels:
        return weight
    if have != _RGB:
        raise ValueError(f"its images have {have} channels and those here {channels}; only RGB can be adapted")
    if channels == 1:
        return weight.sum(axis=1, keepdims=True)
    return weight[:, np.arange(channels) % _RGB] * np.float32(_RGB / channels)


def _convert(name: str, array: np.ndarray, shape: tuple[int, ...], patch: int | None, cause: str) -> np.ndarray:
    """Bring one array to the layout here."""
    where = f"{name} is {array.shape} in the file and {tuple(shape)} here"
    out = array
    if array.ndim == 4:
        if name in _STEMS:
            side = array.shape[-1]
            channels, rest = divmod(shape[0], side * side) if name == _STEMS[0] else (shape[2], 0)
            if rest or not channels or (name == _STEMS[0] and patch not in (None, side)):
                raise ValueError(f"{where}{cause or ': another patch size'}")
            try:
                out = adapt_stem(array, channels)
            except ValueError as error:
                raise ValueError(f"{where}{cause or f': {error}'}") from error
        out = out.transpose(2, 3, 1, 0)
        out = out.reshape(-1, out.shape[-1]) if name == _STEMS[0] else out
    elif array.ndim == 2:
        out = array.T
    if out.shape != tuple(shape):
        raise ValueError(where + cause)
    if not np.isfinite(out).all():
        raise ValueError(f"{name} has values that are not finite; take another checkpoint")
    return np.ascontiguousarray(out)


def native_side(source: Mapping[str, Any], side: int | None = None) -> tuple[int, int]:
    """Return how many positions there are ahead of those of patches, and the side of their grid [patch].

    Ahead are those of the class token, of nothing, or of the class token and registers (older timm); where the number
    of all allows two of these, that with a grid of ``side``, else the first.

    Raises
    ------
    ValueError
        If the others are no square grid.
    """
    positions = source["pos_embed"]
    registers = source["reg_token"].shape[1] if "reg_token" in source else 0
    if len(positions.shape) != 3:
        raise ValueError(f"pos_embed is {tuple(positions.shape)} in the file, but must be (1, positions, width)")
    length = positions.shape[1]
    grids = {n: math.isqrt(length - n) for n in (1, 0, 1 + registers) if length > n}
    grids = {n: grid for n, grid in grids.items() if grid**2 == length - n}
    if not grids:
        raise ValueError(f"pos_embed is {tuple(positions.shape)} in the file, which is no square grid of patches")
    return next(((n, grid) for n, grid in grids.items() if grid == side), next(iter(grids.items())))


def _with_positions(source: Mapping[str, np.ndarray], side: int, resizing: Resizing) -> dict[str, np.ndarray]:
    """Return "pos_embed" (1, 1 + side^2, D) and, if registers have positions, those added to them."""
    positions = source["pos_embed"]
    ahead, native = native_side(source, side)
    width = positions.shape[2]
    learned = jnp.asarray(positions[0, ahead:].reshape(native, native, width))
    grid = np.asarray(resize_positions(learned, side, side, resizing))
    first = positions[:, :1] if ahead else np.zeros((1, 1, width), np.float32)
    out = {"pos_embed": np.concatenate([first, grid.reshape(1, side * side, width)], axis=1)}
    if ahead > 1:
        out["reg_token"] = source["reg_token"] + positions[:, 1:ahead]
    return out


def _cause(source: Mapping[str, np.ndarray], wanted: Mapping[str, Any], patch: int | None) -> str:
    """Return the likely cause of anything that does not fit, or nothing if the architectures agree."""
    model = architecture({name: tuple(leaf.shape) for name, (_, leaf) in wanted.items()}, patch)
    stem = source.get(_STEMS[0])
    its_patch = stem.shape[-1] if stem is not None and stem.ndim == 4 else None
    try:
        return architecture({name: array.shape for name, array in source.items()}, its_patch).advice(model)
    except ValueError as error:
        return f": {error}"
