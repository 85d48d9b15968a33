"""Predicted visibilities against the sum over sources, written out again with its own geometry and constants.

Directions come from the spherical triangle, shapes from small steps on the sphere. Skies and coverages are lopsided on
purpose. The field is wide enough for the w term to turn phases by many radians.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vis2img.errors import ParameterError
from vis2img.imaging.gridding import dirty_to_vis, vis_to_dirty
from vis2img.simulate import predict as prediction
from vis2img.simulate import predict_plan
from vis2img.simulate.predict_plan import Coverage, PredictionOptions, choose_items, spectral_terms
from vis2img.simulate.rasterise import sky_of
from vis2img.simulate.sky.source import SkyComponent, SkyCutout, SkySource, single_component_source

C = 2.99792458e8  # m/s
CENTRE = (math.radians(53.1), math.radians(-57.8))  # far south: north at a source is not north at the centre
FREQ = np.linspace(0.9e9, 1.4e9, 5)
REF = 1.1e9
GRID = {"method": "grid"}
BOTH = pytest.mark.parametrize("method", ["grid", "direct"])


def coverage(nrow=250, seed=3):
    """Baselines up to 3300 by 2300 wavelengths with a w of up to 1900."""
    return np.random.default_rng(seed).uniform(-1, 1, (nrow, 3)) * np.array([700.0, 500.0, 400.0])


UVW = coverage()


def predict_with(options, *arguments, **beam):
    return prediction.predict(*arguments, options, **beam)


def predict(sources, uvw, chan_freq, phase_centre, beam=None, **options):
    return predict_with(PredictionOptions(**options), sources, uvw, chan_freq, phase_centre, beam=beam).vis


# The oracle.


def lmn_of(ra, dec):
    """Direction cosines (Thompson, Moran & Swenson, eq. 3.27 ff)."""
    dra = ra - CENTRE[0]
    l = math.cos(dec) * math.sin(dra)
    m = math.sin(dec) * math.cos(CENTRE[1]) - math.cos(dec) * math.sin(CENTRE[1]) * math.cos(dra)
    n = math.sin(dec) * math.sin(CENTRE[1]) + math.cos(dec) * math.cos(CENTRE[1]) * math.cos(dra)
    return np.array([l, m, n])


def step(ra, dec, angle, distance):
    """Where one gets from (ra, dec) by ``distance`` at the position angle ``angle``, north through east."""
    new = math.asin(math.sin(dec) * math.cos(distance) + math.cos(dec) * math.sin(distance) * math.cos(angle))
    east = math.atan2(
        math.sin(angle) * math.sin(distance) * math.cos(dec), math.cos(distance) - math.sin(dec) * math.sin(new)
    )
    return ra + east, new


def point_vis(lmn, uvw=UVW, freq=FREQ):
    return np.exp(2j * np.pi * np.outer(uvw @ (lmn - np.array([0, 0, 1])), freq) / C)


def component_vis(c, uvw=UVW, freq=FREQ, curved=True):
    """A Gaussian is exp(-2 pi^2 sigma^2 s^2), s the baseline along its axis as seen from the source.

    The sky is ``curved``: at a distance x from the source n is less by x^2 / 2 than on the tangent plane, and
    1 / sigma^2 gains 2 pi i times the component of the baseline towards the source.
    """
    here = lmn_of(c.ra, c.dec)
    vis = c.flux * (freq / c.ref_freq) ** c.spectral_index * point_vis(here, uvw, freq)
    depth = np.outer(uvw @ here, freq) / C if curved else 0.0
    for fwhm, angle in ((c.major, c.pa), (c.minor, c.pa + math.pi / 2)):
        towards = lmn_of(*step(c.ra, c.dec, angle, 1e-5)) - lmn_of(*step(c.ra, c.dec, angle, -1e-5))
        along = np.outer(uvw @ towards / 2e-5, freq) / C
        square = (fwhm / 2.35482004503) ** 2
        shrink = 1 / (1 + 2j * math.pi * depth * square)
        vis = vis * np.sqrt(shrink) * np.exp(-2 * (math.pi * along) ** 2 * square * shrink)
    return vis


def cutout_vis(c, uvw=UVW, freq=FREQ):
    vis = 0
    for (y, x), flux in np.ndenumerate(c.pixels):
        right, up = (x - c.pixels.shape[1] // 2) * c.pixsize, (y - c.pixels.shape[0] // 2) * c.pixsize
        place = step(c.ra, c.dec, math.atan2(-right, up) + c.pa, math.hypot(right, up))
        vis = vis + float(flux) * point_vis(lmn_of(*place), uvw, freq)
    return vis * (freq / c.ref_freq) ** c.spectral_index


def relative(a, b):
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def component(seed, size=0.0, reach=0.03, index=0.0):
    rng = np.random.default_rng(seed)
    dra, ddec = rng.uniform(-0.6, 1.0, 2) * reach  # more to the north-east
    major = size * rng.uniform(0.8, 1.0)
    return SkyComponent(
        CENTRE[0] + dra / math.cos(CENTRE[1]), CENTRE[1] + ddec, rng.uniform(0.1, 2.0), REF, major,
        major * rng.uniform(0.1, 0.9), rng.uniform(0, math.pi), index,
    )  # fmt: skip


def sky(components):
    return [single_component_source(i, "", c) for i, c in enumerate(components)]


def picture(shape=(23, 32), pixsize=8e-5, width=2.5, **changes):
    """Two blobs out of the middle, one brighter, on ``shape`` [y, x]."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    blobs = [(1.0, 0.30, 0.55, 1.0), (0.4, 0.66, 0.36, 1.4)]
    pixels = sum(
        flux * np.exp(-((x - a * shape[1]) ** 2 + (y - b * shape[0]) ** 2 / s) / (2 * width**2))
        for flux, a, b, s in blobs
    )
    place = step(*CENTRE, 0.9, 0.018)
    values = {"pixels": pixels.astype(np.float32), "pixsize": pixsize, "ra": place[0], "dec": place[1]}
    return SkyCutout(**{**values, "ref_freq": REF, "pa": 0.7, "spectral_index": -0.8, **changes})


