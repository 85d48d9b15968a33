"""Write a trained backbone for PyTorch: safetensors with timm's names, and in the header all that timm must know."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from vis2img import __version__
from vis2img.configs.records import to_record
from vis2img.draws.presets import load_prior
from vis2img.errors import OutputError
from vis2img.files import atomic_output
from vis2img.loader.config import ENGINE_KEYS
from vis2img.locks import locked
from vis2img.models import resnet, vit
from vis2img.train.run.config import TrainConfig
from vis2img.train.run.folder import patch_angles
from vis2img.train.run.run import load_run
from vis2img.train.state import backbone_variables
from vis2img.train.weights.describe import Architecture
from vis2img.train.weights.names import describe, to_timm
from vis2img.views.crops import ViewConfig

_OF_TIMM = ("resnet18", "resnet50")
_NOTE = (
    "images are (batch, channel, y, x) here and channels-last in vis2img: dirty images over the noise of each channel, "
    "stretched as said under 'stretch' (a list: channels for each), kinds asinh, power and linear so that 5 sigma is "
    "about 1; no mean is subtracted and no deviation divided by"
)


def export_run(
    folder: str | Path,
    output: Path,
    *,
    student: bool = False,
    step: int | None = None,
    half: bool = False,
    overwrite: bool = False,
) -> dict[str, str]:
    """Write the backbone of a run to a safetensors file.

    Parameters
    ----------
    folder : path
        Run folder.
    output : path
        The file; it appears whole or not at all.
    student : bool
        Write the student instead of the teacher.
    step : int, optional
        Of a checkpoint that is still kept; default: the last.
    half : bool
        Write matrices and kernels in half precision; what has one axis (biases, scales, statistics) is small and stays.
    overwrite : bool
        Replace an existing file.

    Returns
    -------
    dict
        The header's metadata: those of `run_metadata`; "network", which is "teacher" or "student"; "config", the
        settings of the run as JSON, without the folders that its files lie in; and "patch_angle_rad", JSON too.

    Raises
    ------
    Vis2imgError
        If the folder holds no such checkpoint, or the file has another suffix, exists, is being written by another
        process or cannot be written.
    """
    if output.suffix != ".safetensors":
        raise OutputError(f"{output}: weights are written as safetensors; name it {output.stem}.safetensors")
    with locked(output):
        return _export(Path(folder), output, "student" if student else "teacher", step, half, overwrite)


def _export(folder: Path, output: Path, role: str, step: int | None, half: bool, overwrite: bool) -> dict[str, str]:
    config, state, model = load_run(folder, step)
    arrays = to_timm(backbone_variables(state, role), getattr(model.backbone, "patch", None))
    metadata = {**run_metadata(config, model.backbone, arrays, int(state.step)), "network": role}
    metadata |= {
        "config": json.dumps(_without_places(config)),
        "patch_angle_rad": json.dumps(patch_angles(folder)),
    }
    if half:
        arrays = {name: _halved(array) for name, array in arrays.items()}
    write_safetensors(arrays, output, metadata, overwrite)
    return metadata


def _halved(array: np.ndarray) -> np.ndarray:
    """Return a matrix or a kernel in half precision, if its numbers fit."""
    fits = array.ndim > 1 and np.abs(array).max(initial=0.0) < np.finfo(np.float16).max
    return array.astype(np.float16) if fits else array


def _without_places(config: TrainConfig) -> dict[str, Any]:
    """Return the settings of a run by which others can embed with its weights; where files lie is nobody's business."""
    record = to_record(config)
    data, model = record["data"], record["model"]
    for name in ("ms", "cutouts"):
        data[name] = [Path(path).name for path in data[name]]
    # The prior itself: files are not there, and presets may change.
    data["imaging"] = json.dumps(load_prior(config.data.imaging).to_dict())
    for name in ENGINE_KEYS:
        data.pop(name, None)
    return {**record, "out": "export", "hosts": {}, "model": {**model, "weights": None}}


def run_metadata(config: TrainConfig, backbone: Any, arrays: Mapping[str, np.ndarray], step: int) -> dict[str, str]:
    """Return what a file of weights should say of itself, as text.

    Keys: "variant", "patch" and "positions" (of a ViT: how it resizes them, see `vis2img.models.positions`), "img_size"
    [pixel] (that they are learned for), "channels", "step", "vis2img" (its version),
    "normalisation" and "stretch" (of the images), and, of networks that timm has, "timm": the keywords of its
    ``create_model`` as JSON.
    """
    architecture = describe(arrays)
    size, channels = getattr(backbone, "img_size", config.data.views.global_size), config.data.channels
    metadata = {
        "variant": architecture.variant,
        "img_size": str(size),
        "channels": str(channels),
        "step": str(step),
        "vis2img": __version__,
        "normalisation": _NOTE,
        "stretch": json.dumps(_stretch_record(config.data.views)),
    }
    if architecture.patch or (architecture.variant in _OF_TIMM and architecture.width == resnet.WIDTH):
        metadata["timm"] = json.dumps(timm_keywords(architecture, backbone, size, channels))
    if architecture.patch is None:
        return metadata
    return {**metadata, "patch": str(architecture.patch), "positions": backbone.resizing}


def _stretch_record(views: ViewConfig) -> Any:
    """Return the settings of the stretch, or a list of them where there are several."""
    records = [asdict(stretch) for stretch in views.stretches]
    return records if len(records) > 1 else records[0]


def timm_keywords(architecture: Architecture, backbone: Any, img_size: int, channels: int) -> dict[str, Any]:
    """Return keywords for ``timm.create_model`` that make the network of an export."""
    keywords: dict[str, Any] = {"in_chans": channels, "num_classes": 0}
    if architecture.variant in resnet.VARIANTS:
        return {"model_name": architecture.variant, **keywords}
    assert isinstance(backbone, vit.ViT)
    keywords |= {
        "model_name": "vit_tiny_patch16_224",  # any ViT: what follows overrides what the name stands for
        "img_size": img_size,
        "patch_size": architecture.patch,
        "embed_dim": backbone.dim,
        "depth": backbone.depth,
        "num_heads": backbone.heads,
        "mlp_ratio": backbone.mlp_ratio,
    }
    if architecture.registers:
        keywords |= {"reg_tokens": architecture.registers, "no_embed_class": True}
    if architecture.layer_scale:
        keywords["init_values"] = 1e-5
    return keywords


def write_safetensors(
    arrays: Mapping[str, np.ndarray], path: Path, metadata: Mapping[str, str], overwrite: bool = False
) -> None:
    """Write arrays as safetensors, in one move.

    Raises
    ------
    OutputError
        If ``path`` exists and ``overwrite`` is not set, or cannot be written.
    """
    # save_file writes the memory as it lies, whatever the strides say.
    dense = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with atomic_output(path, overwrite) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode  # what new files of this user have; save_file lets nobody else read its own
        try:
            save_file(dense, temporary, metadata=dict(metadata))
            temporary.chmod(mode)
        except SafetensorError as error:
            raise OutputError(f"{path} cannot be written: {error}") from error
