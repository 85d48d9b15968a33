"""Simulated observations give back what is known of them: fluxes, positions, noise, and the sky at two telescopes."""

import json
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from casacore.tables import required_ms_desc, table

pytest.importorskip("simms")

from vis2img.dataset import open_ms
from vis2img.imaging.image import Image
from vis2img.imaging.params import ImagingParams
from vis2img.simulate.config import SimulateConfig
from vis2img.simulate.run import simulate
from vis2img.simulate.sky.counts import number_between
from vis2img.simulate.truth.truth import Truth

ARCSEC = math.pi / 180 / 3600
LIGHT_SPEED = 299792458.0
CENTRE = (1.0, -0.5)


def offset(east_arcsec: float, north_arcsec: float) -> tuple[float, float]:
    """Return RA and Dec of the inverse SIN projection at ``CENTRE``, written out here."""
    l, m = east_arcsec * ARCSEC, north_arcsec * ARCSEC
    n = math.sqrt(1 - l * l - m * m)
    dec = math.asin(m * math.cos(CENTRE[1]) + n * math.sin(CENTRE[1]))
    return CENTRE[0] + math.atan2(l, n * math.cos(CENTRE[1]) - m * math.sin(CENTRE[1])), dec


def fitted(image: Image, ra: float, dec: float) -> tuple[float, float, float]:
    """Return peak flux and pixel (x, y) of a source by a parabola through the logarithms of 3 x 3 pixels."""
    x0, y0 = image.wcs.world_to_pixel_values(math.degrees(ra), math.degrees(dec))
    cx, cy = round(float(x0)), round(float(y0))
    stamp = image.data[cy - 1 : cy + 2, cx - 1 : cx + 2]
    assert stamp.shape == (3, 3)
    y, x = np.mgrid[-1:2, -1:2].reshape(2, -1)
    terms = np.stack([np.ones(9), x, y, x * x, x * y, y * y], axis=1)
    c, cx1, cy1, cxx, cxy, cyy = np.linalg.lstsq(terms, np.log(stamp.ravel()), rcond=None)[0]
    px, py = np.linalg.solve([[2 * cxx, cxy], [cxy, 2 * cyy]], [-cx1, -cy1])
    return math.exp(c + (cx1 * px + cy1 * py) / 2), cx + px, cy + py


@pytest.fixture(scope="module")
def bright(tmp_path_factory):
    """Isolated points of a few Jy among noise, beam and calibration errors off, with spectra of their own."""
    folder = tmp_path_factory.mktemp("bright")
    rows = ["ra_deg,dec_deg,flux_jy,spectral_index"]
    rng = np.random.default_rng(5)
    for east, north in ((-1500, -1100), (1300, -900), (120, 60), (-700, 1400), (1600, 1500)):
        ra, dec = offset(east + rng.uniform(-3, 3), north + rng.uniform(-3, 3))
        rows.append(f"{math.degrees(ra)!r},{math.degrees(dec)!r},{rng.uniform(1, 3)!r},{rng.uniform(-1, 0)!r}")
    (folder / "points.csv").write_text("\n".join(rows) + "\n")
    config = SimulateConfig(
        out=folder / "bright.ms", phase_centre=CENTRE, catalogue=folder / "points.csv", ntimes=40, dtime=60.0, nchan=8,
        start_freq=1.2e9, chan_width=25e6, sefd=400.0,
    )  # fmt: skip
    return simulate(config).ms_path


def test_bright_sources_come_back(bright):
    """Flux within 2% and position within 0.1 pixel, over a whole degree, off the pixel grid."""
    ms, truth = open_ms(bright), Truth.read(bright)
    image = ms.image(ImagingParams((1800, 1800), 2.5 * ARCSEC, weighting="briggs", robust=-1.0))
    freqs, weights = image.channels
    np.testing.assert_allclose(freqs, 1.2e9 + 25e6 * np.arange(8))
    for source in truth.sources:
        flux, x, y = fitted(image, source.ra, source.dec)
        expected = image.wcs.world_to_pixel_values(math.degrees(source.ra), math.degrees(source.dec))
        alpha = source.components[0].spectral_index
        mean = source.flux * np.average((freqs / 1.2875e9) ** alpha, weights=weights)  # fluxes are those of mid-band
        assert flux == pytest.approx(mean, rel=0.02)
        assert (x, y) == (pytest.approx(float(expected[0]), abs=0.1), pytest.approx(float(expected[1]), abs=0.1))


