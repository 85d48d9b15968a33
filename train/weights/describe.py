"""What network a file of PyTorch's weights belongs to, told from names and shapes alone."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from vis2img.models import resnet, vit
from vis2img.train.weights.families import KNOWN, read_backbone


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
    width : int, optional
        Channels of the first stage of a ResNet; None for a ViT.
    """

    variant: str
    patch: int | None = None
    registers: int = 0
    layer_scale: bool = False
    width: int | None = None

    def __str__(self) -> str:
        extras = [f"{self.registers} registers"] if self.registers else []
        extras += ["LayerScale"] if self.layer_scale else []
        extras += [f"width {self.width}"] if self.width not in (None, resnet.WIDTH) else []
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
        if self.width and self.width != model.width and model.width:
            changes.append(f"width {self.width}")
        if not changes:
            return ""
        return f": the file is of a {self}, the model here a {model}; use {', '.join(changes)}"


def describe(arrays: Mapping[str, Any]) -> Architecture:
    """Return the architecture of a file's weights.

    Parameters
    ----------
    arrays : mapping
        As for `vis2img.train.weights.families.read_backbone`; anything with shapes serves for an array.

    Raises
    ------
    ValueError
        If they are neither a ViT's nor a ResNet's.
    """
    backbone = read_backbone(arrays).arrays
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
        same = [name for name, spec in resnet.VARIANTS.items() if spec[:2] == (depths, bottleneck)]
        kind = "bottleneck" if bottleneck else "plain"
        variant = same[0] if same else f"ResNet of {depths} {kind} blocks"
        # Of a vector, which has one shape in either library.
        return Architecture(variant, width=shapes["bn1.weight"][0] if "bn1.weight" in shapes else None)
    raise ValueError(
        f"neither a ViT nor a ResNet: its first array is {next(iter(shapes), 'absent')}; known are the names of {KNOWN}"
    )


def _count(names: Mapping[str, Any], pattern: str) -> int:
    return len({match[1] for name in names if (match := re.match(pattern, name))})
