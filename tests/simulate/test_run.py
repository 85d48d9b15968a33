"""Simulated measurement sets agree with the measurement equation, replay, and never stand half-written."""

import dataclasses
import json
import logging
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

from tests.helpers.disks import own_mounts
from tests.helpers.places import ROOT
from vis2img.errors import OutputError, ParameterError, Vis2imgError
from vis2img.simulate.config import SimulateConfig
from vis2img.simulate.run import _bytes_of, simulate
from vis2img.simulate.sky.catalogue import read_catalogue
from vis2img.simulate.sky.source import SkyComponent

pytest.importorskip("simms")

SPEED_OF_LIGHT = 299792458.0
RA, DEC = 1.0, -0.5
POINTS = ((1.003, -0.5, 2.0), (0.999, -0.4985, 0.7), (1.0, -0.505, 0.3))  # nothing about them is symmetric


def config(tmp_path, **changes):
    """Return a small observation with KAT-7: 21 baselines, as low as a test can go in time."""
    values = dict(
        out=tmp_path / "sim.ms",
        telescope="kat-7",
        phase_centre=(RA, DEC),
        ntimes=4,
        nchan=3,
        start_freq=1.3e9,
        chan_width=20e6,
        n_sources=4,
        fov=0.02,
        sefd=0.0,
        seed=1,
    )
    return SimulateConfig(**{**values, **changes})


def column(ms, name, subtable=""):
    with table(str(ms) + subtable, ack=False) as t:
        return t.getcol(name)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def contents(ms):
    """Return every main column that differs from run to run if anything does."""
    names = (
        "DATA",
        "FLAG",
        "FLAG_ROW",
        "UVW",
        "TIME",
        "WEIGHT",
        "SIGMA",
        "WEIGHT_SPECTRUM",
        "SIGMA_SPECTRUM",
    )
    return {name: column(ms, name) for name in names}


def predicted(components, uvw, freqs, centre=(RA, DEC)):
    """Return the visibilities [row, chan] of the components by the sum over the sky, in float64."""
    vis = np.zeros((len(uvw), len(freqs)), dtype=complex)
    for c in components:
        east = math.cos(c.dec) * math.sin(c.ra - centre[0])
        north = math.sin(c.dec) * math.cos(centre[1])
        north -= math.cos(c.dec) * math.sin(centre[1]) * math.cos(c.ra - centre[0])
        depth = math.sqrt(1 - east**2 - north**2) - 1
        waves = uvw[:, None, :] * freqs[None, :, None] / SPEED_OF_LIGHT  # (row, chan, uvw)
        phase = 2 * math.pi * (waves @ np.array([east, north, depth]))
        # The axes of the Gaussian lie in the tangent plane at the source: east and north there, as vectors.
        turn = c.ra - centre[0]
        east_axis = [math.cos(turn), math.sin(centre[1]) * math.sin(turn), -math.cos(centre[1]) * math.sin(turn)]
        north_axis = [
            -math.sin(c.dec) * math.sin(turn),
            math.cos(c.dec) * math.cos(centre[1]) + math.sin(c.dec) * math.sin(centre[1]) * math.cos(turn),
            math.cos(c.dec) * math.sin(centre[1]) - math.sin(c.dec) * math.cos(centre[1]) * math.cos(turn),
        ]
        to_east, to_north = waves @ np.array(east_axis), waves @ np.array(north_axis)
        # Transform of a Gaussian of unit flux: exp(-2 pi^2 sigma^2 q^2) along each axis.
        along = to_east * math.sin(c.pa) + to_north * math.cos(c.pa)
        across = to_east * math.cos(c.pa) - to_north * math.sin(c.pa)
        width = math.pi**2 / (4 * math.log(2))  # 2 pi^2 (FWHM / 2.3548)^2
        shape = np.exp(-width * ((along * c.major) ** 2 + (across * c.minor) ** 2))
        vis += c.flux * (freqs / c.ref_freq) ** c.spectral_index * shape * np.exp(1j * phase)
    return vis


