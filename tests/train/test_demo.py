"""The demonstration, small: simulated measurement sets to a page with pictures; and what evaluate makes of its run."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("simms", reason="the demonstration simulates its data")

from vis2img.coordinates import direction_cosines
from vis2img.errors import ParameterError, Vis2imgError
from vis2img.loader.fields import fields_of, patch_angle
from vis2img.simulate.sky.source import SkyComponent, SkyCutout, SkySource, single_component_source
from vis2img.simulate.truth.truth import Truth
from vis2img.train.demo import run_demo
from vis2img.train.demo_config import DemoConfig
from vis2img.train.evaluate.encoders import Encoder
from vis2img.train.evaluate.field_tasks import FieldTasks
from vis2img.train.evaluate.simulated import ALIKE, SHIFTED, field_patches, linked_fields, read_truths
from vis2img.train.patches import cut_patches, evaluation_draw
from vis2img.train.run.run import load_run
from vis2img.train.run.stopping import Stopped

pytestmark = [pytest.mark.usefixtures("compile_once"), pytest.mark.timeout(900)]
WAYS = (ALIKE, SHIFTED, "full", "robust -1 and 1")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Folder, report, scores and stages of a small demonstration that was stopped in training, and went on."""
    stages: list[str] = []

    def stop(stage: str, *_: object) -> None:
        if stage == "training":
            os.kill(os.getpid(), signal.SIGTERM)

    config = DemoConfig(out=tmp_path_factory.mktemp("demo") / "demo", fields=2, sources=20, steps=25)
    with pytest.raises(Stopped):
        run_demo(config, stop)
    assert not (config.out / "report.html").exists()
    path, scores = run_demo(config, lambda stage, *_: stages.append(stage))
    return config.out, path, scores, stages


@pytest.fixture(scope="module")
def settings(demo):
    return load_run(demo[0] / "run")[0]


@pytest.fixture(scope="module")
def patches(settings):
    return field_patches(settings, read_truths(settings), WAYS)[0]


def test_the_demonstration_ends_in_a_self_contained_report(demo) -> None:
    _, path, scores, stages = demo
    assert list(dict.fromkeys(stages)) == ["simulating", "imaging", "training", "evaluating", "report"]
    page = path.read_text()
    assert len(re.findall(r'src="data:image/png;base64,[A-Za-z0-9+/=]{2000,}"', page)) == 6
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert {(s.representation, s.setting) for s in scores} == {
        (name, f"{how}, k-NN")
        for name in ("trained", "random weights", "PCA of pixels")
        for how in (ALIKE, "full", SHIFTED)
    }
    assert all(0 <= s.value <= 1 for s in scores)
    assert all(f"{s.value:.3f}" in page for s in scores if s.representation == "trained")


def test_a_source_is_one_row_under_every_way_of_imaging(settings, patches) -> None:
    assert list(patches.seen) == [ALIKE, "full", "robust -1 and 1 [0]", "robust -1 and 1 [1]", SHIFTED]
    assert {images.shape for images in patches.seen.values()} == {(len(patches.label), 48, 48, 1)}
    truth = read_truths(settings)[0]
    name = {(s.ra, s.dec): s.class_name for s in truth.sources}
    first = patches.field == 0
    assert [name[tuple(p)] for p in patches.position[first]] == list(patches.label[first])
    source = fields_of(settings.data)[0]
    draw = evaluation_draw(source)
    again = cut_patches(draw, source, settings.data.views, patches.position[first])
    np.testing.assert_array_equal(again.images, patches.seen[ALIKE][first])
    # The same sky: what is bright in one is bright in the other; and not the same picture.
    for way in ("full", "robust -1 and 1 [1]"):
        same = [
            np.corrcoef(a.ravel(), b.ravel())[0, 1]
            for a, b in zip(*(patches.seen[w] for w in (ALIKE, way)), strict=True)
        ]
        assert np.median(same) > 0.6 and max(same) < 1 - 1e-6


