"""Images of a sky: flux, place, and that neither threads nor the way of drawing show."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vis2img.coordinates import sky_position
from vis2img.errors import ParameterError
from vis2img.simulate.rasterise import Grid, cutout_points, kernel_of, rasterise, sky_of
from vis2img.simulate.sky.source import SkyComponent, SkyCutout, SkySource, single_component_source

CENTRE = (1.2, -0.6)
GRID = Grid(128, 1e-4, 2.4, 1e-5)


def component(l, m, major=0.0, minor=0.0, pa=0.0, flux=1.0):
    ra, dec = sky_position(l, m, CENTRE)
    return SkyComponent(float(ra), float(dec), flux, 1e9, major, minor, pa)


def draw(*components, grid=GRID, flux=None, nthreads=1):
    sky = sky_of([single_component_source(i, "", c) for i, c in enumerate(components)], CENTRE)
    return rasterise(sky, sky.flux[:, None] if flux is None else flux, grid, 1e-4, nthreads)


def test_a_point_in_the_middle_of_a_pixel_is_that_pixel():
    image = draw(component(-11e-4, 7e-4, flux=2.0))[0]
    assert image[64 + 7, 64 + 11] == pytest.approx(2.0, rel=1e-5)
    image[64 + 7, 64 + 11] = 0
    assert np.abs(image).max() < 1e-5


@pytest.mark.parametrize("major", [0.0, 1e-5, 1.2e-4, 4e-4, 8e-4])
def test_flux_centroid_and_width_of_what_is_drawn(major):
    l, m, pa = 6.3e-4, -8.7e-4, 0.5
    image = draw(component(l, m, major, 0.7 * major, pa, flux=3.0))[0].astype(float)
    y, x = np.mgrid[:128, :128]
    assert image.sum() == pytest.approx(3.0, rel=1e-4)
    # Moments under a window that is wide and smooth, since the kernel of a point rings.
    assert (image * x).sum() / 3 == pytest.approx(64 - l / 1e-4, abs=0.01)
    assert (image * y).sum() / 3 == pytest.approx(64 + m / 1e-4, abs=0.01)
    east, north = (64 - x) * 1e-4 - l, (y - 64) * 1e-4 - m
    for angle, fwhm in ((pa, major), (pa + math.pi / 2, 0.7 * major)):
        along = east * math.sin(angle) + north * math.cos(angle)
        assert (image * along**2).sum() / 3 == pytest.approx(fwhm**2 / (8 * math.log(2)), abs=3e-11)


def test_threads_do_not_change_a_bit():
    rng = np.random.default_rng(0)
    parts = [component(*rng.uniform(-3e-3, 3e-3, 2), s, s / 2, s * 1e4) for s in rng.choice([0, 1e-4, 6e-4], 60)]
    flux = rng.normal(size=(60, 3))
    one = draw(*parts, flux=flux)
    assert one.shape == (3, 128, 128) and one.dtype == np.float32
    for nthreads in (2, 5):
        np.testing.assert_array_equal(draw(*parts, flux=flux, nthreads=nthreads), one)
    np.testing.assert_allclose(draw(*parts, flux=flux[:, ::-1]), one[::-1], atol=1e-6)


def test_the_kernel_is_flat_where_the_visibilities_are():
    """Its transform at any sub-pixel offset, by an explicit sum."""
    for oversampling in (2.2, 2.4, 3.0, 4.0):
        half, beta = kernel_of(oversampling, 1e-5)
        f = np.linspace(0, 1 / oversampling, 80)
        for offset in (0.0, 0.13, 0.5, 0.77):
            t = offset - np.arange(-half, half + 2)
            inside = np.sqrt(np.maximum(0, 1 - (t / half) ** 2))
            kernel = np.where(np.abs(t) <= half, np.sinc(t) * np.exp(beta * (inside - 1)), 0.0)
            transform = np.exp(2j * np.pi * np.outer(f, np.arange(-half, half + 2))) @ kernel
            assert np.abs(transform - np.exp(2j * np.pi * f * offset)).max() < 5e-5


def cutout(pixels, pixsize=1e-4, **changes):
    values = {"ra": CENTRE[0], "dec": CENTRE[1], "ref_freq": 1e9, **changes}
    return SkyCutout(np.asarray(pixels, np.float32), pixsize, **values)


def turn_of(c):
    return sky_of([SkySource(0, "", c.ra, c.dec, c.flux, 1e-3, cutout=c)], CENTRE).turns[0]


@pytest.mark.parametrize(("pa", "where"), [(0.0, (-3, 2)), (math.pi / 2, (2, 3)), (math.pi, (3, -2))])
def test_a_picture_turns_from_north_through_east(pa, where):
    """A pixel 3 to the right and 2 up lies 3 west and 2 north; a quarter turn takes north to east, west to north."""
    pixels = np.zeros((8, 13))
    pixels[4 + 2, 6 + 3] = 2.0
    c = cutout(pixels, pa=pa)
    lmn, share = cutout_points(c, turn_of(c), 1e-3)
    np.testing.assert_allclose(lmn[0, :2], np.array(where) * 1e-4, atol=1e-9)
    assert share == pytest.approx([1.0])


@pytest.mark.parametrize("spacing", [1e-3, 4e-5, 3e-5])
def test_finer_points_keep_flux_and_centroid(spacing):
    pixels = np.random.default_rng(2).uniform(0, 1, (9, 14))
    c = cutout(pixels)
    lmn, share = cutout_points(c, turn_of(c), spacing)
    assert share.sum() == pytest.approx(1.0, rel=1e-4)
    x = (pixels.sum(axis=0) @ (7 - np.arange(14))) / pixels.sum() * 1e-4
    y = (pixels.sum(axis=1) @ (np.arange(9) - 4)) / pixels.sum() * 1e-4
    np.testing.assert_allclose((share[:, None] * lmn[:, :2]).sum(axis=0), [x, y], atol=1e-7)


def test_a_picture_around_the_sky_is_refused():
    c = cutout(np.ones((30, 30)), pixsize=0.1)
    with pytest.raises(ParameterError, match="90 degrees"):
        cutout_points(c, turn_of(c), 1.0)
