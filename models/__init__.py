"""Networks: a vision transformer, residual networks and projection heads.

Arrays in, arrays out; nothing here knows about measurement sets or training. Names are resolved on first use
(PEP 562), so that ``import vis2img.models`` does not load JAX.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "ViT": "vis2img.models.vit",
    "make_vit": "vis2img.models.vit",
    "ResNet": "vis2img.models.resnet",
    "make_resnet": "vis2img.models.resnet",
    "DINOHead": "vis2img.models.dino_head",
    "DINOModel": "vis2img.models.dino_head",
}
__all__ = [
    "DINOHead",
    "DINOModel",
    "ResNet",
    "ViT",
    "make_resnet",
    "make_vit",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vis2img.models' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
