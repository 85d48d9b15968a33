"""Runs: they train on real measurement sets, resume exactly, refuse another run's folder, and stop in good order."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import zlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import yaml

from tests.helpers.runs import assert_same_end, stop_at
from vis2img.cluster.engine import Engine
from vis2img.configs.load import build, draft, load, override
from vis2img.configs.records import to_record
from vis2img.coordinates import direction_cosines
from vis2img.dataset import open_ms
from vis2img.draws.presets import load_prior
from vis2img.errors import BusyError, MeasurementSetError, OutputError, ParameterError, Vis2imgError
from vis2img.loader.config import LoaderConfig
from vis2img.loader.places import Places
from vis2img.models.vit import make_vit
from vis2img.train.config import HostsConfig, ModelConfig, OptimConfig
from vis2img.train.run.checkpoints import CheckpointStore
from vis2img.train.run.config import TrainConfig
from vis2img.train.run.export import export_run, write_safetensors
from vis2img.train.run.folder import absolute, check_inputs, held, keep_compiled, open_folder, read_config_of
from vis2img.train.run.run import (
    RunResult,
    _blank,
    _check_batch,
    _initial,
    _with_positions,
    load_run,
    read_metrics,
    train,
)
from vis2img.train.weights.describe import Architecture
from vis2img.train.weights.names import to_timm
from vis2img.train.weights.pretrained import learned_positions
from vis2img.views.crops import ViewConfig

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
            engine=Engine(workers=1),
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
    assert train(whole, progress=lambda stage, step, *_: seen.append(step) if stage == "training" else None).finished
    assert seen == [2, 3, 4, 6]  # every second step, and before each checkpoint

    stopped = train(config, progress=stop_at(4))
    assert (stopped.step, stopped.finished) == (4, False)
    # Which workers make the draws may change, and with them nothing else.
    assert train(replace(config, data=replace(config.data, engine=Engine(workers=2), cutters=1))).finished
    assert_same_end(config.out, whole.out)
    metrics = read_metrics(config.out)
    assert list(metrics["step"]) == [1, 2, 3, 4, 5, 6]
    assert (metrics["draw_reuse"] > 0).all() and (metrics["draw_age"] > 0).all()
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


@pytest.mark.timeout(900)  # three runs, each of which compiles
def test_a_run_on_clusters_keeps_its_places_and_resumes(config: TrainConfig, make_ms, tmp_path: Path) -> None:
    sources = np.array([[1e-3, -2e-3], [-2e-3, 1e-3]])
    ms = make_ms(name="two", antennas=8, times=8, channels=6, sources=tuple((1.0, *place) for place in sources))
    optim = replace(config.optim, objective="clusters", clusters=(2,), base_lr=0.02, momentum_teacher=0.5)
    data = replace(config.data, ms=(str(ms.path),), field_npix=128, peak_offset=0.0)
    config = replace(config, optim=optim, data=data, model=replace(config.model, turns=8))
    whole = replace(config, out=str(tmp_path / "whole"))
    assert train(whole).finished
    places = Places.read(Path(whole.out) / "places.npz")
    assert places.codes.shape == (2, 1) and set(places.codes[:, 0]) == {0, 1}  # one for each source
    ra, dec = places.position.T
    outline = open_ms(config.data.ms[0]).outline(config.data.selection)
    found = direction_cosines(ra, dec, outline.phase_centre)[:, :2]
    off = np.linalg.norm(found[:, None] - sources, axis=2).min(axis=1)
    assert (off < 2e-4).all()
    assert (np.array(read_metrics(whole.out)["loss"]) > 0).all()

    assert train(config, progress=stop_at(4)).step == 4
    kept = (Path(config.out) / "places.npz").read_bytes()
    (Path(config.out) / "places.npz").unlink()
    with pytest.raises(Vis2imgError, match=r"places\.npz holds no places or is damaged"):
        train(config)
    (Path(config.out) / "places.npz").write_bytes(kept)
    assert train(config).finished
    assert_same_end(config.out, whole.out)


def test_clusters_need_fields_and_one_host(config: TrainConfig) -> None:
    optim = replace(config.optim, objective="clusters")
    with pytest.raises(ParameterError, match=r"clusters images fields .* needs data\.ms"):
        replace(config, optim=optim, data=replace(config.data, ms=(), cutouts=("a.npz",), subbands=1))
    with pytest.raises(ParameterError, match=r"clusters trains on one host"):
        replace(config, optim=optim, hosts=HostsConfig("a:1", 2))
    with pytest.raises(ParameterError, match=r"asks for 64 sources, and the fields show 1:"):
        train(replace(config, optim=optim, data=replace(config.data, field_npix=96)))


def test_a_folder_with_other_things_is_left_alone(config: TrainConfig) -> None:
    folder = Path(config.out)
    folder.mkdir()
    (folder / "thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        train(config)
    assert [p.name for p in folder.iterdir()] == ["thesis.tex"]
    with pytest.raises(Vis2imgError, match=r"config\.yaml is missing"):
        load_run(folder)


def leave_checkpoint(folder: Path, step: int = 3) -> None:
    """Make the folder one of a run that has trained; what is in a checkpoint is not looked at here."""
    (folder / "checkpoints" / str(step)).mkdir(parents=True)


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_run_that_trained_nothing_does_not_bind_its_folder(config: TrainConfig) -> None:
    folder, other = Path(config.out), replace(config, seed=5, data=replace(config.data, imaging="gentle", subbands=1))
    for each in (config, other, config):  # a prior in a file, a preset, and the file again
        open_folder(folder, each)
        assert (folder / "prior.yaml").exists() == (each is config)
        (folder / "views").mkdir(exist_ok=True)
        (folder / "slurm-1.out").write_text("mine")
    # What was read back from the folder is the same run, under the name that the prior had.
    open_folder(folder, replace(read_config_of(folder), seed=1))
    assert read_config_of(folder).seed == 1 and load_prior(str(folder / "prior.yaml")) == load_prior(
        config.data.imaging
    )
    open_folder(folder, replace(config, seed=1))
    assert (folder / "slurm-1.out").read_text() == "mine"
    before = files(folder)
    leave_checkpoint(folder)
    open_folder(folder, replace(config, seed=1, checkpoint_every=1))
    with pytest.raises(OutputError, match=r"another seed \(1 there, 0 here\)"):
        open_folder(folder, config)
    assert files(folder) == before


def test_a_save_that_did_not_end_binds_no_folder(config: TrainConfig) -> None:
    folder = Path(config.out)
    open_folder(folder, config)
    (folder / "checkpoints" / "3.orbax-checkpoint-tmp-1").mkdir(parents=True)
    open_folder(folder, replace(config, seed=1))
    assert read_config_of(folder).seed == 1


@pytest.mark.parametrize(
    "text", ["out: run\ndata: {ms: [a.ms]}\nmodel: {variant: tiny}\n", "name: theirs\n", "", "out: [x\n", "- 1\n"]
)
def test_a_configuration_that_no_run_wrote_is_left_alone(config: TrainConfig, text: str) -> None:
    folder = Path(config.out)
    folder.mkdir()
    (folder / "config.yaml").write_text(text)
    with pytest.raises(OutputError, match=r"config\.yaml .*choose another out"):
        open_folder(folder, config)
    assert files(folder) == {"config.yaml": text}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must hold keys and values"),
        ("out: [x\n", "not valid YAML"),
        ("out: x\n", "has no data"),
        ("out: x\ndata: {ms: a.ms, batch_size: many}\n", r"data\.batch_size: 'many' is not a whole number"),
        ("out: x\ndata: {ms: [a.ms]}\nmodel: 5\n", "model takes keys of its own"),
        ("data: {ms: [a.ms]}\n", "out is missing"),
        ("out: x\ndata: {ms: [a.ms]}\nmodel: {colour: 1}\n", r"unknown key model\.colour"),
    ],
)
def test_a_damaged_configuration_of_a_run_is_told(cli, config: TrainConfig, text: str, words: str) -> None:
    folder = Path(config.out)
    leave_checkpoint(folder)
    (folder / "config.yaml").write_text(text)
    message = cli("train", folder).error()
    assert re.search(words, message) and str(folder / "config.yaml") in message


def test_keys_that_came_after_a_run_was_started_have_their_defaults(config: TrainConfig) -> None:
    folder = Path(config.out)
    open_folder(folder, config)
    leave_checkpoint(folder)
    record = yaml.safe_load((folder / "config.yaml").read_text())
    for group, key in (("data", "cutouts"), ("data", "augment"), ("model", "remat"), ("optim", "koleo")):
        del record[group][key]
    del record["data"]["views"]["stretch"]
    (folder / "config.yaml").write_text(yaml.safe_dump(record))
    open_folder(folder, config)
    assert replace(read_config_of(folder), data=config.data) == config
    with pytest.raises(OutputError, match=r"another optim\.koleo \(0\.0 there, 0\.1 here\)"):
        open_folder(folder, replace(config, optim=replace(config.optim, koleo=0.1)))


def test_who_wants_more_steps_is_told_how(config: TrainConfig) -> None:
    open_folder(Path(config.out), config)
    leave_checkpoint(Path(config.out))
    with pytest.raises(OutputError, match=r"another steps \(6 there, 20 here\); .*model\.weights .*vis2img export"):
        open_folder(Path(config.out), replace(config, steps=20))


def test_hosts_wait_for_the_configuration_of_the_first(config: TrainConfig, monkeypatch) -> None:
    monkeypatch.setattr("vis2img.train.run.folder._PATIENCE", 0.5)
    folder, earlier = Path(config.out), replace(config, seed=5)
    with pytest.raises(OutputError, match="does not appear"):
        open_folder(folder, config, first=False)
    open_folder(folder, earlier)  # of a try that trained nothing
    with pytest.raises(OutputError, match="another seed"):
        open_folder(folder, config, first=False)
    monkeypatch.setattr("vis2img.train.run.folder._PATIENCE", 60.0)
    writer = threading.Timer(0.5, open_folder, (folder, config))
    writer.start()
    open_folder(folder, config, first=False)
    writer.join()
    assert read_config_of(folder).seed == config.seed


def test_a_second_training_in_one_folder_is_told_who_trains_there(cli, config: TrainConfig) -> None:
    """A job that was submitted twice: the second leaves metrics and checkpoints of the first alone."""
    folder = Path(config.out)
    told = (
        rf"{folder} is being trained by process {os.getpid()} on {re.escape(socket.gethostname())} since 20.*; "
        "wait for it, or choose another name"
    )
    with held(folder):
        open_folder(folder, config)
        before = files(folder)
        with pytest.raises(BusyError, match=told):
            train(config)
        path = folder.with_suffix(".yaml")
        path.write_text(yaml.safe_dump(to_record(config)))
        for argument in (path, folder):
            assert re.fullmatch(told, cli("train", argument).error())
        assert files(folder) == before
    assert not (folder / ".run.lock").exists()


def test_what_a_killed_training_left_does_not_stand_in_the_way(config: TrainConfig, monkeypatch) -> None:
    monkeypatch.setattr("vis2img.train.run.run.connect", None)
    folder = Path(config.out)
    open_folder(folder, config)
    (folder / "views").mkdir()
    living = f".x.png.partial-{socket.gethostname()}-{os.getpid()}-live"
    for place in (folder, folder / "views"):
        (place / living).mkdir()
        (place / f".x.png.partial-{socket.gethostname()}-999999999-dead").mkdir()
    (folder / "compiled").mkdir()
    packed = zlib.compress(b"a program" * 1000)
    for name, content in {"whole": packed, "cut": packed[:-9], "empty": b"", "other": b"packed by others"}.items():
        (folder / "compiled" / f"{name}-cache").write_bytes(content)
    (folder / ".run.lock").write_text("process 999999999 on a-node-that-failed since 2026-01-01 00:00:00 +0000\n")
    for steps in (0, config.steps):  # one that has to go on, and one that has nothing left to do
        if steps:
            (folder / ".run.lock").write_text("process 999999999 on there\n")
            leave_checkpoint(folder, steps)
        with contextlib.nullcontext() if steps else pytest.raises(TypeError):  # the workers
            train(config)
        assert not (folder / ".run.lock").exists()
        assert [path.name for path in folder.rglob(".*")] == [
            f".x.png.partial-{socket.gethostname()}-{os.getpid()}-live"
        ] * 2


def test_a_run_started_with_relative_names_goes_on_from_any_folder(
    config: TrainConfig, tmp_path: Path, monkeypatch
) -> None:
    ms, prior = Path(config.data.ms[0]), Path(config.data.imaging)
    monkeypatch.chdir(ms.parent)
    data = replace(config.data, ms=(ms.name,), imaging=os.path.relpath(prior))
    config = replace(config, out=os.path.relpath(tmp_path / "run"), data=data)
    assert not train(config, progress=stop_at(4)).finished
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    there = read_config_of(Path("../run"))
    assert there.data.ms == (str(ms),)
    assert train(there).finished
    assert len(json.loads((tmp_path / "run" / "patches.json").read_text())["patch_angle_rad"]) == 1
    # The same settings by other names are the same run.
    alias = tmp_path / "alias"
    alias.symlink_to(ms.parent)
    open_folder(tmp_path / "run", absolute(replace(there, data=replace(there.data, ms=(f"{alias}/{ms.name}",)))))


def test_data_that_moved_are_named_anew_and_others_are_not_taken_for_them(config: TrainConfig, tmp_path: Path) -> None:
    folder, ms = Path(config.out), Path(config.data.ms[0])
    gone = replace(config, data=replace(config.data, ms=(f"/gone/{ms.name}",)))
    open_folder(folder, gone)
    leave_checkpoint(folder)
    with pytest.raises(MeasurementSetError, match=rf"/gone/{ms.name} does not exist; if data of this run have moved"):
        check_inputs(gone)
    open_folder(folder, config)
    assert read_config_of(folder).data.ms == (str(ms),)
    copy = tmp_path / "copy" / ms.name  # of the same name, but the first is there
    copy.mkdir(parents=True)
    with pytest.raises(OutputError, match=r"another data\.ms"):
        open_folder(folder, replace(config, data=replace(config.data, ms=(str(copy),))))


def test_missing_files_are_found_before_anything_is_done(config: TrainConfig, monkeypatch) -> None:
    monkeypatch.setattr("vis2img.train.run.run.connect", None)  # no workers
    data, here = config.data, config.data.ms[0]
    for wrong, words in (
        (replace(config, data=replace(data, ms=(here, "nowhere.ms"))), r"data\.ms: nowhere\.ms does not exist"),
        (
            replace(config, data=replace(data, ms=(), cutouts=("nowhere.npz",), subbands=1)),
            r"data\.cutouts: nowhere\.npz does not exist",
        ),
        (replace(config, model=replace(config.model, weights="no.pth")), r"model\.weights: there is no file no\.pth"),
    ):
        with pytest.raises(Vis2imgError, match=words):
            train(wrong)
    assert not Path(config.out).exists()


def test_weights_are_not_asked_for_again(config: TrainConfig) -> None:
    config = replace(config, model=replace(config.model, weights="gone.pth"))
    leave_checkpoint(Path(config.out))
    check_inputs(config)


def test_a_run_keeps_the_positions_of_its_weights(config: TrainConfig, tmp_path: Path) -> None:
    """Those of timm are resized otherwise than DINO's, at whatever size they were learned."""
    path, network = tmp_path / "timm.safetensors", make_vit("micro/8", img_size=32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), np.zeros((1, 32, 32, 2), np.float32))
    arrays = to_timm(jax.tree.map(lambda x: np.full(x.shape, 0.1, np.float32), shapes), 8)
    write_safetensors(arrays, path, {"format": "pt"})
    config = replace(config, model=replace(config.model, weights=str(path)), steps=2)
    settled = _with_positions(config)
    open_folder(Path(config.out), settled)
    with CheckpointStore(Path(config.out) / "checkpoints") as store:
        store.save(_initial(_blank(settled)[1], settled), config.steps)  # as if it had trained
    kept, state, model = load_run(config.out)
    assert (kept.model.positions, kept.model.img_size) == ("antialias", 32)
    assert (model.backbone.positions, model.backbone.img_size) == ("antialias", 32)
    assert state.teacher["backbone"]["pos_embed"].shape == (1, 17, 96)

    export_run(config.out, tmp_path / "ours.safetensors")
    assert learned_positions(tmp_path / "ours.safetensors", Architecture("micro", 8)) == ("antialias", 32)
    # The command that began it goes on, even when the file is gone; another way is another run.
    path.unlink()
    assert train(config).finished
    with pytest.raises(OutputError, match=r"another model\.positions"):
        train(replace(config, model=replace(config.model, positions="dino")))