def test_tiles_hold_the_sources_whose_positions_they_cover(settings) -> None:
    truths = read_truths(settings)
    _, tiles = field_patches(settings, truths, (), tiles=True)
    source = fields_of(settings.data)[0]
    count = int((tiles.field == 0).sum())
    side, rows = patch_angle(source, settings.data.views), round(np.sqrt(count))
    assert rows**2 == count
    # All of the sky that the tiles cover together, in one square: no flux is lost or counted twice.
    centre = evaluation_draw(source).phase_centre
    place = direction_cosines(*np.array([[s.ra, s.dec] for s in truths[0].sources]).T, centre)[:, :2]
    inside = (np.abs(place) <= rows * side / 2 + 1e-12).all(axis=1)
    flux = np.array([s.flux for s in truths[0].sources])
    assert tiles.flux[tiles.field == 0].sum() == pytest.approx(flux[inside].sum())
    small = np.array([s.class_name == "compact" for s in truths[0].sources])
    assert tiles.compact[tiles.field == 0].sum() == (small & inside).sum() > 0


def test_fields_that_show_one_cutout_are_one_group() -> None:
    places = iter(np.radians(np.arange(100.0)))

    def truth(*origins: str) -> Truth:
        pixels = np.ones((2, 2), np.float32)
        pictures = [SkyCutout(pixels, 1e-5, 0.0, 0.0, 1e9, origin=origin) for origin in origins]
        parts = [SkySource(i, "fri", next(places), 0.0, 4.0, 1e-5, cutout=cutout) for i, cutout in enumerate(pictures)]
        return Truth([*parts, single_component_source(9, "compact", SkyComponent(next(places), 0.0, 1.0, 1e9))], {}, {})

    assert linked_fields([truth(), truth(), truth()]).tolist() == [0, 1, 2]
    assert linked_fields([truth("a", "b"), truth("c"), truth("b", "d"), truth("e", "d"), truth("")]).tolist() == [
        0, 1, 0, 0, 2,
    ]  # fmt: skip


def test_classes_are_chosen_and_unknown_ones_named(patches) -> None:
    some = patches.of_classes(["fri", "frii"])
    rows = np.flatnonzero(np.isin(patches.label, ["fri", "frii"]))
    assert set(some.label) == {"fri", "frii"} and 0 < len(rows) < len(patches.label)
    np.testing.assert_array_equal(some.seen[SHIFTED], patches.seen[SHIFTED][rows])
    np.testing.assert_array_equal(some.position, patches.position[rows])
    with pytest.raises(ParameterError, match=r"class 'spiral'; there are .*fri"):
        patches.of_classes(["fri", "spiral"])


def test_what_imaging_does_not_change_is_invariant_and_what_it_does_is_told(patches) -> None:
    def brightness(images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1)[:, ::37].astype(np.float32)

    encoder = Encoder("brightness", 0, brightness)
    tasks = FieldTasks(patches, tasks=("transfer", "invariance", "similarity"), folds=2)
    found = {(name.task, name.setting, name.metric): value for name, value in tasks.run(encoder)}
    assert 0 < found["invariance", "full", "distance ratio"] < 1.5
    assert {"to full, k-NN", "robust -1 and 1, linear probe"} <= {setting for _, setting, _ in found}
    assert not [s for _, s, _ in found if "band" in s]  # a way that was not asked for
    with pytest.raises(ParameterError, match="choose from classification"):
        FieldTasks(patches, tasks=("classify",))
    with pytest.raises(ParameterError, match="rare class 'orc'"):
        list(FieldTasks(patches, tasks=("anomaly",), rare=("orc",)).run(encoder))


