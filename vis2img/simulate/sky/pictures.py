"""Real pictures of radio sources as sky brightness, at any angular scale and flux.

A survey cutout holds a source, noise, a background and often a stranger. :func:`cutout_source` keeps the source:

1. background and noise are the median and 1.4826 times the median absolute deviation of the finite pixels;
2. islands of pixels above background + 3 sigma with a peak above 5 sigma are labelled, 8-connected;
3. kept are those within the source's catalogued size, where there is one, else the one at the middle (or nearest
   to it) with what lies within a beam or so, and pairs of islands on opposite sides, as of a double source;
4. the edge of what is kept is softened over two pixels, negatives are set to 0, the sum to the wanted flux.

The picture is not deconvolved: the beam of the survey that it comes from (5.4 arcsec for FIRST) stays in, scaled
with the picture. A source that is blown up looks smooth; one that is shrunk hides it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import ndimage

from vis2img.errors import ParameterError
from vis2img.pictures.classes import class_from_label, label_words
from vis2img.pictures.cutouts import RawCutouts
from vis2img.pictures.formats import read_pictures
from vis2img.simulate.sky.source import UNLABELLED, SkyCutout, SkySource
from vis2img.units import ARCSEC

_LINK = 4  # pixels between islands of one source: somewhat more than the beam of a survey picture


@dataclass(frozen=True, eq=False)
class CutoutTemplate:
    """One picture, not yet placed: ``pixels`` float64 [y, x], x along decreasing RA and y along increasing Dec.

    Brightness in any unit, NaN where blank. ``size`` (rad) is its catalogued largest angular size and ``pixsize``
    (rad) the side of a pixel, each 0 if unknown. ``origin`` is file and row, ``label`` the text that ``class_name``
    was taken from.
    """

    pixels: np.ndarray
    class_name: str = UNLABELLED
    label: str = ""
    origin: str = ""
    pixsize: float = 0.0
    size: float = 0.0


@dataclass(frozen=True, eq=False)
class CutoutSet:
    """Pictures of one file or folder; ``len``, indexing and iteration give :class:`CutoutTemplate`.

    ``raw`` is what the file holds and ``labels`` [n] its labels in words. ``pixsize`` (rad) is for files that do not
    tell; with ``north_first`` the first row of a picture of an npz file is the northernmost.
    """

    raw: RawCutouts
    labels: tuple[str, ...] = field(repr=False)
    pixsize: float = 0.0
    north_first: bool = False

    def __len__(self) -> int:
        return len(self.raw)

    def __getitem__(self, row: int) -> CutoutTemplate:
        columns, label = self.raw.columns, self.labels[row]
        pixels = np.asarray(self.raw.images[row], float)
        if "scale_mJy" in columns:
            pixels = pixels * float(columns["scale_mJy"][row])
        if self.north_first and not self.raw.files:
            pixels = pixels[::-1]
        size = float(np.nan_to_num(columns["size_arcsec"][row])) * ARCSEC if "size_arcsec" in columns else 0.0
        pixsize = float(self.raw.pixsize[row]) or self.pixsize
        return CutoutTemplate(pixels, class_from_label(label), label, self.raw.rows[row], pixsize, size)

    def __iter__(self) -> Iterator[CutoutTemplate]:
        return (self[row] for row in range(len(self)))


def read_cutouts(path: str | Path, *, pixsize: float = 0.0, north_first: bool = False) -> CutoutSet:
    """Read pictures from an npz file, a FITS image or a folder of FITS images.

    Parameters
    ----------
    path : path
        As :func:`vis2img.pictures.formats.read_pictures` takes it.
    pixsize : float
        Side of a pixel in rad, for files that do not say; needed only to use catalogued sizes.
    north_first : bool
        The first row of an npz file is the northernmost, as in pictures for the screen.

    Raises
    ------
    Vis2imgError
        If the file cannot be read, holds no pictures or its columns disagree; the message names the file and row.
    """
    if not (pixsize >= 0 and math.isfinite(pixsize)):
        raise ParameterError(f"pixsize = {pixsize:g} rad must be at least 0")
    raw = read_pictures(path)
    return CutoutSet(raw, tuple(label_words(raw) or (UNLABELLED,) * len(raw)), pixsize, north_first)


def cutout_source(
    template: CutoutTemplate,
    ra: float,
    dec: float,
    flux: float,
    size: float,
    pa: float = 0.0,
    *,
    source_id: int = 0,
    ref_freq: float = 1.4e9,
    spectral_index: float = -0.7,
) -> SkySource:
    """Return a picture as a source of the wanted place, flux and size.

    Parameters
    ----------
    template : CutoutTemplate
    ra, dec : float
        Middle of the source in rad: the middle of the bounding box of what is kept of the picture, to half a pixel.
    flux : float
        Total flux density in Jy at ``ref_freq`` (Hz).
    size : float
        Largest angular size in rad of what is kept, from edge to edge; it sets the pixel size.
    pa : float
        Angle in rad by which the picture is turned, north through east.

    Raises
    ------
    ParameterError
        If a value is out of range, or the picture holds no source; the message names its file and row.
    """
    if not (flux > 0 and size > 0 and math.isfinite(flux) and math.isfinite(size)):
        raise ParameterError(f"{_name(template)}: flux = {flux:g} Jy and size = {size:g} rad must both be above 0")
    brightness = isolate(template)
    y, x = np.nonzero(brightness)
    pixsize = size / _largest_extent(y, x)
    brightness = brightness[_odd(y, brightness.shape[0]), _odd(x, brightness.shape[1])]
    pixels = (brightness * (flux / brightness.sum())).astype(np.float32)
    cutout = SkyCutout(pixels, pixsize, ra, dec, ref_freq, pa, spectral_index, template.origin)
    # The sum in single precision differs from the flux by its rounding: the truth is what is on the sky.
    return SkySource(source_id, template.class_name, ra, dec, cutout.flux, size, cutout=cutout)


def isolate(template: CutoutTemplate) -> np.ndarray:
    """Return the brightness [y, x] of the source of a picture, at least 0, and 0 wherever the source is not.

    Raises
    ------
    ParameterError
        If there is no source in it.
    """
    finite = np.isfinite(template.pixels)
    if template.pixels.ndim != 2 or not finite.any():
        raise ParameterError(f"{_name(template)} holds no finite pixel")
    background = float(np.median(template.pixels[finite]))
    picture = np.where(finite, template.pixels - background, 0.0)
    noise = 1.4826 * float(np.median(np.abs(picture[finite])))  # 0 where a survey cut the noise off already
    islands, n = ndimage.label(picture > 3 * noise, np.ones((3, 3)))
    peaks = ndimage.maximum(picture, islands, np.arange(1, n + 1)) if n else np.zeros(0)
    bright = np.flatnonzero(np.asarray(peaks) > 5 * noise) + 1
    if not len(bright):
        raise ParameterError(f"{_name(template)} holds no source above 5 sigma ({noise:.3g} in its own unit)")
    source = np.isin(islands, _members(template, islands, bright, picture))
    soft = ndimage.gaussian_filter(ndimage.binary_dilation(source).astype(float), 0.7, truncate=1.5)
    return np.maximum(picture, 0.0) * np.where(soft > 1e-3, np.minimum(soft, 1.0), 0.0)


def _members(template: CutoutTemplate, islands: np.ndarray, bright: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Return the numbers of the islands that belong to the source at the middle."""
    y, x = np.indices(islands.shape) - np.array([(side - 1) / 2 for side in islands.shape])[:, None, None]
    near = np.asarray(ndimage.minimum(np.hypot(y, x), islands, bright))  # to the nearest pixel of each
    if template.size > 0 and template.pixsize > 0:
        # The middle of a picture is the host, and one arm may be longer: up to 0.65 of the size.
        return bright[near <= max(0.65 * template.size / template.pixsize, near.min())]
    central = near <= max(near.min(), _LINK)
    linked = ndimage.binary_dilation(np.isin(islands, bright[central]), iterations=_LINK)
    touched = np.isin(bright, np.unique(islands[linked]))
    reach = min(islands.shape) / 4  # farther out, a stranger is likelier than a lobe
    centre = np.array(ndimage.center_of_mass(picture, islands, bright)) - (np.array(islands.shape) - 1) / 2
    total = np.asarray(ndimage.sum(picture, islands, bright))
    distance = np.hypot(*centre.T)
    for i in np.flatnonzero(distance < reach):
        for j in np.flatnonzero((distance < reach) & (np.arange(len(bright)) > i)):
            opposite = centre[i] @ centre[j] < -0.4 * distance[i] * distance[j]  # more than 114 degrees apart
            alike = max(distance[i], distance[j]) < 2.5 * min(distance[i], distance[j])
            if opposite and alike and max(total[i], total[j]) < 10 * min(total[i], total[j]):
                touched[[i, j]] = True
    return bright[touched]


def _largest_extent(y: np.ndarray, x: np.ndarray) -> float:
    """Return the largest distance between the outer edges of the pixels, over all directions, in pixels."""
    angle = np.linspace(0, math.pi, 181)
    along = np.outer(y, np.cos(angle)) + np.outer(x, np.sin(angle))
    # A square pixel reaches this far beyond its middle on either side.
    edge = np.abs(np.cos(angle)) + np.abs(np.sin(angle))
    return float((along.max(axis=0) - along.min(axis=0) + edge).max())


def _odd(index: np.ndarray, length: int) -> slice:
    """Return the range that ``index`` spans, one longer if even and there is room: then its middle is a pixel."""
    low, high = int(index.min()), int(index.max()) + 1
    if (high - low) % 2 == 0:
        low, high = (low, high + 1) if high < length else (max(low - 1, 0), high)
    return slice(low, high)


def _name(template: CutoutTemplate) -> str:
    return template.origin or "the cutout"
