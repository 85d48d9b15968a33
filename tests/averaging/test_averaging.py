"""Averaging in uv cells: kernels against numpy, images against explicit sums; see test_averaged_store."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from casacore.tables import makearrcoldesc, maketabdesc, table

from tests.helpers.measurement_sets import CENTRE, add_rows, build_ms, put, second_window, tracks
from tests.helpers.oracles import LIGHT_SPEED, dft
from vis2img.averaging.cells import CellTable
from vis2img.averaging.params import AveragingParams
from vis2img.averaging.run import average
from vis2img.averaging.store import read_averaged
from vis2img.dataset import open_ms
from vis2img.draws.prior import ImagingPrior
from vis2img.errors import OutputError, ParameterError
from vis2img.imaging.image import make_image
from vis2img.imaging.params import ImagingParams
from vis2img.imaging.rotation import rotate
from vis2img.imaging.sampling import select_parts
from vis2img.ms.metadata import read_metadata
from vis2img.visibilities import Visibilities

PIXSIZE = math.radians(4 / 3600)
NEW = (CENTRE[0] + 0.004, CENTRE[1] + 0.003)
EQUAL = np.linspace(1.0e9, 1.2e9, 6)
W_CELLS = 1e-5  # w is summed in single precision; a whole cell of it loses the tolerance
UNEQUAL = np.array([1.0e9, 1.01e9, 1.1e9, 1.4e9, 1.41e9, 1.6e9])


def observation(freq: np.ndarray, antennas: int = 9, times: int = 20, seed: int = 3) -> Visibilities:
    """Random visibilities with unequal weights, a fifth of them flagged."""
    first, second, step, uvw = tracks(antennas, times, seed, 2000.0, CENTRE[1])
    rng = np.random.default_rng(seed)
    shape = (len(uvw), len(freq))
    weight = rng.uniform(0.5, 2, shape) * (rng.random(shape) > 0.2)
    return Visibilities(
        uvw=uvw,
        chan_freq=freq,
        vis=(rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64),
        weight=weight.astype(np.float32),
        time=5e9 + 16.0 * step,
        antenna1=first.astype(np.int32),
        antenna2=second.astype(np.int32),
        phase_centre=CENTRE,
    )


def facet(npix: tuple[int, int] = (128, 96), **changes) -> AveragingParams:
    return AveragingParams(**{"npix": npix, "pixsize": PIXSIZE, "phase_centre": NEW, **changes})


def table_of(vis: Visibilities, params: AveragingParams, rows=slice(None), **options) -> CellTable:
    table = CellTable(params, vis.phase_centre, vis.chan_freq, **options)
    table.add(vis.uvw[rows], vis.vis[rows], vis.weight[rows])
    return table


def add(sums: dict, block: int, uvw: np.ndarray, value: complex, weight: float, params: AveragingParams) -> None:
    """Add one sample to the sums of its (block, v, u) cell: weight, uvw, visibility, first moments, modulus."""
    cell = np.floor(uvw[:2] / params.cell[:2])
    du, dv = uvw[:2] / params.cell[:2] - cell - 0.5
    terms = weight * np.array([1, *uvw, value, value * du, value * dv, abs(value)])
    key = (int(block), int(cell[1]), int(cell[0]))
    sums[key] = sums.get(key, 0) + terms


def reference(vis: Visibilities, params: AveragingParams) -> dict:
    """Return the sums of each cell, sample by sample."""
    turned = rotate(vis, params.phase_centre)
    sums: dict = {}
    block = params.channel_block(len(vis.chan_freq))
    for row, chan in zip(*np.nonzero(vis.weight), strict=True):
        uvw, value = turned.uvw[row] * vis.chan_freq[chan] / LIGHT_SPEED, complex(turned.vis[row, chan])
        if uvw[1] < 0:
            uvw, value = -uvw, value.conjugate()
        add(sums, block[chan], uvw, value, float(vis.weight[row, chan]), params)
    return sums


@pytest.mark.parametrize("freq", [EQUAL, UNEQUAL, EQUAL[:1]], ids=["equal", "unequal", "one channel"])
@pytest.mark.parametrize("blocks", [1, 3])
def test_nodes_keep_the_moments_of_a_plain_sum(freq: np.ndarray, blocks: int) -> None:
    if blocks > len(freq):
        pytest.skip("fewer channels than blocks")
    vis, params = observation(freq), facet(channel_blocks=blocks, tolerance=0.05)
    expected = reference(vis, params)
    cells = table_of(vis, params).cells()
    assert cells.ncells <= len(cells.vis) < np.count_nonzero(vis.weight)
    np.testing.assert_array_equal(cells.block, np.sort(cells.block))
    nodes: dict = {}
    for block, uvw, value, weight in zip(cells.block, cells.uvw, cells.vis, cells.weight, strict=True):
        add(nodes, block, uvw, complex(value), float(weight), params)
    assert set(nodes) == set(expected)
    got, want = (np.array([sums[key] for key in sorted(expected)]) for sums in (nodes, expected))
    weight, modulus = want[:, 0].real, want[:, -1].real
    np.testing.assert_allclose(got[:, 0], weight, rtol=1e-6)
    np.testing.assert_allclose((got - want)[:, 1:3] / weight[:, None], 0, atol=1e-3)  # wavelengths
    np.testing.assert_allclose((got - want)[:, 3] / weight, 0, atol=W_CELLS * params.cell[2])
    np.testing.assert_allclose((got - want)[:, 4] / modulus, 0, atol=3e-5)
    # Axes along which the samples hardly spread have no nodes.
    np.testing.assert_allclose((got - want)[:, 5:7] / modulus[:, None], 0, atol=1.5 * params.least_spread)
    assert np.median(abs((got - want)[:, 5:7] / modulus[:, None])) < 1e-4


def test_nodes_of_two_samples_are_the_samples() -> None:
    freq, params = EQUAL[:1], facet(tolerance=0.05)
    centre = (np.array([10.5, 7.5, 0]) * params.cell) * LIGHT_SPEED / freq[0]
    uvw = centre + np.array([[-3.0, 2, 1], [3, -2, -1]])
    value = np.array([[1 + 2j], [-3 + 0.5j]], np.complex64)
    table = CellTable(params, params.phase_centre, freq)
    table.add(uvw, value, np.ones((2, 1), np.float32))
    cells = table.cells()
    order = np.argsort(cells.uvw[:, 0])
    np.testing.assert_allclose(cells.uvw[order, :2], uvw[:, :2] * freq[0] / LIGHT_SPEED, atol=1e-9)
    np.testing.assert_allclose(cells.uvw[order, 2], uvw[:, 2] * freq[0] / LIGHT_SPEED, atol=W_CELLS * params.cell[2])
    np.testing.assert_allclose(cells.vis[order], value[:, 0], atol=1e-6)
    np.testing.assert_array_equal(cells.weight, 1)


def test_order_of_rows_and_pieces_does_not_matter() -> None:
    vis, params = observation(UNEQUAL), facet()
    whole = table_of(vis, params).cells()
    rows = np.random.default_rng(0).permutation(vis.nrow)
    pieces = CellTable(params, vis.phase_centre, vis.chan_freq, expected=10_000)
    for part in np.array_split(rows, 7):
        pair = vis.antenna1[part] * 100 + vis.antenna2[part]
        pieces.add(vis.uvw[part], vis.vis[part], vis.weight[part], pair)
    other = pieces.cells()
    np.testing.assert_allclose(other.uvw[:, :2], whole.uvw[:, :2], rtol=0, atol=1e-6)
    np.testing.assert_allclose(other.uvw[:, 2], whole.uvw[:, 2], rtol=0, atol=W_CELLS * params.cell[2])
    np.testing.assert_allclose(other.chan, whole.chan, rtol=0, atol=1e-5)
    np.testing.assert_allclose(other.vis, whole.vis, atol=1e-5)
    np.testing.assert_allclose(other.weight, whole.weight, rtol=1e-6)


def test_folding_makes_one_of_a_baseline_and_its_reverse() -> None:
    vis, params = observation(EQUAL), facet()
    there = table_of(vis, params)
    there.add(-vis.uvw, vis.vis.conj(), vis.weight)
    both, once = there.cells(), table_of(vis, params).cells()
    np.testing.assert_allclose(both.vis, once.vis, atol=1e-5)
    np.testing.assert_allclose(both.weight, 2 * once.weight, rtol=1e-6)


def test_flagged_samples_leave_no_trace() -> None:
    vis, params = observation(EQUAL), facet()
    spoilt = np.where(vis.weight > 0, vis.vis, np.complex64(1e9))
    table = CellTable(params, vis.phase_centre, vis.chan_freq)
    table.add(vis.uvw, spoilt, vis.weight)
    np.testing.assert_array_equal(table.cells().vis, table_of(vis, params).cells().vis)
    empty = table_of(Visibilities(**{**vars(vis), "weight": 0 * vis.weight}), params).cells()
    assert len(empty.vis) == empty.ncells == 0


def test_a_growing_table_loses_nothing() -> None:
    vis = observation(np.linspace(0.9e9, 1.6e9, 40), antennas=16, times=12)
    table = table_of(vis, facet(tolerance=1e-4))
    small = CellTable(facet(tolerance=1e-4), vis.phase_centre, vis.chan_freq)
    assert table.used > len(small._table)  # else the test tests nothing
    cells = table.cells()
    assert cells.weight.sum(dtype=float) == pytest.approx(vis.weight.sum(dtype=float), rel=1e-6)
    assert cells.ncells == table.used
    with pytest.raises(ParameterError, match="--memory"):
        table_of(vis, facet(tolerance=1e-4), max_bytes=2e6)


@pytest.mark.parametrize(
    "changes", [{"tolerance": 0}, {"tolerance": 1}, {"time_block": 0}, {"channel_blocks": 0}, {"pixsize": -1}]
)
def test_illegal_parameters_are_refused(changes: dict) -> None:
    with pytest.raises(ParameterError):
        facet(**changes)
    with pytest.raises(ParameterError, match="channels"):
        facet(channel_blocks=7).channel_block(6)


def sources(params: AveragingParams, vis: Visibilities) -> tuple[Visibilities, tuple[float, float]]:
    """Return ``vis`` with point sources all over the facet, one near a corner, and that one's (l, m)."""
    half = np.array(params.npix) * params.pixsize / 2
    at = np.random.default_rng(5).uniform(-0.9, 0.9, (12, 2)) * half
    at[0] = 0.93 * half
    flux = np.random.default_rng(6).lognormal(size=12)
    turned = rotate(vis, params.phase_centre)
    seen = dft(turned.uvw, vis.chan_freq, [(f, l, m) for f, (l, m) in zip(flux, at, strict=True)])
    back = rotate(Visibilities(**{**vars(turned), "vis": seen.astype(np.complex64)}), vis.phase_centre)
    return back, (float(at[0, 0]), float(at[0, 1]))


