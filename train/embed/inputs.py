"""Where patches to embed come from: measurement sets and averaged data, FITS images, cutouts.

Each input gives fields, and each field gives its patches a chunk at a time, so that what is held in memory does not
grow with the field. Patches are those of training: cut, resampled with antialiasing and stretched by the noise.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vis2img.coordinates import direction_cosines, lm_to_pixel, pixel_to_lm
from vis2img.draws.draw import Draw
from vis2img.draws.field import Field
from vis2img.draws.fits_field import FitsField, is_image
from vis2img.draws.sky_image import SkyImage
from vis2img.errors import MeasurementSetError, ParameterError, Vis2imgError
from vis2img.imaging.fits import read_params
from vis2img.loader.config import LoaderConfig
from vis2img.loader.fields import open_fields, patch_angle
from vis2img.pictures.cutouts import fits_files
from vis2img.pictures.formats import read_raw
from vis2img.pictures.labels import network_images
from vis2img.train.embed.config import EmbedConfig
from vis2img.train.embed.positions import Positions, position_names
from vis2img.train.patches import cut_around, evaluation_draw, grid_positions, tiles
from vis2img.units import ARCSEC, format_angle
from vis2img.views.crops import ViewConfig

_CHUNK = 1024  # patches that are cut at a time
_ALIKE = 0.01  # relative difference of patch angles that is none
_ROUNDING = 1e-6  # pixels


@dataclass(frozen=True, eq=False)
class PatchChunk:
    """Patches of one field.

    Parameters
    ----------
    images : float32 [n, size, size, channel]
        Stretched, as the network sees them.
    position : float64 [n, 2]
        RA and Dec in rad; NaN if unknown.
    index : int64 [n]
        Which tile, row of the positions, or row of the file.
    names : tuple of str
    brightness : float64 [n, 3]
        Peak in Jy/beam and flux in Jy, NaN where unknown, and peak over noise: :mod:`vis2img.views.brightness`.
    params : str
        JSON: imaging parameters; of images that do not tell them, pixel size, beam and frequency of the header.
    """

    images: np.ndarray
    position: np.ndarray
    index: np.ndarray
    names: tuple[str, ...]
    brightness: np.ndarray
    params: str


@dataclass(frozen=True)
class PatchField:
    """One field of an input: its name, the file that it is of, and what makes its patches."""

    name: str
    source: str
    chunks: Callable[[], Iterator[PatchChunk]]
    told: str = ""
    """What is read of it."""


def expand_inputs(inputs: Sequence[str]) -> list[str]:
    """Return inputs with folders of FITS images as their files, each once."""
    paths: list[str] = []
    for path in inputs:
        folder = Path(path)
        # The folder of a measurement set may hold anything beside its tables.
        plain = folder.is_dir() and not (folder / "table.dat").exists()
        files = [str(file) for file in fits_files(folder)] if plain else []
        paths += files or [path]
    return list(dict.fromkeys(paths))


def run_patch_angle(config: LoaderConfig, noted: Sequence[float] = ()) -> float:
    """Return the side of the patches that a run was trained on, rad.

    Parameters
    ----------
    config : LoaderConfig
        Of the run, whose data are asked where nothing was noted.
    noted : sequence of float
        What the run wrote down, of each of its fields.

    Raises
    ------
    ParameterError
        If nothing was noted and its data are gone, or its fields have patches of different angles.
    """
    advice = "give the side of a patch in pixels of the image (--patch-npix)"
    try:
        angles = noted or [patch_angle(source, config.views) for source in open_fields(config).fields]
    except Vis2imgError as error:
        raise ParameterError(f"the angle of the run's patches is not known ({error}); {advice}") from error
    if max(angles) > min(angles) * (1 + _ALIKE):
        ends = f"{format_angle(min(angles), 3)} to {format_angle(max(angles), 3)}"
        raise ParameterError(f"the run's patches have sides of {ends}; {advice}")
    return angles[0]


def patch_fields(path: str, config: LoaderConfig, settings: EmbedConfig, fits_side: float | None) -> list[PatchField]:
    """Return the fields of an input; their patches are made only when asked for.

    Parameters
    ----------
    path : str
        Measurement set, averaged data, FITS image or .npz file of cutouts.
    config : LoaderConfig
        Of the run: how fields are imaged and patches cut.
    settings : EmbedConfig
    fits_side : float, optional
        Side of a patch of FITS images in rad; without it, and with ``settings.patch_npix``, pixels decide.
    """
    if path.lower().endswith(".npz"):
        return [PatchField(Path(path).stem, path, lambda: _cutouts(path, config, settings))]
    if is_image(path):
        return [PatchField(Path(path).name, path, lambda: _image(path, config, settings, fits_side))]
    several = config.fields == "all" or config.bands == "each"
    found = open_fields(replace(config, ms=(path,), cutouts=(), weights=()), skip=several)
    names = [str(source).replace(source.path, Path(path).name) for source in found.fields]
    good = [
        PatchField(name, path, lambda source=source: _observation(source, config.views, settings), text)  # type: ignore[misc]
        for name, source, text in zip(names, found.fields, found.told.values(), strict=True)
    ]
    bad = [PatchField(name, path, lambda why=why: _lost(why)) for name, why in found.skipped.items()]  # type: ignore[misc]
    return good + bad


def _lost(why: str) -> Iterator[PatchChunk]:
    """Refuse: one field of several that cannot be opened."""
    raise MeasurementSetError(why)


def _observation(source: Field, views: ViewConfig, settings: EmbedConfig) -> Iterator[PatchChunk]:
    draw = evaluation_draw(source)
    places = settings.places or _tiles(grid_positions(draw, source, views, settings.overlap))
    yield from _cut(draw, patch_angle(source, views), views, places, json.dumps(draw.params.to_dict()))


def _image(path: str, config: LoaderConfig, settings: EmbedConfig, side: float | None) -> Iterator[PatchChunk]:
    if config.planes > 1 and config.selection.stokes != "I":
        raise ParameterError(f"{path}: the run takes Stokes {config.selection.stokes}, and an image has Stokes I alone")
    field = FitsField.open(path)
    draw = field.draw()
    pixsize = draw.params.pixsize
    if settings.patch_npix is not None or side is None:
        side = (settings.patch_npix or config.views.patch_npix) * pixsize
    ny, nx = draw.data.shape[1:]
    if side > min(nx, ny) * pixsize * (1 + 1e-9):
        size = f"{format_angle(side, 3)} ({side / pixsize:.0f} pixels)"
        raise ParameterError(f"{path}: a patch of {size} does not fit into the image of {nx} x {ny} pixels")
    places = settings.places
    if places is None:
        # The reference pixel npix // 2 is half a pixel from the middle.
        middle = pixel_to_lm((nx - 1) / 2, (ny - 1) / 2, (nx, ny), pixsize)
        extent = nx * pixsize, ny * pixsize
        about = {"turn": draw.turn, "overlap": settings.overlap}
        places = _tiles(tiles(extent, side, draw.phase_centre, middle=middle, **about))
    seen = _not_blank(draw, side, places.position)
    filled = replace(draw, data=np.nan_to_num(draw.data, copy=False, nan=0.0))
    for chunk in _cut(filled, side, config.views, places, _header_params(field.image), seen):
        # One image stands for every part of the band.
        yield replace(chunk, images=np.repeat(chunk.images, config.planes, axis=-1))


def _header_params(image: SkyImage) -> str:
    try:
        return json.dumps(read_params(image.path).to_dict())
    except (ParameterError, KeyError, TypeError):
        pass  # not an image of vis2img
    major, minor = (axis / ARCSEC for axis in image.beam)
    header = {
        "pixsize_arcsec": image.pixsize / ARCSEC,
        "bmaj_arcsec": major,
        "bmin_arcsec": minor,
        "freq_hz": image.freq,
    }
    return json.dumps(header)


def _not_blank(draw: Draw, side: float, position: np.ndarray) -> np.ndarray:
    """Return which of ``position`` [n, 2] have a patch without a blank pixel, and with one that is not 0; numbers."""
    ny, nx = draw.data.shape[1:]
    sums = []
    for mask in (~np.isfinite(draw.data).all(axis=0), (draw.data != 0).any(axis=0)):
        total = np.zeros((ny + 1, nx + 1), np.int64)
        np.cumsum(np.cumsum(mask, axis=0, dtype=np.int64), axis=1, out=total[1:, 1:])
        sums.append(total)
    l, m, _ = direction_cosines(position[:, 0], position[:, 1], draw.phase_centre, draw.turn).T
    x, y = lm_to_pixel(l, m, (nx, ny), draw.params.pixsize)
    half = side / draw.params.pixsize / 2
    (x0, x1), (y0, y1) = (
        np.clip([np.floor(at + 0.5 - half + _ROUNDING), np.ceil(at + 0.5 + half - _ROUNDING)], 0, n).astype(int)
        for at, n in ((x, nx), (y, ny))
    )
    blank, lit = (total[y1, x1] - total[y0, x1] - total[y1, x0] + total[y0, x0] for total in sums)
    return np.flatnonzero((blank == 0) & (lit > 0))


def _tiles(position: np.ndarray) -> Positions:
    return Positions(position, position_names(position) if len(position) else ())


def _cut(
    draw: Draw, side: float, views: ViewConfig, places: Positions, params: str, rows: np.ndarray | None = None
) -> Iterator[PatchChunk]:
    """Yield the patches of ``draw`` around the positions ``rows``, of those that lie within it."""
    rows = np.arange(len(places.position)) if rows is None else rows
    for start in range(0, len(rows), _CHUNK):
        some = rows[start : start + _CHUNK]
        patches = cut_around(draw, side, views, places.position[some])
        if len(patches.rows):
            index = some[patches.rows]
            names = tuple(places.names[i] for i in index)
            yield PatchChunk(patches.images, patches.position, index, names, patches.brightness, params)


def _cutouts(path: str, config: LoaderConfig, settings: EmbedConfig) -> Iterator[PatchChunk]:
    if config.planes > 1 and config.selection.stokes != "I":
        raise ParameterError(f"{path}: the run takes Stokes {config.selection.stokes}, and cutouts have one channel")
    raw = read_raw(path)
    position = raw.position
    crop = settings.crop or (config.views.patch_npix if config.cutouts else None)
    params = json.dumps({"crop_npix": crop})
    for start in range(0, len(raw), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(raw)))
        images, snr = network_images(raw, config.views, crop, rows, config.planes)
        # Which unit a file of pictures has is not known.
        brightness = np.stack([np.full(len(rows), np.nan), np.full(len(rows), np.nan), snr], axis=1)
        yield PatchChunk(images, position[rows], rows, tuple(raw.names[i] for i in rows), brightness, params)
