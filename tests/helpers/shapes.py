"""Annotations are checked: jaxtyping and beartype wrap the functions of these modules as they are imported.

To be imported before anything of vis2img. Modules with functions that numba compiles are left out: it cannot compile
wrapped ones.
"""

from __future__ import annotations

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

MODULES = [
    *(
        f"vis2img.imaging.{name}"
        for name in ("beam", "contents", "gridding", "memory", "primary_beam", "rotation", "sampling", "weighting")
    ),
]
check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # a whole number is a float, too
install_import_hook(MODULES, "tests.helpers.shapes.check")