def averaged_once(vis: Visibilities, params: AveragingParams) -> Visibilities:
    cells = table_of(vis, params).cells()
    n = len(cells.vis)
    nowhere = np.full(n, -1, np.int32)
    return Visibilities(
        cells.uvw * LIGHT_SPEED / 1e9, np.array([1e9]), cells.vis[:, None], cells.weight[:, None],
        np.full(n, 5e9), nowhere, nowhere, params.phase_centre,
    )  # fmt: skip


@pytest.mark.parametrize("times", [2, 60], ids=["snapshot", "track"])
@pytest.mark.parametrize("tolerance", [0.03, 0.01, 0.001])
@pytest.mark.parametrize("weighting", ["natural", "briggs", "uniform"])
def test_facet_images_stay_within_the_tolerance(tolerance: float, weighting: str, times: int) -> None:
    params = facet((160, 128), tolerance=tolerance)
    vis, corner = sources(params, observation(np.linspace(0.9e9, 1.6e9, 24), antennas=20, times=times))
    imaging = ImagingParams(params.npix, PIXSIZE, weighting=weighting, phase_centre=NEW)  # type: ignore[arg-type]
    exact = make_image(vis, imaging).data
    part = averaged_once(vis, params)
    assert part.nrow < np.count_nonzero(vis.weight)
    image = make_image(part, imaging).data
    error = np.linalg.norm(image - exact) / np.linalg.norm(exact)
    assert error < params.expected_error() <= tolerance
    x, y = round(params.npix[0] / 2 - corner[0] / PIXSIZE), round(params.npix[1] / 2 + corner[1] / PIXSIZE)
    assert image[y, x] == pytest.approx(exact[y, x], abs=2 * tolerance * float(abs(exact).max()))


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("averaging") / "small.ms"
    return build_ms(path, antennas=8, times=12, channels=6, sources=((1.0, 0.001, -0.0005), (0.5, 0.0, 0.001)))


