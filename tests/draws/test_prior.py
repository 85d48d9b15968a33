"""Priors: every draw replays, stays in range, and varies what it says it varies."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from vis2img.dataset import open_ms
from vis2img.draws.presets import PRESETS, PriorConfig
from vis2img.draws.prior import ImagingPrior
from vis2img.errors import ParameterError
from vis2img.random import draw_rng

ARCSEC = math.pi / 180 / 3600


LONGEST = 1 / (3 * ARCSEC)  # wavelengths, of a suggested pixel of 1 arcsec


def prior(fov: float = 600 * ARCSEC, **changes: Any) -> ImagingPrior:
    """Pixels of 1.5 to 3 arcsec, tapers of 5 to 9, uv of 0 to 100 and 5,000 to 20,000 wavelengths."""
    values: dict[str, Any] = {
        "pixsize": (1.5, 3.0),
        "taper": (5.0, 9.0),
        "uv_min": (0.0, 100.0 / LONGEST),
        "uv_max": (5e3 / LONGEST, 2e4 / LONGEST),
    }
    return ImagingPrior(fov, ARCSEC, PriorConfig(**{**values, **changes}))


def test_a_draw_replays_from_seed_field_and_index() -> None:
    assert prior().draw(draw_rng(3, 1, 7)) == prior().draw(draw_rng(3, 1, 7))
    others = [prior().draw(draw_rng(*key)) for key in ((4, 1, 7), (3, 2, 7), (3, 1, 8), (3, 1, 7))]
    assert len({params.sampling_seed for params in others}) == 4


def test_draws_stay_in_range_and_fill_it() -> None:
    p = prior(band_fraction=(0.3, 0.6))
    draws = [p.draw(draw_rng(0, 0, i)) for i in range(400)]
    for d in draws:
        assert 1.5 * ARCSEC <= d.pixsize <= 3 * ARCSEC
        assert 0 <= d.npix[0] * d.pixsize - p.fov <= 2 * d.pixsize
        assert d.taper == 0 or 5 * ARCSEC <= d.taper <= 9 * ARCSEC
        assert 0.3 - 1e-9 <= d.band[1] - d.band[0] <= 0.6 + 1e-9
        assert d.uvrange[0] <= 100 and 5e3 <= d.uvrange[1] <= 2e4
        assert d.robust == 0 or d.weighting == "briggs"
    assert {d.weighting for d in draws} == {"natural", "briggs", "uniform"}
    assert 0.4 < np.mean([d.taper > 0 for d in draws]) < 0.6
    assert min(d.band[0] for d in draws) < 0.05 and max(d.band[1] for d in draws) > 0.95
    # log-uniform: half of the draws lie below the geometric mean
    assert 0.4 < np.mean([d.pixsize < math.sqrt(4.5) * ARCSEC for d in draws]) < 0.6


def test_the_fixed_prior_does_not_vary() -> None:
    fixed = prior().fixed()
    assert not fixed.varies and prior().varies
    for change in ({"robust": (0.0, 1.0)}, {"weightings": ("natural", "uniform")}, {"keep_times": (0.5, 0.5)},
                   {"taper": (2.0, 2.0), "taper_probability": 0.5}, {"uv_max": (0.5, 1.0)}):  # fmt: skip
        assert replace(fixed, ranges=replace(fixed.ranges, **change)).varies
    assert not replace(fixed.ranges, taper=(2.0, 2.0), taper_probability=1.0).varies
    first, second = (fixed.draw(draw_rng(0, 0, i)) for i in (0, 1))
    assert first.sampling_seed != second.sampling_seed
    assert {**first.to_dict(), "sampling_seed": 0} == {**second.to_dict(), "sampling_seed": 0}
    assert (first.weighting, first.robust, first.taper, first.keep_times) == ("briggs", 0.0, 0.0, 1.0)
    assert prior(epsilon=1e-3).fixed().draw(draw_rng(0, 0, 0)).epsilon == 1e-3


def test_a_draw_is_pinned() -> None:
    """Draws of earlier runs must replay: the order in which random numbers are taken is part of the interface."""
    d = prior().draw(draw_rng(1, 2, 1))
    assert (d.npix, d.weighting, d.sampling_seed) == ((212, 212), "briggs", 142105610)
    drawn = (d.pixsize, d.robust, d.taper, *d.uvrange, *d.band, *d.time_span)
    kept = (d.keep_times, d.keep_antennas, d.keep_baselines)
    assert (*drawn, *kept) == pytest.approx(
        (
            1.3775212389886471e-05, 0.6930907914832085, 2.570982597857594e-05, 2.2278626925070655, 15085.807151581099,
            0.09016920862925969, 0.9555841723470567, 0.1542545254110789, 0.9544170322657909,
            0.8662183401083922, 0.8833097183153548, 0.7401480730710541,
        ),
        rel=1e-12,
    )  # fmt: skip


def test_fixing_parameters_leaves_the_others_alone() -> None:
    """Each parameter takes its random numbers whether it varies or not."""
    whole = prior()
    fewer = prior(weightings=("briggs",), robust=(0, 0), uv_min=(0, 0), uv_max=(math.inf, math.inf), taper=(0, 0))
    for index in range(20):
        a, b = (each.draw(draw_rng(0, 0, index)) for each in (whole, fewer))
        for name in ("pixsize", "band", "time_span", "keep_times", "keep_antennas", "keep_baselines", "sampling_seed"):
            assert getattr(a, name) == getattr(b, name)
        assert (b.weighting, b.robust, b.taper, b.uvrange) == ("briggs", 0, 0, (0, math.inf))


@pytest.mark.parametrize(
    "changes",
    [
        {"pixsize": (2.0, 1.0)},
        {"keep_times": (0.0, 1.0)},
        {"band_fraction": (0.5, 1.5)},
        {"taper_probability": 1.5},
        {"weightings": ()},
        {"uv_min": (0.0, 6e3 / LONGEST)},
        {"fov": 10 * ARCSEC},
        {"epsilon": 0.1},
        {"robust": (-6.0, 0.0)},
    ],
)
def test_an_illegal_prior_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ParameterError):
        prior(**changes)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_suggested_prior_can_image_its_measurement_set(make_ms, preset: str) -> None:
    ms = open_ms(make_ms(antennas=9).path)
    p = ImagingPrior.for_ms(ms, npix=64, config=PRESETS[preset])
    vis = ms.read()
    counts = []
    for index in range(6):
        image = ms.image(p.draw(draw_rng(0, 0, index)))
        assert np.isfinite(image.data).all()
        counts.append(image.nvis)
    thinned = preset in ("gentle", "full", "uv-only", "channels-only", "time-only")
    assert (min(counts) < vis.vis.size) == thinned
