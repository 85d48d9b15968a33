"""Weights by name: in half precision and back, listed, found by every command that takes a run, and for JAX code."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vis2img
from vis2img.cli.train import _prepare
from vis2img.errors import ParameterError, UsageError, Vis2imgError, Vis2imgWarning
from vis2img.loader.config import LoaderConfig
from vis2img.train.config import ModelConfig, OptimConfig
from vis2img.train.embed.embedder import Embedder
from vis2img.train.embed.table import read_embeddings
from vis2img.train.evaluate.encoders import run_encoders
from vis2img.train.run.checkpoints import CheckpointStore
from vis2img.train.run.config import TrainConfig
from vis2img.train.run.export import export_run
from vis2img.train.run.folder import absolute, open_folder
from vis2img.train.state import build_model, create_state
from vis2img.train.weights import released
from vis2img.train.weights.files import read_safetensors
from vis2img.views.crops import ViewConfig

NAME = "small-v1"
CARD = """---
trained_on: two fields of the tests
scores: none
licence: CC0-1.0
command: vis2img train small-v1 --out runs/again --data.ms a.ms
---
# small-v1
It knows nothing.
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("released") / "run"
    config = TrainConfig(
        out=str(folder),
        data=LoaderConfig(ms=("a.ms",), imaging="gentle", views=ViewConfig(global_size=16, local_size=8)),
        model=ModelConfig(variant="micro", patch=8, out_dim=8, hidden=8, bottleneck=4, drop_path=0.0),
        optim=OptimConfig(warmup_steps=1, base_lr=3e-4),
        steps=2,
    )
    open_folder(folder, config)
    model = build_model(config.model, 16)
    with CheckpointStore(folder / "checkpoints") as store:
        store.save(create_state(jax.random.key(3), model, config.optim, (16, 16, 1)), 2)
    return folder


@pytest.fixture(scope="module")
def files(run: Path) -> Path:
    """A folder as that of released weights, with one network."""
    export_run(run, run.parent / f"{NAME}.safetensors", half=True)
    (run.parent / f"{NAME}.md").write_text(CARD)
    return run.parent


@pytest.fixture(autouse=True)
def in_place(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(released, "FOLDER", files)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(1).normal(0.0, 1e-3, (5, 16, 16)).astype(np.float32)


def test_half_precision_comes_back_as_single(run: Path, files: Path, images: np.ndarray) -> None:
    whole, half = Embedder.of_run(run), vis2img.pretrained(NAME)
    assert {leaf.dtype for leaf in jax.tree.leaves(half.variables)} == {np.dtype(np.float32)}
    shown = whole.preprocess(images)
    exact, ours = whole.embed(shown), half.embed(shown)
    assert 0 < np.linalg.norm(ours - exact) < 1e-3 * np.linalg.norm(exact)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(whole.variables))
    assert (files / f"{NAME}.safetensors").stat().st_size < 0.55 * size
    # What has one axis is small, and may be as small as a variance: it stays.
    kinds = {array.ndim > 1: array.dtype for array in read_safetensors(files / f"{NAME}.safetensors").values()}
    assert kinds == {True: np.float16, False: np.float32}
    assert half.config.optim == whole.config.optim and half.config.data.views == whole.config.data.views
    assert half.metadata["run"] == NAME


def test_they_are_listed_with_their_cards(cli: Callable, files: Path) -> None:
    out = cli("weights").out
    assert all(text in out for text in (NAME, "micro/8", "two fields of the tests", "CC0-1.0"))
    [row] = json.loads(cli("weights", "--json").out)
    assert (row["name"], row["network"], row["licence"]) == (NAME, "micro/8", "CC0-1.0")
    assert row["megabytes"] == pytest.approx((files / f"{NAME}.safetensors").stat().st_size / 1e6, abs=0.01)
    assert cli("weights", NAME).out == CARD
    assert json.loads(cli("weights", NAME, "--json").out) == row
    assert f"there are no released weights 'meercat'; those there are: {NAME}" in cli("weights", "meercat").error()


@pytest.mark.parametrize(
    ("text", "problem"), [("# no head\n", "does not begin with a head"), ("---\nlicence: x\n---\n", "trained_on")]
)
def test_a_card_that_lacks_something_is_told(tmp_path: Path, monkeypatch, files: Path, text: str, problem: str) -> None:
    (tmp_path / f"{NAME}.safetensors").write_bytes((files / f"{NAME}.safetensors").read_bytes())
    (tmp_path / f"{NAME}.md").write_text(text)
    monkeypatch.setattr(released, "FOLDER", tmp_path)
    with pytest.raises(Vis2imgError, match=problem):
        released.released(NAME)


