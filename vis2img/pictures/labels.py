"""Labelled cutouts as a network sees them: cut at their middle, resampled with antialiasing, stretched by their noise.

Background, noise and stretch are those of training on cutouts (:mod:`vis2img.pictures.cutting`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from vis2img.errors import ParameterError, Vis2imgError
from vis2img.pictures.classes import UNKNOWN, confidence, labels_of
from vis2img.pictures.cutouts import RawCutouts
from vis2img.pictures.cutting import Pictures, Square, cut_picture, one_picture
from vis2img.pictures.formats import read_raw
from vis2img.views.brightness import NUMBERS, pixel_brightness
from vis2img.views.crops import TURNS, ViewConfig, turned

_LEAST = 8  # pixels a side


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Cutouts, one source each, with labels.

    Parameters
    ----------
    images : float32 [n, size, size, channel]
        Above their background and stretched, as the network sees them; 0 where blank.
    label : int64 [n]
        Into ``label_names``; -1 if unknown.
    label_names : tuple of str
    position : float64 [n, 2]
        RA and Dec in rad; NaN if unknown.
    name : tuple of str
        Of each source, as the file has it.
    targets : dict
        Numbers float64 [n], such as redshift and size_arcsec; NaN if unknown.
    path : Path
        Where they are from.
    named : bool
        Whether the file names each source; else ``name`` counts them, and says nothing about another file.

    Raises
    ------
    ParameterError
        If the shapes disagree, or a label has no name.
    """

    images: np.ndarray = field(repr=False)
    label: np.ndarray = field(repr=False)
    label_names: tuple[str, ...]
    position: np.ndarray = field(repr=False)
    name: tuple[str, ...] = field(repr=False)
    targets: dict[str, np.ndarray] = field(repr=False)
    path: Path
    named: bool = True

    def __post_init__(self) -> None:
        n = len(self.images)
        shapes = {"label": (n,), "position": (n, 2), **dict.fromkeys(self.targets, (n,))}
        for name, shape in shapes.items():
            actual = np.shape(self.targets[name] if name in self.targets else getattr(self, name))
            if actual != shape:
                raise ParameterError(f"{self.path}: {name} has the shape {list(actual)} for {n} images")
        if self.images.ndim != 4 or self.images.shape[1] != self.images.shape[2] or len(self.name) != n:
            raise ParameterError(f"{self.path}: images must be [n, size, size, channel] with a name each")
        if n and not UNKNOWN <= self.label.min() <= self.label.max() < len(self.label_names):
            raise ParameterError(f"{self.path}: labels must be -1 to {len(self.label_names) - 1}")

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: np.ndarray) -> LabelledImages:
        """Return the cutouts at ``index`` (numbers or booleans)."""
        rows = np.arange(len(self))[index]
        return replace(
            self,
            images=self.images[rows],
            label=self.label[rows],
            position=self.position[rows],
            name=tuple(self.name[i] for i in rows),
            targets={name: values[rows] for name, values in self.targets.items()},
        )


def read_labelled(
    path: str | Path,
    *,
    views: ViewConfig,
    crop: int | None = None,
    label: str | None = "fr",
    confident: bool | None = None,
    planes: int = 1,
) -> LabelledImages:
    """Read labelled cutouts from an .npz file, a folder or table of FITS images, or published batches.

    Parameters
    ----------
    path : path
        As :func:`vis2img.pictures.formats.read_raw` takes it. Of published batches a folder is its training split, and
        ``FOLDER/test_batch`` the test split.
    views : ViewConfig
        ``global_size`` and ``stretches`` are used.
    crop : int, optional
        Pixels of the file a side that are used around the middle; default: the largest square.
    label : str, optional
        Column that holds the labels. "fr" is FRI against FRII, from a column ``fr`` (0, 1, and others, which are left
        out), MiraBest's codes or the words of labels; hybrids are left out. None: no labels.
    confident : bool, optional
        Keep confident labels only; default: for "fr" where the file tells which are, else no.
    planes : int
        Channels of each stretch; the picture is repeated in as many.

    Raises
    ------
    Vis2imgError
        If the file cannot be read, the column is missing, or a row is wrong; the message names file, column and row.
    """
    raw = read_raw(path)
    labels, names = labels_of(raw, label)
    rows = np.flatnonzero((labels != UNKNOWN) if label == "fr" else np.ones(len(raw), bool))
    if confident or (confident is None and label == "fr"):
        sure = confidence(raw)
        if confident and sure is None:
            raise Vis2imgError(
                f"{raw.path} does not tell which labels are confident: it has no column confident, no codes"
            )
        rows = rows if sure is None else rows[sure[rows]]
    if not len(rows):
        raise Vis2imgError(f"{raw.path}: no cutout is left with a label of {label!r}")
    return LabelledImages(
        images=network_images(raw, views, crop, rows, planes)[0],
        label=labels[rows],
        label_names=names,
        position=raw.position[rows],
        name=tuple(raw.names[i] for i in rows),
        targets={name: values[rows] for name, values in raw.targets.items() if name != label},
        path=raw.path,
        named=raw.named,
    )


