"""Whose names a file of weights has, and what is to be known of that code: the backbone alone, under timm's names.

Files come from DINO (Caron et al. 2021), iBOT, DINOv2, MAE, DeiT, MoCo, timm, torchvision (residual networks),
transformers (ViT, ViTMAE, Dinov2, Dinov2WithRegisters), solo-learn, lightly, and from ``vis2img export``. Names do not
tell all: where they leave several origins open, the one whose published files look so is taken.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vis2img.models.positions import RESIZINGS, Resizing

KNOWN = (
    "DINO, iBOT, DINOv2, MAE, DeiT, MoCo, timm, torchvision's ResNets, transformers (ViT, ViTMAE, DINOv2), solo-learn "
    "and lightly"
)

_CONTAINERS = ("teacher", "student", "state_dict", "model", "model_state_dict")
# Wrappers that tell nothing; "vit." and "dinov2." are transformers' models with a head.
_WRAPPERS = ("module.", "_orig_mod.", "model.", "timm_model.", "vit.", "dinov2.", "dinov2_with_registers.")
# Networks that lie side by side in one file, and "backbone.", which is the other of whichever is there.
_TEACHERS = (
    *("teacher_backbone.", "teacher.backbone.", "teacher.", "momentum_backbone.", "backbone_momentum."),
    *("momentum_encoder.", "encoder_k."),
)
_STUDENTS = (
    *("student_backbone.", "student.backbone.", "student.", "anchor_backbone.", "encoder_q.", "base_encoder."),
)
_EITHER = ("backbone.",)
_HEAD = re.compile(
    r"(head|heads|head_dist|fc|dino_head|ibot_head|projector|projection_head|prototypes|classifier|pooler|predictor"
    r"|decoder|decoder_\w+)\."
)
# `nn.Sequential(*resnet.children())` of lightly's examples numbers the layers of torchvision's ResNet.
_SEQUENCE = {"0": "conv1", "1": "bn1", **{str(4 + i): f"layer{1 + i}" for i in range(4)}}
_TRANSFORMERS = (
    (r"^embeddings\.(cls_token|mask_token)$", r"\1"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^layernorm\.", "norm."),
    (r"^layers?\.(\d+)\.", r"blocks.\1."),
    (r"\.(layernorm_before|norm1)\.", ".norm1."),
    (r"\.(layernorm_after|norm2)\.", ".norm2."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.attention\.(?:attention\.)?(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.q_proj\.", ".attn.query."),
    (r"\.attention\.k_proj\.", ".attn.key."),
    (r"\.attention\.v_proj\.", ".attn.value."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
)
_PARTS = ("query", "key", "value")
_TIMM = {"register_tokens": "reg_token", "masked_embed": "mask_token"}
_SMALL = 384  # width of a small transformer, which MoCo v3 gives 12 heads and everybody else 6


class Backbone(NamedTuple):
    """A backbone as a file has it.

    Attributes
    ----------
    arrays : dict
        By the names of timm.
    family : str
        Whose names the file has.
    positions : str
        How its code resizes learned positions.
    """

    arrays: dict[str, Any]
    family: str
    positions: Resizing


def read_backbone(
    arrays: Mapping[str, Any], key: str = "teacher", metadata: Mapping[str, str] | None = None
) -> Backbone:
    """Return the backbone in what was read from a file, without prefixes, heads and counters.

    Parameters
    ----------
    arrays : mapping
        As read: names to arrays, or a full checkpoint with such mappings inside.
    key : str
        Which network of a full checkpoint, "teacher" or "student"; a file of one network has no choice.
    metadata : mapping, optional
        Header of a safetensors file; None of a file that is none.

    Raises
    ------
    ValueError
        If there is no such network in the file, one name twice, or a network of a kind that none here computes.
    """
    flat = _network(arrays, key)
    side = _side(flat, key)

    backbone: dict[str, Any] = {}
    for name, value in side:
        plain = _plain(name)
        if plain is None:
            continue
        if plain in backbone:
            raise ValueError(f"two arrays are called {plain} without their prefixes; save one backbone alone")
        backbone[plain] = value
    if not backbone:
        raise ValueError(f"no weights in it; its keys are {', '.join(map(str, list(arrays)[:8])) or 'none'}")
    _refuse_unknown(flat, backbone)

    family = _family(arrays, flat, backbone, metadata)
    if family.name == "transformers":
        backbone = _from_transformers(backbone)
    elif "4.0.conv1.weight" in backbone:
        backbone = {f"{_SEQUENCE.get(name[0], name[0])}{name[1:]}": value for name, value in backbone.items()}
    if any(name.startswith("decoder") for name, _ in side):
        backbone.pop("mask_token", None)  # the decoder's
    return Backbone({_TIMM.get(name, name): value for name, value in backbone.items()}, family.name, family.positions)


def _network(arrays: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return the names and arrays of the network in a checkpoint of nested mappings."""
    inside = [name for name in _CONTAINERS if isinstance(arrays.get(name), Mapping)]
    if isinstance(arrays.get(key), Mapping):
        return _network(arrays[key], key)
    if key in ("teacher", "student") and {"teacher", "student"} & set(inside):
        raise ValueError(f"there is no {key} in it, but a {inside[0]}; ask for that")
    return _network(arrays[inside[0]], key) if inside else arrays