@pytest.mark.parametrize("weighting", ["natural", "briggs"])
def test_noise_of_an_empty_field_follows_the_radiometer_equation(tmp_path, weighting):
    """SEFD / sqrt(2 Delta nu t N) for natural weights, worse by sqrt(sum w^2) sqrt(n) / sum w for others; within 5%."""
    point = (*offset(20_000, 0), 1e-9)
    config = SimulateConfig(
        out=tmp_path / "empty.ms", phase_centre=CENTRE, n_sources=0, points=(point,), ntimes=12, dtime=8.0, nchan=6,
        start_freq=1.28e9, chan_width=1e6, sefd=420.0,
    )  # fmt: skip
    ms = open_ms(simulate(config).ms_path)
    image = ms.image(ImagingParams((768, 768), 3 * ARCSEC, weighting=weighting, rank_filter=0))
    # Two hands of 2016 baselines: each sample of Stokes I has sigma / sqrt(2).
    sigma = 420.0 / math.sqrt(2 * 1e6 * 8.0)
    expected = sigma / math.sqrt(2 * 2016 * 12 * 6)
    if weighting == "briggs":
        from vis2img.imaging.weighting import imaging_weights

        weights = imaging_weights([ms.read()], image.params).parts[0].astype(float)
        expected *= math.sqrt(np.sum(weights**2)) * math.sqrt(weights.size) / weights.sum()
    assert image.nvis == 2016 * 12 * 6
    assert image.data.std() == pytest.approx(expected, rel=0.05)


def test_one_sky_at_two_telescopes_differs_by_the_instrument_only(tmp_path):
    """The same catalogue by MeerKAT and by the VLA: other beams, other noise, the same fluxes at the same places."""
    rows = ["ra_deg,dec_deg,flux_jy"]
    places = [offset(*at) for at in ((-400, 300), (350, -200), (60, 500))]
    rows += [
        f"{math.degrees(ra)!r},{math.degrees(dec)!r},{flux}" for (ra, dec), flux in zip(places, (1, 2, 3), strict=True)
    ]
    (tmp_path / "sky.csv").write_text("\n".join(rows) + "\n")
    beams, fluxes = [], []
    for telescope, hours in (("meerkat", 1.0), ("vla-b", 1.0)):
        config = SimulateConfig(
            out=tmp_path / f"{telescope}.ms", telescope=telescope, phase_centre=CENTRE, catalogue=tmp_path / "sky.csv",
            ntimes=40, dtime=hours * 90, nchan=6, start_freq=1.3e9, chan_width=20e6,
        )  # fmt: skip
        ms = open_ms(simulate(config).ms_path)
        assert ms.meta.telescope == {"meerkat": "MeerKAT", "vla-b": "EVLA"}[telescope]
        image = ms.image(ImagingParams((1024, 1024), 1.5 * ARCSEC, weighting="uniform", rank_filter=0))
        beams.append(image.beam[0])
        found = [fitted(image, ra, dec) for ra, dec in places]
        for (ra, dec), (_, x, y) in zip(places, found, strict=True):
            expected = image.wcs.world_to_pixel_values(math.degrees(ra), math.degrees(dec))
            assert np.hypot(x - expected[0], y - expected[1]) < 0.2
        fluxes.append([flux for flux, _, _ in found])
    assert abs(beams[0] / beams[1] - 1) > 0.1  # another instrument indeed
    np.testing.assert_allclose(fluxes[0], [1, 2, 3], rtol=0.05)
    np.testing.assert_allclose(fluxes[1], [1, 2, 3], rtol=0.05)


