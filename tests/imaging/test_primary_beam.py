"""MeerKAT's primary beam: against katbeam itself, published widths, other image centres, and the correction."""

from __future__ import annotations

import dataclasses
import math
import sys
from typing import Any

import numpy as np
import pytest

from vis2img import Image, ImagingParams
from vis2img.coordinates import direction_cosines, parallactic_angles, sky_position
from vis2img.errors import ParameterError
from vis2img.imaging.primary_beam import correct, primary_beam, receiver
from vis2img.products.products import beam_of
from vis2img.visibilities import Origin

katbeam = pytest.importorskip("katbeam")
ARCSEC = math.pi / 648000
POINTING = (math.radians(60.0), math.radians(-30.0))
TRANSIT = np.array([0.0])  # parallactic angle: elevation along declination


def beam(freqs=(1284e6,), weights=None, *, npix=(256, 192), pixsize=20 * ARCSEC, phase_centre=POINTING, **options):
    freqs = np.asarray(freqs, float)
    weights = np.ones(len(freqs)) if weights is None else np.asarray(weights, float)
    telescope = options.pop("telescope", "MeerKAT")
    angles, angle_weights = options.pop("parallactic", None), options.pop("angle_weights", None)
    if angles is not None:
        options["turns"] = (angles, np.ones(len(angles)) if angle_weights is None else angle_weights)
    return primary_beam(telescope, (freqs, weights), POINTING, phase_centre, npix, pixsize, **options)


