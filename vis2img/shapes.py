"""Shapes of arrays in annotations: ``Float32[np.ndarray, "row chan"]``.

Tests check them (``tests/helpers/shapes.py``); anywhere else they are text that nothing reads, so that jaxtyping, a
quarter of the time that ``vis2img info`` takes, is not loaded.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING or "jaxtyping" in sys.modules:
    from jaxtyping import Bool, Complex64, Float, Float32, Float64, Int, Int32, Num
else:
    Bool = Complex64 = Float = Float32 = Float64 = Int = Int32 = Num = None

__all__ = ["Bool", "Complex64", "Float", "Float32", "Float64", "Int", "Int32", "Num"]
