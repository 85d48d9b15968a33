"""Dirty images against WSClean 3.1: on small real and simulated measurement sets, option by option.

Weights, tapers, ranges and splits are WSClean's own definitions, so images agree to its accuracy, once its two
approximations of the transform are off: it grids at the Nyquist resolution and interpolates
(``-no-small-inversion``; 1e-2 at the edges), and its default gridder is coarser than ``-use-wgridder``.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from casacore.tables import table

from tests.helpers.places import DATA
from vis2img.dataset import open_ms
from vis2img.imaging.cubes import make_cube, mean_image
from vis2img.imaging.image import make_image
from vis2img.imaging.params import ImagingParams
from vis2img.ms.selection import Selection

FOLDER = DATA / "ms"
C = 2.99792458e8  # m/s

pytestmark = [
    pytest.mark.wsclean,
    pytest.mark.skipif(shutil.which("wsclean") is None, reason="WSClean is not installed"),
]

NPIX = (512, 400)
EXACT = ("-no-small-inversion",)
# name -> (pixel size in arcsec, data column)
SETS = {
    "karabo_oskar_sim": (3.3, "DATA"),
    "meerkat_den_0h60s_sim": (3.0, "MODEL_DATA"),
    "atca_miriad": (1.2, "DATA"),
    "alma_gpuvmem_freq78": (0.1, "DATA"),
    "hera_2458098_uvh5": (120.0, "DATA"),
    "lofar_dp3_generic": (5.0, "DATA"),
}
# WSClean's own accuracy is 1e-4 by default; measured 1.2e-5 to 3.3e-5.
BOUND = 1e-4


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory):
    """Return a function that unpacks a shared measurement set once and gives its path."""
    folder, done = tmp_path_factory.mktemp("wsclean-ms"), {}

    def unpack(name: str) -> Path:
        archive = FOLDER / f"{name}.ms.tar.xz"
        if not archive.exists():
            pytest.skip(f"{archive} is not here")
        if name not in done:
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
            done[name] = folder / f"{name}.ms"
        return done[name]

    return unpack


def wsclean(
    ms, tmp_path: Path, npix, pixsize_arcsec: float, *options: str, image="dirty", w_gridder=True
) -> np.ndarray:
    """Return WSClean's image [y, x] of one measurement set or several."""
    sets = [str(path) for path in (ms if isinstance(ms, list) else [ms])]
    command = [
        "wsclean", "-j", "2", "-niter", "0", "-no-update-model-required",
        *(["-use-wgridder"] if w_gridder else []),
        "-size", str(npix[0]), str(npix[1]), "-scale", f"{pixsize_arcsec}asec",
        *([] if "-reorder" in options else ["-no-reorder"]), "-temp-dir", str(tmp_path),
        "-name", str(tmp_path / "ws"), *options, *sets,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return wsclean_image(tmp_path, image)


def wsclean_image(tmp_path: Path, image: str) -> np.ndarray:
    return fits.getdata(tmp_path / f"ws-{image}.fits").squeeze().astype(np.float64)


def imaging(pixsize_arcsec: float, weighting: str, robust=0.0, npix=NPIX, **changes) -> ImagingParams:
    pixsize = math.radians(pixsize_arcsec / 3600)
    return ImagingParams(npix=npix, pixsize=pixsize, weighting=weighting, robust=robust, **changes)


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


SCHEMES = [("natural", 0.0), ("uniform", 0.0), ("briggs", 0.0)]
CASES = [(name, *scheme) for name in ("karabo_oskar_sim", "atca_miriad") for scheme in SCHEMES]
CASES += [("meerkat_den_0h60s_sim", *s) for s in (*SCHEMES, ("briggs", -1.0), ("briggs", 1.0))]
CASES += [("alma_gpuvmem_freq78", *s) for s in SCHEMES]  # its hands weigh differently
CASES += [("hera_2458098_uvh5", *s) for s in SCHEMES] + [("lofar_dp3_generic", *s) for s in SCHEMES]
CASES += [(name, "briggs", robust) for name in ("atca_miriad", "alma_gpuvmem_freq78") for robust in (-1.0, 1.0, 2.0)]


@pytest.mark.parametrize(("name", "weighting", "robust"), CASES)
def test_image_equals_wsclean(unpacked, tmp_path, name, weighting, robust):
    ms, (pixsize, column) = unpacked(name), SETS[name]
    scheme = [weighting] if weighting != "briggs" else ["briggs", str(robust)]
    theirs = wsclean(ms, tmp_path, NPIX, pixsize, "-weight", *scheme, "-data-column", column, *EXACT)
    ours = open_ms(ms).image(imaging(pixsize, weighting, robust), Selection(column=column))
    assert relative(ours.data, theirs) < BOUND


@pytest.mark.parametrize(
    ("name", "weighting", "bound"),
    [
        ("karabo_oskar_sim", "natural", 1.5e-2),
        ("karabo_oskar_sim", "briggs", 1.8e-2),
        ("karabo_oskar_sim", "uniform", 2.0e-2),
        ("meerkat_den_0h60s_sim", "uniform", 7e-2),
        ("atca_miriad", "natural", 1.0e-2),
    ],
)
def test_image_is_near_wsclean_with_its_defaults(unpacked, tmp_path, name, weighting, bound):
    ms, (pixsize, column) = unpacked(name), SETS[name]
    scheme = [weighting] if weighting != "briggs" else ["briggs", "0"]
    theirs = wsclean(ms, tmp_path, NPIX, pixsize, "-weight", *scheme, "-data-column", column)
    ours = open_ms(ms).image(imaging(pixsize, weighting), Selection(column=column))
    assert relative(ours.data, theirs) < bound


def test_psf_equals_wsclean(unpacked, tmp_path):
    ms = unpacked("meerkat_den_0h60s_sim")
    theirs = wsclean(ms, tmp_path, NPIX, 3.0, "-weight", "briggs", "0", "-make-psf-only", *EXACT, image="psf")
    ours = open_ms(ms).image(imaging(3.0, "briggs"), Selection(column="MODEL_DATA"), psf=True)
    assert relative(ours.psf, theirs) < BOUND


@pytest.mark.filterwarnings("ignore:pixels of 12arcsec are too coarse")
def test_coarse_pixels_drop_long_baselines_as_wsclean_does(unpacked, tmp_path):
    """With 12 arcsec pixels half the baselines lie beyond the density grid."""
    ms = unpacked("karabo_oskar_sim")
    theirs = wsclean(ms, tmp_path, NPIX, 12.0, "-weight", "uniform", *EXACT)
    ours = open_ms(ms).image(imaging(12.0, "uniform"))
    assert ours.nvis < 0.97 * 20160
    assert relative(ours.data, theirs) < BOUND


SHAPES = [
    (("-taper-gaussian", "30asec"), {"taper": math.radians(30 / 3600)}),
    (("-minuv-l", "500", "-maxuv-l", "9000"), {"uvrange": (500.0, 9000.0)}),
    (("-maxuv-l", "9000", "-taper-tukey", "4000"), {"uvrange": (0.0, 9000.0), "tukey_taper": 4000.0}),
    (("-minuv-l", "200", "-taper-inner-tukey", "1500"), {"uvrange": (200.0, math.inf), "tukey_inner_taper": 1500.0}),
    (("-weighting-rank-filter", "0"), {"rank_filter": 0.0}),
    (("-weighting-rank-filter", "1.5"), {"rank_filter": 1.5}),
]


@pytest.mark.parametrize(("weighting", "robust"), [("natural", 0.0), ("uniform", 0.0), ("briggs", 0.5)])
@pytest.mark.parametrize(("options", "changes"), SHAPES)
def test_tapers_ranges_and_rank_filter_equal_wsclean(unpacked, tmp_path, weighting, robust, options, changes):
    ms = unpacked("karabo_oskar_sim")
    scheme = [weighting] if weighting != "briggs" else ["briggs", str(robust)]
    theirs = wsclean(ms, tmp_path, NPIX, 3.3, "-weight", *scheme, *options, *EXACT)
    ours = open_ms(ms).image(imaging(3.3, weighting, robust, **changes))
    assert relative(ours.data, theirs) < BOUND


@pytest.mark.parametrize("name", ["atca_miriad", "alma_gpuvmem_freq78", "lofar_dp3_generic"])
@pytest.mark.parametrize("kind", ["taper", "range", "tukey", "inner", "rank"])
def test_shapes_of_real_sets_equal_wsclean(unpacked, tmp_path, name, kind):
    """Tapers and ranges at fractions of the longest baseline of each real set."""
    ms, (pixsize, column) = unpacked(name), SETS[name]
    vis = open_ms(ms).read(Selection(column=column))
    longest = min(vis.uv_max(), 0.5 / math.radians(pixsize / 3600))
    low, high, width = round(0.05 * longest), round(0.6 * longest), round(0.2 * longest)
    options, changes = {
        "taper": (["-taper-gaussian", f"{4 * pixsize}asec"], {"taper": math.radians(4 * pixsize / 3600)}),
        "range": (["-minuv-l", str(low), "-maxuv-l", str(high)], {"uvrange": (float(low), float(high))}),
        "tukey": (
            ["-maxuv-l", str(high), "-taper-tukey", str(width)],
            {"uvrange": (0.0, float(high)), "tukey_taper": float(width)},
        ),
        "inner": (
            ["-minuv-l", str(low), "-taper-inner-tukey", str(width)],
            {"uvrange": (float(low), math.inf), "tukey_inner_taper": float(width)},
        ),
        "rank": (["-weighting-rank-filter", "1.5"], {"rank_filter": 1.5}),
    }[kind]
    theirs = wsclean(ms, tmp_path, NPIX, pixsize, "-weight", "briggs", "0", "-data-column", column, *options, *EXACT)
    ours = make_image(vis, imaging(pixsize, "briggs", **changes))
    assert relative(ours.data, theirs) < BOUND


def test_where_gridders_differ_an_explicit_transform_is_with_us(tmp_path):
    """A crowded wide field of MeerKAT: WSClean's default gridder is off, its w-gridder and ours are not."""
    from vis2img.imaging.weighting import imaging_weights
    from vis2img.simulate.config import SimulateConfig
    from vis2img.simulate.run import simulate

    config = SimulateConfig(
        out=tmp_path / "wide.ms", ntimes=6, dtime=600.0, nchan=2, n_sources=150, fov=math.radians(3.0), sefd=0.0,
        flux_range=(0.1, 1.0), size_range=(math.radians(10 / 3600), math.radians(30 / 3600)), seed=8,
    )  # fmt: skip
    ms = simulate(config).ms_path
    npix, pixsize = (1024, 1024), 12.0
    vis, how = open_ms(ms).read(), imaging(pixsize, "natural", npix=npix)
    weights = imaging_weights([vis], how)
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 1024, (2, 150))
    l, m = (512 - x) * how.pixsize, (y - 512) * how.pixsize
    n = np.sqrt(1 - l**2 - m**2) - 1
    exact = np.zeros(len(x))
    for chan, freq in enumerate(vis.chan_freq):
        turns = (vis.uvw * (freq / C)) @ np.stack([l, m, n])
        exact += ((vis.vis[:, chan] * weights.parts[0][:, chan]) @ np.exp(-2j * np.pi * turns)).real
    exact /= weights.total
    default = wsclean(ms, tmp_path, npix, pixsize, "-weight", "natural", *EXACT, w_gridder=False)
    w_gridder = wsclean(ms, tmp_path, npix, pixsize, "-weight", "natural", *EXACT)
    assert relative(make_image(vis, how).data[y, x], exact) < BOUND
    assert relative(w_gridder[y, x], exact) < BOUND
    assert relative(default[y, x], exact) > 20 * BOUND


