"""Where the repository and the shared data are."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("VIS2IMG_SHARED", ROOT.parent / "shared"))
"""Real data and cases; beside the repository, or where VIS2IMG_SHARED says."""
DATA = SHARED / "data"
