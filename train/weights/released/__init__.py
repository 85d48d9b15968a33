"""Weights that come with vis2img, by name: ``NAME.safetensors``, as ``vis2img export --half`` writes it, and NAME.md.

The second is the card: a head of YAML between lines of three hyphens (`Card`), and what there is to say in Markdown.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import yaml

from vis2img.errors import Vis2imgError, Vis2imgWarning
from vis2img.train.weights.files import read_header

FOLDER = Path(__file__).resolve().parent
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Card:
    """What is told of released weights, in one line each."""

    trained_on: str
    """The data."""
    scores: str
    """On which test, how high."""
    licence: str
    """Of the weights."""
    command: str
    """What trains them again."""


@dataclass(frozen=True)
class Released:
    """Weights that come with vis2img: a row of ``vis2img weights``."""

    name: str
    path: Path
    network: str
    """Such as "resnet10" or "small/8"."""
    megabytes: float
    card: Card
    text: str
    """The whole card, its head included."""


def names() -> list[str]:
    """Return the names of all released weights, in order."""
    return sorted(path.stem for path in FOLDER.glob(f"*{SUFFIX}"))


def released(name: str) -> Released:
    """Return what is told of released weights.

    Raises
    ------
    Vis2imgError
        If there are none of that name, or the file or its card is not as it was released.
    """
    if name not in names():
        raise Vis2imgError(f"there are no released weights {name!r}; {_those_there_are()}")
    path = FOLDER / f"{name}{SUFFIX}"
    header = _header(path)
    network = f"{header['variant']}/{header['patch']}" if "patch" in header else header["variant"]
    text = _text(path.with_suffix(".md"))
    return Released(name, path, network, path.stat().st_size / 1e6, _card(text, path.with_suffix(".md")), text)


def find(name: str | Path) -> Path:
    """Return the path that a name on the command line stands for: a file or folder there, else released weights.

    What is neither is returned as it is, for those to refuse who need it.
    """
    path, key = Path(name), str(name)
    if key not in names():
        return path
    if path.exists():
        there = path.absolute()
        text = f"{there} is taken, and not the released weights of that name; leave that folder to have these"
        warnings.warn(text, Vis2imgWarning, stacklevel=2)
        return there
    return FOLDER / f"{key}{SUFFIX}"


def resolve(name: str | Path) -> Path:
    """Return the path of a run folder, of exported weights or of released ones, whichever ``name`` stands for.

    A file or folder of that name wins, with a warning.

    Raises
    ------
    Vis2imgError
        If it is a plain name and none of the three.
    """
    path = find(name)
    if len(path.parts) == 1 and not path.suffix and not path.exists():
        raise Vis2imgError(
            f"{name}: there is no run folder, no file and no released weights of that name; {_those_there_are()}"
        )
    return path


def shown(path: Path) -> str:
    """Return what to call weights in tables: the name of released ones, of others the path."""
    return path.stem if path.parent == FOLDER else str(path)


def _those_there_are() -> str:
    known = names()
    return f"those there are: {', '.join(known)} (vis2img weights)" if known else "this version comes with none"


def _header(path: Path) -> dict[str, str]:
    try:
        header = read_header(path)
    except (ValueError, OSError) as error:
        raise Vis2imgError(f"{path}: {error}; install vis2img again") from error
    if not header or "variant" not in header:
        raise Vis2imgError(f"{path} does not say what it holds; install vis2img again")
    return header


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise Vis2imgError(f"{path} cannot be read: {error.strerror}; released weights come with a card") from error


def _card(text: str, path: Path) -> Card:
    """Return the head of a card.

    Raises
    ------
    Vis2imgError
        If it has none, or lacks a key.
    """
    _, _, rest = text.partition("---\n")
    head, end, _ = rest.partition("\n---\n")
    record = yaml.safe_load(head) if text.startswith("---\n") and end else None
    if not isinstance(record, dict):
        raise Vis2imgError(f"{path} does not begin with a head of YAML between lines of three hyphens")
    missing = [key for key in Card.__dataclass_fields__ if not isinstance(record.get(key), str)]
    if missing:
        raise Vis2imgError(f"{path}: its head has no text for {missing[0]}")
    return Card(**{key: record[key] for key in Card.__dataclass_fields__})