def test_weights_of_another_network_are_told_before_anything_starts(config: TrainConfig, tmp_path: Path) -> None:
    path, network = tmp_path / "other.safetensors", make_vit("micro/16", img_size=32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), np.zeros((1, 32, 32, 1), np.float32))
    write_safetensors(to_timm(jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes), 16), path, {})
    with pytest.raises(Vis2imgError, match=r"other\.safetensors: the file is of a micro/16.*use patch 16$"):
        train(replace(config, model=replace(config.model, weights=str(path))))
    assert not Path(config.out).exists()


def test_a_finished_run_starts_nothing_and_warns_of_nothing(config: TrainConfig, monkeypatch) -> None:
    monkeypatch.setattr("vis2img.train.run.run.connect", None)
    told: list[str] = []
    open_folder(Path(config.out), config)
    leave_checkpoint(Path(config.out), config.steps)
    assert train(config, on_warning=told.append).finished
    with pytest.raises(OutputError, match="another seed"):
        train(replace(config, seed=1), on_warning=told.append)
    assert told == []
    with pytest.raises(TypeError):  # the workers
        train(replace(config, out=f"{config.out}2"), on_warning=told.append)
    assert any("model.out_dim" in line for line in told)


def test_more_devices_than_there_are_is_told_with_their_number(config: TrainConfig) -> None:
    there = jax.local_device_count()
    with pytest.raises(ParameterError, match=rf"devices = {there + 1}, and this host has {there} "):
        _check_batch(replace(config, devices=there + 1))
    with pytest.raises(Vis2imgError, match=r"data\.batch_size = 4 is not a multiple of"):
        _check_batch(replace(config, devices=1, optim=replace(config.optim, accumulate=3)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model.variant", "large"], "model.variant must be micro, tiny,"),
        (["--model.patch", "5"], "model.patch must be 4, 8, 14 or 16, got 5"),
        (["--devices", "-1"], "devices must be at least 1, got -1"),
        (["--seed", "-1"], "seed must be from 0 to 4294967295, got -1"),
        (["--seed", "4294967296"], "seed must be from 0 to"),
        (["--out", ""], "out is empty"),
        (["--optim.base-lr", "nan"], "optim.base_lr must be a finite number"),
        (["--data.batch-size", "0"], "data.batch_size = 0"),
        (["--data.views.n-global", "1"], "data.views need n_global"),
        (["--data.selection.times", "5:2"], "data.selection.times 5:2"),
        (["--optim.base-rl", "1"], "unknown option --optim.base-rl; did you mean --optim.base-lr?"),
        (["--optim.learning-rate=1"], "unknown option --optim.learning-rate; did you mean --optim.base-lr?"),
        (["--stepz", "5"], "did you mean --steps?"),
        (["--no-steps"], "unknown option --no-steps"),
    ],
)
def test_a_mistake_on_the_command_line_is_told_with_its_name(cli, tmp_path: Path, options, words: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("out: x\ndata: {ms: [a.ms]}\n")
    assert words in cli("train", path, *options).error(2)


def test_options_that_there_are_pass_the_check_of_their_names() -> None:
    given = draft(TrainConfig, {"out": "x", "checkpoint_every": 3}, Path("run.yaml"))
    options = ["--steps", "5000", "--keep_every=3", "--data.views.no-rotate", "--model.remat", "--data.ms", "a.ms", "b"]
    config = override(given, options, "vis2img train")
    assert (config.steps, config.keep_every, config.data.ms) == (5000, 3, ("a.ms", "b"))
    assert config.model.remat and not config.data.views.rotate
    with pytest.raises(SystemExit, match="0"):
        override(given, [*options, "--help"], "vis2img train")


def test_a_folder_that_is_a_file_is_told(cli, config: TrainConfig, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"out": "x", "data": {"ms": list(config.data.ms)}}))
    message = cli("train", path, "--out", path).error()
    assert f"{path} is a file" in message


