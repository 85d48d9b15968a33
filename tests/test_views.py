"""Views: the same sky whatever the draw, in the right place, antialiased and fixed in shape."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vis2img.draws import Draw, FieldSource, find_peaks, image_draw, make_draw
from vis2img.errors import ParameterError
from vis2img.params import ImagingParams, Selection
from vis2img.prior import ImagingPrior, draw_rng
from vis2img.views import ViewConfig, cut, multi_crop, random_position, stretch

ARCSEC = math.pi / 180 / 3600


def gaussian_draw(npix: int, pixsize: float, l: float, m: float, sigma: float, index: int = 0) -> Draw:
    """Return a draw whose sky is a Gaussian of unit peak and dispersion ``sigma`` (rad) at (l, m)."""
    east = (npix // 2 - np.arange(npix)) * pixsize
    north = (np.arange(npix) - npix // 2) * pixsize
    data = np.exp(-((east[None, :] - l) ** 2 + (north[:, None] - m) ** 2) / (2 * sigma**2))
    return Draw(
        data.astype(np.float32),
        ImagingParams((npix, npix), pixsize),
        (0.5, -0.5),
        0.01,
        0,
        index,
        1e9,
        np.array([[l, m]]),
    )


@pytest.mark.parametrize("pixsize", [1.0, 1.37, 2.0])
def test_a_cut_shows_the_sky_around_its_centre_whatever_the_pixel_scale(pixsize: float) -> None:
    l, m, sigma, side, size = 31 * ARCSEC, -17 * ARCSEC, 12 * ARCSEC, 96 * ARCSEC, 48
    draw = gaussian_draw(256, pixsize * ARCSEC, l, m, sigma)
    view = cut(draw, l + 10 * ARCSEC, m - 4 * ARCSEC, side, size)
    # Pixel i of the view is centred at ((size - 1) / 2 - i) pixels east of the centre of the cut.
    step = side / size
    east = ((size - 1) / 2 - np.arange(size)) * step + 10 * ARCSEC
    north = (np.arange(size) - (size - 1) / 2) * step - 4 * ARCSEC
    expected = np.exp(-(east[None, :] ** 2 + north[:, None] ** 2) / (2 * sigma**2))
    assert np.abs(view - expected).max() < 0.02


def test_shrinking_averages_instead_of_skipping_pixels() -> None:
    draw = gaussian_draw(128, ARCSEC, 0, 0, ARCSEC)
    noise = np.random.default_rng(0).normal(size=draw.data.shape).astype(np.float32)
    draw = Draw(noise, draw.params, draw.phase_centre, 1.0, 0, 0, 1e9, draw.peaks)
    assert cut(draw, 0, 0, 96 * ARCSEC, 24).std() < 0.35  # 0.25 for means of 16; 1 for skipped pixels


def test_a_cut_beyond_the_image_is_refused() -> None:
    draw = gaussian_draw(64, ARCSEC, 0, 0, 4 * ARCSEC)
    cut(draw, 0.4 * ARCSEC, -0.4 * ARCSEC, 62 * ARCSEC, 32)
    with pytest.raises(ParameterError, match="beyond"):
        cut(draw, 10 * ARCSEC, 0, 62 * ARCSEC, 32)


def test_multi_crop_takes_every_draw_before_it_repeats_one() -> None:
    draws = [gaussian_draw(128, ARCSEC, 0, 0, 8 * ARCSEC, index=i) for i in range(3)]
    config = ViewConfig(global_size=32, local_size=16, n_local=4)
    big, small, used = multi_crop(np.random.default_rng(1), draws, 0, 0, 64 * ARCSEC, config)
    assert big.shape == (2, 32, 32) and small.shape == (4, 16, 16)
    assert big.dtype == small.dtype == np.float32
    indices = [draw.index for draw in used]
    assert set(indices[:3]) == set(indices[3:]) == {0, 1, 2}


def test_turns_and_flips_cover_the_eight_symmetries() -> None:
    draw = gaussian_draw(128, ARCSEC, 20 * ARCSEC, 9 * ARCSEC, 5 * ARCSEC)
    config = ViewConfig(global_size=32, n_local=0, global_scale=(1.0, 1.0))
    seen = set()
    for seed in range(60):
        views, _, _ = multi_crop(np.random.default_rng(seed), [draw], 0, 0, 64 * ARCSEC, config)
        seen.add(tuple(int(i) for i in np.unravel_index(views[0].argmax(), views[0].shape)))
    assert len(seen) == 8


def test_stretch_is_linear_in_the_noise_and_logarithmic_above() -> None:
    data = np.array([0.0, 0.2, 1e3, 1e4], np.float32)
    out = stretch(data, noise=2.0, softening=10.0)
    assert out[0] == 0 and out[1] == pytest.approx(0.1 / 5, rel=1e-3)
    assert out[3] - out[2] == pytest.approx(10 / 5 * math.log(10), rel=1e-3)


def test_patches_lie_near_peaks_as_often_as_asked() -> None:
    rng, peaks = np.random.default_rng(0), np.array([[0.5, 0.5], [9.0, 0.0]])
    centres = np.array([random_position(rng, 1.0, 0.2, peaks, 0.7) for _ in range(500)])
    assert np.abs(centres).max() <= 1
    near = (np.abs(centres - 0.5).max(axis=1) <= 0.2 / 8 + 1e-12).mean()
    assert 0.63 < near < 0.77
    alone = np.array([random_position(rng, 1.0, 0.2, np.zeros((0, 2)), 1.0) for _ in range(200)])
    assert alone.std() > 0.5


def test_peaks_are_found_where_the_sources_are() -> None:
    params = ImagingParams((128, 96), ARCSEC)
    data = np.random.default_rng(0).normal(scale=0.01, size=(96, 128)).astype(np.float32)
    data[70, 20], data[10, 100] = 1.0, 0.5
    peaks = find_peaks(data, 0.01, params) / ARCSEC
    assert sorted(map(tuple, np.rint(peaks).astype(int))) == [(-36, -38), (44, 22)]


def test_a_draw_replays_and_equals_the_image_of_its_parameters(make_ms) -> None:
    from vis2img.measurementset import open_ms

    ms = open_ms(make_ms(antennas=9, sources=((1.0, 0.001, -0.002),)).path)
    source = FieldSource(str(ms.path), Selection(), ImagingPrior.for_ms(ms, npix=64))
    first, again = make_draw(source, 5, 2, 3), make_draw(source, 5, 2, 3)
    assert np.array_equal(first.data, again.data) and first.params == again.params
    assert not np.array_equal(first.data.shape, 0) and first.record()["index"] == 3
    params = source.prior.draw(draw_rng(5, 2, 3))
    assert np.array_equal(ms.image(params, nthreads=1).data, image_draw(source, params).data)
    assert not np.array_equal(make_draw(source, 5, 2, 4).params, params)
