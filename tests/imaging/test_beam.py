"""The fitted beam against Gaussians of known width."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vis2img.imaging.beam import fit_beam, mean_beam
from vis2img.imaging.image import make_image
from vis2img.imaging.params import ImagingParams
from vis2img.units import ARCSEC
from vis2img.visibilities import SPEED_OF_LIGHT, Visibilities


@pytest.mark.parametrize("angle_deg", [0.0, 25.0, 90.0, 160.0])
def test_beam_of_a_gaussian_uv_distribution(angle_deg):
    """Weights exp(-p^2 / 2 s^2) make the PSF exp(-2 pi^2 s^2 l^2), of FWHM sqrt(2 ln 2) / (pi s)."""
    wide, narrow = 40.0, 90.0  # dispersions in wavelengths along the major and minor axis of the beam
    angle = math.radians(angle_deg)  # from north through east
    cell = (3.0, 2.4)
    u, v = np.meshgrid((np.arange(400) - 199.5) * cell[0], (np.arange(250) + 0.5) * cell[1])
    p, q = u * math.sin(angle) + v * math.cos(angle), u * math.cos(angle) - v * math.sin(angle)
    major, minor, position_angle = fit_beam(np.exp(-((p / wide) ** 2 + (q / narrow) ** 2) / 2), -200, cell)
    assert major == pytest.approx(math.sqrt(2 * math.log(2)) / (math.pi * wide), rel=2e-3)
    assert minor == pytest.approx(math.sqrt(2 * math.log(2)) / (math.pi * narrow), rel=2e-3)
    assert abs((position_angle - angle + math.pi / 2) % math.pi - math.pi / 2) < 2e-3


@pytest.mark.parametrize("share", [0.02, 0.05])
def test_a_spike_on_a_broad_lobe_does_not_make_the_beam_narrow(share: float) -> None:
    """Few long baselines settle the curvature at the peak; the main lobe is that of the many short ones."""
    v, u = np.mgrid[0:300, -300:300] + 0.5
    short, long = (np.exp(-(u**2 + v**2) / (2 * s**2)) for s in (6.0, 100.0))
    cells = (1 - share) * short / short.sum() + share * long / long.sum()
    major, minor, _ = fit_beam(cells, -300, (10.0, 10.0))
    broad = math.sqrt(2 * math.log(2)) / (math.pi * 60.0)
    assert broad * (1 - 4 * share) < minor <= major < broad


def _samples(uvw: np.ndarray) -> Visibilities:
    count = len(uvw)
    return Visibilities(
        uvw=uvw,
        chan_freq=np.array([1.00e9, 1.01e9]),
        vis=np.ones((count, 2), np.complex64),
        weight=np.full((count, 2), 0.5, np.float32),
        time=np.zeros(count),
        antenna1=None,
        antenna2=None,
        phase_centre=(2.6, -0.5),
    )


def _beam(uvw: np.ndarray, npix: int) -> tuple[float, float, float] | None:
    return make_image(_samples(uvw), ImagingParams((npix, npix), 10 * ARCSEC, "natural")).beam


_LINE = np.linspace(-900.0, 1100.0, 9)[:, None]


@pytest.mark.parametrize("npix", [32, 256, 1024])
@pytest.mark.parametrize(
    "uvw",
    [
        np.array([[700.0, -200.0, 40.0]]),
        _LINE * [[1.0, 0.0, 0.0]],
        _LINE * [[0.3, -0.8, 0.1]],
        _LINE * [[1.0, 1e-13, 0.5]],
        _LINE[:1] * [[1e-5, 1e-5, 0.0]],
    ],
    ids=["two antennas", "east-west line", "slanted line", "rounding errors", "a lobe as wide as the sky"],
)
def test_a_lobe_that_is_not_closed_is_no_beam(uvw: np.ndarray, npix: int) -> None:
    assert _beam(uvw, npix) is None


@pytest.mark.parametrize("shape", [(900.0, 900.0), (900.0, 60.0), (30.0, 20.0)])
def test_the_beam_is_that_of_any_image_size(shape: tuple[float, float]) -> None:
    """In small images the lobe is wider than the image, or than a cell of the density grid can tell."""
    rng = np.random.default_rng(3)
    uvw = np.concatenate([rng.normal(size=(400, 2)) * shape @ [[0.8, 0.6], [-0.6, 0.8]], np.zeros((400, 1))], axis=1)
    large = _beam(uvw, 1024)
    assert large is not None
    for npix in (32, 64, 128, 400):
        beam = _beam(uvw, npix)
        assert beam is not None
        assert beam[:2] == pytest.approx(large[:2], rel=0.02)
        assert beam[1] < 0.9 * beam[0] or shape[0] == shape[1]


def test_a_wide_lobe_has_the_width_of_the_transform() -> None:
    """The half-power widths of an explicit sum, of baselines so short that the lobe is wider than the image."""
    rng = np.random.default_rng(5)
    uvw = np.concatenate([rng.normal(size=(300, 2)) * [25.0, 12.0], np.zeros((300, 1))], axis=1)
    beam = _beam(uvw, 64)
    assert beam is not None
    for width, baseline in ((beam[0], uvw[:, 1]), (beam[1], uvw[:, 0])):
        at_half = np.cos(2 * np.pi * baseline * 1.005e9 / SPEED_OF_LIGHT * width / 2).mean()
        assert at_half == pytest.approx(0.5, abs=0.03)


def test_the_beam_of_a_mean_of_gaussians() -> None:
    wide, narrow = (4e-4, 2e-4, 0.5), (2e-4, 1e-4, 0.5)
    assert mean_beam([wide, None, wide], [1.0, 5.0, 2.0]) == pytest.approx(wide, rel=1e-6)
    assert mean_beam([None], [1.0]) is None
    between = mean_beam([wide, narrow], [1.0, 1.0])
    assert between is not None
    assert between[0] == pytest.approx(2 * between[1], rel=1e-3)
    assert narrow[0] < between[0] < wide[0]
    assert between[2] == pytest.approx(0.5, abs=1e-6)
