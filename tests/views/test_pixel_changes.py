"""Views of fields that vary as pictures do: turned about their middle, in units of the noise, the same way again."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from tests.helpers.draws import ARCSEC, draw_of, gaussian_draw
from vis2img.coordinates import lm_to_pixel
from vis2img.loader.draw_source import Plan, cut_batch
from vis2img.views.crops import Crop, ViewConfig, cut
from vis2img.views.jitter import ViewJitter
from vis2img.views.pixel_changes import CutoutAugment, ViewChange, change_pixels, cut_changed, raise_to
from vis2img.views.stretch import Stretch

LINEAR = Stretch(kind="linear")
SIZE = 48


def changed(crop, **change):
    out = np.empty((SIZE, SIZE, crop.draw.data.shape[0]), np.float32)
    cut_changed(crop, SIZE, LINEAR, ViewChange(**change), np.random.default_rng(0), out)
    return out


@pytest.fixture
def crop():
    """A source 12 arcsec north of the middle of a view of 96 arcsec."""
    draw = gaussian_draw(256, 1.37 * ARCSEC, 20 * ARCSEC, 42 * ARCSEC, 8 * ARCSEC)
    return Crop(draw, 20 * ARCSEC, 30 * ARCSEC, 96 * ARCSEC, 0)


def test_no_change_is_the_plain_view(crop):
    plain = cut(crop.draw, crop.l, crop.m, crop.side, SIZE, LINEAR)
    np.testing.assert_allclose(changed(crop), plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("degrees", [30, 90, 200])
def test_the_sky_turns_about_the_middle_of_the_view(crop, degrees):
    view = changed(crop, angle=math.radians(degrees))[..., 0]
    y, x = np.unravel_index(view.argmax(), view.shape)
    # 12 arcsec are 6 pixels; what is shown turns the other way than the square.
    angle = math.radians(90 - degrees)
    wanted = (SIZE - 1) / 2 + 6 * np.array([math.cos(angle), math.sin(angle)])
    assert np.hypot(*(np.array([x, y]) - wanted)) < 1.0
    assert view.max() == pytest.approx(changed(crop)[..., 0].max(), rel=0.03)


def test_a_turned_zoomed_and_shifted_view_is_that_of_scipy(crop):
    """A smooth sky, so that what differs between two ways to resample is small."""
    sky = ndimage.gaussian_filter(np.random.default_rng(2).normal(size=(256, 256)), 6.0)
    sky /= np.abs(sky).max()
    crop = replace(crop, draw=draw_of(sky[np.newaxis], 1.5 * ARCSEC, noise=0.2))  # linear stretch: values as they are
    angle, zoom, shift = 2.5, 0.8, (0.1, -0.05)
    out = np.empty((SIZE, SIZE, 1), np.float32)
    change = ViewChange(angle=angle, zoom=zoom, shift=shift)
    turned, box = cut_changed(crop, SIZE, LINEAR, change, np.random.default_rng(0), out)
    side = crop.side / zoom
    assert turned == angle and box == pytest.approx((crop.l + 0.1 * side, crop.m - 0.05 * side, side))

    b, a = ((np.indices((SIZE, SIZE)) + 0.5) / SIZE - 0.5) * side / (1.5 * ARCSEC)
    x, y = lm_to_pixel(box[0], box[1], (256, 256), 1.5 * ARCSEC)
    column, row = x + math.cos(angle) * a - math.sin(angle) * b, y + math.sin(angle) * a + math.cos(angle) * b
    wanted = ndimage.map_coordinates(sky, [row, column], order=3)
    np.testing.assert_allclose(out[..., 0], wanted, atol=0.02 * np.abs(wanted).max())

    far = ViewChange(zoom=0.2)  # reaches beyond the image
    assert cut_changed(crop, SIZE, LINEAR, far, np.random.default_rng(0), out)[1] == (crop.l, crop.m, crop.side)


def test_where_its_corners_would_leave_the_image_a_view_is_not_turned():
    draw = gaussian_draw(64, 2 * ARCSEC, 0, 12 * ARCSEC, 8 * ARCSEC)
    crop = Crop(draw, 0, 0, 120 * ARCSEC, 0)
    np.testing.assert_allclose(changed(crop, angle=1.0), changed(crop), rtol=1e-6)


def test_noise_and_gain_are_those_asked_for_in_each_channel():
    draw = draw_of(np.zeros((2, 256, 256)), ARCSEC, noise=0.02)
    noisy = changed(Crop(draw, 0, 0, 96 * ARCSEC, 0), noise=2.0)
    plain = changed(Crop(draw, 0, 0, 96 * ARCSEC, 0), offset=1.0)
    assert noisy.std(axis=(0, 1)) == pytest.approx(2 * plain[0, 0], rel=0.05)
    assert abs(np.corrcoef(noisy[..., 0].ravel(), noisy[..., 1].ravel())[0, 1]) < 0.1


def test_batches_vary_only_when_told_and_the_same_way_again(crop):
    views = ViewConfig(global_size=SIZE, local_size=24, n_local=1)
    plan = Plan([[crop] * 3] * 2, [(crop.l, crop.m)] * 2, (1, 2, 3))
    augment = CutoutAugment(noise=(0.5, 1.0))
    plain, once, again = (cut_batch(plan, views, 1, how) for how in (None, augment, augment))
    np.testing.assert_array_equal(once.global_views, again.global_views)
    np.testing.assert_array_equal(once.local_views, again.local_views)
    assert np.abs(plain.global_views[0, 0] - plain.global_views[1, 1]).max() == 0
    assert not plain.angle.any() and once.angle.all() and len(np.unique(once.angle)) == once.angle.size
    assert np.abs(once.global_views[0, 0] - once.global_views[1, 0]).max() > 0.1  # each view by itself
    assert np.abs(once.global_views[0, 0] - once.global_views[0, 1]).max() > 0.1  # and each sample


def test_the_middle_of_a_view_with_a_margin_is_the_view(crop):
    views = ViewConfig(global_size=SIZE, local_size=24, n_local=1)
    wide = replace(views, jitter=ViewJitter(turn=True))
    plan = Plan([[crop] * 3] * 2, [(crop.l, crop.m)] * 2, (1, 2, 3))
    plain, around = cut_batch(plan, views, 1), cut_batch(plan, wide, 1)
    assert around.global_views.shape[2:] == (70, 70, 1) and around.local_views.shape[2:] == (36, 36, 1)
    np.testing.assert_allclose(around.global_views[..., 11:59, 11:59, :], plain.global_views, atol=1e-4)
    np.testing.assert_allclose(around.local_views[..., 6:30, 6:30, :], plain.local_views, atol=1e-4)
    np.testing.assert_array_equal(around.box, plain.box)


def test_pixels_change_as_they_are_asked_to() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(32, 32)).astype(np.float32)

    def changed(**what: object) -> np.ndarray:
        view = base.copy()
        change = ViewChange(**what)
        assert change.of_pixels
        change_pixels(view, change, change.blur, np.random.default_rng(1))
        return view

    np.testing.assert_allclose(changed(gain=2.0), 2 * base, rtol=1e-6)
    np.testing.assert_allclose(changed(offset=-0.5), base - 0.5, atol=1e-6)
    np.testing.assert_array_equal(changed(clip=1.0), np.where(base < 1, 0, base))
    blurred = ndimage.gaussian_filter(base, 1.7, mode="nearest", truncate=6 / 1.7 + 0.01)
    np.testing.assert_allclose(changed(blur=1.7), blurred, atol=1e-3)
    added = changed(noise=3.0) - base
    assert np.std(added) == pytest.approx(3.0, rel=0.1) and abs(added.mean()) < 0.4
    erased = changed(erase=(0.25, 0.5, 0.25, 0.125))
    assert (erased[16:20, 8:16] == 0).all() and (erased != base).sum() == 32
    assert not ViewChange(angle=1.0).of_pixels

    powered = np.abs(base).max() * np.sign(base) * (np.abs(base.astype(np.float64)) / np.abs(base).max()) ** 0.6
    raise_to(base, 0.6)
    np.testing.assert_allclose(base, powered, rtol=1e-5)  # the brightest stays, and so do signs
    empty = np.zeros((4, 4), np.float32)
    raise_to(empty, 0.6)
    assert not empty.any()


def test_augmentations_are_drawn_from_their_ranges() -> None:
    augment = CutoutAugment(
        noise=(0.5, 1.0), gain=(0.5, 2.0), offset=(-1, 1), blur=(1, 2), blur_probability=0.5, clip=(3, 3),
        clip_probability=0.25, erase=(0.1, 0.2), erase_probability=1.0,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    drawn = [augment.draw(rng) for _ in range(800)]
    assert 0.5 <= min(c.noise for c in drawn) < 0.52 and 0.98 < max(c.noise for c in drawn) <= 1
    logs = np.log2([c.gain for c in drawn])
    assert np.abs(logs).max() <= 1 and abs(logs.mean()) < 0.08  # log-uniform
    assert np.mean([c.blur > 0 for c in drawn]) == pytest.approx(0.5, abs=0.06)
    assert {c.clip for c in drawn} == {0.0, 3.0} and np.mean([c.clip > 0 for c in drawn]) == pytest.approx(
        0.25, abs=0.05
    )
    for c in drawn:
        left, lower, width, height = c.erase
        assert 0.1 - 1e-9 <= width * height <= 0.2 + 1e-9 and 0.5 - 1e-9 <= width / height <= 2 + 1e-9
        assert left >= 0 and lower >= 0 and left + width <= 1 and lower + height <= 1
    assert CutoutAugment(rotate=False).draw(rng) == ViewChange()


def test_zoom_shift_and_power_leave_the_other_choices_as_they_are() -> None:
    old = CutoutAugment(noise=(0.5, 1.0), blur_probability=0.5)
    new = replace(old, zoom=(1 / 1.3, 1.3), shift=0.06, power=(0.5, 2.0), beyond="background")
    before = [old.draw(np.random.default_rng(seed)) for seed in range(500)]
    drawn = [new.draw(np.random.default_rng(seed)) for seed in range(500)]
    assert [replace(c, zoom=1.0, shift=(0.0, 0.0), power=1.0, mirror=True) for c in drawn] == before

    for name, most in (("zoom", math.log(1.3)), ("power", math.log(2))):
        logs = np.log([getattr(change, name) for change in drawn]) / most
        assert -1 <= logs.min() < -0.98 and 0.98 < logs.max() <= 1 and abs(logs.mean()) < 0.1
    shifts = np.array([change.shift for change in drawn])
    assert (np.abs(shifts).max(axis=0) <= 0.06).all() and (np.abs(shifts).max(axis=0) > 0.058).all()
    assert abs(np.corrcoef(shifts.T)[0, 1]) < 0.15
    # The shift is a fraction of what the view shows.
    assert ViewChange(zoom=2.0, shift=(0.1, -0.2)).placed(1.0, 2.0, 40.0) == pytest.approx((3.0, -2.0, 20.0))
