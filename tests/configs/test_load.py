"""YAML files and options give one configuration: types, units, nested and flat keys, and one line for a mistake."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml

from vis2img.configs.load import build, draft, load, override
from vis2img.configs.overlay import Overlay, lay_over
from vis2img.configs.records import differences, to_options, to_record
from vis2img.configs.values import FLAT
from vis2img.errors import ParameterError, UsageError
from vis2img.imaging.params import ImagingParams
from vis2img.units import Angle, Antennas, Direction, Duration, IndexRange, Memory, Npix, Spws, UVRange


@dataclass(frozen=True)
class Crew:
    """A group whose keys stand among those of the one around it."""

    workers: int = 0
    dashboard: bool = False

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ParameterError(f"workers = {self.workers} must not be negative")


@dataclass(frozen=True)
class Data:
    """A group."""

    ms: tuple[str, ...] = ()
    fov: Angle | None = None
    sizes: tuple[Angle, Angle] = (0.0, 1.0)
    centre: Direction = (0.0, 0.0)
    channels: IndexRange = (None, None)
    uvrange: UVRange = (0.0, math.inf)
    npix: Npix = (512, 512)
    antennas: Antennas | None = None
    spw: Spws | None = None
    memory: Memory = 1e9
    span: tuple[float, float] = (0.0, 1.0)
    mode: Literal["sync", "async"] = "async"
    rotate: bool = True
    folder: Path | None = None
    crew: Annotated[Crew, FLAT] = field(default_factory=Crew)


@dataclass(frozen=True)
class Settings:
    """Everything."""

    out: str
    data: Data = field(default_factory=lambda: Data(ms=("default.ms",)))
    steps: int = 10
    warmup: int = 5

    def __post_init__(self) -> None:
        if self.warmup >= self.steps:
            raise ParameterError(f"warmup = {self.warmup} must be less than steps = {self.steps}")


HERE = Path("run.yaml")


def data(text: str) -> Data:
    return build(Data, yaml.safe_load(text), HERE)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("ms: [a.ms, b.ms]", "ms", ("a.ms", "b.ms")),
        ("ms: a.ms", "ms", ("a.ms",)),
        ("fov: 0.5deg", "fov", math.radians(0.5)),
        ("fov: 0", "fov", 0.0),
        ("fov: null", "fov", None),
        ("sizes: [30arcsec, 1arcmin]", "sizes", (math.radians(1 / 120), math.radians(1 / 60))),
        ("centre: 180deg,-30deg", "centre", (math.pi, -math.pi / 6)),
        ("channels: '0:8'", "channels", (0, 8)),
        ("channels: 7", "channels", (7, 8)),
        ("channels: [3, null]", "channels", (3, None)),
        ("uvrange: 0.1k:20k", "uvrange", (100.0, 20000.0)),
        ("uvrange: [0.1, .inf]", "uvrange", (0.1, math.inf)),
        ("npix: 256", "npix", (256, 256)),
        ("npix: [256, 128]", "npix", (256, 128)),
        ("antennas: [m000, m001]", "antennas", ("m000", "m001")),
        ("spw: 2", "spw", 2),
        ("spw: [0, 2]", "spw", (0, 2)),
        ("spw: all", "spw", "all"),
        ("memory: 10MB", "memory", 1e7),
        ("memory: 250", "memory", 250.0),
        ("span: [1e-3, 0.5]", "span", (0.001, 0.5)),
        ("mode: sync", "mode", "sync"),
        ("rotate: no", "rotate", False),
        ("folder: here", "folder", Path("here")),
    ],
)
def test_a_value_has_the_type_of_its_field_and_can_be_given_again(text: str, name: str, value: object) -> None:
    config = data(text)
    assert getattr(config, name) == value and type(getattr(config, name)) is type(value)
    assert config == replace(Data(), **{name: value})
    again = yaml.safe_load(yaml.safe_dump(to_record(config)))
    assert build(Data, again, HERE) == config


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fov: 20", "fov: '20' is not an angle; write a number and a unit"),
        ("sizes: [30, 60]", "sizes: '30' is not an angle"),
        ("sizes: 30arcsec", "sizes: .* must be 2 values"),
        ("centre: [60, -30]", "centre: .* is not a direction"),
        ("channels: 1-8", "channels: '1-8' is not a range of indices"),
        ("channels: [a, 8]", "channels: .* is not a range of indices"),
        ("memory: much", "memory: 'much' is not an amount of memory"),
        ("span: [1, 2, 3]", r"span: \[1, 2, 3\] must be 2 values"),
        ("span: [high, 2]", "span: 'high' is not a number"),
        ("span: [yes, 2]", "span: True is not a number"),
        ("span: [null, 2]", "span: None is not a number"),
        ("mode: synch", "mode: 'synch' is unknown; did you mean sync?"),
        ("rotate: 1", "rotate: 1 is neither true nor false"),
        ("workers: 1.5", "workers: 1.5 is not a whole number"),
        ("workers: true", "workers: True is not a whole number"),
        ("workers: .inf", "workers: inf is not a whole number"),
        ("ms: [true]", "ms: True is not text"),
        ("rotat: true", "unknown key rotat; did you mean rotate?"),
        ("worker: 1", "unknown key worker; did you mean workers?"),
        ("crew: 5", "crew takes keys of its own"),
        ("ms: {a: 1}", "ms takes a value, not keys"),
    ],
)
def test_a_mistake_is_told_with_file_and_key(text: str, words: str) -> None:
    with pytest.raises(ParameterError, match=rf"^run\.yaml: {words}"):
        data(text)


@pytest.mark.parametrize("text", ["{workers: 2, rotate: false}", "{crew: {workers: 2}, rotate: false}"])
def test_the_keys_of_a_flat_group_stand_among_the_others(text: str) -> None:
    record = {"out": "x", "data": yaml.safe_load(text)}
    config = build(Settings, record, HERE)
    assert config.data == Data(ms=("default.ms",), crew=Crew(workers=2), rotate=False)
    assert to_record(config)["data"]["workers"] == 2 and "crew" not in to_record(config)["data"]
    assert override(config, ["--data.workers", "3", "--data.dashboard"], "cmd").data.crew == Crew(3, True)
    with pytest.raises(ParameterError, match=r"run\.yaml: data\.workers = -1 must not"):
        build(Settings, {"out": "x", "data": {"workers": -1}}, HERE)
    with pytest.raises(UsageError, match=r"^data\.workers = -1 must not .* \(cmd --help\)$"):
        override(config, ["--data.workers", "-1"], "cmd")


def test_file_and_options_are_checked_together(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("steps: 5\n")  # neither complete nor legal by itself
    assert load(Settings, path, ["--out", "x", "--warmup", "1"]) == Settings("x", steps=5, warmup=1)
    with pytest.raises(UsageError, match="--out is missing"):
        load(Settings, path, [])
    with pytest.raises(ParameterError, match=r"run\.yaml: out is missing"):
        load(Settings, path)
    path.write_text("out: x\nsteps: 5\n")
    with pytest.raises(ParameterError, match=r"run\.yaml: warmup = 5 must be less than steps = 5"):
        load(Settings, path)


@pytest.mark.parametrize("there", [True, False])
def test_a_flag_may_say_what_is_so_already(there: bool) -> None:
    given = draft(Settings, {"out": "x", "data": {"rotate": there}}, HERE)
    assert override(given, ["--data.rotate"], "cmd").data.rotate
    assert not override(given, ["--data.no-rotate"], "cmd").data.rotate


def test_indices_are_no_numbers_to_the_base_60(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("channels: 10:32\nspan: [1.0e-3, 2_5]\n")
    config = load(Data, path)
    assert config.channels == (10, 32) and config.span == (0.001, 25.0)


def test_angles_of_an_earlier_version_are_radians() -> None:
    record = {"fov": 0.01, "sizes": [1e-4, 2e-4], "channels": [0, 8]}
    config = build(Data, record, HERE, saved=True)
    assert config == Data(fov=0.01, sizes=(1e-4, 2e-4), channels=(0, 8))
    with pytest.raises(ParameterError, match="is not an angle"):
        build(Data, record, HERE)
    assert build(Data, to_record(config), HERE, saved=True) == config


def test_options_give_the_values_again_without_rounding() -> None:
    params = ImagingParams((256, 128), 1.23456789e-5, uvrange=(0.1 + 0.2, math.inf), phase_centre=(1 / 3, -0.7))
    words = to_options(params)
    assert words[:2] == ["--npix", "256,128"] and "--robust" not in words
    given = draft(ImagingParams, {}, HERE)
    assert override(given, words, "vis2img image") == params


def test_what_differs_is_named_in_full() -> None:
    one = Settings("a", Data(crew=Crew(2)))
    other = replace(one, out="b", data=replace(one.data, span=(0.0, 0.5), crew=Crew(3)))
    assert [each.key for each in differences(one, other)] == ["out", "data.span", "data.workers"]
    (only,) = differences(to_record(one), other, ignore=("out", "data.workers"))
    assert str(only) == "data.span ([0.0, 1.0] there, [0.0, 0.5] here)"
    assert differences(one, one) == []


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = tmp_path / "run.yaml"
    path.write_text("out: ~/runs/first\ndata: {ms: [~/a.ms, b~.ms], folder: ~/cache}\n")
    config = load(Settings, path)
    home = f"{tmp_path}/home"
    assert config.out == f"{home}/runs/first"
    assert config.data.ms == (f"{home}/a.ms", "b~.ms") and config.data.folder == Path(home, "cache")
    assert load(Settings, path, ["--out=~/other"]).out == f"{home}/other"
    path.write_text("out: ~nobody-of-that-name/x\n")
    assert load(Settings, path).out == "~nobody-of-that-name/x"


@dataclass(frozen=True)
class Comparison:
    """Settings of others, whose names are known later."""

    variants: Overlay = field(default_factory=dict)
    limit: Duration = 0.0


def test_an_overlay_holds_any_keys_and_goes_over_a_configuration() -> None:
    record = {"variants": {"a": {"data.sizes": ["1deg", "2deg"], "data": {"mode": "sync"}}}, "limit": "10min"}
    comparison = build(Comparison, record, HERE)
    assert comparison.limit == 600 and comparison.variants == record["variants"]
    for saved in (False, True):
        assert build(Comparison, to_record(comparison), HERE, saved=saved) == comparison
    assert override(Comparison(), to_options(comparison), "compare") == comparison

    base = Settings("run", Data(ms=("mine.ms",), spw=3))
    over = lay_over(base, comparison.variants["a"], "variants.a")
    assert over == replace(base, data=replace(base.data, sizes=(math.radians(1), math.radians(2)), mode="sync"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"data": {"moed": "sync"}}, r"^variants\.a: unknown key data\.moed; did you mean data\.mode\?$"),
        ({"data.mode": "both"}, r"^variants\.a: data\.mode: 'both' is unknown"),
        ({"warmup": 10}, r"^variants\.a: warmup = 10 must be less"),
        ({"data.workers": -1}, r"^variants\.a: data\.workers = -1"),
        ({"data": {"mode": "sync"}, "data.mode": "async"}, r"^variants\.a: the key mode is there twice$"),
        ({"data": "x"}, r"^variants\.a: data takes keys of its own$"),
    ],
)
def test_what_is_wrong_with_an_overlay_is_told_by_its_key(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        lay_over(Settings("run"), settings, "variants.a")


def test_an_overlay_takes_keys_alone() -> None:
    with pytest.raises(ParameterError, match="variants takes keys of its own"):
        build(Comparison, {"variants": 3}, HERE)
    with pytest.raises(UsageError, match="--variants: '3' holds no keys"):
        override(Comparison(), ["--variants", "3"], "compare")