def test_data_are_the_transform_of_the_truth(tmp_path):
    catalogue = tmp_path / "mine.csv"
    catalogue.write_text(
        "ra_deg,dec_deg,flux_jy,major_arcsec,minor_arcsec,pa_deg,spectral_index\n"
        "57.40,-28.60,1.0,0,0,0,-0.7\n"
        "57.20,-28.70,2.0,300,80,25,0.4\n"
        "57.31,-28.62,0.5,0,0,0,0\n"
    )
    result = simulate(config(tmp_path, catalogue=catalogue, points=POINTS, correlations="XX,XY,YX,YY"))
    truth = [c for source in read_catalogue(result.catalogue_path) for c in source.components]
    assert len(truth) == 6
    data = column(result.ms_path, "DATA")
    freqs = column(result.ms_path, "CHAN_FREQ", "::SPECTRAL_WINDOW")[0]
    np.testing.assert_allclose(freqs, [1.3e9, 1.32e9, 1.34e9])
    expected = predicted(truth, column(result.ms_path, "UVW"), freqs)
    assert data.shape == (4 * 21, 3, 4)
    for corr in (0, 3):
        np.testing.assert_allclose(data[:, :, corr], expected, atol=2e-5)
    assert not data[:, :, 1:3].any()  # unpolarised
    assert np.abs(expected - expected.conj()).max() > 0.1  # the sky is lopsided enough to tell the sign


def test_position_angles_count_from_north_at_the_source(tmp_path):
    # Near the pole, where the meridian of the source is turned by 46 degrees against that of the centre.
    from astropy import units
    from astropy.coordinates import SkyCoord

    centre, major, pa = (RA, -1.564), math.radians(400 / 3600), 0.4
    source = SkyCoord(RA + 0.8, -1.566, unit="rad")
    catalogue = tmp_path / "pole.csv"
    catalogue.write_text(
        "ra_deg,dec_deg,flux_jy,major_arcsec,minor_arcsec,pa_deg\n"
        f"{source.ra.deg},{source.dec.deg},1.0,400,0,{math.degrees(pa)}\n"
    )
    result = simulate(config(tmp_path, phase_centre=centre, catalogue=catalogue))
    # The Gaussian has no width across, so it is a string of points along a great circle.
    along = np.linspace(-2, 2, 201) * major
    weight = np.exp(-4 * math.log(2) * (along / major) ** 2)
    string = source.directional_offset_by(pa * units.rad, along * units.rad)
    parts = [
        SkyComponent(ra, dec, flux, 1e9)
        for ra, dec, flux in zip(string.ra.rad, string.dec.rad, weight / weight.sum(), strict=True)
    ]
    freqs = column(result.ms_path, "CHAN_FREQ", "::SPECTRAL_WINDOW")[0]
    expected = predicted(parts, column(result.ms_path, "UVW"), freqs, centre)
    assert np.abs(expected).min() < 0.5 < np.abs(expected).max()  # resolved, and along one direction
    np.testing.assert_allclose(column(result.ms_path, "DATA")[..., 0], expected, atol=1e-2)


def test_same_seed_replays_and_another_differs(tmp_path):
    noisy = config(tmp_path, sefd=400.0, flag_fraction=0.2, out=tmp_path / "a.ms")
    first = simulate(noisy)
    again = simulate(dataclasses.replace(noisy, out=tmp_path / "b.ms"))
    other = simulate(dataclasses.replace(noisy, out=tmp_path / "c.ms", seed=2))
    old, new, different = (contents(r.ms_path) for r in (first, again, other))
    for name in old:
        np.testing.assert_array_equal(old[name], new[name], err_msg=name)
    assert read_catalogue(first.catalogue_path) == read_catalogue(again.catalogue_path)
    assert read_catalogue(first.catalogue_path) != read_catalogue(other.catalogue_path)
    assert np.mean(old["DATA"] == different["DATA"]) < 0.01
    assert np.any(old["FLAG"] != different["FLAG"])