def katbeam_power(x, y, freq, angle=0.0, name="MKAT-AA-L-JIM-2020", npix=(256, 192), pixsize=20 * ARCSEC):
    """Stokes I power of katbeam at pixels (x, y) of an image on the pointing, the dish turned by ``angle``."""
    east, north = np.degrees((npix[0] // 2 - x) * pixsize), np.degrees((y - npix[1] // 2) * pixsize)
    up = east * np.sin(angle) + north * np.cos(angle)
    right = -east * np.cos(angle) + north * np.sin(angle)
    return katbeam.JimBeam(name).I(right, up, freq / 1e6)


@pytest.mark.parametrize("npix", [(256, 192), (64, 400)])
@pytest.mark.parametrize("angle", [0.0, 0.7, -2.0])
def test_equals_katbeam_at_every_pixel(npix: tuple[int, int], angle: float) -> None:
    got = beam(npix=npix, parallactic=np.array([angle]))
    y, x = np.mgrid[: npix[1], : npix[0]]
    assert got.dtype == np.float32 and got.shape == (npix[1], npix[0])
    np.testing.assert_allclose(got, katbeam_power(x, y, 1284e6, angle, npix=npix), atol=3e-5)


def test_channels_count_by_their_weight() -> None:
    """Many channels of uneven weight, shared evaluations and all: the plain weighted mean of katbeam."""
    rng = np.random.default_rng(0)
    freqs = np.linspace(900e6, 1650e6, 300)
    weights = rng.uniform(0, 2, 300) * (rng.random(300) > 0.3)
    x, y = rng.integers(0, 256, 40), rng.integers(0, 192, 40)
    expected = sum(w * katbeam_power(x, y, f) for f, w in zip(freqs, weights, strict=True)) / weights.sum()
    got = beam(freqs, weights, parallactic=TRANSIT)[y, x]
    np.testing.assert_allclose(got, expected, atol=1e-4)
    permuted = rng.permutation(300)
    np.testing.assert_allclose(beam(freqs[permuted], weights[permuted], parallactic=TRANSIT)[y, x], got, atol=1e-6)


def test_without_angles_it_is_the_mean_over_a_whole_turn() -> None:
    got = beam(pixsize=30 * ARCSEC)
    x, y = np.arange(0, 256, 17), np.arange(0, 192, 12)[:16]
    x = x[: len(y)]
    angles = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    expected = np.mean([katbeam_power(x, y, 1284e6, a, pixsize=30 * ARCSEC) for a in angles], axis=0)
    np.testing.assert_allclose(got[y, x], expected, atol=1e-4)
    # A function of the radius: the same left, right, up and down of the centre at (128, 96).
    for d in (20, 50, 80):
        around = [got[96, 128 + d], got[96, 128 - d], got[96 + d, 128], got[96 - d, 128]]
        np.testing.assert_allclose(around, around[0], atol=1e-4)


def test_peak_and_width_as_published() -> None:
    """67 arcmin at 1284 MHz (Mauch et al. 2020, ApJ 888, 61), which is near 1.2 lambda / D for D = 13.96 m."""
    size = 1024
    row = beam(npix=(size, 32), pixsize=10 * ARCSEC)[16]
    assert row.max() == pytest.approx(1, abs=1e-3) and abs(int(row.argmax()) - size // 2) <= 2
    above = np.flatnonzero(row >= 0.5)
    fwhm_arcmin = (above[-1] - above[0] + 1) * 10 / 60
    assert fwhm_arcmin == pytest.approx(67, abs=1)
    wavelength = 299_792_458.0 / 1284e6
    assert fwhm_arcmin == pytest.approx(math.degrees(1.2 * wavelength / 13.96) * 60, rel=0.05)


def test_another_phase_centre_shows_the_same_sky() -> None:
    """The beam stays on the pointing: the same direction, seen in an image of another centre, has the same value."""
    away = sky_position(np.array(0.006), np.array(-0.004), POINTING)
    centre = (float(away[0]), float(away[1]))
    options = {"parallactic": TRANSIT, "npix": (512, 512), "pixsize": 10 * ARCSEC}
    shifted, direct = beam(phase_centre=centre, **options), beam(**options)
    l, m = 0.001, 0.0015  # from the pointing
    ra, dec = sky_position(np.array(l), np.array(m), POINTING)
    l2, m2, _ = direction_cosines(ra, dec, centre)
    step = 10 * ARCSEC
    at = shifted[round(256 + m2 / step), round(256 - l2 / step)]
    assert at == pytest.approx(direct[round(256 + m / step), round(256 - l / step)], abs=5e-3)
    y, x = np.unravel_index(shifted.argmax(), shifted.shape)
    l0, m0, _ = direction_cosines(*POINTING, centre)
    assert (x, y) == (pytest.approx(256 - l0 / step, abs=6), pytest.approx(256 + m0 / step, abs=6))
    assert x > 256 and y > 256  # the pointing is west and north of an image centre to its south-east


def test_zero_beyond_the_hemisphere() -> None:
    behind = (POINTING[0] + math.pi, 0.5)
    assert not beam(phase_centre=behind).any()
    wide = beam(npix=(64, 64), pixsize=0.04)  # corners beyond l^2 + m^2 = 1
    assert np.isfinite(wide).all() and abs(wide[0, 0]) < 1e-3


@pytest.mark.parametrize(
    ("low", "high", "name"),
    [
        (856e6, 1711.8e6, "L"),
        (900e6, 1687e6, "L"),  # katbeam's table, and what usable L band data hold
        (544e6, 1087.9e6, "UHF"),
        (580e6, 1015e6, "UHF"),
        (855.9e6, 1700e6, "L"),  # the Doppler shift of another frame
        (1750e6, 2625e6, "S"),
        (1600e6, 1700e6, "L"),
        (600e6, 600e6, "UHF"),
        (900e6, 900e6, "UHF"),  # a guess where two receivers overlap
        (1050e6, 1050e6, "L"),
    ],
)
def test_receiver(low: float, high: float, name: str) -> None:
    assert receiver(low, high) == name


@pytest.mark.parametrize("band", ["UHF", "L"])
@pytest.mark.parametrize("freq", [910e6, 960e6, 1000e6])
def test_the_receiver_that_is_told_is_used(band: str, freq: float) -> None:
    """Where the bands overlap, either model at all pixels that are looked at, and they differ."""
    x, y = np.array([128, 60, 200]), np.array([96, 20, 150])
    got = beam([freq], parallactic=TRANSIT, band=band)[y, x]
    np.testing.assert_allclose(got, katbeam_power(x, y, freq, name=f"MKAT-AA-{band}-JIM-2020"), atol=5e-5)
    other = {"UHF": "L", "L": "UHF"}[band]
    assert np.abs(got - katbeam_power(x, y, freq, name=f"MKAT-AA-{other}-JIM-2020")).max() > 1e-3


def an_image(freq: float, **origin: Any) -> Image:
    """One channel of a MeerKAT image, 96 by 64 pixels of 1 arcmin."""
    return Image(
        data=np.ones((64, 96), np.float32),
        params=ImagingParams(npix=(96, 64), pixsize=60 * ARCSEC),
        phase_centre=POINTING,
        freq=(freq, 1e6),
        beam=(1e-4, 1e-4, 0.0),
        weight_sum=1.0,
        nvis=1,
        channels=(np.array([freq]), np.ones(1)),
        origin=Origin(telescope="MeerKAT", **origin),
    )


def test_every_plane_of_a_band_has_the_beam_of_its_receiver() -> None:
    """Channels below 1088 MHz of L band data are no UHF data."""
    options = {"npix": (96, 64), "pixsize": 60 * ARCSEC}
    for freq in (905e6, 950e6, 1000e6, 1284e6):
        image = an_image(freq, band=(900e6, 1687e6))
        np.testing.assert_array_equal(beam_of(image), beam([freq], band="L", **options))
        if freq < 1088e6:
            np.testing.assert_array_equal(beam_of(image, "UHF"), beam([freq], band="UHF", **options))
    assert np.abs(beam_of(an_image(905e6)) - beam([905e6], band="L", **options)).max() > 1e-3  # nothing told: a guess
    blank = dataclasses.replace(image, nvis=0)
    assert np.isnan(beam_of(blank)).all()


def test_angles_count_by_their_weight_and_those_without_do_not() -> None:
    x, y = np.arange(0, 256, 17), np.arange(0, 192, 12)[:16]
    angles, weights = np.array([0.3, 1.4, 1.41, -2.5, 3.0]), np.array([1.0, 2.0, 0.5, 0.0, 4.0])
    expected = sum(w * katbeam_power(x, y[: len(x)], 1284e6, a) for a, w in zip(angles, weights, strict=True))
    got = beam(parallactic=angles, angle_weights=weights)[y[: len(x)], x]
    np.testing.assert_allclose(got, expected / weights.sum(), atol=5e-5)
    image = dataclasses.replace(an_image(1284e6), times=(np.array([5.1e9, 5.1e9 + 9000]), np.array([1.0, 3.0])))
    turned = parallactic_angles(image.times[0], POINTING)
    options = {"npix": (96, 64), "pixsize": 60 * ARCSEC, "parallactic": turned}
    np.testing.assert_array_equal(beam_of(image), beam(angle_weights=np.array([1.0, 3.0]), **options))
    assert np.abs(beam_of(image) - beam(**options)).max() > 1e-5


def test_a_whole_track_is_the_mean_of_katbeam() -> None:
    """450 angles in groups of neighbours against each on its own."""
    angles = parallactic_angles(5e9 + 64.0 * np.arange(450), (POINTING[0], POINTING[1] + 0.02))
    x, y = np.array([128, 60, 200, 90]), np.array([96, 20, 150, 170])
    expected = np.mean([katbeam_power(x, y, 1284e6, a, pixsize=30 * ARCSEC) for a in angles], axis=0)
    np.testing.assert_allclose(beam(parallactic=angles, pixsize=30 * ARCSEC)[y, x], expected, atol=7e-5)


def test_edges_of_the_band_scale_with_the_wavelength() -> None:
    """katbeam's L table ends at 900 MHz and the band at 856: wider in proportion, not constant."""
    row = beam([860e6], npix=(512, 64), band="L")[32]
    reference = beam([900e6], npix=(512, 64), band="L")[32]
    x = np.arange(512) - 256
    np.testing.assert_allclose(row, np.interp(x * 860 / 900, x, reference), atol=1e-3)


def test_channels_without_weight_do_not_count() -> None:
    got = beam([100e6, 1284e6, 9e9], [0, 1, 0])
    np.testing.assert_array_equal(got, beam())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"telescope": "ALMA"}, "only for MeerKAT"),
        ({"freqs": [300e6]}, "no receiver band of MeerKAT"),
        ({"freqs": [600e6, 1600e6]}, "no receiver band of MeerKAT"),
        ({"freqs": [1284e6], "band": "UHF"}, "outside the UHF band"),
        ({"freqs": [1284e6], "band": "X"}, "use UHF, L, S"),
        ({"weights": [0.0]}, "no channel has weight"),
        ({"weights": [1.0, 1.0]}, "1 frequencies but 2"),
        ({"stokes": "XX"}, "use I, Q, U or V"),
        ({"parallactic": np.array([np.nan])}, "finite"),
        ({"parallactic": np.zeros(2), "angle_weights": np.zeros(2)}, "one with weight"),
        ({"parallactic": np.zeros(2), "angle_weights": np.zeros(3)}, "2 parallactic angles but 3"),
    ],
)
def test_errors_are_one_line(change: dict, message: str) -> None:
    with pytest.raises(ParameterError, match=message) as caught:
        beam(**change)
    assert "\n" not in str(caught.value)


