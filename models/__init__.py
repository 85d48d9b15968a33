"""Networks: a vision transformer, residual networks, the DINO projection head, and weights of PyTorch.

Arrays in, arrays out; nothing here knows about measurement sets or training. Names are resolved on first use
(PEP 562), so that ``import models`` does not load JAX.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "ViT": "models.vit",
    "make_vit": "models.vit",
    "ResNet": "models.resnet",
    "make_resnet": "models.resnet",
    "read_weights": "models.torch_files",
    "from_torch": "models.torch_names",
    "to_timm": "models.torch_names",
    "DINOHead": "models.dino_head",
    "DINOModel": "models.dino_head",
}
__all__ = [
    "DINOHead",
    "DINOModel",
    "ResNet",
    "ViT",
    "from_torch",
    "make_resnet",
    "make_vit",
    "read_weights",
    "to_timm",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'models' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
