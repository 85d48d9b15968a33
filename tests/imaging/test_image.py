"""Images against explicit Fourier sums: positions, fluxes, signs, weights, rotation and sampling.

The sky model, the antenna geometry and the sums below are written out again from the textbook, with
their own constants, so that an error in ``vis2img`` cannot hide behind itself. Shapes, skies and weights
are lopsided on purpose: symmetric ones pass with flipped axes.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from vis2img.coordinates import direction_cosines, lm_to_pixel, pixel_to_lm, sky_position
from vis2img.errors import MeasurementSetError, ParameterError
from vis2img.imaging.image import Image, make_image, robust_noise
from vis2img.imaging.params import ImagingParams
from vis2img.imaging.rotation import rotate
from vis2img.imaging.sampling import select_samples
from vis2img.ms.selection import Selection
from vis2img.visibilities import Origin, Visibilities

C = 2.99792458e8  # m/s
CENTRE = (math.radians(53.1), math.radians(-27.8))
NPIX = (64, 48)
PIXSIZE = math.radians(0.25)  # a field of 16 by 12 degrees: the w term turns phases by many radians
FREQ = np.array([9.0e8, 1.0e9, 1.15e9, 1.2e9])


# The oracles.


def direct_vis(uvw, freq, sources):
    """V = sum of S exp(2 pi i nu / c (u l + v m + w (n - 1))) over the sources (S, l, m).

    The sign is the one by which WSClean reads UVW; tests/test_wsclean.py holds the code to that.
    """
    vis = np.zeros((len(uvw), len(freq)), complex)
    for flux, l, m in sources:
        n = math.sqrt(1 - l * l - m * m)
        delay = uvw[:, 0] * l + uvw[:, 1] * m + uvw[:, 2] * (n - 1)
        vis += flux * np.exp(2j * np.pi * np.outer(delay, freq) / C)
    return vis


def direct_image(uvw, freq, vis, weight, npix, pixsize):
    """The weighted mean of V exp(-2 pi i ...) at each pixel: l falls along x, m grows along y."""
    uvw_lambda = (uvw[:, None, :] * freq[None, :, None] / C).reshape(-1, 3)
    flat, wgt = vis.ravel().astype(complex), weight.ravel().astype(float)
    image = np.zeros((npix[1], npix[0]))
    for y in range(npix[1]):
        for x in range(npix[0]):
            l, m = (npix[0] // 2 - x) * pixsize, (y - npix[1] // 2) * pixsize
            n = math.sqrt(1 - l * l - m * m)
            phase = 2 * np.pi * (uvw_lambda @ np.array([l, m, n - 1]))
            image[y, x] = np.sum(wgt * (flat.real * np.cos(phase) + flat.imag * np.sin(phase)))
    return image / wgt.sum()


def tangent_cosines(ra, dec, centre):
    """(l, m) of a direction, from the spherical triangle (Thompson, Moran & Swenson, eq. 3.27 ff)."""
    ra0, dec0 = centre
    return (
        math.cos(dec) * math.sin(ra - ra0),
        math.sin(dec) * math.cos(dec0) - math.cos(dec) * math.sin(dec0) * math.cos(ra - ra0),
    )


def array_uvw(xyz, lst, centre):
    """uvw [time, antenna, 3] of antennas at ``xyz`` (X to the meridian, Y east, Z north), TMS eq. 4.1."""
    hour, dec = lst - centre[0], centre[1]
    x, y, z = xyz.T
    result = np.empty((len(lst), len(xyz), 3))
    for i, h in enumerate(hour):
        result[i, :, 0] = math.sin(h) * x + math.cos(h) * y
        result[i, :, 1] = -math.sin(dec) * math.cos(h) * x + math.sin(dec) * math.sin(h) * y + math.cos(dec) * z
        result[i, :, 2] = math.cos(dec) * math.cos(h) * x - math.cos(dec) * math.sin(h) * y + math.sin(dec) * z
    return result


def observe(centre, sources_radec=(), nant=9, ntime=8, size=30.0, seed=1, freq=FREQ) -> Visibilities:
    """An observation of point sources (S, RA, Dec) with a lopsided array; sample weights 0.2 to 3."""
    rng = np.random.default_rng(seed)
    xyz = rng.normal(size=(nant, 3)) * size * np.array([0.6, 1.5, 1.0])
    lst = math.radians(40) + np.linspace(-0.9, 1.1, ntime)
    antennas = array_uvw(xyz, lst, centre)
    first, second = np.triu_indices(nant, 1)
    uvw = (antennas[:, second] - antennas[:, first]).reshape(-1, 3)
    sources = [(flux, *tangent_cosines(ra, dec, centre)) for flux, ra, dec in sources_radec]
    vis = direct_vis(uvw, freq, sources)
    return Visibilities(
        uvw=uvw,
        chan_freq=freq,
        vis=vis.astype(np.complex64),
        weight=rng.uniform(0.2, 3, vis.shape).astype(np.float32),
        time=np.repeat(5e9 + 8.0 * np.arange(ntime), len(first)),
        antenna1=np.tile(first, ntime).astype(np.int32),
        antenna2=np.tile(second, ntime).astype(np.int32),
        phase_centre=centre,
    )


def random_vis(seed=0, nrow=300, uv=90.0, w=900.0, sources=()) -> Visibilities:
    """Random baselines (no antennas behind them) with w terms larger than u and v."""
    rng = np.random.default_rng(seed)
    uvw = rng.uniform(-1, 1, (nrow, 3)) * np.array([uv, uv, w]) * C / FREQ[-1]
    vis = direct_vis(uvw, FREQ, sources)
    return Visibilities(
        uvw=uvw,
        chan_freq=FREQ,
        vis=vis.astype(np.complex64),
        weight=rng.uniform(0.1, 4, vis.shape).astype(np.float32),
        time=np.sort(rng.choice(5e9 + np.arange(20.0), nrow)),
        antenna1=np.zeros(nrow, np.int32),
        antenna2=rng.integers(1, 5, nrow).astype(np.int32),
        phase_centre=CENTRE,
    )


LOPSIDED = [(1.0, 0.081, 0.052), (0.7, 0.0333, -0.061), (0.4, -0.1234, 0.0171), (2.0, 0.013, 0.0047)]


def params(**changes) -> ImagingParams:
    return ImagingParams(**{"npix": NPIX, "pixsize": PIXSIZE, "weighting": "natural", "rank_filter": 0, **changes})


def sin_wcs(npix, pixsize, centre) -> WCS:
    """The header that the conventions promise, written out: RA falls along x, reference pixel npix // 2."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---SIN", "DEC--SIN"]
    wcs.wcs.crval = np.degrees(centre)
    wcs.wcs.crpix = [npix[0] // 2 + 1, npix[1] // 2 + 1]  # FITS counts from 1
    wcs.wcs.cdelt = [-math.degrees(pixsize), math.degrees(pixsize)]
    return wcs


def relative(a, b) -> float:
    return float(np.linalg.norm(np.asarray(a) - b) / np.linalg.norm(b))


# Positions, fluxes and orientation.


@pytest.mark.parametrize("pixel", [(9, 31), (50, 5), (60, 44), (32, 24)])
@pytest.mark.parametrize("weighting", ["natural", "uniform", "briggs"])
def test_unit_source_peaks_at_one_in_the_pixel_of_the_wcs(pixel, weighting):
    sky = sin_wcs(NPIX, PIXSIZE, CENTRE).pixel_to_world(*pixel)
    vis = observe(CENTRE, [(1.0, sky.ra.rad, sky.dec.rad)])
    data = make_image(vis, params(weighting=weighting)).data
    assert data.shape == (NPIX[1], NPIX[0])
    assert np.unravel_index(data.argmax(), data.shape) == (pixel[1], pixel[0])
    assert data.max() == pytest.approx(1.0, abs=1e-4)


def test_right_ascension_falls_along_x_and_declination_grows_along_y():
    east = CENTRE[0] + 10 * PIXSIZE / math.cos(CENTRE[1]), CENTRE[1]
    north = CENTRE[0], CENTRE[1] + 10 * PIXSIZE
    y, x = np.unravel_index(make_image(observe(CENTRE, [(1.0, *east)]), params()).data.argmax(), NPIX[::-1])
    assert x == NPIX[0] // 2 - 10 and abs(y - NPIX[1] // 2) <= 1
    y, x = np.unravel_index(make_image(observe(CENTRE, [(1.0, *north)]), params()).data.argmax(), NPIX[::-1])
    assert (x, y) == (NPIX[0] // 2, NPIX[1] // 2 + 10)


def test_image_axes_are_not_swapped_for_tall_images():
    tall = (40, 72)
    l, m = (20 - 33) * PIXSIZE, (61 - 36) * PIXSIZE
    data = make_image(random_vis(sources=[(1.0, l, m)]), params(npix=tall)).data
    assert data.shape == (72, 40)
    assert np.unravel_index(data.argmax(), data.shape) == (61, 33)


def test_pixel_and_direction_cosines_agree_with_the_wcs():
    wcs = sin_wcs(NPIX, PIXSIZE, CENTRE)
    for x, y in [(3, 40), (57, 11)]:
        sky = wcs.pixel_to_world(x, y)
        cosines = tangent_cosines(sky.ra.rad, sky.dec.rad, CENTRE)
        assert pixel_to_lm(x, y, NPIX, PIXSIZE) == pytest.approx(cosines, abs=1e-6)
        assert lm_to_pixel(*cosines, NPIX, PIXSIZE) == pytest.approx((x, y), abs=1e-3)
        assert direction_cosines(sky.ra.rad, sky.dec.rad, CENTRE)[:2] == pytest.approx(cosines, abs=1e-9)
        assert sky_position(*cosines, CENTRE) == pytest.approx((sky.ra.rad, sky.dec.rad), abs=1e-9)


# The whole image.


def test_natural_image_equals_the_direct_sum():
    vis = random_vis(sources=LOPSIDED)
    expected = direct_image(vis.uvw, FREQ, vis.vis, vis.weight, NPIX, PIXSIZE)
    assert relative(make_image(vis, params()).data, expected) < 1e-4


def test_the_w_term_and_the_unequal_weights_of_these_tests_matter():
    """Guards the test above: without them its image would differ, so it can tell."""
    vis = random_vis(sources=LOPSIDED)
    data = make_image(vis, params()).data
    flat = direct_image(vis.uvw * [1, 1, 0], FREQ, vis.vis, vis.weight, NPIX, PIXSIZE)
    equal = direct_image(vis.uvw, FREQ, vis.vis, np.ones_like(vis.weight), NPIX, PIXSIZE)
    assert relative(data, flat) > 0.1
    assert relative(data, equal) > 0.02


def density_weights(vis, npix, pixsize, robust):
    """Uniform (``robust`` None) or Briggs weights with a dictionary of cells, from conventions.md."""
    side = []
    for n in npix:
        padded = math.ceil(1.2 * n)
        while padded % 4:
            padded += 1
        side.append(padded)
    cells, of_sample = defaultdict(float), {}
    for row, chan in np.ndindex(vis.weight.shape):
        u, v = vis.uvw[row, :2] * FREQ[chan] / C
        if v < 0:
            u, v = -u, -v
        if abs(u) >= 0.5 / pixsize or v >= 0.5 / pixsize:
            continue
        cell = math.floor(u * side[0] * pixsize + side[0] / 2), math.floor(v * side[1] * pixsize)
        cells[cell] += float(vis.weight[row, chan])
        of_sample[row, chan] = cell
    squares = sum(total**2 for total in cells.values()) / sum(cells.values())
    result = np.zeros(vis.weight.shape)
    for (row, chan), cell in of_sample.items():
        weight = float(vis.weight[row, chan])
        if robust is None:
            result[row, chan] = weight / cells[cell]
        else:
            result[row, chan] = weight / (1 + cells[cell] * (5 * 10**-robust) ** 2 / squares)
    return result


@pytest.mark.parametrize("robust", [None, -0.7, 0.0, 1.1])
def test_density_weighted_image_equals_the_direct_sum(robust):
    vis = random_vis(seed=3, uv=70, sources=LOPSIDED)
    weight = density_weights(vis, NPIX, PIXSIZE, robust)
    expected = direct_image(vis.uvw, FREQ, vis.vis, weight, NPIX, PIXSIZE)
    scheme = {"weighting": "uniform"} if robust is None else {"weighting": "briggs", "robust": robust}
    image = make_image(vis, params(**scheme))
    assert relative(image.data, expected) < 1e-4
    assert image.weight_sum == pytest.approx(weight.sum(), rel=1e-5)
    natural = make_image(vis, params()).data
    assert relative(natural, expected) > 1e-3, "the weighting makes no difference here"


def test_psf_is_one_at_the_reference_pixel_and_is_the_image_of_a_central_source():
    vis = random_vis(sources=[(1.0, 0.0, 0.0)])
    for weighting in ("natural", "uniform", "briggs"):
        image = make_image(replace(vis, vis=3 * vis.vis), params(weighting=weighting), psf=True)
        assert image.psf is not None
        assert image.psf[NPIX[1] // 2, NPIX[0] // 2] == pytest.approx(1.0, abs=1e-5)
        assert np.unravel_index(image.psf.argmax(), image.psf.shape) == (NPIX[1] // 2, NPIX[0] // 2)
        assert relative(image.data, 3 * image.psf) < 1e-4
    assert make_image(vis, params()).psf is None


def test_imaging_is_linear_in_the_visibilities():
    one, two = random_vis(sources=LOPSIDED[:2]), random_vis(sources=LOPSIDED[2:])
    both = replace(one, vis=(2 * one.vis - 0.5 * two.vis).astype(np.complex64))
    how = params(weighting="briggs", robust=0.3)
    expected = 2 * make_image(one, how).data - 0.5 * make_image(two, how).data
    assert relative(make_image(both, how).data, expected) < 2e-5


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), weighting=st.sampled_from(["natural", "uniform", "briggs"]))
def test_the_order_of_rows_does_not_matter(seed, weighting):
    vis = random_vis(sources=LOPSIDED, nrow=120)
    shuffled = vis.subset(np.random.default_rng(seed).permutation(vis.nrow), slice(None))
    how = params(weighting=weighting)
    assert relative(make_image(shuffled, how).data, make_image(vis, how).data) < 1e-5


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), flip=st.floats(0.05, 0.95))
def test_conjugate_baselines_hold_the_same_information(seed, flip):
    """V(-u, -v, -w) is the conjugate of V(u, v, w): swapping antennas must not change an image."""
    vis = random_vis(sources=LOPSIDED, nrow=120)
    swap = np.random.default_rng(seed).random(vis.nrow) < flip
    swapped = replace(
        vis,
        uvw=np.where(swap[:, None], -vis.uvw, vis.uvw),
        vis=np.where(swap[:, None], vis.vis.conj(), vis.vis).astype(np.complex64),
    )
    how = params(weighting="briggs")
    assert relative(make_image(swapped, how).data, make_image(vis, how).data) < 1e-5


