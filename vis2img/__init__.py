"""vis2img: from radio-interferometer visibilities to learned representations.

The public names below are imported on first use, so that ``import vis2img`` and the light commands
(``vis2img info``) load neither JAX nor Dask.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "open_ms": "vis2img.dataset",
    "MeasurementSet": "vis2img.dataset",
    "Selection": "vis2img.ms.selection",
    "ImagingParams": "vis2img.imaging.params",
    "Image": "vis2img.imaging.image",
    "Visibilities": "vis2img.visibilities",
    "ImagingPrior": "vis2img.draws.prior",
    "Loader": "vis2img.loader.loader",
    "LoaderConfig": "vis2img.loader.config",
    "PriorConfig": "vis2img.draws.presets",
    "SimulateConfig": "vis2img.simulate.config",
    "Vis2imgError": "vis2img.errors",
}

__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from vis2img.dataset import MeasurementSet as MeasurementSet
    from vis2img.dataset import open_ms as open_ms
    from vis2img.draws.presets import PriorConfig as PriorConfig
    from vis2img.draws.prior import ImagingPrior as ImagingPrior
    from vis2img.errors import Vis2imgError as Vis2imgError
    from vis2img.imaging.image import Image as Image
    from vis2img.imaging.params import ImagingParams as ImagingParams
    from vis2img.loader.config import LoaderConfig as LoaderConfig
    from vis2img.loader.loader import Loader as Loader
    from vis2img.ms.selection import Selection as Selection
    from vis2img.simulate.config import SimulateConfig as SimulateConfig
    from vis2img.visibilities import Visibilities as Visibilities


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'vis2img' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