def test_primary_beam_dims_by_what_the_image_correction_restores(tmp_path):
    """The beam that is put on at simulation is the one that ``--pb`` divides out: catalogue fluxes come back."""
    from vis2img.products.products import beam_of

    places = [offset(*at) for at in ((0, 1000), (1200, -900), (-300, -1600))]
    points = tuple((ra, dec, flux) for (ra, dec), flux in zip(places, (3.0, 2.0, 2.5), strict=True))
    values = dict(
        phase_centre=CENTRE, n_sources=0, points=points, ntimes=30, dtime=120.0, nchan=6, start_freq=1.1e9,
        chan_width=60e6, sefd=0.0,
    )  # fmt: skip
    ms = open_ms(simulate(SimulateConfig(out=tmp_path / "pb.ms", primary_beam=True, **values)).ms_path)
    image = ms.image(ImagingParams((1440, 1440), 2.5 * ARCSEC, weighting="briggs", robust=-1.0))
    power = beam_of(image)
    for ra, dec, flux in points:
        apparent, x, y = fitted(image, ra, dec)
        here = float(power[round(y), round(x)])
        assert here < 0.9
        assert apparent / here == pytest.approx(flux, rel=0.03)


def test_the_beam_turns_with_the_parallactic_angle(tmp_path):
    """A source at half power over 8 h, against katbeam and astropy's direction of the zenith."""
    from astropy.coordinates import SkyCoord
    from katbeam import JimBeam

    ra, dec = offset(1500, 1400)
    config = SimulateConfig(
        out=tmp_path / "turn.ms", primary_beam=True, phase_centre=CENTRE, n_sources=0, points=((ra, dec, 1.0),),
        ntimes=16, dtime=1800.0, nchan=1, start_freq=1.284e9, chan_width=1e6, sefd=0.0,
    )  # fmt: skip
    ms = simulate(config).ms_path
    with table(str(ms), ack=False) as t:
        seen = np.abs(t.getcol("DATA")[:, 0, 0]).reshape(16, -1).mean(axis=1)
        days = t.getcol("TIME").reshape(16, -1)[:, 0] / 86400
    sidereal = np.radians(280.46061837 + 360.98564736629 * (days - 51544.5)) + math.radians(21.4438)
    model, centre = JimBeam("MKAT-AA-L-JIM-2020"), SkyCoord(*CENTRE, unit="rad")
    target = SkyCoord(ra, dec, unit="rad")
    separation, position_angle = centre.separation(target).deg, centre.position_angle(target).rad
    expected = []
    for lst in sidereal:
        zenith = centre.position_angle(SkyCoord(lst % (2 * math.pi), math.radians(-30.7129), unit="rad")).rad
        # Facing south or north alike: x to the right of an observer who looks at the source, y towards the zenith.
        from_zenith = position_angle - zenith
        x, y = -separation * math.sin(from_zenith), separation * math.cos(from_zenith)
        expected.append(float(model.I(np.array([x]), np.array([y]), 1284.0)[0]))
    assert np.ptp(expected) > 0.015
    np.testing.assert_allclose(seen, expected, atol=0.003)


def point(tmp_path: Path, **changes) -> Path:
    """Observe one unit point at the phase centre without noise: what is seen is what is done to it."""
    values = dict(phase_centre=CENTRE, n_sources=0, points=((*CENTRE, 1.0),), ntimes=20, nchan=8, sefd=0.0)
    return simulate(SimulateConfig(out=tmp_path / "point.ms", telescope="kat-7", **{**values, **changes})).ms_path


def columns(ms: Path, *names: str) -> list[np.ndarray]:
    with table(str(ms), ack=False) as t:
        return [t.getcol(name) for name in names]


def test_gains_are_by_antenna_and_feed_and_in_the_truth(tmp_path):
    ms = point(tmp_path, gain_amplitude=0.1, gain_phase=0.2, gain_timescale=30.0, bandpass_ripple=0.05)
    data, first, second = columns(ms, "DATA", "ANTENNA1", "ANTENNA2")
    with fits.open(f"{ms}.truth.fits") as hdus:
        gains, bandpass = hdus["GAINS"].data, hdus["BANDPASS"].data
    assert gains.shape == (20, 7, 2, 2) and bandpass.shape == (7, 8)
    complex_gain = gains[..., 0] + 1j * gains[..., 1]
    time = np.repeat(np.arange(20), 21)
    for feed in (0, 1):
        expected = complex_gain[time, first, feed] * complex_gain[time, second, feed].conj()
        expected = expected[:, None] * bandpass[first] * bandpass[second]
        np.testing.assert_allclose(data[..., feed], expected, rtol=1e-5)
    assert np.abs(data[..., 0] - data[..., 1]).std() > 0.05  # the feeds have gains of their own
    closure = data[0::21, 0, 0] * data[6::21, 0, 0] * data[1::21, 0, 0].conj()  # 01, 12, 02
    assert second[:7].tolist() == [1, 2, 3, 4, 5, 6, 2] and first[6] == 1
    assert np.abs(np.angle(closure)).max() < 1e-5 < np.abs(np.angle(data[0::21, 0, 0])).max()


