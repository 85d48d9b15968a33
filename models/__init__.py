"""Networks: a vision transformer, residual networks and projection heads.

Arrays in, arrays out: this imports nothing of vis2img, and must never know of measurement sets, of file formats or of
training. Names are resolved on first use (PEP 562), so that ``import vis2img.models`` does not load JAX.
"""

from importlib import import_module
from typing import Any

_MODULES = {"dino_head": ("DINOHead", "DINOModel"), "resnet": ("ResNet", "make_resnet"), "vit": ("ViT", "make_vit")}
_HOMES = {name: f"vis2img.models.{module}" for module, names in _MODULES.items() for name in names}
__all__ = ["DINOHead", "DINOModel", "ResNet", "ViT", "make_resnet", "make_vit"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vis2img.models' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
