"""Images as FITS files that CASA, CARTA, DS9 and WSClean users find familiar, written whole or not at all.

Four axes [stokes, freq, y, x] and the SIN projection of Greisen & Calabretta 2002, A&A 395, 1061 and 1077.
The imaging parameters, the selection and the measurement sets travel in HISTORY records, from which
:func:`read_params`, :func:`read_selection` and :func:`read_origin` take them back, so that an image can be made again.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io.fits import Header, PrimaryHDU, getheader

from vis2img import __version__
from vis2img.errors import ParameterError, first_line
from vis2img.files import atomic_output, check_outputs
from vis2img.imaging.params import ImagingParams
from vis2img.ms.selection import Selection
from vis2img.units import ARCSEC, utc_text

if TYPE_CHECKING:
    from astropy.wcs import WCS

    from vis2img.imaging.image import Image

_PARAMS_MARK = "vis2img imaging parameters: "
_ORIGIN_MARK = "vis2img data: "
# Frames of directions as FITS names, with the equinox where one is needed.
_FRAMES: dict[str, tuple[str, float | None]]
_FRAMES = {"J2000": ("FK5", 2000.0), "FK5": ("FK5", 2000.0), "ICRS": ("ICRS", None)}
# Those of frequencies (casacore MFrequency): FITS paper III (Greisen et al. 2006, A&A 446, 747), table 12.
_SPECTRAL_FRAMES = {
    "TOPO": "TOPOCENT", "GEO": "GEOCENTR", "BARY": "BARYCENT", "LSRK": "LSRK", "LSRD": "LSRD",
    "GALACTO": "GALACTOC", "LGROUP": "LOCALGRP", "CMB": "CMBDIPOL", "REST": "SOURCE",
}  # fmt: skip
STOKES_CODES = {"I": 1, "Q": 2, "U": 3, "V": 4}  # FITS paper I, table 7


def psf_path(path: Path) -> Path:
    """Return where the point spread function of the image ``path`` goes: ``NAME-psf.fits``."""
    return path.with_name(f"{path.stem}-psf{path.suffix}")


def _sky_axes(image: Image) -> list[tuple[str, float, float, float, str]]:
    """Return CTYPE, CRVAL, CDELT, CRPIX and CUNIT of x and y: a SIN projection about the middle pixel."""
    (nx, ny), (ra, dec), pixel = image.params.npix, image.phase_centre, math.degrees(image.params.pixsize)
    return [
        ("RA---SIN", math.degrees(ra) % 360, -pixel, nx // 2 + 1, "deg"),
        ("DEC--SIN", math.degrees(dec), pixel, ny // 2 + 1, "deg"),
    ]


def celestial_wcs(image: Image) -> WCS:
    """Return the two-dimensional celestial WCS (SIN projection) of ``image.data``; axis 1 is x."""
    from astropy.wcs import WCS  # a quarter of the start of `vis2img image`, which writes headers without it

    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.cdelt, wcs.wcs.crpix, wcs.wcs.cunit = zip(*_sky_axes(image), strict=True)
    wcs.wcs.lonpole = 180.0  # the default would be 0 at the pole itself
    radesys, equinox = _frame(image)
    wcs.wcs.radesys = radesys
    if equinox:
        wcs.wcs.equinox = equinox
    wcs.wcs.set()
    wcs.pixel_shape = image.params.npix
    return wcs


def plane_freq(image: Image) -> tuple[float, float]:
    """Return centre and width of the band of ``image`` in Hz: its FREQ axis, as WSClean writes it.

    The mean frequency weighted by the data stands in for a centre that is not known.
    """
    mean, bandwidth = image.freq
    return image.band_centre if math.isfinite(image.band_centre) else mean, bandwidth


def image_header(image: Image) -> Header:
    """Return the FITS header of ``image``: axes, beam, source and imaging parameters."""
    header = Header()
    freq, bandwidth = plane_freq(image)
    axes = [
        *_sky_axes(image),
        ("FREQ", freq, bandwidth, 1, "Hz"),
        ("STOKES", float(STOKES_CODES[image.stokes]), 1.0, 1, ""),
    ]
    for number, (ctype, crval, cdelt, crpix, cunit) in enumerate(axes, start=1):
        header[f"CTYPE{number}"] = ctype
        header[f"CRPIX{number}"] = float(crpix)
        header[f"CRVAL{number}"] = crval
        header[f"CDELT{number}"] = cdelt
        header[f"CUNIT{number}"] = cunit

    header["LONPOLE"] = 180.0
    radesys, equinox = _frame(image)
    header["RADESYS"] = radesys
    if equinox:
        header["EQUINOX"] = equinox
    if image.origin.freq_frame in _SPECTRAL_FRAMES:
        header["SPECSYS"] = _SPECTRAL_FRAMES[image.origin.freq_frame]
    header["BUNIT"] = image.unit
    header["BTYPE"] = "Intensity"
    for name, angle in zip(("BMAJ", "BMIN", "BPA"), image.beam or (), strict=image.beam is not None):
        header[name] = math.degrees(angle)
    _add_source(header, image)
    header["ORIGIN"] = f"vis2img {__version__}"
    _add_params(header, image)
    return header


def write_image(image: Image, path: str | Path, overwrite: bool = False) -> list[Path]:
    """Write ``image`` as FITS to ``path``, and its point spread function beside it as ``NAME-psf.fits``.

    Parameters
    ----------
    image : Image
        What to write; the header holds all that made it.
    path : path
        Name of the file.
    overwrite : bool
        Replace existing files; else they are left as they are.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    OutputError
        If a file exists already, or cannot be written. A file is either whole or not there.
    """
    path = Path(path)
    planes = {path: image.data}
    if image.psf is not None:
        planes[psf_path(path)] = image.psf
    check_outputs(planes, overwrite)
    header = image_header(image)
    for target, data in planes.items():
        _write_plane(target, data, header, overwrite)
    return list(planes)


def read_params(path: str | Path) -> ImagingParams:
    """Return the imaging parameters that made the FITS image ``path``, from its HISTORY.

    Raises
    ------
    ParameterError
        If the file was not written by vis2img.
    """
    record = _read_record(path, _PARAMS_MARK)
    try:
        return ImagingParams.from_dict(record)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ParameterError(f"{path}: the parameters in its HISTORY are damaged: {first_line(error)}") from error


def read_selection(path: str | Path) -> Selection:
    """Return what was read of the measurement sets to make the FITS image ``path``, from its HISTORY.

    Raises
    ------
    ParameterError
        If the file does not tell.
    """
    record: dict[str, Any] = read_origin(path)["selection"]
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in record.items()}
    return Selection(**values)


def read_origin(path: str | Path) -> dict[str, Any]:
    """Return what the FITS image ``path`` was made from, from its HISTORY.

    Returns
    -------
    dict
        ``ms``: paths of the measurement sets; ``selection``: a record of :class:`Selection`; and, in parts of a cube
        or of an observation, ``split``: which ``channel`` of ``channels_out``, which ``interval`` of ``intervals_out``.

    Raises
    ------
    ParameterError
        If the file does not tell.
    """
    return _read_record(path, _ORIGIN_MARK)


def _read_record(path: str | Path, mark: str) -> dict[str, Any]:
    history = "".join(getheader(path).get("HISTORY", []))
    what = mark.removeprefix("vis2img ").rstrip(": ")
    _, there, text = history.partition(mark.rstrip())
    if not there:
        raise ParameterError(f"{path} holds no vis2img {what} in its HISTORY")
    try:
        record, _ = json.JSONDecoder().raw_decode(text.lstrip())
        return dict(record)
    except (ValueError, TypeError, RecursionError) as error:
        raise ParameterError(f"{path}: the vis2img {what} in its HISTORY is damaged: {first_line(error)}") from error


def _frame(image: Image) -> tuple[str, float | None]:
    """Return RADESYS and EQUINOX of an image."""
    if image.origin.frame not in _FRAMES:
        raise ParameterError(f"directions of images are in ICRS or J2000, not {image.origin.frame}")
    return _FRAMES[image.origin.frame]


def _add_source(header: Header, image: Image) -> None:
    header["TELESCOP"] = _ascii(image.origin.telescope)
    header["OBJECT"] = _ascii(image.origin.field)
    date = utc_text(image.time_start)
    if date:
        header["DATE-OBS"] = date
        header["TIMESYS"] = "UTC"


def _add_params(header: Header, image: Image) -> None:
    params = image.params
    header["VI_WEIGH"] = (params.weighting, "density weighting")
    header["VI_ROBUS"] = (params.robust, "Briggs robustness")
    header["VI_TAPER"] = (params.taper / ARCSEC, "[arcsec] FWHM of the Gaussian taper, 0 none")
    header["VI_UVMIN"] = (params.uvrange[0], "[wavelengths] shortest baseline kept")
    if math.isfinite(params.uvrange[1]):
        header["VI_UVMAX"] = (params.uvrange[1], "[wavelengths] longest baseline kept")
    header["VI_FREQ"] = (image.freq[0], "[Hz] mean frequency, as weighted in the image")
    header["VI_NVIS"] = (image.nvis, "visibilities with weight")
    header["VI_WSUM"] = (image.weight_sum, "sum of the imaging weights")
    header["VI_COLUM"] = (_ascii(image.origin.column), "data column")
    spw = image.origin.spw_label
    if spw is not None:
        header["VI_SPW"] = (spw if isinstance(spw, int) else _ascii(spw), "SPECTRAL_WINDOW_ID")
    header.add_history(_PARAMS_MARK + _record(params.to_dict()))
    if image.origin.selection is not None:
        origin = {"ms": list(image.origin.paths), "selection": json.loads(image.origin.selection)}
        if image.split is not None:
            origin["split"] = {name: each for name, each in vars(image.split).items() if each is not None}
        header.add_history(_ORIGIN_MARK + _record(origin))


def _record(values: dict[str, Any]) -> str:
    """Return ``values`` as JSON without a blank: FITS drops those at the end of a card, and long records span cards."""
    return json.dumps(values, separators=(",", ":")).replace(" ", "\\u0020")


def _ascii(value: object) -> str:
    """Return ``value`` as FITS can hold it: printable ASCII, short enough for one card."""
    text = str(value).encode("ascii", "replace").decode()
    return "".join(c if c.isprintable() else " " for c in text).strip()[:60]


def _write_plane(path: Path, data: np.ndarray, header: Header, overwrite: bool) -> None:
    hdu = PrimaryHDU(np.asarray(data, dtype=np.float32)[np.newaxis, np.newaxis], header)
    with atomic_output(path, overwrite) as temporary:
        hdu.writeto(temporary)