def test_noise_follows_the_radiometer_equation(tmp_path):
    # 30 x 21 x 8 x 2 visibilities: the estimate of sigma is good to 0.5%.
    values = dict(ntimes=30, nchan=8, n_sources=0, points=((RA, DEC, 1.0),), dtime=4.0, chan_width=5e6)
    result = simulate(config(tmp_path, sefd=500.0, **values))
    noise = column(result.ms_path, "DATA") - 1.0
    sigma = 500.0 / math.sqrt(2 * 5e6 * 4.0)
    assert noise.real.std() == pytest.approx(sigma, rel=0.03)
    assert noise.imag.std() == pytest.approx(sigma, rel=0.03)
    assert abs(noise.mean()) < 5 * sigma / math.sqrt(noise.size)
    assert abs(np.mean(noise.real * noise.imag)) < 5 * sigma**2 / math.sqrt(noise.size)
    for name in ("SIGMA", "SIGMA_SPECTRUM"):
        np.testing.assert_allclose(column(result.ms_path, name), sigma, rtol=1e-6)
    for name in ("WEIGHT", "WEIGHT_SPECTRUM"):
        np.testing.assert_allclose(column(result.ms_path, name), 1 / sigma**2, rtol=1e-6)


@pytest.mark.parametrize("fraction", [0.0, 0.25])
def test_flags(tmp_path, fraction):
    result = simulate(config(tmp_path, ntimes=24, nchan=16, flag_fraction=fraction, n_sources=1))
    flags = column(result.ms_path, "FLAG")
    assert flags.mean() == pytest.approx(fraction, abs=1 / (24 * 16))
    np.testing.assert_array_equal(flags.all(axis=(1, 2)), column(result.ms_path, "FLAG_ROW"))
    if fraction:
        by_time = flags[..., 0].reshape(24, 21, 16)
        assert np.any(by_time.all(axis=1))  # RFI: a channel at a time on all baselines
        dropped = by_time.all(axis=2)  # a baseline at a time in all channels: an antenna is away
        assert dropped.any() and not dropped.all(axis=1).any()


def test_times(tmp_path):
    result = simulate(config(tmp_path, start_time="2026-02-01T16:30:00", ntimes=300, dtime=30.0, nchan=1))
    times = np.unique(column(result.ms_path, "TIME"))
    start = (61072 + 16.5 / 24) * 86400  # 2026-02-01 is MJD 61072
    np.testing.assert_allclose(times, start + 15 + 30 * np.arange(300), atol=1e-3)
    assert column(result.ms_path, "TIME_RANGE", "::OBSERVATION")[0] == pytest.approx([start, start + 9000])
    np.testing.assert_allclose(column(result.ms_path, "TIME", "::POINTING")[::7], times, atol=1e-3)


def test_baselines_are_rotated_not_bent(tmp_path):
    result = simulate(config(tmp_path, telescope="vla-c", phase_centre=(1.0, 0.6), ntimes=5, dtime=1800.0, nchan=1))
    position = column(result.ms_path, "POSITION", "::ANTENNA")
    first, second = column(result.ms_path, "ANTENNA1"), column(result.ms_path, "ANTENNA2")
    uvw, length = column(result.ms_path, "UVW"), np.linalg.norm(position[second] - position[first], axis=1)
    np.testing.assert_allclose(np.linalg.norm(uvw, axis=1), length, rtol=1e-9)


def test_baselines_are_those_of_astropy(tmp_path):
    """Precession, nutation and the turn of the earth, against astropy's own transformation of the axes."""
    from astropy import units
    from astropy.coordinates import GCRS, ITRS, CartesianRepresentation
    from astropy.time import Time
    from astropy.utils import iers

    centre = (1.0, -0.5)
    result = simulate(config(tmp_path, telescope="meerkat", phase_centre=centre, ntimes=3, dtime=3600.0, nchan=1))
    position = column(result.ms_path, "POSITION", "::ANTENNA")
    uvw = column(result.ms_path, "UVW").reshape(3, 2016, 3)
    first, second = column(result.ms_path, "ANTENNA1")[:2016], column(result.ms_path, "ANTENNA2")[:2016]
    times = np.unique(column(result.ms_path, "TIME"))
    east = [-math.sin(centre[0]), math.cos(centre[0]), 0.0]
    north = [-math.sin(centre[1]) * math.cos(centre[0]), -math.sin(centre[1]) * math.sin(centre[0])]
    north += [math.cos(centre[1])]
    towards = np.cross(east, north)
    baselines = position[second] - position[first]
    with iers.conf.set_temp("auto_download", False):
        for i, time in enumerate(Time(times / 86400, format="mjd", scale="utc")):
            axes = np.eye(3)
            turned = [
                ITRS(CartesianRepresentation(*axis * 1e6, unit=units.m), obstime=time)
                .transform_to(GCRS(obstime=time))
                .cartesian.xyz.to_value(units.m)
                / 1e6
                for axis in axes
            ]
            celestial = baselines @ np.array(turned)
            expected = celestial @ np.array([east, north, towards]).T
            assert np.abs(uvw[i] - expected).max() < 0.1  # of 7700 m: UT1 is up to 0.2 s from UTC


