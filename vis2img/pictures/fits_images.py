"""Pictures in FITS images: their pixels, the size of these, and where their middle is."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vis2img.errors import Vis2imgError, first_line
from vis2img.files import is_fits


def fits_files(folder: Path) -> list[Path]:
    """Return the FITS files of a folder, by name."""
    return sorted(file for file in folder.iterdir() if is_fits(file))


@contextlib.contextmanager
def _first_image(path: Path) -> Iterator[Any]:
    """Open a FITS file and give its first image; None if it holds none."""
    from astropy.io import fits

    with fits.open(path, memmap=False) as hdus:
        yield next((hdu for hdu in hdus if getattr(hdu, "is_image", False) and hdu.data is not None), None)


def fits_image(path: Path) -> tuple[np.ndarray, float]:
    """Return the first image of a FITS file, [y, x] with east to the left and north last, and its pixel size in rad."""
    try:
        with _first_image(path) as hdu:
            pixels, header = (None, {}) if hdu is None else (np.squeeze(np.asarray(hdu.data, float)), hdu.header)
    except Exception as error:  # astropy raises many types for a damaged file
        raise Vis2imgError(f"cannot read the cutout {path}: {first_line(error)}") from error
    if pixels is None or pixels.ndim != 2:
        raise Vis2imgError(f"{path} holds no image of two axes")

    step_x, step_y = (header.get(f"CDELT{i}", header.get(f"CD{i}_{i}", 0.0)) for i in (1, 2))
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