def test_katbeam_that_lacks_the_model_or_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> None:
        raise ValueError(name)

    monkeypatch.setattr(katbeam, "JimBeam", unknown)
    with pytest.raises(ParameterError, match="no S-band model; install a newer one"):
        beam([2.4e9])
    monkeypatch.setitem(sys.modules, "katbeam", None)
    with pytest.raises(ParameterError, match="pip install katbeam"):
        beam()


def test_parallactic_angles_against_astropy() -> None:
    """The position angle of the zenith as astropy computes it, before, near and after transit."""
    from astropy.coordinates import AltAz, EarthLocation, SkyCoord
    from astropy.time import Time
    from astropy.utils import iers

    times = 60000.3 * 86400 + np.arange(0, 86400, 5400.0)
    location = EarthLocation.from_geodetic(21.4439, -30.7110, 1086)
    with iers.conf.set_temp("auto_download", False):
        when = Time(times / 86400, format="mjd", scale="utc")
        target = SkyCoord(POINTING[0], POINTING[1] + 0.4, unit="rad").transform_to(
            AltAz(obstime=when, location=location)
        )
        pole = SkyCoord(0, 90, unit="deg").transform_to(AltAz(obstime=when, location=location))
    # From the pole to the zenith, counted eastwards; azimuth runs east, so the sky seen from inside is mirrored.
    zenith_to_pole = SkyCoord(target.az, target.alt).position_angle(SkyCoord(pole.az, pole.alt)).rad
    got = parallactic_angles(times, (POINTING[0], POINTING[1] + 0.4))
    error = np.degrees(np.angle(np.exp(1j * (got - zenith_to_pole))))
    assert np.abs(error).max() < 1


def test_correct() -> None:
    power = np.array([[1.0, 0.5], [0.05, 0.049]], np.float32)
    image = np.array([[1.0, 1.0], [0.1, 0.1]], np.float32)
    got = correct(image, power)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, [[1, 2], [2, np.nan]], rtol=1e-5)
    assert np.isnan(correct(image, power, cutoff=0.6)).sum() == 3
    assert image[1, 1] == np.float32(0.1)  # the image itself stays
    with pytest.raises(ParameterError, match="cutoff"):
        correct(image, power, cutoff=0.0)
    with pytest.raises(ParameterError, match="its primary beam"):
        correct(image[:1], power)