def test_metadata_and_parameters(tmp_path):
    result = simulate(config(tmp_path, telescope="meerkat", ntimes=1, nchan=2))
    assert result.ms_path == tmp_path / "sim.ms"
    assert column(result.ms_path, "REF_FREQUENCY", "::SPECTRAL_WINDOW") == [1.3e9]
    assert column(result.ms_path, "TELESCOPE_NAME", "::OBSERVATION") == ["MeerKAT"]
    assert len(column(result.ms_path, "DATA")) == 64 * 63 // 2
    with table(str(result.ms_path), ack=False) as t:
        assert t.getkeyword("ANTENNA") == f"Table: {result.ms_path}/ANTENNA"
    values = json.loads((tmp_path / "sim.ms.truth.json").read_text())
    assert values["seed"] == 1 and values["telescope"] == "meerkat" and values["ref_freq"] == 1.31e9
    assert values["start_time"].startswith("2026-01-01T")
    assert names(tmp_path) == ["sim.ms", "sim.ms.truth.fits", "sim.ms.truth.json"]


def test_nothing_is_printed_or_changed_in_this_process(tmp_path, capfd, monkeypatch):
    import dask

    monkeypatch.chdir(tmp_path)
    before = (
        [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
        dask.config.get("scheduler", None),
        dask.config.get("num_workers", None),
        [list(logging.getLogger(name).handlers) for name in (None, "telsim")],
    )
    steps = []
    simulate(config(Path(), n_sources=1), progress=lambda *told: steps.append(told))
    after = (
        [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
        dask.config.get("scheduler", None),
        dask.config.get("num_workers", None),
        [list(logging.getLogger(name).handlers) for name in (None, "telsim")],
    )
    assert after == before
    assert capfd.readouterr() == ("", "")
    assert Path.cwd() == tmp_path
    assert names(tmp_path) == ["sim.ms", "sim.ms.truth.fits", "sim.ms.truth.json"]
    assert steps[-1] == ("done", 1, 1)
    ends = {done for stage, done, total in steps if stage == "predicting visibilities" and done == total}
    assert len(ends) == 1 and all(0 <= done <= total for _, done, total in steps)


def test_a_layout_of_our_own_reaches_simms(tmp_path):
    result = simulate(config(tmp_path, telescope="askap-like", ntimes=1, nchan=1, n_sources=1))
    with table(f"{result.ms_path}::ANTENNA", ack=False) as antennas:
        assert antennas.nrows() == 36 and set(antennas.getcol("DISH_DIAMETER")) == {12.0}


def test_existing_output(tmp_path):
    small = config(tmp_path, n_sources=1, nchan=1, ntimes=1)
    simulate(small)
    before = column(small.out, "DATA")
    with pytest.raises(OutputError, match=r"sim\.ms exists already; use --overwrite"):
        simulate(dataclasses.replace(small, seed=5))
    np.testing.assert_array_equal(column(small.out, "DATA"), before)
    simulate(dataclasses.replace(small, seed=5, overwrite=True))
    assert not np.array_equal(column(small.out, "DATA"), before)
    assert names(tmp_path) == ["sim.ms", "sim.ms.truth.fits", "sim.ms.truth.json"]


def test_only_measurement_sets_are_overwritten(tmp_path):
    treasure = tmp_path / "sim.ms" / "treasure"
    treasure.parent.mkdir()
    treasure.write_text("irreplaceable")
    with pytest.raises(OutputError, match="is not a measurement set"):
        simulate(config(tmp_path, overwrite=True))
    assert treasure.read_text() == "irreplaceable"
    with pytest.raises(OutputError, match="is not a measurement set"):
        simulate(config(tmp_path, out=treasure, overwrite=True))
    link = tmp_path / "link.ms"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="is not a measurement set"):
        simulate(config(tmp_path, out=link, overwrite=True))
    (tmp_path / "x.ms.truth.json").write_text("mine")
    with pytest.raises(OutputError, match=r"x\.ms\.truth\.json exists already"):
        simulate(config(tmp_path, out=tmp_path / "x.ms"))
    assert names(tmp_path) == ["link.ms", "sim.ms", "x.ms.truth.json"]


@pytest.mark.parametrize("error", [RuntimeError("disk\nfull"), KeyboardInterrupt()])
def test_nothing_is_left_of_a_failed_run(tmp_path, monkeypatch, error):
    import vis2img.simulate.observe

    small = config(tmp_path, n_sources=1, nchan=1, ntimes=1)
    simulate(small)
    before = contents(small.out)

    def fail(*args, **options):
        assert list(tmp_path.glob(".*/*.ms/table.dat"))  # half-way: the empty measurement set is there
        raise error

    monkeypatch.setattr(vis2img.simulate.observe, "predict", fail)
    expected = Vis2imgError if isinstance(error, Exception) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        simulate(dataclasses.replace(small, seed=3, overwrite=True))
    with pytest.raises(expected):
        simulate(dataclasses.replace(small, out=tmp_path / "other.ms"))
    if expected is Vis2imgError:
        assert str(caught.value).endswith("sim.ms failed: disk")
    assert names(tmp_path) == ["sim.ms", "sim.ms.truth.fits", "sim.ms.truth.json"]
    for name, values in contents(small.out).items():
        np.testing.assert_array_equal(values, before[name])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ntimes": 0}, "ntimes = 0 must be at least 1"),
        ({"nchan": 0}, "nchan"),
        ({"dtime": -1.0}, "dtime = -1 must be above 0"),
        ({"chan_width": math.nan}, "chan_width"),
        ({"sefd": -1.0}, "sefd"),
        ({"flux_range": (-1.0, 1.0)}, "flux_range"),
        ({"flux_range": (2.0, 1.0)}, "flux_range"),
        ({"size_range": (0.0, 1.0)}, "size_range"),
        ({"flag_fraction": 1.0}, "flag_fraction"),
        ({"correlations": "RR,LL"}, "correlations"),
        ({"classes": ("fri", "spiral")}, "classes = fri,spiral"),
        ({"classes": ()}, "classes"),
        ({"phase_centre": (0.0, 2.0)}, "phase_centre"),
        ({"start_time": "yesterday"}, "start_time = 'yesterday' is not a time"),
        ({"start_time": "2026-01-01T00:00:00+02:00"}, "time zone"),
    ],
)
def test_bad_values_take_one_line(tmp_path, changes, message):
    with pytest.raises(ParameterError, match=message) as caught:
        config(tmp_path, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"telescope": "keck", "sefd": None}, "no telescope 'keck'; choose from"),
        ({"telescope": "keck"}, "no telescope 'keck'; choose from .*meerkat"),
        ({"phase_centre": (1.0, 1.3)}, "elevation of -?[0-9]+ degrees"),
        ({"start_time": "2026-01-01T08:00:00"}, "elevation of"),
        ({"n_sources": 0}, "the sky is empty"),
        ({"points": ((RA + math.pi, -DEC, 1.0),)}, "1 components lie more than 90 degrees"),
        ({"points": ((RA, DEC, -1.0),)}, "flux = -1 Jy"),
        ({"catalogue": Path("absent.csv")}, "cannot read the catalogue absent.csv"),
        ({"out": Path("absent/sim.ms")}, "the folder absent for sim.ms does not exist"),
    ],
)
def test_impossible_observations_take_one_line(tmp_path, changes, message):
    with pytest.raises(Vis2imgError, match=message) as caught:
        simulate(config(tmp_path, **changes))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_missing_simms_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "simms.telescope", None)
    with pytest.raises(Vis2imgError, match=r"pip install 'vis2img\[simulate\]'"):
        simulate(config(tmp_path))