def test_tapers_by_sample_differ_from_wsclean_s_cells(unpacked, tmp_path):
    """WSClean judges each cell of 100 wavelengths by its lower corner; the exact taper is 1e-2 away."""
    ms = unpacked("karabo_oskar_sim")
    theirs = wsclean(ms, tmp_path, NPIX, 3.3, "-weight", "natural", "-taper-gaussian", "30asec", *EXACT)
    exact = imaging(3.3, "natural", taper=math.radians(30 / 3600), taper_by="sample")
    assert 2e-3 < relative(open_ms(ms).image(exact).data, theirs) < 3e-2


@pytest.fixture
def polarised(unpacked, tmp_path) -> Path:
    """The 4 correlations of a small MeerKAT simulation, each with its own sources and weights."""
    ms = tmp_path / "polarised.ms"
    shutil.copytree(unpacked("meerkat_den_0h60s_sim"), ms)
    rng = np.random.default_rng(5)
    with table(str(ms), readonly=False, ack=False) as t:
        data = t.getcol("MODEL_DATA")
        scale = rng.normal(size=data.shape[-1]) + 1j * rng.normal(size=data.shape[-1])
        noise = rng.normal(size=(*data.shape, 2)) @ [1, 1j]
        t.putcol("MODEL_DATA", (data * scale + 0.3 * noise).astype(np.complex64))
        # The same flags in all hands: WSClean counts the density of all Stokes parameters from the first.
        t.putcol("FLAG", np.repeat(rng.random((*data.shape[:2], 1)) < 0.05, 4, axis=2))
    return ms


