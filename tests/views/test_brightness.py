"""Peak, flux and signal-to-noise ratio of patches, against sources whose flux is known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.helpers.draws import ARCSEC, draw_of
from vis2img.draws.draw import Draw
from vis2img.imaging.beam import beam_solid_angle
from vis2img.views.brightness import log_brightness, patch_brightness, pixel_brightness

MAJOR, MINOR = 9 * ARCSEC, 6 * ARCSEC
NPIX, PIXSIZE, NOISE = 128, 1.5 * ARCSEC, 1e-3


def sky(flux: float, x: int, y: int, widening: float = 1.0) -> np.ndarray:
    """Return a source as a beam of ``flux`` Jy shows it, Jy/beam [y, x], widened along one axis."""
    row, column = np.indices((NPIX, NPIX))
    sigma = [axis / PIXSIZE / math.sqrt(8 * math.log(2)) for axis in (MAJOR * widening, MINOR)]
    return flux / widening * np.exp(-0.5 * (((row - y) / sigma[0]) ** 2 + ((column - x) / sigma[1]) ** 2))


def draw(data: np.ndarray) -> Draw:
    return replace(draw_of(data[np.newaxis], PIXSIZE, NOISE), beam_area=math.pi * MAJOR * MINOR / (4 * math.log(2)))


def test_a_patch_tells_the_flux_of_what_lies_in_it_and_of_nothing_else() -> None:
    assert beam_solid_angle(MAJOR, MINOR) == pytest.approx(math.pi * MAJOR * MINOR / (4 * math.log(2)))
    field = draw(sky(2.0, 40, 50) + sky(0.5, 90, 100, widening=3.0))
    for (x, y), peak, flux in (((40, 50), 2.0, 2.0), ((90, 100), 0.5 / 3, 0.5)):
        l, m = (NPIX // 2 - x) * PIXSIZE, (y - NPIX // 2) * PIXSIZE
        told = patch_brightness(field, l, m, 41 * PIXSIZE)
        # What lies below 3 sigma is lost.
        assert told == pytest.approx([peak, flux, peak / NOISE], rel=0.03)
    # A square of one pixel shows that pixel.
    assert patch_brightness(field, l, m, PIXSIZE)[0] == pytest.approx(field.data[0, 100, 90])


def test_what_is_not_known_is_nan_and_logarithms_are_finite() -> None:
    pixels = np.array([[0.5, 4.0], [np.nan, -2.0]], np.float32)
    np.testing.assert_equal(pixel_brightness(pixels, 1.0), [4.0, np.nan, 4.0])
    np.testing.assert_allclose(pixel_brightness(pixels, 1.0, beams=0.1, unit=2.0), [8.0, 0.8, 4.0])
    assert np.isnan(pixel_brightness(np.full((2, 2), np.nan), 1.0)).all()

    rows = np.array([[8.0, 0.8, 4.0], [2.0, 0.0, 0.5], [1.0, np.nan, 10.0]])
    logs = log_brightness(rows)
    np.testing.assert_allclose(logs[0], np.log10([8.0, 2.0, 4.0]))  # less than one beam at the noise is that
    np.testing.assert_allclose(logs[1], np.log10([4.0, 4.0, 1.0]))
    np.testing.assert_allclose(logs[2], [0.0, 0.0, 1.0])
