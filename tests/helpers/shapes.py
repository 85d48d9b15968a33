"""Annotations are checked: jaxtyping and beartype wrap the functions of these modules as they are imported.

To be imported before anything of vis2img. Modules with functions that numba compiles are left out: it cannot compile
wrapped ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

MODULES = [
    *(f"vis2img.averaging.{name}" for name in ("cells", "params")),
    *(
        f"vis2img.imaging.{name}"
        for name in ("beam", "contents", "gridding", "memory", "primary_beam", "rotation", "sampling", "weighting")
    ),
    *(f"vis2img.views.{name}" for name in ("crops", "positions", "stretch")),
    *("vis2img.models", "vis2img.train.objectives", "vis2img.train.schedules", "vis2img.train.step"),
]
_OWN_CHECKS = ("Stretch.__init__", "ViewConfig.__init__")  # tests hand them illegal values, for their messages


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function`` with its annotations checked; a whole number is a float, too."""
    if function.__qualname__ in _OWN_CHECKS:
        return function
    return beartype(conf=BeartypeConf(is_pep484_tower=True))(function)


install_import_hook(MODULES, "tests.helpers.shapes.check")
