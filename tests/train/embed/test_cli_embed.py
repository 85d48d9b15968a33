"""``vis2img embed``: measurement sets, FITS images and cutouts to one table, with a real run, resumed when stopped."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vis2img.train.embed.job as job
from tests.helpers.measurement_sets import CENTRE, build_ms
from tests.helpers.places import ROOT
from vis2img import __version__
from vis2img.cluster.engine import Engine
from vis2img.errors import ParameterError
from vis2img.loader.config import LoaderConfig
from vis2img.loader.fields import fields_of, patch_angle
from vis2img.locks import locked
from vis2img.train.config import ModelConfig, OptimConfig
from vis2img.train.embed.embedder import Embedder
from vis2img.train.embed.table import read_embeddings
from vis2img.train.patches import cut_patches, embed_images, evaluation_draw, grid_positions
from vis2img.train.run.config import TrainConfig
from vis2img.train.run.run import train
from vis2img.units import format_angle
from vis2img.views.brightness import NUMBERS
from vis2img.views.crops import ViewConfig

SKY = ((1.0, 1e-3, -2e-3), (0.5, -2e-3, 1e-3), (0.3, 2e-3, 2e-3))


@dataclass(frozen=True)
class Run:
    """A run of two steps: its folder, its measurement set, and a FITS image of that under the fixed parameters."""

    folder: Path
    ms: Path
    fits: Path
    pixsize: float


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, compile_once: None) -> Run:
    from vis2img.cli import main

    place = tmp_path_factory.mktemp("embed")
    ms = build_ms(place / "a.ms", antennas=8, times=4, channels=4, sources=SKY).path
    config = TrainConfig(
        out=str(place / "run"),
        data=LoaderConfig(
            ms=(str(ms),),
            batch_size=4,
            field_npix=80,
            draws_per_field=2,
            mode="sync",
            engine=Engine(workers=1),
            imaging="gentle",
            views=ViewConfig(patch_npix=24, global_size=16, local_size=8, n_local=0),
        ),
        model=ModelConfig(variant="micro", patch=8, out_dim=32, hidden=16, bottleneck=8, drop_path=0.0),
        optim=OptimConfig(warmup_steps=1, freeze_last_layer_steps=1, warmup_teacher_temp_steps=2),
        steps=2,
    )
    assert train(config).finished
    params = evaluation_draw(fields_of(config.data)[0]).params
    fits = place / "same.fits"
    size = ["--npix", params.npix[0], "--pixsize", format_angle(params.pixsize, 12)]
    how = ["--weighting", params.weighting, "--robust", params.robust, "--no-png", "--quiet"]
    assert main(list(map(str, ["image", ms, "-o", fits, *size, *how]))) == 0
    return Run(place / "run", ms, fits, params.pixsize)


@pytest.fixture
def embed(run: Run, cli: Callable, tmp_path: Path) -> Callable:
    def call(*args: object, output: str = "out.parquet"):
        return cli("embed", run.folder, *args, "-o", tmp_path / output)

    return call


def offset_fits(run: Run, path: Path, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    """Write a copy of the run's FITS image with other pixels."""
    from astropy.io import fits

    with fits.open(run.fits) as hdus:
        hdus[0].data = change(hdus[0].data)
        hdus.writeto(path)
    return path


def test_a_measurement_set_is_tiled_and_its_patches_are_those_of_training(run: Run, embed: Callable, tmp_path) -> None:
    outcome = embed(run.ms)
    assert outcome.code == 0 and "9 patches of 1 fields, 192 numbers each" in outcome.out
    table = read_embeddings(tmp_path / "out.parquet")
    embedder = Embedder.of_run(run.folder)
    source = fields_of(embedder.config.data)[0]
    draw, views = evaluation_draw(source), embedder.config.data.views
    grid = grid_positions(draw, source, views)
    np.testing.assert_allclose(table.position, grid)
    patches = cut_patches(draw, source, views, grid)
    alone = embed_images(embedder.model, embedder.variables, patches.images, batch_size=3)
    np.testing.assert_allclose(table.vector, alone, rtol=1e-4, atol=1e-5)
    assert table.vector.std(axis=0).max() > 1e-3  # patches differ
    assert json.loads(table.columns["params"][0])["weighting"] == "briggs"
    assert set(table.columns["source"]) == {str(run.ms)} and set(table.columns["field"]) == {"a.ms"}
    assert table.columns["index"].tolist() == list(range(9))
    told = {name: table.metadata[name] for name in ("run", "step", "role", "vis2img")}
    assert told == {"run": str(run.folder), "step": "2", "role": "teacher", "vis2img": __version__}
    # CENTRE is RA 10h, Dec -30 deg, and the middle tile lies there.
    assert table.columns["name"][4] == "J100000.00-300000.0"
    np.testing.assert_allclose(table.position[4], CENTRE, atol=1e-9)
    assert not (tmp_path / ".out.parquet.parts").exists()
    picture = Image.open(io.BytesIO(table.columns["thumbnail"][4]))
    assert picture.size == (16, 16) and np.ptp(np.asarray(picture)) > 50


