"""The study: arms that differ in their views alone, work that is kept, and a report of all."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from pathlib import Path

import pytest
import yaml
from matplotlib.text import Text

from tests.helpers.places import ROOT

pytest.importorskip("simms", reason="the study simulates its data")

from vis2img.configs.load import load
from vis2img.errors import OutputError, ParameterError
from vis2img.locks import locked
from vis2img.train.evaluate.encoders import RANDOM
from vis2img.train.evaluate.scores import Score, differences, summaries, to_csv
from vis2img.train.report.plots import task_figures
from vis2img.train.run.metrics_log import read_metrics
from vis2img.train.study.budget import Pace
from vis2img.train.study.config import CLEAN, StudyConfig
from vis2img.train.study.figure import differences_figure
from vis2img.train.study.folder import budget_path, scores_path, settle
from vis2img.train.study.run import Study
from vis2img.train.study.skies import clean_path

ARMS = ("image-only", "full")


def small(out: Path, **changes) -> StudyConfig:
    base = StudyConfig()
    optim = dataclasses.replace(base.optim, warmup_steps=1, freeze_last_layer_steps=1)
    sizes = {
        "fields": 2,
        "test_fields": 2,
        "sources": 12,
        "steps": 3,
        "batch_size": 4,
        "supervised_steps": 2,
        "folds": 2,
    }
    return StudyConfig(**{"out": out, "arms": ARMS, "seeds": 1, "optim": optim, **sizes, **changes})


def test_arms_differ_in_their_views_alone_and_seeds_in_nothing_else(tmp_path: Path) -> None:
    config = small(tmp_path)
    image_only, full = (config.run_config(arm, 0) for arm in ARMS)
    alike = dataclasses.replace(full, out=image_only.out, data=dataclasses.replace(full.data, imaging="image-only"))
    assert alike == image_only and full != image_only
    other = config.run_config("full", 1)
    assert dataclasses.replace(other, seed=0, out=full.out, data=full.data) == full and other.out != full.out
    assert not {*other.data.ms} & {*full.data.ms}
    shared = [small(tmp_path, skies="shared").run_config("full", seed) for seed in (0, 1)]
    assert dataclasses.replace(shared[1], seed=0, out=shared[0].out) == shared[0]


def test_fields_to_train_and_to_test_on_are_other_skies_for_each_seed(tmp_path: Path) -> None:
    config = small(tmp_path, fields=40, test_fields=40)
    ones = [config.observation(i, test, seed) for seed in (0, 1) for test in (False, True) for i in range(40)]
    assert len({one.seed for one in ones}) == len({one.out for one in ones}) == 160
    assert len({one.phase_centre for one in ones}) == 80
    assert config.measurement_sets(True, 1)[3] == ones[-37].out == tmp_path / "data" / "1" / "test003.ms"
    shared = small(tmp_path, skies="shared")
    assert shared.observation(1, True, 1) == shared.observation(1, True, 0)
    assert shared.measurement_sets(True, 1)[1] == tmp_path / "data" / "test001.ms"


def test_observations_take_more_settings_and_half_of_the_fields_show_pictures_as_well(tmp_path: Path) -> None:
    config = small(
        tmp_path,
        fields=5,
        cutouts=(tmp_path / "real.npz",),
        cutout_fields=0.4,
        simulate={"ntimes": 60, "counts-flux": 1e-4},
    )
    ones = [config.observation(i, test) for test in (False, True) for i in range(5 if not test else 2)]
    assert {(one.ntimes, one.counts_flux) for one in ones} == {(60, 1e-4)}
    assert [(one.n_sources, one.n_cutouts) for one in ones] == [(12, 0), (6, 6), (12, 0), (6, 6), *[(12, 0)] * 3]
    assert [one.cutout_part for one in ones if one.cutouts] == [(0, 2), (1, 2)]


VARIANTS = {
    "base": None,
    "resnet-10": {"model": {"variant": "resnet10"}, "data.views.stretch": {"kind": "peak"}},
    "dry": {"optim.base-lr": 1e-3, "data": {"imaging": "taper-only"}},
}


def test_variants_are_settings_of_a_run_over_those_of_the_study(tmp_path: Path) -> None:
    config = small(tmp_path, arms=("image-only", *VARIANTS, "dry-strong"), variants=VARIANTS, steps=200)
    full, base, resnet, dry = (config.run_config(arm, 1) for arm in ("full", "base", "resnet-10", "dry"))
    assert dataclasses.replace(base, out=full.out) == full
    assert (resnet.model.variant, resnet.model.hidden) == ("resnet10", full.model.hidden)
    assert resnet.data.views == dataclasses.replace(full.data.views, stretch=resnet.data.views.stretch)
    assert resnet.data.views.stretch.kind == "peak" and resnet.optim == full.optim
    assert (dry.optim.base_lr, dry.data.imaging) == (1e-3, "taper-only") and dry.model == full.model
    assert config.run_config("dry-strong", 1).data.augment == config.strong
    # Everybody is asked about the same fields, imaged in the fixed way; only how views are cut is one's own.
    asked = {arm: config.test_data(arm, 1) for arm in config.compared}
    assert asked["base"] == asked["dry"] == asked["dry-strong"] == asked["image-only"]
    assert asked["resnet-10"] == dataclasses.replace(asked["base"], views=resnet.data.views)
    assert small(tmp_path, arms=(), variants=VARIANTS).compared == tuple(VARIANTS)


def test_step_counts_go_with_the_length_that_a_budget_gives(tmp_path: Path) -> None:
    optim = dataclasses.replace(StudyConfig().optim, warmup_steps=100, freeze_last_layer_steps=10)
    config = small(tmp_path, steps=1000, budget=60.0, optim=optim, variants={"slow": {"optim.warmup_steps": 300}})
    run, slow = config.run_config("full", 0, 50), config.run_config("slow", 0, 2500)
    assert (run.steps, run.optim.warmup_steps, run.optim.freeze_last_layer_steps) == (50, 5, 0)
    assert (slow.steps, slow.optim.warmup_steps, slow.optim.freeze_last_layer_steps) == (2500, 750, 25)
    assert config.run_config("full", 0, 2).optim.warmup_steps == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"variants": {"a": {"optim.objectiv": "byol"}}}, r"variants\.a: unknown key optim\.objectiv; did you mean"),
        ({"variants": {"a": {"model": {"patch": 5}}}}, r"variants\.a: model\.patch must be"),
        ({"variants": {"a": {"steps": 3}}}, r"variants\.a\.steps is none .* steps or budget of the study"),
        ({"variants": {"a": {"data.ms": ["x"]}}}, r"variants\.a\.data\.ms"),
        ({"variants": {"a": None, "A": None}}, "A cannot be the name"),
        ({"variants": {"full": {}}}, "full cannot be the name"),
        ({"variants": {"a": 3}}, r"variants\.a takes keys"),
        ({"data": {"near_peaks": 2}}, "near_peaks = 2.0"),
        ({"simulate": {"sources": 2}}, "simulate: unknown key sources"),
        ({"simulate": {"n_sources": 2}}, "simulate.n_sources .* see sources"),
        ({"cutout_fields": 0.5}, "cutout_fields"),
        ({"base": "CLEAN"}, "base: CLEAN is none of the arms"),
    ],
)
def test_settings_that_no_run_or_observation_could_have_are_named(tmp_path: Path, changes, words) -> None:
    with pytest.raises(ParameterError, match=words):
        small(tmp_path, **changes)


def test_strong_arms_vary_pictures_besides(tmp_path: Path) -> None:
    config = small(tmp_path, arms=("image-only", "image-only-strong", "full-strong"))
    plain, strong, both = (config.run_config(arm, 0).data for arm in config.arms)
    assert not plain.augment_fields and strong.augment_fields and both.augment_fields
    assert dataclasses.replace(
        strong, augment_fields=False, augment=plain.augment
    ) == plain and strong.augment.gain == (0.5, 2.0)
    assert both.imaging == "full"


def test_each_field_of_a_study_of_cutouts_has_its_own_share(tmp_path: Path) -> None:
    config = small(tmp_path, cutouts=(tmp_path / "real.npz",), fields=3, test_fields=2)
    ones = [config.observation(i, test) for test, count in ((False, 3), (True, 2)) for i in range(count)]
    assert [one.cutout_part for one in ones] == [(i, 5) for i in range(5)]
    assert {(one.n_sources, one.n_cutouts) for one in ones} == {(0, 12)}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arms": ("imagined",)}, "imagined is unknown"),
        ({"seeds": 0}, "seeds"),
        ({"test_fields": 1}, "test_fields"),
        ({"steps": 1}, r"warmup_steps = 1 must be less than steps = 1"),
    ],
)
def test_a_study_that_cannot_be_is_refused(tmp_path: Path, changes, words) -> None:
    with pytest.raises(ParameterError, match=words):
        small(tmp_path, **changes)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("compile_once")
def test_a_study_is_made_once_and_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    arms = (*ARMS, CLEAN) if shutil.which("wsclean") else ARMS
    variants = {"peak": {"data.views.stretch": {"kind": "peak"}}}
    config = small(tmp_path, arms=(*arms, "peak"), variants=variants, budget=0.5, refresh_every=2)
    report = Study(config, lambda *_: None).run()
    with (report.parent / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = {row["representation"] for row in rows}
    wanted = {*arms, "full minus image-only", "random weights", "PCA of pixels", "PCA of pixels, turned", "supervised"}
    assert wanted | {"peak minus image-only", "random weights, peak", "PCA of pixels, peak"} <= names
    # Every arm trained for as many steps as were measured to fit, and the page says what they took.
    for arm in config.compared:
        pace = Pace.read(budget_path(config, arm))
        steps = read_metrics(config.run_config(arm, 0).out)["step"]
        assert [*steps] == [*range(1, pace.steps + 1)]
        assert pace.steps == pytest.approx(0.5 / pace.step_seconds, abs=1) and pace.of >= 10
    page = report.read_text()
    assert all(title in page for title in ("What helps, against image-only", "Imaging as augmentation"))
    if CLEAN in arms:
        assert {"CLEAN minus image-only", "full, asked of CLEAN images", "random weights, CLEAN images"} <= names
        assert clean_path(config.measurement_sets(True)[0]).exists()
    # What is there is left alone; what is missing, and that alone, is made again, to the same numbers.
    gone, kept = (scores_path(config, arm, 0) for arm in ARMS)
    before, stamp = gone.read_text(), kept.stat().st_mtime_ns
    gone.unlink()
    Study(config, lambda *_: None).run()
    assert gone.read_text() == before and kept.stat().st_mtime_ns == stamp


def test_a_folder_holds_one_study_that_may_grow(tmp_path: Path) -> None:
    assert settle(small(tmp_path)).skies == "each"
    settle(small(tmp_path, seeds=3, arms=(*ARMS, "taper-only"), workers=2, base="taper-only"))
    settle(small(tmp_path, variants={"a": {"optim.base-lr": 1.0}}))
    settle(small(tmp_path, variants={"b": None, "a": {"optim": {"base_lr": 1}}}))
    settle(small(tmp_path))
    with pytest.raises(OutputError, match=r"another variants\.a\.optim\.base_lr"):
        settle(small(tmp_path, variants={"a": {"optim.base_lr": 2.0}}))
    with pytest.raises(OutputError, match="another clean"):
        settle(small(tmp_path, arms=(*ARMS, "CLEAN-strong")))
    with pytest.raises(OutputError, match="another steps"):
        settle(small(tmp_path, steps=9))
    with pytest.raises(OutputError, match="another model"):
        settle(small(tmp_path, model=dataclasses.replace(StudyConfig().model, patch=4)))
    with pytest.raises(OutputError, match="another skies"):
        settle(small(tmp_path, skies="shared"))


def test_a_folder_of_before_goes_on_with_the_skies_that_all_seeds_share(tmp_path: Path) -> None:
    config = settle(small(tmp_path, skies="shared"))
    path = tmp_path / "study.yaml"
    record = yaml.safe_load(path.read_text())
    new = ("skies", "variants", "budget", "simulate", "data", "cutout_fields")
    path.write_text(yaml.safe_dump({key: value for key, value in record.items() if key not in new}))
    assert settle(small(tmp_path)) == config
    with pytest.raises(OutputError, match="another skies"):
        settle(small(tmp_path, skies="each"))


def test_a_process_leaves_what_another_has_begun_and_writes_no_report_without_it(tmp_path: Path, monkeypatch) -> None:
    config, done = small(tmp_path, seeds=2), []

    def do(self: Study, arm: str, seed: int) -> bool:
        done.append((arm, seed))
        scores_path(config, arm, seed).write_text(to_csv([]))
        return True

    monkeypatch.setattr(Study, "do", do)
    monkeypatch.setattr(Study, "prepare", lambda self, seed: None)
    settle(config)
    with locked(scores_path(config, "full", 1)):
        assert Study(config, lambda *_: None).run() is None
    everything = {(arm, seed) for arm in (*ARMS, RANDOM) for seed in range(2)}
    assert {*done} == everything - {("full", 1)} and len(done) == len(everything) - 1
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("name", ["study.yaml", "study_cutouts.yaml"])
def test_the_studies_of_the_examples_can_be_read(name: str) -> None:
    config = load(StudyConfig, ROOT / "examples" / name)
    assert {"image-only", "full", CLEAN} <= {*config.arms} and config.seeds == 5


@pytest.mark.parametrize("path", sorted((ROOT / "examples" / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_study_of_one_question_tells_its_command_and_time_and_has_arms_that_differ(path: Path) -> None:
    config, head = load(StudyConfig, path), path.read_text().partition("\nout:")[0]
    hours = len(config.compared) * config.seeds * config.budget / 3600
    assert f"vis2img study examples/studies/{path.name}" in head and f": {hours:g} hours of training" in head
    assert config.bases == (config.base,) and config.seeds >= 3
    runs = [dataclasses.replace(config.run_config(arm, 0), out="run") for arm in config.compared]
    assert all(one != other for i, one in enumerate(runs) for other in runs[:i])


def test_the_picture_shows_the_differences_of_each_arm_with_their_intervals() -> None:
    rows = [
        Score("classification", arm, "k-NN", "balanced accuracy", 1.0, seed, value + 0.01 * seed)
        for arm, value in (("image-only", 0.5), ("full", 0.7), ("CLEAN", 0.4))
        for seed in range(3)
    ]
    rows.append(dataclasses.replace(rows[3], seed=3, value=0.9))  # of full alone: no pair
    rows += differences(rows, "full", "image-only") + differences(rows, "CLEAN", "image-only")
    spread = {0: 0.0, 1: 0.02, 2: 0.0}
    rows = [
        dataclasses.replace(row, value=row.value + spread[row.seed]) if "minus" in row.representation else row
        for row in rows
    ]
    figure = differences_figure(summaries(rows), ["image-only"])
    axis = figure.axes[0]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["full", "CLEAN"]
    points = axis.containers[0].lines[0]
    wanted = [row.mean for row in summaries(rows) if "minus" in row.representation]
    assert points.get_xdata() == pytest.approx(wanted) and wanted[0] == pytest.approx(0.2 + 0.02 / 3)
    # The figures of scores leave them out: their zero is elsewhere.
    shown = {text.get_text() for *_, picture in task_figures(summaries(rows)) for text in picture.findobj(match=Text)}
    assert "full" in shown and not [text for text in shown if "minus" in text]


def test_a_study_that_is_stopped_says_so_and_keeps_what_is_done(tmp_path: Path, monkeypatch) -> None:
    config = small(tmp_path)

    def do(self: Study, arm: str, seed: int) -> bool:
        if arm == "full":
            return False
        scores_path(config, arm, seed).write_text(to_csv([]))
        return True

    monkeypatch.setattr(Study, "do", do)
    monkeypatch.setattr(Study, "prepare", lambda self, seed: None)
    study = Study(config, lambda *_: None)
    assert study.run() is None and study.stopped
    assert scores_path(config, "image-only", 0).exists() and not scores_path(config, "full", 0).exists()