def cutout_source(c, source_id=0):
    return SkySource(source_id, "", c.ra, c.dec, c.flux, 1e-3, cutout=c)


# Positions, shapes, signs.


@BOTH
def test_points_between_pixels_equal_their_sum(method):
    parts = [component(i) for i in range(12)]
    vis = predict(sky(parts), UVW, FREQ, CENTRE, method=method)
    assert vis.dtype == np.complex64 and vis.shape == (len(UVW), len(FREQ))
    assert relative(vis, sum(map(component_vis, parts))) < 2e-5


@BOTH
@pytest.mark.parametrize("size", [3e-5, 2e-4, 5e-4, 1e-3])
def test_gaussians_of_any_width_equal_their_transform(method, size):
    """From a fraction of the resolution (3e-4) on: points, nodes and samples on the grid."""
    for seed in range(3):
        part = component(seed, size, reach=0.04)
        vis = predict(sky([part]), UVW, FREQ, CENTRE, method=method)
        # The sum takes the tangent plane instead, as simms and others do.
        assert relative(vis, component_vis(part, curved=method == "grid")) < 1e-4


def test_a_needle_has_its_own_position_angle():
    place = step(*CENTRE, 1.1, 0.03)
    needle = SkyComponent(*place, 1.0, REF, 1.5e-3, 0.0, 0.4)
    vis = predict(sky([needle]), UVW, FREQ, CENTRE, **GRID)
    assert relative(vis, component_vis(needle)) < 1e-4
    turned = SkyComponent(*place, 1.0, REF, 1.5e-3, 0.0, 0.4 + 0.04)  # as if north were that of the centre
    assert relative(vis, component_vis(turned)) > 1e-2


def test_a_source_to_the_east_turns_phase_forward_with_u():
    c = SkyComponent(*step(*CENTRE, math.pi / 2, 1e-3), 2.0, REF)
    uvw = np.array([[50.0, 0.0, 0.0], [0.0, 50.0, 0.0]])
    for options in ({"method": "direct"}, GRID):
        vis = predict(sky([c]), uvw, FREQ[:1], CENTRE, **options)
        assert np.angle(vis[0, 0]) == pytest.approx(2 * math.pi * 50 * 1e-3 * FREQ[0] / C, abs=1e-4)
        assert np.angle(vis[1, 0]) == pytest.approx(0, abs=1e-3)
        assert abs(vis[0, 0]) == pytest.approx(2, rel=5e-5)


