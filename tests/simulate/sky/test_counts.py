"""Counts agree with the published fit and data; drawn fields follow the counts, sizes and types they promise."""

import itertools
import math

import numpy as np
import pytest
from scipy.integrate import quad

from tests.helpers.places import DATA
from vis2img.errors import ParameterError
from vis2img.simulate.sky.counts import differential_counts, draw_fluxes, number_between, star_forming_fraction
from vis2img.simulate.sky.draw import ALL_CLASSES
from vis2img.simulate.sky.population import draw_population

SKY = DATA / "sky"
DEG = math.pi / 180
ARCSEC = DEG / 3600
CENTRE = (1.1, -0.6)


def hopkins(flux):
    """Return dN/dS per Jy per sr by Hopkins et al. 2003, their coefficients written out here again."""
    x = math.log10(flux * 1e3)
    fit = 0.859 + 0.508 * x + 0.376 * x**2 - 0.049 * x**3 - 0.121 * x**4 + 0.057 * x**5 - 0.008 * x**6
    return 10**fit / flux**2.5


def hopkins_between(low, high):
    return quad(lambda log_flux: hopkins(math.exp(log_flux)) * math.exp(log_flux), math.log(low), math.log(high))[0]


def test_counts_are_the_published_fit():
    flux = np.array([[5e-5, 1e-4], [1e-3, 1.0]])
    expected = [[hopkins(s) for s in row] for row in flux]
    np.testing.assert_allclose(differential_counts(flux), expected, rtol=1e-9)
    assert number_between(1e-4, 0.5) == pytest.approx(hopkins_between(1e-4, 0.5), rel=1e-4)


def test_faint_counts_join_and_have_the_published_slope():
    for join in (1e-5, 5e-5):
        below, above = differential_counts([join * 0.999999, join * 1.000001])
        assert below / above == pytest.approx(1, abs=1e-4)
    ratio = differential_counts(4e-7) / differential_counts(4e-6)
    assert ratio == pytest.approx(10**1.5, rel=1e-6)  # S^2 n ~ S^0.5
    # 1.7e4 sources above 10 microJy in 1.04 square degrees of DEEP2; our join is known to be low.
    assert 0.7 < number_between(1e-5, 1.0) * DEG**2 / (1.7e4 / 1.04) < 1.05


def test_counts_agree_with_the_compiled_data():
    path = SKY / "de_zotti_1p4GHz_counts.txt"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    log_flux, data = np.loadtxt(path, usecols=(0, 1), unpack=True)
    for low in np.arange(-4.25, -0.5, 0.5):
        inside = (log_flux >= low) & (log_flux < low + 0.5)
        flux = 10 ** log_flux[inside]
        ratio = np.median(data[inside] / (differential_counts(flux) * flux**2.5))
        assert ratio == pytest.approx(1, abs=0.2), low  # lowest, 0.81, around 1 mJy: small fields, by their scatter


def test_counts_agree_with_the_skads_simulation():
    path = SKY / "SKADS_1p4GHz_counts.csv"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    flux, data = np.loadtxt(path, delimiter=",", skiprows=1, usecols=(2, 3), unpack=True)
    inside = (flux > 1e-4) & (flux < 0.1)
    ratio = data[inside] / (differential_counts(flux[inside]) * flux[inside] ** 2.5)
    assert np.median(ratio) == pytest.approx(1, abs=0.25)
    assert ratio.min() > 0.5 and ratio.max() < 1.6


def test_counts_at_another_frequency():
    # A source of 1 mJy at 1.4 GHz has 2^0.7 mJy at 0.7 GHz: the same number of sources, at other fluxes.
    factor = 2**0.7
    assert number_between(1e-3 * factor, 1e-2 * factor, 0.7e9) == pytest.approx(number_between(1e-3, 1e-2), rel=1e-6)
    assert differential_counts(factor * 1e-3, 0.7e9) == pytest.approx(hopkins(1e-3) / factor, rel=1e-9)