def test_a_fits_image_of_the_same_data_gives_the_same_vectors(run: Run, embed: Callable, tmp_path: Path) -> None:
    places = [(CENTRE[0] - l / np.cos(CENTRE[1]), CENTRE[1] + m) for l, m in ((0, 0), (1e-3, -1.5e-3), (-1.5e-3, 1e-3))]
    table = "\n".join(f"{np.degrees(ra) % 360:.9f},{np.degrees(dec):.9f},s{i}" for i, (ra, dec) in enumerate(places))
    positions = tmp_path / "positions.csv"
    positions.write_text(f"ra_deg,dec_deg,name\n{table}\n0,0,elsewhere\n")
    done = embed(run.ms, run.fits, "--positions", positions)
    assert done.code == 0
    assert f"vis2img: warning: 1 of 4 positions of {positions} lie in no input" in done.err
    found = read_embeddings(tmp_path / "out.parquet")
    assert found.columns["name"].tolist() == ["s0", "s1", "s2"] * 2
    assert found.columns["index"].tolist() == [0, 1, 2] * 2
    np.testing.assert_allclose(found.position[:3], places, atol=1e-10)
    first, second = found.vector[:3], found.vector[3:]
    spread = np.linalg.norm(first[0] - first[1])
    assert np.linalg.norm(first - second, axis=1).max() < 0.02 * spread
    assert json.loads(found.columns["params"][3])["robust"] == 0.0
    for name in NUMBERS:
        values = found.columns[name]
        assert (values >= 0).all() and values.max() > 0
        np.testing.assert_allclose(values[:3], values[3:], rtol=0.01)


