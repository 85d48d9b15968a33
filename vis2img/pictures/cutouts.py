"""Cutouts as files hold them: pictures with columns of labels and numbers, and with positions; FITS images of one."""

from __future__ import annotations

import contextlib
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vis2img.errors import Vis2imgError, first_line
from vis2img.files import is_fits
from vis2img.inputs import check_fits, check_pixels

_RA, _DEC = ("ra_deg", "ra"), ("dec_deg", "dec")
# Labels, flags, names, places and units: without the unit that a name may end with, in small letters.
_NO_TARGET = {
    *("fr", "label", "label10", "class", "code", "name", "filename", "id", "index", "row", "ra", "dec", "rms", "scale"),
    *("confident", "in_mirabest", "has_blank", "split", "fold", "train", "test"),
}
_UNIT = re.compile(r"_(deg|rad|arcsec|u?m?jy)$")


@dataclass(frozen=True, eq=False)
class RawCutouts:
    """Cutouts before they are cut and stretched.

    Parameters
    ----------
    path : Path
    images : sequence of [y, x]
        Of any type and in any unit, NaN where blank.
    names : tuple of str
        What the file calls each.
    rows : tuple of str
        What messages call each: file and row.
    columns : dict
        Arrays [n]: labels, flags and numbers.
    pixsize : float64 [n]
        Side of a pixel in rad; 0 where the file does not tell.
    files : tuple of path
        The FITS image [n] of each; empty if they are of other files.
    label_names : tuple of str
        Of the numbers in ``label10`` or ``label``; empty if the file does not tell.
    named : bool
        Whether the file names each cutout; else ``names`` count them, and say nothing about another file.
    skipped : dict
        Files among others that cannot be read, and why.
    """

    path: Path
    images: Sequence[np.ndarray] | np.ndarray = field(repr=False)
    names: tuple[str, ...] = field(repr=False)
    rows: tuple[str, ...] = field(repr=False)
    columns: dict[str, np.ndarray] = field(repr=False)
    pixsize: np.ndarray = field(repr=False)
    files: tuple[Path, ...] = field(repr=False, default=())
    label_names: tuple[str, ...] = ()
    named: bool = True
    skipped: dict[str, str] = field(repr=False, default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def position(self) -> np.ndarray:
        """RA and Dec float64 [n, 2] in rad, from columns or headers; NaN where unknown.

        Raises
        ------
        Vis2imgError
            If one is no position, or there is one coordinate without the other; the message names column and row.
        """
        ra, dec = (next((name for name in names if name in self.columns), None) for names in (_RA, _DEC))
        if ra is None and self.files:
            return np.radians([centre_deg(file) for file in self.files])
        degrees = [self._degrees(name, most) for name, most in ((ra, 360.0), (dec, 90.0)) if name is not None]
        if len(degrees) == 1:
            lacking = f"right ascension ({' or '.join(_RA)})" if ra is None else f"declination ({' or '.join(_DEC)})"
            raise Vis2imgError(f"{self.path} has {ra or dec} and no {lacking}")
        if not degrees:
            return np.full((len(self), 2), np.nan)

        place = np.radians(np.stack(degrees, axis=1))
        place[:, 0] %= 2 * np.pi
        place[~np.isfinite(place).all(axis=1)] = np.nan
        return place

    def _degrees(self, name: str, most: float) -> np.ndarray:
        value = self.columns[name]
        if value.dtype.kind not in "iuf":
            raise Vis2imgError(f"{self.path}: {name} must be numbers in deg, not {value.dtype}")
        wrong = np.flatnonzero((value < -most) | (value > most))
        if len(wrong):
            row = wrong[0]
            raise Vis2imgError(f"{self.rows[row]}: {name} = {value[row]:g} deg is outside {-most:g}:{most:g}")
        return value.astype(np.float64)

    @property
    def targets(self) -> dict[str, np.ndarray]:
        """Columns of real numbers float64 [n] to ask for: redshift, size_arcsec and the like.

        Left out are labels, positions, names and units by the name of the column, and whatever is 0 or 1 only.
        """
        return {
            name: values.astype(np.float64)
            for name, values in self.columns.items()
            if values.dtype.kind == "f" and _UNIT.sub("", name.lower()) not in _NO_TARGET and not _is_flag(values)
        }


def _is_flag(values: np.ndarray) -> bool:
    numbers = values[~np.isnan(values)]
    return len(numbers) > 0 and bool(np.isin(numbers, (0, 1)).all())


def fits_files(folder: Path) -> list[Path]:
    """Return the FITS files of a folder, by name."""
    return sorted(file for file in folder.iterdir() if is_fits(file))


@contextlib.contextmanager
def _first_image(path: Path) -> Iterator[Any]:
    """Open a FITS file and give its first image; None if it holds none."""
    from astropy.io import fits

    check_fits(path)
    with fits.open(path, memmap=False) as hdus:
        image = next((hdu for hdu in hdus if getattr(hdu, "is_image", False) and hdu.shape), None)
        if image is not None:
            check_pixels(path, image)
        yield image


def native(values: np.ndarray) -> np.ndarray:
    """Return an array in the byte order of this machine: FITS has the other, which few libraries take."""
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def fits_image(path: Path) -> tuple[np.ndarray, float]:
    """Return the first image of a FITS file, [y, x] with east to the left and north last, and its pixel size in rad."""
    try:
        with _first_image(path) as hdu:
            pixels = None if hdu is None else np.squeeze(native(np.asarray(hdu.data)))
            header = {} if hdu is None else hdu.header
            step_x, step_y = (header.get(f"CDELT{i}", header.get(f"CD{i}_{i}", 0.0)) for i in (1, 2))
    except Vis2imgError:
        raise
    except Exception as error:  # astropy raises many types for a damaged file
        raise Vis2imgError(f"cannot read the cutout {path}: {first_line(error)}") from error
    if pixels is None or pixels.ndim != 2 or not pixels.size:
        raise Vis2imgError(f"{path} holds no image of two axes")
    if not all(isinstance(step, int | float) and math.isfinite(step) for step in (step_x, step_y)):
        raise Vis2imgError(f"{path}: CDELT (or CD) in its header are no numbers")
    if step_x > 0:
        pixels = pixels[:, ::-1]
    if step_y < 0:
        pixels = pixels[::-1]
    return pixels, math.radians(abs(step_y))


def centre_deg(path: Path) -> tuple[float, float]:
    """Return RA and Dec of the middle of a FITS image in deg; NaN where its header does not tell."""
    from astropy.wcs import WCS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # headers of surveys hold many things that astropy mends
        try:
            with _first_image(path) as hdu:
                header = hdu.header
            wcs = WCS(header).celestial
            nx, ny = wcs.pixel_shape or (header["NAXIS1"], header["NAXIS2"])
            place = wcs.pixel_to_world((nx - 1) / 2, (ny - 1) / 2).icrs
            return float(place.ra.deg), float(place.dec.deg)
        except Exception:  # no celestial axes, or ones that astropy refuses
            return math.nan, math.nan