def test_drawn_fluxes_follow_the_counts():
    solid_angle = 10 * DEG**2
    flux = draw_fluxes(np.random.default_rng(2), 1e-4, 1.0, solid_angle)
    edges = np.geomspace(1e-4, 0.1, 13)
    seen = np.histogram(flux, edges)[0]
    expected = np.array([hopkins_between(a, b) for a, b in itertools.pairwise(edges)]) * solid_angle
    assert np.sum((seen - expected) ** 2 / expected) < 32.9  # chi-squared of 12 bins, 0.1%
    assert flux.min() >= 1e-4 and flux.max() <= 1.0
    numbers = [len(draw_fluxes(np.random.default_rng(i), 1e-3, 1.0, DEG**2)) for i in range(200)]
    mean = hopkins_between(1e-3, 1.0) * DEG**2
    assert np.mean(numbers) == pytest.approx(mean, abs=3.5 * math.sqrt(mean / 200))
    assert np.var(numbers) == pytest.approx(mean, rel=0.35)  # Poisson, not always the same number


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: differential_counts([1e-3, 2.0]),
            "counts are known from 2.5e-07 to 1 Jy at 1.4 GHz, not at 0.001 to 2",
        ),
        (lambda: differential_counts(math.nan), "counts are known from"),
        (lambda: differential_counts(1e-3, -1.0), "ref_freq = -1 Hz"),
        (lambda: number_between(1e-8, 1e-3), "counts are known from"),
        (lambda: number_between(1e-3, 1e-4), "fluxes from 0.001 to 0.0001 Jy"),
        (lambda: draw_fluxes(np.random.default_rng(0), 1e-3, 1e-2, 0.0), "solid_angle = 0 sr"),
        (lambda: draw_population(np.random.default_rng(0), CENTRE, 2.0, 1e-3), "fov = 2 rad"),
        (lambda: draw_population(np.random.default_rng(0), CENTRE, 0.1, 1e-3, clustering=1.0), "clustering = 1"),
        (
            lambda: draw_population(np.random.default_rng(0), CENTRE, 0.1, 1e-3, resolved_classes={"spiral": 1}),
            "no source class 'spiral'",
        ),
        (
            lambda: draw_population(np.random.default_rng(0), CENTRE, 0.1, 1e-3, resolved_classes={"fri": -1}),
            "shares of resolved_classes",
        ),
    ],
)
def test_errors_take_one_line(call, message):
    with pytest.raises(ParameterError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_star_forming_galaxies_are_the_faint_ones():
    assert star_forming_fraction(2e-4) == pytest.approx(0.5)
    assert star_forming_fraction(5e-5) == pytest.approx(0.9, abs=0.02)
    assert np.all(np.diff(star_forming_fraction(np.geomspace(1e-6, 1, 50))) < 0)
    sky = draw_population(np.random.default_rng(3), CENTRE, 1.0 * DEG, 3e-5)
    flux = np.array([s.flux for s in sky])
    sfg = np.array([s.class_name == "sfg" for s in sky])
    faint, bright = (flux > 4e-5) & (flux < 6e-5), flux > 1e-3
    assert sfg[faint].mean() == pytest.approx(0.9, abs=0.05)
    assert sfg[bright].mean() < 0.12


def test_a_population_replays_lies_in_the_field_and_has_the_counts():
    fov = 1.0 * DEG
    sky, again = (draw_population(np.random.default_rng(4), CENTRE, fov, 1e-4, ref_freq=1.28e9) for _ in range(2))
    assert sky == again
    assert [s.source_id for s in sky] == list(range(len(sky)))
    flux = [s.flux for s in sky]
    assert flux == sorted(flux, reverse=True) and flux[-1] >= 1e-4
    expected = fov**2 * hopkins_between(1e-4 * (1.28 / 1.4) ** 0.7, 1.0)
    assert len(sky) == pytest.approx(expected, abs=4 * math.sqrt(expected))
    assert {c.ref_freq for s in sky for c in s.components} == {1.28e9}
    assert {s.class_name for s in sky} <= {"sfg", *ALL_CLASSES}
    ra, dec = np.array([(s.ra, s.dec) for s in sky]).T
    east = np.cos(dec) * np.sin(ra - CENTRE[0])
    north = np.sin(dec) * math.cos(CENTRE[1]) - np.cos(dec) * math.sin(CENTRE[1]) * np.cos(ra - CENTRE[0])
    for along in (east, north):
        assert np.abs(along).max() <= fov / 2
        quarters = np.histogram(along, 4, (-fov / 2, fov / 2))[0]
        assert np.allclose(quarters, len(sky) / 4, atol=4 * math.sqrt(len(sky) / 4))


def test_the_resolved_fraction_is_that_of_windhorst():
    sky = draw_population(np.random.default_rng(5), CENTRE, 40 * DEG, 0.98e-2, 1.02e-2)
    agn = [s for s in sky if s.class_name != "sfg"]
    resolved = [s for s in agn if s.class_name != "compact"]
    # Median 2 arcsec * 10^0.3 at 10 mJy; the fraction above 10 arcsec is 2^-(10 / median)^0.62.
    expected = 2 ** -((10 / (2 * 10**0.3)) ** 0.62)
    assert len(resolved) / len(agn) == pytest.approx(expected, abs=4 * math.sqrt(0.25 / len(agn)))
    assert all(s.size > 10 * ARCSEC for s in resolved)
    assert all(s.size <= 3 * ARCSEC * (1 + 1e-9) for s in agn if s.class_name == "compact")


def test_only_wanted_classes_are_drawn():
    sky = draw_population(np.random.default_rng(6), CENTRE, 5 * DEG, 5e-3, resolved_classes={"wat": 3, "nat": 1})
    found = [s.class_name for s in sky if s.class_name not in ("sfg", "compact")]
    assert set(found) == {"wat", "nat"} and found.count("wat") > found.count("nat")
    plain = draw_population(np.random.default_rng(6), CENTRE, 2 * DEG, 5e-3, resolved_classes={})
    assert {s.class_name for s in plain} <= {"sfg", "compact"}


def test_spectral_indices():
    sky = draw_population(np.random.default_rng(7), CENTRE, 1.0 * DEG, 3e-5)
    sfg = np.array([s.components[0].spectral_index for s in sky if s.class_name == "sfg"])
    compact = np.array([s.components[0].spectral_index for s in sky if s.class_name == "compact"])
    assert (sfg.mean(), sfg.std()) == (pytest.approx(-0.8, abs=0.02), pytest.approx(0.2, abs=0.02))
    assert np.mean(compact > -0.4) == pytest.approx(0.3 * 0.933 + 0.7 * 0.067, abs=0.08)


def test_clustering_makes_pairs_but_no_more_sources():
    def close_pairs(clustering):
        sky = draw_population(np.random.default_rng(8), CENTRE, 1.0 * DEG, 2e-4, clustering=clustering)
        ra, dec = np.array([(s.ra, s.dec) for s in sky]).T
        gap = np.hypot((ra[:, None] - ra) * math.cos(CENTRE[1]), dec[:, None] - dec)
        return len(sky), np.sum(gap < 60 * ARCSEC) - len(sky)

    (n, uniform), (m, clustered) = close_pairs(0.0), close_pairs(0.5)
    assert n == m
    chance = n**2 * math.pi * (60 * ARCSEC) ** 2 / DEG**2
    assert uniform == pytest.approx(chance, rel=0.2)
    assert clustered > 1.3 * uniform
