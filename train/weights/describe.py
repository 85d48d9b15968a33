"""What network a file of PyTorch's weights belongs to, told from names and shapes alone."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from vis2img.models import resnet, vit

_CONTAINERS = ("teacher", "student", "state_dict", "model", "model_state_dict")
_PREFIXES = ("module.", "_orig_mod.", "backbone.", "encoder.")
_HEAD = re.compile(r"(head|heads|head_dist|fc|dino_head|ibot_head|projector|projection_head|prototypes)\.")


class Architecture(NamedTuple):
    """A backbone as its weights tell it.

    Attributes
    ----------
    variant : str
        A name of ``vis2img.models.vit.VARIANTS`` or ``vis2img.models.resnet.VARIANTS``, or a description in words.
    patch : int, optional
        Patch side [pixel]; None for a ResNet.
    registers : int
        Register tokens.
    layer_scale : bool
        Whether branches are scaled.
    """

    variant: str
    patch: int | None = None
    registers: int = 0
    layer_scale: bool = False

    def __str__(self) -> str:
        extras = [f"{self.registers} registers"] if self.registers else []
        extras += ["LayerScale"] if self.layer_scale else []
        patch = f"/{self.patch}" if self.patch else ""
        return f"{self.variant}{patch}" + (f" with {' and '.join(extras)}" if extras else "")

    def advice(self, model: "Architecture") -> str:
        """Return how to change ``model`` so that weights of this architecture fit; empty if it is the same."""
        changes = []
        if self.variant != model.variant:
            fits = self.variant in vit.VARIANTS or self.variant in resnet.VARIANTS
            changes.append(f"variant {self.variant}" if fits else "another file, as no variant fits this one")
        if self.patch and self.patch != model.patch and model.patch:
            changes.append(f"patch {self.patch}")
        if self.registers != model.registers:
            changes.append(f"registers {self.registers}")
        if self.layer_scale != model.layer_scale:
            changes.append("layer_scale above 0" if self.layer_scale else "layer_scale 0")
        if not changes:
            return ""
        return f": the file is of a {self}, the model here a {model}; use {', '.join(changes)}"


def backbone_arrays(arrays: Mapping[str, Any], key: str = "teacher") -> dict[str, Any]:
    """Return the backbone's arrays of a file by their plain names, without prefixes, heads and counters.

    Parameters
    ----------
    arrays : mapping
        As read: names to arrays, or a full checkpoint with such mappings inside.
    key : str
        Which network of a full checkpoint; a file of one network has no choice.

    Raises
    ------
    ValueError
        If there is no such network in the file, or one name twice.
    """
    backbone: dict[str, Any] = {}
    for name, value in _network(arrays, key).items():
        plain = _plain(name) if isinstance(name, str) and hasattr(value, "shape") else None
        if plain is None:
            continue
        if plain in backbone:
            raise ValueError(f"two arrays are called {plain} without their prefixes; save one backbone alone")
        backbone[plain] = value
    if not backbone:
        raise ValueError(f"no weights in it; its keys are {', '.join(map(str, list(arrays)[:8])) or 'none'}")
    return backbone


def _network(arrays: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    inside = [name for name in _CONTAINERS if isinstance(arrays.get(name), Mapping)]
    if isinstance(arrays.get(key), Mapping):
        return _network(arrays[key], key)
    if key in ("teacher", "student") and {"teacher", "student"} & set(inside):
        raise ValueError(f"there is no {key} in it, but a {inside[0]}; ask for that")
    return _network(arrays[inside[0]], key) if inside else arrays


def _plain(name: str) -> str | None:
    """Name without prefixes; None for what is no part of the backbone."""
    stripped = True
    while stripped:
        stripped = False
        for prefix in _PREFIXES:
            if name.startswith(prefix):
                name, stripped = name.removeprefix(prefix), True
    if _HEAD.match(name) or name.endswith("num_batches_tracked"):
        return None
    # DINOv2 trains with blocks in chunks, "blocks.CHUNK.BLOCK.", where BLOCK counts from the first chunk on.
    name = re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", name)
    return {"register_tokens": "reg_token", "masked_embed": "mask_token"}.get(name, name)


def describe(arrays: Mapping[str, Any]) -> Architecture:
    """Return the architecture of a file's weights.

    Parameters
    ----------
    arrays : mapping
        As for `backbone_arrays`; anything with shapes serves for an array.

    Raises
    ------
    ValueError
        If they are neither a ViT's nor a ResNet's.
    """
    backbone = backbone_arrays(arrays)
    stem = backbone.get("patch_embed.proj.weight")
    patch = int(stem.shape[-1]) if stem is not None and len(stem.shape) == 4 else None
    return architecture({name: tuple(value.shape) for name, value in backbone.items()}, patch)


def architecture(shapes: Mapping[str, tuple[int, ...]], patch: int | None) -> Architecture:
    """Return the architecture that has these names and shapes; see `describe`."""
    if "cls_token" in shapes:
        width, depth = shapes["cls_token"][-1], _count(shapes, r"blocks\.(\d+)\.")
        names = [name for name, spec in vit.VARIANTS.items() if tuple(spec[:2]) == (width, depth)]
        variant = names[0] if names else f"ViT of width {width} and depth {depth}"
        registers = shapes["reg_token"][1] if "reg_token" in shapes else 0
        return Architecture(variant, patch, registers, "blocks.0.ls1.gamma" in shapes)
    if "conv1.weight" in shapes and "layer1.0.conv1.weight" in shapes:
        depths = tuple(_count(shapes, rf"layer{stage}\.(\d+)\.") for stage in range(1, 5))
        bottleneck = "layer1.0.conv3.weight" in shapes
        same = [name for name, spec in resnet.VARIANTS.items() if spec == (depths, bottleneck)]
        kind = "bottleneck" if bottleneck else "plain"
        return Architecture(same[0] if same else f"ResNet of {depths} {kind} blocks")
    raise ValueError(f"neither a ViT nor a ResNet: its first array is {next(iter(shapes), 'absent')}")


def _count(names: Mapping[str, Any], pattern: str) -> int:
    return len({match[1] for name in names if (match := re.match(pattern, name))})
