"""What is mistyped is told before networks are loaded: in a process in which JAX cannot be imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vis2img.loader.config import LoaderConfig
from vis2img.locks import locked
from vis2img.train.config import ModelConfig
from vis2img.train.run.config import TrainConfig
from vis2img.train.run.folder import open_folder
from vis2img.views.crops import ViewConfig

WITHOUT_JAX = """
import contextlib, io, json, sys
sys.modules["jax"] = None
from vis2img.cli import main
told = []
for words in json.loads(sys.argv[1]):
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        told.append([main(words), err.getvalue()])
print(json.dumps(told))
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with two runs of one seed, with checkpoints of step 5 that nobody reads, and labelled pictures."""
    (tmp_path / "a.npz").touch()
    views = ViewConfig(patch_npix=24, global_size=16, local_size=8)
    data = LoaderConfig(cutouts=(str(tmp_path / "a.npz"),), views=views)
    for name in ("run", "twin"):
        model = ModelConfig(variant="micro", patch=8)
        open_folder(tmp_path / name, TrainConfig(out=str(tmp_path / name), data=data, model=model))
        (tmp_path / name / "checkpoints" / "5").mkdir(parents=True)
    np.savez(tmp_path / "labelled.npz", images=np.random.default_rng(0).normal(size=(4, 24, 24)), kind=np.arange(4) % 2)
    return tmp_path


def test_mistyped_names_are_told_before_networks_are_loaded(place: Path) -> None:
    run, pictures = str(place / "run"), str(place / "labelled.npz")
    cases = {
        ("evaluate", f"{place}/gone"): "gone holds no run of vis2img",
        ("evaluate", run, "--step", "7"): "no checkpoint of step 7",
        ("evaluate", run, f"{place}/twin"): "have the same seed, 0",
        ("evaluate", run, "--ms", "gone.ms"): "gone.ms does not exist",
        ("evaluate", run, "--ms", run, "--other-ms", "gone.ms"): "gone.ms does not exist",
        ("evaluate", run, "--ms", run, "--catalogue", "gone.fits"): "gone.fits does not exist",
        ("evaluate", run, "--train", "gone.npz"): "gone.npz does not exist",
        ("evaluate", run, "--train", pictures, "--label", "kinds"): "kinds",
        (
            "evaluate",
            run,
            "--train",
            pictures,
            "--label",
            "kind",
            "-o",
            f"{place}/busy",
        ): "busy is being written",
        ("export", f"{place}/gone", "-o", f"{place}/w.safetensors"): "gone holds no run of vis2img",
        ("export", run, "--step", "7", "-o", f"{place}/w.safetensors"): "no checkpoint of step 7",
        ("export", run, "-o", f"{place}/gone/w.safetensors"): "gone does not exist",
        ("study", "--out", f"{place}/study", "--cutouts", "gone.npz"): "gone.npz does not exist",
        ("study", "--out", pictures): "labelled.npz is a file",
        ("train", f"{place}/gone.yaml"): "gone.yaml",
        ("train", run, "--data.cutouts", "gone.npz"): "gone.npz does not exist",
    }
    with locked(place / "busy"):
        command = [sys.executable, "-c", WITHOUT_JAX, json.dumps(list(cases))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    for (words, wanted), (code, told) in zip(cases.items(), json.loads(done.stdout), strict=True):
        assert code in (1, 2) and wanted in told and len(told.splitlines()) == 1, f"{words}: {told}"
        assert "this is a bug" not in told and "jax" not in told, f"{words}: {told}"
    assert not (place / "study").exists()
