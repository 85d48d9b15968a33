"""Imaging parameters as numbers that a network can be told."""

import math

import numpy as np
import pytest

from tests.helpers.draws import gaussian_draw
from vis2img.draws.numbers import NUMBERS, imaging_numbers
from vis2img.imaging.params import ImagingParams
from vis2img.loader.draw_source import Plan, cut_batch
from vis2img.units import ARCSEC
from vis2img.views.crops import Crop, ViewConfig

UNIT = 2 * ARCSEC


def test_numbers_are_relative_to_the_resolution_of_the_field():
    longest = 1 / (3 * UNIT)
    params = ImagingParams(
        **{"npix": (64, 64), "pixsize": 2 * UNIT, "robust": 0.7, "taper": 3 * UNIT, "band": (0.2, 0.6)},
        **{"uvrange": (0.01 * longest, 0.8 * longest), "time_span": (0.5, 0.9), "keep_times": 0.5},
        **{"keep_antennas": 0.5, "keep_baselines": 0.8},
    )
    values = dict(zip(NUMBERS, imaging_numbers(params, UNIT).tolist(), strict=True))
    assert values == pytest.approx(
        {
            **{"robust": 0.7, "taper": 3.0, "shortest baseline": 0.01, "longest baseline": 0.8},
            **{"middle of the band": 0.4, "width of the band": 0.4, "time": 0.2, "baselines": 0.2, "pixel": 1.0},
        }
    )
    whole = [ImagingParams((64, 64), UNIT, weighting=name) for name in ("uniform", "natural")]
    found = [imaging_numbers(params, UNIT)[:4] for params in whole]
    np.testing.assert_allclose(found, [[-2, 0, 0, 1], [2, 0, 0, 1]])


def test_batches_hold_the_numbers_of_each_view_and_the_side_of_each_patch():
    views = ViewConfig(patch_npix=32, global_size=16, local_size=8, n_local=1)
    draws = [gaussian_draw(64, scale * UNIT, 0, 12 * ARCSEC, 8 * ARCSEC) for scale in (1, 2, 4)]
    crops = [Crop(draw, 0, 0, 20 * UNIT, 0) for draw in draws]
    plan = Plan([crops, crops[::-1]], [(0.0, 0.0)] * 2, (0, 0, 0), [32 * UNIT] * 2, [True, False])
    batch = cut_batch(plan, views, 1)
    arrays = batch.arrays()
    assert arrays["imaging"].shape == (3, 2, len(NUMBERS)) and arrays["imaging"].dtype == np.float32
    np.testing.assert_allclose(arrays["imaging"][..., -1], [[0, 2], [1, 1], [2, 0]], atol=1e-6)
    assert np.isfinite(arrays["imaging"][:, 0]).all()
    assert np.isnan(arrays["imaging"][:, 1, :-1]).all()  # of a finished image its pixels alone are known
    np.testing.assert_allclose(arrays["patch"], 32 * UNIT, rtol=1e-6)
    ra, dec = batch.position[0]
    direction = [math.cos(dec) * math.cos(ra), math.cos(dec) * math.sin(ra), math.sin(dec)]
    np.testing.assert_allclose(arrays["sky"].astype(np.float64).sum(axis=0)[0], direction, atol=1e-14)