def _side(flat: Mapping[str, Any], key: str) -> list[tuple[str, Any]]:
    """Return names and arrays of one of the networks that lie side by side, or of all there is."""
    sides: dict[str, list[tuple[str, Any]]] = {"teacher": [], "student": [], "either": [], "": []}
    prefixes = {"teacher": _TEACHERS, "student": _STUDENTS, "either": _EITHER}
    for name, value in flat.items():
        if not isinstance(name, str) or not hasattr(value, "shape"):
            continue
        name = _without(name, _WRAPPERS)
        role, prefix = next(
            ((role, each) for role, own in prefixes.items() for each in own if name.startswith(each)), ("", "")
        )
        sides[role].append((name.removeprefix(prefix), value))

    teacher, student, either, rest = sides.values()
    wanted = (teacher, student) if key != "student" else (student, teacher)
    if bool(teacher) != bool(student) and either:
        wanted = (wanted[0] or either, [])
    return wanted[0] or wanted[1] or either or rest


def _without(name: str, prefixes: Sequence[str]) -> str:
    """Return a name without all of the prefixes that it begins with, in whatever order."""
    found = True
    while found:
        prefix = next((each for each in prefixes if name.startswith(each)), None)
        found = prefix is not None
        name = name.removeprefix(prefix or "")
    return name


def _plain(name: str) -> str | None:
    """Name without prefixes; None for what is no part of the backbone."""
    name = _without(name, (*_WRAPPERS, *_EITHER, "encoder."))
    if _HEAD.match(name) or name == "decoder_pos_embed" or name.endswith("num_batches_tracked"):
        return None
    # DINOv2 trains with blocks in chunks, "blocks.CHUNK.BLOCK.", where BLOCK counts from the first chunk on.
    return re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", name)


def _refuse_unknown(flat: Mapping[str, Any], backbone: Mapping[str, Any]) -> None:
    """Refuse what has the shapes of a network here and is none."""
    if any("rope" in name or "storage_tokens" in name for name in backbone):
        raise ValueError("its transformer rotates queries by position, as DINOv3's does, and none here does")
    moco = any(prefix in name for name in flat for prefix in ("momentum_encoder.", "base_encoder."))
    if moco and "cls_token" in backbone and backbone["cls_token"].shape[-1] == _SMALL:
        raise ValueError("MoCo v3 gives a small transformer 12 heads, and all here have heads of 64 numbers")


class _Family(NamedTuple):
    name: str
    positions: Resizing


def _family(
    arrays: Mapping[str, Any], flat: Mapping[str, Any], backbone: Mapping[str, Any], metadata: Mapping[str, str] | None
) -> _Family:
    """Tell whose a file is from what only they have; DINO's files have nothing of the kind."""
    if metadata is not None and "vis2img" in metadata:
        positions = metadata.get("positions", "dino")
        if positions not in RESIZINGS:
            raise ValueError(f"its header says positions {positions!a}, and known are {', '.join(RESIZINGS)}")
        return _Family("vis2img", positions)
    if any(name.startswith("embeddings.") for name in backbone):
        return _Family("transformers", "antialias" if "embeddings.register_tokens" in backbone else "plain")
    if any("backbone.vit." in name for name in flat):
        return _Family("lightly", "antialias")
    if "register_tokens" in backbone:
        return _Family("DINOv2 with registers", "antialias")
    if "masked_embed" in backbone:
        return _Family("iBOT", "dino")
    if any(name.startswith("decoder") for name in flat):
        return _Family("MAE", "plain")
    if "mask_token" in backbone:
        return _Family("DINOv2", "dino")
    if isinstance(arrays.get("model"), Mapping):
        return _Family("MAE or DeiT", "plain")
    # Lightning, and neither a student_ nor a teacher_backbone: solo-learn, whose transformers are timm's.
    solo = any(str(name).startswith("backbone.") for name in flat) and "pytorch-lightning_version" in arrays
    only_timm = {"reg_token", "blocks.0.ls1.gamma"} & backbone.keys() or "head.weight" in flat
    if solo or only_timm or metadata is not None or _no_class(backbone):
        return _Family("timm", "antialias")
    return _Family("DINO", "dino")


def _no_class(backbone: Mapping[str, Any]) -> bool:
    """Tell whether the class token has no position, which only timm's networks can have."""
    length = backbone["pos_embed"].shape[1] if len(getattr(backbone.get("pos_embed"), "shape", ())) == 3 else 0
    return length > 1 and math.isqrt(length) ** 2 == length


def _from_transformers(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """Return arrays of transformers by the names of timm: queries, keys and values are one array there.

    Old names (``encoder.layer.0.attention.attention.query``) are those of the files, new ones
    (``layers.0.attention.q_proj``) those of version 5 in memory.
    """
    renamed = {}
    for name, value in backbone.items():
        for pattern, replacement in _TRANSFORMERS:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value

    for name in [name for name in renamed if ".attn.query." in name]:
        parts = [name.replace("query", part) for part in _PARTS]
        missing = [part for part in parts if part not in renamed]
        if missing:
            raise ValueError(f"{missing[0]} is not in the file, but {name} is; save the whole network")
        joined = np.concatenate([np.asarray(renamed.pop(part)) for part in parts])
        renamed[name.replace("query", "qkv")] = joined
    return renamed
