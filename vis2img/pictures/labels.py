"""Labelled cutouts as a network sees them: cut at their middle, resampled with antialiasing, stretched by their noise.

Background, noise and stretch are those of training on cutouts (:mod:`vis2img.pictures.cutting`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vis2img.errors import ParameterError, Vis2imgError
from vis2img.pictures.cutting import Pictures, Square, cut_picture, picture_noise
from vis2img.pictures.formats import RawCutouts, read_raw
from vis2img.pictures.groups import linked, position_groups
from vis2img.simulate.sky.pictures import class_from_label
from vis2img.views.crops import TURNS, ViewConfig, turned

UNKNOWN = -1
_FR_NAMES = ("FRI", "FRII")
_LEAST = 8  # pixels a side
_MOST_CLASSES = 10_000
_WORDS = {"true": 1, "yes": 1, "1": 1, "false": 0, "no": 0, "0": 0, "": 0}
# MiraBest's code: 1 FRI, 2 FRII, 3 hybrid; 0 confident, 1 uncertain; then the kind of morphology.
_CODE = re.compile(r"([123])([01])\d\b")


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
            found = np.shape(self.targets[name] if name in self.targets else getattr(self, name))
            if found != shape:
                raise ParameterError(f"{self.path}: {name} has the shape {list(found)} for {n} images")
        if self.images.ndim != 4 or self.images.shape[1] != self.images.shape[2] or len(self.name) != n:
            raise ParameterError(f"{self.path}: images must be [n, size, size, channel] with a name each")
        if n and not UNKNOWN <= self.label.min() <= self.label.max() < len(self.label_names):
            raise ParameterError(f"{self.path}: labels must be -1 to {len(self.label_names) - 1}")

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: np.ndarray) -> LabelledImages:
        """Return the cutouts at ``index`` (numbers or booleans)."""
        rows = np.arange(len(self))[index]
        return LabelledImages(
            self.images[rows],
            self.label[rows],
            self.label_names,
            self.position[rows],
            tuple(self.name[i] for i in rows),
            {name: values[rows] for name, values in self.targets.items()},
            self.path,
            self.named,
        )


def read_labelled(
    path: str | Path,
    *,
    views: ViewConfig,
    crop: int | None = None,
    label: str | None = "fr",
    confident: bool | None = None,
    channels: int = 1,
) -> LabelledImages:
    """Read labelled cutouts from an .npz file, a folder or table of FITS images, or published batches.

    Parameters
    ----------
    path : path
        As :func:`vis2img.pictures.formats.read_raw` takes it. Of published batches a folder is its training split, and
        ``FOLDER/test_batch`` the test split.
    views : ViewConfig
        ``global_size`` and ``stretch`` are used.
    crop : int, optional
        Pixels of the file a side that are kept around the middle; default: the largest square.
    label : str, optional
        Column that holds the labels. "fr" is FRI against FRII, from a column ``fr`` (0, 1, and others, which are left
        out), MiraBest's codes or the words of labels; hybrids are left out. None: no labels.
    confident : bool, optional
        Keep confident labels only; default: for "fr" where the file tells which are, else no.
    channels : int
        The picture is repeated in as many.

    Raises
    ------
    Vis2imgError
        If the file cannot be read, the column is missing, or a row is wrong; the message names file, column and row.
    """
    raw = read_raw(path)
    chosen, names = _labels(raw, label)
    rows = np.flatnonzero((chosen != UNKNOWN) if label == "fr" else np.ones(len(raw), bool))
    if confident or (confident is None and label == "fr"):
        sure = _confidence(raw)
        if confident and sure is None:
            raise Vis2imgError(
                f"{raw.path} does not tell which labels are confident: it has no column confident, no codes"
            )
        rows = rows if sure is None else rows[sure[rows]]
    if not len(rows):
        raise Vis2imgError(f"{raw.path}: no cutout is left with a label of {label!r}")
    return LabelledImages(
        images=network_images(raw, views, crop, rows, channels),
        label=chosen[rows],
        label_names=names,
        position=raw.position[rows],
        name=tuple(raw.names[i] for i in rows),
        targets={name: values[rows] for name, values in raw.targets.items() if name != label},
        path=raw.path,
        named=raw.named,
    )


def network_images(
    raw: RawCutouts, views: ViewConfig, crop: int | None, rows: Sequence[int] | np.ndarray, channels: int = 1
) -> np.ndarray:
    """Return cutouts ``rows`` as the network sees them, float32 [row, size, size, channel].

    Raises
    ------
    Vis2imgError
        If a picture is smaller than ``crop``, or holds no finite pixel; the message names it.
    """
    views_of = np.empty((len(rows), views.global_size, views.global_size, channels), np.float32)
    for i, row in enumerate(rows):
        image = np.asarray(raw.images[row])
        side = min(image.shape) if crop is None else crop
        if not _LEAST <= side <= min(image.shape):
            shape = "{} x {}".format(*image.shape[::-1])
            raise Vis2imgError(f"{raw.rows[row]}: {shape} pixels, of which {side} a side cannot be cut")
        cut_picture(_alone(image, raw.rows[row]), 0, Square(0.0, 0.0, float(side)), views_of[i, :, :, 0], views.stretch)
    views_of[..., 1:] = views_of[..., :1]
    return views_of


def _alone(image: np.ndarray, name: str) -> Pictures:
    """Return one picture as a set of pictures, with its background and noise."""
    finite = image[np.isfinite(image)]
    if not len(finite):
        raise Vis2imgError(f"{name} is blank")
    # A picture that is the same everywhere has no noise, and is 0 in any unit.
    noise = picture_noise(finite) if finite.min() < finite.max() else 1.0
    return Pictures([image], np.array([np.median(finite)]), np.array([noise]), [name], {}, "")


def _labels(raw: RawCutouts, column: str | None) -> tuple[np.ndarray, tuple[str, ...]]:
    if column is None:
        return np.full(len(raw), UNKNOWN, np.int64), ()
    if column == "fr" and "fr" not in raw.columns:
        return _fr_of_names(raw)
    if column not in raw.columns:
        known = ", ".join(name for name in raw.columns if name not in raw.targets) or "none"
        raise Vis2imgError(f"{raw.path} has no column {column} of labels; columns: {known}")
    values = _whole(raw.columns[column])
    if column == "fr":
        if values.dtype.kind not in "iu":
            raise Vis2imgError(f"{raw.path}: fr must be whole numbers (0 FRI, 1 FRII), not {values.dtype}")
        return np.where(values == 0, 0, np.where(values == 1, 1, UNKNOWN)), _FR_NAMES
    if values.dtype.kind == "f":
        raise Vis2imgError(f"{raw.path}: {column} holds real numbers, which are no labels")
    if values.dtype.kind in "bU":
        return _numbered(values.astype(str))
    if values.dtype.kind not in "iu":
        raise Vis2imgError(f"{raw.path}: {column} must be whole numbers or words, not {values.dtype}")
    return _classes(raw, column, values)


def _whole(values: np.ndarray) -> np.ndarray:
    """Return real numbers that are all whole as integers, those that are NaN as unknown; others as they are.

    A table does not tell whole numbers from others.
    """
    if values.dtype.kind != "f":
        return values
    filled = np.where(np.isnan(values), UNKNOWN, values)
    whole = np.abs(filled) < 2**53
    return filled.astype(np.int64) if (whole & (filled == np.rint(filled))).all() else values


def _classes(raw: RawCutouts, column: str, values: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return labels that are whole numbers as int64 [n], and their names."""
    wrong = np.flatnonzero(values >= _MOST_CLASSES)
    if len(wrong):
        row = raw.rows[wrong[0]]
        raise Vis2imgError(f"{row}: {column} {values[wrong[0]]} is beyond the {_MOST_CLASSES} classes of a file")
    values = values.astype(np.int64)
    names = raw.label_names if column in ("label", "label10") else ()
    names = names or tuple(str(i) for i in range(int(values.max(initial=UNKNOWN)) + 1))
    wrong = np.flatnonzero((values < UNKNOWN) | (values >= len(names)))
    if len(wrong):
        row = raw.rows[wrong[0]]
        raise Vis2imgError(f"{row}: {column} {values[wrong[0]]} is none of the {len(names)} label_names")
    return values, names


