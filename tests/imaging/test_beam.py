"""The fitted beam against Gaussians of known width."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vis2img.imaging.beam import fit_beam


@pytest.mark.parametrize("angle_deg", [0.0, 25.0, 90.0, 160.0])
def test_beam_of_a_gaussian_uv_distribution(angle_deg):
    """Weights exp(-p^2 / 2 s^2) make the PSF exp(-2 pi^2 s^2 l^2), of FWHM sqrt(2 ln 2) / (pi s)."""
    wide, narrow = 40.0, 90.0  # dispersions in wavelengths along the major and minor axis of the beam
    angle = math.radians(angle_deg)  # from north through east
    cell = (5.0, 4.0)
    u, v = np.meshgrid((np.arange(240) - 119.5) * cell[0], (np.arange(150) + 0.5) * cell[1])
    p, q = u * math.sin(angle) + v * math.cos(angle), u * math.cos(angle) - v * math.sin(angle)
    major, minor, position_angle = fit_beam(np.exp(-((p / wide) ** 2 + (q / narrow) ** 2) / 2), -120, cell)
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
