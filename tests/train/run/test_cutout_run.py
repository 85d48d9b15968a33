"""Runs on survey cutouts: without workers, resumed exactly, from a YAML file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.places import ROOT
from tests.helpers.runs import assert_same_end, stop_at
from vis2img.configs.load import build, load
from vis2img.configs.records import to_record
from vis2img.errors import ParameterError, Vis2imgError
from vis2img.loader.config import LoaderConfig
from vis2img.train.config import ModelConfig, OptimConfig
from vis2img.train.run.config import TrainConfig
from vis2img.train.run.run import load_run, train
from vis2img.views.crops import ViewConfig
from vis2img.views.pixel_changes import CutoutAugment

pytestmark = pytest.mark.usefixtures("compile_once")


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    path = tmp_path / "cutouts.npz"
    np.savez(path, images_i16=np.random.default_rng(0).normal(scale=9.0, size=(7, 40, 40)).astype(np.int16))
    return TrainConfig(
        out=str(tmp_path / "run"),
        data=LoaderConfig(
            cutouts=(str(path),),
            batch_size=4,
            views=ViewConfig(patch_npix=28, global_size=16, local_size=8, n_local=1),
            augment=CutoutAugment(noise=(0.0, 1.0)),
        ),
        model=ModelConfig(variant="micro", patch=8, out_dim=32, hidden=16, bottleneck=8, drop_path=0.0),
        optim=OptimConfig(warmup_steps=1, freeze_last_layer_steps=1, warmup_teacher_temp_steps=2),
        steps=6,
        checkpoint_every=3,
        log_every=2,
    )


@pytest.mark.timeout(900)  # three runs, each of which compiles
def test_an_interrupted_run_on_cutouts_ends_where_an_uninterrupted_one_does(config, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("vis2img.train.run.run.connect", None)  # no workers: there is nothing to image
    whole = replace(config, out=str(tmp_path / "whole"))
    done = train(whole)
    assert done.finished and done.unused == {}

    stopped = train(config, progress=stop_at(4))
    assert (stopped.step, stopped.finished) == (4, False)
    assert train(replace(config, data=replace(config.data, cutters=1, prefetch=1))).finished
    assert_same_end(config.out, whole.out)
    assert load_run(config.out)[0] == config
    with pytest.raises(Vis2imgError, match=r"data\.augment\.noise"):
        train(replace(config, data=replace(config.data, augment=CutoutAugment())))


def test_a_yaml_file_names_cutouts_and_their_augmentation(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "out: runs/x\ndata:\n  cutouts: [a.npz, folder]\n  views: {patch_npix: 106}\n"
        "  augment: {rotate: false, noise: [0, 1], gain: [0.5, 2], blur_probability: 0.5}\n"
    )
    found = load(TrainConfig, path)
    assert found.data.cutouts == ("a.npz", "folder") and found.data.ms == ()
    assert found.data.augment == CutoutAugment(rotate=False, noise=(0, 1), gain=(0.5, 2), blur_probability=0.5)
    assert build(TrainConfig, to_record(found), path) == found
    path.write_text("out: runs/x\ndata:\n  ms: [a.ms]\n  cutouts: [a.npz]\n")
    with pytest.raises(ParameterError):
        load(TrainConfig, path)
    example = load(TrainConfig, ROOT / "examples" / "train_cutouts.yaml")
    assert example.data.cutouts and example.data.augment.rotate
