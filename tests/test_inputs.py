"""Files that are none, FITS files without an end or without their pixels: refused before memory or time is taken."""

from __future__ import annotations

import gzip
import os
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from vis2img.draws.fits_field import FitsField
from vis2img.errors import Vis2imgError
from vis2img.inputs import expand_home, not_a_file
from vis2img.pictures.array_pickles import read_pickle
from vis2img.pictures.formats import read_csv, read_pictures, read_raw
from vis2img.pictures.labels import read_labelled
from vis2img.simulate.sky.catalogue import read_catalogue, read_user_catalogue
from vis2img.views.crops import ViewConfig


def header(**cards: Any) -> fits.Header:
    """A header of an image as vis2img writes it, with cards of one's own."""
    head = fits.Header()
    head["CTYPE1"], head["CTYPE2"] = "RA---SIN", "DEC--SIN"
    head["CRVAL1"], head["CRVAL2"], head["CRPIX1"], head["CRPIX2"] = 150.0, -30.0, 33.0, 33.0
    head["CDELT1"], head["CDELT2"] = -5 / 3600, 5 / 3600
    head["CUNIT1"] = head["CUNIT2"] = "deg"
    for key, value in cards.items():
        head[key] = value
    return head


def image_file(path: Path, **cards: Any) -> Path:
    fits.writeto(path, np.random.default_rng(1).normal(size=(64, 64)).astype(np.float32), header(**cards))
    return path


def rewritten(path: Path, **cards: str) -> Path:
    """Write values into cards as text, whatever they are."""
    raw = bytearray(path.read_bytes())
    for key, value in cards.items():
        start = raw.index(f"{key:<8}=".encode())
        raw[start : start + 80] = f"{key:<8}= {value:>20}".ljust(80).encode("latin1")
    path.write_bytes(bytes(raw))
    return path


def refusals(path: Path) -> list[str]:
    """What both readers of images say, one for fields and one for pictures; they take no time and no memory."""
    said = []
    tracemalloc.start()
    start = time.process_time()
    for read in (lambda: FitsField.open(path).draw(), lambda: read_labelled(path, views=ViewConfig(), label=None)):
        with pytest.raises(Vis2imgError) as caught:
            read()
        said.append(str(caught.value))
        assert str(path) in said[-1] and "\n" not in said[-1]
    assert time.process_time() - start < 5 and tracemalloc.get_traced_memory()[1] < 2**27
    tracemalloc.stop()
    return said


READERS: list[Callable[[Path], object]] = [
    *(read_pickle, read_pictures, read_raw, FitsField.open, read_catalogue),
    *(lambda path: read_csv(path, ()), lambda path: read_user_catalogue(path, 1e9)),
]
# Of astropy, where a file cannot be opened.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("name", ["data_batch_1", "a.npz", "a.fits", "a.csv", "a.fits.gz"])
def test_pipes_are_not_opened(tmp_path: Path, read: Callable[[Path], object], name: str) -> None:
    path = tmp_path / name
    os.mkfifo(path)
    with pytest.raises(Vis2imgError, match=r"named pipe|must end in|cutouts must be|labelled images are"):
        read(path)


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    assert not_a_file("/dev/zero") == "a device" and not_a_file(tmp_path) == "a folder"
    (tmp_path / "a").write_text("")
    (tmp_path / "link").symlink_to("a")
    assert not_a_file(tmp_path / "link") is None and not_a_file(tmp_path / "none") is None


