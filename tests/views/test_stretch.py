"""What pixels become, by formulas written out in NumPy, and that every way to a view gives the same bits."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.draws import ARCSEC, draw_of
from tests.helpers.pictures import noisy_pictures
from vis2img.configs.load import build, load
from vis2img.configs.records import to_record
from vis2img.errors import ParameterError
from vis2img.loader.config import LoaderConfig
from vis2img.pictures.cutting import Square, cut_picture, one_picture
from vis2img.pictures.labels import read_labelled
from vis2img.views.crops import Crop, ViewConfig, cut
from vis2img.views.pixel_changes import CutoutAugment, ViewChange, cut_changed
from vis2img.views.stretch import Stretch, stretched

RNG = np.random.default_rng(3)
STRETCHES = [
    Stretch(softening=4.0),
    Stretch("power", power=0.3),
    Stretch("linear"),
    Stretch(softening=4.0, clip=2.0),
    Stretch("power", power=0.3, clip=2.5),
    Stretch("linear", clip=1.0),
    Stretch("peak"),
    Stretch("peak", clip=0.0),
    Stretch("peak", clip=2.0, gamma=0.5),
    Stretch("quantile", quantiles=(0.1, 0.99)),
    Stretch("quantile", clip=4.0, gamma=0.5),
]


def written_out(x: np.ndarray, how: Stretch) -> np.ndarray:
    """Return one view [y, x] in units of the noise, stretched."""
    clip = {None: 3.0 if how.kind == "peak" else 0.0}.get(how.clip, how.clip)
    x = np.where((x < clip) & (clip > 0), 0.0, x.astype(np.float64))
    if how.kind == "asinh":
        return how.softening / 5 * np.arcsinh(x / how.softening)
    if how.kind == "linear":
        return x / 5
    if how.kind == "power":
        return np.sign(x) * np.abs(x / 5) ** how.power
    if how.kind == "peak":
        return np.sign(x) * (np.abs(x) / np.abs(x).max()) ** how.gamma
    in_order = np.sort(x.ravel())
    at = np.array(how.quantiles) * (x.size - 1)
    low, high = np.interp(at, np.arange(x.size), in_order)
    high = high if high > low else in_order[-1]
    return ((np.minimum(np.maximum(x, low), high) - low) / (high - low)) ** how.gamma


@pytest.mark.parametrize("how", STRETCHES, ids=str)
def test_views_of_draws_are_cut_then_clipped_then_stretched(how: Stretch) -> None:
    data = RNG.normal(size=(2, 96, 96)) * np.array([1.0, 3.0])[:, None, None]
    data[:, 40:44, 50:54] += 1e4
    draw = draw_of(data, ARCSEC, noise=1.0)
    draw.noise[1] = 3.0
    plain = cut(draw, 0, 0, 80 * ARCSEC, 50) / draw.noise
    expected = np.stack([written_out(plain[..., i], how) for i in range(2)], axis=-1)
    at_once = cut(draw, 0, 0, 80 * ARCSEC, 50, how)
    assert at_once.dtype == np.float32 and np.isfinite(at_once).all()
    np.testing.assert_allclose(at_once, expected, rtol=3e-6, atol=2e-6)

    changed = np.empty_like(at_once)
    crop = Crop(draw, 0.0, 0.0, 80 * ARCSEC, 0)
    cut_changed(crop, 50, how, ViewChange(), np.random.default_rng(0), changed)
    np.testing.assert_allclose(changed, expected, rtol=3e-6, atol=2e-6)


def test_several_stretches_are_channels_one_behind_the_other() -> None:
    draw = draw_of(RNG.normal(size=(2, 64, 64)), ARCSEC, noise=1.0)
    views = ViewConfig(stretch=STRETCHES[0], more_stretches=(STRETCHES[-1], STRETCHES[6]))
    several = cut(draw, 0, 0, 40 * ARCSEC, 16, views.stretches)
    each = [cut(draw, 0, 0, 40 * ARCSEC, 16, how) for how in views.stretches]
    np.testing.assert_array_equal(several, np.concatenate(each, axis=-1))
    changed, one = np.empty_like(several), np.empty_like(each[1])
    crop, change = Crop(draw, 0.0, 0.0, 40 * ARCSEC, 0), ViewChange(angle=1.0, blur=1.0, power=0.7)
    cut_changed(crop, 16, views.stretches, change, np.random.default_rng(0), changed)
    cut_changed(crop, 16, views.stretches[1], change, np.random.default_rng(0), one)
    np.testing.assert_array_equal(changed[..., 2:4], one)


def test_a_file_and_options_name_one_stretch_or_several(tmp_path: Path) -> None:
    path = tmp_path / "views.yaml"
    path.write_text("stretch: [{kind: asinh, softening: 3}, {kind: peak, clip: 2}, quantile]\n")
    several = load(ViewConfig, path)
    assert several.stretches == (Stretch(softening=3.0), Stretch("peak", clip=2.0), Stretch("quantile"))
    assert build(ViewConfig, to_record(several), path) == several
    assert LoaderConfig(ms=("a.ms",), subbands=2, views=several).channels == 6
    assert load(ViewConfig, path, ["--more-stretches", "{kind: peak}"]).stretches[1:] == (Stretch("peak"),)

    path.write_text("stretch: {kind: power, softening: 3, power: 0.5}\n")
    assert load(ViewConfig, path).stretches == (Stretch("power", softening=3.0),)
    for text, words in (("[asinh, {king: peak}]", "did you mean kind"), ("[asinh, {clip: -1}]", "clip = -1 must be")):
        path.write_text(f"stretch: {text.replace('asinh', '{kind: asinh}')}\n")
        with pytest.raises(ParameterError, match=f"views.yaml: more_stretches: .*{words}"):
            load(ViewConfig, path)


@pytest.mark.parametrize("clip", [0.0, 3.0])
@pytest.mark.parametrize("kind", ["peak", "quantile"])
def test_a_view_with_nothing_above_the_clip_is_zero(kind: str, clip: float) -> None:
    how = Stretch(kind, clip=clip)  # type: ignore[arg-type]
    faint = draw_of(np.full((1, 64, 64), 0.5 if clip else 0.0), ARCSEC, noise=1.0)
    assert not cut(faint, 0, 0, 60 * ARCSEC, 16, how).any()
    assert not stretched(np.full((16, 16, 2), -9.0 if clip else 0.0, np.float32), 1.0, how).any()


@pytest.mark.parametrize("how", [Stretch(), Stretch(clip=3.0), Stretch("peak")], ids=str)
def test_training_and_labelled_pictures_show_the_same_square_alike(how: Stretch, tmp_path: Path) -> None:
    images, size = noisy_pictures(3), 12
    np.savez(tmp_path / "three.npz", images=images, fr=np.array([0, 1, 0]))
    views = ViewConfig(patch_npix=32, global_size=size, local_size=8, stretch=how)
    labelled = read_labelled(tmp_path / "three.npz", views=views, crop=32)
    for image, expected in zip(images, labelled.images[..., 0], strict=True):
        opened = one_picture(image, "one")
        out = np.empty((size, size), np.float32)
        cut_picture(opened, 0, Square(0.0, 0.0, 32.0), out, how, ViewChange())
        np.testing.assert_array_equal(out, expected)

        # What varies in training is done before the stretch: a peak stays 1, whatever the gain.
        change = CutoutAugment(rotate=False, gain=(3.0, 3.0)).draw(np.random.default_rng(0))
        cut_picture(opened, 0, Square(0.0, 0.0, 32.0), out, how, change)
        bare = np.empty_like(out)
        cut_picture(opened, 0, Square(0.0, 0.0, 32.0), bare)
        np.testing.assert_allclose(out, written_out(bare * 3, how), rtol=1e-5, atol=1e-6)


def test_the_stretches_do_what_they_say() -> None:
    data = np.array([0.0, 0.2, 1e3, 1e4, -1e4], np.float32)[:, None]
    out = stretched(data, np.array([2.0]), Stretch(softening=10.0))[:, 0]
    assert out[0] == 0 and out[1] == pytest.approx(0.1 / 5, rel=1e-3)
    assert out[3] - out[2] == pytest.approx(10 / 5 * math.log(10), rel=1e-3) and out[4] == -out[3]
    power = stretched(data, 2.0, Stretch("power", power=0.5))[:, 0]
    assert power[3] / power[2] == pytest.approx(math.sqrt(10)) and power[4] == -power[3]
    assert stretched(np.float32([10.0]), 2.0, Stretch("linear")) == pytest.approx(1.0)  # 5 sigma


@pytest.mark.parametrize(
    "illegal",
    [
        *({"kind": "log"}, {"softening": 0.0}, {"power": 1.5}, {"gamma": 0.0}),
        *({"clip": -1.0}, {"clip": math.inf}, {"quantiles": (0.9, 0.1)}),
    ],
    ids=str,
)
def test_illegal_stretches_are_refused(illegal: dict) -> None:
    with pytest.raises(ParameterError, match=next(iter(illegal))):
        Stretch(**illegal)