@pytest.mark.filterwarnings("ignore::astropy.wcs.FITSFixedWarning")
def test_tiles_of_an_image_overlap_and_leave_out_what_is_blank(run: Run, embed: Callable, tmp_path: Path) -> None:
    npix = 16  # of the 80 of the image

    def blank(data: np.ndarray) -> np.ndarray:
        data = data.copy()
        data[..., -npix:, -npix:] = np.nan  # the north-western corner
        return data

    image = offset_fits(run, tmp_path / "holed.fits", blank)
    options = ("--patch-npix", npix, "--no-thumbnails", "--quiet")
    assert embed(image, *options).out == ""
    table = read_embeddings(tmp_path / "out.parquet")
    from astropy.io import fits
    from astropy.wcs import WCS

    with fits.open(image) as hdus:
        ny, nx = hdus[0].data.shape[-2:]
        wcs = WCS(hdus[0].header).celestial
    x, y = wcs.all_world2pix(table.columns["ra_deg"], table.columns["dec_deg"], 0)
    assert nx % npix == ny % npix == 0
    wanted = {(i, j) for i in range(nx // npix) for j in range(ny // npix)} - {(nx // npix - 1, ny // npix - 1)}
    tiles = set(zip(*(np.round((at + 0.5) / npix - 0.5, 3).tolist() for at in (x, y)), strict=True))
    assert tiles == wanted
    assert "thumbnail" not in table.columns
    assert embed(image, *options, "--overlap", 0.5, output="half.parquet").code == 0
    half = read_embeddings(tmp_path / "half.parquet")
    assert len(half) > 3 * len(table)
    # A tile that both have has the same vector.
    apart = np.abs(half.position[:, None] - table.position[None]).max(axis=-1)
    both = np.argwhere(apart < 1e-9)
    assert len(both) == len(table)
    np.testing.assert_allclose(half.vector[both[:, 0]], table.vector[both[:, 1]], rtol=1e-3, atol=1e-4)


def test_cutouts_are_a_patch_each(run: Run, embed: Callable, tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(5, 24, 24)).astype(np.float32)
    ra, dec = np.linspace(1, 5, 5), np.full(5, -3.0)
    np.savez(tmp_path / "c.npz", images=images, ra=ra, dec=dec, filename=np.array(list("abcde")))
    np.savez(tmp_path / "turned.npz", images=images[::-1])
    assert embed(tmp_path / "c.npz", tmp_path / "turned.npz", "--batch-size", 2).code == 0
    table = read_embeddings(tmp_path / "out.parquet")
    assert table.columns["name"].tolist()[:5] == list("abcde") and table.columns["field"].tolist()[5] == "turned"
    np.testing.assert_allclose(table.columns["ra_deg"][:5], ra)
    assert np.isnan(table.columns["ra_deg"][5:]).all()
    np.testing.assert_allclose(table.vector[:5], table.vector[:4:-1], rtol=1e-4, atol=1e-5)
    assert embed(tmp_path / "c.npz", "--crop", 16, output="crop.parquet").code == 0
    assert np.abs(read_embeddings(tmp_path / "crop.parquet").vector - table.vector[:5]).max() > 1e-3


def test_a_folder_of_images_is_read_and_bad_inputs_are_named(run: Run, embed: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    shutil.copy(run.fits, folder / "a.fits")
    (folder / "b.fits").write_text("not FITS")
    (tmp_path / "torn.ms").mkdir()
    outcome = embed(folder, tmp_path / "torn.ms")
    assert outcome.code == 0 and outcome.out.rstrip().endswith("2 of 3 inputs left out")
    lines = [line for line in outcome.err.splitlines() if "skipped" in line]
    assert len(lines) == 2 and "b.fits" in lines[0] and "torn.ms" in lines[1]
    table = read_embeddings(tmp_path / "out.parquet")
    assert set(table.columns["source"]) == {str(folder / "a.fits")}
    wrong = embed(folder / "b.fits", tmp_path / "torn.ms", "--quiet", output="bad.parquet").error()
    assert "b.fits" in wrong and "1 more inputs fail" in wrong
    assert not (tmp_path / "bad.parquet").exists()


def test_an_interrupted_command_goes_on_with_what_is_missing(
    run: Run, embed: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = []
    for i in range(3):
        inputs.append(tmp_path / f"c{i}.npz")
        np.savez(inputs[-1], images=np.random.default_rng(i).normal(size=(4, 24, 24)))
    assert embed(*inputs, output="whole.parquet").code == 0
    whole, made, embed_field = read_embeddings(tmp_path / "whole.parquet"), [], job.embed_field

    def counted(patches, *rest):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(patches.name)
        return embed_field(patches, *rest)

    monkeypatch.setattr(job, "embed_field", counted)
    assert embed(*inputs).code == 130
    parts = tmp_path / ".out.parquet.parts"
    assert made == ["c0", "c1"] and len(list(parts.iterdir())) == 2 and not (tmp_path / "out.parquet").exists()
    monkeypatch.setattr(
        job, "embed_field", lambda patches, *rest: made.append(patches.name) or embed_field(patches, *rest)
    )
    # Another role's vectors are not mixed in, and its parts leave those of the first command alone.
    assert embed(*inputs, "--student").code == 0
    assert made[2:] == ["c0", "c1", "c2"] and len(list(parts.iterdir())) == 2
    assert read_embeddings(tmp_path / "out.parquet").metadata["role"] == "student"
    np.savez(inputs[1], images=np.random.default_rng(9).normal(size=(4, 24, 24)))  # not the file that it was
    outcome = embed(*inputs, "--overwrite")
    assert outcome.code == 0 and "1 of an earlier start" in outcome.out
    assert made[5:] == ["c1", "c2"]
    found = read_embeddings(tmp_path / "out.parquet")
    assert found.columns["field"].tolist() == sum([[f"c{i}"] * 4 for i in range(3)], [])
    assert np.array_equal(found.vector[:4], whole.vector[:4]) and np.array_equal(found.vector[8:], whole.vector[8:])
    assert not np.array_equal(found.vector[4:8], whole.vector[4:8])


def test_mistakes_are_told_before_any_work(run: Run, embed: Callable, tmp_path: Path) -> None:
    wrong = embed(run.ms, output="old.npz").error()
    assert "old.npz" in wrong and "Parquet" in wrong and "old.parquet" in wrong
    (tmp_path / "out.parquet").write_text("mine")
    assert "--overwrite" in embed(run.ms).error()
    assert (tmp_path / "out.parquet").read_text() == "mine"
    assert "overlap = 1 must be from 0" in embed(run.ms, "--overlap", 1, output="b.parquet").error()
    assert "batch_size = 0" in embed(run.ms, "--batch-size", 0, output="b.parquet").error()
    table = tmp_path / "p.csv"
    for text, words in (
        ("ra_deg,dec\n1,2\n", "p.csv lacks the column dec_deg"),
        ("ra_deg,dec_deg\n1,2\n1,95\n", "p.csv row 2: dec_deg must be from -90 to 90 degrees"),
        ("ra_deg,dec_deg\n1\n", "p.csv row 1: 1 cells for 2 columns"),
        ("ra_deg,dec_deg\nx,2\n", "p.csv: ra_deg must be numbers"),
        ("ra_deg,dec_deg\n", "p.csv has a header and no row"),
    ):
        table.write_text(text)
        assert words in embed(run.ms, "--positions", table, output="b.parquet").error()
    table.write_text("ra_deg,dec_deg\n0,0\n")
    assert "no patch lies within a.ms" in embed(run.ms, "--positions", table, "--quiet", output="b.parquet").error()


def test_patches_of_images_have_the_angle_of_training_or_are_counted_in_pixels(
    run: Run, embed: Callable, tmp_path: Path
) -> None:
    assert embed(run.fits).code == 0
    table = read_embeddings(tmp_path / "out.parquet")
    embedder = Embedder.of_run(run.folder)
    side = patch_angle(fields_of(embedder.config.data)[0], embedder.config.data.views)
    dec = np.unique(np.round(table.position[:, 1], 9))
    # Tiles lie edge to edge, so that they are as far apart as they are large.
    np.testing.assert_allclose(np.median(np.diff(dec[np.append(True, np.diff(dec) > side / 2)])), side, rtol=1e-3)
    # A run of an earlier version has not written them down.
    lost = replace(
        embedder, angles=(), config=replace(embedder.config, data=replace(embedder.config.data, ms=("gone.ms",)))
    )
    with pytest.raises(ParameterError, match=r"angle of the run's patches is not known \(.*gone\.ms.*--patch-npix"):
        job.embed_inputs(lost, job.EmbedConfig(run.folder, (str(run.fits),), tmp_path / "b.parquet"))
    settings = job.EmbedConfig(run.folder, (str(run.fits),), tmp_path / "b.parquet", patch_npix=24)
    assert job.embed_inputs(lost, settings).patches >= 9


def test_a_run_embeds_from_any_folder_and_without_its_data_and_so_does_its_export(
    run: Run, cli: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Image and measurement set of others: how patches are made is known to the run, and to the weights of it."""
    alone, other = tmp_path / "alone", tmp_path / "other.ms"
    shutil.copytree(run.folder, alone)
    shutil.copytree(run.ms, other)
    fits = offset_fits(run, tmp_path / "image.fits", lambda data: 2 * data)
    assert cli("embed", run.folder, fits, other, "-o", tmp_path / "there.parquet").code == 0
    there = read_embeddings(tmp_path / "there.parquet")
    moved = run.ms.rename(tmp_path / "moved away")
    try:
        monkeypatch.chdir(tmp_path)
        assert cli("export", "alone", "-o", "weights.safetensors").code == 0
        for words in (
            ["alone", fits, other],
            ["weights.safetensors", fits, other],
            ["--weights", "weights.safetensors", fits, other],
        ):
            assert cli("embed", *words, "-o", "here.parquet", "--overwrite").code == 0
            here = read_embeddings("here.parquet")
            np.testing.assert_array_equal(here.vector, there.vector)
            np.testing.assert_array_equal(here.position, there.position)
        told = cli("embed", "alone", "-o", "b.parquet").error()
        assert told == f"{run.ms} does not exist, which alone was trained on; name what to embed"
        assert "does not hold the data" in cli("embed", "weights.safetensors", "-o", "b.parquet").error()
        assert (
            "leave out --student" in cli("embed", "weights.safetensors", fits, "--student", "-o", "b.parquet").error()
        )
    finally:
        moved.rename(run.ms)
    # Weights are for others, who need not know where things lie here.
    assert str(run.folder.parent).encode() not in (tmp_path / "weights.safetensors").read_bytes()


def test_an_output_that_another_process_writes_is_told(run: Run, embed: Callable, tmp_path: Path) -> None:
    """The first of two to end would delete the parts of the other."""
    with locked(tmp_path / "out.parquet"):
        wrong = embed(run.ms).error()
    assert "out.parquet is being written by process" in wrong and "wait for it, or choose another name" in wrong
    (tmp_path / ".out.parquet.parts").symlink_to(run.folder)
    assert "out.parquet.parts is in the way" in embed(run.ms, "--quiet").error()


RECALIBRATE = """
import sys
import numpy as np
from casacore.tables import table
with table(sys.argv[1], readonly=False, ack=False) as main:
    data = main.getcol("DATA")
    main.putcol("DATA", data * np.exp(1j * np.arange(len(data)))[:, None, None])
"""


def recalibrate(ms: Path) -> None:
    """Write to a measurement set from another process, as CASA does."""
    subprocess.run([sys.executable, "-c", RECALIBRATE, ms], check=True)


def test_data_recalibrated_in_place_are_embedded_again(run: Run, cli: Callable, tmp_path: Path, monkeypatch) -> None:
    ms = build_ms(tmp_path / "own.ms", antennas=8, times=4, channels=4, sources=SKY)
    embed_field, torn = job.embed_field, []

    def stops(patches, *rest):
        if Path(patches.source).name == "second.ms":
            raise KeyboardInterrupt
        return embed_field(patches, *rest)

    shutil.copytree(ms.path, tmp_path / "second.ms")
    command = "embed", run.folder, ms.path, tmp_path / "second.ms", "-o", tmp_path / "out.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(job, "embed_field", stops)
        assert cli(*command).code == 130
    recalibrate(ms.path)
    outcome = cli(*command)
    assert outcome.code == 0 and "earlier start" not in outcome.out and "skipped" not in outcome.err
    table = read_embeddings(tmp_path / "out.parquet")
    first, second = table.vector[: len(table) // 2], table.vector[len(table) // 2 :]
    assert np.abs(first - second).max() > 1e-3

    def changes(patches, *rest):
        torn.append(patches.name)
        recalibrate(ms.path)
        return embed_field(patches, *rest)

    monkeypatch.setattr(job, "embed_field", changes)
    assert (
        "own.ms changed while it was read"
        in cli("embed", run.folder, ms.path, "--quiet", "-o", tmp_path / "b.parquet").error()
    )
    assert torn == ["own.ms"]


def test_mistyped_names_are_told_before_a_network_is_loaded(run: Run, tmp_path: Path) -> None:
    """In processes of their own, where JAX cannot be imported."""
    (tmp_path / "jax.py").write_text("raise SystemExit('a network is loaded')")
    for words, told in (
        (["gone", "x.npz"], "gone: there is no run folder, no file and no released weights"),
        ([run.folder, "gone.ms"], "gone.ms does not exist"),
        ([run.folder, run.ms, "gone.ms"], "gone.ms does not exist"),
        ([run.folder, run.ms, "--step", "7"], "no checkpoint of step 7"),
        ([run.folder, run.ms, "--positions", "gone.csv"], "gone.csv"),
        (["--weights", run.fits, run.ms], "same.fits does not tell how images are made"),
    ):
        command = [sys.executable, "-m", "vis2img.cli", "embed", *map(str, words), "-o", tmp_path / "out.parquet"]
        environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert done.returncode == 1 and told in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
