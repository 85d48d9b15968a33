"""FITS images of the sky, dirty or cleaned, by vis2img, WSClean, CASA or others.

Pixels are taken as the SIN projection about the middle pixel, npix // 2, that a draw is
(:mod:`vis2img.imaging.gridding`).
Whatever the header says, SIN about another pixel, TAN, a slight turn, is accepted if no pixel lies more than half a
pixel away from there, and refused otherwise.
"""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vis2img.coordinates import direction_cosines, lm_to_pixel, place_in_icrs
from vis2img.errors import MeasurementSetError, Vis2imgError, Vis2imgWarning, first_line
from vis2img.imaging.params import MIN_NPIX
from vis2img.inputs import check_fits, check_pixels

if TYPE_CHECKING:
    from astropy.io.fits import Header
    from astropy.wcs import WCS

_TOLERANCE = 0.5  # pixels
_EQUINOXES = (1800.0, 2200.0)  # years
_OF_SKY = re.compile(r"(CRVAL|CRPIX|CDELT|CROTA|CD|PC|PV|LONPOLE|LATPOLE)[\d_]*")
_WIDEST_BEAM = 180.0  # deg
_LOOKS = 5  # places along an axis where the projection is compared
_BLOCK_BYTES = 1 << 26  # of the file that are converted at a time


@dataclass(frozen=True)
class SkyImage:
    """A FITS image: what its header tells."""

    path: str
    hdu: int
    """Which part of the file holds the image."""
    shape: tuple[int, int]
    """Its pixels in the file, x and y."""
    npix: tuple[int, int]
    """Those that are used, about the middle: even, and no more than the field of view asked for."""
    flips: tuple[bool, bool]
    """Whether x or y runs the other way in the file than in a draw (x along decreasing RA, y along increasing Dec)."""
    pixsize: float
    """Side of a pixel in rad."""
    phase_centre: tuple[float, float]
    """RA and Dec of pixel npix // 2 in rad (ICRS; J2000 counts as the same)."""
    beam: tuple[float, float]
    """FWHM of the restoring beam, BMAJ and BMIN, rad; 0 where the header has none."""
    freq: float | None
    """Hz, where the header tells."""
    noise: float
    """NOISE of the header, Jy/beam, by which views are stretched; 0 where it has none."""
    turn: float = 0.0
    """Position angle in rad of its y: north in its own frame, which need not be that of ICRS."""

    @property
    def suggested_pixsize(self) -> float:
        """Pixel size in which patches are counted, rad.

        A third of the beam (geometric mean of its axes), else the pixel of the image. The beam of a synthesised image
        is 1 to 2 of the finest fringes wide, by weighting: patches of images and of the measurement sets that they
        were made of are alike in angle only if the size is given.
        """
        return math.sqrt(self.beam[0] * self.beam[1]) / 3 or self.pixsize

    @property
    def start(self) -> tuple[int, int]:
        """First pixel that is used, x and y, as a draw counts them."""
        nx, ny = self.shape
        return nx // 2 - self.npix[0] // 2, ny // 2 - self.npix[1] // 2


def open_image(path: str | Path, fov: float = math.inf) -> SkyImage:
    """Read and check the header of a FITS image.

    Parameters
    ----------
    path : path
    fov : float
        Largest side in rad that is used.

    Raises
    ------
    MeasurementSetError
        If the file is no image of one Stokes I plane with RA and Dec, or its pixels are too far from a SIN
        projection; one line that names it.
    """
    try:
        return _open_image(path, fov)
    except Vis2imgError:
        raise
    except Exception as error:  # of a header whose values are of any type
        raise MeasurementSetError(f"{path}: its header cannot be read: {first_line(error)}") from error


