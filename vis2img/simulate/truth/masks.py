"""What is true inside one picture: sources, boxes, masks and brightness on the pixels of an image.

Brightness is in Jy per pixel: the integral over each pixel of the Gaussians (sampled so densely that their flux
is kept to 1e-3 and better) and of the cutouts (interpolated linearly), blurred by the beam if there is one.

A **mask** is the brightest part of a source that holds 90% of its flux. For a Gaussian that is where it exceeds
0.1 of its peak: the ellipse above a fraction f of the peak holds exactly 1 - f of the flux. A fraction of the peak
itself would shrink the mask of a radio galaxy to its core or hotspots, and differently at every pixel scale.

A **box** holds the 0.1 contour of every Gaussian (2.15 sigma to each side), hence at least 93% of the flux at any
angle (Sidak 1967); of a cutout it cuts off as much of the flux on each side as of a Gaussian, 1.6%.

Pixel positions are 0-based, integers at the centres of pixels, ``[y, x]`` in arrays and (x, y) elsewhere.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vis2img.errors import ParameterError
from vis2img.simulate.sky import UNLABELLED, SkyCutout, SkySource

if TYPE_CHECKING:
    from astropy.io.fits import Header
    from astropy.wcs import WCS

    from vis2img.simulate.truth.truth import Truth

MASK_FLUX = 0.9  # share of the flux in a mask
BOX_SIGMAS = math.sqrt(2 * math.log(1 / (1 - MASK_FLUX)))  # from the middle of a Gaussian to its 0.1 contour
BOX_TAIL = 0.5 * math.erfc(BOX_SIGMAS / math.sqrt(2))  # share of a Gaussian beyond one side of its box
_RENDER_SIGMAS = 5.0  # 4e-6 of a Gaussian lies farther out
_POINT_SIGMA = 0.1  # pixels; smaller Gaussians lie in one pixel
_SIGMA_SAMPLES = 0.7  # samples per sigma: the sum is the integral within 2 exp(-2 pi^2 0.7^2) = 1.3e-4
_CUTOUT_SAMPLES = 4  # per pixel of a cutout
_MAX_SAMPLES = 20_000_000  # per Gaussian or cutout, a second of work
_LEVEL_NPIX = 512  # side of the picture in which the faintest isophote of a mask is found


@dataclass(frozen=True, eq=False)
class Parts:
    """The Gaussians, points and cutouts of the sources in a view; k of them.

    Parameters
    ----------
    owner : int [k]
        Number of the source in the view, ascending.
    xy : float64 [k, 2]
        Pixel position.
    covariance : float64 [k, 2, 2]
        Of the Gaussian, blurred by the beam, in pixels squared; of a cutout: of the beam.
    flux : float64 [k]
        Jy, at its reference frequency.
    scale : float64 [k]
        What flux and cutout are multiplied by.
    cutout : list of (SkyCutout or None)
    turn : float64 [k, 2, 2]
        Pixels per rad east and north.
    """

    owner: np.ndarray
    xy: np.ndarray
    covariance: np.ndarray
    flux: np.ndarray
    scale: np.ndarray
    cutout: list[SkyCutout | None]
    turn: np.ndarray

    def reach(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the lowest and highest (x, y) that part ``k`` has a share of its flux at."""
        half, corners = _RENDER_SIGMAS * np.sqrt(np.diag(self.covariance[k])), self.xy[k][None]
        cutout = self.cutout[k]
        if cutout is not None:
            ny, nx = cutout.pixels.shape
            ends = np.array([[x, y] for x in (-1, nx) for y in (-1, ny)]) - (nx // 2, ny // 2)
            corners = corners + ends @ _cutout_matrix(cutout, self.turn[k]).T
        return corners.min(axis=0) - half, corners.max(axis=0) + half


@dataclass(frozen=True, eq=False)
class TruthView:
    """The sources in a picture, as :meth:`vis2img.simulate.truth.truth.Truth.at` finds them.

    Parameters
    ----------
    shape : (int, int)
        (ny, nx) of the picture.
    sources : list of SkySource
        Those whose box meets the picture, in the order of the catalogue; n of them.
    x, y : float64 [n]
        0-based pixel positions, perhaps outside the picture.
    flux : float64 [n]
        Jy at the frequency asked for.
    class_names : tuple of str
        All classes of the truth, whether in the picture or not: the categories of a detector.
    extents : float64 [n, 4]
        Boxes as (x0, y0, x1, y1), not clipped.
    """

    shape: tuple[int, int]
    sources: list[SkySource]
    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    class_names: tuple[str, ...]
    extents: np.ndarray
    parts: Parts

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def labels(self) -> list[str]:
        """Class of each source; '' for those without a label."""
        return [source.class_name for source in self.sources]

    @property
    def inside(self) -> np.ndarray:
        """Whether the centre of each source lies in the picture; bool [n]."""
        ny, nx = self.shape
        return (self.x >= -0.5) & (self.x < nx - 0.5) & (self.y >= -0.5) & (self.y < ny - 0.5)

    @property
    def counts(self) -> dict[str, int]:
        """Number of sources of each class whose centre lies in the picture; those without a label under ''."""
        return dict(Counter(label for label, inside in zip(self.labels, self.inside, strict=True) if inside))

    def boxes(self, clip: bool = False) -> np.ndarray:
        """Return float64 [n, 4]: (x0, y0, x1, y1) in pixels, at least a pixel wide; cut at the edges on request."""
        if not clip:
            return self.extents.copy()
        ny, nx = self.shape
        return np.clip(self.extents, -0.5, np.array([nx, ny, nx, ny]) - 0.5)

    def main_class(self, region: float = 3.0) -> str:
        """Return the class of the brightest source whose box meets the middle ``region`` pixels a side, or ''.

        The middle is the pixel (nx // 2, ny // 2). A brighter source without a label gives '' too.
        """
        middle, half = np.array([self.shape[1] // 2, self.shape[0] // 2]), region / 2
        low, high = self.extents[:, :2], self.extents[:, 2:]
        there = np.all((low < middle + half) & (high > middle - half), axis=1)
        if not there.any():
            return UNLABELLED
        return self.sources[int(np.argmax(np.where(there, self.flux, -np.inf)))].class_name

    def brightness(self, i: int | None = None) -> np.ndarray:
        """Return the brightness of source ``i``, or of all, in Jy per pixel; float64 [y, x]."""
        image = np.zeros(self.shape)
        for number in range(len(self)) if i is None else [self._number(i)]:
            x0, y0, stamp = self._stamp(number)
            image[y0 : y0 + stamp.shape[0], x0 : x0 + stamp.shape[1]] += stamp
        return image

    def mask(self, i: int) -> np.ndarray:
        """Return where source ``i`` is: the brightest part with 90% of its flux; bool [y, x].

        It has at least the brightest pixel of the source, if that lies in the picture.
        """
        image = np.zeros(self.shape, dtype=bool)
        x0, y0, stamp = self._masked(self._number(i))
        image[y0 : y0 + stamp.shape[0], x0 : x0 + stamp.shape[1]] = stamp > 0
        return image

    def masks(self) -> np.ndarray:
        """Return all masks; bool [n, y, x]."""
        return np.array([self.mask(i) for i in range(len(self))], dtype=bool).reshape(-1, *self.shape)

    def segmentation(self) -> np.ndarray:
        """Return an int32 [y, x] image of labels: 0 outside all masks, i + 1 in that of source i.

        Where masks overlap, the source that is brightest in the pixel has it.
        """
        labels, best = np.zeros(self.shape, dtype=np.int32), np.zeros(self.shape)
        for i in range(len(self)):
            x0, y0, stamp = self._masked(i)
            here = np.s_[y0 : y0 + stamp.shape[0], x0 : x0 + stamp.shape[1]]
            wins = stamp > best[here]
            labels[here][wins] = i + 1
            best[here][wins] = stamp[wins]
        return labels

    def to_coco(self, image_id: int = 1, file_name: str = "") -> dict[str, Any]:
        """Return the labelled sources as a COCO record: images, annotations, categories (from 1, in fixed order).

        Boxes are [left, top, width, height], clipped, with 0 at the outer edge of the first pixel and ``y``
        counted along the rows of the array. Annotation ids are source ids; sources without a label are left out.
        """
        categories = {name: number for number, name in enumerate(self.class_names, start=1)}
        annotations = []
        for source, (x0, y0, x1, y1) in zip(self.sources, self.boxes(clip=True).tolist(), strict=True):
            if source.class_name == UNLABELLED:
                continue
            entry = {"id": source.source_id, "image_id": image_id, "category_id": categories[source.class_name]}
            box = [x0 + 0.5, y0 + 0.5, x1 - x0, y1 - y0]
            annotations.append(entry | {"bbox": box, "area": box[2] * box[3], "iscrowd": 0})
        ny, nx = self.shape
        return {
            "images": [{"id": image_id, "file_name": file_name, "width": nx, "height": ny}],
            "annotations": annotations,
            "categories": [{"id": number, "name": name} for name, number in categories.items()],
        }

    def _number(self, i: int) -> int:
        if not 0 <= i < len(self):
            raise ParameterError(f"there is no source {i} in this view: it has {len(self)}, counted from 0")
        return i

    def _of(self, i: int) -> range:
        return range(*np.searchsorted(self.parts.owner, [i, i + 1]).tolist())

    def _reach(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the first pixel (x, y) that source ``i`` reaches and the one after the last; int [2] each."""
        low, high = zip(*(self.parts.reach(k) for k in self._of(i)), strict=True)
        first, last = np.floor(np.min(low, axis=0) + 0.5), np.floor(np.max(high, axis=0) + 0.5)
        return first.astype(int), last.astype(int) + 1

    def _stamp(self, i: int) -> tuple[int, int, np.ndarray]:
        """Return (x0, y0, brightness [y, x]) of the part of the picture that source ``i`` reaches."""
        end = np.array([self.shape[1], self.shape[0]])
        low, high = (np.clip(edge, 0, end) for edge in self._reach(i))
        return int(low[0]), int(low[1]), self._render(i, low, np.maximum(high, low) - low)

    def _render(self, i: int, corner: np.ndarray, npix: np.ndarray, pixel: int = 1) -> np.ndarray:
        """Return the brightness in ``npix`` (x, y) pixels, each ``pixel`` pixels a side, from ``corner`` on."""
        image = np.zeros((int(npix[1]), int(npix[0])))
        parts = self.parts
        for k in self._of(i) if image.size else ():
            xy = (parts.xy[k] - corner + 0.5) / pixel - 0.5
            covariance, cutout = parts.covariance[k] / pixel**2, parts.cutout[k]
            if cutout is None:
                _add_gaussian(image, xy, covariance, float(parts.flux[k] * parts.scale[k]))
            else:
                matrix = _cutout_matrix(cutout, parts.turn[k]) / pixel
                _add_cutout(image, xy, matrix, cutout.pixels * parts.scale[k], covariance)
        return image

    def _masked(self, i: int) -> tuple[int, int, np.ndarray]:
        """Return the stamp of source ``i`` with 0 outside its mask."""
        x0, y0, stamp = self._stamp(i)
        if not stamp.size:
            return x0, y0, stamp
        low, high = self._reach(i)
        pixel = max(1, math.ceil(max(high - low) / _LEVEL_NPIX))
        whole = self._render(i, low, -(-(high - low) // pixel), pixel)
        level = _isophote(whole, MASK_FLUX) / pixel**2
        kept = stamp >= level * (1 - 1e-6)
        # A mask pixel must stand out from the 0 of the background, even under a cutout's zero.
        return x0, y0, np.where(kept, np.maximum(stamp, np.finfo(float).tiny), 0.0)


def write_masks(
    truth: Truth,
    wcs: WCS | Header,
    path: str | Path,
    *,
    shape: tuple[int, int] | None = None,
    overwrite: bool = False,
    **selection: Any,
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
    **selection
        freq, classes, min_flux, beam and apparent, as in :meth:`Truth.at`.

    Raises
    ------
    OutputError
        If the file exists already (without ``overwrite``) or cannot be written; it is whole or not there.
    ParameterError
        If the shape is not known, or the WCS is not celestial.
    """
    from astropy.io import fits
    from astropy.table import Table
    from astropy.wcs import WCS

    from vis2img.files import atomic_output, check_outputs

    check_outputs([Path(path)], overwrite)
    if isinstance(wcs, fits.Header):
        shape = shape or (wcs["NAXIS2"], wcs["NAXIS1"])
        wcs = WCS(wcs)
    shape = shape or wcs.celestial.array_shape
    if shape is None:
        raise ParameterError("the WCS has no pixel_shape: give shape=(ny, nx)")
    view = truth.at(wcs, shape, **selection)
    labels = view.segmentation()
    columns = {
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
    image = fits.PrimaryHDU(labels, (wcs.celestial if wcs.naxis > 2 else wcs).to_header())
    table = fits.table_to_hdu(Table(columns))
    table.name = "LABELS"
    with atomic_output(Path(path), overwrite) as temporary:
        fits.HDUList([image, table]).writeto(temporary)
    return Path(path)


def _isophote(brightness: np.ndarray, share: float) -> float:
    """Return the level above which ``brightness`` holds a ``share`` of its positive sum."""
    values = np.sort(brightness[brightness > 0])[::-1]
    if not values.size:
        return math.inf
    total = np.cumsum(values)
    return float(values[np.searchsorted(total, share * total[-1])])


def _cutout_matrix(cutout: SkyCutout, turn: np.ndarray) -> np.ndarray:
    """Return [2, 2]: image pixels (x, y) per pixel (x, y) of the cutout."""
    sin, cos, side = math.sin(cutout.pa), math.cos(cutout.pa), cutout.pixsize
    return turn @ np.array([[-cos, sin], [sin, cos]]) * side  # x to the west, y to the north; north through east


def _steps(wanted: float, area: int) -> int:
    return max(1, min(math.ceil(wanted), math.isqrt(_MAX_SAMPLES // max(area, 1))))


def _window(low: np.ndarray, high: np.ndarray, shape: tuple[int, int]) -> tuple[slice, slice]:
    """Return the slices [y, x] of the pixels from position ``low`` to ``high``, both (x, y)."""
    first = np.maximum(np.floor(low + 0.5), 0).astype(int)
    last = np.minimum(np.floor(high + 0.5) + 1, shape[::-1]).astype(int)
    (x0, y0), (x1, y1) = first.tolist(), np.maximum(first, last).tolist()
    return slice(y0, y1), slice(x0, x1)


def _samples(window: slice, steps: int) -> np.ndarray:
    """Return the positions of ``steps`` samples in each pixel of ``window``."""
    return window.start - 0.5 + (np.arange((window.stop - window.start) * steps) + 0.5) / steps


def _add_gaussian(image: np.ndarray, xy: np.ndarray, covariance: np.ndarray, flux: float) -> None:
    """Add a Gaussian of ``flux`` to ``image`` [y, x] in place, integrated over pixels."""
    middle = (covariance[0, 0] + covariance[1, 1]) / 2
    spread = math.hypot((covariance[0, 0] - covariance[1, 1]) / 2, covariance[0, 1])
    if middle + spread < _POINT_SIGMA**2:
        image[_window(xy, xy, image.shape)] += flux
        return
    half = _RENDER_SIGMAS * np.sqrt(np.maximum(np.diag(covariance), _POINT_SIGMA**2))
    rows, columns = window = _window(xy - half, xy + half, image.shape)
    target = image[window]
    minor = math.sqrt(max(middle - spread, 0.0))
    steps = _steps(_SIGMA_SAMPLES / max(minor, _POINT_SIGMA), target.size)
    thinnest = max(_POINT_SIGMA, _SIGMA_SAMPLES / steps) if steps > 1 or minor < _SIGMA_SAMPLES else 0.0
    # A box of side d has the second moment d^2 / 12, so that samples of the sum are integrals to fourth order.
    covariance = covariance + (max(0.0, thinnest**2 - minor**2) + 1 / (12 * steps**2)) * np.eye(2)
    (a, b), (_, c) = np.linalg.inv(covariance)
    scale = flux / (2 * math.pi * math.sqrt(np.linalg.det(covariance))) / steps**2
    x, y = _samples(columns, steps) - xy[0], _samples(rows, steps) - xy[1]
    for row in range(steps):
        dy = y[row::steps, None]
        value = np.exp(-0.5 * (a * x**2 + (2 * b * x + c * dy) * dy))  # (y, x samples)
        target += scale * value.reshape(*target.shape, steps).sum(axis=-1)


def _add_cutout(
    image: np.ndarray, xy: np.ndarray, matrix: np.ndarray, pixels: np.ndarray, covariance: np.ndarray
) -> None:
    """Add a cutout to ``image`` [y, x] in place, its reference pixel at ``xy``, blurred by ``covariance``."""
    from scipy.ndimage import map_coordinates
    from scipy.signal import fftconvolve

    pad = math.ceil(_RENDER_SIGMAS * math.sqrt(covariance.diagonal().max())) if covariance.any() else 0
    canvas = np.zeros((image.shape[0] + 2 * pad, image.shape[1] + 2 * pad))
    xy = xy + pad
    ny, nx = pixels.shape
    middle = np.array([nx // 2, ny // 2])
    ends = xy + (np.array([[x, y] for x in (-1, nx) for y in (-1, ny)]) - middle) @ matrix.T
    rows, columns = window = _window(ends.min(axis=0), ends.max(axis=0), canvas.shape)
    target, inverse = canvas[window], np.linalg.inv(matrix)
    steps = _steps(_CUTOUT_SAMPLES * np.linalg.norm(inverse, axis=0).max(), target.size)
    scale = abs(np.linalg.det(inverse)) / steps**2
    x, y = _samples(columns, steps) - xy[0], _samples(rows, steps) - xy[1]
    for row in range(steps):
        dx, dy = np.broadcast_arrays(x, y[row::steps, None])
        where = [
            inverse[1, 0] * dx + inverse[1, 1] * dy + middle[1],
            inverse[0, 0] * dx + inverse[0, 1] * dy + middle[0],
        ]
        value = map_coordinates(pixels, where, output=np.float64, order=1, mode="grid-constant")
        target += scale * value.reshape(*target.shape, steps).sum(axis=-1)
    if pad:
        kernel = np.zeros((2 * pad + 1, 2 * pad + 1))
        _add_gaussian(kernel, np.array([pad, pad], float), covariance, 1.0)
        canvas = fftconvolve(canvas, kernel, mode="same")[pad:-pad, pad:-pad]
    image += canvas