def time_block(meta) -> float:
    return (meta.time_range[1] - meta.time_range[0]) / 2.5  # three blocks


def test_a_store_images_like_its_measurement_set(observed, tmp_path: Path) -> None:
    meta = read_metadata(observed.path)
    params = AveragingParams((128, 128), PIXSIZE, CENTRE, time_block=time_block(meta), channel_blocks=2)
    result = average(meta, tmp_path / "a.zarr", params)
    parts = read_averaged(tmp_path / "a.zarr")
    assert result.blocks == 3 and len(parts) == 2 and sum(p.nrow for p in parts) == result.nrow < result.nvis
    assert len(np.unique(parts[0].time)) == 3 and parts[0].averages is not None
    vis = open_ms(observed.path).read()
    total = sum(float(p.weight.sum(dtype=float)) for p in parts)
    assert total == pytest.approx(vis.weight.sum(dtype=float), rel=1e-6)
    for weighting in ("natural", "briggs"):
        imaging = ImagingParams((128, 128), PIXSIZE, weighting=weighting)
        exact = make_image(vis, imaging).data
        assert np.linalg.norm(make_image(parts, imaging).data - exact) < 0.01 * np.linalg.norm(exact)
    some = read_averaged(tmp_path / "a.zarr", time_blocks=slice(1, 2), channel_blocks=slice(0, 1))
    assert len(some) == 1 and set(some[0].time) == {np.unique(parts[0].time)[1]}
    assert some[0].chan_freq[0] == pytest.approx(vis.chan_freq[:3].mean(), rel=1e-12)