def _open_image(path: str | Path, fov: float) -> SkyImage:
    with _opened(path) as hdus:
        number, header, shape = _image_of(path, hdus)
        sky = _sky_of(path, header)
    beam = [header.get(name) for name in ("BMAJ", "BMIN")]
    has_beam = all(isinstance(axis, int | float) and 0 < axis < _WIDEST_BEAM for axis in beam)
    major, minor = (math.radians(float(axis)) for axis in beam) if has_beam else (0.0, 0.0)
    flips, rough = _axes(path, sky, shape)
    side = 2 * math.ceil(min(fov, 4.0) / rough / 2 - 1e-9)
    npix = (min(shape[0] // 2 * 2, side), min(shape[1] // 2 * 2, side))
    if min(npix) < MIN_NPIX:
        raise MeasurementSetError(
            f"{path} has {npix[0]} x {npix[1]} pixels to use, and a field needs {MIN_NPIX} at least"
        )
    image = SkyImage(
        str(path), number, shape, npix, flips, rough, (0.0, 0.0), (major, minor), _frequency(header), _noise(header)
    )  # fmt: skip
    pixsize, centre = _as_sin(image, sky)
    centre, turn = _equatorial(path, sky, centre)
    return replace(image, pixsize=pixsize, phase_centre=centre, turn=turn)


def _equatorial(path: str | Path, sky: WCS, centre: tuple[float, float]) -> tuple[tuple[float, float], float]:
    """Return the middle of an image as RA and Dec (ICRS), and how far its north is turned there; J2000 stays."""
    from astropy.coordinates import FK5, ICRS, Galactic
    from astropy.wcs.utils import wcs_to_celestial_frame

    try:
        frame = wcs_to_celestial_frame(sky)
    except ValueError as error:
        told = sky.wcs.radesys.strip() or "no frame that is known"
        raise MeasurementSetError(f"{path}: its directions are in {told}; reproject it to ICRS") from error
    if isinstance(frame, ICRS) or (isinstance(frame, FK5) and frame.equinox.jyear == 2000.0):
        return centre, 0.0
    year = sky.wcs.equinox
    if not isinstance(frame, Galactic) and not _EQUINOXES[0] <= year <= _EQUINOXES[1]:  # AIPS: 0 where it is not known
        warnings.warn(
            f"{path}: its equinox {year:g} is no year of a sky chart; its directions are taken as J2000",
            Vis2imgWarning,
            stacklevel=2,
        )
        return centre, 0.0
    return place_in_icrs(centre, frame)


def _opened(path: str | Path) -> Any:
    from astropy.io import fits

    check_fits(path, MeasurementSetError)
    try:
        return fits.open(path, memmap=False)  # scaled numbers cannot be mapped
    except Exception as error:  # astropy raises many types for a damaged file
        raise MeasurementSetError(f"cannot read the image {path}: {first_line(error)}") from error


def _image_of(path: str | Path, hdus: Any) -> tuple[int, Header, tuple[int, int]]:
    """Return number, header and shape (x, y) of the image in a FITS file."""
    try:
        images = [(i, hdu) for i, hdu in enumerate(hdus) if getattr(hdu, "is_image", False) and len(hdu.shape) >= 2]
    except Exception as error:
        raise MeasurementSetError(f"cannot read the image {path}: {first_line(error)}") from error
    if not images:
        raise MeasurementSetError(f"{path} holds no image of two axes")
    number, hdu = images[0]
    check_pixels(path, hdu, MeasurementSetError)
    if math.prod(hdu.shape[:-2]) != 1:
        axes = " x ".join(map(str, hdu.shape[::-1]))
        raise MeasurementSetError(f"{path} holds {axes} pixels; write one plane into a file of its own")
    header = hdu.header
    for axis in range(1, len(hdu.shape) + 1):
        if str(header.get(f"CTYPE{axis}", "")).strip() == "STOKES":
            code = header.get(f"CRVAL{axis}", 1) + (1 - header.get(f"CRPIX{axis}", 1)) * header.get(f"CDELT{axis}", 1)
            if round(code) != 1:
                raise MeasurementSetError(f"{path} is not of Stokes I (its STOKES axis has the value {code:g})")
    return number, header, (hdu.shape[-1], hdu.shape[-2])


def _sky_of(path: str | Path, header: Header) -> WCS:
    from astropy.wcs import WCS

    for name in filter(_OF_SKY.fullmatch, header):
        if not isinstance(header[name], int | float):  # which wcslib would pass over, and take 0
            raise MeasurementSetError(f"{path}: {name} in its header is no number")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of keywords that astropy mends
            wcs = WCS(header)
            sky = wcs.celestial
    except Exception as error:
        raise MeasurementSetError(f"{path}: its sky coordinates cannot be read: {first_line(error)}") from error
    if sky.naxis != 2 or (wcs.wcs.lng, wcs.wcs.lat) != (0, 1) or sky.wcs.lngtyp.strip() not in ("RA", "GLON"):
        kinds = ", ".join(str(header.get(f"CTYPE{i}", "nothing")).strip() for i in (1, 2))
        raise MeasurementSetError(f"{path}: its first two axes must be RA and Dec (or galactic), not {kinds}")
    return sky


def _frequency(header: Header) -> float | None:
    """Return the frequency of an image in Hz, if its header tells."""
    axes = range(3, int(header.get("NAXIS", 2)) + 1)
    axis = next((i for i in axes if str(header.get(f"CTYPE{i}", "")).strip().startswith("FREQ")), None)
    value = header.get(f"CRVAL{axis}") if axis else header.get("RESTFRQ", header.get("FREQ"))
    return float(value) if isinstance(value, int | float) and 0 < value < math.inf else None


def _noise(header: Header) -> float:
    value = header.get("NOISE")
    return float(value) if isinstance(value, int | float) and 0 < value < math.inf else 0.0


def _axes(path: str | Path, sky: WCS, shape: tuple[int, int]) -> tuple[tuple[bool, bool], float]:
    """Return which axes of the file run the other way, and about how large a pixel is (rad)."""
    x, y = shape[0] // 2, shape[1] // 2
    ra, dec = np.radians(sky.all_pix2world([x, x + 1, x], [y, y, y + 1], 0))
    if not np.isfinite([ra, dec]).all():
        raise MeasurementSetError(f"{path}: the middle of the image is not on the sky")
    (_, _, _), (l, _, _), (_, m, _) = direction_cosines(ra, dec, (ra[0], dec[0]))
    pixsize = math.sqrt(abs(l * m))
    if not pixsize > 1e-12:
        raise MeasurementSetError(f"{path}: its x does not run along RA and its y along Dec; turn it north up")
    return (bool(l > 0), bool(m < 0)), pixsize


def _as_sin(image: SkyImage, sky: WCS) -> tuple[float, tuple[float, float]]:
    """Return the pixel size and centre of the SIN projection that is nearest to an image, if that is near enough."""
    # Where pixels are in the file, from the middle of the draw.
    steps = [np.linspace(-(n // 2), n // 2 - 1, _LOOKS) for n in image.npix]
    dx, dy = (each.ravel() for each in np.meshgrid(np.append(0.0, steps[0]), np.append(0.0, steps[1])))
    places = []
    for n, flipped, step in zip(image.shape, image.flips, (dx, dy), strict=True):
        middle = n - 1 - n // 2 if flipped else n // 2
        places.append(middle - step if flipped else middle + step)
    ra, dec = np.radians(sky.all_pix2world(*places, 0))
    centre = float(ra[0] % (2 * math.pi)), float(dec[0])
    seen = np.isfinite(ra) & np.isfinite(dec)  # corners of an image of the whole sky are beyond it
    dx, dy = dx[seen], dy[seen]
    l, m, _ = direction_cosines(ra[seen], dec[seen], centre).T
    pixsize = float((m @ dy - l @ dx) / (dx @ dx + dy @ dy))
    apart = math.inf
    if pixsize > 0:
        x, y = lm_to_pixel(l, m, (0, 0), pixsize)
        apart = float(np.hypot(x - dx, y - dy).max())
    if not apart <= _TOLERANCE:
        kind = " and ".join(str(name) for name in sky.wcs.ctype)
        raise MeasurementSetError(
            f"{image.path}: pixels are {apart:.1f} pixels from where the SIN projection about the middle has them "
            f"({kind}, or turned, or oblong pixels); reproject it to SIN, or use the middle alone (data.fov)"
        )
    if max(image.npix) * pixsize > 2:
        raise MeasurementSetError(f"{image.path} is wider than the hemisphere; use the middle alone (data.fov)")
    return pixsize, centre


def read_pixels(image: SkyImage) -> np.ndarray:
    """Return the pixels that are used, float32 [y, x] along decreasing RA and increasing Dec, NaN where blank."""
    spans = []
    for n, used, start, flipped in zip(image.shape, image.npix, image.start, image.flips, strict=True):
        spans.append((n - start - used, n - start) if flipped else (start, start + used))
    (x0, x1), (y0, y1) = spans
    data = np.empty((y1 - y0, x1 - x0), np.float32)
    rows = max(1, _BLOCK_BYTES // (8 * image.shape[0]))
    with _opened(image.path) as hdus:
        hdu = hdus[image.hdu]
        planes = (0,) * (len(hdu.shape) - 2)
        try:
            for start in range(y0, y1, rows):
                stop = min(start + rows, y1)
                # Sections, so that a large file does not fill the memory; of whole rows, which lie together.
                data[start - y0 : stop - y0] = hdu.section[(*planes, slice(start, stop))][:, x0:x1]
        except Exception as error:
            raise MeasurementSetError(f"cannot read the image {image.path}: {first_line(error)}") from error
    data[~np.isfinite(data)] = np.nan
    data = data[:, ::-1] if image.flips[0] else data
    return np.ascontiguousarray(data[::-1] if image.flips[1] else data)
