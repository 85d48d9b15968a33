"""Pictures are found under every name that a FITS file may have, and columns are judged by what they are."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from vis2img.draws.fits_field import is_image
from vis2img.errors import Vis2imgError, Vis2imgWarning
from vis2img.pictures.cutting import open_pictures
from vis2img.pictures.formats import read_pictures, read_raw
from vis2img.simulate.sky.catalogue import read_user_catalogue
from vis2img.simulate.sky.pictures import read_cutouts
from vis2img.train.embed.inputs import expand_inputs

NAMES = ("a.fits", "b.fit", "c.fts", "d.fits.gz", "e.FITS", "f.fits.fz", "g.fit.gz")


def write(path: Path, value: float) -> None:
    """A picture of 40 x 40 pixels in the form that its name promises."""
    image = np.random.default_rng(0).normal(value, 0.1, (40, 40)).astype(np.float32)
    header = fits.Header({"CDELT1": -0.001, "CDELT2": 0.001})
    if path.suffix == ".fz":
        hdu = fits.CompImageHDU(image, header, compression_type="GZIP_1", quantize_level=0)
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    else:
        fits.writeto(path, image, header)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    for i, name in enumerate(NAMES):
        write(folder / name, 100.0 * i)
    (folder / "notes.txt").write_text("no picture")
    return folder


def middles(images: Iterable[np.ndarray]) -> list[int]:
    return [round(float(np.median(image))) for image in images]


def test_every_name_of_a_fits_file_is_found_in_a_folder(folder: Path) -> None:
    by_name = [100 * NAMES.index(name) for name in sorted(NAMES)]
    for read in (read_pictures, read_raw):
        assert middles(read(folder).images) == by_name
    assert middles(template.pixels for template in read_cutouts(folder)) == by_name
    assert middles(open_pictures([folder], 32).images) == by_name
    assert expand_inputs([str(folder)]) == [str(folder / name) for name in sorted(NAMES)]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_a_fits_file_is_read_alone(folder: Path, name: str) -> None:
    path, value = folder / name, 100 * NAMES.index(name)
    assert middles(read_raw(path).images) == middles(read_pictures(path).images) == [value]
    assert middles(open_pictures([path], 32).images) == [value]
    (template,) = read_cutouts(path)
    assert template.pixsize == pytest.approx(np.radians(0.001)) and middles([template.pixels]) == [value]
    assert is_image(path)


def test_labels_in_folders_and_tables_are_found_under_every_name(tmp_path: Path) -> None:
    for i, name in enumerate(NAMES[:5]):
        (tmp_path / "set" / f"kind{i}").mkdir(parents=True)
        write(tmp_path / "set" / f"kind{i}" / name, 100.0 * i)
    raw = read_raw(tmp_path / "set")
    assert raw.columns["label"].tolist() == [f"kind{i}" for i in range(5)]
    assert middles(raw.images) == [100 * i for i in range(5)]


@pytest.mark.parametrize("name", ["a.fts", "a.fits.gz"])
def test_catalogues_are_read_under_every_name(tmp_path: Path, name: str) -> None:
    columns = [fits.Column(key, "D", array=[value]) for key, value in (("ra_deg", 1), ("dec_deg", 2), ("flux_jy", 3))]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / name)
    (source,) = read_user_catalogue(tmp_path / name, 1e9)
    assert source.flux == 3


def test_other_files_of_a_folder_are_left_alone(folder: Path) -> None:
    (folder / "sub").mkdir()
    write(folder / "sub" / "x.fits", 7.0)
    (folder / "labels.csv").write_text("filename,label\na.fits,ring\n")
    # Pictures alone are the files of the folder; a table and subfolders are for those who want labels.
    assert len(read_pictures(folder)) == len(read_cutouts(folder)) == len(NAMES)
    assert len(read_raw(folder)) == 1


def test_columns_that_are_not_needed_may_hold_anything(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    images = np.random.default_rng(0).normal(size=(2, 40, 40))
    np.savez(
        path, images=images, host=np.array(["x", None], object), notes=np.zeros(7), filename=np.array([b"p", b"q"])
    )
    assert len(open_pictures([path], 32)) == len(read_cutouts(path)) == 2
    assert read_pictures(path).rows == (f"{path} row 0 (p)", f"{path} row 1 (q)")
    with pytest.raises(Vis2imgError, match=r"a\.npz: the column host holds Python objects"):
        read_raw(path)


def test_a_damaged_column_is_not_one_of_objects(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, images=np.zeros((2, 40, 40)), fr=np.zeros(2, int))
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, raw in members.items():
            new.writestr(name, raw[:-8] if name == "fr.npy" else raw)
        new.writestr("readme", b"members that are no arrays")
    with pytest.raises(Vis2imgError, match=r"cannot read the cutouts .*a\.npz") as error:
        read_raw(path)
    assert "objects" not in str(error.value) and "\n" not in str(error.value)
    assert len(read_pictures(path)) == 2


def test_a_label_that_is_unknown_is_no_wrong_one(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    label = np.array([0, -1])
    np.savez(path, images=np.zeros((2, 40, 40)), label=label, label_names=np.array(["FRII"]))
    assert [template.class_name for template in read_cutouts(path)] == ["frii", ""]


def test_a_column_of_numbers_that_holds_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, images=np.zeros((2, 40, 40)), scale_mJy=np.array(["a", "b"]))
    with pytest.raises(Vis2imgError, match=r"a\.npz: scale_mJy must be numbers, not <U1"):
        read_cutouts(path)


def test_a_damaged_image_among_good_ones_is_left_out_with_its_row(tmp_path: Path) -> None:
    for i in range(4):
        fits.writeto(tmp_path / f"{i}.fits", np.random.default_rng(i).normal(size=(40, 40)).astype(np.float32))
    (tmp_path / "1.fits").write_bytes((tmp_path / "1.fits").read_bytes()[:5000])
    with pytest.warns(Vis2imgWarning, match=r"1 of 4 images of .* are left out: .*1\.fits is cut short"):
        raw = read_pictures(tmp_path)
    assert len(raw) == 3 and list(raw.skipped) == [str(tmp_path / "1.fits")]
    (tmp_path / "labels.csv").write_text("filename,label,redshift\n0.fits,a,0.1\n1.fits,b,0.2\n2.fits,c,0.3\n")
    with pytest.warns(Vis2imgWarning, match="1 of 3 images"):
        raw = read_raw(tmp_path)
    assert raw.columns["label"].tolist() == ["a", "c"] and raw.targets["redshift"].tolist() == [0.1, 0.3]

    np.savez(tmp_path / "good.npz", images=np.random.default_rng(9).normal(size=(2, 40, 40)))
    (tmp_path / "bad.npz").write_bytes((tmp_path / "good.npz").read_bytes()[:2000])
    paths = [tmp_path / "good.npz", tmp_path / "bad.npz"]
    opened = open_pictures(paths, 16)
    assert len(opened) == 2 and list(opened.skipped) == [str(paths[1])]
    for wrong in ([paths[1]], [paths[0], tmp_path / "none.npz"]):
        with pytest.raises(Vis2imgError, match="cannot read"):
            open_pictures(wrong, 16)
    for i in range(4):
        (tmp_path / f"{i}.fits").write_text("no FITS")
    with pytest.raises(Vis2imgError, match=r"none of 4 images can be read: .*0\.fits is no FITS file"):
        read_pictures(tmp_path)


def test_archives_that_grow_beyond_measure_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, images=np.zeros((400, 256, 256), np.float32))
    with pytest.raises(Vis2imgError, match=r"a\.npz is damaged: 104,857,728 bytes of numbers in"):
        read_pictures(path)
    np.save(tmp_path / "b.npy", np.zeros((2, 40, 40)))
    (tmp_path / "b.npy").rename(tmp_path / "b.npz")
    with pytest.raises(Vis2imgError, match="not a zip file"):
        read_pictures(tmp_path / "b.npz")
