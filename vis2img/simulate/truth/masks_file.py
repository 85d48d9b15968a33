"""A file of masks: an image of labels, and a table of what each label is."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from vis2img.errors import ParameterError
from vis2img.files import atomic_output, check_outputs
from vis2img.simulate.truth.truth import Truth, What
from vis2img.simulate.truth.view import TruthView


def write_masks(
    truth: Truth,
    wcs: WCS | fits.Header,
    path: str | Path,
    *,
    shape: tuple[int, int] | None = None,
    overwrite: bool = False,
    **what: Unpack[What],
) -> Path:
    """Write the masks as an int32 FITS image of labels, with a table LABELS of what each label is.

    Parameters
    ----------
    truth : Truth
    wcs : astropy.wcs.WCS or astropy.io.fits.Header
        Pixels of the image; a header, or a WCS with a ``pixel_shape``, gives the shape too.
    path : path
        File to write. LABELS has the columns label, source_id, class, ra_deg, dec_deg, flux_jy, x, y and npix.
    shape : (int, int)
        (ny, nx) where ``wcs`` does not hold it.
    **what
        freq, classes, min_flux, beam and apparent, as in :meth:`Truth.at`.

    Raises
    ------
    OutputError
        If the file exists already (without ``overwrite``) or cannot be written; it is whole or not there.
    ParameterError
        If the shape is not known, or the WCS is not celestial.
    """
    check_outputs([Path(path)], overwrite)
    if isinstance(wcs, fits.Header):
        shape = shape or (wcs["NAXIS2"], wcs["NAXIS1"])
        wcs = WCS(wcs)
    shape = shape or wcs.celestial.array_shape
    if shape is None:
        raise ParameterError("the WCS has no pixel_shape: give shape=(ny, nx)")
    view = truth.at(wcs, shape, **what)
    labels = view.segmentation()
    image = fits.PrimaryHDU(labels, (wcs.celestial if wcs.naxis > 2 else wcs).to_header())
    table = fits.table_to_hdu(_table(view, labels))
    table.name = "LABELS"
    with atomic_output(Path(path), overwrite) as temporary:
        fits.HDUList([image, table]).writeto(temporary)
    return Path(path)


def _table(view: TruthView, labels: np.ndarray) -> Table:
    """Return what each of the ``labels`` [y, x] is."""
    return Table(
        {
            "label": np.arange(1, len(view) + 1, dtype=np.int32),
            "source_id": np.array([s.source_id for s in view.sources], dtype=np.int64),
            "class": np.array(view.labels, dtype="U16"),
            "ra_deg": np.degrees([s.ra for s in view.sources]),
            "dec_deg": np.degrees([s.dec for s in view.sources]),
            "flux_jy": view.flux,
            "x": view.x,
            "y": view.y,
            "npix": np.bincount(labels.ravel(), minlength=len(view) + 1)[1:].astype(np.int64),
        }
    )