@pytest.mark.parametrize("feeds", ["linear", "circular"])
def test_stokes_parameters_equal_wsclean(polarised, tmp_path, feeds):
    with table(f"{polarised}/POLARIZATION", readonly=False, ack=False) as t:
        assert t.getcell("CORR_TYPE", 0).tolist() == [9, 10, 11, 12]
        if feeds == "circular":
            t.putcell("CORR_TYPE", 0, np.array([5, 6, 7, 8], np.int32))
    wsclean(polarised, tmp_path, NPIX, 3.0, "-pol", "IQUV", "-data-column", "MODEL_DATA", "-weight", "briggs", "0",
            *EXACT, image="I-dirty")  # fmt: skip
    parts = open_ms(polarised).read_parts(Selection(column="MODEL_DATA", stokes="IQUV"))
    for part in parts:
        theirs = wsclean_image(tmp_path, f"{part.stokes}-dirty")
        assert relative(make_image(part, imaging(3.0, "briggs")).data, theirs) < BOUND


@pytest.mark.parametrize("weighting", ["natural", "uniform"])
def test_spectral_windows_together_equal_wsclean(unpacked, tmp_path, weighting):
    """Two real spectral windows of unequal size in one image."""
    ms = unpacked("casaformats_simple")
    theirs = wsclean(ms, tmp_path, NPIX, 5.0, "-weight", weighting, "-data-column", "DATA", "-field", "1", "-reorder",
                     *EXACT)  # fmt: skip
    ours = open_ms(ms).image(imaging(5.0, weighting), Selection(column="DATA", spw="all"))
    assert relative(ours.data, theirs) < BOUND