@BOTH
def test_conjugate_baselines_have_conjugate_visibilities(method):
    sources = [*sky([component(1), component(2, 5e-4)]), cutout_source(picture())]
    vis = predict(sources, UVW, FREQ, CENTRE, method=method)
    assert relative(predict(sources, -UVW, FREQ, CENTRE, method=method), vis.conj()) < 1e-5


@settings(deadline=None, max_examples=15)
@given(dl=st.floats(-0.01, 0.01), dm=st.floats(-0.01, 0.01))
def test_a_shift_is_a_phase(dl, dm):
    """Both on the same grid, whose pixels know of neither position."""
    vis, phase = [], []
    for place in (step(*CENTRE, 0.3, 0.002), step(*CENTRE, math.atan2(dl, dm), math.hypot(dl, dm))):
        vis.append(predict(sky([SkyComponent(*place, 1.0, REF)]), UVW[:60], FREQ[:2], CENTRE, fov=0.035, **GRID))
        phase.append(point_vis(lmn_of(*place), UVW[:60], FREQ[:2]))
    assert relative(vis[0] / phase[0], vis[1] / phase[1]) < 4e-5


# Pictures.


@BOTH
def test_cutout_equals_the_sum_over_its_pixels(method):
    cutout = picture()
    vis = predict([cutout_source(cutout)], UVW, FREQ, CENTRE, method=method)
    assert relative(vis, cutout_vis(cutout)) < 1e-4
    assert relative(vis, cutout_vis(picture(pa=0.75))) > 1e-2


@BOTH
def test_a_coarse_cutout_is_smooth_and_keeps_its_flux(method):
    """Pixels larger than the baselines resolve: what is seen is the curve through them, not their copies."""
    coarse, fine = picture((24, 30), 2.4e-4, 2.0, pa=0.0), picture((96, 120), 6e-5, 8.0, pa=0.0)
    scale = coarse.flux / fine.flux
    vis = predict([cutout_source(coarse)], UVW, FREQ, CENTRE, method=method)
    # Pixel [0, 0] of both starts at the same corner, so that the centres differ by a part of a pixel.
    assert relative(vis, scale * cutout_vis(fine)) < 2e-3
    short = predict([cutout_source(coarse)], np.zeros((1, 3)), FREQ, CENTRE, method=method)
    np.testing.assert_allclose(short[0], coarse.flux * (FREQ / REF) ** -0.8, rtol=1e-3)


# Spectra and beams.


def test_power_laws_over_an_octave():
    freq = np.linspace(0.85e9, 1.7e9, 16)
    parts = [component(i, 3e-4 * (i % 2), index=-1.5 + 0.2 * i) for i in range(10)]
    expected = sum(component_vis(c, UVW, freq) for c in parts)
    for method, error in (("direct", 1e-5), ("grid", 1e-3), ("grid", 1e-5)):
        options = PredictionOptions(method=method, spectra_error=error)
        result = predict_with(options, sky(parts), UVW, freq, CENTRE)
        assert relative(result.vis, expected) < max(error, 5e-5)
        assert method == "direct" or max(result.terms) > 1


def beam(l, m, freq):
    """Wider than high, off centre, and shrinking with frequency."""
    s = freq / 1e9
    return np.exp(-np.outer((l - 0.004) ** 2 / 0.02**2 + m**2 / 0.03**2, s**2))


@BOTH
def test_beam_attenuates_every_source(method):
    parts = [component(i, index=-0.7) for i in range(10)]
    vis = predict(sky(parts), UVW, FREQ, CENTRE, beam=beam, spectra_error=1e-4, method=method)
    expected = sum(component_vis(c) * beam(*lmn_of(c.ra, c.dec)[:2, None], FREQ) for c in parts)
    assert relative(vis, expected) < 1e-4


@BOTH
@pytest.mark.parametrize("freq", [FREQ[2:3], np.array([0.9e9, 0.93e9, 1.2e9, 1.21e9, 1.4e9])])
def test_one_channel_and_uneven_channels(freq, method):
    parts = [component(i, 2e-4 * (i % 2), index=-0.2 * i) for i in range(8)]
    options = PredictionOptions(method=method, spectra_error=1e-5)
    result = predict_with(options, sky(parts), UVW, freq, CENTRE)
    assert relative(result.vis, sum(component_vis(c, UVW, freq) for c in parts)) < 5e-5
    if method == "grid" and len(freq) == 1:
        assert result.terms == (1,)