def test_dates_beyond_the_earth_orientation_tables_work_offline(tmp_path):
    result = simulate(config(tmp_path, start_time="2041-01-01T20:00:00", ntimes=1, nchan=1, n_sources=1))
    assert np.isfinite(column(result.ms_path, "UVW")).all()


@pytest.mark.wsclean
@pytest.mark.skipif(shutil.which("wsclean") is None, reason="WSClean is not installed")
def test_wsclean_finds_sources_where_they_are(tmp_path):
    from astropy.io import fits
    from astropy.wcs import WCS

    # The middle of a pixel, 80 to the east and 50 to the north of the centre, by the inverse SIN projection.
    east, north = (n * 10 / 206264.80624709636 for n in (80, 50))
    depth = math.sqrt(1 - east**2 - north**2)
    dec = math.asin(north * math.cos(DEC) + depth * math.sin(DEC))
    ra = RA + math.atan2(east, depth * math.cos(DEC) - north * math.sin(DEC))
    points = ((ra, dec, 1.0), (RA - 0.001, DEC - 0.002, 0.3))
    result = simulate(config(tmp_path, telescope="meerkat", n_sources=0, points=points, ntimes=3, nchan=4, fov=0.02))
    command = "wsclean -quiet -niter 0 -size 256 256 -scale 10asec -pol i -no-update-model-required -name img"
    subprocess.run([*command.split(), str(result.ms_path)], cwd=tmp_path, check=True, timeout=120)
    with fits.open(tmp_path / "img-dirty.fits") as hdus:
        image, wcs = np.squeeze(hdus[0].data), WCS(hdus[0].header).celestial
    y, x = np.unravel_index(np.argmax(image), image.shape)
    found_x, found_y = wcs.world_to_pixel_values(math.degrees(ra), math.degrees(dec))
    assert (x, y) == (128 - 80, 128 + 50)
    assert (found_x, found_y) == (pytest.approx(x, abs=0.01), pytest.approx(y, abs=0.01))
    assert image.max() == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("jax_first", [True, False])