@pytest.mark.parametrize("weighting", ["natural", "uniform", "briggs"])
def test_samples_without_weight_never_matter(weighting):
    vis = random_vis(sources=LOPSIDED)
    rng = np.random.default_rng(8)
    flagged = rng.random(vis.weight.shape) < 0.3
    weight = np.where(flagged, 0, vis.weight).astype(np.float32)
    clean = replace(vis, vis=np.where(flagged, 0, vis.vis).astype(np.complex64), weight=weight)
    wild = replace(vis, vis=np.where(flagged, -1e30 + 1e30j, vis.vis).astype(np.complex64), weight=weight)
    how = params(weighting=weighting, phase_centre=(CENTRE[0] + 0.01, CENTRE[1] - 0.02))
    first, second = make_image(clean, how, psf=True), make_image(wild, how, psf=True)
    np.testing.assert_array_equal(first.data, second.data)
    np.testing.assert_array_equal(first.psf, second.psf)
    assert first.nvis == second.nvis == np.count_nonzero(weight)
    # Nor may they count in the density: the image is that of the data without them.
    kept = ~flagged.all(axis=1)
    assert relative(make_image(clean.subset(kept, slice(None)), how).data, first.data) < 1e-5
    assert relative(make_image(vis, how).data, first.data) > 1e-3