def network_images(
    raw: RawCutouts, views: ViewConfig, crop: int | None, rows: Sequence[int] | np.ndarray, planes: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return cutouts ``rows`` as the network sees them, float32 [row, size, size, channel], and peak over noise [row].

    Raises
    ------
    Vis2imgError
        If a picture is smaller than ``crop``, or holds no finite pixel; the message names it.
    """
    named = ((np.asarray(raw.images[row]), raw.rows[row]) for row in rows)
    return _views_of(named, len(rows), views, crop, None, planes)


def array_images(images: np.ndarray, views: ViewConfig, noise: float | None = None, planes: int = 1) -> np.ndarray:
    """Return images [n, y, x] as the network sees them, float32 [n, size, size, channel], without a file.

    With ``noise``, in the unit of the images, nothing is subtracted; default: the noise of each, above its median.

    Raises
    ------
    Vis2imgError
        If an image is too small, or holds no finite pixel; the message has its number.
    """
    named = ((image, f"image {i}") for i, image in enumerate(images))
    return _views_of(named, len(images), views, None, noise, planes)[0]


def _views_of(
    named: Iterable[tuple[np.ndarray, str]],
    count: int,
    views: ViewConfig,
    crop: int | None,
    noise: float | None,
    planes: int,
) -> tuple[np.ndarray, np.ndarray]:
    shape = (count, views.global_size, views.global_size, len(views.stretches))
    views_of, snr = np.empty(shape, np.float32), np.empty(count)
    for i, (image, name) in enumerate(named):
        side = min(image.shape) if crop is None else crop
        if not _LEAST <= side <= min(image.shape):
            pixels = "{} x {}".format(*image.shape[::-1])
            raise Vis2imgError(f"{name}: {pixels} pixels, of which {side} a side cannot be cut")
        picture = one_picture(image, name)
        if noise is not None:
            picture = replace(picture, background=np.zeros(1, np.float32), noise=np.full(1, noise, np.float32))
        cut_picture(picture, 0, Square(0.0, 0.0, float(side)), views_of[i], views.stretches)
        snr[i] = _peak_over_noise(picture, side)
    return np.repeat(views_of, planes, axis=-1), snr


def _peak_over_noise(picture: Pictures, side: int) -> float:
    """Return the brightest pixel of the middle of one picture above its background, over its noise; 0 if blank."""
    ny, nx = picture.images[0].shape
    y, x = (ny - side) // 2, (nx - side) // 2
    middle = picture.images[0][y : y + side, x : x + side]
    above = middle - np.float64(picture.background[0])
    return float(np.nan_to_num(pixel_brightness(above, float(picture.noise[0]))[NUMBERS.index("snr")]))


def symmetric_views(images: np.ndarray) -> np.ndarray:
    """Return images [n, size, size, channel] under the 8 symmetries of the square: [8, n, size, size, channel]."""
    upright = np.moveaxis(images, 0, 2)  # (y, x, n, channel)
    return np.stack([np.moveaxis(turned(upright, turn), 2, 0) for turn in range(TURNS)])