def test_windows_and_set_ups_of_a_field_are_averaged_together(tmp_path: Path) -> None:
    """Interleaved windows of different frequencies, one of which two polarisation set-ups share."""
    made = build_ms(tmp_path / "a.ms", antennas=8, times=12, channels=6, sources=((1.0, 0.001, -0.0005),))
    nrow = len(made.uvw)
    second_window(made.path, made.freq + 2e6, np.arange(nrow) % 3 == 1)
    add_rows(made.path, "POLARIZATION", NUM_CORR=[2])
    add_rows(made.path, "DATA_DESCRIPTION", SPECTRAL_WINDOW_ID=[0], POLARIZATION_ID=[1])
    put(made.path, "", DATA_DESC_ID=(np.arange(nrow) % 3).astype(np.int32))
    ms = open_ms(made.path)
    parts = ms.read_parts()
    assert [part.origin.spw for part in parts] == [(0,), (0,), (1,)]

    params = AveragingParams((128, 128), PIXSIZE, CENTRE, time_block=time_block(ms.meta), channel_blocks=2)
    result = average(ms.meta, tmp_path / "a.zarr", params)
    assert result.nvis == sum(np.count_nonzero(part.weight) for part in parts) == nrow * 6
    averages = read_averaged(tmp_path / "a.zarr")
    np.testing.assert_array_equal(
        np.concatenate([part.averages.contents[0].chan_freq for part in averages]),
        np.unique(np.concatenate([part.chan_freq for part in parts])),
    )
    assert averages[0].origin.spw == (0, 1)
    for weighting in ("natural", "briggs"):
        imaging = ImagingParams((128, 128), PIXSIZE, weighting=weighting)
        exact = make_image(parts, imaging).data
        assert np.linalg.norm(make_image(averages, imaging).data - exact) < 0.01 * np.linalg.norm(exact)


def test_data_that_cannot_be_read_leave_nothing_behind(cli, tmp_path: Path) -> None:
    made = build_ms(tmp_path / "a.ms")
    with table(str(made.path), readonly=False, ack=False) as t:
        t.addcols(maketabdesc(makearrcoldesc("CORRECTED_DATA", 0j, ndim=2, valuetype="complex")))
        for row in range(0, t.nrows(), 2):
            t.putcell("CORRECTED_DATA", row, t.getcell("DATA", row))
    out = tmp_path / "out"
    out.mkdir()
    assert "CORRECTED_DATA has no value in" in cli("average", made.path, "-o", out / "a.zarr", "--npix", 64).error()
    assert not [path for path in out.iterdir() if not path.name.endswith(".lock")]