def test_what_lies_here_wins_and_what_is_nowhere_is_told(tmp_path: Path, files: Path, recwarn) -> None:
    assert released.resolve(NAME) == files / f"{NAME}.safetensors"
    assert released.resolve("runs/none") == Path("runs/none") and not recwarn.list
    with pytest.raises(Vis2imgError, match=rf"meercat: there is no run folder, no file .*: {NAME}"):
        released.resolve("meercat")
    (tmp_path / NAME).mkdir()
    with pytest.warns(Vis2imgWarning, match=f"{tmp_path / NAME} is taken"):
        there = released.resolve(NAME)
    assert there == tmp_path / NAME
    assert released.resolve(there) == there  # and is not warned of again


@pytest.mark.parametrize("name", released.names())
def test_what_is_released_loads_and_tells_sources_apart(name: str, monkeypatch) -> None:
    """At most 25 MB, a card that can be read, and vectors that follow the source and not how it is turned."""
    monkeypatch.setattr(released, "FOLDER", Path(released.__file__).parent)
    told = released.released(name)
    assert told.megabytes <= 25 and name in told.card.command
    network = vis2img.pretrained(name)
    y, x = np.mgrid[:128, :128] - 63.5
    double = np.exp(-(y**2 + (x - 16) ** 2) / 30) + np.exp(-(y**2 + (x + 16) ** 2) / 30)
    single = np.exp(-(y**2 + x**2) / 30)
    noise = np.random.default_rng(0).normal(0, 0.01, (4, 128, 128))
    pictures = np.stack([double, double.T, single, np.roll(single, 2, axis=1)]) + noise
    vectors = network.embed(network.preprocess(pictures.astype(np.float32), noise=0.01))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    likeness = unit @ unit.T
    assert np.isfinite(vectors).all() and min(likeness[0, 1], likeness[2, 3]) > likeness[:2, 2:].max() + 0.05


def test_a_name_embeds_as_python_does(cli: Callable, tmp_path: Path, images: np.ndarray) -> None:
    np.savez(tmp_path / "cutouts.npz", images=images)
    outcome = cli("embed", NAME, "cutouts.npz", "-o", "out.parquet")
    assert outcome.code == 0, outcome.err
    network = vis2img.pretrained(NAME)
    shown = network.preprocess(images)
    assert shown.shape == (5, 16, 16, 1) and shown.dtype == np.float32
    table = read_embeddings(tmp_path / "out.parquet")
    np.testing.assert_allclose(table.vector, network.embed(shown), rtol=1e-5, atol=1e-6)
    assert table.metadata["run"] == NAME
    assert "leave out --student" in cli("embed", NAME, "cutouts.npz", "--student").error()


def test_it_is_part_of_other_jax_code(images: np.ndarray) -> None:
    network = vis2img.pretrained(NAME)
    shown = jnp.asarray(network.preprocess(images, noise=1e-3))
    # Of the size of a view nothing is resampled: 5 sigma become about 1.
    np.testing.assert_allclose(shown[..., 0], np.arcsinh(images / 1e-3 / 10) * 2, rtol=1e-4, atol=1e-6)
    for turns in (1, 8):
        ours = replace(network, model=network.model.clone(turns=turns))
        np.testing.assert_allclose(jax.jit(ours.apply)(shown), ours.embed(np.asarray(shown)), rtol=1e-4, atol=1e-5)
    for wrong, noise in ((images[0], None), (images, -1.0)):
        with pytest.raises(ParameterError, match=r"images must be|noise must be"):
            network.preprocess(wrong, noise)


def test_a_name_is_scored(cli: Callable) -> None:
    config, [encoder] = run_encoders([NAME])
    assert config.data.views.global_size == 16 and encoder.encode(np.zeros((1, 16, 16, 1), np.float32)).shape == (
        1,
        192,
    )
    assert "name fields (--ms) or labelled pictures (--train)" in cli("evaluate", NAME).error()
    assert f"those there are: {NAME}" in cli("evaluate", "meercat").error()


def test_a_name_starts_a_run_or_trains_it_again(cli: Callable, tmp_path: Path, files: Path) -> None:
    (tmp_path / "b.ms").mkdir()
    config = _prepare(Path(NAME), ["--out", "runs/again", "--data.ms", "b.ms"], "train", False)
    assert (config.out, config.data.ms, config.optim.base_lr, config.model.variant) == (
        *("runs/again", ("b.ms",)),
        *(3e-4, "micro"),
    )
    with pytest.raises(UsageError, match=r"name a run folder \(--out\) and the data"):
        _prepare(Path(NAME), ["--data.ms", "b.ms"], "train", False)
    onwards = _prepare(Path(NAME), ["--out", "on", "--data.ms", "b.ms", "--model.weights", NAME], "train", False)
    assert absolute(onwards).model.weights == str(files / f"{NAME}.safetensors")
    unknown = ("--out", "on", "--data.ms", "b.ms", "--model.weights", "meercat")
    assert "meercat: there is no run folder, no file" in cli("train", NAME, *unknown).error()