def test_what_is_not_used_is_told_once(cli, tmp_path: Path, config: TrainConfig, monkeypatch) -> None:
    """The loader says so when it finds out; the end of the run gives their number."""

    def pretend(config: TrainConfig, **_: object) -> RunResult:
        return RunResult(Path(config.out), 6, True, unused={"b.ms": "b.ms holds nothing"}, inputs=2)

    monkeypatch.setattr("vis2img.train.run.run.train", pretend)
    monkeypatch.setattr("vis2img.train.run.folder.keep_compiled", lambda _: None)
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"out": "x", "data": {"ms": list(config.data.ms)}}))
    outcome = cli("train", path)
    assert outcome.code == 0 and outcome.err == ""
    assert outcome.out == "x: step 6 of 10000, finished; 1 of 2 inputs left out\n"


def test_the_help_names_every_option_of_its_own(cli) -> None:
    shown = cli("train", "--help").out
    assert all(f"  {name} " in shown for name in ("--resume", "--quiet", "--debug"))


@pytest.mark.parametrize(("text", "steps"), [("1e4", 10_000), ("1.0e4", 10_000), ("2_500", 2500), ("'3000'", 3000)])
def test_round_numbers_may_be_written_as_such(tmp_path: Path, text: str, steps: int) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"out: x\nsteps: {text}\ndevices: 1e0\ndata: {{ms: [a.ms]}}\noptim: {{base_lr: 1e-3}}\n")
    config = load(TrainConfig, path)
    assert (config.steps, config.devices, config.optim.base_lr) == (steps, 1, 1e-3)


