"""The shapes in annotations are checked in tests, and cost nothing elsewhere."""

from __future__ import annotations

import subprocess
import sys

import jaxtyping
import numpy as np
import pytest

from tests.helpers.shapes import MODULES
from vis2img.imaging.beam import fit_beam
from vis2img.imaging.gridding import dirty_to_vis


def test_a_wrong_shape_or_type_is_refused() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="cells"):
        fit_beam(np.ones((3, 4, 4)), 0, (1.0, 1.0))
    uvw, freq, image = np.zeros((5, 3)), np.array([1e9]), np.zeros((32, 32), np.float32)
    assert dirty_to_vis(uvw, freq, image, 1e-5, epsilon=1e-4).shape == (5, 1)
    for wrong in (uvw[:, :2], uvw.astype(np.float32)):
        with pytest.raises(jaxtyping.TypeCheckError, match="uvw"):
            dirty_to_vis(wrong, freq, image, 1e-5, epsilon=1e-4)


def test_without_tests_nothing_of_it_is_loaded_before_jax_is() -> None:
    light = [name for name in MODULES if not name.startswith(("vis2img.models", "vis2img.train"))]
    code = f"import sys, importlib; [importlib.import_module(m) for m in {light}]; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"jaxtyping", "beartype"} & set(run.stdout.split())