@pytest.mark.parametrize("weighting", ["natural", "briggs"])
def test_measurement_sets_together_equal_wsclean(unpacked, tmp_path, weighting):
    """The same field twice, at other times and frequencies, with other noise."""
    first, second = unpacked("karabo_oskar_sim"), tmp_path / "second.ms"
    shutil.copytree(first, second)
    rng = np.random.default_rng(1)
    with table(f"{second}/SPECTRAL_WINDOW", readonly=False, ack=False) as t:
        t.putcol("CHAN_FREQ", 1.13 * t.getcol("CHAN_FREQ"))
    with table(str(second), readonly=False, ack=False) as t:
        t.putcol("DATA", (t.getcol("DATA") + rng.normal(size=t.getcol("DATA").shape)).astype(np.complex64))
        t.putcol("TIME", t.getcol("TIME") + 86400)
    scheme = ["natural"] if weighting == "natural" else ["briggs", "-0.5"]
    theirs = wsclean([first, second], tmp_path, NPIX, 3.3, "-weight", *scheme, *EXACT)
    parts = [open_ms(path).read() for path in (first, second)]
    ours = make_image(parts, imaging(3.3, weighting, -0.5))
    assert relative(ours.data, theirs) < BOUND


@pytest.mark.parametrize("name", ["atca_miriad", "dp3_ndppp_mini"])
def test_cubes_equal_wsclean(unpacked, tmp_path, name):
    """Channels of both sets descend; 2049 channels by 3, and 2 intervals of one set's times."""
    ms = unpacked(name)
    pixsize, channels, intervals = {"atca_miriad": (1.2, 3, 1), "dp3_ndppp_mini": (10.0, 3, 2)}[name]
    wsclean(ms, tmp_path, NPIX, pixsize, "-channels-out", str(channels), "-intervals-out", str(intervals),
            "-weight", "briggs", "0", "-data-column", "DATA", *EXACT,
            image=f"{'t0000-' if intervals > 1 else ''}0000-dirty")  # fmt: skip
    vis = open_ms(ms).read(Selection(column="DATA"))
    cube = make_cube(vis, imaging(pixsize, "briggs"), channels_out=channels, intervals_out=intervals)
    for t, planes in enumerate(cube):
        prefix = f"t{t:04d}-" if intervals > 1 else ""
        for c, plane in enumerate(planes):
            assert relative(plane.data, wsclean_image(tmp_path, f"{prefix}{c:04d}-dirty")) < BOUND
            header = fits.getheader(tmp_path / f"ws-{prefix}{c:04d}-dirty.fits")
            assert plane.band_centre == pytest.approx(header["CRVAL3"], rel=1e-9)
        theirs = wsclean_image(tmp_path, f"{prefix}MFS-dirty")
        assert relative(mean_image(planes).data, theirs) < 10 * BOUND  # the headers round the weights