def test_missing_antennas_and_flags_are_in_data_and_truth(tmp_path):
    ms = point(tmp_path, missing_antennas=2, flag_fraction=0.2)
    flag, flag_row, first, second = columns(ms, "FLAG", "FLAG_ROW", "ANTENNA1", "ANTENNA2")
    names = json.loads(Path(f"{ms}.truth.json").read_text())["missing"]
    with table(f"{ms}::ANTENNA", ack=False) as t:
        away = [i for i, name in enumerate(t.getcol("NAME")) if name in names]
    assert len(away) == 2
    touched = np.isin(first, away) | np.isin(second, away)
    assert flag[touched].all() and flag_row[touched].all() and not flag[~touched].all()
    with fits.open(f"{ms}.truth.fits") as hdus:
        rfi, dropped = hdus["RFI"].data, hdus["DROPPED"].data
    expected = (rfi[:, None, :] | dropped[:, :, None]).astype(bool).reshape(-1, 8)
    np.testing.assert_array_equal(flag, np.repeat(expected[..., None], 2, axis=2))


def test_noise_of_cross_hands_is_as_loud_and_the_sky_is_not_in_them(tmp_path):
    ms = point(tmp_path, correlations="XX,XY,YX,YY", sefd=400.0, ntimes=60)
    (data,) = columns(ms, "DATA")
    sigma = 400.0 / math.sqrt(2 * 10e6 * 8.0)
    for corr, mean in enumerate((1, 0, 0, 1)):
        noise = data[..., corr] - mean
        assert noise.real.std() == pytest.approx(sigma, rel=0.03) and noise.imag.std() == pytest.approx(sigma, rel=0.03)
        assert abs(noise.mean()) < 5 * sigma / math.sqrt(noise.size)


