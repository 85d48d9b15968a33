"""Many images in one FITS file: channels and Stokes parameters as planes [stokes, freq, y, x].

    open_cube -> put(image, plane) ... -> header and beams -> the file, whole or not at all

:func:`open_cube` writes planes to the disk one by one; ``vis2img image`` holds those of one time interval until then.
The FREQ axis is linear, as FITS has it; planes that are not evenly spaced belong in files of their own
(``NAME-0000.fits``).
Beams that differ from plane to plane are in a BEAMS table as CASA writes and reads it (casacore's
ImageFITSConverter: CASAMBM in the primary header, columns BMAJ, BMIN, BPA, CHAN, POL), and so CARTA and spectral-cube.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from astropy.io.fits import BinTableHDU, Column, Header
from astropy.io.fits import open as open_fits

from vis2img.errors import ParameterError
from vis2img.files import atomic_output, check_outputs
from vis2img.imaging.fits import STOKES_CODES, image_header, plane_freq, psf_path
from vis2img.imaging.image import Image

_BLOCK = 2880  # bytes in which FITS files grow
_CARDS_PER_BLOCK = 36
_SPARE_CARDS = 36  # room for what only the last plane settles
_EVEN = 1e-3  # deviation from even spacing that passes, of the spacing
_SAME_BEAM = 1e-6  # relative difference of beams that counts as none


def spacing(values: Sequence[float]) -> float | None:
    """Return the step of evenly spaced ``values`` (to a thousandth of it), None if they are not or too few."""
    if len(values) < 2:
        return None
    step = (values[-1] - values[0]) / (len(values) - 1)
    even = np.asarray(values[0]) + step * np.arange(len(values))
    return float(step) if step != 0 and np.all(np.abs(np.asarray(values) - even) <= _EVEN * abs(step)) else None


def check_axes(stokes: str, freqs: Sequence[float]) -> None:
    """Refuse what the linear axes of one FITS file cannot hold; ask before imaging.

    Parameters
    ----------
    stokes : str
        Stokes parameters in the order of the planes, e.g. IQUV.
    freqs : sequence of float
        Centres of the planes in Hz.

    Raises
    ------
    ParameterError
        If the planes are not evenly spaced, or the Stokes parameters not neighbours in IQUV.
    """
    if not stokes or stokes not in "IQUV":
        raise ParameterError(
            f"Stokes {','.join(stokes)} are no neighbours in I,Q,U,V, so one FITS cube cannot hold them; "
            "write one file per Stokes parameter"
        )
    if not freqs:
        raise ParameterError("a cube needs at least one plane")
    if len(freqs) > 1 and spacing(freqs) is None:
        raise ParameterError(
            "the planes are not evenly spaced in frequency, so one FITS cube cannot hold them; "
            "write one file per plane, or choose channels that divide evenly"
        )


def fit_one_file(stokes: str, freqs: Sequence[float]) -> bool:
    """Return whether one FITS file can hold these planes; see :func:`check_axes`."""
    try:
        check_axes(stokes, freqs)
    except ParameterError:
        return False
    return True


class Cube:
    """A FITS cube being written; see :func:`open_cube`."""

    def __init__(self, file: IO[bytes], stokes: str, freqs: Sequence[float]) -> None:
        self._file, self._stokes, self._freqs = file, stokes, list(freqs)
        self._beams = np.zeros((len(stokes), len(freqs), 3))
        self._written = np.zeros((len(stokes), len(freqs)), dtype=bool)
        self._nvis, self._weight_sum = 0, 0.0
        self._freq_sum = 0.0
        self._header: Header | None = None
        self._npix = (0, 0)
        self._start = 0

    def put(self, image: Image, plane: int) -> None:
        """Write ``image`` as the ``plane``-th frequency of its Stokes parameter; the order does not matter.

        Raises
        ------
        ParameterError
            If the cube has no such plane, or planes of another size.
        """
        stokes = image.stokes
        if stokes not in self._stokes or not 0 <= plane < len(self._freqs):
            raise ParameterError(f"the cube has no plane {plane} of Stokes {stokes}")
        if self._header is None:
            self._header = image_header(_without_plane(image) if len(self._freqs) > 1 else image)
            self._header["CDELT3"] = spacing(self._freqs) or plane_freq(image)[1]
            self._npix = image.params.npix
            blocks = math.ceil((len(self._header.cards) + _SPARE_CARDS) / _CARDS_PER_BLOCK)
            self._start = blocks * _BLOCK
        if image.params.npix != self._npix:
            raise ParameterError(f"all planes of a cube have one size; got {image.params.npix} after {self._npix}")
        row = self._stokes.index(stokes)
        self._write(row, plane, image.data)
        self._beams[row, plane] = image.beam or 0.0
        self._written[row, plane] = True
        self._nvis += image.nvis
        self._weight_sum += image.weight_sum
        self._freq_sum += image.weight_sum * image.freq[0]

    def finish(self) -> None:
        """Write the header and fill planes that were never put with NaN."""
        if self._header is None:
            raise ParameterError("no plane of the cube holds an image")
        blank = np.full((self._npix[1], self._npix[0]), np.nan, dtype=np.float32)
        for row, plane in np.argwhere(~self._written):
            self._write(row, plane, blank)
        self._file.seek(0, 2)
        self._file.write(bytes(-self._file.tell() % _BLOCK))
        self._file.seek(0)
        self._file.write(self._final_header(self._header).tostring().encode("ascii"))

    def beam_table(self) -> BinTableHDU | None:
        """Return the BEAMS extension, or None when all planes have one beam."""
        beams = self._beams[self._written]
        if np.allclose(beams, beams[0], rtol=_SAME_BEAM, atol=0) and self._written.all():
            return None
        nstokes, nplane = self._written.shape
        # Planes without a beam have one of size 0, as blank ones in CASA.
        flat = np.degrees(self._beams.reshape(-1, 3))
        columns = [
            Column("BMAJ", "1E", unit="arcsec", array=flat[:, 0] * 3600),
            Column("BMIN", "1E", unit="arcsec", array=flat[:, 1] * 3600),
            Column("BPA", "1E", unit="deg", array=flat[:, 2]),
            Column("CHAN", "1J", array=np.tile(np.arange(nplane), nstokes)),
            Column("POL", "1J", array=np.repeat(np.arange(nstokes), nplane)),
        ]
        table = BinTableHDU.from_columns(columns, name="BEAMS", ver=1)
        table.header["NCHAN"], table.header["NPOL"] = nplane, nstokes
        return table

    def _write(self, row: int, plane: int, data: np.ndarray) -> None:
        nx, ny = self._npix
        if data.shape != (ny, nx):
            raise ParameterError(f"the image is {list(data.shape)}, its parameters say {[ny, nx]}")
        self._file.seek(self._start + (row * len(self._freqs) + plane) * nx * ny * 4)
        self._file.write(np.ascontiguousarray(data, dtype=">f4").data)

    def _final_header(self, header: Header) -> Header:
        """Return the primary header, padded with blank cards to the room that was left for it."""
        nstokes, nplane = self._written.shape
        full = Header([("SIMPLE", True, "conforms to FITS standard"), ("BITPIX", -32), ("NAXIS", 4)])
        for axis, size in enumerate((*self._npix, nplane, nstokes), start=1):
            full[f"NAXIS{axis}"] = size
        full["EXTEND"] = True
        full.extend(header, end=True)
        full["CRVAL3"] = self._freqs[0]
        full["CRVAL4"] = float(STOKES_CODES[self._stokes[0]])
        full["VI_NVIS"], full["VI_WSUM"] = self._nvis, self._weight_sum
        if self._weight_sum > 0:
            full["VI_FREQ"] = self._freq_sum / self._weight_sum
        if self.beam_table() is not None:
            for name in ("BMAJ", "BMIN", "BPA"):
                full.remove(name, ignore_missing=True)
            full.insert("BTYPE", ("CASAMBM", True, "CASA Multiple BeaMs table present"), after=True)
        while len(full.tostring(padding=True)) < self._start:
            full.append(("", "", ""), end=True)
        return full


def _without_plane(image: Image) -> Image:
    """Return ``image`` without saying which plane of a cube it is: the header is that of all."""
    split = image.split and dataclasses.replace(image.split, channel=None)
    return dataclasses.replace(image, split=split)


@contextlib.contextmanager
def open_cube(path: str | Path, stokes: str, freqs: Sequence[float], overwrite: bool = False) -> Iterator[Cube]:
    """Give a cube to ``put`` images into; the file is there when the block ends without an error.

    Parameters
    ----------
    path : path
        FITS file to write.
    stokes : str
        Stokes parameters of the planes: I, IQUV, QU, ...
    freqs : sequence of float
        Centres of the planes in Hz, evenly spaced.
    overwrite : bool
        Replace an existing file.

    Raises
    ------
    ParameterError
        As :func:`check_axes`; and when no plane was put.
    OutputError
        If the file exists already, or cannot be written.
    """
    check_axes(stokes, freqs)
    with atomic_output(Path(path), overwrite) as temporary:
        with temporary.open("xb+") as file:
            cube = Cube(file, stokes, freqs)
            yield cube
            cube.finish()
        table = cube.beam_table()
        if table is not None:
            with open_fits(temporary, mode="append", memmap=False, lazy_load_hdus=True) as hdus:
                hdus.append(table)


def write_cube(images: Sequence[Sequence[Image | None]], path: str | Path, overwrite: bool = False) -> list[Path]:
    """Write ``images`` [stokes][plane] as one FITS cube, and their PSFs beside it as ``NAME-psf.fits``.

    Parameters
    ----------
    images : sequence of sequence of Image
        One row per Stokes parameter, planes in order of frequency; None is a plane without data (NaN).
    path : path
        Name of the file.
    overwrite : bool
        Replace existing files.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    ParameterError
        If the planes do not fit the linear axes of one file (:func:`check_axes`), or each other.
    OutputError
        If a file exists already, or cannot be written.
    """
    stokes, freqs = _axes(images)
    check_axes(stokes, freqs)
    path = Path(path)
    with_psf = any(image is not None and image.psf is not None for row in images for image in row)
    targets = [path, psf_path(path)] if with_psf else [path]
    check_outputs(targets, overwrite)
    for target in targets:
        with open_cube(target, stokes, freqs, overwrite) as cube:
            for row in images:
                for plane, image in enumerate(row):
                    data = None if image is None else image.data if target == path else image.psf
                    if image is not None and data is not None:
                        cube.put(dataclasses.replace(image, data=data), plane)
    return targets


def _axes(images: Sequence[Sequence[Image | None]]) -> tuple[str, list[float]]:
    """Return the Stokes parameters and the frequencies of the planes; those without data are interpolated."""
    if len({len(row) for row in images}) != 1:
        raise ParameterError("every Stokes parameter of a cube needs the same number of planes")
    stokes = ""
    known: dict[int, float] = {}
    for row in images:
        names = {image.stokes for image in row if image is not None}
        if len(names) != 1:
            raise ParameterError("each row of a cube holds the planes of one Stokes parameter")
        stokes += names.pop()
        for plane, image in enumerate(row):
            if image is None:
                continue
            freq, width = plane_freq(image)
            if abs(known.setdefault(plane, freq) - freq) > _EVEN * width:
                raise ParameterError(f"plane {plane} has another frequency in another Stokes parameter")
    if len(known) == len(images[0]):
        return stokes, [known[plane] for plane in range(len(known))]
    if len(known) < 2:
        raise ParameterError("a cube with empty planes needs two that hold an image")
    planes = sorted(known)
    slope = (known[planes[-1]] - known[planes[0]]) / (planes[-1] - planes[0])
    return stokes, [known.get(i, known[planes[0]] + slope * (i - planes[0])) for i in range(len(images[0]))]
