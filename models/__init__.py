"""Networks: a vision transformer and the DINO projection head.

Arrays in, arrays out; nothing here knows about measurement sets or training. Names are resolved on first use
(PEP 562), so that ``import models`` does not load JAX.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "ViT": "models.vit",
    "make_vit": "models.vit",
    "DINOHead": "models.dino_head",
    "DINOModel": "models.dino_head",
}
__all__ = ["DINOHead", "DINOModel", "ViT", "make_vit"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'models' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
