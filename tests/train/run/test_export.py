"""Weights out of a run and back in: by the command line, into timm, and into another model."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from vis2img.cli import main
from vis2img.errors import OutputError, Vis2imgError
from vis2img.loader.config import LoaderConfig
from vis2img.models.resnet import ResNet
from vis2img.models.vit import ViT, make_vit
from vis2img.train.config import ModelConfig, OptimConfig
from vis2img.train.run.checkpoints import CheckpointStore
from vis2img.train.run.config import TrainConfig
from vis2img.train.run.export import timm_keywords, write_safetensors
from vis2img.train.run.folder import open_folder
from vis2img.train.state import TrainState, build_model, create_state
from vis2img.train.weights.files import read_safetensors
from vis2img.train.weights.names import to_timm
from vis2img.train.weights.pretrained import load_pretrained
from vis2img.views.crops import ViewConfig


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ViT, dict[int, TrainState]]:
    """A run with checkpoints of steps 1 and 2 whose teachers and students are all different."""
    folder = tmp_path_factory.mktemp("export") / "run"
    config = TrainConfig(
        out=str(folder),
        data=LoaderConfig(ms=("a.ms",), imaging="gentle", views=ViewConfig(global_size=16, local_size=8)),
        model=ModelConfig(variant="micro", patch=8, out_dim=8, hidden=8, bottleneck=4, drop_path=0.0),
        optim=OptimConfig(warmup_steps=1),
        steps=2,
    )
    open_folder(folder, config)
    model = build_model(config.model, 16)
    state = create_state(jax.random.key(0), model, config.optim, (16, 16, config.data.channels))
    with CheckpointStore(folder / "checkpoints") as store:
        states = {}
        for step in (1, 2):
            student, teacher = shaken(state.params, step), shaken(state.teacher, 10 + step)
            states[step] = state.replace(step=jax.numpy.int32(step), params=student, teacher=teacher)
            store.save(states[step], step)
    return folder, model.backbone, states


@pytest.fixture
def run_folder(run) -> Path:
    return run[0]


def shaken(tree, seed: int):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + rng.normal(0.0, 0.1, x.shape).astype(np.float32), tree)


def metadata_of(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        return file.metadata()


@pytest.mark.parametrize(("options", "student", "step"), [([], False, 2), (["--student", "--step", "1"], True, 1)])
def test_the_command_writes_the_backbone_asked_for(run, tmp_path, capsys, options, student, step) -> None:
    folder, _, states = run
    path = tmp_path / "weights.safetensors"
    assert main(["export", str(folder), "-o", str(path), *options]) == 0
    assert f"{path}: micro/8 of 1 channels" in capsys.readouterr().out
    wanted = {"params": (states[step].params if student else states[step].teacher)["backbone"]}
    arrays = read_safetensors(path)
    for name, value in to_timm(wanted, 8).items():
        np.testing.assert_array_equal(arrays.pop(name), value)
    assert not arrays
    told = metadata_of(path)
    assert (told["variant"], told["patch"], told["img_size"], told["channels"]) == ("micro", "8", "16", "1")
    assert (told["step"], told["network"]) == (str(step), "student" if student else "teacher")
    assert "asinh" in told["stretch"] and "noise" in told["normalisation"] and told["vis2img"]
    # And back, into a model of its own.
    blank = jax.tree.map(np.zeros_like, wanted)
    for ours, theirs in zip(
        jax.tree.leaves(load_pretrained(blank, path, patch=8)), jax.tree.leaves(wanted), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_files_are_only_replaced_on_request(run_folder, tmp_path, capsys) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_text("mine")
    assert main(["export", str(run_folder), "-o", str(path)]) == 1
    assert "exists already; use --overwrite" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert main(["export", str(run_folder), "-o", str(path), "--overwrite"]) == 0
    assert read_safetensors(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_others_may_read_what_they_may_read_of_other_files(tmp_path, umask) -> None:
    before = os.umask(umask)
    try:
        write_safetensors({"x": np.zeros(2, np.float32)}, tmp_path / "x.safetensors", {})
    finally:
        os.umask(before)
    assert (tmp_path / "x.safetensors").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("name", ["weights.pth", "weights", "weights.safetensors.gz"])
def test_a_name_says_what_the_file_is(run_folder, tmp_path, capsys, name) -> None:
    assert main(["export", str(run_folder), "-o", str(tmp_path / name)]) == 1
    assert "written as safetensors; name it weights" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_errors_are_one_line(run_folder, tmp_path, capsys) -> None:
    path = str(tmp_path / "weights.safetensors")
    assert main(["export", str(run_folder), "-o", path, "--step", "7"]) == 1
    assert "no checkpoint of step 7" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "none"), "-o", path]) == 1
    assert main(["export", str(run_folder), "-o", str(tmp_path / "none" / "x")]) == 1
    assert capsys.readouterr().err.count("\n") == 2
    assert not list(tmp_path.iterdir())


def test_help_shows_how_to_load_into_timm(capsys) -> None:
    assert main(["export", "--help"]) == 0
    assert "timm.create_model(**keywords)" in capsys.readouterr().out


def test_memory_of_any_layout_is_written_as_it_reads(tmp_path) -> None:
    arrays = {"x": np.arange(6, dtype=np.float32).reshape(2, 3).T, "y": np.arange(8, dtype=np.float32)[::2]}
    write_safetensors(arrays, tmp_path / "x.safetensors", {"a": "b"})
    for name, value in read_safetensors(tmp_path / "x.safetensors").items():
        np.testing.assert_array_equal(value, arrays[name])
    with pytest.raises(OutputError, match="exists already"):
        write_safetensors(arrays, tmp_path / "x.safetensors", {})


def test_files_that_do_not_fit_are_refused_in_one_line(tmp_path) -> None:
    model = make_vit("micro/8", img_size=16)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 16, 16, 1), np.float32))
    path = tmp_path / "x.pth"
    with pytest.raises(Vis2imgError, match="cannot be read: No such file"):
        load_pretrained(shapes, path)
    path.write_bytes(b"<html>")
    with pytest.raises(Vis2imgError, match=r"x\.pth: a web page"):
        load_pretrained(shapes, path)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes)
    write_safetensors(to_timm(zeros, 8), tmp_path / "y.safetensors", {})
    assert load_pretrained(shapes, tmp_path / "y.safetensors")["params"].keys() == shapes["params"].keys()
    with pytest.raises(Vis2imgError, match=r"y\.safetensors: .*use patch 8"):
        load_pretrained(shapes, tmp_path / "y.safetensors", patch=4)


def test_pth_files_are_read_without_pytorch(tmp_path, monkeypatch) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch, which writes the file, is not installed")
    model = make_vit("micro/8", img_size=16)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 16, 16, 1), np.float32))
    variables = jax.tree.map(lambda x: np.random.default_rng(0).normal(size=x.shape).astype(np.float32), shapes)
    arrays = {f"backbone.{name}": torch.from_numpy(value) for name, value in to_timm(variables, 8).items()}
    torch.save({"teacher": arrays, "student": {}, "epoch": 1}, tmp_path / "checkpoint.pth")
    monkeypatch.setitem(sys.modules, "torch", None)
    loaded = load_pretrained(shapes, tmp_path / "checkpoint.pth", patch=8)
    for ours, theirs in zip(jax.tree.leaves(loaded), jax.tree.leaves(variables), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_header_makes_the_network_in_timm(timm, run, tmp_path) -> None:
    """What the help text of the command says, line by line."""
    import safetensors.torch
    import torch

    folder, backbone, states = run
    path = tmp_path / "weights.safetensors"
    assert main(["export", str(folder), "-o", str(path)]) == 0
    network = timm.create_model(**json.loads(metadata_of(path)["timm"])).eval()
    network.load_state_dict(safetensors.torch.load_file(path))
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 1)).astype(np.float32)
    ours, _ = jax.jit(backbone.apply)({"params": states[2].teacher["backbone"]}, images)
    with torch.no_grad():
        theirs = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "model",
    [
        ViT(patch=4, dim=24, depth=1, heads=3, img_size=8, registers=2, layer_scale=0.1, mlp_ratio=2.0),
        ResNet((2, 2, 2, 2), False),
    ],
)
def test_keywords_make_other_networks_too(timm, model) -> None:
    import torch

    from vis2img.train.weights.names import describe

    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 8, 8, 2), np.float32))
    arrays = to_timm(jax.tree.map(lambda x: np.ones(x.shape, np.float32), shapes), getattr(model, "patch", None))
    network = timm.create_model(**timm_keywords(describe(arrays), model, 8, 2))
    network.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