def test_image_describes_its_samples():
    vis = random_vis(sources=LOPSIDED)
    weight = vis.weight * np.array([1, 0, 5, 2], np.float32)
    weight[::3] = 0
    image = make_image(replace(vis, weight=weight), params())
    assert image.nvis == np.count_nonzero(weight)
    assert image.weight_sum == pytest.approx(weight.sum(dtype=float), rel=1e-6)
    expected = sum(float(f) * float(w) for f, w in zip(FREQ, weight.sum(axis=0), strict=True)) / weight.sum()
    assert image.freq[0] == pytest.approx(expected, rel=1e-6)
    assert image.phase_centre == CENTRE
    wide = make_image(replace(vis, origin=Origin(chan_width=5e7)), params())
    assert wide.freq[1] == pytest.approx(3.0e8 + 5e7)


def test_no_visibility_left_is_an_error_with_the_reason():
    vis = random_vis(sources=LOPSIDED)
    with pytest.raises(ParameterError, match="longest baseline"):
        make_image(vis, params(uvrange=(1e6, math.inf)))
    with pytest.raises(ParameterError, match="no visibility with weight"):
        make_image(replace(vis, weight=np.zeros_like(vis.weight)), params())
    with pytest.raises(MeasurementSetError, match="UVW are zero"):
        make_image(replace(vis, uvw=np.zeros_like(vis.uvw)), params())
    far = replace(vis, uvw=vis.uvw + np.array([1e4, 0, 0]))
    with pytest.raises(ParameterError, match="too coarse"):
        make_image(far, params(weighting="uniform"))