def test_channel_and_time_ranges_equal_wsclean(unpacked, tmp_path):
    ms = unpacked("dp3_ndppp_mini")
    ranges = ["-channel-range", "2", "6", "-interval", "1", "4"]
    theirs = wsclean(ms, tmp_path, NPIX, 10.0, "-weight", "uniform", "-data-column", "DATA", *ranges, *EXACT)
    selection = Selection(column="DATA", channels=(2, 6), times=(1, 4))
    ours = open_ms(ms).image(imaging(10.0, "uniform"), selection)
    assert relative(ours.data, theirs) < BOUND


@pytest.mark.parametrize("weighting", ["uniform", "briggs"])
def test_fitted_beam_is_near_wsclean_s(unpacked, tmp_path, weighting):
    """WSClean fits ten beams around the peak, sidelobes included; we fit the main lobe above 0.35, as CASA."""
    ms, npix = unpacked("karabo_oskar_sim"), (1024, 1024)
    scheme = [weighting] if weighting != "briggs" else ["briggs", "0"]
    wsclean(ms, tmp_path, npix, 1.65, "-make-psf", "-weight", *scheme, *EXACT)
    header = fits.getheader(tmp_path / "ws-psf.fits")
    ours = open_ms(ms).image(imaging(1.65, weighting, npix=npix))
    assert math.degrees(ours.beam[0]) == pytest.approx(header["BMAJ"], rel=0.1)
    assert math.degrees(ours.beam[1]) == pytest.approx(header["BMIN"], rel=0.1)
    assert math.degrees(ours.beam[2]) == pytest.approx(header["BPA"] % 180, abs=20)


def test_sign_of_uvw_is_wsclean_s_in_a_wide_field(unpacked, tmp_path):
    """One source far off centre, w as long as u and v: V = exp(+2 pi i nu / c (u l + v m + w (n - 1)))."""
    ms = tmp_path / "wide.ms"
    shutil.copytree(unpacked("karabo_oskar_sim"), ms)
    npix, pixsize = (320, 256), 120.0
    arcsec = math.pi / 180 / 3600
    pixel = (251, 40)
    l, m = (160 - pixel[0]) * pixsize * arcsec, (pixel[1] - 128) * pixsize * arcsec
    with table(f"{ms}/SPECTRAL_WINDOW", ack=False) as t:
        freq = float(t.getcol("CHAN_FREQ")[0, 0])
    rng = np.random.default_rng(2)
    with table(str(ms), readonly=False, ack=False) as t:
        uvw = rng.uniform(-1, 1, (t.nrows(), 3)) * np.array([600, 500, 4000]) * C / freq
        turns = (uvw @ np.array([l, m, math.sqrt(1 - l * l - m * m) - 1])) * freq / C
        data = np.zeros_like(t.getcol("DATA"))
        data[...] = np.exp(2j * np.pi * turns)[:, None, None]
        t.putcol("UVW", uvw)
        t.putcol("DATA", data)
    theirs = wsclean(ms, tmp_path, npix, pixsize, "-weight", "natural", *EXACT)
    ours = open_ms(ms).image(imaging(pixsize, "natural", npix=npix)).data
    for image in (theirs, ours):
        assert np.unravel_index(image.argmax(), image.shape) == (pixel[1], pixel[0])
        assert image.max() == pytest.approx(1.0, abs=0.01)
    assert relative(ours, theirs) < 1e-3