def _numbered(text: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return labels in words as numbers; an empty one is unknown."""
    names = tuple(str(name) for name in np.unique(text) if name)
    return np.array([names.index(word) if word else UNKNOWN for word in text], np.int64), names


def _label_words(raw: RawCutouts) -> list[str] | None:
    """Return the label of each cutout in words, of the finest classes that there are; None if it has none."""
    column = next((name for name in ("label10", "label") if name in raw.columns), None)
    if column is None:
        return None
    numbers, names = _labels(raw, column)
    return [names[i] if i != UNKNOWN else "" for i in numbers]


def _fr_of_names(raw: RawCutouts) -> tuple[np.ndarray, tuple[str, ...]]:
    words = _label_words(raw)
    if words is None:
        raise Vis2imgError(f"{raw.path} has no labels: a column fr, label10 or label is needed to tell FRI from FRII")
    return np.array([_fr(word) for word in words], np.int64), _FR_NAMES


def _fr(word: str) -> int:
    if code := _CODE.match(word):
        return int(code[1]) - 1 if code[1] in "12" else UNKNOWN
    return {"fri": 0, "frii": 1}.get(class_from_label(word), UNKNOWN)


def _confidence(raw: RawCutouts) -> np.ndarray | None:
    """Return which labels are confident, bool [n]; None if the file does not tell."""
    if "confident" in raw.columns:
        return _flags(raw, "confident")
    codes = [_CODE.match(word) for word in _label_words(raw) or ()]
    return np.array([code is not None and code[2] == "0" for code in codes]) if any(codes) else None


def _flags(raw: RawCutouts, column: str) -> np.ndarray:
    """Return a column of yes and no as bool [n]; what is empty or NaN is no."""
    values = raw.columns[column]
    if values.dtype.kind == "U":
        number = np.array([_WORDS.get(word.strip().lower(), UNKNOWN) for word in values])
    elif values.dtype.kind in "biuf":
        number = np.where(np.isnan(values), 0, values) if values.dtype.kind == "f" else values
    else:
        raise Vis2imgError(f"{raw.path}: {column} must be 0 or 1, not {values.dtype}")
    wrong = np.flatnonzero(~np.isin(number, (0, 1)))
    if len(wrong):
        raise Vis2imgError(f"{raw.rows[wrong[0]]}: {column} {values[wrong[0]]} is neither yes nor no")
    return number.astype(bool)


def source_groups(images: LabelledImages, radius: float) -> np.ndarray:
    """Return the group of each cutout; cutouts that show one source are in one group.

    Joined are cutouts with positions within ``radius``, those with the same pixels, and those of one name where
    neither has a position; and whatever these link. Names that only count the rows of a file
    (:attr:`LabelledImages.named`) join none, nor do pictures that are 0 everywhere.

    Parameters
    ----------
    images : LabelledImages
    radius : float
        Largest distance between positions of one source in rad.

    Returns
    -------
    int64 [n]
        Numbers from 0.

    Raises
    ------
    ParameterError
        If ``radius`` is negative or not finite.
    """
    return _groups([images], radius)


def shared_sources(a: LabelledImages, b: LabelledImages, radius: float) -> np.ndarray:
    """Return which cutouts of ``b`` show a source that is in ``a`` too, bool [len(b)].

    Parameters
    ----------
    a, b : LabelledImages
        Pixels are compared as the network sees them, so both must be read with the same views and crop.
    radius : float
        Largest distance between positions of one source in rad; sources are told apart as in :func:`source_groups`.

    Raises
    ------
    ParameterError
        If ``radius`` is negative or not finite.
    """
    group = _groups([a, b], radius)
    return np.isin(group[len(a) :], group[: len(a)])


def _groups(sets: Sequence[LabelledImages], radius: float) -> np.ndarray:
    """Return the groups of several sets, one after another."""
    position = np.concatenate([images.position for images in sets])
    n = len(position)
    places = position_groups(position[:, 0], position[:, 1], radius).tolist()
    pixels = [key for images in sets for key in map(_pixel_key, images.images)]
    names = [key for images in sets for key in _name_keys(images)]
    first = np.concatenate([_first_alike(keys) for keys in (places, pixels, names)])
    return linked(n, np.tile(np.arange(n), 3), first)


def _first_alike(keys: Sequence[Hashable]) -> np.ndarray:
    """Return for each key where the first like it is, int [n]; None is like no other."""
    first: dict[Hashable, int] = {}
    return np.array([i if key is None else first.setdefault(key, i) for i, key in enumerate(keys)], np.int64)


def _pixel_key(image: np.ndarray) -> bytes | None:
    """Return a hash of the pixels; None where all are 0, which tells nothing."""
    pixels = np.ascontiguousarray(image, np.float32) + np.float32(0)  # -0 becomes 0
    return hashlib.blake2b(pixels.tobytes(), digest_size=16).digest() if pixels.any() else None


def _name_keys(images: LabelledImages) -> list[str | None]:
    unplaced = ~np.isfinite(images.position).all(axis=1)
    return [name if name and free and images.named else None for name, free in zip(images.name, unplaced, strict=True)]


def symmetric_views(images: np.ndarray) -> np.ndarray:
    """Return images [n, size, size, channel] under the 8 symmetries of the square: [8, n, size, size, channel]."""
    upright = np.moveaxis(images, 0, 2)  # (y, x, n, channel)
    return np.stack([np.moveaxis(turned(upright, turn), 2, 0) for turn in range(TURNS)])
