"""Damaged pictures: FITS images, plain and compressed, their headers, and archives of NumPy."""

from __future__ import annotations

import functools
import gzip
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from tests.fuzz.damage import damaged_bytes, replace_file
from tests.fuzz.frame import Case, kind

_CARDS = (
    *("NAXIS", "NAXIS1", "NAXIS2", "BITPIX", "SIMPLE", "CRVAL1", "CRVAL2", "CRPIX1", "CDELT1", "CDELT2", "CTYPE1"),
    *("CTYPE2", "CUNIT1", "BSCALE", "BZERO", "BLANK", "BMAJ", "NOISE", "RESTFRQ", "RADESYS", "EQUINOX"),
)
_TOKENS = (
    *(
        "0",
        "-1",
        "1",
        "2",
        "64",
        "1E300",
        "-1E300",
        "1E400",
        "NaN",
        "INF",
        "1" + "0" * 18,
        "99999",
        "114.0",
        "1E-300",
        "T",
    ),
    *("'x'", "''", "'GLON-SIN'", "'RA---ZPN'", "'STOKES'", "'Jy'", "'FK4'", "1950.0", "", "'\u00e9'", "8", "-64", "16"),
)


def _header() -> fits.Header:
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"], header["CUNIT1"], header["CUNIT2"] = "RA---SIN", "DEC--SIN", "deg", "deg"
    header["CRVAL1"], header["CRVAL2"], header["CRPIX1"], header["CRPIX2"] = 150.0, -30.0, 33.0, 33.0
    header["CDELT1"], header["CDELT2"], header["RADESYS"], header["EQUINOX"] = -5 / 3600, 5 / 3600, "FK5", 2000.0
    header["BMAJ"], header["BMIN"], header["NOISE"], header["RESTFRQ"] = 0.005, 0.004, 1.0, 1.4e9
    for name in ("XSCALE", "XZERO", "XBLANK"):
        header[name] = 1
    return header


@functools.cache
def _plain(kind_of: str) -> bytes:
    noise = np.random.default_rng(0).normal(scale=9.0, size=(64, 64))
    buffer = io.BytesIO()
    fits.PrimaryHDU(noise.astype(kind_of), _header()).writeto(buffer)
    # astropy keeps these three out of headers of floats.
    return buffer.getvalue().replace(b"XSCALE  =", b"BSCALE  =").replace(b"XZERO   =", b"BZERO   =")


@functools.cache
def _packed(way: str) -> bytes:
    noise = np.random.default_rng(0).normal(scale=9.0, size=(64, 64)).astype(np.float32)
    buffer = io.BytesIO()
    hdu = fits.CompImageHDU(noise, _header(), compression_type=way, quantize_level=16 if way != "GZIP_2" else 0)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(buffer)
    return buffer.getvalue()


def _case(rng: np.random.Generator, folder: Path, name: str, content: bytes, what: str) -> Case:
    path = folder / name
    path.write_bytes(content)
    reader = str(rng.choice(["field", "field", "pictures", "labelled"]))
    return Case(("read", reader, path), (path,), what)


@kind(share=3)
def headers(rng: np.random.Generator, folder: Path) -> Case:
    """Put odd values into cards."""
    raw, told = bytearray(_plain(str(rng.choice([">f4", ">f8", ">i2", ">i4", "u1"])))), []
    for _ in range(int(rng.choice([1, 1, 2]))):
        card, token = str(rng.choice(_CARDS)), str(rng.choice(_TOKENS))
        at = raw.find(f"{card:<8}=".encode())
        if at >= 0:
            raw[at : at + 80] = f"{card:<8}= {token:>20}".ljust(80).encode("latin1")[:80]
            told.append(f"{card} = {token}")
    content = bytes(raw)
    if rng.random() < 0.2:
        return _case(rng, folder, "a.fits.gz", gzip.compress(content), f"gzip, {', '.join(told)}")
    return _case(rng, folder, "a.fits", content, ", ".join(told))