def test_the_command_tells_what_it_did(observed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from vis2img.cli.average import run

    out = tmp_path / "a.zarr"
    args = [str(observed.path), "--fov", "512arcsec", "--pixsize", "4arcsec", "-o", str(out), "--memory", "16GB"]
    assert run([*args, "--json"], "vis2img average") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["parameters"]["npix"] == [128, 128] and record["resumed"] == 0 and record["compression"] > 1
    assert run(args, "vis2img average") == 0
    text = capsys.readouterr().out
    assert "expected error" in text and "were there" in text
    with pytest.raises(OutputError, match="inside the measurement set"):
        run([str(observed.path), "-o", str(observed.path / "a.zarr")], "vis2img average")


def test_memory_that_is_too_little_is_refused(cli, observed, tmp_path: Path) -> None:
    message = cli("average", observed.path, "-o", tmp_path / "a.zarr", "--memory", "50MB").error()
    assert "--memory 50MB is too little" in message and not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def store(observed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, meta = tmp_path_factory.mktemp("store") / "a.zarr", read_metadata(observed.path)
    params = AveragingParams((128, 128), PIXSIZE, CENTRE, time_block=time_block(meta), channel_blocks=3)
    average(meta, path, params)
    return path


def test_averages_open_and_image_like_a_measurement_set(cli, observed, store: Path, tmp_path: Path) -> None:
    size = ("--npix", 128, "--pixsize", "4arcsec", "--no-png")
    for source, out in ((observed.path, "ms.fits"), (store, "avg.fits")):
        assert cli("image", source, *size, "-o", tmp_path / out).code == 0
    exact, ours = (fits.getdata(tmp_path / name).squeeze() for name in ("ms.fits", "avg.fits"))
    assert np.linalg.norm(ours - exact) < 0.01 * np.linalg.norm(exact)
    assert fits.getheader(tmp_path / "avg.fits")["CRVAL3"] == fits.getheader(tmp_path / "ms.fits")["CRVAL3"]
    default = open_ms(store).image()
    assert default.params.npix == (128, 128) and default.params.pixsize == PIXSIZE
    assert "3 channel blocks" in cli("info", store).out and str(observed.path) in cli("info", store, "--json").out
    cube = tmp_path / "cube.fits"
    assert cli("image", store, *size, "--channels-out", 3, "--intervals-out", 3, "-o", cube).code == 0
    assert fits.getdata(tmp_path / "cube-t0002.fits").shape == (1, 3, 128, 128)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--npix", 160, "--pixsize", "4arcsec"), "averaged for a facet of"),
        (("--npix", 64, "--phase-centre", "10h0m0s,-29d59m0s"), "averaged for a facet of"),
        (("--column", "DATA"), "were chosen by vis2img average"),
        (("--stokes", "Q"), "were chosen by vis2img average"),
        (("--keep-antennas", 0.5), "no longer know their antennas"),
        (("--times", "7:9"), "none is chosen"),
    ],
)
def test_what_averages_cannot_give_is_refused(cli, store: Path, tmp_path: Path, options, message) -> None:
    assert message in cli("image", store, *options, "-o", tmp_path / "a.fits").error()
    assert not (tmp_path / "a.fits").exists()


def test_draws_thin_averages_out(store: Path) -> None:
    """Times, band and cells are thinned; a prior for averages leaves antennas alone."""
    averaged_set = open_ms(store)
    parts = averaged_set.read_parts()
    whole = sum(part.nrow for part in parts)
    for changes, share in (
        ({"band": (0.0, 0.33)}, 1 / 3),
        ({"time_span": (0.0, 0.33)}, 1 / 3),
        ({"keep_baselines": 0.4}, 0.4),
    ):
        how = averaged_set.imaging_params(**changes)
        assert sum(part.nrow for part in select_parts(parts, how)) == pytest.approx(share * whole, rel=0.15)
    prior = ImagingPrior.for_ms(averaged_set)
    for seed in range(3):
        image = make_image(parts, prior.draw(np.random.default_rng(seed)))
        assert np.isfinite(image.data).all() and image.data.max() > 0.2