def test_an_image_beyond_the_memory_is_refused():
    with pytest.raises(ParameterError, match="memory"):
        make_image(random_vis(), params(npix=(2_000_000, 2_000_000), pixsize=1e-8))


def test_times_are_those_with_weight_and_carry_it():
    vis = random_vis(sources=LOPSIDED)
    times = np.unique(vis.time)
    weight = np.where((vis.time == times[0])[:, None], np.float32(0), vis.weight)
    shuffled = replace(vis, weight=weight).subset(np.random.default_rng(0).permutation(vis.nrow), slice(None))
    found, sums = make_image(shuffled, params()).times
    np.testing.assert_array_equal(found, times[1:])
    np.testing.assert_allclose(sums, [weight[vis.time == t].sum(dtype=float) for t in times[1:]], rtol=1e-5)


# Phase rotation.

SOURCE = (CENTRE[0] + math.radians(3.3), CENTRE[1] - math.radians(2.1))


def test_rotation_puts_the_source_on_the_reference_pixel_at_full_flux():
    vis = observe(CENTRE, [(1.0, *SOURCE)], size=300.0)
    image = make_image(vis, params(pixsize=math.radians(0.02), phase_centre=SOURCE))
    assert np.unravel_index(image.data.argmax(), image.data.shape) == (NPIX[1] // 2, NPIX[0] // 2)
    assert image.data.max() == pytest.approx(1.0, abs=1e-4)
    assert image.phase_centre == SOURCE


def test_rotation_keeps_the_stokes_parameter_and_all_else():
    vis = replace(random_vis(sources=LOPSIDED), stokes="Q", origin=Origin(paths=("a",)))
    turned = rotate(vis, (CENTRE[0] + 0.01, CENTRE[1]))
    assert (turned.stokes, turned.origin, turned.phase_centre) == ("Q", vis.origin, (CENTRE[0] + 0.01, CENTRE[1]))
    assert make_image(vis, params(phase_centre=(CENTRE[0] + 0.01, CENTRE[1]))).stokes == "Q"


def test_rotated_observation_is_the_one_made_at_the_new_centre():
    sky = [(1.0, *SOURCE), (0.5, CENTRE[0] - 0.02, CENTRE[1] + 0.03), (0.3, SOURCE[0] + 0.04, SOURCE[1])]
    rotated = rotate(observe(CENTRE, sky, size=300.0), SOURCE)
    expected = observe(SOURCE, sky, size=300.0)
    np.testing.assert_allclose(rotated.uvw, expected.uvw, atol=1e-9)
    assert relative(rotated.vis, expected.vis) < 2e-6
    assert rotated.phase_centre == SOURCE


@settings(deadline=None, max_examples=25)
@given(east=st.floats(-0.3, 0.3), north=st.floats(-0.3, 0.3), size=st.sampled_from([30.0, 3e3, 1e5]))
def test_rotation_there_and_back_is_the_identity(east, north, size):
    vis = observe(CENTRE, [(1.0, *SOURCE)], size=size, ntime=3)
    back = rotate(rotate(vis, (CENTRE[0] + east, CENTRE[1] + north)), CENTRE)
    np.testing.assert_allclose(back.uvw, vis.uvw, atol=1e-12 * size * 10)
    assert relative(back.vis, vis.vis) < 1e-5


@settings(deadline=None, max_examples=25)
@given(east=st.floats(-0.5, 0.5), north=st.floats(-0.5, 0.5))
def test_rotation_keeps_lengths_and_amplitudes(east, north):
    vis = observe(CENTRE, [(1.0, *SOURCE), (2.0, *CENTRE)], ntime=3)
    turned = rotate(vis, (CENTRE[0] + east, CENTRE[1] + north))
    np.testing.assert_allclose(np.linalg.norm(turned.uvw, axis=1), np.linalg.norm(vis.uvw, axis=1))
    np.testing.assert_allclose(np.abs(turned.vis), np.abs(vis.vis), rtol=1e-5, atol=1e-6)


def test_rotation_in_blocks_equals_rotation_at_once(monkeypatch):
    vis = observe(CENTRE, [(1.0, *SOURCE)])
    whole = rotate(vis, SOURCE).vis
    monkeypatch.setattr("vis2img.imaging.rotation._BLOCK_SAMPLES", 29)
    np.testing.assert_array_equal(rotate(vis, SOURCE).vis, whole)


def test_a_source_lands_where_the_wcs_of_the_rotated_image_puts_it():
    npix, pixsize = (96, 80), math.radians(0.1)
    centre = CENTRE[0] + math.radians(1.0), CENTRE[1] - math.radians(1.0)
    sky = sin_wcs(npix, pixsize, centre).pixel_to_world(23, 61)
    vis = observe(CENTRE, [(1.0, sky.ra.rad, sky.dec.rad)], size=60.0)
    data = make_image(vis, params(pixsize=pixsize, npix=npix, phase_centre=centre)).data
    assert np.unravel_index(data.argmax(), data.shape) == (61, 23)
    assert data.max() == pytest.approx(1.0, abs=1e-4)


def test_image_of_a_sampling_is_the_image_of_what_it_keeps():
    vis = observe(CENTRE, [(1.0, *SOURCE)], size=8.0)  # no baseline is beyond the grid
    how = params(keep_baselines=0.5, band=(0.0, 0.5), sampling_seed=4)
    kept = select_samples(vis, how)
    expected = direct_image(kept.uvw, FREQ[:2], kept.vis, kept.weight, NPIX, PIXSIZE)
    image = make_image(vis, how)
    assert relative(image.data, expected) < 1e-4
    assert image.nvis == 18 * 8 * 2


# Beam and noise.


def test_beam_has_the_width_of_the_psf():
    """Half of the peak lies half a beam from the centre, along both axes; the lobe is no exact Gaussian."""
    vis = replace(random_vis(seed=6), uvw=random_vis(seed=6).uvw * [1.0, 0.4, 0.0])
    pixsize = math.radians(0.01)
    image = make_image(vis, params(npix=(256, 320), pixsize=pixsize), psf=True)
    psf, (x, y) = image.psf.astype(float), (128, 160)
    half_x = np.interp(0.5, psf[y, x : x - 100 : -1][:60][::-1], np.arange(60)[::-1])
    half_y = np.interp(0.5, psf[y:, x][:120][::-1], np.arange(120)[::-1])
    assert image.beam[0] == pytest.approx(2 * half_y * pixsize, rel=0.03)  # v is shorter: the beam is long in Dec
    assert image.beam[1] == pytest.approx(2 * half_x * pixsize, rel=0.03)
    assert min(image.beam[2], math.pi - image.beam[2]) < 0.1


def test_noise_is_robust_against_sources():
    data = np.random.default_rng(0).normal(0, 0.02, (700, 500)).astype(np.float32)
    data[:20, :20] += 100
    assert robust_noise(data) == pytest.approx(0.02, rel=0.02)
    image = Image(data, params(), CENTRE, (1e9, 1e6), (0.1, 0.1, 0.0), 1.0, 1)
    assert image.noise() == robust_noise(data)


@pytest.mark.parametrize("bounds", [(-1, None), (4, 4), (5, 2), (None, 0)])
def test_an_empty_selection_is_refused(bounds):
    for name in ("channels", "times"):
        with pytest.raises(ParameterError, match=name):
            Selection(**{name: bounds})


def test_visibilities_check_their_arrays():
    vis = random_vis()
    for changes in (
        {"vis": vis.vis.astype(np.complex128)},
        {"weight": vis.weight[:, :2]},
        {"time": vis.time[:-1]},
        {"antenna1": vis.antenna1.astype(np.int64)},
        {"chan_freq": FREQ[::-1].copy()},
        {"chan_freq": FREQ * [-1, 1, 1, 1]},
    ):
        with pytest.raises(ParameterError):
            replace(vis, **changes)
    arrays = (vis.uvw, vis.chan_freq, vis.vis, vis.weight, vis.time, vis.antenna1, vis.antenna2)
    assert vis.nbytes == sum(array.nbytes for array in arrays)
    assert vis.uv_max() == pytest.approx(max(math.hypot(u, v) for u, v, _ in vis.uvw) * FREQ[-1] / C)
