"""Pictures become sources of the wanted flux, size and orientation, without the noise and the strangers in them."""

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from tests.helpers.places import DATA
from vis2img.errors import ParameterError, Vis2imgError
from vis2img.pictures.classes import class_from_label
from vis2img.simulate.sky.draw import ALL_CLASSES
from vis2img.simulate.sky.pictures import CutoutTemplate, cutout_source, isolate, read_cutouts

ARCSEC = 4.84813681109536e-06
NOISE, LEVEL = 0.1, 3.0


def blob(shape, y, x, peak, fwhm=5.0):
    rows, columns = np.indices(shape)
    return peak * np.exp(-4 * math.log(2) * ((rows - y) ** 2 + (columns - x) ** 2) / fwhm**2)


def picture(*blobs, shape=(80, 100), seed=0):
    """Return blobs (y, x, peak) on a noisy background that is not zero."""
    clean = sum(blob(shape, *b) for b in blobs)
    return clean + np.random.default_rng(seed).normal(LEVEL, NOISE, shape)


def lopsided():
    """Return a core at the middle, an arm to the north-east (up, left) and a stranger far to the south."""
    return picture((39.5, 49.5, 10.0), (43, 45, 5.0), (48, 41, 3.0), (8, 80, 6.0))


def test_flux_place_and_labels():
    template = CutoutTemplate(lopsided(), "frii", origin="a.npz row 3")
    source = cutout_source(
        template, 0.3, -0.4, 0.02, 50 * ARCSEC, 0.7, source_id=4, ref_freq=1.3e9, spectral_index=-0.9
    )
    cutout = source.cutout
    assert cutout.pixels.sum(dtype=float) == pytest.approx(0.02, rel=1e-6) == source.flux
    assert (source.source_id, source.class_name, source.size) == (4, "frii", 50 * ARCSEC)
    assert (source.ra, source.dec, cutout.ra, cutout.dec) == (0.3, -0.4, 0.3, -0.4)
    assert (cutout.pa, cutout.ref_freq, cutout.spectral_index, cutout.origin) == (0.7, 1.3e9, -0.9, "a.npz row 3")
    assert cutout.pixels.min() == 0 and cutout.pixels.dtype == np.float32
    assert source.components == ()


def test_noise_background_and_stranger_are_gone():
    kept = isolate(CutoutTemplate(lopsided()))
    assert kept[8, 80] == 0
    truth = sum(blob(kept.shape, *b) for b in ((39.5, 49.5, 10.0), (43, 45, 5.0), (48, 41, 3.0)))
    assert np.all(kept[truth < 1e-4] == 0)
    assert kept.sum() == pytest.approx(truth.sum(), rel=0.03)
    bright = truth > 10 * NOISE
    assert np.abs(kept - truth)[bright].max() < 5 * NOISE


def test_orientation_is_kept():
    source = cutout_source(CutoutTemplate(lopsided()), 0, 0, 1.0, 1e-4)
    pixels = source.cutout.pixels
    peak = np.unravel_index(pixels.argmax(), pixels.shape)
    # Rows grow to the north, columns to the west: the bright core lies at the south-western end.
    assert peak[0] < pixels.shape[0] // 2 and peak[1] > pixels.shape[1] // 2
    y, x = (np.average(i, weights=pixels) for i in np.indices(pixels.shape))
    assert y > peak[0] + 0.5 and x < peak[1] - 0.5


