"""FITS images as fields: the same views as of the draw that they hold, the sky where the header has it, refusals."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import wcs_to_celestial_frame

from vis2img.cluster.engine import Connection, Engine, connect
from vis2img.coordinates import direction_cosines, sky_position
from vis2img.dataset import open_ms
from vis2img.draws.draw import Draw
from vis2img.draws.field import make_draw
from vis2img.draws.fits_field import FitsField
from vis2img.draws.observed_field import ObservedField
from vis2img.draws.presets import PRESETS
from vis2img.draws.prior import ImagingPrior
from vis2img.draws.sky_image import open_image
from vis2img.errors import MeasurementSetError, ParameterError, Vis2imgWarning
from vis2img.loader.config import LoaderConfig
from vis2img.loader.fields import fields_of, open_fields
from vis2img.loader.loader import Loader
from vis2img.ms.selection import Selection
from vis2img.views.crops import ViewConfig, cut

ARCSEC = math.pi / 180 / 3600
VIEWS = ViewConfig(patch_npix=24, global_size=16, local_size=8, n_local=2)


@pytest.fixture(scope="module")
def workers() -> Iterator[Connection]:
    with connect(Engine(workers=1)) as connection:
        yield connection


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write an image of noise, and a source at one pixel of the file (0-based x, y), with a header of one's own."""

    def make(
        shape: tuple[int, int] = (64, 64),
        source: tuple[int, int] = (40, 20),
        name: str = "image.fits",
        data: np.ndarray | None = None,
        axes: int = 2,
        **cards: object,
    ) -> Path:
        nx, ny = shape
        if data is None:
            data = np.random.default_rng(1).normal(size=(ny, nx)).astype(np.float32)
            data[source[1], source[0]] = 100.0
        header = fits.Header()
        header["CTYPE1"], header["CTYPE2"] = "RA---SIN", "DEC--SIN"
        header["CRVAL1"], header["CRVAL2"] = 150.0, -30.0
        header["CRPIX1"], header["CRPIX2"] = nx // 2 + 1.0, ny // 2 + 1.0
        header["CDELT1"], header["CDELT2"] = -5 / 3600, 5 / 3600
        header["CUNIT1"] = header["CUNIT2"] = "deg"
        for key, value in cards.items():
            if value is None:
                del header[key]
            else:
                header[key] = value
        path = tmp_path / name
        fits.writeto(path, data[(np.newaxis,) * (axes - 2)], header)
        return path

    return make


def fits_draw(path: Path, fov: float = math.inf) -> Draw:
    return FitsField.open(path, fov).draw()


def config(ms: tuple[Path | str, ...], **changes: object) -> LoaderConfig:
    values = {
        "batch_size": 6, "views": VIEWS, "imaging": "image-only", "mode": "sync", "refresh_every": 2,
        "draws_per_field": 2, "pb_limit": 0.0, "engine": Engine(workers=1),
    }  # fmt: skip
    return LoaderConfig(ms=tuple(map(str, ms)), **{**values, **changes})


def test_an_image_of_vis2img_gives_the_views_of_the_draw_it_was_made_from(make_ms, tmp_path, workers) -> None:
    path = make_ms(antennas=9, sources=((1.0, 0.001, -0.002),)).path
    ms = open_ms(path)
    prior = ImagingPrior.for_ms(ms, npix=64, config=PRESETS["image-only"])
    source = ObservedField(str(path), Selection(), prior)
    made = make_draw(source, 1, 0, 0)
    image = ms.image(made.params, nthreads=1)
    image.to_fits(tmp_path / "dirty.fits")
    draw = make_draw(FitsField.open(tmp_path / "dirty.fits"), 0, 3, 5)
    assert (draw.field, draw.index) == (3, 5) and draw.noise == pytest.approx(made.noise, rel=1e-6)
    assert draw.params.weighting == made.params.weighting and draw.params.npix == made.params.npix
    assert draw.phase_centre == pytest.approx(made.phase_centre, abs=1e-12)
    np.testing.assert_allclose(draw.peaks, made.peaks, rtol=1e-9)
    np.testing.assert_array_equal(draw.data, made.data)
    # Through both loaders: the same places, sizes and turns, and the same pixels.
    pixsize = prior.pixsize[0]
    with Loader(config((path,), field_npix=64), seed=3, connection=workers) as loader:
        theirs = [loader.next_batch() for _ in range(3)]
    wanted = config((tmp_path / "dirty.fits",), image_pixsize=pixsize)
    with Loader(wanted, seed=3, connection=workers) as loader:
        ours = [loader.next_batch() for _ in range(3)]
        assert loader.report()["fresh_draws"] == 1  # made once, however long the run
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.global_views, b.global_views, atol=1e-5)
        np.testing.assert_allclose(a.local_views, b.local_views, atol=1e-5)
        np.testing.assert_array_equal(a.turns, b.turns)
        np.testing.assert_allclose(a.position, b.position, atol=1e-10)
    assert ours[0].global_views.std() > 0.1


