"""``vis2img read WHAT PATH``: the readers that stand behind slow commands, told as the command line tells errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vis2img.configs.load import load
from vis2img.configs.records import to_record
from vis2img.draws.fits_field import FitsField
from vis2img.draws.presets import load_prior
from vis2img.errors import Vis2imgError
from vis2img.pictures.cutting import open_pictures
from vis2img.pictures.labels import read_labelled
from vis2img.simulate.config import SimulateConfig
from vis2img.simulate.sky.catalogue import read_user_catalogue
from vis2img.simulate.truth.truth import Truth
from vis2img.train.embed.check import read_export
from vis2img.train.embed.positions import read_positions
from vis2img.train.embed.table import read_embeddings
from vis2img.train.run.config import TrainConfig
from vis2img.train.weights.files import read_weights
from vis2img.views.crops import ViewConfig

_VIEWS = ViewConfig(patch_npix=16, global_size=16, local_size=8)


def _weights(path: Path) -> object:
    try:
        return sorted(read_weights(path))[:3]
    except ValueError as error:  # which the command tells so
        raise Vis2imgError(str(error)) from error


def _field(path: Path) -> object:
    draw = FitsField.open(path).draw()
    assert draw.noise.min() > 0 and np.isfinite(draw.phase_centre).all()
    return draw.data.shape


def _pictures(path: Path) -> object:
    pictures = open_pictures([path], 16)
    assert np.isfinite(pictures.noise).all() and pictures.noise.min() > 0
    return len(pictures)


def _labelled(path: Path) -> object:
    images = read_labelled(path, views=_VIEWS, label=None)
    assert np.isfinite(images.images).all()
    return images.images.shape


def _table(path: Path) -> object:
    table = read_embeddings(path)
    assert np.isfinite(table.vector).all()
    return len(table), [] if "ra_deg" not in table.columns or "dec_deg" not in table.columns else table.position.shape


READERS: dict[str, Callable[[Path], object]] = {
    "run": lambda path: json.dumps(to_record(load(TrainConfig, path)), default=str)[:99],
    "simulation": lambda path: str(load(SimulateConfig, path))[:99],
    "prior": lambda path: load_prior(str(path)).to_dict(),
    "weights": _weights,
    "export": lambda path: read_export(path)[1],
    "field": _field,
    "pictures": _pictures,
    "labelled": _labelled,
    "table": _table,
    "positions": lambda path: len(read_positions(path).names),
    "catalogue": lambda path: len(read_user_catalogue(path, 1e9)),
    "truth": lambda path: len(Truth.read(path).table()),
}


def run(argv: list[str], prog: str) -> int:
    """Read a file, and show a little of it."""
    what, path = argv
    print(READERS[what](Path(path)))
    return 0