@kind(share=2)
def bytes_of_images(rng: np.random.Generator, folder: Path) -> Case:
    """Damage bytes."""
    content = _plain(str(rng.choice([">f4", ">i2"])))
    damaged, what = damaged_bytes(rng, content[:2880] if rng.random() < 0.6 else content)
    return _case(rng, folder, "a.fits", damaged + content[2880:] if len(damaged) < 6000 else damaged, what)


@kind(share=2)
def compressed(rng: np.random.Generator, folder: Path) -> Case:
    """Damage images packed by gzip or fpack."""
    if rng.random() < 0.4:
        content, what = damaged_bytes(rng, gzip.compress(_plain(">f4")))
        return _case(rng, folder, "a.fits.gz", content, what)
    content = _packed(str(rng.choice(["RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1"])))
    cut = 2880 if rng.random() < 0.7 else 2880 * 3
    damaged, what = damaged_bytes(rng, content[cut:])
    return _case(rng, folder, "a.fits.fz", content[:cut] + damaged, what)


@kind(share=2)
def archives(rng: np.random.Generator, folder: Path) -> Case:
    """Damage archives of pictures, or put arrays of other types and shapes into them."""
    images = np.random.default_rng(0).normal(size=(3, 32, 32)).astype(str(rng.choice(["<f4", ">i2", "u1", ">f8"])))
    arrays: dict[str, Any] = {"images": images, "label": np.array([0, 1, 0]), "filename": np.array(["a", "b", "c"])}
    odd: tuple[Any, ...] = (
        *(np.zeros(0), np.array(1), np.array(["a", 1], object), np.zeros((3, 0, 4)), np.zeros((3, 4, 4), complex)),
        *(np.full((3, 32, 32), np.nan), np.full((3, 32, 32), 3e38) * (-1) ** np.arange(32), np.array([b"\xff"] * 3)),
        *(np.zeros((3, 32, 32), bool), np.zeros(3, "M8[s]"), np.zeros((2, 32, 32)), np.zeros(3, [("a", "i4")])),
    )
    what = "bytes"
    if rng.random() < 0.5:
        name, at = str(rng.choice([*arrays])), int(rng.integers(len(odd)))
        arrays[name], what = odd[at], f"{name} is odd {at}"
    buffer = io.BytesIO()
    (np.savez if rng.random() < 0.7 else np.savez_compressed)(buffer, **arrays)
    content = buffer.getvalue()
    if what == "bytes":
        content, what = damaged_bytes(rng, content)
    case = _case(rng, folder, "a.npz", content, what)
    return Case(("read", str(rng.choice(["pictures", "labelled"])), folder / "a.npz"), case.inputs, what)


@kind(share=0.5)
def headers_of_arrays(rng: np.random.Generator, folder: Path) -> Case:
    """Put a header into an archive that tells of more than there is, or of something else."""
    shapes = (
        "(10**9,)",
        "(1000000, 1000, 1000)",
        "(-3, 32, 32)",
        "(3, 32)",
        "()",
        "[[3]]",
        "(3, 32, 32" + ", 1" * 40 + ")",
    )
    kinds_of = ("'<f4'", "'|O'", "'<U1000000000'", "[('a', '<f4')]", "'x'", "'<f4'", "{'a': 1}")
    header = f"{{'descr': {rng.choice(kinds_of)}, 'fortran_order': False, 'shape': {rng.choice(shapes)}, }}"
    if rng.random() < 0.2:
        header = "(" * int(rng.choice([50, 5000, 60_000]))
    text = header.encode().ljust(64 * (len(header) // 64 + 1) - 10) + b"\n"
    member = b"\x93NUMPY\x01\x00" + (len(text) % 65536).to_bytes(2, "little") + text + bytes(4096)
    path = folder / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", member)
    return Case(("read", str(rng.choice(["pictures", "labelled"])), path), (path,), header[:60])


@kind(share=0.3)
def no_files(rng: np.random.Generator, folder: Path) -> Case:
    """Put something else in the place of a picture."""
    path = folder / str(rng.choice(["a.fits", "a.npz", "a.fits.gz"]))
    path.write_bytes(_plain(">f4"))
    what = replace_file(rng, folder, path)
    return Case(("read", str(rng.choice(["field", "pictures", "labelled"])), path), (), what)