def test_evaluate_scores_a_run_on_fields(demo, cli, tmp_path: Path) -> None:
    run = demo[0] / "run"
    done = cli(
        "evaluate", run, "--task", "classification", "similarity", "anomaly", "regression", "--seeds", 2, "--folds", 2,
        "--shares", 0.5, 1.0, "--fine-tune", 2, "--step", 24, "-o", tmp_path / "report", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    rows = json.loads(done.out)
    assert {row["task"] for row in rows} >= {"classification", "similarity", "anomaly", "regression"}
    names = {row["representation"] for row in rows}
    assert names == {"trained", "random weights", "PCA of pixels", "PCA of pixels, turned"}
    tuned = [row for row in rows if row["setting"] == "fine-tuned"]
    assert {row["representation"] for row in tuned} == {"trained", "random weights"} and all(r["n"] == 2 for r in tuned)
    assert all(0 <= row["mean"] <= 1 for row in rows if row["task"] in ("classification", "similarity"))
    with (tmp_path / "report" / "scores.csv").open() as file:
        assert len(list(csv.DictReader(file))) == sum(row["n"] for row in rows)
    page = (tmp_path / "report" / "report.html").read_text()
    left_out = re.search(r"(\d+) of 40 labelled sources of the catalogues, whose patches do not lie within", page)
    assert left_out and ("left out: " + left_out[0] in done.err) == (left_out[1] != "0")
    assert "Map of the embeddings" in page and "vis2img evaluate" in page
    assert "holds a report" in cli("evaluate", run, "-o", tmp_path / "report").error()


def test_evaluate_scores_a_run_on_labelled_pictures(demo, cli, tmp_path: Path) -> None:
    """Two kinds of picture that anything can tell apart: all of the test file is right, and shuffled labels are not."""
    rng = np.random.default_rng(0)
    label = np.tile([0, 1], 30)
    images = rng.normal(size=(60, 48, 48))
    images[label == 0, 22:26, 22:26] += 40
    images[label == 1, 8:14, 20:28] += 40
    images[label == 1, 34:40, 20:28] += 40
    files = {}
    for name, rows in (("train", slice(0, 40)), ("test", slice(40, 60)), ("twice", slice(30, 60))):
        files[name] = tmp_path / f"{name}.npz"
        position = {"ra": np.arange(60.0)[rows], "dec": np.zeros(60)[rows]}
        np.savez(files[name], images=images[rows], fr=label[rows], confident=np.ones(60, bool)[rows], **position)
    run = demo[0] / "run"
    given = ("--shares", 1.0, "--neighbours", 5, "--untrained", 1, "--seeds", 1, "--json", "--train", files["train"])
    done = cli("evaluate", run, "--task", "mirabest", *given, "--test", files["test"])
    assert done.code == 0, done.err
    rows = [row for row in json.loads(done.out) if row["task"] == "classification"]
    assert min(row["mean"] for row in rows if row["representation"] == "PCA of pixels, turned") > 0.75
    message = cli("evaluate", run, "--task", "mirabest", *given, "--test", files["twice"]).error()
    assert "10 sources" in message and "leave them out" in message


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--task", "mirabest"), "--train FILE"),
        (("--task", "guessing"), "choose from"),
        (("--step", "7"), "7"),
        (("--train", "a.npz", "--ms", "b.ms"), "one of the two"),
        (("--train", "nothere.npz", "--task", "mirabest"), "nothere.npz"),
    ],
)
def test_a_wrong_command_is_told_in_one_line(demo, cli, args, words) -> None:
    assert words in cli("evaluate", demo[0] / "run", *args).error()


def test_fields_without_a_truth_are_told(demo, settings, cli, tmp_path: Path) -> None:
    with pytest.raises(Vis2imgError, match="1 catalogues for 2"):
        read_truths(settings, [Path("one.fits")])
    bare = tmp_path / "bare.ms"
    bare.symlink_to(Path(settings.data.ms[0]).absolute())
    missing = cli("evaluate", demo[0] / "run", "--ms", tmp_path / "missing.ms").error()
    assert "missing.ms does not exist" in missing and "truth.fits" not in missing
    assert "bare.ms.truth.fits does not exist" in cli("evaluate", demo[0] / "run", "--ms", bare).error()
