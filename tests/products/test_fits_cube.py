"""FITS cubes: frequency and Stokes axes, beams and pixels as astropy and spectral-cube read them."""

from __future__ import annotations

import dataclasses
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from vis2img import Image, ImagingParams
from vis2img.errors import OutputError, ParameterError
from vis2img.imaging.fits import read_origin, read_params
from vis2img.imaging.image import Split
from vis2img.products.fits_cube import check_axes, open_cube, spacing, write_cube
from vis2img.visibilities import Origin

ARCSEC = math.pi / 648000
NX, NY = 64, 40
FIRST, STEP = 900e6, 12.5e6


def plane(index: int, stokes: str = "I", **changes: object) -> Image:
    """An image whose pixels, beam and weights tell which plane it is."""
    number = 100 * "IQUV".index(stokes) + index
    data = (np.arange(NX * NY, dtype=np.float32).reshape(NY, NX) + 10000 * number).astype(np.float32)
    values: dict = {
        "data": data,
        "params": ImagingParams(npix=(NX, NY), pixsize=2 * ARCSEC),
        "phase_centre": (math.radians(201.5), math.radians(-43.0)),
        "freq": (FIRST + STEP * index + 1e5, STEP),
        "band_centre": FIRST + STEP * index,
        "beam": ((9 - 0.5 * index) * ARCSEC, 6 * ARCSEC, math.radians(30 + index)),
        "weight_sum": 10.0 + index,
        "nvis": 100 + number,
        "stokes": stokes,
        "origin": Origin(telescope="MeerKAT", field="Cen A", column="DATA"),
        "time_start": 58849.25 * 86400,
    }
    return Image(**{**values, **changes})


def cube(stokes: str = "I", nplane: int = 4, **changes: object) -> list[list[Image]]:
    return [[plane(i, s, **changes) for i in range(nplane)] for s in stokes]