def test_many_channels_do_not_drift():
    freq = np.linspace(0.9e9, 1.4e9, 300)
    parts = [component(1), component(2, 1e-3)]
    vis = predict(sky(parts), UVW[:40], freq, CENTRE, method="direct")
    assert relative(vis, sum(component_vis(c, UVW[:40], freq, curved=False) for c in parts)) < 1e-6


def test_spectral_terms_are_as_few_as_the_error_allows():
    nu = np.linspace(1, 2, 24)
    rng = np.random.default_rng(0)
    spectra = rng.uniform(0.1, 1, 200)[:, None] * nu ** rng.uniform(-2, 0.5, 200)[:, None]
    counts = []
    for error in (0.3, 1e-2, 1e-3, 1e-5):
        basis, project = spectral_terms(spectra.T @ spectra, error)
        left = spectra - spectra @ project @ basis
        assert np.all(np.linalg.norm(left, axis=0) <= 1.001 * error * np.linalg.norm(spectra, axis=0))
        counts.append(len(basis))
        if len(basis) > 1:  # one fewer would not do
            u, s, v = np.linalg.svd(spectra / np.linalg.norm(spectra, axis=0), full_matrices=False)
            fewer = (u[:, : len(basis) - 1] * s[: len(basis) - 1]) @ v[: len(basis) - 1]
            assert np.linalg.norm(fewer - spectra / np.linalg.norm(spectra, axis=0), axis=0).max() > error
    assert counts == sorted(counts) and counts[0] == 1 and 3 <= counts[-1] <= 6
    same = np.outer(rng.uniform(1, 2, 9), nu**-0.7)
    assert len(spectral_terms(same.T @ same, 1e-6)[0]) == 1


def test_the_band_may_be_predicted_in_parts(monkeypatch):
    """Where degridding costs and pixels do not, parts of the band with fewer terms are cheaper."""
    monkeypatch.setattr(predict_plan, "_GRID_PIXEL", 0.0)
    monkeypatch.setattr(predict_plan, "_GRID_CALL", 0.0)
    freq = np.linspace(0.85e9, 1.7e9, 16)
    parts = [component(i, index=-1.5 + 0.2 * i) for i in range(10)]
    result = predict_with(PredictionOptions(method="grid"), sky(parts), UVW, freq, CENTRE, beam=beam)
    assert len(result.terms) > 1
    expected = predict(sky(parts), UVW, freq, CENTRE, beam=beam, method="direct")
    assert relative(result.vis, expected) < 1e-3


# What goes where.


def test_sources_outside_the_grid_are_summed():
    inside = [component(i, 3e-4 * (i % 2)) for i in range(5)]
    outside = [SkyComponent(*step(*CENTRE, 2.0, 0.5), 3.0, REF), SkyComponent(*step(*CENTRE, -1.0, 1.4), 5.0, REF)]
    expected = sum(map(component_vis, [*inside, *outside]))
    options = PredictionOptions(method="grid", fov=0.08)
    result = predict_with(options, sky([*inside, *outside]), UVW, FREQ, CENTRE)
    assert (result.n_gridded, result.n_direct) == (5, 2)
    assert relative(result.vis, expected) < 1e-5


def test_a_mixture_takes_both_ways_and_the_grid_that_is_asked_for():
    parts = [component(i, 4e-4 * (i % 3), index=-0.7) for i in range(9)]
    far = SkyComponent(*step(*CENTRE, 2.0, 0.4), 3.0, REF, 2e-4, 1e-4, 0.3)
    cutout = picture()
    sources = [*sky([*parts, far]), cutout_source(cutout, 10)]
    expected = sum(map(component_vis, [*parts, far])) + cutout_vis(cutout)
    exact = {"method": "grid", "spectra_error": 1e-5}
    options = PredictionOptions(fov=0.09, nthreads=1, **exact)
    result = predict_with(options, sources, UVW, FREQ, CENTRE)
    assert 0.09 <= result.grids[0].npix * result.grids[0].pixsize < 0.12
    assert result.n_direct == 1
    assert relative(result.vis, expected) < 1e-4
    again = predict_with(PredictionOptions(fov=0.09, nthreads=2, **exact), sources, UVW, FREQ, CENTRE)
    assert relative(again.vis, result.vis) < 1e-6
    larger = predict_with(PredictionOptions(fov=0.14, **exact), sources, UVW, FREQ, CENTRE)
    assert larger.grids[0].npix > result.grids[0].npix and relative(larger.vis, expected) < 1e-4


