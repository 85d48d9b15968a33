"""Views: the same sky whatever the draw, in the right place, antialiased and fixed in shape."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.draws import ARCSEC, draw_of, gaussian_draw
from vis2img.errors import ParameterError
from vis2img.views.crops import ViewConfig, cut, plan_crops, turned
from vis2img.views.resample import PLAIN, resample


@pytest.mark.parametrize("pixsize", [1.0, 1.37, 2.0])
def test_a_cut_shows_the_sky_around_its_centre_whatever_the_pixel_scale(pixsize: float) -> None:
    l, m, sigma, side, size = 31 * ARCSEC, -17 * ARCSEC, 12 * ARCSEC, 96 * ARCSEC, 48
    draw = gaussian_draw(256, pixsize * ARCSEC, l, m, sigma)
    view = cut(draw, l + 10 * ARCSEC, m - 4 * ARCSEC, side, size)[..., 0]
    # Pixel i of the view is centred at ((size - 1) / 2 - i) pixels east of the centre of the cut.
    step = side / size
    east = ((size - 1) / 2 - np.arange(size)) * step + 10 * ARCSEC
    north = (np.arange(size) - (size - 1) / 2) * step - 4 * ARCSEC
    expected = np.exp(-(east[None, :] ** 2 + north[:, None] ** 2) / (2 * sigma**2))
    assert np.abs(view - expected).max() < 0.02


def test_shrinking_averages_instead_of_skipping_pixels() -> None:
    noise = np.random.default_rng(0).normal(size=(1, 128, 128))
    draw = draw_of(noise, ARCSEC)
    assert cut(draw, 0, 0, 96 * ARCSEC, 24).std() < 0.35  # 0.25 for means of 16; 1 for skipped pixels


@pytest.mark.parametrize(("side", "size"), [(96.0, 96), (61.25, 96), (100.5, 96), (310.0, 64), (400.0, 9), (8.0, 64)])
def test_resampling_is_that_of_pillow(side: float, size: int) -> None:
    from PIL import Image as PillowImage

    image = np.random.default_rng(1).normal(size=(420, 440)).astype(np.float32)
    for left, lower in ((17.5, 3.25), (0.0, 0.0), (440 - side, 420 - side)):  # the edges, too
        out = np.empty((size, size), np.float32)
        resample(image, left, lower, side, *PLAIN, out)
        box = (left, lower, left + side, lower + side)
        expected = PillowImage.fromarray(image).resize((size, size), PillowImage.Resampling.BILINEAR, box=box)
        np.testing.assert_allclose(out, np.asarray(expected), atol=5e-6)


def test_a_cut_beyond_the_image_is_refused() -> None:
    draw = gaussian_draw(64, ARCSEC, 0, 0, 4 * ARCSEC)
    cut(draw, 0.4 * ARCSEC, -0.4 * ARCSEC, 62 * ARCSEC, 32)
    with pytest.raises(ParameterError, match="beyond"):
        cut(draw, 10 * ARCSEC, 0, 62 * ARCSEC, 32)


def test_the_views_of_a_sample_take_every_draw_before_they_repeat_one() -> None:
    draws = [gaussian_draw(128, ARCSEC, 0, 0, 8 * ARCSEC, index=i) for i in range(3)]
    config = ViewConfig(global_size=32, local_size=16, n_local=4)
    crops = plan_crops(np.random.default_rng(1), draws, 0, 0, 64 * ARCSEC, config)
    indices = [crop.draw.index for crop in crops]
    assert len(crops) == config.n_views == 6 and set(indices[:3]) == set(indices[3:]) == {0, 1, 2}


def test_crops_stay_within_their_patch_and_have_the_sizes_asked_for() -> None:
    draws, rng, patch = [gaussian_draw(64, ARCSEC, 0, 0, ARCSEC)], np.random.default_rng(0), 40 * ARCSEC
    config = ViewConfig(global_scale=(0.7, 0.9), local_scale=(0.2, 0.3))
    crops = [plan_crops(rng, draws, 3 * ARCSEC, -2 * ARCSEC, patch, config) for _ in range(200)]
    for number, (low, high) in ((0, config.global_scale), (5, config.local_scale)):
        side = np.array([sample[number].side for sample in crops]) / patch
        assert low <= side.min() < low + 0.03 and high - 0.03 < side.max() <= high
    offset = np.array(
        [(abs(c.l - 3 * ARCSEC) + c.side / 2, abs(c.m + 2 * ARCSEC) + c.side / 2) for s in crops for c in s]
    )
    assert offset.max() <= patch / 2 + 1e-12 and offset.max() > 0.49 * patch
    assert {crop.turn for sample in crops for crop in sample} == set(range(8))
    still = plan_crops(rng, draws, 0, 0, patch, ViewConfig(rotate=False))
    assert {crop.turn for crop in still} == {0}


def test_turns_are_the_eight_symmetries_of_the_square() -> None:
    square = np.arange(9).reshape(3, 3, 1)
    seen = {turned(square, turn).tobytes() for turn in range(8)}
    rotations = [np.rot90(square, k) for k in range(4)]
    assert seen == {view.tobytes() for r in rotations for view in (r, r[:, ::-1])}