@pytest.mark.parametrize("stokes", ["I", "IQUV", "QU", "V"])
def test_axes_and_pixels(tmp_path: Path, stokes: str) -> None:
    images = cube(stokes)
    assert write_cube(images, tmp_path / "c.fits") == [tmp_path / "c.fits"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # astropy warns of what the standard does not allow
        with fits.open(tmp_path / "c.fits", memmap=False) as hdus:
            hdus.verify("exception")
            header, data = hdus[0].header, hdus[0].data
            assert [hdu.name for hdu in hdus] == ["PRIMARY", "BEAMS"]
    assert (tmp_path / "c.fits").stat().st_size % 2880 == 0
    assert data.shape == (len(stokes), 4, NY, NX) and data.dtype == ">f4"
    for row, images_of_stokes in enumerate(images):
        for i, image in enumerate(images_of_stokes):
            np.testing.assert_array_equal(data[row, i], image.data)
    assert (header["CRVAL4"], header["CDELT4"]) == ("IQUV".index(stokes[0]) + 1, 1)
    wcs = WCS(header)
    np.testing.assert_allclose(wcs.sub(["spectral"]).wcs_pix2world(np.arange(4), 0)[0], FIRST + STEP * np.arange(4))
    np.testing.assert_allclose(wcs.celestial.wcs_pix2world(NX // 2, NY // 2, 0), [201.5, -43.0])
    assert header["DATE-OBS"] == "2020-01-01T06:00:00.000"
    assert header["VI_NVIS"] == sum(i.nvis for row in images for i in row)
    assert header["VI_WSUM"] == sum(i.weight_sum for row in images for i in row)
    assert header["CASAMBM"] is True and "BMAJ" not in header
    assert read_params(tmp_path / "c.fits") == images[0][0].params


def test_spectral_cube_reads_it(tmp_path: Path) -> None:
    spectral_cube = pytest.importorskip("spectral_cube")
    radio_beam = pytest.importorskip("radio_beam")
    images = cube("IQUV", 3)
    write_cube(images, tmp_path / "c.fits")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = spectral_cube.StokesSpectralCube.read(tmp_path / "c.fits")
        for row, stokes in enumerate("IQUV"):
            part = getattr(read, stokes)
            np.testing.assert_allclose(part.spectral_axis.to_value("Hz"), FIRST + STEP * np.arange(3))
            np.testing.assert_allclose(part.beams.major.to_value("arcsec"), [9, 8.5, 8], rtol=1e-6)
            np.testing.assert_allclose(part.beams.pa.to_value("deg"), [30, 31, 32], rtol=1e-6)
            assert part.unit.to_string() in ("Jy / beam", "beam-1 Jy")
            np.testing.assert_array_equal(part.unmasked_data[2].value, images[row][2].data)
        with fits.open(tmp_path / "c.fits") as hdus:
            beams = radio_beam.Beams.from_fits_bintable(hdus["BEAMS"])
    assert len(beams) == 12
    np.testing.assert_allclose(beams.minor.to_value("arcsec"), 6, rtol=1e-6)


def test_casacore_reads_it(tmp_path: Path) -> None:
    """CASA's own converter: axes, units, pixels and the beam of every plane."""
    casacore_images = pytest.importorskip("casacore.images")
    images = cube("IQUV", 3)
    write_cube(images, tmp_path / "c.fits")
    read = casacore_images.image(str(tmp_path / "c.fits"))
    assert read.shape() == [4, 3, NY, NX] and read.unit() == "Jy/beam"
    np.testing.assert_array_equal(read.getdata([2, 1, 0, 0], [2, 1, NY - 1, NX - 1]).squeeze(), images[2][1].data)
    beams = read.imageinfo()["perplanebeams"]
    assert (beams["nChannels"], beams["nStokes"]) == (3, 4)
    for number in range(12):
        assert beams[f"*{number}"]["major"]["value"] == pytest.approx(9 - 0.5 * (number % 3))
    freq = read.coordinates()["spectral"]
    assert (freq.get_referencevalue(), freq.get_increment()) == (FIRST, STEP)


def test_beam_table_is_that_of_casa(tmp_path: Path) -> None:
    write_cube(cube("QU", 3), tmp_path / "c.fits")
    with fits.open(tmp_path / "c.fits") as hdus:
        table, header = hdus["BEAMS"].data, hdus["BEAMS"].header
        assert table.names == ["BMAJ", "BMIN", "BPA", "CHAN", "POL"]
        assert [header[f"TUNIT{i}"] for i in (1, 2, 3)] == ["arcsec", "arcsec", "deg"]
        assert (header["NCHAN"], header["NPOL"], header["EXTVER"]) == (3, 2, 1)
        np.testing.assert_array_equal(table["CHAN"], [0, 1, 2, 0, 1, 2])
        np.testing.assert_array_equal(table["POL"], [0, 0, 0, 1, 1, 1])


def test_one_beam_stays_in_the_header(tmp_path: Path) -> None:
    same = (9 * ARCSEC, 6 * ARCSEC, 0.5)
    write_cube(cube("IQ", 3, beam=same), tmp_path / "c.fits")
    with fits.open(tmp_path / "c.fits") as hdus:
        assert len(hdus) == 1 and "CASAMBM" not in hdus[0].header
        assert hdus[0].header["BMAJ"] == pytest.approx(9 / 3600)
    spectral_cube = pytest.importorskip("spectral_cube")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = spectral_cube.SpectralCube.read(tmp_path / "c.fits")
    assert read.beam.minor.to_value("arcsec") == pytest.approx(6)


def test_empty_planes_are_nan(tmp_path: Path) -> None:
    images: list[list[Image | None]] = [[plane(0), None, plane(2), None]]
    write_cube(images, tmp_path / "c.fits")
    with fits.open(tmp_path / "c.fits") as hdus:
        hdus.verify("exception")
        assert np.isnan(hdus[0].data[0, [1, 3]]).all() and np.isfinite(hdus[0].data[0, [0, 2]]).all()
        assert (hdus[0].header["CRVAL3"], hdus[0].header["CDELT3"]) == (FIRST, STEP)
        np.testing.assert_allclose(hdus["BEAMS"].data["BMAJ"], [9, 0, 8, 0])


def test_the_header_is_that_of_all_planes(tmp_path: Path) -> None:
    """It does not call itself one plane of the split, and has the unit of the images."""
    split = Split(channels_out=3, channel=0, intervals_out=2, interval=1)
    origin = Origin(paths=("a.ms",), selection="{}")
    write_cube(cube("IQ", 3, origin=origin, split=split, unit=""), tmp_path / "c.fits")
    assert read_origin(tmp_path / "c.fits")["split"] == {"channels_out": 3, "intervals_out": 2, "interval": 1}
    assert fits.getheader(tmp_path / "c.fits")["BUNIT"] == ""


def test_planes_in_any_order(tmp_path: Path) -> None:
    freqs = [FIRST + STEP * i for i in range(3)]
    with open_cube(tmp_path / "a.fits", "IQ", freqs) as out:
        for i in (2, 0, 1):
            for stokes in "QI":
                out.put(plane(i, stokes), i)
        assert not (tmp_path / "a.fits").exists()
        with pytest.raises(ParameterError, match="no plane 3 of Stokes I"):
            out.put(plane(3), 3)
        with pytest.raises(ParameterError, match="no plane 0 of Stokes V"):
            out.put(plane(0, "V"), 0)
        other = dataclasses.replace(plane(0), params=ImagingParams(npix=(NY, NY), pixsize=2 * ARCSEC))
        with pytest.raises(ParameterError, match="one size"):
            out.put(other, 0)
    write_cube(cube("IQ", 3), tmp_path / "b.fits")
    a, b = fits.getdata(tmp_path / "a.fits"), fits.getdata(tmp_path / "b.fits")
    np.testing.assert_array_equal(a, b)
    assert fits.getheader(tmp_path / "a.fits", "BEAMS") == fits.getheader(tmp_path / "b.fits", "BEAMS")


def test_point_spread_functions_beside_it(tmp_path: Path) -> None:
    images = cube("I", 2, psf=np.full((NY, NX), 0.5, np.float32))
    written = write_cube(images, tmp_path / "c.fits")
    assert [path.name for path in written] == ["c.fits", "c-psf.fits"]
    assert np.all(fits.getdata(written[1]) == 0.5)


def test_one_plane(tmp_path: Path) -> None:
    write_cube([[plane(0, "U")]], tmp_path / "c.fits")
    header = fits.getheader(tmp_path / "c.fits")
    assert (header["CRVAL3"], header["CDELT3"], header["CRVAL4"]) == (FIRST, STEP, 3)
    assert "BMAJ" in header


def test_spacing() -> None:
    assert spacing([1.0, 2.0, 3.0]) == 1
    assert spacing([3.0, 2.0, 1.0]) == -1
    assert spacing([0.0, 1.0009, 2.0]) == 1
    assert spacing([0.0, 1.002, 2.0]) is None
    assert spacing([1.0, 1.0]) is None and spacing([1.0]) is None


@pytest.mark.parametrize(
    ("stokes", "freqs", "message"),
    [
        ("IV", [1.0], "one file per Stokes"),
        ("QI", [1.0], "one file per Stokes"),
        ("", [1.0], "one file per Stokes"),
        ("I", [1.0, 2.0, 4.0], "one file per plane"),
        ("I", [], "at least one plane"),
    ],
)
def test_axes_that_one_file_cannot_hold(stokes: str, freqs: list[float], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        check_axes(stokes, freqs)


def test_rows_that_do_not_belong_together(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="same number of planes"):
        write_cube([[plane(0)], [plane(0, "Q"), plane(1, "Q")]], tmp_path / "c.fits")
    with pytest.raises(ParameterError, match="one Stokes parameter"):
        write_cube([[plane(0), plane(1, "Q")]], tmp_path / "c.fits")
    with pytest.raises(ParameterError, match="another frequency"):
        write_cube([[plane(0), plane(1)], [plane(1, "Q"), plane(2, "Q")]], tmp_path / "c.fits")
    with pytest.raises(ParameterError, match="two that hold an image"):
        write_cube([[plane(0), None]], tmp_path / "c.fits")
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    (tmp_path / "c.fits").write_bytes(b"mine")
    with pytest.raises(OutputError, match="--overwrite"):
        write_cube(cube(), tmp_path / "c.fits")
    with pytest.raises(ZeroDivisionError), open_cube(tmp_path / "c.fits", "I", [1.0], overwrite=True) as out:
        out.put(plane(0), 1 // 0)
    with (
        pytest.raises(ParameterError, match="no plane of the cube"),
        open_cube(tmp_path / "c.fits", "I", [1.0], overwrite=True),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["c.fits"]
    assert (tmp_path / "c.fits").read_bytes() == b"mine"
    write_cube(cube(), tmp_path / "c.fits", overwrite=True)
    assert fits.getheader(tmp_path / "c.fits")["NAXIS3"] == 4
