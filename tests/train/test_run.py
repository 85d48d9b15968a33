"""Runs: they train on real measurement sets, resume exactly, refuse another run's folder, and stop in good order."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from train.config import ModelConfig, OptimConfig
from train.evaluate import knn_accuracy
from train.run import load_run, read_metrics, train
from train.run_config import TrainConfig, from_record, load_config, to_record
from vis2img.config_file import config_arguments, read_config
from vis2img.errors import OutputError, ParameterError, Vis2imgError
from vis2img.loader_config import LoaderConfig
from vis2img.views import ViewConfig

pytestmark = pytest.mark.usefixtures("compile_once")


@pytest.fixture
def config(make_ms, tmp_path: Path) -> TrainConfig:
    ms = make_ms(antennas=8, times=4, channels=6, sources=((1.0, 1e-3, -2e-3), (0.5, -2e-3, 1e-3)))
    prior = tmp_path / "prior.yaml"
    prior.write_text("preset: gentle\nrobust: [-1.0, 1.0]\n")
    return TrainConfig(
        out=str(tmp_path / "run"),
        data=LoaderConfig(
            ms=(str(ms.path),),
            batch_size=4,
            field_npix=64,
            draws_per_field=2,
            refresh_every=2,
            mode="sync",
            workers=1,
            imaging=str(prior),
            subbands=2,
            views=ViewConfig(patch_npix=24, global_size=16, local_size=8, n_local=1),
        ),
        model=ModelConfig(variant="micro", patch=8, out_dim=32, hidden=16, bottleneck=8, drop_path=0.0),
        optim=OptimConfig(warmup_steps=1, freeze_last_layer_steps=1, warmup_teacher_temp_steps=2),
        steps=6,
        checkpoint_every=3,
        log_every=2,
    )


@pytest.mark.timeout(900)  # three runs, each of which compiles
def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(config: TrainConfig, tmp_path: Path) -> None:
    whole = replace(config, out=str(tmp_path / "whole"))
    seen: list[int] = []
    assert train(whole, progress=lambda step, *_: seen.append(step)).finished
    assert seen == [2, 4, 6]

    def interrupt(step: int, *_: object) -> None:
        if step == 4:
            signal.raise_signal(signal.SIGTERM)

    stopped = train(config, progress=interrupt)
    assert (stopped.step, stopped.finished) == (4, False)
    # Which workers make the draws may change, and with them nothing else.
    assert train(replace(config, data=replace(config.data, workers=2, cutters=1))).finished
    for ours, theirs in zip(
        jax.tree.leaves(load_run(config.out)[1]), jax.tree.leaves(load_run(whole.out)[1]), strict=True
    ):
        assert np.array_equal(ours, theirs)
    metrics = read_metrics(config.out)
    assert list(metrics["step"]) == [1, 2, 3, 4, 5, 6]
    assert (metrics["draw_reuse"] > 0).all() and (metrics["draw_age"] > 0).all()
    assert np.array_equal(metrics["loss"], read_metrics(whole.out)["loss"])
    # A finished run does nothing when asked again, and another run does not overwrite it.
    assert train(config).step == 6
    with pytest.raises(OutputError, match=r"optim\.base_lr"):
        train(replace(config, optim=replace(config.optim, base_lr=1e-3)))
    prior = Path(config.data.imaging)
    text = prior.read_text()
    prior.write_text(text.replace("-1.0", "-2.0"))
    with pytest.raises(OutputError, match=r"another prior than .*prior\.yaml has now"):
        train(config)
    prior.unlink()  # a run keeps its own copy
    assert load_run(config.out)[0].data.imaging == str(Path(config.out) / "prior.yaml")


def test_a_folder_with_other_things_is_left_alone(config: TrainConfig) -> None:
    folder = Path(config.out)
    folder.mkdir()
    (folder / "thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        train(config)
    assert [p.name for p in folder.iterdir()] == ["thesis.tex"]
    with pytest.raises(Vis2imgError, match=r"config\.yaml is missing"):
        load_run(folder)


def test_a_configuration_survives_being_saved(config: TrainConfig) -> None:
    assert from_record(to_record(config)) == config
    with pytest.raises(ParameterError, match="colour"):
        from_record({**to_record(config), "colour": 1})


def test_a_yaml_file_reads_as_the_command_line_it_stands_for(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "out: runs/x\nsteps: 50\ndata:\n  ms: [a.ms, b.ms]\n  fov: 20arcmin\n  views: {rotate: false, n_local: 2}\n"
        "  selection: {channels: '0:8'}\nmodel: {variant: small}\noptim: {base_lr: 1.0e-3, warmup_steps: 5}\n"
    )
    config = load_config(path)
    assert config.data.ms == ("a.ms", "b.ms") and config.steps == 50
    assert config.data.fov == pytest.approx(np.radians(20 / 60))
    assert (config.data.views.rotate, config.data.views.n_local) == (False, 2)
    assert config.data.selection.channels == (0, 8)
    assert (config.model.variant, config.optim.base_lr) == ("small", 1e-3)
    assert "--data.views.no-rotate" in config_arguments(read_config(path), TrainConfig, path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("out: x\nstep: 5\n", r"unknown key step; did you mean steps\?"),
        ("out: x\ndata: {batchsize: 5}\n", r"unknown key data\.batchsize; did you mean data\.batch_size\?"),
        ("out: x\ndata: 5\n", "data takes keys of its own"),
        ("out: x\nsteps: {a: 1}\n", "steps takes a value"),
        ("- a\n- b\n", "must hold keys and values"),
        ("out: [x\n", "not valid YAML"),
    ],
)
def test_a_wrong_configuration_is_told_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(Vis2imgError, match=words) as error:
        load_config(path)
    assert "\n" not in str(error.value) and "run.yaml" in str(error.value)


def test_settings_that_do_not_fit_together_are_refused(config: TrainConfig) -> None:
    with pytest.raises(ParameterError, match="warmup_steps"):
        replace(config, steps=1)
    with pytest.raises(ParameterError, match="multiple of"):
        replace(config, data=replace(config.data, views=replace(config.data.views, local_size=12)))


def test_knn_accuracy_knows_classes_and_keeps_fields_apart() -> None:
    rng = np.random.default_rng(0)
    label, field = np.tile(["a", "b", "c"], 20), np.repeat([0, 1, 2], 20)
    direction = {"a": [1, 0, 0, 0], "b": [0, 1, 0, 0], "c": [0, 0, 1, 0]}
    good = np.array([direction[x] for x in label]) + 0.05 * rng.normal(size=(60, 4))
    assert knn_accuracy(good, good, label, field) == 1.0
    noise = rng.normal(size=(60, 4))
    assert knn_accuracy(noise, noise, label, field) < 0.6
    # If a field could vote for itself, its own signature would give its labels away.
    signature = np.eye(60)
    assert knn_accuracy(signature, signature, label, field) < 0.6