@pytest.mark.parametrize("seed", range(8))
def test_size_is_the_largest_extent_and_nothing_exceeds_it(seed):
    rng = np.random.default_rng(seed)
    steps = np.cumsum(rng.uniform(-4, 4, (6, 2)), axis=0) + np.array([39.5, 49.5])
    template = CutoutTemplate(picture((39.5, 49.5, 8.0), *((*p, 4.0) for p in steps), seed=seed))
    source = cutout_source(template, 0, 0, 1.0, 60 * ARCSEC)
    pixels, side = source.cutout.pixels, source.cutout.pixsize
    y, x = np.nonzero(pixels)
    corners = np.array([(a + i, b + j) for a, b in zip(y, x, strict=True) for i in (-0.5, 0.5) for j in (-0.5, 0.5)])
    largest = max(np.hypot(*(corners - corner).T).max() for corner in corners)
    assert largest * side == pytest.approx(60 * ARCSEC, rel=1e-3)
    # The given position is the middle of the bounding box, to half a pixel.
    for index, n in ((y, pixels.shape[0]), (x, pixels.shape[1])):
        assert abs((index.min() + index.max()) / 2 - n // 2) <= 0.5


def test_both_lobes_of_a_double_without_a_core_are_kept():
    lobes = (50, 35, 5.0), (29, 66, 4.0)
    kept = isolate(CutoutTemplate(picture(*lobes)))
    assert kept[50, 35] > 4 and kept[29, 66] > 3
    alone = isolate(CutoutTemplate(picture((42, 52, 5.0), (75, 5, 4.0))))
    assert alone[42, 52] > 4 and alone[75, 5] == 0


def test_a_catalogued_size_decides():
    image = picture((39.5, 49.5, 5.0), (39.5, 65, 4.0))
    small, large = (isolate(CutoutTemplate(image, pixsize=2 * ARCSEC, size=size * ARCSEC)) for size in (10, 2 * 2 * 16))
    assert small[39, 65] == 0 and large[39, 65] > 3
    assert small[39, 49] > 4 and large[39, 49] > 4


def test_blank_pixels_and_no_source():
    image = lopsided()
    image[:20] = np.nan
    source = cutout_source(CutoutTemplate(image), 0, 0, 2.0, 1e-4)
    assert np.isfinite(source.cutout.pixels).all() and source.flux == pytest.approx(2.0)
    for empty in (picture((0, 0, 0.0)), np.full((9, 9), np.nan), np.zeros((9, 9))):
        with pytest.raises(ParameterError, match=r"b\.npz row 7 holds no"):
            cutout_source(CutoutTemplate(empty, origin="b.npz row 7"), 0, 0, 1.0, 1e-4)


@pytest.mark.parametrize("wrong", [{"flux": 0.0}, {"size": -1.0}, {"flux": math.nan}, {"size": math.inf}])
def test_wrong_numbers_are_named(wrong):
    with pytest.raises(ParameterError, match=r"c\.npz row 1: flux = .* must both be above 0"):
        cutout_source(CutoutTemplate(lopsided(), origin="c.npz row 1"), 0, 0, **{"flux": 1.0, "size": 1e-4, **wrong})


def test_no_noise_at_all():
    """Eight-bit pictures come with the noise cut off: the median deviation is 0."""
    image = np.zeros((60, 60))
    image[28:33, 25:36], image[5, 5] = 200, 9
    source = cutout_source(CutoutTemplate(image), 0, 0, 1.0, 1e-4)
    assert source.cutout.pixels.shape == (5, 11)  # the soft edge holds nothing here
    kept = isolate(CutoutTemplate(image))
    assert kept[5, 5] == 0 and kept[30, 30] == pytest.approx(200)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("100 FRI conf std", "fri"),
        ("102 FRI conf WAT", "bent"),
        ("104 FRI conf head-tail", "bent"),
        ("200 FRII conf std", "frii"),
        ("201 FRII conf DD", "ddrg"),
        ("310 hybrid unc", "hybrid"),
        ("Compact", "compact"),
        ("Bent", "bent"),
        ("3", ""),
    ],
)
def test_labels_become_classes(label, expected):
    assert class_from_label(label) == expected
    assert expected in ("", *ALL_CLASSES)


