"""``vis2img augment``: the sheet shows the same sky in every column, and every column can be made again."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image as Picture

from tests.helpers.command_line import fingerprint
from tests.helpers.measurement_sets import CENTRE, Synthetic, build_ms
from tests.helpers.places import ROOT
from vis2img.cli.augment import preset_rows, preset_table
from vis2img.dataset import open_ms
from vis2img.draws.draw import Draw
from vis2img.draws.observed_field import ObservedField
from vis2img.draws.presets import PRESETS
from vis2img.draws.prior import ImagingPrior
from vis2img.imaging.params import ImagingParams
from vis2img.ms.selection import Selection
from vis2img.views.crops import cut
from vis2img.views.sheet import Sheet, SheetConfig, make_sheet
from vis2img.views.sheet_figure import draw_sheet
from vis2img.views.stretch import Stretch

SOURCES = ((3.0, 0.0, 0.0), (2.0, 0.0021, 0.0012), (1.5, -0.0015, 0.002))  # Jy, l, m
SMALL = ("--npix", 192, "--patch-npix", 32, "--quiet")


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Synthetic:
    return build_ms(
        tmp_path_factory.mktemp("augment") / "obs.ms", antennas=16, times=12, channels=8, sources=SOURCES, seed=2
    )


@pytest.fixture(scope="module")
def sheet(observed: Synthetic) -> Sheet:
    config = SheetConfig(draws=3, patches=4, npix=192, patch_npix=32, seed=5)
    ms = open_ms(observed.path)
    prior = ImagingPrior.for_ms(ms, npix=192)
    reported: list[tuple[int, int]] = []
    source = ObservedField(str(observed.path), Selection(), prior)
    made = make_sheet(
        source, config, ms.imaging_params(npix=192), workers=2, progress=lambda stage, *counts: reported.append(counts)
    )
    assert reported == [(i, 4) for i in range(5)]
    return made


def test_rows_are_the_brightest_sources_and_an_empty_place(sheet: Sheet) -> None:
    places = np.array([patch.lm for patch in sheet.patches])
    pixel = sheet.columns[0].params.pixsize
    assert np.abs(places[:3] - np.array(SOURCES)[:, 1:]).max() < 1.5 * pixel
    assert [patch.label.split()[0] for patch in sheet.patches] == ["peak", "peak", "peak", "empty"]
    assert sheet.patches[0].position == pytest.approx(CENTRE, abs=2 * pixel)
    empty = sheet.columns[0].views[3]
    assert np.abs(empty).max() < 0.5 * np.abs(sheet.columns[0].views[2]).max()
    assert np.abs(places[3] - places[:3]).max(axis=1).min() > sheet.side / 2


def test_columns_show_the_same_sky_made_in_other_ways(sheet: Sheet) -> None:
    assert [column.title for column in sheet.columns] == ["reference", "draw 0", "draw 1", "draw 2"]
    for row in range(3):
        for column in sheet.columns:
            y, x = np.unravel_index(column.views[row].argmax(), (32, 32))
            assert abs(y - 15.5) < 4 and abs(x - 15.5) < 4  # the source stays in the middle
    for i, one in enumerate(sheet.columns):
        for other in sheet.columns[i + 1 :]:
            assert np.abs(one.views - other.views).max() > 0.3 and one.caption != other.caption
    assert len({len(column.caption) for column in sheet.columns}) == 1
    reference = sheet.columns[0]
    assert {"robust 0.0", "no taper", "100% of times", "all uv", "100% of antennas"} <= set(reference.caption)
    band = reference.caption[2]
    assert band == "1.000-1.035 GHz"


def test_panels_hold_what_the_network_sees(sheet: Sheet, observed: Synthetic) -> None:
    for column in sheet.columns:
        draw = ObservedField(str(observed.path), Selection(), None).draw(column.params)  # type: ignore[arg-type]
        for patch, view in zip(sheet.patches, column.views, strict=True):
            expected = cut(draw, *patch.lm, sheet.side, 32, Stretch())[..., 0]
            assert np.allclose(view, expected, atol=1e-4)


def test_the_figure_has_a_panel_for_each_view(sheet: Sheet) -> None:
    figure = draw_sheet(sheet, "a $ in the name")
    assert len(figure.axes) == 16
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:4] == ["\n".join([column.title, *column.caption]) for column in sheet.columns]
    assert not any(titles[4:])
    for i, axes in enumerate(figure.axes):
        assert np.array_equal(np.asarray(axes.images[0].get_array()), sheet.columns[i % 4].views[i // 4])
    bars = [[line for line in axes.lines if line.get_gid() == "bar"] for axes in figure.axes]
    assert [len(found) for found in bars] == [1, 0, 0, 0] * 4
    bar, text = bars[0][0], figure.axes[0].texts[0].get_text()
    number, unit = text.split()
    length = float(number) * {"arcmin": 60, "arcsec": 1}[unit] / 3600
    assert np.ptp(bar.get_xdata()) / 32 == pytest.approx(length / math.degrees(sheet.side))
    assert 0.15 < np.ptp(bar.get_xdata()) / 32 <= 0.4
    figure.canvas.draw()  # the name is no mathematics


def test_every_column_can_be_made_again(cli, observed: Synthetic, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    before = fingerprint(observed.path)
    options = ("--channels", "1:7", "--robust", -2, -0.5, "--epsilon", 1e-3, "--seed", 3)
    done = cli("augment", observed.path, *SMALL, *options, "--draws", 3, "--patches", 2, "-o", out, "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["prior"] == {**PRESETS["full"].to_dict(), "robust": [-2.0, -0.5], "epsilon": 1e-3}
    with Picture.open(out) as picture:
        assert picture.size[0] > 600
    assert [column["title"] for column in record["columns"]] == ["reference", "draw 0", "draw 1", "draw 2"]
    for column in record["columns"]:
        params = ImagingParams.from_dict(column["params"])
        program, *words = shlex.split(column["repeat"])
        assert program == "vis2img"
        again = cli(*words, "--threads", 1, "--no-png", "-o", tmp_path / "again.fits", "--overwrite")
        assert again.code == 0, again.err
        source = ObservedField(str(observed.path), Selection(channels=(1, 7)), None)  # type: ignore[arg-type]
        draw: Draw = source.draw(params)
        assert np.array_equal(fits.getdata(tmp_path / "again.fits")[0, 0], draw.data[0])
        assert draw.noise[0] == pytest.approx(column["noise_jy_beam"], rel=1e-4)
    assert fingerprint(observed.path) == before


def test_chosen_places_and_a_file(cli, observed: Synthetic, tmp_path: Path) -> None:
    prior = tmp_path / "mine.yaml"
    prior.write_text("preset: image-only\nrobust: [1, 2]\n")
    ra, dec = (math.degrees(angle) for angle in CENTRE)
    places = [f"{ra},{dec}", f"{ra + 0.03},{dec - 0.02}"]
    out = tmp_path / "sheet.pdf"
    words = ("augment", observed.path, *SMALL, "--draws", 2, "--prior", prior, "--at", *places, "-o", out, "--json")
    record = json.loads(cli(*words).out)
    assert out.read_bytes().startswith(b"%PDF")
    assert np.allclose([p["position_deg"] for p in record["patches"]], [[ra, dec], [ra + 0.03, dec - 0.02]])
    assert [len(column["caption"]) for column in record["columns"]] == [1, 1, 1]
    assert record["columns"][0]["caption"] == ["robust 0.0"]
    assert f"{out} exists already" in cli(*words).error()
    assert cli(*words, "--overwrite").code == 0


def test_draws_that_keep_nothing_are_shown_as_such(cli, observed: Synthetic, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    options = ("--uv-min", 0, 0, "--uv-max", 1e-4, 2e-4, "--draws", 1, "--patches", 1)
    done = cli("augment", observed.path, "--npix", 192, "--patch-npix", 32, *options, "-o", out)
    assert done.code == 0 and out.exists()
    warnings = [line for line in done.err.splitlines() if "warning" in line]
    assert len(warnings) == 1 and warnings[0].startswith("vis2img: warning: draw 0: ")


def test_averaged_data_have_a_sheet_too(cli, observed: Synthetic, tmp_path: Path) -> None:
    store = tmp_path / "obs.zarr"
    assert cli("average", observed.path, "--npix", 192, "-o", store, "--quiet").code == 0
    out = tmp_path / "sheet.png"
    done = cli("augment", store, "--patch-npix", 32, "--draws", 1, "--quiet", "-o", out, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["columns"][1]["params"]["keep_antennas"] == 1.0


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("-o", "sheet.jpg"), 1, "must end with .png or .pdf"),
        (("-o", "nowhere/sheet.png"), 1, "does not exist"),
        (("--preset", "ful"), 2, "did you mean full?"),
        (("--preset", "gentle", "--prior", "mine.yaml"), 2, "give --preset or --prior"),
        (("--prior", "nowhere.yaml"), 1, "nowhere.yaml"),
        (("--robust", 2, -2), 2, "robust = [2, -2]"),
        (("--draws", 0), 2, "--draws 0"),
        (("--threads", 0), 2, "--threads 0"),
        (("--npix", 64), 1, "--patch-npix 128 does not fit"),
        (("--npix", 256, "--at", "10,20"), 1, "reaches beyond the field"),
        (("--field", "NOTHERE"), 1, "NOTHERE"),
    ],
)
def test_a_mistake_is_told_before_anything_is_read(cli, make_ms, monkeypatch, tmp_path, options, code, words) -> None:
    made = make_ms()
    (made.path / "table.f0_TSM0").write_bytes(b"")  # would be told if data were read
    monkeypatch.chdir(tmp_path)
    message = cli("augment", made.path, *options).error(code)
    assert words in message
    assert [path.name for path in tmp_path.iterdir()] == ["ms"]


def test_outputs_inside_the_measurement_set_are_refused(cli, observed: Synthetic) -> None:
    assert "never written to" in cli("augment", observed.path, "-o", observed.path / "a.png").error()


def test_presets_are_listed(cli) -> None:
    listed = cli("augment", "--list")
    assert listed.code == 0 and listed.out.splitlines() == preset_table()
    assert "MS is missing" in cli("augment").error(2)
    assert json.loads(cli("augment", "--list", "--json").out) == {k: v.to_dict() for k, v in PRESETS.items()}
    told = {line.split()[0]: line for line in preset_table()[1:]}
    assert set(told) == set(PRESETS["full"].to_dict())
    page = (ROOT / "docs" / "augmentation.md").read_text()
    for key, *cells in preset_rows()[1:]:
        assert f"| `{key}` | {' | '.join(cells)} |" in page
    for name, preset in PRESETS.items():  # a preset of a family varies what the last column says, and nothing else
        if name not in ("full", "gentle", "image-only"):
            for key, value in preset.to_dict().items():
                plain, full = (PRESETS[which].to_dict()[key] for which in ("image-only", "full"))
                assert value == (full if name in told[key] else plain)


def test_a_field_without_peaks_says_so(cli, make_ms, tmp_path: Path) -> None:
    made = make_ms(antennas=9, times=8)
    rng = np.random.default_rng(0)
    made.edit("DATA", lambda data: rng.normal(size=data.shape) + 1j * rng.normal(size=data.shape))
    done = cli("augment", made.path, *SMALL[:4], "--draws", 1, "-o", tmp_path / "noise.png")
    assert done.code == 0 and "no peak above 8 sigma" in done.err