def test_little_work_is_summed_and_much_is_gridded():
    few = predict_with(PredictionOptions(), sky([component(1)]), UVW, FREQ, CENTRE)
    assert few.n_direct == 1 and few.grids == ()
    far = SkyComponent(*step(*CENTRE, 2.0, 0.4), 3.0, REF)
    crowd = sky_of(sky([*map(component, range(2000)), far]), CENTRE)
    large = Coverage(coverage(20_000), np.linspace(0.9e9, 1.4e9, 64), None)
    gridded = choose_items(crowd, np.ones((2001, 64)), large, PredictionOptions())
    assert gridded[:2000].mean() > 0.95 and not gridded[2000]


def test_parts_of_an_observation_are_predicted_alike():
    sources = [*sky([component(i) for i in range(6)]), cutout_source(picture((20, 24), 1.4e-4), 6)]
    whole = predict(sources, UVW, FREQ, CENTRE, **GRID)
    longest = float(np.abs(UVW[:, :2]).max() * FREQ[-1] / C)
    parts = [predict(sources, rows, FREQ, CENTRE, uv_max=longest, **GRID) for rows in (UVW[:100], UVW[100:])]
    assert relative(np.concatenate(parts), whole) < 2e-5


def test_nothing_to_predict():
    assert not predict([], UVW, FREQ, CENTRE).any()
    assert predict(sky([component(1)]), np.empty((0, 3)), FREQ, CENTRE).shape == (0, len(FREQ))
    dark = predict(
        sky([component(1)]), UVW, FREQ, CENTRE, beam=lambda l, m, freq: np.zeros((len(l), len(freq))), **GRID
    )
    assert not dark.any()
    zero = predict(sky([component(1)]), np.zeros((3, 3)), FREQ, CENTRE, **GRID)
    np.testing.assert_allclose(zero, component(1).flux, rtol=1e-4)


# Errors.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"uvw": UVW[:, :2]}, "uvw"),
        ({"uvw": np.full((2, 3), np.nan)}, "uvw"),
        ({"chan_freq": FREQ[::-1]}, "increasing"),
        ({"chan_freq": np.empty(0)}, "chan_freq"),
        ({"chan_freq": -FREQ[::-1]}, "above 0"),
        ({"uv_max": 100.0}, "uv_max"),
        ({"fov": 3.0}, "fov"),
        ({"uvw": 1e4 * UVW, "fov": 1.3, "method": "grid"}, "memory"),
        ({"epsilon": 1e-7}, "epsilon"),
        ({"spectra_error": 0.0}, "spectra_error"),
        ({"nthreads": 0}, "nthreads"),
        ({"method": "fft"}, "method"),
        ({"beam": lambda l, m, freq: np.ones(len(l))}, "beam"),
        ({"sources": sky([SkyComponent(CENTRE[0] + math.pi, 0.0, 1.0, REF)])}, "90 degrees"),
    ],
)
def test_illegal_input_is_refused_in_one_line(changes, message):
    values = {"sources": sky([component(1)]), "uvw": UVW, "chan_freq": FREQ, "phase_centre": CENTRE, **changes}
    with pytest.raises(ParameterError, match=message) as caught:
        predict(**values)
    assert "\n" not in str(caught.value)


def test_degridding_is_the_adjoint_of_imaging():
    rng = np.random.default_rng(5)
    image, pixsize = rng.normal(size=(48, 64)).astype(np.float32), 1.1e-4
    vis = (rng.normal(size=(len(UVW), 5)) + 1j * rng.normal(size=(len(UVW), 5))).astype(np.complex64)
    seen = dirty_to_vis(UVW, FREQ, image, pixsize, epsilon=1e-5)
    dirty = vis_to_dirty(UVW, FREQ, vis, np.ones(vis.shape, np.float32), (64, 48), pixsize, total=1.0, epsilon=1e-5)
    assert np.vdot(seen, vis).real == pytest.approx(float(np.sum(image * dirty, dtype=float)), rel=1e-3, abs=1.0)
