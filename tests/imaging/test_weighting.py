"""Imaging weights against a slow loop over samples, written from docs/conventions.md alone."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vis2img.imaging import weighting
from vis2img.imaging.image import make_image
from vis2img.imaging.params import ImagingParams, density_grid_size
from vis2img.visibilities import Visibilities

C = 2.99792458e8  # m/s
ARCSEC = math.pi / 180 / 3600
NPIX = (96, 64)
PIXSIZE = 3 * ARCSEC
EDGE = 1 / (2 * PIXSIZE)  # wavelengths: beyond it samples get no density weight
FREQ = np.array([1.0e9, 1.2e9, 1.35e9])


def samples(seed=0, nrow=250, reach=0.7):
    """Baselines out to ``reach`` of the grid edge, crowded at the centre; weights 0 to 5, a tenth are 0."""
    rng = np.random.default_rng(seed)
    radius = reach * EDGE * rng.random(nrow) ** 2
    angle = rng.uniform(0, 2 * math.pi, nrow)
    uvw = np.stack([radius * np.cos(angle), radius * np.sin(angle), rng.normal(size=nrow) * 50], axis=1)
    weight = rng.uniform(0, 5, (nrow, len(FREQ))).astype(np.float32)
    weight[rng.random(weight.shape) < 0.1] = 0
    return uvw * C / FREQ[-1], weight


def params(**changes) -> ImagingParams:
    """Tapers by sample and no rank filter, which most tests here are about, unless said otherwise."""
    plain = {"npix": NPIX, "pixsize": PIXSIZE, "weighting": "natural", "taper_by": "sample", "rank_filter": 0}
    return ImagingParams(**{**plain, **changes})


def visibilities(uvw, freq, weight) -> Visibilities:
    nrow = len(uvw)
    return Visibilities(
        uvw=uvw,
        chan_freq=freq,
        vis=np.ones(weight.shape, np.complex64),
        weight=weight,
        time=np.zeros(nrow),
        antenna1=np.zeros(nrow, np.int32),
        antenna2=np.ones(nrow, np.int32),
        phase_centre=(1.0, -0.5),
    )


def imaging_weights(uvw, freq, weight, how, **options) -> np.ndarray:
    return weighting.imaging_weights([visibilities(uvw, freq, weight)], how, **options).parts[0]


def padded(npix: int) -> int:
    """1.2 times, rounded up, then up to a multiple of 4."""
    side = -((-npix * 12) // 10)
    return side + (-side) % 4


def loop_cells(uvw, npix=NPIX, pixsize=PIXSIZE):
    """The density cell of each sample (row, chan), or None beyond the grid."""
    nx, ny = padded(npix[0]), padded(npix[1])
    cells = {}
    for row in range(len(uvw)):
        for chan in range(len(FREQ)):
            u, v = uvw[row, 0] * FREQ[chan] / C, uvw[row, 1] * FREQ[chan] / C
            if v < 0:
                u, v = -u, -v
            x, y = math.floor(u * nx * pixsize + nx / 2), math.floor(v * ny * pixsize)
            cells[row, chan] = (x, y) if 0 <= x < nx and 0 <= y < ny // 2 else None
    return cells


def loop_weights(uvw, weight, robust, npix=NPIX, pixsize=PIXSIZE):
    """Uniform (``robust`` None) or Briggs weights."""
    cells, density = loop_cells(uvw, npix, pixsize), defaultdict(float)
    for key, cell in cells.items():
        if cell is not None:
            density[cell] += float(weight[key])
    mean = sum(d * d for d in density.values()) / sum(density.values())
    result = np.zeros(weight.shape)
    for key, cell in cells.items():
        if cell is None or weight[key] == 0:
            continue
        if robust is None:
            result[key] = float(weight[key]) / density[cell]
        else:
            result[key] = float(weight[key]) / (1 + density[cell] * (5 / 10**robust) ** 2 / mean)
    return result


@pytest.mark.parametrize(
    ("npix", "side"), [(1024, 1232), (32, 40), (512, 616), (400, 480), (100, 120), (102, 124), (360, 432)]
)
def test_density_grid_follows_the_padded_image(npix, side):
    assert density_grid_size(npix) == side == padded(npix)


@pytest.mark.parametrize("npix", [(96, 64), (64, 96), (50, 34)])
@pytest.mark.parametrize("robust", [None, -2.0, -0.5, 0.0, 1.0, 2.0])
def test_density_weights_equal_the_loop(npix, robust):
    uvw, weight = samples(reach=1.3)
    scheme = {"weighting": "uniform"} if robust is None else {"weighting": "briggs", "robust": robust}
    result = imaging_weights(uvw, FREQ, weight, params(npix=npix, **scheme))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, loop_weights(uvw, weight, robust, npix), rtol=2e-6)


def test_the_samples_of_these_tests_share_cells_and_leave_the_grid():
    """Guards the comparison: crowded, single and outside cells, both signs of v, must all occur."""
    uvw, _ = samples(reach=1.3)
    cells = list(loop_cells(uvw).values())
    counts = defaultdict(int)
    for cell in cells:
        counts[cell] += 1
    assert counts.pop(None) > 10
    assert max(counts.values()) > 5 and min(counts.values()) == 1
    assert (uvw[:, 1] < 0).any() and (uvw[:, 1] > 0).any()


def test_natural_weights_are_the_data_weights_and_are_a_copy():
    uvw, weight = samples(reach=1.3)
    result = imaging_weights(uvw, FREQ, weight, params())
    inside = np.zeros(weight.shape, bool)
    for key, cell in loop_cells(uvw).items():
        inside[key] = cell is not None
    np.testing.assert_array_equal(result, np.where(inside, weight, 0))
    assert not np.shares_memory(result, weight)


def test_weights_given_are_not_changed():
    uvw, weight = samples()
    before = weight.copy()
    imaging_weights(uvw, FREQ, weight, params(weighting="uniform", taper=8 * ARCSEC, uvrange=(100.0, 9e3)))
    np.testing.assert_array_equal(weight, before)


def test_robust_approaches_natural_and_uniform():
    uvw, weight = samples()

    def shape(**scheme):
        result = imaging_weights(uvw, FREQ, weight, params(**scheme)).astype(float)
        return result / result.sum()

    natural, uniform = shape(weighting="natural"), shape(weighting="uniform")
    apart = np.linalg.norm(natural - uniform)
    assert apart > 0.3 * np.linalg.norm(natural)
    distance_to_natural = [np.linalg.norm(shape(weighting="briggs", robust=r) - natural) for r in range(-5, 6)]
    distance_to_uniform = [np.linalg.norm(shape(weighting="briggs", robust=r) - uniform) for r in range(-5, 6)]
    assert distance_to_natural[-1] < 1e-5 * apart and distance_to_uniform[0] < 1e-5 * apart
    assert distance_to_natural[7] < 0.1 * apart  # robust 2
    assert distance_to_uniform[3] < 0.1 * apart  # robust -2
    assert np.all(np.diff(distance_to_natural) < 0) and np.all(np.diff(distance_to_uniform) > 0)


def test_uniform_weight_sums_to_one_in_each_cell():
    uvw, weight = samples(reach=1.3)
    result = imaging_weights(uvw, FREQ, weight, params(weighting="uniform"))
    totals, occupied = defaultdict(float), set()
    for key, cell in loop_cells(uvw).items():
        if cell is not None and weight[key] > 0:
            totals[cell] += float(result[key])
            occupied.add(cell)
    assert set(totals) == occupied
    np.testing.assert_allclose(list(totals.values()), 1, rtol=1e-6)


@settings(deadline=None, max_examples=30)
@given(
    scale=st.floats(1e-6, 1e6),
    scheme=st.sampled_from(["natural", "uniform", "briggs"]),
    robust=st.floats(-2, 2),
    seed=st.integers(0, 1000),
)
def test_the_unit_of_the_data_weights_does_not_matter(scale, scheme, robust, seed):
    uvw, weight = samples(seed, nrow=60)
    how = params(weighting=scheme, robust=robust)
    one = imaging_weights(uvw, FREQ, weight, how).astype(float)
    other = imaging_weights(uvw, FREQ, (weight * scale).astype(np.float32), how).astype(float)
    np.testing.assert_allclose(other / other.sum(), one / one.sum(), rtol=3e-5)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), scheme=st.sampled_from(["uniform", "briggs"]), robust=st.floats(-2, 2))
def test_order_and_direction_of_baselines_do_not_matter(seed, scheme, robust):
    uvw, weight = samples(seed, nrow=60)
    how = params(weighting=scheme, robust=robust)
    rng = np.random.default_rng(seed)
    order, sign = rng.permutation(len(uvw)), rng.choice([-1.0, 1.0], (len(uvw), 1))
    expected = imaging_weights(uvw, FREQ, weight, how)
    np.testing.assert_allclose(
        imaging_weights((uvw * sign)[order], FREQ, weight[order], how), expected[order], rtol=1e-5
    )


def test_samples_beyond_the_grid_get_no_weight_and_count_nowhere():
    uvw, weight = samples(reach=0.7)
    just_in, just_out = 0.999 * EDGE, 1.001 * EDGE
    edge = np.array([[just_in, 9, 0], [just_out, 9, 0], [9, just_in, 0], [9, just_out, 0], [-just_out, 9, 0],
                     [9, -just_out, 0], [-9, -just_in, 0], [-just_in, 9, 0], [1e9, 1e9, 0]])  # fmt: skip
    inside = [True, False, True, False, False, False, True, True, False]
    for scheme in ("uniform", "briggs"):
        how = params(weighting=scheme)
        for chan, freq in enumerate(FREQ):
            alone = np.zeros((len(edge), len(FREQ)), np.float32)
            alone[:, chan] = 1
            result = imaging_weights(np.concatenate([uvw, edge * C / freq]), FREQ, np.concatenate([weight, alone]), how)
            np.testing.assert_array_equal(result[len(uvw) :, chan] > 0, inside)
        outside = np.full((5, 3), 3.0 * EDGE)
        with_outside = imaging_weights(
            np.concatenate([uvw, outside]), FREQ, np.concatenate([weight, np.ones((5, 3), np.float32)]), how
        )
        np.testing.assert_allclose(with_outside[: len(uvw)], imaging_weights(uvw, FREQ, weight, how), rtol=1e-6)


def test_uv_range_is_in_wavelengths_of_each_channel():
    uvw, weight = samples()
    low, high = 0.1 * EDGE, 0.4 * EDGE
    expected = weight.copy()
    cut_by_frequency = 0
    for row in range(len(uvw)):
        inside = [low <= math.sqrt(uvw[row, 0] ** 2 + uvw[row, 1] ** 2) * f / C <= high for f in FREQ]
        expected[row, ~np.array(inside)] = 0
        cut_by_frequency += 0 < sum(inside) < 3
    assert cut_by_frequency > 5
    np.testing.assert_array_equal(imaging_weights(uvw, FREQ, weight, params(uvrange=(low, high))), expected)
    # Samples outside the range do not count in the density of those inside.
    result = imaging_weights(uvw, FREQ, weight, params(uvrange=(low, high), weighting="uniform"))
    np.testing.assert_allclose(result, loop_weights(uvw, expected, None), rtol=2e-6)


def test_uv_range_ends_belong_to_it():
    uvw = np.array([[3e3 * C / 1e9, 4e3 * C / 1e9, 1e9]])  # 5000 wavelengths; w is no part of the length
    weight = np.ones((1, 1), np.float32)
    freq = np.array([1e9])
    for (low, high), kept in {(5001, math.inf): 0, (0, 4999): 0, (4999, 5001): 1, (0, math.inf): 1}.items():
        assert imaging_weights(uvw, freq, weight, params(uvrange=(low, high))).sum() == kept


def test_taper_is_the_transform_of_a_gaussian_of_its_fwhm():
    uvw, weight = samples()
    fwhm = 20 * ARCSEC
    sigma = fwhm / 2.3548200450309493
    result = imaging_weights(uvw, FREQ, weight, params(taper=fwhm))
    for (row, chan), value in np.ndenumerate(weight):
        q2 = (uvw[row, 0] ** 2 + uvw[row, 1] ** 2) * (FREQ[chan] / C) ** 2
        expected = value * math.exp(-2 * math.pi**2 * sigma**2 * q2)
        assert result[row, chan] == pytest.approx(expected, rel=1e-5, abs=1e-30)


@pytest.mark.parametrize("scheme", ["natural", "uniform", "briggs"])
def test_taper_multiplies_the_density_weights(scheme):
    uvw, weight = samples()
    taper = imaging_weights(uvw, FREQ, np.ones_like(weight), params(taper=15 * ARCSEC))
    plain = imaging_weights(uvw, FREQ, weight, params(weighting=scheme))
    tapered = imaging_weights(uvw, FREQ, weight, params(weighting=scheme, taper=15 * ARCSEC))
    np.testing.assert_allclose(tapered, plain * taper, rtol=1e-5)


def test_a_strong_taper_gives_a_point_source_its_fwhm():
    """Evenly filled uv plane, one channel: the image of a point source is then the taper's Gaussian."""
    grid = (np.arange(-60, 60) + 0.5) / 60 * 0.9 * EDGE
    u, v = (axis.ravel() for axis in np.meshgrid(grid, grid))
    uvw = np.stack([u, v, np.zeros_like(u)], axis=1) * C / 1e9
    nrow = len(uvw)
    vis = visibilities(uvw, np.array([1e9]), np.ones((nrow, 1), np.float32))
    vis.vis[...] = 2.0
    fwhm = 7.3 * PIXSIZE
    image = make_image(vis, params(taper=fwhm))
    y, x = np.mgrid[0 : NPIX[1], 0 : NPIX[0]]
    r2 = ((x - NPIX[0] // 2) ** 2 + (y - NPIX[1] // 2) ** 2) * PIXSIZE**2
    expected = 2.0 * np.exp(-4 * math.log(2) * r2 / fwhm**2)
    near = (abs(x - NPIX[0] // 2) < 25) & (abs(y - NPIX[1] // 2) < 25)  # the samples' grid repeats at 66 pixels
    np.testing.assert_allclose(image.data[near], expected[near], atol=2e-3)
    assert image.beam[0] == pytest.approx(fwhm, rel=1e-2)
    assert image.beam[1] == pytest.approx(fwhm, rel=1e-2)


@pytest.mark.parametrize("scheme", ["natural", "uniform", "briggs"])
@pytest.mark.parametrize("taper_by", ["cell", "sample"])
def test_threads_change_nothing(scheme, taper_by):
    uvw, weight = samples()
    how = params(weighting=scheme, taper=9 * ARCSEC, uvrange=(10.0, 1.5e4), taper_by=taper_by, rank_filter=2)
    one = imaging_weights(uvw, FREQ, weight, how)
    np.testing.assert_allclose(imaging_weights(uvw, FREQ, weight, how, nthreads=3), one, rtol=1e-6)


def test_density_is_counted_over_all_parts_and_sums_are_right():
    uvw, weight = samples(nrow=240)
    how = params(weighting="uniform")
    parts = [visibilities(uvw[a : a + 80], FREQ, weight[a : a + 80]) for a in (0, 80, 160)]
    together = weighting.imaging_weights(parts, how)
    whole = imaging_weights(uvw, FREQ, weight, how)
    np.testing.assert_allclose(np.concatenate(together.parts), whole, rtol=1e-6)
    assert together.total == pytest.approx(whole.sum(dtype=float), rel=1e-6)
    assert together.cells.sum() == pytest.approx(together.total, rel=1e-9)
    assert together.nvis == np.count_nonzero(whole)
    np.testing.assert_allclose(sum(together.chans), whole.sum(axis=0, dtype=float), rtol=1e-6)


def test_reuse_writes_over_the_data_weights():
    uvw, weight = samples()
    expected = imaging_weights(uvw, FREQ, weight.copy(), params(weighting="uniform"))
    result = imaging_weights(uvw, FREQ, weight, params(weighting="uniform"), reuse=True)
    assert result is weight
    np.testing.assert_array_equal(result, expected)


def loop_factor(q, taper=0.0, low=0.0, high=math.inf, inner=0.0, outer=0.0):
    """Gaussian times Tukey transitions, from docs/conventions.md."""
    if not low <= q <= high:
        return 0.0
    sigma = taper / 2.3548200450309493
    factor = math.exp(-2 * (math.pi * sigma * q) ** 2)
    if inner and q < low + inner:
        factor *= (1 - math.cos(math.pi * (q - low) / inner)) / 2
    if outer and q > high - outer:
        factor *= (1 - math.cos(math.pi * (high - q) / outer)) / 2
    return factor


SHAPES = [
    {"taper": 15 * ARCSEC},
    {"low": 0.05 * EDGE, "high": 0.5 * EDGE},
    {"low": 0.02 * EDGE, "high": 0.5 * EDGE, "inner": 0.2 * EDGE, "outer": 0.3 * EDGE},
    {"taper": 5 * ARCSEC, "high": 0.6 * EDGE, "outer": 0.6 * EDGE},
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("taper_by", ["cell", "sample"])
@pytest.mark.parametrize("robust", [None, 0.5])
def test_tapers_by_cell_and_by_sample(shape, taper_by, robust):
    """By cell: at its lower corner, on top of the density of all samples."""
    uvw, weight = samples()
    scheme = {"weighting": "uniform"} if robust is None else {"weighting": "briggs", "robust": robust}
    how = params(
        **scheme,
        taper_by=taper_by,
        taper=shape.get("taper", 0.0),
        uvrange=(shape.get("low", 0.0), shape.get("high", math.inf)),
        tukey_inner_taper=shape.get("inner", 0.0),
        tukey_taper=shape.get("outer", 0.0),
    )
    result = imaging_weights(uvw, FREQ, weight, how)
    nx, ny = padded(NPIX[0]), padded(NPIX[1])
    counted, factor = weight.copy(), np.zeros(weight.shape)
    for (row, chan), (x, y) in loop_cells(uvw).items():
        q = math.hypot(uvw[row, 0], uvw[row, 1]) * FREQ[chan] / C
        if taper_by == "cell":
            q = math.hypot((x - nx // 2) / (nx * PIXSIZE), y / (ny * PIXSIZE))
        elif not shape.get("low", 0.0) <= q <= shape.get("high", math.inf):
            counted[row, chan] = 0
        factor[row, chan] = loop_factor(q, **shape)
    np.testing.assert_allclose(result, loop_weights(uvw, counted, robust) * factor, rtol=1e-5, atol=1e-9)
    assert np.mean(factor > 0) > 0.1 and len(np.unique(factor)) > 1


@pytest.mark.parametrize("robust", [None, -2.0])
@pytest.mark.parametrize("limit", [1.0, 2.0])
def test_rank_filter_cuts_to_the_mean_around(robust, limit):
    """Against a loop: factors above the limit times the mean of the cells within -8 to 7 are cut to it.

    Empty cells have the Briggs factor 1 and count; with uniform weights they have none and do not.
    """
    uvw, weight = samples(nrow=400) if robust is None else samples(nrow=1500, reach=0.3)
    scheme = {"weighting": "uniform"} if robust is None else {"weighting": "briggs", "robust": robust}
    cells = loop_cells(uvw)
    if robust is not None:  # factors stand out, of at most 1 as they are, where light cells are among heavy ones
        for key, (x, y) in cells.items():
            weight[key] *= 1e-5 if (x + 3 * y) % 11 == 0 else 1
    plain = loop_weights(uvw, weight, robust)
    factor = {cells[key]: plain[key] / weight[key] for key in cells if weight[key] > 0}
    cut = {}
    nx, half = padded(NPIX[0]), padded(NPIX[1]) // 2
    for (x, y), value in factor.items():
        near = [(i, j) for i in range(max(0, x - 8), min(nx, x + 8)) for j in range(max(0, y - 8), min(half, y + 8))]
        around = [factor.get(cell, 0.0 if robust is None else 1.0) for cell in near]
        cut[x, y] = min(value, limit * sum(around) / np.count_nonzero(around))
    expected = [[weight[r, c] * cut.get(cells[r, c], 0) for c in range(len(FREQ))] for r in range(len(uvw))]
    result = imaging_weights(uvw, FREQ, weight, params(**scheme, rank_filter=limit))
    np.testing.assert_allclose(result, expected, rtol=1e-5)
    assert sum(cut[c] < factor[c] for c in factor) > 10


@pytest.mark.parametrize("scheme", ["natural", "uniform", "briggs"])
def test_no_weight_stays_no_weight(scheme):
    uvw, weight = samples()
    assert not imaging_weights(uvw, FREQ, np.zeros_like(weight), params(weighting=scheme)).any()
    result = imaging_weights(uvw, FREQ, weight, params(weighting=scheme))
    np.testing.assert_array_equal(result == 0, weight == 0)
    assert np.isfinite(result).all()
