"""Weight maps: patches lie in the beam, above the horizon and where images are not blank."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.helpers.draws import draw_of
from vis2img.views.crops import cut
from vis2img.views.positions import WeightMap, random_position, weight_map, without_blanks

NOWHERE = (0.0, 0.0)


def everywhere(reach: float = 1.0) -> WeightMap:
    return weight_map(reach, 0.0, math.nan, 0.5, NOWHERE) if reach < 0.7 else WeightMap(np.ones((64, 64)), reach)


def test_patches_lie_near_peaks_as_often_as_asked() -> None:
    rng, peaks = np.random.default_rng(0), np.array([[0.5, 0.5], [9.0, 0.0]])
    centres = np.array([random_position(rng, everywhere(), 0.2, peaks, 0.7) for _ in range(500)])
    assert np.abs(centres).max() <= 1
    near = (np.abs(centres - 0.5).max(axis=1) <= 0.2 / 8 + 1e-12).mean()
    assert 0.63 < near < 0.77
    alone = np.array([random_position(rng, everywhere(), 0.2, np.zeros((0, 2)), 1.0) for _ in range(2000)])
    assert alone.std(axis=0) == pytest.approx([1 / math.sqrt(3)] * 2, rel=0.05)  # uniform from -1 to 1
    assert np.abs(alone.mean(axis=0)).max() < 0.05


def test_offsets_are_those_asked_for_and_each_octave_of_flux_comes_alike() -> None:
    rng = np.random.default_rng(3)
    peaks = np.stack([np.linspace(-0.9, 0.9, 91), np.zeros(91)], axis=1)
    flux = np.where(np.arange(91) == 45, 40.0, np.where(np.arange(91) < 10, 9.0, 1.5))  # one bright, ten, eighty
    for offset, by in ((0.0, None), (0.4, flux), (0.0, flux)):
        centres = np.array([random_position(rng, everywhere(), 0.01, peaks, 1.0, offset, by) for _ in range(900)])
        nearest = np.abs(centres[:, :1] - peaks[:, 0]).argmin(axis=1)
        apart = centres - peaks[nearest]
        assert np.abs(apart).max() <= 0.01 * offset + 1e-12 and np.abs(apart).max() >= 0.0099 * offset
        shares = [(flux[nearest] == value).mean() for value in (40.0, 9.0, 1.5)]
        wanted = [1 / 91, 10 / 91, 80 / 91] if by is None else [1 / 3] * 3
        assert shares == pytest.approx(wanted, abs=0.05)


def test_the_primary_beam_limits_positions_about_the_pointing() -> None:
    # Gaussian of FWHM 0.02: a half at 0.01, a tenth at 0.01822 from its centre.
    for limit, radius in ((0.5, 0.01), (0.1, 0.01 * math.sqrt(math.log(10) / math.log(2)))):
        allowed = weight_map(0.03, 0.001, 0.02, limit, (0.004, -0.006))
        rng = np.random.default_rng(1)
        found = np.array([allowed.draw(rng) for _ in range(3000)])
        apart = np.hypot(found[:, 0] - 0.004, found[:, 1] + 0.006)
        cell = 0.06 / 64
        assert apart.max() < radius + cell and apart.max() > 0.9 * radius
        assert allowed.area == pytest.approx(math.pi * radius**2, rel=0.05)
        # Peaks outside are not looked at.
        outside = np.array([[0.004 + 1.2 * radius, -0.006]])
        placed = np.array([random_position(rng, allowed, 0.001, outside, 1.0) for _ in range(50)])
        assert placed.std() > 0.2 * radius
    assert weight_map(0.03, 0.001, 0.02, 0.0, NOWHERE).weight.all()
    assert weight_map(0.03, 0.001, math.nan, 0.5, NOWHERE).weight.all()


def test_patches_stay_above_the_horizon() -> None:
    allowed = weight_map(0.9, 0.1, math.nan, 0.1, NOWHERE)
    rng = np.random.default_rng(2)
    found = np.abs([allowed.draw(rng) for _ in range(2000)])
    assert np.hypot(*(found + 0.05).T).max() < 1 + 2 * 0.9 / 64 and found.max() > 0.75


def test_no_patch_shows_a_blank_pixel() -> None:
    npix, pixsize, patch = 200, 0.001, 0.03
    blank = np.zeros((npix, npix), bool)
    blank[120:150, 20:60] = True
    blank[0, 0] = True
    usable = ~blank.reshape(50, 4, 50, 4).any(axis=(1, 3))
    reach = (npix * pixsize - patch) / 2 - pixsize  # a pixel to spare, as the loader leaves
    allowed = without_blanks(WeightMap(np.ones((64, 64)), reach), usable, (npix, npix), pixsize, patch)
    rng = np.random.default_rng(3)
    sky = draw_of(np.where(blank, np.nan, 1.0)[np.newaxis], pixsize)
    for l, m in (allowed.draw(rng) for _ in range(2000)):
        # A view of a sky that is NaN where it is blank tells.
        view = cut(sky, l, m, patch, 16)
        assert np.isfinite(view).all()
    lost = 1 - (allowed.weight > 0).mean()
    exact = (30 + 30) * (75 - 16) / 168**2  # blank grown by half a patch, of the centres from 16 to 184
    assert exact <= lost < 1.8 * exact
    assert without_blanks(allowed, np.ones((50, 50), bool), (npix, npix), pixsize, patch) is allowed
