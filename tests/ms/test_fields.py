"""Where pictures lie, whatever frame FIELD has directions in: against astropy and an explicit transform.

Truth is made pixel by pixel: the sky position of a pixel by its header and astropy, from there to the frame of FIELD by
astropy, and the sum over the visibilities as they are stored, along the axes of that frame.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import (
    FK4,
    FK5,
    ICRS,
    TETE,
    AltAz,
    BarycentricMeanEcliptic,
    EarthLocation,
    Galactic,
    SkyCoord,
    Supergalactic,
    get_body,
)
from astropy.io import fits
from astropy.time import Time
from astropy.utils import iers
from astropy.wcs import WCS
from astropy.wcs.utils import wcs_to_celestial_frame

from tests.helpers.measurement_sets import CENTRE, START_MJD_S, build_ms
from tests.helpers.oracles import LIGHT_SPEED, dft
from vis2img.dataset import MeasurementSet, open_ms
from vis2img.errors import MeasurementSetError, ParameterError, Vis2imgWarning
from vis2img.imaging.image import Image, make_image
from vis2img.imaging.params import ImagingParams
from vis2img.machine import stderr_dropped
from vis2img.ms.fields import FieldInfo
from vis2img.ms.measures import to_utc
from vis2img.ms.metadata import read_metadata
from vis2img.ms.selection import Selection
from vis2img.units import ARCSEC

PIXSIZE = 10 * ARCSEC
PARAMS = ImagingParams(npix=(48, 40), pixsize=PIXSIZE, weighting="natural")
SOURCES = ((1.0, 12 * PIXSIZE, 7 * PIXSIZE), (0.5, -9 * PIXSIZE, 11 * PIXSIZE))
SITE = EarthLocation.from_geocentric(5109360.0, 2006852.0, -3238948.0, unit="m")
MIDDLE = Time((START_MJD_S + 20.0) / 86400, format="mjd", scale="utc")  # of six times, 8 s apart
FRAMES = {
    "B1950": FK4(equinox="B1950", obstime=MIDDLE),
    "GALACTIC": Galactic(),
    "SUPERGAL": Supergalactic(),
    "ECLIPTIC": BarycentricMeanEcliptic(equinox="J2000"),
    "JMEAN": FK5(equinox=MIDDLE),
    "APP": TETE(obstime=MIDDLE, location=SITE),
    "ICRS": ICRS(),
    "J2000": FK5(equinox="J2000"),
}


@pytest.fixture(autouse=True)
def no_download() -> object:
    with iers.conf.set_temp("auto_download", False), iers.conf.set_temp("iers_degraded_accuracy", "warn"):
        yield


def edit_field(path: Path, change: Callable[[Any], None]) -> None:
    from casacore.tables import table

    with table(f"{path}/FIELD", readonly=False, ack=False) as t:
        change(t)


def set_keyword(path: Path, column: str, subtable: str = "", **measinfo: Any) -> None:
    """Replace what MEASINFO of a column says."""
    from casacore.tables import table

    with table(f"{path}/{subtable}".rstrip("/"), readonly=False, ack=False) as t:
        old = t.getcolkeyword(column, "MEASINFO")
        t.putcolkeyword(column, "MEASINFO", {"type": old["type"], **measinfo})


def field_of(path: Path, **selection: Any) -> FieldInfo:
    bands = open_ms(path).open_parts(Selection(**selection))
    return bands[0].band.field


def lonlat(place: SkyCoord) -> tuple[np.ndarray, np.ndarray]:
    return place.spherical.lon.rad, place.spherical.lat.rad


def explicit(image: Image, uvw: np.ndarray, freq: np.ndarray, vis: np.ndarray, centre, frame) -> np.ndarray:
    """Return the natural dirty image by an explicit sum, along the axes of ``frame`` at ``centre``."""
    ny, nx = image.data.shape
    wcs = image.wcs
    y, x = np.mgrid[:ny, :nx]
    there = SkyCoord(*wcs.pixel_to_world_values(x, y), unit="deg", frame=wcs_to_celestial_frame(wcs))
    lon, lat = lonlat(there.transform_to(frame))
    l = np.cos(lat) * np.sin(lon - centre[0])
    m = np.sin(lat) * np.cos(centre[1]) - np.cos(lat) * np.sin(centre[1]) * np.cos(lon - centre[0])
    n = np.sqrt(1 - l**2 - m**2) - 1
    path = uvw @ np.stack([l.ravel(), m.ravel(), n.ravel()])
    total = sum((vis[:, i] @ np.exp(-2j * np.pi * f / LIGHT_SPEED * path)).real for i, f in enumerate(freq))
    return total.reshape(ny, nx) / vis.size


def apart(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize("name", FRAMES)
def test_images_of_every_frame_lie_where_astropy_has_them(tmp_path: Path, name: str) -> None:
    ms = build_ms(tmp_path / "a.ms", frame=name, sources=SOURCES)
    image = open_ms(ms.path).image(PARAMS)
    header = fits.getheader(image.to_fits(tmp_path / "a.fits")[0])
    assert header["RADESYS"] == ("ICRS" if name == "ICRS" else "FK5")
    assert header.get("EQUINOX") == (None if name == "ICRS" else 2000.0)
    expected = explicit(image, ms.uvw, ms.freq, dft(ms.uvw, ms.freq, SOURCES), CENTRE, FRAMES[name])
    # casacore and astropy differ by up to 0.3 arcsec (the pole of the galaxy, precession): of a beam of 45 arcsec this.
    assert apart(image.data, expected) < 4e-2
    assert image.data.max() > 0.9


def test_numbers_of_j2000_and_icrs_stay_as_they_are(tmp_path: Path) -> None:
    for name in ("J2000", "ICRS"):
        ms = build_ms(tmp_path / f"{name}.ms", frame=name)
        field = field_of(ms.path)
        assert (field.phase_centre, field.frame, field.turn, field.motion) == (CENTRE, name, 0.0, 0.0)
        part = open_ms(ms.path).read_parts()[0]
        np.testing.assert_array_equal(part.uvw, ms.uvw)


@pytest.mark.parametrize("kind", ["int", "own codes", "str"])
def test_frames_of_rows(tmp_path: Path, kind: str) -> None:
    from casacore.tables import makescacoldesc, maketabdesc

    ms = build_ms(tmp_path / "a.ms")
    codes = {"int": 8, "own codes": 71, "str": "galactic"}  # 8 as casacore numbers frames

    def change(t: Any) -> None:
        for column in ("PHASE_DIR", "DELAY_DIR"):
            t.addcols(maketabdesc(makescacoldesc(f"{column}_Ref", "" if kind == "str" else 0)))
            t.putcell(f"{column}_Ref", 0, codes[kind])
            info: dict[str, Any] = {"type": "direction", "VarRefCol": f"{column}_Ref"}
            if kind == "own codes":
                info |= {"TabRefTypes": ["ICRS", "GALACTIC"], "TabRefCodes": np.array([70, 71], np.uint32)}
            t.putcolkeyword(column, "MEASINFO", info)

    edit_field(ms.path, change)
    field = field_of(ms.path)
    ra, dec = lonlat(SkyCoord(*CENTRE, unit="rad", frame="galactic").fk5)
    assert field.phase_centre == pytest.approx((float(ra), float(dec)), abs=3e-6)
    assert field.pointing == field.phase_centre and field.stored == "GALACTIC"

    edit_field(ms.path, lambda t: t.putcell("PHASE_DIR_Ref", 0, "NOWHERE" if kind == "str" else 99))
    with pytest.raises(MeasurementSetError, match=r"FIELD row 0 .*PHASE_DIR .*(NOWHERE|99)"):
        field_of(ms.path)


def test_uvw_may_have_axes_of_their_own(tmp_path: Path) -> None:
    ms = build_ms(tmp_path / "a.ms", frame="GALACTIC")
    along_galactic = field_of(ms.path).turn
    assert abs(along_galactic) > 0.1
    set_keyword(ms.path, "UVW", Ref="J2000")
    assert field_of(ms.path).turn == 0.0

    plain = build_ms(tmp_path / "b.ms")
    set_keyword(plain.path, "UVW", Ref="GALACTIC")
    field = field_of(plain.path)
    here = SkyCoord(*CENTRE, unit="rad", frame="fk5")
    there = here.galactic
    north = SkyCoord(there.l, there.b + 1 * u.arcsec, frame="galactic").fk5
    assert field.phase_centre == CENTRE
    assert math.remainder(field.turn - here.position_angle(north).rad, 2 * math.pi) == pytest.approx(0, abs=1e-4)

    set_keyword(plain.path, "UVW", Ref="AZEL")
    with pytest.raises(MeasurementSetError, match="UVW are said to be along axes of AZEL"):
        open_ms(plain.path)


def test_polynomials_are_taken_at_the_time_of_the_data(tmp_path: Path) -> None:
    ms = build_ms(tmp_path / "a.ms", size_m=200.0)
    rate = np.array([3e-8, -2e-8])  # rad/s

    def change(t: Any) -> None:
        t.putcell("TIME", 0, START_MJD_S - 1000.0)
        t.putcell("NUM_POLY", 0, 1)
        t.putcell("PHASE_DIR", 0, np.array([CENTRE, rate]))

    edit_field(ms.path, change)
    field = field_of(ms.path)
    np.testing.assert_allclose(field.phase_centre, np.array(CENTRE) + 1020 * rate, rtol=0, atol=1e-12)
    last = field_of(ms.path, times=(5, 6))
    np.testing.assert_allclose(last.phase_centre, np.array(CENTRE) + 1040 * rate, rtol=0, atol=1e-12)

    edit_field(ms.path, lambda t: t.putcell("NUM_POLY", 0, 3))
    with pytest.raises(MeasurementSetError, match="2 coefficients of a polynomial, and NUM_POLY says 4"):
        field_of(ms.path)


def write_ephemeris(ms: Path, number: int, place: SkyCoord, times: np.ndarray, geocentric: bool) -> None:
    from casacore.tables import makescacoldesc, maketabdesc, table

    names = ("MJD", "RA", "DEC", "Rho", "RadVel")
    description = maketabdesc([makescacoldesc(name, 0.0) for name in names])
    with table(f"{ms}/FIELD/EPHEM{number}_Body.tab", description, nrow=len(times), ack=False) as t:
        columns = (times, place.ra.deg, place.dec.deg, place.distance.au, 0 * times)
        for name, values in zip(names, columns, strict=True):
            t.putcol(name, np.asarray(values, float))
        t.putkeywords({"posrefsys": "ICRF/ICRS", "GeoDist": 0.0 if geocentric else 6378.0, "NAME": "Body"})

    def change(t: Any) -> None:
        if "EPHEMERIS_ID" not in t.colnames():
            t.addcols(maketabdesc(makescacoldesc("EPHEMERIS_ID", 0)))
        t.putcell("EPHEMERIS_ID", 0, number)
        t.putcell("PHASE_DIR", 0, np.array([[0.0, 1e-4]]))

    edit_field(ms, change)


@pytest.mark.parametrize("geocentric", [False, True])
def test_ephemerides(tmp_path: Path, geocentric: bool) -> None:
    ms = build_ms(tmp_path / "a.ms", frame="ICRS", size_m=200.0)
    days = MIDDLE.mjd + np.arange(-2, 3) / 24
    times = Time(days, format="mjd", scale="utc")
    body = SkyCoord(
        (100 + 5 * np.arange(5)) * u.deg / 10,
        (-20 + 3 * np.arange(5)) * u.deg / 10,
        distance=0.002 * u.au,
        frame="icrs",
    )
    write_ephemeris(ms.path, 3, body, days, geocentric)
    field = field_of(ms.path)
    expected = body.cartesian[2]
    if geocentric:
        place, _ = SITE.get_gcrs_posvel(times[2])
        expected = expected - place
    there = SkyCoord(expected, frame="icrs").spherical_offsets_by(0 * u.rad, 1e-4 * u.rad)
    assert field.frame == "ICRS" and field.moves
    got = SkyCoord(*field.phase_centre, unit="rad", frame="icrs")
    # The Earth's centre is 0.002 au away: to 0.1 arcsec by where the axis of the Earth points.
    assert got.separation(SkyCoord(there.spherical.lon, there.spherical.lat, frame="icrs")).arcsec < 1.0

    edit_field(ms.path, lambda t: t.putcell("EPHEMERIS_ID", 0, 4))
    with pytest.raises(MeasurementSetError, match=r"follows ephemeris 4, and its table FIELD/EPHEM4_\*\.tab is not"):
        field_of(ms.path)


@pytest.mark.parametrize("name", ["JUPITER", "MOON", "SUN"])
def test_bodies_are_seen_from_the_telescope(tmp_path: Path, name: str) -> None:
    ms = build_ms(tmp_path / "a.ms", frame=name, phase_centre=(0.0, 0.0), size_m=20.0)
    field = field_of(ms.path)
    there = get_body(name.lower(), MIDDLE, SITE).transform_to(TETE(obstime=MIDDLE, location=SITE))
    here = SkyCoord(*field.phase_centre, unit="rad", frame="fk5").transform_to(TETE(obstime=MIDDLE, location=SITE))
    # casacore takes the Moon, which moves with the Earth, for a star: aberration.
    assert SkyCoord(there.ra, there.dec).separation(SkyCoord(here.ra, here.dec)).arcsec < 40


def test_what_is_fixed_to_the_earth(tmp_path: Path) -> None:
    """At one time it is one place; over a track the sky passes through it, and no image is made."""
    place = (math.radians(40.0), math.radians(60.0))
    ms = build_ms(tmp_path / "a.ms", frame="AZELGEO", phase_centre=place)
    first = Time(START_MJD_S / 86400, format="mjd", scale="utc")
    az, alt = (angle * u.rad for angle in place)
    expected = SkyCoord(az, alt, frame=AltAz(obstime=first, location=SITE)).transform_to(FK5(equinox="J2000"))
    field = field_of(ms.path, times=(0, 1))
    assert SkyCoord(*field.phase_centre, unit="rad", frame="fk5").separation(expected).arcsec < 2
    assert field.motion == 0
    # UVW are along the pole of date: 20 years of precession turn it.
    assert 1e-6 < abs(field.turn) < 3e-3
    with pytest.raises(MeasurementSetError, match=r"fixed to the Earth \(AZELGEO\) and moves .*--times 0:1"):
        field_of(ms.path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Vis2imgWarning)
        assert open_ms(ms.path).image(PARAMS, Selection(times=(0, 1))).nvis > 0


def test_what_moves_is_told_once_it_matters(tmp_path: Path) -> None:
    ms = build_ms(tmp_path / "a.ms", frame="MOON", phase_centre=(0.0, 0.0), size_m=20000.0)
    with pytest.warns(Vis2imgWarning, match="field 'SKY' follows what moves by .*arcsec either way"):
        field_of(ms.path)


@pytest.mark.parametrize(
    ("direction", "words"),
    [
        ([np.nan, 0.1], "is not finite"),
        ([np.inf, 0.1], "is not finite"),
        ([2.6, 2.0], r"has a declination of 114\.59 deg"),
        ([150.0, -0.5], "degrees in place of radians"),
    ],
)
def test_impossible_directions_are_refused_where_they_are_used(tmp_path: Path, direction, words: str, cli) -> None:
    ms = build_ms(tmp_path / "a.ms")
    edit_field(ms.path, lambda t: t.putcell("PHASE_DIR", 0, np.array([direction])))
    with pytest.raises(MeasurementSetError, match=rf"FIELD row 0 \('SKY'\): its PHASE_DIR {words}|{words}"):
        open_ms(ms.path).read_parts()
    told = cli("info", ms.path)
    assert told.code == 0 and "no direction" in told.out and "FIELD row 0" in told.out


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ({"Ref": 5}, "in the frame 5, which casacore does not know"),
        ({"VarRefCol": ["a", "b"]}, "frame in a column .*, which is not there"),
        ({"VarRefCol": "PHASE_DIR"}, "which PHASE_DIR does not explain"),
    ],
)
def test_damaged_keywords_are_refused_in_one_line(tmp_path: Path, info: dict[str, Any], words: str) -> None:
    ms = build_ms(tmp_path / "a.ms")
    set_keyword(ms.path, "PHASE_DIR", "FIELD", **info)
    with pytest.raises(MeasurementSetError, match=words):
        field_of(ms.path)


def test_directions_that_are_no_numbers_and_odd_codes_of_frequencies(tmp_path: Path) -> None:
    from casacore.tables import makearrcoldesc, maketabdesc

    ms = build_ms(tmp_path / "a.ms")
    odd = {"VarRefCol": "MEAS_FREQ_REF", "TabRefCodes": ["x"], "TabRefTypes": ["TOPO"]}
    for told in (odd, {"VarRefCol": "CHAN_WIDTH"}, {"VarRefCol": 3}):
        set_keyword(ms.path, "CHAN_FREQ", "SPECTRAL_WINDOW", **told)
        assert read_metadata(ms.path).spws[0].frame == ""

    def change(t: Any) -> None:
        t.removecols(["PHASE_DIR"])
        t.addcols(maketabdesc(makearrcoldesc("PHASE_DIR", "", ndim=-1)))
        t.putcell("PHASE_DIR", 0, np.array([["a", "b"]]))

    edit_field(ms.path, change)
    with pytest.raises(MeasurementSetError, match="PHASE_DIR holds no angles"):
        field_of(ms.path)


def test_a_bad_delay_direction_is_no_pointing(tmp_path: Path) -> None:
    ms = build_ms(tmp_path / "a.ms")
    edit_field(ms.path, lambda t: t.putcell("DELAY_DIR", 0, np.array([[np.nan, 9.0]])))
    assert field_of(ms.path).pointing == CENTRE


def test_degrees_are_read_as_the_keywords_say(tmp_path: Path) -> None:
    ms = build_ms(tmp_path / "a.ms")

    def change(t: Any) -> None:
        t.putcell("PHASE_DIR", 0, np.degrees([CENTRE]))
        t.putcolkeyword("PHASE_DIR", "QuantumUnits", ["deg", "deg"])

    edit_field(ms.path, change)
    assert field_of(ms.path).phase_centre == pytest.approx(CENTRE, abs=1e-14)


def test_sets_of_other_frames_go_into_one_image(tmp_path: Path) -> None:
    """A B1950 set of the same sky and one in J2000, against the transform of both along their own axes."""
    first = build_ms(tmp_path / "a.ms", sources=SOURCES)
    here = SkyCoord(*CENTRE, unit="rad", frame="fk5").transform_to(FRAMES["B1950"])
    centre = (float(lonlat(here)[0]), float(lonlat(here)[1]))
    second = build_ms(tmp_path / "b.ms", frame="B1950", phase_centre=centre, seed=3, sources=SOURCES)
    parts = [part for ms in (first, second) for part in open_ms(ms.path).read_parts()]
    image = make_image(parts, PARAMS)
    assert image.origin.frame == "J2000" and image.phase_centre == CENTRE
    shares = [
        explicit(image, ms.uvw, ms.freq, dft(ms.uvw, ms.freq, SOURCES), at, FRAMES[name])
        for ms, at, name in ((first, CENTRE, "J2000"), (second, centre, "B1950"))
    ]
    assert apart(image.data, (shares[0] + shares[1]) / 2) < 1e-2


def test_icrs_and_j2000_are_apart_by_the_frame_bias(tmp_path: Path) -> None:
    from casacore.measures import measures

    parts = []
    for name in ("J2000", "ICRS"):
        ms = build_ms(tmp_path / f"{name}.ms", frame=name)
        parts += open_ms(ms.path).read_parts()
    dm = measures()
    there = dm.measure(dm.direction("ICRS", *(f"{angle!r}rad" for angle in map(float, CENTRE))), "J2000")
    from vis2img.imaging.rotation import in_one_frame

    moved = in_one_frame(parts)[1].phase_centre
    assert moved == pytest.approx((there["m0"]["value"], there["m1"]["value"]), abs=1e-11)
    assert in_one_frame(parts)[0] is parts[0]


def test_sets_of_other_frames_are_one_image_only_where_its_centre_is_given(tmp_path: Path, cli) -> None:
    here = SkyCoord(*CENTRE, unit="rad", frame="fk5").transform_to(FRAMES["B1950"])
    first = build_ms(tmp_path / "a.ms")
    second = build_ms(tmp_path / "b.ms", frame="B1950", phase_centre=(float(here.ra.rad), float(here.dec.rad)), seed=3)
    command = ("image", first.path, second.path, "-o", tmp_path / "x.fits", "--npix", 64, "--pixsize", "10arcsec")
    assert "directions in B1950, " in cli(*command).error()
    assert cli(*command, "--phase-centre", "10h0m0s,-30d0m0s").code == 0


def test_sets_beyond_each_others_horizon_are_refused(tmp_path: Path, cli) -> None:
    first = build_ms(tmp_path / "a.ms")
    second = build_ms(tmp_path / "b.ms", phase_centre=(CENTRE[0] + 2.0, 0.5))
    out = cli("image", first.path, second.path, "-o", tmp_path / "x.fits")
    assert "beyond the horizon" in out.error()


@pytest.mark.parametrize(
    ("code", "name", "system"),
    [
        (0, "REST", "SOURCE"), (1, "LSRK", "LSRK"), (2, "LSRD", "LSRD"), (3, "BARY", "BARYCENT"),
        (4, "GEO", "GEOCENTR"), (5, "TOPO", "TOPOCENT"), (6, "GALACTO", "GALACTOC"), (7, "LGROUP", "LOCALGRP"),
        (8, "CMB", "CMBDIPOL"), (64, "", None), (10922, "", None),
    ],
)  # fmt: skip
def test_spectral_frames(tmp_path: Path, code: int, name: str, system: str | None) -> None:
    from casacore.tables import table

    ms = build_ms(tmp_path / "a.ms")
    with table(f"{ms.path}/SPECTRAL_WINDOW", readonly=False, ack=False) as t:
        t.putcell("MEAS_FREQ_REF", 0, code)
    opened = open_ms(ms.path)
    assert isinstance(opened, MeasurementSet) and opened.meta.spws[0].frame == name
    header = fits.getheader(opened.image(PARAMS).to_fits(tmp_path / "a.fits")[0])
    assert header.get("SPECSYS") == system
    if system:
        assert WCS(header).wcs.specsys == system


def test_windows_of_several_spectral_frames(tmp_path: Path) -> None:
    from casacore.tables import table

    parts = []
    for code in (1, 5):
        ms = build_ms(tmp_path / f"{code}.ms")
        with table(f"{ms.path}/SPECTRAL_WINDOW", readonly=False, ack=False) as t:
            t.putcell("MEAS_FREQ_REF", 0, code)
        parts += open_ms(ms.path).read_parts()
    with pytest.warns(Vis2imgWarning, match="several frames .*LSRK, TOPO"):
        image = make_image(parts, PARAMS)
    assert "SPECSYS" not in fits.getheader(image.to_fits(tmp_path / "a.fits")[0])


@pytest.mark.parametrize("scale", ["TAI", "TT", "TDT", "UT1", "TDB", "UTC"])
def test_times_are_told_in_utc(tmp_path: Path, scale: str) -> None:
    ms = build_ms(tmp_path / "a.ms")
    set_keyword(ms.path, "TIME", Ref=scale)
    own = Time(START_MJD_S / 86400, format="mjd", scale={"TDT": "tt"}.get(scale, scale.lower())).utc
    image = open_ms(ms.path).image(PARAMS)
    header = fits.getheader(image.to_fits(tmp_path / "a.fits")[0])
    assert header["TIMESYS"] == "UTC"
    assert abs((Time(header["DATE-OBS"], scale="utc") - own).sec) < 2e-3
    assert image.time_start == pytest.approx(own.mjd * 86400, abs=1e-3)
    assert read_metadata(ms.path).time_range[0] == image.time_start


def test_sidereal_times_are_refused(tmp_path: Path) -> None:
    ms = build_ms(tmp_path / "a.ms")
    set_keyword(ms.path, "TIME", Ref="LAST")
    with pytest.raises(MeasurementSetError, match=r"column TIME cannot be read as UTC: .*LAST"):
        open_ms(ms.path)


def test_scales_of_rows_are_refused(tmp_path: Path) -> None:
    ms = build_ms(tmp_path / "a.ms")
    set_keyword(ms.path, "TIME", VarRefCol="TimeRef")
    with pytest.raises(MeasurementSetError, match="TIME cannot be read as UTC: its scale is another from row to row"):
        open_ms(ms.path)


def test_times_over_days_and_a_leap_second() -> None:
    days = np.arange(57752.0, 57756.0, 0.37)  # around the end of 2016
    utc = Time(days, format="mjd", scale="tai").utc
    np.testing.assert_allclose(to_utc(days * 86400, "TAI")[:2], utc.mjd[:2] * 86400, rtol=0, atol=1e-4)
    np.testing.assert_allclose(to_utc(days * 86400, "TAI")[-2:], utc.mjd[-2:] * 86400, rtol=0, atol=1e-4)
    odd = np.array([np.nan, 4.9e9, np.inf, 1e300])
    np.testing.assert_array_equal(to_utc(odd, "TAI")[[0, 2, 3]], odd[[0, 2, 3]])


def test_frames_that_are_not_equatorial_do_not_become_headers(tmp_path: Path) -> None:
    from dataclasses import replace

    image = open_ms(build_ms(tmp_path / "a.ms").path).image(PARAMS)
    with pytest.raises(ParameterError, match="not GALACTIC"):
        replace(image, origin=replace(image.origin, frame="GALACTIC")).to_fits(tmp_path / "x.fits")


@pytest.mark.parametrize(
    "name",
    ["B1950", "B1950_VLA", "BMEAN", "BTRUE", "JMEAN", "JTRUE", "JNAT", "APP", "TOPO", "GALACTIC", "SUPERGAL",
     "ECLIPTIC", "MECLIPTIC", "TECLIPTIC"],
)  # fmt: skip
def test_images_of_every_frame_lie_where_casacore_has_them(tmp_path: Path, name: str) -> None:
    """Pixel by pixel by casacore, so that what is left is the image's own error, and the curvature of aberration."""
    from casacore.measures import measures

    ms = build_ms(tmp_path / "a.ms", frame=name, sources=SOURCES)
    image = open_ms(ms.path).image(PARAMS)
    dm = measures()
    with stderr_dropped():
        dm.do_frame(dm.epoch("UTC", f"{(START_MJD_S + 20) / 86400!r}d"))
        dm.do_frame(dm.position("ITRF", "5109360m", "2006852m", "-3238948m"))
    lonlat = []
    y, x = np.mgrid[: image.data.shape[0] : 4, : image.data.shape[1] : 4]
    for ra, dec in np.radians(image.wcs.pixel_to_world_values(x, y)).reshape(2, -1).T.tolist():
        there = dm.measure(dm.direction("J2000", f"{ra!r}rad", f"{dec!r}rad"), name)
        lonlat.append((there["m0"]["value"], there["m1"]["value"]))
    lon, lat = np.array(lonlat).T
    l = np.cos(lat) * np.sin(lon - CENTRE[0])
    m = np.sin(lat) * np.cos(CENTRE[1]) - np.cos(lat) * np.sin(CENTRE[1]) * np.cos(lon - CENTRE[0])
    path = ms.uvw @ np.stack([l, m, np.sqrt(1 - l**2 - m**2) - 1])
    vis = dft(ms.uvw, ms.freq, SOURCES)
    total = sum((vis[:, i] @ np.exp(-2j * np.pi * f / LIGHT_SPEED * path)).real for i, f in enumerate(ms.freq))
    assert apart(image.data[::4, ::4], total.reshape(x.shape) / vis.size) < 1e-3