def test_blocks_of_times_join_without_a_seam(tmp_path, monkeypatch):
    """What is predicted in three pieces, each on a grid of its own, is what is predicted at once."""
    import vis2img.simulate.observe

    values = dict(
        telescope="meerkat", phase_centre=CENTRE, ntimes=5, dtime=20.0, nchan=4, n_sources=80, sefd=0.0,
        counts_flux=1e-3,
    )  # fmt: skip
    whole = columns(simulate(SimulateConfig(out=tmp_path / "a.ms", **values)).ms_path, "DATA", "UVW", "TIME")
    monkeypatch.setattr(vis2img.simulate.observe, "_BLOCK_SAMPLES", 2 * 2016 * 4)
    pieces = columns(simulate(SimulateConfig(out=tmp_path / "b.ms", **values)).ms_path, "DATA", "UVW", "TIME")
    assert np.abs(pieces[0] - whole[0]).max() < 2e-4 * np.abs(whole[0]).max()
    for one, other in zip(whole[1:], pieces[1:], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", ["cutouts", "classes"])
def test_data_are_the_transform_of_the_truth_s_pictures(tmp_path, kind):
    """Extended sources go to the data by ducc0 and to masks by the truth: both agree by an explicit transform."""
    changes = dict(n_sources=3, classes=("ring", "halo", "frii"))
    if kind == "cutouts":
        rng = np.random.default_rng(4)
        images = 0.01 * rng.normal(size=(2, 41, 41))
        images[:, 14:24, 18:30] += np.linspace(1, 3, 12)  # lopsided
        np.savez(tmp_path / "real.npz", images=images)
        changes = dict(n_sources=0, cutouts=(tmp_path / "real.npz",), n_cutouts=2)
    config = SimulateConfig(
        out=tmp_path / "sky.ms", phase_centre=CENTRE, ntimes=2, nchan=2, sefd=0.0, fov=math.radians(0.25),
        size_range=(60 * ARCSEC, 90 * ARCSEC), start_freq=1.3e9, chan_width=1e6, **changes,
    )  # fmt: skip
    ms = simulate(config).ms_path
    data, uvw = columns(ms, "DATA", "UVW")
    pixsize, npix = 1.5 * ARCSEC, 720
    sky = Truth.read(ms).at_patch(CENTRE, pixsize, npix).brightness()
    y, x = np.nonzero(sky)
    l, m = (npix // 2 - x) * pixsize, (y - npix // 2) * pixsize
    short = np.flatnonzero(np.linalg.norm(uvw, axis=1) < 1500)[::40]
    turns = uvw[short] @ np.stack([l, m, np.sqrt(1 - l**2 - m**2) - 1]) * (1.3e9 / LIGHT_SPEED)
    expected = np.exp(2j * np.pi * turns) @ sky[y, x]
    assert np.abs(expected).max() > 5 * np.abs(expected).min()  # resolved
    assert np.linalg.norm(data[short, 0, 0] - expected) < 0.02 * np.linalg.norm(expected)


@pytest.mark.parametrize("band", ["L", "S2"])
def test_populations_follow_the_counts_at_any_band(tmp_path, band):
    config = SimulateConfig(
        out=tmp_path / "p.ms", band=band, ntimes=1, nchan=2, n_sources=0, counts_flux=2e-4, sefd=0.0
    )
    sources = Truth.read(simulate(config).ms_path).sources
    expected = number_between(2e-4, 0.999 * (config.mid_freq / 1.4e9) ** -0.7, config.mid_freq) * math.radians(1) ** 2
    assert len(sources) == pytest.approx(expected, abs=4 * math.sqrt(expected))


SUBTABLES = ["MAIN", "ANTENNA", "DATA_DESCRIPTION", "FEED", "FIELD", "FLAG_CMD", "HISTORY", "OBSERVATION", "POINTING"]
SUBTABLES += ["POLARIZATION", "PROCESSOR", "SPECTRAL_WINDOW", "STATE"]


@pytest.mark.parametrize("name", SUBTABLES)
def test_every_column_that_casacore_requires_is_there(bright, name):
    """What MeasurementSet::validate checks: required columns with their types and dimensions."""
    with table(f"{bright}" if name == "MAIN" else f"{bright}::{name}", ack=False) as t:
        there = t.getdesc()
    required = {key: value for key, value in required_ms_desc(name).items() if not key.startswith("_")}
    assert len(required) >= 3
    for column, wanted in required.items():
        assert column in there
        assert there[column]["valueType"] == wanted["valueType"], column
        assert there[column].get("ndim") == wanted.get("ndim"), column


def test_rows_point_to_rows_that_exist(bright):
    def of(name: str, column: str) -> np.ndarray:
        with table(f"{bright}::{name}" if name else f"{bright}", ack=False) as t:
            return t.getcol(column)

    antennas, fields = len(of("ANTENNA", "NAME")), len(of("FIELD", "NAME"))
    descriptions = of("DATA_DESCRIPTION", "SPECTRAL_WINDOW_ID")
    assert max(of("", "ANTENNA1").max(), of("", "ANTENNA2").max()) == antennas - 1 == 63
    assert of("", "FIELD_ID").max() < fields and of("", "DATA_DESC_ID").max() < len(descriptions)
    assert np.all(np.diff(of("", "TIME")) >= 0)
    assert of("", "INTERVAL") == pytest.approx(60.0)
    position = of("ANTENNA", "POSITION")
    first, second = of("", "ANTENNA1")[:2016], of("", "ANTENNA2")[:2016]
    lengths = np.linalg.norm(position[second] - position[first], axis=1)
    np.testing.assert_allclose(np.linalg.norm(of("", "UVW")[:2016], axis=1), lengths, rtol=1e-6)
    np.testing.assert_allclose(of("SPECTRAL_WINDOW", "CHAN_FREQ")[0], 1.2e9 + 25e6 * np.arange(8))


@pytest.mark.skipif(shutil.which("msoverview") is None, reason="msoverview (of casacore's apps) is not installed")
def test_casacore_describes_the_observation(bright: Path):
    done = subprocess.run(["msoverview", f"in={bright}", "verbose=T"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for expected in ("MeerKAT", "TARGET", "XX  YY", "Antennas: 64"):
        assert expected in done.stdout + done.stderr
    for complaint in ("SEVERE", "Exception", "rror:"):
        assert complaint not in done.stdout + done.stderr
