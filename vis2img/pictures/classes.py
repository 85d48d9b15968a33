"""What cutouts are labelled as: columns of labels, and the classes that their words and codes name."""

from __future__ import annotations

import re

import numpy as np

from vis2img.errors import Vis2imgError
from vis2img.pictures.cutouts import RawCutouts

UNKNOWN = -1
_FR_NAMES = ("FRI", "FRII")
_MOST_CLASSES = 10_000
_YES_NO = {"true": 1, "yes": 1, "1": 1, "false": 0, "no": 0, "0": 0, "": 0}
# MiraBest's code: 1 FRI, 2 FRII, 3 hybrid; 0 confident, 1 uncertain; then the kind of morphology.
_CODE = re.compile(r"([123])([01])\d\b")
# Words in a label, in the order they are looked for: "FRI" is part of "FRII" and of "FRI conf WAT".
_CLASS_WORDS = (
    ("hybrid", ("hybrid",)),
    ("ddrg", ("dd", "ddrg", "double-double")),
    ("bent", ("bent", "wat", "nat", "head-tail")),
    ("frii", ("frii", "fr2")),
    ("fri", ("fri", "fr1")),
    ("compact", ("compact", "point")),
)


def class_from_label(label: str) -> str:
    """Return our class for the words of a label; empty if there is none among them.

    Bent tails of either kind are "bent": published labels of them follow no common angle.
    """
    words = set(label.lower().replace("_", " ").split())
    return next((name for name, synonyms in _CLASS_WORDS if words & set(synonyms)), "")


def labels_of(raw: RawCutouts, column: str | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the labels in a column as int64 [n], -1 where unknown, and their names.

    "fr" is FRI against FRII: a column ``fr`` (0, 1, and others, which are unknown), or else MiraBest's codes or the
    words of labels. None: all are unknown.

    Raises
    ------
    Vis2imgError
        If there is no such column or it holds no labels; the message names file, column and row.
    """
    if column is None:
        return np.full(len(raw), UNKNOWN, np.int64), ()
    if column == "fr" and "fr" not in raw.columns:
        return _fr_of_names(raw)
    if column not in raw.columns:
        columns = ", ".join(name for name in raw.columns if name not in raw.targets) or "none"
        raise Vis2imgError(f"{raw.path} has no column {column} of labels; columns: {columns}")
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


def label_words(raw: RawCutouts) -> list[str] | None:
    """Return the label of each cutout in words, of the finest classes that there are; None if it has none."""
    column = next((name for name in ("label10", "label") if name in raw.columns), None)
    if column is None:
        return None
    numbers, names = labels_of(raw, column)
    return [names[i] if i != UNKNOWN else "" for i in numbers]


def _fr_of_names(raw: RawCutouts) -> tuple[np.ndarray, tuple[str, ...]]:
    words = label_words(raw)
    if words is None:
        raise Vis2imgError(f"{raw.path} has no labels: a column fr, label10 or label is needed to tell FRI from FRII")
    return np.array([_fr(word) for word in words], np.int64), _FR_NAMES


def _fr(word: str) -> int:
    if code := _CODE.match(word):
        return int(code[1]) - 1 if code[1] in "12" else UNKNOWN
    return {"fri": 0, "frii": 1}.get(class_from_label(word), UNKNOWN)


def confidence(raw: RawCutouts) -> np.ndarray | None:
    """Return which labels are confident, bool [n]; None if the file does not tell."""
    if "confident" in raw.columns:
        return _flags(raw, "confident")
    codes = [_CODE.match(word) for word in label_words(raw) or ()]
    return np.array([code is not None and code[2] == "0" for code in codes]) if any(codes) else None


def _flags(raw: RawCutouts, column: str) -> np.ndarray:
    """Return a column of yes and no as bool [n]; what is empty or NaN is no."""
    values = raw.columns[column]
    if values.dtype.kind == "U":
        number = np.array([_YES_NO.get(word.strip().lower(), UNKNOWN) for word in values])
    elif values.dtype.kind in "biuf":
        number = np.where(np.isnan(values), 0, values) if values.dtype.kind == "f" else values
    else:
        raise Vis2imgError(f"{raw.path}: {column} must be 0 or 1, not {values.dtype}")
    wrong = np.flatnonzero(~np.isin(number, (0, 1)))
    if len(wrong):
        raise Vis2imgError(f"{raw.rows[wrong[0]]}: {column} {values[wrong[0]]} is neither yes nor no")
    return number.astype(bool)
