"""Tables of sources: the truth of a simulation, written and read back whole, and tables that a user brings.

The truth is one FITS file. SOURCES has a row per source, COMPONENTS a row per Gaussian or point, and every cutout
is an image extension, so that the sky can be rebuilt exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import Table

from vis2img.errors import OutputError, ParameterError, Vis2imgError, first_line
from vis2img.files import is_fits
from vis2img.inputs import check_file, check_fits
from vis2img.simulate.sky.source import UNLABELLED, SkyComponent, SkyCutout, SkySource, single_component_source
from vis2img.units import ARCSEC

_CUTOUT = "CUTOUT"  # name of the extensions


def source_columns(sources: Sequence[SkySource]) -> dict[str, np.ndarray]:
    """Return what every table of sources holds, by column: numbers, degrees, Jy, arcsec, class, spectral index."""
    return {
        "source_id": np.array([s.source_id for s in sources], dtype=np.int64),
        "ra_deg": np.degrees([s.ra for s in sources]),
        "dec_deg": np.degrees([s.dec for s in sources]),
        "flux_jy": np.array([s.flux for s in sources], dtype=float),
        "size_arcsec": np.array([s.size for s in sources], dtype=float) / ARCSEC,
        "class": np.array([s.class_name for s in sources], dtype="U16"),
        "spectral_index": np.array([_spectral_index(s) for s in sources], dtype=float),
    }


def write_catalogue(
    sources: Sequence[SkySource],
    path: str | Path,
    more: Mapping[str, np.ndarray] = MappingProxyType({}),
    images: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> None:
    """Write the sources, their components and cutouts to a FITS file.

    SOURCES holds source_id, ra_deg, dec_deg, flux_jy, size_arcsec, class, spectral_index (the mean over components
    and cutout, weighted by flux), n_components and kind: "components", "cutout" or "both". COMPONENTS holds one
    row per component, its source_id and the fields of :class:`SkyComponent` (rad, Jy, Hz). Each cutout is an image
    named CUTOUT [y, x] in Jy per pixel with the keywords SRCID, PIXSIZE (arcsec), RA, DEC, PA (deg), REFFREQ (Hz),
    SPINDEX and ORIGIN. Its pixels are those of the truth: pa is not a rotation that was applied to them. ``more``
    are further columns [source] of SOURCES, ``images`` further extensions by their names.

    Raises
    ------
    ParameterError
        If two sources have one number.
    OutputError
        If the file exists already or cannot be written.
    """
    numbers = np.array([s.source_id for s in sources], dtype=np.int64)
    unique, count = np.unique(numbers, return_counts=True)
    if len(unique) < len(numbers):
        raise ParameterError(
            f"cannot write the catalogue {path}: {count.max()} sources have the number {unique[count.argmax()]}"
        )
    rows = {
        **source_columns(sources),
        "n_components": np.array([len(s.components) for s in sources], dtype=np.int32),
        "kind": np.array([_kind(s) for s in sources], dtype="U10"),
        **more,
    }
    parts = [(s.source_id, c) for s in sources for c in s.components]
    components: dict[str, np.ndarray] = {"source_id": np.array([i for i, _ in parts], dtype=np.int64)}
    for item in fields(SkyComponent):
        components[item.name] = np.array([getattr(c, item.name) for _, c in parts], dtype=float)
    tables = [fits.table_to_hdu(Table(columns)) for columns in (rows, components)]
    for table, name in zip(tables, ("SOURCES", "COMPONENTS"), strict=True):
        table.name = name
    pictures = [_cutout_hdu(s.source_id, s.cutout) for s in sources if s.cutout is not None]
    others = [fits.ImageHDU(values, name=name) for name, values in images.items()]
    try:
        fits.HDUList([fits.PrimaryHDU(), *tables, *pictures, *others]).writeto(path)
    except OSError as error:
        raise OutputError(f"cannot write the catalogue {path}: {first_line(error)}") from error


def read_catalogue(path: str | Path) -> list[SkySource]:
    """Return the sources that :func:`write_catalogue` wrote.

    Raises
    ------
    Vis2imgError
        If the file cannot be read or is not such a catalogue.
    """
    check_fits(path)
    try:
        with fits.open(path, memmap=False) as hdus:
            rows, parts = (Table.read(hdus[name]) for name in ("SOURCES", "COMPONENTS"))
            cutouts = dict(_cutout(hdu) for hdu in hdus if hdu.name == _CUTOUT)
        components: dict[int, list[SkyComponent]] = {}
        values = zip(*(parts[item.name].astype(float).tolist() for item in fields(SkyComponent)), strict=True)
        for number, value in zip(parts["source_id"].tolist(), values, strict=True):
            components.setdefault(number, []).append(SkyComponent(*value))
        names = ("source_id", "class", "ra_deg", "dec_deg", "flux_jy", "size_arcsec")
        return [
            SkySource(
                number,
                _text(class_name),
                math.radians(ra),
                math.radians(dec),
                flux,
                size * ARCSEC,
                tuple(components.get(number, ())),
                cutouts.get(number),
            )
            for number, class_name, ra, dec, flux, size in zip(*(rows[name].tolist() for name in names), strict=True)
        ]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise Vis2imgError(f"{path} is not a catalogue of vis2img: {first_line(error)}") from error


def _spectral_index(source: SkySource) -> float:
    total = sum(c.flux * c.spectral_index for c in source.components)
    if source.cutout is not None:
        total += source.cutout.flux * source.cutout.spectral_index
    return total / source.flux


def _kind(source: SkySource) -> str:
    if source.cutout is None:
        return "components"
    return "both" if source.components else "cutout"


def _cutout_hdu(source_id: int, cutout: SkyCutout) -> Any:
    """Return an image extension; angles go in degrees, as FITS cuts a number with an exponent after 20 characters."""
    hdu = fits.ImageHDU(np.ascontiguousarray(cutout.pixels, dtype=np.float32), name=_CUTOUT)
    for key, value, comment in (
        ("SRCID", source_id, "source_id in SOURCES"),
        ("PIXSIZE", cutout.pixsize / ARCSEC, "arcsec"),
        ("RA", math.degrees(cutout.ra), "deg, of the pixel at n // 2"),
        ("DEC", math.degrees(cutout.dec), "deg"),
        ("PA", math.degrees(cutout.pa), "deg, turn north through east"),
        ("REFFREQ", cutout.ref_freq, "Hz"),
        ("SPINDEX", cutout.spectral_index, "S ~ nu ** SPINDEX"),
        ("BUNIT", "Jy/pixel", ""),
    ):
        hdu.header[key] = (value, comment)
    # A FITS card holds printable ASCII only; a file may be called anything. Long text goes on in CONTINUE cards.
    hdu.header["ORIGIN"] = cutout.origin.encode("ascii", "backslashreplace").decode().replace("\n", " ")
    return hdu


def _cutout(hdu: Any) -> tuple[int, SkyCutout]:
    header = hdu.header
    pixels = np.asarray(hdu.data).astype(np.float32)  # FITS is big-endian
    return int(header["SRCID"]), SkyCutout(
        pixels,
        float(header["PIXSIZE"]) * ARCSEC,
        math.radians(float(header["RA"])),
        math.radians(float(header["DEC"])),
        float(header["REFFREQ"]),
        math.radians(float(header["PA"])),
        float(header["SPINDEX"]),
        str(header["ORIGIN"]),
    )


_REQUIRED = ("ra_deg", "dec_deg", "flux_jy")
_OPTIONAL = {"major_arcsec": ARCSEC, "minor_arcsec": ARCSEC, "pa_deg": math.pi / 180, "spectral_index": 1.0}


def read_user_catalogue(path: str | Path, ref_freq: float) -> list[SkySource]:
    """Read a user's table of sources, one component each, as CSV or FITS.

    Parameters
    ----------
    path : path
        A table of CSV (.csv) or FITS (.fits and the like) with the columns ra_deg, dec_deg, flux_jy and, if wanted,
        major_arcsec, minor_arcsec, pa_deg, spectral_index and class. minor_arcsec defaults to major_arcsec,
        the others to 0 and to no class.
    ref_freq : float
        Frequency of the fluxes in Hz.

    Raises
    ------
    Vis2imgError
        If the file or a column is missing, or a value is not legal; the message names file, column and row.
    """
    table = _read_table(Path(path))
    missing = [name for name in _REQUIRED if name not in table.colnames]
    if missing:
        raise Vis2imgError(
            f"{path} lacks the column {', '.join(missing)}; it has {', '.join(table.colnames) or 'none'}"
        )
    columns = {name: _numbers(path, table, name) for name in (*_REQUIRED, *_OPTIONAL) if name in table.colnames}
    classes = map(_text, table["class"]) if "class" in table.colnames else [UNLABELLED] * len(table)
    sources = []
    for i, class_name in enumerate(classes):
        value = {name: column[i] for name, column in columns.items()}
        value.setdefault("minor_arcsec", value.get("major_arcsec", 0.0))
        shape = [value.get(name, 0.0) * unit for name, unit in _OPTIONAL.items()]
        try:
            position = math.radians(value["ra_deg"]) % (2 * math.pi), math.radians(value["dec_deg"])
            part = SkyComponent(*position, value["flux_jy"], ref_freq, *shape)
        except ParameterError as error:
            raise Vis2imgError(f"{path} row {i + 1}: {error}") from error
        sources.append(single_component_source(i, class_name, part))
    return sources


def _text(value: Any) -> str:
    return "" if value is np.ma.masked else str(value).strip()


def _read_table(path: Path) -> Any:
    form = "ascii.csv" if path.suffix.lower() == ".csv" else "fits"
    if form == "fits" and not is_fits(path):
        raise Vis2imgError(f"{path}: a catalogue must end in .csv or .fits")
    check_fits(path) if form == "fits" else check_file(path)
    try:
        return Table.read(path, format=form)
    except Exception as error:  # astropy's readers raise a dozen unrelated types for a damaged file
        raise Vis2imgError(f"cannot read the catalogue {path}: {first_line(error)}") from error


def _numbers(path: str | Path, table: Any, name: str) -> list[float]:
    column = table[name]
    if np.any(np.ma.getmaskarray(column)):
        row = int(np.flatnonzero(np.ma.getmaskarray(column))[0]) + 1
        raise Vis2imgError(f"{path}: the column {name} is empty in row {row}")
    try:
        return [float(value) for value in column]
    except (TypeError, ValueError):
        raise Vis2imgError(f"{path}: the column {name} must hold numbers only") from None
