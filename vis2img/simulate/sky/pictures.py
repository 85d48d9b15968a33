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

from vis2img.errors import ParameterError, Vis2imgError
from vis2img.simulate.sky.source import ARCSEC, UNLABELLED, SkyCutout, SkySource

_ARRAYS = ("images", "images_i16", "images_u8")
_FITS = (".fits", ".fit")
_LINK = 4  # pixels between islands of one source: somewhat more than the beam of a survey picture
# Words in a label, in the order they are looked for: "FRI" is part of "FRII" and of "FRI conf WAT".
_LABEL_WORDS = (
    ("hybrid", ("hybrid",)),
    ("ddrg", ("dd", "ddrg", "double-double")),
    ("bent", ("bent", "wat", "nat", "head-tail")),
    ("frii", ("frii", "fr2")),
    ("fri", ("fri", "fr1")),
    ("compact", ("compact", "point")),
)


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

    ``images`` [n] of [y, x] keep the type of the file; ``scale``, ``labels`` and ``sizes`` (rad) are [n].
    """

    path: Path
    images: np.ndarray | list[np.ndarray] = field(repr=False)
    scale: np.ndarray = field(repr=False)
    labels: tuple[str, ...] = field(repr=False)
    sizes: np.ndarray = field(repr=False)
    pixsizes: np.ndarray = field(repr=False)
    names: tuple[str, ...] = field(repr=False)  # of the rows, for messages and truth tables

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> CutoutTemplate:
        label = self.labels[row]
        pixels = np.asarray(self.images[row], float) * self.scale[row]
        sizes = float(self.pixsizes[row]), float(self.sizes[row])
        return CutoutTemplate(pixels, class_from_label(label), label, self.names[row], *sizes)

    def __iter__(self) -> Iterator[CutoutTemplate]:
        return (self[row] for row in range(len(self)))


def class_from_label(label: str) -> str:
    """Return our class for the words of a label, or no label if there is none among them.

    Bent tails of either kind are "bent": published labels of them follow no common angle.
    """
    words = label.lower().replace("_", " ").split()
    return next((name for name, known in _LABEL_WORDS if set(words) & set(known)), UNLABELLED)


def read_cutouts(path: str | Path, *, pixsize: float = 0.0, north_first: bool = False) -> CutoutSet:
    """Read pictures from an npz file, a FITS image or a folder of FITS images.

    An npz file holds ``images`` [n, y, x] of any type, or ``images_i16`` or ``images_u8``, and if wanted ``scale_mJy``
    [n] (a factor), ``label`` [n] (numbers, names being ``label_names``, or text), ``label10`` likewise, which goes
    first, ``size_arcsec`` [n] and ``filename`` [n]. Nothing that could run code (pickles) is loaded. FITS images are
    turned to the axes of :class:`CutoutTemplate` by the signs of CDELT (or CD).

    Parameters
    ----------
    path : path
    pixsize : float
        Side of a pixel in rad, for files that do not say; needed only to use catalogued sizes.
    north_first : bool
        The first row of an npz file is the northernmost, as in pictures for the screen.

    Raises
    ------
    Vis2imgError
        If the file cannot be read, holds no pictures or its columns disagree; the message names the file and row.
    """
    path = Path(path)
    if not (pixsize >= 0 and math.isfinite(pixsize)):
        raise ParameterError(f"pixsize = {pixsize:g} rad must be at least 0")
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in _FITS)
        if not files:
            raise Vis2imgError(f"the folder {path} holds no FITS file")
        return _fits_set(path, files, pixsize)
    if path.suffix.lower() in _FITS:
        return _fits_set(path, [path], pixsize)
    if path.suffix.lower() != ".npz":
        raise Vis2imgError(f"{path}: cutouts must be an .npz file, a .fits image or a folder of them")
    return _npz_set(path, pixsize, north_first)


def _npz_set(path: Path, pixsize: float, north_first: bool) -> CutoutSet:
    wanted = {*_ARRAYS, "scale_mJy", "label", "label10", "label_names", "size_arcsec", "filename"}
    try:
        with np.load(path, allow_pickle=False) as file:
            data = {name: file[name] for name in file.files if name in wanted}
            known = ", ".join(file.files) or "none"
    except Exception as error:  # zipfile, zlib and numpy raise a dozen types for a damaged file
        raise Vis2imgError(f"cannot read the cutouts {path}: {str(error).strip().splitlines()[0]}") from error
    name = next((name for name in _ARRAYS if name in data), None)
    if name is None:
        raise Vis2imgError(f"{path} holds none of the arrays {', '.join(_ARRAYS)}; it has {known}")
    images = data[name]
    if images.ndim != 3 or not np.issubdtype(images.dtype, np.number) or 0 in images.shape:
        raise Vis2imgError(f"{path}: {name} must be numbers [n, y, x], not {images.dtype} {list(images.shape)}")
    n = len(images)
    for other in data.keys() - {name, "label_names", *_ARRAYS}:
        if data[other].shape != (n,):
            raise Vis2imgError(f"{path}: {other} has the shape {list(data[other].shape)} for {n} images")
    files = data.get("filename")
    names = tuple(f"{path} row {i}" + (f" ({files[i]})" if files is not None else "") for i in range(n))
    return CutoutSet(
        path,
        images[:, ::-1] if north_first else images,
        np.asarray(data.get("scale_mJy", np.ones(n)), float),
        _labels(path, data, n),
        np.nan_to_num(np.asarray(data.get("size_arcsec", np.zeros(n)), float)) * ARCSEC,
        np.full(n, pixsize),
        names,
    )


def _labels(path: Path, data: dict[str, np.ndarray], n: int) -> tuple[str, ...]:
    label = data.get("label10", data.get("label"))
    if label is None:
        return (UNLABELLED,) * n
    if label.dtype.kind not in "iu":
        return tuple(map(str, label))
    names = data.get("label_names")
    if names is None:
        return tuple(map(str, label))
    wrong = np.flatnonzero((label < 0) | (label >= len(names)))
    if len(wrong):
        raise Vis2imgError(f"{path} row {wrong[0]}: label {label[wrong[0]]} is none of the {len(names)} label_names")
    return tuple(str(names[i]) for i in label)


def _fits_set(path: Path, files: list[Path], pixsize: float) -> CutoutSet:
    read = [_fits_image(file, pixsize) for file in files]
    n = len(files)
    sides = np.array([side for _, side in read])
    labels = (UNLABELLED,) * n
    return CutoutSet(path, [x for x, _ in read], np.ones(n), labels, np.zeros(n), sides, tuple(map(str, files)))


def _fits_image(path: Path, pixsize: float) -> tuple[np.ndarray, float]:
    """Return the first image of a FITS file, [y, x] with east to the left and north last, and its pixel size."""
    from astropy.io import fits

    try:
        with fits.open(path, memmap=False) as hdus:
            hdu = next((hdu for hdu in hdus if getattr(hdu, "is_image", False) and hdu.data is not None), None)
            pixels, header = (None, {}) if hdu is None else (np.squeeze(np.asarray(hdu.data, float)), hdu.header)
    except Exception as error:  # astropy raises many types for a damaged file
        raise Vis2imgError(f"cannot read the cutout {path}: {str(error).strip().splitlines()[0]}") from error
    if pixels is None or pixels.ndim != 2:
        raise Vis2imgError(f"{path} holds no image of two axes")
    step = [header.get(f"CDELT{i}", header.get(f"CD{i}_{i}", 0.0)) for i in (1, 2)]
    if step[0] > 0:
        pixels = pixels[:, ::-1]
    if step[1] < 0:
        pixels = pixels[::-1]
    return pixels, math.radians(abs(step[1])) or pixsize


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
    kept = isolate(template)
    y, x = np.nonzero(kept)
    pixsize = size / _largest_extent(y, x)
    kept = kept[_odd(y, kept.shape[0]), _odd(x, kept.shape[1])]
    pixels = (kept * (flux / kept.sum())).astype(np.float32)
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
    from scipy import ndimage

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
    kept = np.isin(islands, _members(template, islands, bright, picture))
    soft = ndimage.gaussian_filter(ndimage.binary_dilation(kept).astype(float), 0.7, truncate=1.5)
    return np.maximum(picture, 0.0) * np.where(soft > 1e-3, np.minimum(soft, 1.0), 0.0)


def _members(template: CutoutTemplate, islands: np.ndarray, bright: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Return the numbers of the islands that belong to the source at the middle."""
    from scipy import ndimage

    y, x = np.indices(islands.shape) - np.array([(side - 1) / 2 for side in islands.shape])[:, None, None]
    near = np.asarray(ndimage.minimum(np.hypot(y, x), islands, bright))  # to the nearest pixel of each
    if template.size > 0 and template.pixsize > 0:
        # The middle of a picture is the host, and one arm may be longer: up to 0.65 of the size.
        chosen = near <= max(0.65 * template.size / template.pixsize, near.min())
        return bright[chosen]
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