def test_what_is_compiled_stays_with_the_run_unless_the_user_has_a_place(tmp_path: Path, monkeypatch) -> None:
    updates: dict[str, str] = {}
    fake = SimpleNamespace(jax_compilation_cache_dir=None, update=updates.__setitem__)
    monkeypatch.setattr(jax, "config", fake)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")  # set, to nothing: not wanted
    keep_compiled(tmp_path)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    fake.jax_compilation_cache_dir = "theirs"
    keep_compiled(tmp_path)
    assert updates == {}
    fake.jax_compilation_cache_dir = None
    keep_compiled(tmp_path)
    assert updates == {"jax_compilation_cache_dir": str(tmp_path / "compiled")}


def test_a_configuration_survives_being_saved(config: TrainConfig) -> None:
    path = Path("config.yaml")
    assert build(TrainConfig, to_record(config), path) == config
    with pytest.raises(ParameterError, match="colour"):
        build(TrainConfig, {**to_record(config), "colour": 1}, path)


def test_a_yaml_file_reads_as_the_command_line_it_stands_for(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "out: runs/x\nsteps: 50\ndata:\n  ms: [a.ms, b.ms]\n  fov: 20arcmin\n  views: {rotate: false, n_local: 2}\n"
        "  selection: {channels: '0:8'}\nmodel: {variant: small}\noptim: {base_lr: 1.0e-3, warmup_steps: 5}\n"
    )
    config = load(TrainConfig, path)
    assert config.data.ms == ("a.ms", "b.ms") and config.steps == 50
    assert config.data.fov == pytest.approx(np.radians(20 / 60))
    assert (config.data.views.rotate, config.data.views.n_local) == (False, 2)
    assert config.data.selection.channels == (0, 8)
    assert (config.model.variant, config.optim.base_lr) == ("small", 1e-3)
    options = ["--data.views.no-rotate", "--data.views.n-local", "3"]
    assert replace(config.data.views, n_local=3) == load(TrainConfig, path, options, "vis2img").data.views
    assert load(TrainConfig, path, ["--data.views.rotate"], "vis2img").data.views.rotate


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
        load(TrainConfig, path)
    assert "\n" not in str(error.value) and "run.yaml" in str(error.value)


def test_settings_that_do_not_fit_together_are_refused(config: TrainConfig) -> None:
    with pytest.raises(ParameterError, match="warmup_steps"):
        replace(config, steps=1)
    with pytest.raises(ParameterError, match="multiple of"):
        replace(config, data=replace(config.data, views=replace(config.data.views, local_size=12)))
