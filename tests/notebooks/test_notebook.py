"""The notebook runs from top to bottom on a real, simulated measurement set."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.places import ROOT

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("simms", reason="the notebook simulates its measurement set")

NOTEBOOK = ROOT / "notebooks" / "first_look.ipynb"


def test_first_look_runs(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    texts = [o["data"]["text/plain"] for o in outputs if "text/plain" in o.get("data", {})]
    assert len(pictures) == 4
    assert any(text.startswith("MeasurementSet(") and "MeerKAT" in text for text in texts)
    assert "((2, 4, 64, 64, 1), (4, 4, 32, 32, 1))" in texts