def test_only_names_that_start_with_a_home_are_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for text, path in {"~": "/home/me", "~/a b": "/home/me/a b", "a~": "a~", "~~": "~~", "~no one": "~no one"}.items():
        assert expand_home(text) == path


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"PNG" * 3000, "is no FITS file"),
        (b"SIMPLE  =                    T".ljust(80) * 36 * 3000, "its header has no end"),
        (b"SIMPLE  =                    T".ljust(80) * 20, "it ends in its header"),
        (gzip.compress(b"SIMPLE  =                    T".ljust(80) * 36 * 3000), "its header has no end"),
        (gzip.compress(b"SIMPLE  =                    T".ljust(80) * 360)[:40], "Compressed file ended"),
        (b"\x1f\x8b" + b"x" * 300, "cannot read"),
    ],
    ids=["empty", "other", "endless", "short", "endless gzip", "short gzip", "no gzip"],
)
def test_headers_without_an_end(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.fits"
    path.write_bytes(content)
    assert [words in said for said in refusals(path)] == [True, True]


def test_archives_are_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.fits", bytes(1 << 24))
    assert all("is no FITS file" in said for said in refusals(path))


@pytest.mark.parametrize("name", ["a.fits", "a.fits.gz"])
@pytest.mark.parametrize(
    "axes", [{"NAXIS1": "100000", "NAXIS2": "100000"}, {"NAXIS1": "1" + "0" * 17}, {"NAXIS2": "90"}]
)
def test_pixels_that_are_not_there(tmp_path: Path, name: str, axes: dict[str, str]) -> None:
    path = rewritten(image_file(tmp_path / "a.fits"), **axes)
    if name.endswith("gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    for said in refusals(path):
        assert "cut short" in said or "is damaged" in said or "cannot read" in said


@pytest.mark.parametrize(
    "cards",
    [
        {"NAXIS": "99"},
        {"NAXIS": "1" + "0" * 18}, {"NAXIS": "'two'"}, {"NAXIS1": "-64"}, {"NAXIS1": "'a'"}, {"NAXIS2": "0"},
        {"BITPIX": "7"}, {"BITPIX": "'x'"}, {"BITPIX": "-640"}, {"SIMPLE": "F"},
    ],
    ids=str,
)  # fmt: skip
def test_headers_that_are_nonsense(tmp_path: Path, cards: dict[str, str]) -> None:
    refusals(rewritten(image_file(tmp_path / "a.fits"), **cards))


@pytest.mark.parametrize(
    "cards",
    [
        {"CDELT1": "0.0"}, {"CDELT2": "'x'"}, {"CRVAL1": "'x'"}, {"CRVAL2": "114.0"}, {"CRVAL1": "1E400"},
        {"CRPIX1": "1E300"}, {"CDELT1": "1E300"}, {"CTYPE1": "7"}, {"CTYPE1": "'GLON-SIN'"}, {"CUNIT1": "'Jy'"},
        {"CRVAL2": "NaN"}, {"CDELT1": "-1E-300"},
    ],
    ids=str,
)  # fmt: skip
def test_skies_that_are_none(tmp_path: Path, cards: dict[str, str]) -> None:
    path = rewritten(image_file(tmp_path / "a.fits"), **cards)
    with pytest.raises(Vis2imgError) as caught:
        FitsField.open(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("scale", ["NaN", "1E300", "'x'"])
def test_scales_that_leave_no_picture(tmp_path: Path, scale: str) -> None:
    path = tmp_path / "a.fits"
    image_file(path, SCALED=2.0)
    path.write_bytes(path.read_bytes().replace(b"SCALED  =", b"BSCALE  ="))
    refusals(rewritten(path, BSCALE=scale))


def test_an_odd_beam_frequency_or_history_is_left_out(tmp_path: Path) -> None:
    cards = {"BMAJ": 1e300, "BMIN": "small", "RESTFRQ": -1.0, "HISTORY": 'vis2img imaging parameters: {"npix": ['}
    field = FitsField.open(image_file(tmp_path / "a.fits", **cards))
    assert field.image.beam == (0.0, 0.0) and field.image.freq is None
    assert np.isfinite(field.draw().data).all()


def test_negative_axes_of_compressed_files_do_not_hang(tmp_path: Path) -> None:
    path = rewritten(image_file(tmp_path / "a.fits"), NAXIS2="-64")
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert ["NAXIS2 in its header is negative" in said for said in refusals(path)] == [True, True]
