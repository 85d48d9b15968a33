"""Labelled cutouts: what the network sees of them, which labels are kept, and that reading them runs nothing."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from vis2img.errors import ParameterError, Vis2imgError
from vis2img.pictures.array_pickles import read_pickle
from vis2img.pictures.groups import shared_sources, source_groups
from vis2img.pictures.labels import LabelledImages, read_labelled, symmetric_views
from vis2img.views.crops import ViewConfig
from vis2img.views.stretch import Stretch

SIZE = 16
VIEWS = ViewConfig(patch_npix=16, global_size=SIZE, local_size=8)
LINEAR = ViewConfig(patch_npix=16, global_size=SIZE, local_size=8, stretch=Stretch("linear"))
CODES = ("100", "102", "110", "200", "210", "300")


def pictures(n: int, side: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (n, side, side)).astype(np.float32)


def write_npz(path: Path, n: int = 6, **columns: Any) -> Path:
    columns = {"images": pictures(n), **columns}
    np.savez(path, **columns)
    return path


def write_fits(path: Path, data: np.ndarray, ra_deg: float = 150.0, dec_deg: float = 2.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = fits.Header()
    for i, (kind, value, step) in enumerate((("RA---SIN", ra_deg, -0.0005), ("DEC--SIN", dec_deg, 0.0005)), start=1):
        header[f"CTYPE{i}"], header[f"CRVAL{i}"], header[f"CDELT{i}"] = kind, value, step
        header[f"CRPIX{i}"], header[f"CUNIT{i}"] = (data.shape[0] + 1) / 2, "deg"
    fits.writeto(path, data, header)


def write_batches(folder: Path, protocol: int = 4, sizes: tuple[int, ...] = (3, 3)) -> np.ndarray:
    """Write batches as published, 150 x 150 pixels; return their pictures."""
    folder.mkdir()
    data = np.random.default_rng(1).integers(0, 255, (sum(sizes), 150 * 150), dtype=np.uint8)
    start = 0
    for number, size in enumerate(sizes, start=1):
        rows = range(start, start + size)
        names = [f"{CODES[i]}_010.{i:03d}-009.284_0.05{i}_0080.60.png" for i in rows]
        batch = {"data": data[start : start + size], "labels": list(rows), "filenames": names}
        (folder / f"data_batch_{number}").write_bytes(pickle.dumps(batch, protocol))
        start += size
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(CODES)}, protocol))
    test = {"data": data[:1], "labels": [0], "filenames": ["100_011.000+009.000_0.1_0010.00.png"]}
    (folder / "test_batch").write_bytes(pickle.dumps(test, protocol))
    return data.reshape(-1, 150, 150)


def in_noise(picture: np.ndarray) -> np.ndarray:
    """A picture in units of 5 times its robust noise, above its median."""
    middle = np.median(picture)
    return (picture - middle) / (5 * 1.4826 * np.median(np.abs(picture - middle)))


def test_pixels_are_in_units_of_the_noise_of_each_picture(tmp_path: Path) -> None:
    images = pictures(2, side=SIZE)
    images[1] = 100 * images[1] + 7
    path = write_npz(tmp_path / "a.npz", images=images, label=np.array(["x", "y"]))
    found = read_labelled(path, views=LINEAR, label="label")
    for picture, seen in zip(images, found.images, strict=True):
        np.testing.assert_allclose(seen[:, :, 0], in_noise(picture), rtol=1e-4, atol=1e-5)
    curved = read_labelled(path, views=VIEWS, label="label").images
    np.testing.assert_allclose(curved, np.arcsinh(5 * found.images / 10) * 2, rtol=1e-4, atol=1e-5)


def test_the_middle_is_cut_and_averaged_over_what_a_pixel_covers(tmp_path: Path) -> None:
    images = np.zeros((1, 64, 64), np.float32)
    images[0, ::2, 1::2] = 2.0  # 0, 1 or 2 if pixels were picked, and 3/4 on average
    images[0, 1::2, ::2] = 1.0
    images[0, :8] = 50.0  # outside of the middle
    path = write_npz(tmp_path / "a.npz", images=images)
    seen = read_labelled(path, views=LINEAR, crop=32, label=None).images[0, :, :, 0]
    inner = seen[1:-1, 1:-1]
    middle = np.median(images)
    sigma = 1.4826 * np.median(np.abs(images - middle))
    np.testing.assert_allclose(inner, (0.75 - middle) / (5 * sigma), rtol=1e-5)
    assert seen.max() < 1 / sigma


def test_blank_pixels_are_zero_and_spoil_no_others(tmp_path: Path) -> None:
    images = pictures(1, side=SIZE)
    images[0, 3, 4] = np.nan
    seen = read_labelled(write_npz(tmp_path / "a.npz", images=images), views=VIEWS, label=None).images[0, :, :, 0]
    assert seen[3, 4] == 0.0
    above = images[0] - np.nanmedian(images)
    known = np.isfinite(above)
    assert np.isfinite(seen).all() and np.array_equal(np.sign(seen[known]), np.sign(above[known]))


def test_noise_that_was_cut_off_is_told_by_the_faintest_pixels(tmp_path: Path) -> None:
    image = np.zeros((1, SIZE, SIZE), np.uint8)
    image[0, 5:9, 5:9] = 60  # 3 sigma, where surveys cut
    image[0, 6, 6] = 250
    found = read_labelled(write_npz(tmp_path / "a.npz", images=image.astype(float)), views=LINEAR, label=None)
    np.testing.assert_allclose(found.images[0, :, :, 0], image[0] / (5 * 20.0), rtol=1e-5)
    same = read_labelled(write_npz(tmp_path / "b.npz", images=np.full((1, 16, 16), 3.0)), views=VIEWS, label=None)
    assert (same.images == 0).all()


def test_fr_keeps_confident_sources_of_two_classes(tmp_path: Path) -> None:
    columns = {
        "fr": np.array([0, 1, 2, 0, 1, 1], np.int8),
        "confident": np.array([True, True, True, False, True, False]),
        "redshift": np.array([0.1, 0.2, 0.3, 0.4, np.nan, 0.6], np.float32),
        "ra": np.array([10.0, 20.0, 30.0, 40.0, -50.0, 60.0]),
        "dec": np.array([1.0, -2.0, 3.0, 4.0, 5.0, 6.0]),
        "filename": np.array(list("abcdef")),
    }
    path = write_npz(tmp_path / "a.npz", **columns)
    found = read_labelled(path, views=VIEWS)
    assert found.label.tolist() == [0, 1, 1] and found.label_names == ("FRI", "FRII")
    assert found.name == ("a", "b", "e")
    np.testing.assert_allclose(np.degrees(found.position), [[10, 1], [20, -2], [310, 5]])
    assert list(found.targets) == ["redshift"]
    np.testing.assert_allclose(found.targets["redshift"], [0.1, 0.2, np.nan], rtol=1e-6)
    assert read_labelled(path, views=VIEWS, confident=False).name == ("a", "b", "d", "e", "f")
    taken = found.take(np.array([False, True, True]))
    assert taken.name == ("b", "e") and np.array_equal(taken.images, found.images[1:])


def test_words_and_codes_tell_fri_from_frii(tmp_path: Path) -> None:
    names = np.array(["FRI", "FRII", "Compact", "Bent"])
    columns = {"label": np.array([0, 1, 2, 3, 1, 2]), "grade": np.array([0, 2, -1, 1, 1, 1])}
    path = write_npz(tmp_path / "a.npz", label_names=names, **columns)
    found = read_labelled(path, views=VIEWS)
    assert found.label.tolist() == [0, 1, 1]
    every = read_labelled(path, views=VIEWS, label="label")
    assert every.label.tolist() == [0, 1, 2, 3, 1, 2] and every.label_names == tuple(names)
    graded = read_labelled(path, views=VIEWS, label="grade")
    assert graded.label.tolist() == [0, 2, -1, 1, 1, 1] and graded.label_names == ("0", "1", "2")
    with pytest.raises(Vis2imgError, match="does not tell which labels are confident"):
        read_labelled(path, views=VIEWS, confident=True)


def test_several_channels_show_the_same_picture(tmp_path: Path) -> None:
    seen = read_labelled(write_npz(tmp_path / "a.npz"), views=VIEWS, label=None, planes=3).images
    assert seen.shape == (6, SIZE, SIZE, 3)
    assert np.array_equal(seen[..., 0], seen[..., 2]) and seen.std() > 0


def test_folders_of_fits_take_labels_from_their_names(tmp_path: Path) -> None:
    for i, label in enumerate(("FRI", "FRII", "FRII")):
        write_fits(tmp_path / "set" / label / f"s{i}.fits", pictures(1, seed=i)[0], ra_deg=10.0 + i)
    found = read_labelled(tmp_path / "set", views=VIEWS)
    assert found.label.tolist() == [0, 1, 1]
    assert [Path(name).name for name in found.name] == ["s0.fits", "s1.fits", "s2.fits"]
    np.testing.assert_allclose(np.degrees(found.position), [[10, 2], [11, 2], [12, 2]], atol=1e-6)


def test_tables_label_fits_images(tmp_path: Path) -> None:
    for i in range(3):
        write_fits(tmp_path / f"s{i}.fits", pictures(1, seed=i)[0])
    table = tmp_path / "labels.csv"
    table.write_text("filename,label,redshift\ns2.fits,ring,0.5\ns0.fits,relic,\ns1.fits,,0.25\n")
    found = read_labelled(tmp_path, views=VIEWS, label="label")
    assert found.label_names == ("relic", "ring") and found.label.tolist() == [1, 0, -1]
    assert found.name == ("s2.fits", "s0.fits", "s1.fits")
    np.testing.assert_array_equal(found.targets["redshift"], [0.5, np.nan, 0.25])
    one = read_labelled(tmp_path / "s0.fits", views=VIEWS, label=None)
    np.testing.assert_array_equal(one.images[0], found.images[1])
    table.write_text("filename,label\nnone.fits,a\n")
    with pytest.raises(Vis2imgError, match=r"labels\.csv row 1: there is no file .*none\.fits"):
        read_labelled(table, views=VIEWS, label="label")


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
def test_published_batches_are_read_whatever_the_protocol(tmp_path: Path, protocol: int) -> None:
    data = write_batches(tmp_path / "batches", protocol)
    found = read_labelled(tmp_path / "batches", views=LINEAR, label="label10")
    assert found.label.tolist() == list(range(6)) and found.label_names == CODES
    side = read_labelled(tmp_path / "batches", views=LINEAR, label="label10", crop=SIZE).images[4, :, :, 0]
    # Whole numbers are spread over their rounding before the noise is measured, here of 64 or so.
    np.testing.assert_allclose(side, in_noise(data[4].astype(float))[67:83, 67:83], rtol=1e-2, atol=1e-2)
    np.testing.assert_allclose(np.degrees(found.position[2]), [10.002, -9.284])
    assert found.targets["redshift"][2] == 0.052 and found.targets["size_arcsec"][2] == 80.6
    confident = read_labelled(tmp_path / "batches", views=VIEWS)
    assert [name[:3] for name in confident.name] == ["100", "102", "200"] and confident.label.tolist() == [0, 0, 1]
    test = read_labelled(tmp_path / "batches" / "test_batch", views=VIEWS)
    assert test.name == ("100_011.000+009.000_0.1_0010.00.png",)


def test_batches_with_keys_of_bytes_are_read(tmp_path: Path) -> None:
    data = [np.full((150, 150), i, np.uint8) for i in range(2)]
    batch = {b"data": data, b"labels": np.array([1, 0]), b"filenames": [b"x.png", b"y.png"]}
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(batch, 2))
    found = read_labelled(tmp_path, views=VIEWS, label="label")
    assert found.name == ("x.png", "y.png") and found.label.tolist() == [1, 0]


def test_arrays_that_python_2_wrote_are_read(tmp_path: Path) -> None:
    # Written out by hand: protocol 2, where the bytes of an array are text, as Python 2 left them.
    text = (
        b"\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01bt\x85"
        b"R(K\x01K\x03\x85cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x03\x00\x80\xfftbs."
    ).replace(b"U\x01bt\x85R", b"U\x01btR")
    path = tmp_path / "py2"
    path.write_bytes(text)
    assert read_pickle(path)["data"].tolist() == [0, 128, 255]


class Malicious:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_that_would_run_a_program_is_refused_and_does_not(tmp_path: Path, protocol: int) -> None:
    import os

    mark = tmp_path / "ran"
    path = tmp_path / "data_batch_1"
    batch = {"data": Malicious(os.system, f"touch {mark}"), "labels": [0]}
    path.write_bytes(pickle.dumps(batch, protocol))
    with pytest.raises(Vis2imgError, match=r"data_batch_1 is refused: it asks for (posix|nt)\.system") as error:
        read_labelled(tmp_path, views=VIEWS)
    assert not mark.exists() and "\n" not in str(error.value)
    pickle.loads(path.read_bytes())  # and it would have run
    assert mark.exists()


def test_other_ways_into_a_pickle_are_shut(tmp_path: Path) -> None:
    path = tmp_path / "p"
    for call, name in (
        (Malicious(eval, "1 + 1"), "builtins.eval"),
        (Malicious(getattr, "", "format"), "builtins.getattr"),
        (np.load, "numpy.load"),
        (np.float64, "numpy.float64"),
    ):
        path.write_bytes(pickle.dumps(call))
        with pytest.raises(Vis2imgError, match=name):
            read_pickle(path)
    import codecs

    path.write_bytes(pickle.dumps(Malicious(codecs.encode, "x", "rot13")))
    with pytest.raises(Vis2imgError, match="encodes as 'rot13'"):
        read_pickle(path)
    path.write_bytes(pickle.dumps({"a": np.float64(0.5)}))  # a number of NumPy is a plain value
    assert read_pickle(path) == {"a": 0.5}


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"label": np.arange(6), "label_names": np.array(["a"])}, "row 1: label 1 is none of the 1 label_names"),
        ({"redshift": np.zeros(5)}, r"redshift has the shape \[5\] for 6 images"),
        ({"fr": np.zeros(6, int), "dec": np.array([0, 0, 91.0, 0, 0, 0])}, r"row 2.*: dec = 91 deg is outside -90:90"),
        ({"kind": np.zeros(6, int)}, "no labels: a column fr, label10 or label is needed"),
        ({"fr": np.full(6, 2)}, "no cutout is left"),
        ({"fr": np.array(list("abcdef"))}, "fr must be whole numbers"),
        ({"fr": np.zeros(6, int), "images": np.full((6, 32, 32), np.nan)}, "row 0 is blank"),
        ({"fr": np.zeros(6, int), "images": pictures(6, side=7)}, "row 0: 7 x 7 pixels, of which 7 a side cannot"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_by_array_and_row(tmp_path: Path, columns: dict, words: str) -> None:
    path = write_npz(tmp_path / "bad.npz", **columns)
    with pytest.raises(Vis2imgError, match=words) as error:
        read_labelled(path, views=VIEWS, label="label" if "label" in columns else "fr")
    assert "bad.npz" in str(error.value) and "\n" not in str(error.value)


def test_what_cannot_be_read_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "data_batch_1").write_bytes(b"not a pickle")
    path = write_npz(tmp_path / "a.npz", fr=np.zeros(6, int))
    for wrong, words in (
        ("gone.npz", "does not exist"),
        ("notes.txt", "are an .npz file, a table"),
        ("empty", "holds no FITS file"),
        ("data_batch_1", "is not a pickle of arrays"),
    ):
        with pytest.raises(Vis2imgError, match=words) as error:
            read_labelled(tmp_path / wrong, views=VIEWS)
        assert wrong in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(Vis2imgError, match="no column colour of labels; columns: fr"):
        read_labelled(path, views=VIEWS, label="colour")
    with pytest.raises(Vis2imgError, match=r"a\.npz row 0: 32 x 32 pixels, of which 40 a side cannot be cut"):
        read_labelled(path, views=VIEWS, crop=40)


def test_values_that_disagree_make_no_set() -> None:
    images, position = np.zeros((2, 8, 8, 1), np.float32), np.zeros((2, 2))
    with pytest.raises(ParameterError, match="labels must be -1 to 0"):
        LabelledImages(images, np.array([0, 1]), ("a",), position, ("x", "y"), {}, Path("p"))
    with pytest.raises(ParameterError, match=r"p: z has the shape \[1\] for 2 images"):
        LabelledImages(images, np.array([0, 0]), ("a",), position, ("x", "y"), {"z": np.zeros(1)}, Path("p"))


def test_symmetric_views_are_the_eight_symmetries_of_a_square() -> None:
    images = np.random.default_rng(0).normal(size=(2, 5, 5, 3))
    views = symmetric_views(images)
    assert views.shape == (8, 2, 5, 5, 3)
    turned = [np.rot90(m, k, axes=(1, 2)) for m in (images, images[:, :, ::-1]) for k in range(4)]
    matched = [[i for i, view in enumerate(views) if np.array_equal(view, wanted)] for wanted in turned]
    assert sorted(sum(matched, [])) == list(range(8))
    assert np.array_equal(views[0], images)


def test_the_real_sets_hold_what_their_notes_say(shared_data: Path) -> None:
    for name, label, counts in (
        ("mirabest_train", "fr", [348, 380]),
        ("rgd_train", "label", [413, 821, 341, 291]),
    ):
        path = shared_data / f"{name}.npz"
        if not path.is_file():
            pytest.skip(f"{path} is not there")
        found = read_labelled(path, views=VIEWS, crop=64, label=label)
        assert np.bincount(found.label).tolist() == counts
        assert np.isfinite(found.images).all() and np.isfinite(found.position).all()
        middle, edge = found.images[:, 6:10, 6:10].mean(), found.images[:, :2].mean()
        assert middle > 5 * edge  # the source is at the middle
    mirabest = read_labelled(shared_data / "mirabest_train.npz", views=VIEWS, label="label10", confident=True)
    assert len(mirabest) == 348 + 380 + 17
    # The codes of label_names agree with the columns that the file has beside them.
    with np.load(shared_data / "mirabest_train.npz") as file:
        sure = file["confident"]
        assert np.array_equal(mirabest.label, file["label10"][sure])
        np.testing.assert_allclose(mirabest.targets["redshift"], file["redshift"][sure])


def told(path: Path, **options: Any) -> str:
    """The one line in which a file is refused."""
    with pytest.raises(Vis2imgError) as error:
        read_labelled(path, views=VIEWS, **options)
    assert str(error.value).isprintable()
    return str(error.value)


def test_columns_of_objects_are_refused_by_name(tmp_path: Path) -> None:
    mixed = np.array(["x", None, 2, 3, 4, 5], object)
    for name in ("host", "label", "filename"):
        path = write_npz(tmp_path / f"{name}.npz", fr=np.zeros(6, int), **{name: mixed})
        assert f"{name}.npz: the column {name} holds Python objects" in told(path)
    ragged = np.empty(2, object)
    ragged[:] = [np.zeros((16, 16)), np.zeros((20, 20))]
    assert "a.npz: images are Python objects" in told(write_npz(tmp_path / "a.npz", images=ragged), label=None)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"images": pictures(6) + 1j}, "bad.npz: pictures must be real numbers, not complex"),
        ({"images": np.zeros((0, 16, 16))}, r"bad.npz: images must be numbers [n, y, x], not float64 [0, 16, 16]"),
        ({"label_names": np.array("a")}, "bad.npz: label_names must be a list, not of the shape []"),
        ({"scale_mJy": np.array(list("abcdef"))}, "bad.npz: scale_mJy must be numbers, not <U1"),
        ({"size_arcsec": np.array(list("abcdef"))}, "bad.npz: size_arcsec must be numbers, not <U1"),
        ({"ra": np.zeros(6)}, "bad.npz has ra and no declination (dec_deg or dec)"),
        ({"dec_deg": np.zeros(6)}, "bad.npz has dec_deg and no right ascension (ra_deg or ra)"),
        ({"confident": np.array([0, 1, 2, 0, 1, 1])}, "row 2: confident 2 is neither yes nor no"),
        ({"confident": np.array(["yes", "no", "may", "", "", ""])}, "row 2: confident may is neither yes nor no"),
    ],
)
def test_columns_of_the_wrong_kind_are_told(tmp_path: Path, columns: dict, words: str) -> None:
    assert words in told(write_npz(tmp_path / "bad.npz", **{"fr": np.arange(6) % 2, **columns}))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full(6, 2**40), "row 0: kind 1099511627776 is beyond"),
        (np.full(6, 2**64 - 1, np.uint64), "row 0: kind 18446744073709551615 is beyond"),
        (np.array([0, 1, -2, 0, 0, 0]), "row 2: kind -2 is none of the 2 label_names"),
        (np.array([0, np.inf, 0, 0, 0, 0]), "kind holds real numbers, which are no labels"),
        (np.full(6, 1e300), "kind holds real numbers, which are no labels"),
        (np.full(6, 1j), "kind must be whole numbers or words, not complex128"),
    ],
)
def test_labels_that_are_none_are_told(tmp_path: Path, values: np.ndarray, words: str) -> None:
    assert words in told(write_npz(tmp_path / "a.npz", kind=values), label="kind")


def test_labels_of_any_type_are_read(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", fr=np.array([0, 1, 2, 1, 0, 9], np.uint8), name=np.full(6, b"caf\xe9"))
    assert read_labelled(path, views=VIEWS).label.tolist() == [0, 1, 1, 0]
    assert read_labelled(path, views=VIEWS, label="name").label_names == ("caf\xe9",)
    path = write_npz(tmp_path / "c.npz", kind=np.array([0, 1, 2, 1, 0, 2], np.uint64))
    assert read_labelled(path, views=VIEWS, label="kind").label.tolist() == [0, 1, 2, 1, 0, 2]
    path = write_npz(tmp_path / "b.npz", kind=np.array([0, np.nan, 2, 1, 0, 2.0]))
    assert read_labelled(path, views=VIEWS, label="kind").label.tolist() == [0, -1, 2, 1, 0, 2]


def write_table(folder: Path, text: str, n: int = 4) -> Path:
    for i in range(n):
        write_fits(folder / f"s{i}.fits", pictures(1, seed=i)[0])
    (folder / "labels.csv").write_text(text)
    return folder / "labels.csv"


def test_targets_are_neither_labels_nor_flags_nor_places(tmp_path: Path) -> None:
    head = "filename,fr,confident,alpha,code,in_mirabest,scale_mJy,rms,id,ra_deg,dec_deg,kind,odd"
    rows = [f"s{i}.fits,{i % 2},1,{0.1 * i},{100 + i},0,2.5,0.3,{i},{i},{i},{i},{i % 2}" for i in range(4)]
    path = write_table(tmp_path / "t", "\n".join([head, *rows]))
    assert list(read_labelled(path, views=VIEWS).targets) == ["alpha", "kind"]
    assert list(read_labelled(path, views=VIEWS, label="kind").targets) == ["alpha"]


def test_words_of_confidence_are_understood(tmp_path: Path) -> None:
    rows = [f"s{i}.fits,0,{word}" for i, word in enumerate(("True", "false", "YES", ""))]
    path = write_table(tmp_path / "t", "\n".join(["filename,fr,confident", *rows]))
    assert read_labelled(path, views=VIEWS).name == ("s0.fits", "s2.fits")
    path.write_text("filename,fr,confident\ns0.fits,0,1\ns1.fits,0,\ns2.fits,,1\n")
    assert read_labelled(path, views=VIEWS).name == ("s0.fits",)


def test_tables_with_files_elsewhere_and_with_columns_twice(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t", "filename,kind\n", 1)
    other = tmp_path / "other" / "x.fits"
    write_fits(other, pictures(1)[0])
    path.write_text(f"filename,kind\n{other},a\ns0.fits,b\n")
    assert read_labelled(path, views=VIEWS, label="kind").name == (str(other), "s0.fits")
    path.write_text("filename,kind,Kind\ns0.fits,a,b\n")
    assert "labels.csv has the column kind twice" in told(path, label="kind")


def test_only_the_labels_that_are_asked_for_need_be_right(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", label=np.linspace(0, 1, 6), kind=np.arange(6))
    assert read_labelled(path, views=VIEWS, label="kind").label.tolist() == list(range(6))
    assert len(read_labelled(path, views=VIEWS, label=None)) == 6


ARCMINUTE = np.radians(1 / 60)


def labelled(n: int = 5, seed: int = 0, **parts: Any) -> LabelledImages:
    """Pictures that all differ, without positions and names."""
    images = pictures(n, SIZE, seed)[..., None]
    blank = {"images": images, "label": np.zeros(n, int), "position": np.full((n, 2), np.nan), "name": ("",) * n}
    return LabelledImages(**{**blank, "label_names": ("a",), "targets": {}, "path": Path("p"), **parts})


def pairs(group: np.ndarray) -> list[tuple[int, int]]:
    return [(i, j) for j in range(len(group)) for i in range(j) if group[i] == group[j]]


def test_groups_join_places_pixels_and_names(tmp_path: Path) -> None:
    assert source_groups(labelled(), ARCMINUTE).dtype == np.int64 and not pairs(source_groups(labelled(), ARCMINUTE))
    place = np.radians([[0, 0], [10, 0], [10 + 1 / 120, 0], [359.999, 0], [np.nan, np.nan]])
    assert pairs(source_groups(labelled(position=place), ARCMINUTE)) == [(1, 2), (0, 3)]
    assert not pairs(source_groups(labelled(position=place), 0.0))
    same = labelled().images.copy()
    same[3] = same[1]
    assert pairs(source_groups(labelled(images=same), ARCMINUTE)) == [(1, 3)]
    both = labelled(images=same, position=place)
    assert source_groups(both, ARCMINUTE).tolist() == [0, 0, 0, 0, 1]
    names = ("x", "", "x", "", "y")
    assert pairs(source_groups(labelled(name=names), ARCMINUTE)) == [(0, 2)]
    assert pairs(source_groups(labelled(name=names, position=place), ARCMINUTE)) == [(1, 2), (0, 3)]
    assert not pairs(source_groups(labelled(name=names, named=False), ARCMINUTE))
    # Pictures of nothing are 0 everywhere, and that they are alike tells nothing.
    assert not pairs(source_groups(labelled(images=np.zeros_like(same)), ARCMINUTE))
    assert source_groups(labelled(0), ARCMINUTE).shape == (0,)


def test_sources_of_one_set_are_found_in_another() -> None:
    a, b = labelled(5, 0), labelled(4, 1)
    assert shared_sources(a, b, ARCMINUTE).tolist() == [False] * 4
    images = b.images.copy()
    images[2] = a.images[4]
    assert shared_sources(a, labelled(4, 1, images=images), ARCMINUTE).tolist() == [False, False, True, False]
    place, other = np.full((5, 2), np.nan), np.full((4, 2), np.nan)
    place[2] = 1.0
    other[1], other[3] = (1.0, 1.0 + ARCMINUTE / 2), (1.0, 1.1)
    found = shared_sources(labelled(5, 0, position=place), labelled(4, 1, position=other), ARCMINUTE)
    assert found.tolist() == [False, True, False, False]
    found = shared_sources(labelled(5, 0, name=tuple("abcde")), labelled(4, 1, name=("z", "c", "", "")), ARCMINUTE)
    assert found.tolist() == [False, True, False, False] and found.dtype == bool
    # Two of the second set that are alike are not in the first.
    images = b.images.copy()
    images[1] = images[0]
    assert not shared_sources(a, labelled(4, 1, images=images), ARCMINUTE).any()


def test_a_file_without_positions_shares_all_its_sources_with_itself(tmp_path: Path) -> None:
    twice = np.concatenate([pictures(6), pictures(6)[:1]])
    path = write_npz(tmp_path / "a.npz", images=twice, fr=np.zeros(7, int))
    found = read_labelled(path, views=VIEWS)
    assert pairs(source_groups(found, ARCMINUTE)) == [(0, 6)] and not found.named
    assert shared_sources(found, read_labelled(path, views=VIEWS, planes=1), ARCMINUTE).all()
    # Names that only count the rows of a file say nothing about another file.
    (tmp_path / "b").mkdir()
    other = read_labelled(write_npz(tmp_path / "b" / "a.npz", images=pictures(6, seed=9)), views=VIEWS, label=None)
    assert other.name[0] == found.name[0] and not shared_sources(found, other, ARCMINUTE).any()