@pytest.mark.parametrize(
    ("shape", "cards"),
    [
        ((64, 64), {}),
        ((81, 50), {}),
        ((65, 67), {"CDELT1": 5 / 3600}),
        ((64, 70), {"CDELT2": -5 / 3600}),
        ((64, 64), {"CRPIX1": 1.5, "CRPIX2": 90.0}),
        ((64, 64), {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"}),
        ((64, 64), {"CDELT1": None, "CDELT2": None, "CD1_1": -5 / 3600, "CD2_2": 5 / 3600}),
        ((64, 64), {"CRVAL1": 0.01, "CRVAL2": 80.0}),
    ],
)
def test_a_source_is_on_the_sky_where_the_header_has_it(write, shape, cards) -> None:
    path = write(shape, **cards)
    draw = fits_draw(path)
    with fits.open(path) as file:
        ra, dec = WCS(file[0].header).all_pix2world(40, 20, 0)
    assert len(draw.peaks) == 1
    found = np.degrees(sky_position(*draw.peaks[0], draw.phase_centre))
    apart = [(found[0] - ra) % 360 * math.cos(math.radians(dec)) * 3600, (found[1] - dec) * 3600]
    apart[0] = (apart[0] + 1e3) % (360 * 3600 * math.cos(math.radians(dec))) - 1e3
    assert np.abs(apart).max() < 0.05  # arcsec, of 5 arcsec pixels
    # And a view about it shows it in the middle, in the units of the file.
    l, m = draw.peaks[0]
    view = cut(draw, float(l), float(m), 9 * draw.params.pixsize, 9)[:, :, 0]
    assert view[4, 4] == pytest.approx(100.0, rel=1e-3)
    assert draw.params.pixsize == pytest.approx(5 * ARCSEC, rel=1e-5)
    assert all(n % 2 == 0 for n in draw.params.npix)


@pytest.mark.parametrize(
    "cards",
    [
        {"EPOCH": 1950.0},
        {"RADESYS": "FK4", "EQUINOX": 1950.0},
        {"RADESYS": "FK5", "EQUINOX": 1975.0},
        {"CTYPE1": "GLON-SIN", "CTYPE2": "GLAT-SIN"},
        {"CTYPE1": "GLON-SIN", "CTYPE2": "GLAT-SIN", "CDELT2": -5 / 3600},
        {"EQUINOX": 1950.0, "CRVAL2": 89.5},
    ],
)
def test_images_in_other_frames_are_where_astropy_has_them(write, cards) -> None:
    path = write((600, 500), source=(520, 60), **cards)
    draw = fits_draw(path)
    with fits.open(path) as file:
        wcs = WCS(file[0].header)
        there = SkyCoord(*wcs.all_pix2world(520, 60, 0), unit="deg", frame=wcs_to_celestial_frame(wcs)).icrs
    ra, dec = sky_position(*draw.peaks[0], draw.phase_centre, draw.turn)
    assert SkyCoord(ra, dec, unit="rad").separation(there).arcsec < 0.1
    l, m, _ = direction_cosines(there.ra.rad, there.dec.rad, draw.phase_centre, draw.turn)
    np.testing.assert_allclose([l, m], draw.peaks[0], atol=0.1 * ARCSEC)


def test_an_equinox_that_is_no_year_is_told_and_left_alone(write) -> None:
    with pytest.warns(Vis2imgWarning, match="its equinox 0 is no year"):
        image = open_image(write(EQUINOX=0.0))
    assert image.phase_centre == open_image(write(name="plain.fits")).phase_centre and image.turn == 0


def test_the_sky_is_turned_as_draws_are_whatever_the_axes_of_the_file(write) -> None:
    plain = fits_draw(write())
    with fits.open(write(name="again.fits")) as file:
        data = file[0].data
    # CRPIX of pixel 32 in the file's own order.
    mirrored = write(name="x.fits", data=data[:, ::-1], CDELT1=5 / 3600, CRPIX1=32.0)
    upside = write(name="y.fits", data=data[::-1], CDELT2=-5 / 3600, CRPIX2=32.0, axes=4)
    for path in (mirrored, upside):
        draw = fits_draw(path)
        np.testing.assert_array_equal(draw.data, plain.data)
        np.testing.assert_allclose(draw.phase_centre, plain.phase_centre, atol=1e-13)


@pytest.mark.parametrize(
    ("cards", "words"),
    [
        ({"CTYPE1": "ELON-SIN", "CTYPE2": "ELAT-SIN"}, r"must be RA and Dec \(or galactic\), not ELON-SIN, ELAT-SIN"),
        ({"CTYPE1": "X", "CTYPE2": "Y"}, r"must be RA and Dec \(or galactic\), not X, Y"),
        ({"RADESYS": "GAPPT"}, "directions are in GAPPT; reproject it to ICRS"),
        ({"CD1_1": -4 / 3600, "CD1_2": 3 / 3600, "CD2_1": 3 / 3600, "CD2_2": 4 / 3600, "CDELT1": None}, "turned"),
        ({"CDELT2": 6 / 3600}, "oblong"),
        ({"CDELT1": -1.0, "CDELT2": 1.0, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"}, "reproject it to SIN"),
    ],
)
def test_what_is_no_image_of_the_sky_in_sin_is_refused_in_one_line(write, cards, words) -> None:
    path = write(**cards)
    with pytest.raises(MeasurementSetError, match=words) as error:
        open_image(path)
    assert "\n" not in str(error.value) and "image.fits" in str(error.value)


def test_files_that_hold_no_plane_of_stokes_i_are_refused(write, tmp_path) -> None:
    cube = write(data=np.ones((2, 64, 64), np.float32), name="cube.fits")
    with pytest.raises(MeasurementSetError, match="64 x 64 x 2 pixels"):
        open_image(cube)
    polarised = write(name="q.fits", axes=4, CTYPE4="STOKES", CRVAL4=2.0, CRPIX4=1.0, CDELT4=1.0)
    with pytest.raises(MeasurementSetError, match="not of Stokes I"):
        open_image(polarised)
    with pytest.raises(MeasurementSetError, match="30 x 64 pixels"):
        open_image(write((30, 64), (3, 3), name="small.fits"))
    with pytest.raises(MeasurementSetError, match=r"flat\.fits.*no noise"):
        fits_draw(write(data=np.zeros((64, 64), np.float32), name="flat.fits"))
    broken = tmp_path / "broken.fits"
    broken.write_bytes(b"SIMPLE  = nonsense")
    with pytest.raises(MeasurementSetError, match=r"broken\.fits is cut short"):
        open_image(broken)
    short = write(name="short.fits")
    short.write_bytes(short.read_bytes()[:8000])
    with pytest.raises(MeasurementSetError, match=r"short\.fits"):
        fits_draw(short)


def test_blank_pixels_are_in_no_view(write, workers) -> None:
    data = np.random.default_rng(0).normal(size=(128, 128)).astype(np.float32)
    data[:, 64:] = np.nan
    data[100, 30] = np.inf
    path = write((128, 128), data=data)
    draw = fits_draw(path)
    assert draw.noise[0] == pytest.approx(1.0, abs=0.05)
    assert draw.usable[:32, :32].all() and not draw.usable[:, 32:].any() and not draw.usable[50, 15]
    with Loader(config((path,)), seed=0, connection=workers) as loader:
        batches = [loader.next_batch() for _ in range(10)]
    assert all(np.isfinite(batch.global_views).all() and np.isfinite(batch.local_views).all() for batch in batches)
    # The blank half lies at smaller right ascension than the middle.
    assert min(np.degrees(batch.position[:, 0]).min() for batch in batches) > 150.0


def test_patches_lie_in_an_image_that_is_not_square(write, workers) -> None:
    path = write((160, 48))
    with Loader(config((path,), batch_size=32), seed=0, connection=workers) as loader:
        batches = [loader.next_batch() for _ in range(4)]  # a view beyond the edge would be refused
        weight = loader.source.located.maps[0].weight
    box = np.concatenate([batch.box.reshape(-1, 3) for batch in batches]) / (5 * ARCSEC)
    assert np.abs(box[:, 0]).max() > 40  # as far along x as the image reaches
    assert (np.abs(box[:, 1]) + box[:, 2] / 2).max() < 24
    assert 0.1 < (weight > 0).mean() < 0.4


def test_a_field_of_view_takes_the_middle_of_a_large_image(write) -> None:
    path = write((300, 200), (150 + 20, 100 - 10))
    whole, part = fits_draw(path), fits_draw(path, fov=100 * 5 * ARCSEC)
    assert part.data.shape == (1, 100, 100) and whole.data.shape == (1, 200, 300)
    np.testing.assert_array_equal(part.data, whole.data[:, 50:150, 100:200])
    np.testing.assert_allclose(part.peaks, whole.peaks, rtol=1e-9)
    source = fields_of(config((path,), fov=90 * 5 * ARCSEC))[0]
    assert source.prior.fov == pytest.approx(90 * 5 * ARCSEC)
    assert make_draw(source, 0, 0, 0).data.shape == (1, 90, 90)
    # What is too far from SIN at its corners may do in the middle.
    wide = {"CDELT1": -0.2, "CDELT2": 0.2, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"}
    path = write((100, 100), name="wide.fits", **wide)
    with pytest.raises(MeasurementSetError, match=r"data\.fov"):
        open_image(path)
    assert open_image(path, math.radians(7.9)).npix == (40, 40)


def test_patches_are_counted_in_thirds_of_the_beam_unless_told(write) -> None:
    beam = {"BMAJ": 32 / 3600, "BMIN": 18 / 3600, "BPA": 10.0}
    with_beam, without = write(name="beam.fits", **beam), write(name="none.fits")
    assert open_image(with_beam).suggested_pixsize == pytest.approx(8 * ARCSEC)  # sqrt(32 * 18) / 3
    assert open_image(without).suggested_pixsize == pytest.approx(5 * ARCSEC)
    for path, given, angle in ((with_beam, 0.0, 8), (without, 0.0, 5), (with_beam, 6 * ARCSEC, 6)):
        found = open_fields(config((path,), image_pixsize=given))
        assert found.patches[0] == pytest.approx(24 * angle * ARCSEC)


def test_images_stand_beside_measurement_sets_and_bad_ones_are_named(write, make_ms, tmp_path) -> None:
    ms, image = make_ms(antennas=8).path, write()
    bad = write(name="ecliptic.fits", CTYPE1="ELON-SIN", CTYPE2="ELAT-SIN")
    found = open_fields(config((ms, bad, image), weights=(1.0, 2.0, 3.0), field_npix=64))
    assert [type(field) for field in found.fields] == [ObservedField, FitsField] and found.weights == [1.0, 3.0]
    assert list(found.skipped) == [str(bad)] and "ELON" in found.skipped[str(bad)]
    with pytest.raises(MeasurementSetError, match="ELON"):
        fields_of(config((bad,)))
    with pytest.raises(MeasurementSetError, match="does not exist"):
        fields_of(config((tmp_path / "none.fits",)))
    with pytest.raises(ParameterError, match="does not fit"):
        fields_of(config((image,), image_pixsize=20 * ARCSEC))
    with pytest.raises(ParameterError, match="one input channel"):
        fields_of(config((image,), subbands=2))


def test_the_source_is_small_and_its_draws_do_not_vary(write) -> None:
    source = FitsField.open(write((256, 256)))
    assert len(pickle.dumps(source)) < 4000 and not source.prior.varies
    assert pickle.loads(pickle.dumps(source)) == source
    first, other = make_draw(source, 0, 0, 0), make_draw(source, 9, 2, 7)
    np.testing.assert_array_equal(first.data, other.data)
    assert (other.field, other.index) == (2, 7)
    assert source.draw(first.params).params == first.params


def test_scaled_integers_and_compressed_files_are_read(write, tmp_path) -> None:
    plain = fits_draw(write())
    with fits.open(tmp_path / "image.fits") as file:
        data, header = file[0].data, file[0].header
    hdu = fits.PrimaryHDU(np.round(data * 100).astype(np.int16), header)
    hdu.header["BSCALE"], hdu.header["BLANK"] = 0.01, -32768
    hdu.data[3, 5] = -32768
    hdu.writeto(tmp_path / "scaled.fits")
    with fits.open(tmp_path / "scaled.fits", mode="update", do_not_scale_image_data=True) as file:
        file[0].header["BSCALE"], file[0].header["BLANK"] = 0.01, -32768
    scaled = fits_draw(tmp_path / "scaled.fits")
    assert np.isnan(scaled.data[0, 3, 5]) and np.isnan(scaled.data).sum() == 1
    np.testing.assert_allclose(np.nan_to_num(scaled.data), np.where(np.isnan(scaled.data), 0, plain.data), atol=0.006)
    fits.writeto(tmp_path / "packed.fits.gz", data, header)
    np.testing.assert_array_equal(fits_draw(tmp_path / "packed.fits.gz").data, plain.data)
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(data, header)]).writeto(tmp_path / "second.fits")
    np.testing.assert_array_equal(fits_draw(tmp_path / "second.fits").data, plain.data)
