"""What is true inside one picture: sources, boxes, masks and brightness on the pixels of an image.

A **mask** is the brightest part of a source that holds 90% of its flux. For a Gaussian that is where it exceeds
0.1 of its peak: the ellipse above a fraction f of the peak holds exactly 1 - f of the flux. A fraction of the peak
itself would shrink the mask of a radio galaxy to its core or hotspots, and differently at every pixel scale.

Pixel positions are 0-based, integers at the centres of pixels, ``[y, x]`` in arrays and (x, y) elsewhere.
:mod:`vis2img.simulate.truth.render` says what brightness is, :mod:`vis2img.simulate.truth.parts` what a box is.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from vis2img.errors import ParameterError
from vis2img.simulate.sky.source import UNLABELLED, SkySource
from vis2img.simulate.truth.parts import MASK_FLUX, Parts
from vis2img.simulate.truth.render import add_part, reach

_LEVEL_NPIX = 512  # side of the picture in which the faintest isophote of a mask is found


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
        low, high = zip(*(reach(self.parts, k) for k in self._of(i)), strict=True)
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
        for k in self._of(i) if image.size else ():
            add_part(image, self.parts, k, corner, pixel)
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


def _isophote(brightness: np.ndarray, share: float) -> float:
    """Return the level above which ``brightness`` holds a ``share`` of its positive sum."""
    values = np.sort(brightness[brightness > 0])[::-1]
    if not values.size:
        return math.inf
    total = np.cumsum(values)
    return float(values[np.searchsorted(total, share * total[-1])])