def test_simulating_leaves_the_precision_of_jax_alone(tmp_path: Path, jax_first: bool) -> None:
    # In a process of its own: codex-africanus changes the setting when it is imported, once.
    first = "import jax; " if jax_first else ""
    code = (
        f"{first}from pathlib import Path; from vis2img.simulate.config import SimulateConfig; "
        "from vis2img.simulate.run import simulate; "
        f"simulate(SimulateConfig(Path({str(tmp_path / 'x.ms')!r}), ntimes=1, nchan=1, n_sources=1)); "
        "import jax.numpy as jnp; print(jnp.zeros(1).dtype)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["float32"]


UNFORESEEN = """
import sys
import vis2img.simulate.run as run
from vis2img.cli import main
run.check_room = lambda *room: None
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (["-m", "vis2img.cli"], r"it takes 8\.52MB, and the disk has 2\.\d+MB left; free some space"),
        # Other processes may fill the disk meanwhile: casacore would end the process as it closes its tables.
        (["-c", UNFORESEEN], r"the simulation of .*one\.ms failed: the disk is full; free some space"),
    ],
)
def test_a_full_disk_ends_in_one_line_and_leaves_nothing(tmp_path: Path, program: list[str], words: str) -> None:
    size = ["--ntimes", "4", "--nchan", "16", "--n-sources", "3", "--quiet"]
    command = shlex.join([sys.executable, *program, "simulate", "-o", str(tmp_path / "one.ms"), *size])
    script = f"mount -t tmpfs -o size=2m tmpfs {tmp_path} && {command}; code=$?; ls -A {tmp_path}; exit $code"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*own_mounts(), "sh", "-c", script], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert re.fullmatch(rf"vis2img: error: .*{words}\n", done.stderr), done.stderr


def test_the_room_that_a_simulation_asks_for_is_more_than_it_takes_and_not_much_more(tmp_path: Path) -> None:
    for changes in ({}, {"nchan": 24, "correlations": "XX,XY,YX,YY"}):
        one = config(tmp_path, out=tmp_path / "size.ms", overwrite=True, **changes)
        simulate(one)
        taken = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
        assert taken < _bytes_of(one) < 1.3 * taken + 3e6
