"""FITS files: axes, coordinates, units, the parameters that travel along, and never half a file."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from vis2img import Image, ImagingParams, Selection, open_ms
from vis2img.coordinates import sky_position
from vis2img.errors import OutputError, ParameterError
from vis2img.files import check_outputs
from vis2img.imaging.fits import (
    celestial_wcs,
    image_header,
    psf_path,
    read_origin,
    read_params,
    read_selection,
    write_image,
)
from vis2img.imaging.image import Split
from vis2img.imaging.picture import draw_image, noise_stretch, save_png
from vis2img.visibilities import Origin

ARCSEC = math.pi / 648000


def an_image(**changes: object) -> Image:
    params = ImagingParams(npix=(64, 40), pixsize=2 * ARCSEC, robust=0.3, taper=5 * ARCSEC, uvrange=(100.0, math.inf))
    rng = np.random.default_rng(0)
    values: dict = {
        "data": rng.normal(size=(40, 64)).astype(np.float32),
        "params": params,
        "phase_centre": (math.radians(201.5), math.radians(-43.0)),
        "freq": (1.284e9, 8e6),
        "beam": (9 * ARCSEC, 6 * ARCSEC, math.radians(30)),
        "weight_sum": 1234.5,
        "nvis": 4321,
        "origin": Origin(telescope="MeerKAT", field="Cen A", frame="J2000", freq_frame="TOPO", column="DATA", spw=(2,)),
        "time_start": 58849.25 * 86400,
    }
    return Image(**{**values, **changes})


def test_header_is_what_casa_and_wsclean_write(tmp_path: Path) -> None:
    image = an_image(psf=np.ones((40, 64), np.float32))
    written = write_image(image, tmp_path / "a.fits")
    assert written == [tmp_path / "a.fits", tmp_path / "a-psf.fits"]
    with fits.open(written[0]) as hdus:
        hdus.verify("exception")
        header, data = hdus[0].header, hdus[0].data
        np.testing.assert_array_equal(data[0, 0], image.data)
    assert data.shape == (1, 1, 40, 64) and data.dtype == ">f4"
    assert [header[f"CTYPE{i}"] for i in (1, 2, 3, 4)] == ["RA---SIN", "DEC--SIN", "FREQ", "STOKES"]
    assert header["CDELT1"] == pytest.approx(-2 / 3600) and header["CDELT2"] == pytest.approx(2 / 3600)
    assert (header["CRPIX1"], header["CRPIX2"]) == (33, 21)
    assert (header["CRVAL1"], header["CRVAL2"]) == (pytest.approx(201.5), pytest.approx(-43.0))
    assert (header["CRVAL3"], header["CDELT3"], header["CRVAL4"]) == (1.284e9, 8e6, 1)
    assert (header["BUNIT"], header["BTYPE"], header["SPECSYS"]) == ("JY/BEAM", "Intensity", "TOPOCENT")
    assert header["BMAJ"] == pytest.approx(9 / 3600) and header["BPA"] == pytest.approx(30)
    assert (header["RADESYS"], header["EQUINOX"]) == ("FK5", 2000)
    assert (header["TELESCOP"], header["OBJECT"]) == ("MeerKAT", "Cen A")
    assert header["DATE-OBS"] == "2020-01-01T06:00:00.000"
    assert header["ORIGIN"].startswith("vis2img ")
    assert header["VI_WEIGH"] == "briggs" and header["VI_TAPER"] == pytest.approx(5)
    assert (header["VI_NVIS"], header["VI_WSUM"], header["VI_SPW"]) == (4321, 1234.5, 2)
    assert "VI_UVMAX" not in header  # FITS has no infinity


@pytest.mark.parametrize(("stokes", "code"), [("I", 1), ("Q", 2), ("U", 3), ("V", 4)])
def test_stokes(stokes: str, code: int) -> None:
    header = image_header(an_image(stokes=stokes))
    assert (header["CTYPE4"], header["CRVAL4"], header["CDELT4"]) == ("STOKES", code, 1)


def test_frequency_axis_is_the_band() -> None:
    header = image_header(an_image(freq=(1.29e9, 8e6), band_centre=1.284e9))
    assert (header["CRVAL3"], header["CDELT3"], header["VI_FREQ"]) == (1.284e9, 8e6, 1.29e9)


def test_unit(tmp_path: Path) -> None:
    path = write_image(an_image(unit=""), tmp_path / "beam.fits")[0]
    assert fits.getheader(path)["BUNIT"] == ""


@pytest.mark.parametrize(("frame", "radesys", "equinox"), [("ICRS", "ICRS", None), ("J2000", "FK5", 2000.0)])
def test_frame(frame: str, radesys: str, equinox: float | None) -> None:
    wcs = celestial_wcs(an_image(origin=Origin(frame=frame)))
    assert wcs.wcs.radesys == radesys
    assert equinox is None or wcs.wcs.equinox == equinox


@pytest.mark.parametrize("dec", [-90.0, -43.0, 0.0, 89.9, 90.0])
def test_wcs_agrees_with_the_projection_used_for_imaging(tmp_path: Path, dec: float) -> None:
    image = an_image(phase_centre=(math.radians(10.0), math.radians(dec)))
    path = write_image(image, tmp_path / "a.fits")[0]
    x, y = np.array([0.0, 32.0, 63.0, 5.0]), np.array([0.0, 20.0, 39.0, 30.0])
    l, m = -(x - 32) * 2 * ARCSEC, (y - 20) * 2 * ARCSEC
    ra, dec_rad = sky_position(l, m, image.phase_centre)
    for wcs in (celestial_wcs(image), WCS(fits.getheader(path)).celestial):
        sky_ra, sky_dec = wcs.wcs_pix2world(x, y, 0)
        offset = (np.radians(sky_ra) - ra + np.pi) % (2 * np.pi) - np.pi
        np.testing.assert_allclose(offset * np.cos(dec_rad), 0, atol=1e-3 * ARCSEC)
        np.testing.assert_allclose(np.radians(sky_dec), dec_rad, atol=1e-3 * ARCSEC)


def test_parameters_come_back_exactly(tmp_path: Path) -> None:
    params = ImagingParams(
        npix=(64, 40),
        pixsize=2 * ARCSEC / 3,
        robust=-0.1234567890123,
        uvrange=(1 / 3, math.inf),
        phase_centre=(-1 / 3, 0.1 + 0.2),
        band=(0.1, 1 / 7 + 0.5),
        keep_baselines=0.7,
        sampling_seed=12345678901,
    )
    path = write_image(an_image(params=params), tmp_path / "a.fits")[0]
    assert read_params(path) == params


def test_what_was_read_comes_back_exactly(tmp_path: Path) -> None:
    """Blanks at the ends of cards, non-ASCII names, and records longer than many cards."""
    selection = Selection(
        field="Große  Wolke " + "a b" * 40 + " ",
        spw=(0, 2),
        column="CORRECTED_DATA",
        channels=(3, None),
        times=(None, 7),
        antennas=("m000", "m 1"),
        weight_column="WEIGHT",
        stokes="IQ",
    )
    split = {"channels_out": 4, "channel": 1, "intervals_out": 2, "interval": 0}
    origin = Origin(selection=json.dumps(dataclasses.asdict(selection)), paths=("/data/a b.ms", "/c.ms"))
    path = write_image(an_image(origin=origin, split=Split(**split)), tmp_path / "a.fits")[0]
    assert read_selection(path) == selection
    assert read_origin(path)["ms"] == list(origin.paths) and read_origin(path)["split"] == split
    assert read_params(path) == an_image().params
    bare = write_image(an_image(), tmp_path / "b.fits")[0]
    with pytest.raises(ParameterError, match=r"b\.fits holds no vis2img data"):
        read_selection(bare)


def test_params_of_a_foreign_file(tmp_path: Path) -> None:
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(tmp_path / "b.fits")
    with pytest.raises(ParameterError, match=r"b\.fits holds no vis2img"):
        read_params(tmp_path / "b.fits")


def test_names_that_fits_cannot_hold(tmp_path: Path) -> None:
    image = an_image(origin=Origin(field="Große\nWolke '$\\x" + "y" * 200, telescope=""), time_start=math.nan)
    header = fits.getheader(write_image(image, tmp_path / "a.fits")[0])
    assert header["OBJECT"].startswith("Gro?e Wolke '$")
    assert "DATE-OBS" not in header


def test_existing_files_stay_unless_told(tmp_path: Path) -> None:
    image = an_image(psf=np.ones((40, 64), np.float32))
    psf_path(tmp_path / "a.fits").write_bytes(b"mine")
    with pytest.raises(OutputError, match="--overwrite"):
        write_image(image, tmp_path / "a.fits")
    assert [p.name for p in tmp_path.iterdir()] == ["a-psf.fits"]
    assert (tmp_path / "a-psf.fits").read_bytes() == b"mine"
    assert len(write_image(image, tmp_path / "a.fits", overwrite=True)) == 2


def test_folders_are_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.fits").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        check_outputs([tmp_path / "a.fits"], overwrite=True)
    with pytest.raises(OutputError, match="does not exist"):
        check_outputs([tmp_path / "no" / "a.fits"], overwrite=True)


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, name: Path) -> None:
        Path(name).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    (tmp_path / "a.fits").write_bytes(b"before")
    monkeypatch.setattr(fits.PrimaryHDU, "writeto", full)
    with pytest.raises(OutputError, match="No space left"):
        write_image(an_image(), tmp_path / "a.fits", overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.fits"]
    assert (tmp_path / "a.fits").read_bytes() == b"before"


def test_off_centre_source_lands_where_the_wcs_says(make_ms, tmp_path: Path) -> None:
    """One source, off centre, unequal sides: flux, pixel and sky position agree with an explicit DFT."""
    pixsize = 4 * ARCSEC
    l, m = -21 * pixsize, 9 * pixsize
    ms = open_ms(make_ms(sources=[(2.5, l, m)]).path)
    image = ms.image(ms.imaging_params(npix=(128, 96), pixsize=pixsize, weighting="natural"))
    path = image.to_fits(tmp_path / "a.fits")[0]
    data = fits.getdata(path)[0, 0]
    y, x = np.unravel_index(np.argmax(data), data.shape)
    assert (x, y) == (64 + 21, 48 + 9)
    assert data.max() == pytest.approx(2.5, rel=1e-3)
    ra, dec = sky_position(l, m, image.phase_centre)
    assert WCS(fits.getheader(path)).celestial.wcs_world2pix(np.degrees(ra), np.degrees(dec), 0) == pytest.approx(
        [85, 57], abs=1e-3
    )


def test_png(tmp_path: Path) -> None:
    import matplotlib.pyplot as plt
    from PIL import Image as Picture

    before = plt.get_fignums()
    path = save_png(an_image(), tmp_path / "a.png")
    assert plt.get_fignums() == before
    with Picture.open(path) as picture:
        assert picture.format == "PNG" and min(picture.size) > 400
    with pytest.raises(OutputError, match="--overwrite"):
        save_png(an_image(), path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_beam_ellipse_has_the_position_angle() -> None:
    """North through east: for a beam at 30 degrees the upper end of the major axis leans to the left."""
    from matplotlib.figure import Figure

    image = an_image()
    ax = draw_image(image, Figure().add_subplot(projection=image.wcs))
    ellipse = next(p for p in ax.patches if p.get_gid() == "beam")
    assert (ellipse.width, ellipse.height) == (pytest.approx(3.0), pytest.approx(4.5))
    x, y = max(ellipse.get_vertices(), key=lambda end: end[1]) - np.array(ellipse.center)
    assert math.degrees(math.atan2(-x, y)) == pytest.approx(30)


@pytest.mark.parametrize("data", [np.zeros((8, 8)), np.full((8, 8), np.nan), np.eye(8)])
def test_stretch_survives_dull_images(data: np.ndarray) -> None:
    norm = noise_stretch(data)
    assert norm.vmin < norm.vmax
