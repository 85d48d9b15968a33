"""Priors as data: presets suit any measurement set, files say in one line what is wrong with them."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import yaml

from tests.helpers.measurement_sets import CENTRE, build_ms
from tests.helpers.places import ROOT
from vis2img.averaging.params import AveragingParams
from vis2img.averaging.run import average
from vis2img.dataset import MeasurementSet, open_ms
from vis2img.draws.field import make_draw
from vis2img.draws.observed_field import ObservedField
from vis2img.draws.presets import PRESETS, PriorConfig, load_prior
from vis2img.draws.prior import ImagingPrior
from vis2img.errors import ParameterError, Vis2imgError
from vis2img.imaging.params import ImagingParams
from vis2img.ms.selection import Selection
from vis2img.random import draw_rng

ARCSEC = math.pi / 648000
# Fields of ImagingParams that a preset varies, besides the seed of thinning out.
FAMILIES = {
    "weighting-only": {"weighting", "robust"},
    "taper-only": {"taper"},
    "uv-only": {"uvrange", "keep_antennas", "keep_baselines"},
    "channels-only": {"band"},
    "time-only": {"time_span", "keep_times"},
    "scale-only": {"pixsize", "npix"},
    "image-only": set(),
}
EVERYTHING = set().union(*FAMILIES.values())


@pytest.fixture(scope="module")
def ms(tmp_path_factory: pytest.TempPathFactory) -> MeasurementSet:
    return open_ms(build_ms(tmp_path_factory.mktemp("prior") / "obs.ms", antennas=9).path)


@pytest.fixture(scope="module")
def averaged(ms: MeasurementSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("averaged") / "obs.zarr"
    average(ms.meta, path, AveragingParams((128, 96), 4 * ARCSEC, CENTRE, channel_blocks=2))
    return path


def draws(ms: MeasurementSet, preset: str, count: int = 60) -> list[ImagingParams]:
    prior = ImagingPrior.for_ms(ms, npix=64, config=PRESETS[preset])
    return [prior.draw(draw_rng(0, 0, index)) for index in range(count)]


def varied(params: list[ImagingParams]) -> set[str]:
    names = {f.name for f in dataclasses.fields(ImagingParams)} - {"sampling_seed"}
    return {name for name in names if len({getattr(p, name) for p in params}) > 1}


@pytest.mark.parametrize("preset", FAMILIES)
def test_a_family_varies_by_itself(ms: MeasurementSet, preset: str) -> None:
    drawn, full, fixed = draws(ms, preset), draws(ms, "full"), draws(ms, "image-only")
    assert varied(drawn) == FAMILIES[preset]
    for own, whole, plain in zip(drawn, full, fixed, strict=True):
        for name in EVERYTHING:  # what varies does as in full, what does not is as in image-only
            assert getattr(own, name) == getattr(whole if name in FAMILIES[preset] else plain, name)


@pytest.mark.parametrize("preset", ["full", "gentle"])
def test_everything_varies(ms: MeasurementSet, preset: str) -> None:
    assert varied(draws(ms, preset)) == EVERYTHING - ({"weighting"} if preset == "gentle" else set())


def test_gentle_lies_within_full() -> None:
    gentle, full = PRESETS["gentle"], PRESETS["full"]
    for name in ("pixsize", "robust", "uv_min", "uv_max", "band_fraction", "time_fraction", "keep_antennas"):
        low, high = getattr(full, name)
        assert low <= getattr(gentle, name)[0] < getattr(gentle, name)[1] <= high


def test_full_has_the_ranges_of_earlier_runs(ms: MeasurementSet) -> None:
    pixel = ms.imaging_params(npix=64).pixsize
    longest = 1 / (3 * pixel)
    assert longest == pytest.approx(ms.meta.uv_max, rel=0.05)  # the pixel is rounded to two digits
    prior = ImagingPrior.for_ms(ms, npix=64)
    assert (prior.fov, prior.unit) == (64 * pixel, pixel)
    assert prior.pixsize == (0.85 * pixel, 1.18 * pixel) and prior.taper == (1.5 * pixel, 4 * pixel)
    assert prior.uv_min == (0.0, 0.01 * longest) and prior.uv_max == (0.6 * longest, 1.2 * longest)
    assert PriorConfig() == PRESETS["full"] == prior.ranges
    assert prior.ranges == PriorConfig(
        pixsize=(0.85, 1.18),
        weightings=("natural", "briggs", "briggs", "uniform"),
        robust=(-1.5, 1.5),
        taper=(1.5, 4.0),
        taper_probability=0.5,
        uv_min=(0.0, 0.01),
        uv_max=(0.6, 1.2),
        band_fraction=(0.4, 1.0),
        time_fraction=(0.4, 1.0),
        keep_times=(0.7, 1.0),
        keep_antennas=(0.8, 1.0),
        keep_baselines=(0.7, 1.0),
        epsilon=1e-3,
    )


def test_image_only_is_the_image_that_is_made_by_default(ms: MeasurementSet) -> None:
    drawn = draws(ms, "image-only", 1)[0]
    plain = ms.imaging_params(npix=64)
    assert drawn.pixsize == pytest.approx(plain.pixsize, rel=1e-12)
    alike = {"pixsize": plain.pixsize, "sampling_seed": 0, "epsilon": plain.epsilon}
    assert dataclasses.replace(drawn, **alike) == plain
    fixed = ImagingPrior.for_ms(ms, npix=64).fixed().draw(draw_rng(0, 0, 0))
    assert fixed.pixsize == pytest.approx(plain.pixsize, rel=2e-3)
    assert dataclasses.replace(fixed, **alike) == plain


@pytest.mark.parametrize("preset", PRESETS)
def test_averaged_data_can_be_drawn_under_every_preset(averaged: Path, preset: str) -> None:
    prior = ImagingPrior.for_ms(open_ms(averaged), config=PRESETS[preset])
    assert prior.ranges.keep_antennas == prior.ranges.keep_times == (1.0, 1.0)
    draw = make_draw(ObservedField(str(averaged), Selection(), prior), 0, 0, 1)  # a facet that is wider than high
    assert draw.data.max() > 0.2


@pytest.mark.parametrize("preset", PRESETS)
def test_a_prior_survives_yaml(preset: str) -> None:
    text = yaml.safe_dump(PRESETS[preset].to_dict())
    assert "tuple" not in text
    assert PriorConfig.from_dict(yaml.safe_load(text)) == PRESETS[preset]


def test_a_file_changes_a_preset(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "preset: image-only\nrobust: [-2, 1]\ntaper: 3\ntaper-probability: 1\nepsilon: 1e-3\n"
        "weightings: [natural, briggs]\nuv_max: [0.5, 1]\n"
    )
    expected = dataclasses.replace(
        PRESETS["image-only"],
        robust=(-2.0, 1.0),
        taper=(3.0, 3.0),
        taper_probability=1.0,
        epsilon=1e-3,
        weightings=("natural", "briggs"),
        uv_max=(0.5, 1.0),
    )
    assert load_prior(str(path)) == expected
    path.write_text("uv_max: null")
    assert load_prior(str(path)) == dataclasses.replace(PRESETS["full"], uv_max=(math.inf, math.inf))
    assert load_prior("gentle") == PRESETS["gentle"]


def test_the_example_is_a_prior() -> None:
    path = ROOT / "examples" / "prior.yaml"
    prior = load_prior(str(path))
    assert prior not in PRESETS.values()
    named = {key.replace("-", "_") for key in yaml.safe_load(path.read_text())}
    assert named - {"preset"} <= {f.name for f in dataclasses.fields(PriorConfig)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("robst: [0, 1]", ["unknown key robst", "did you mean robust?"]),
        ("zzz: 1", ["unknown key zzz", "known: pixsize, weightings"]),
        ("preset: ful", ["preset 'ful' is unknown", "did you mean full?"]),
        ("preset: [full]", ["preset", "is unknown"]),
        ("robust: [1, -1]", ["robust = [1, -1]", "low <= high"]),
        ("robust: [-9, 1]", ["robust = [-9, 1]", "from -5 to 5"]),
        ("robust: [1, 2, 3]", ["robust: [1, 2, 3]", "must be 2 values"]),
        ("robust: high", ["robust", "'high' is not a number"]),
        ("robust: null", ["robust", "None is not a number"]),
        ("keep_times: [yes, 1]", ["keep_times", "True is not a number"]),
        ("keep-times: [0, 1]", ["keep_times", "fractions"]),
        ("band_fraction: [0.5, 1.5]", ["band_fraction", "fractions"]),
        ("weightings: [natural, brigs]", ["weightings", "'brigs'", "did you mean briggs?"]),
        ("weightings: []", ["weightings is empty"]),
        ("weightings: 3", ["weightings: 3 is unknown", "known: natural"]),
        ("taper_probability: 2", ["taper_probability", "0 to 1"]),
        ("epsilon: 1", ["epsilon", "1e-05"]),
        ("pixsize: [0, 1]", ["pixsize", "0.1"]),
        ("uv_max: [0.6, .inf]", ["uv_max", "0 to 10"]),
        ("uv_min: .nan", ["uv_min", "nan is not a number"]),
        ("uv_min: [0, 0.7]", ["uv_min", "uv_max"]),
        ("- 1", ["must hold keys and values"]),
        ("a: [", ["not valid YAML"]),
    ],
)
def test_a_mistake_in_a_file_is_told_in_one_line(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ParameterError) as caught:
        load_prior(str(path))
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    assert all(word in message for word in words), message


def test_neither_a_preset_nor_a_file() -> None:
    with pytest.raises(ParameterError, match="did you mean weighting-only"):
        load_prior("weightings-only")
    with pytest.raises(Vis2imgError, match=r"nowhere/mine\.yaml"):
        load_prior("nowhere/mine.yaml")
