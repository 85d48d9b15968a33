"""vis2img: from radio-interferometer visibilities to learned representations.

The public names below are imported on first use, so that ``import vis2img`` and the light commands
(``vis2img info``) load neither JAX nor Dask.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

from vis2img.errors import Vis2imgWarning

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
    "pretrained": "vis2img.train.embed.embedder",
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
    from vis2img.train.embed.embedder import pretrained as pretrained
    from vis2img.visibilities import Visibilities as Visibilities


_NEEDED = (
    "astropy", "casacore", "cryptography", "dask", "distributed", "ducc0", "flax", "jax", "jaxtyping", "katbeam",
    "matplotlib", "numba", "numpy", "optax", "orbax", "psutil", "rich", "safetensors", "scipy", "tensorboardX", "tyro",
    "yaml", "zarr",
)  # fmt: skip


def _warn_of_hidden_packages() -> None:
    """Name a file beside the user's script that Python takes for a package that is needed here."""
    if sys.argv[:1] == ["-m"]:  # vis2img itself is run, which takes that folder off the path
        return
    folder = sys.path[0] if sys.path else ""
    try:
        with os.scandir(folder or ".") as entries:
            beside = {entry.name for entry in entries}
    except OSError:
        return
    for name in _NEEDED:
        if f"{name}.py" in beside:
            hidden = f"{folder}{os.sep}{name}.py" if folder else f"{name}.py"
            text = f"{hidden} hides the package {name}, which vis2img needs: rename the file"
            warnings.warn(text, Vis2imgWarning, stacklevel=3)


_warn_of_hidden_packages()


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'vis2img' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