def test_npz_layouts(tmp_path):
    raw = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    names = np.array(["100 FRI conf std", "201 FRII conf DD"])
    path = tmp_path / "a.npz"
    np.savez(path, images_i16=raw, scale_mJy=np.array([0.5, 2.0]), label10=np.array([1, 0]), label_names=names)
    cutouts = read_cutouts(path)
    assert len(cutouts) == 2 and [c.class_name for c in cutouts] == ["ddrg", "fri"]
    np.testing.assert_array_equal(cutouts[1].pixels, raw[1] * 2.0)
    assert cutouts[1].origin == f"{path} row 1"
    np.savez(path, images_u8=raw.astype(np.uint8), label=np.array(["Bent", "Compact"]), size_arcsec=[3.0, np.nan])
    cutouts = read_cutouts(path, pixsize=1.8 * ARCSEC, north_first=True)
    assert [c.class_name for c in cutouts] == ["bent", "compact"]
    np.testing.assert_array_equal(cutouts[0].pixels, raw[0, ::-1])
    assert [c.size for c in cutouts] == [pytest.approx(3 * ARCSEC), 0] and cutouts[0].pixsize == 1.8 * ARCSEC
    np.savez(path, images=raw / 3)
    assert [c.class_name for c in read_cutouts(path)] == ["", ""]


class _Trap:
    def __reduce__(self):
        return (Path.touch, (Path("trap-was-run"),))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"pictures": np.zeros((2, 3, 3))}, "holds none of the arrays images, images_i16, images_u8; it has pictures"),
        ({"images": np.zeros((3, 3))}, r"images must be numbers \[n, y, x\], not float64 \[3, 3\]"),
        ({"images": np.zeros((2, 3, 3)), "label": np.zeros(3, int)}, r"label has the shape \[3\] for 2 images"),
        (
            {"images": np.zeros((2, 3, 3)), "label": np.array([0, 5]), "label_names": np.array(["FRI"])},
            "row 1: label 5 is none of the 1 label_names",
        ),
        ({"images": np.array([_Trap()], dtype=object)}, "cannot read the cutouts"),
    ],
)
def test_what_is_no_set_of_cutouts_is_named(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.npz"
    np.savez(path, **content)
    with pytest.raises(Vis2imgError, match=message) as caught:
        read_cutouts(path)
    assert "bad.npz" in str(caught.value) and "\n" not in str(caught.value)
    assert not Path("trap-was-run").exists()


def test_other_files_are_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.npz").write_bytes(pickle.dumps({"images": 1}))
    (tmp_path / "a.fits").write_text("no FITS at all")
    for name, message in [
        ("absent.npz", "cannot read"),
        ("a.npz", "cannot read"),
        ("a.fits", "is no FITS file"),
        ("folder", "holds no FITS file"),
        ("a.png", "must be an .npz file"),
    ]:
        with pytest.raises(Vis2imgError, match=message) as caught:
            read_cutouts(tmp_path / name)
        assert name in str(caught.value)


@pytest.mark.parametrize(("step_x", "step_y"), [(-1, 1), (1, 1), (-1, -1), (1, -1)])
def test_fits_images_are_turned_to_our_axes(tmp_path, step_x, step_y):
    ours = np.arange(12.0).reshape(3, 4)
    hdu = fits.PrimaryHDU(ours[None, None, :: int(step_y), :: -int(step_x)])
    hdu.header["CDELT1"], hdu.header["CDELT2"] = step_x * 2 / 3600, step_y * 2 / 3600
    hdu.writeto(tmp_path / "one.fits")
    for path in (tmp_path, tmp_path / "one.fits"):
        (template,) = read_cutouts(path)
        np.testing.assert_array_equal(template.pixels, ours)
        assert template.pixsize == pytest.approx(2 * ARCSEC)
        assert template.origin.endswith("one.fits")


def test_real_cutouts():
    path = DATA / "mirabest_train.npz"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    cutouts = read_cutouts(path, pixsize=1.8 * ARCSEC)
    assert {c.class_name for c in (cutouts[i] for i in range(0, len(cutouts), 10))} >= {"fri", "frii"}
    for row in range(5, len(cutouts), 100):
        template = cutouts[row]
        source = cutout_source(template, 1.0, 0.5, 0.1, 60 * ARCSEC)
        ny, nx = source.cutout.pixels.shape
        assert source.flux == pytest.approx(0.1, rel=1e-5)
        # What is kept reaches neither beyond the catalogued size by more than noise and beam, nor is it a scrap.
        extent = 60 * ARCSEC / source.cutout.pixsize * template.pixsize
        assert 0.5 * template.size < extent < 1.6 * template.size + 25 * ARCSEC, row
        assert max(ny, nx) <= 151
