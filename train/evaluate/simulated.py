"""Patches of observed fields whose truth is known, each seen under several ways of imaging.

The labels come from the catalogue beside each measurement set, as ``vis2img simulate`` writes it. A source is the same
row under every way, so that what imaging does to its vector can be told from what the source does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vis2img.coordinates import direction_cosines, sky_position
from vis2img.draws.draw import Draw
from vis2img.draws.field import Field
from vis2img.errors import MeasurementSetError, ParameterError, Vis2imgError
from vis2img.loader.fields import fields_of, patch_angle
from vis2img.pictures.groups import linked, position_groups
from vis2img.progress import Progress, no_progress
from vis2img.random import EVALUATION_SEED, draw_rng
from vis2img.simulate.truth.truth import Truth
from vis2img.train.patches import cut_patches, evaluation_draw, grid_positions
from vis2img.train.run.config import TrainConfig
from vis2img.units import ARCSEC

ALIKE, SHIFTED = "imaged alike", "off centre"
SAME_POSITION = ARCSEC  # two catalogued positions less than this apart are of one source
PARAMETERS = ("weighting-only", "taper-only", "uv-only", "channels-only", "time-only", "scale-only")
# What changes of the fixed imaging (Briggs 0, all data): two ends of one axis, to train on one and test on the other.
ENDS: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "robust -1 and 1": ({"robust": -1.0}, {"robust": 1.0}),
    "lower and upper half of the band": ({"band": (0.0, 0.5)}, {"band": (0.5, 1.0)}),
    "first and last third of the track": ({"time_span": (0.0, 0.34)}, {"time_span": (0.66, 1.0)}),
}


@dataclass(frozen=True, eq=False)
class SourcePatches:
    """Labelled sources.

    Parameters
    ----------
    seen : dict of float32 [source, size, size, channel]
        Stretched patches for each way of imaging.
    label : str [source]
        Class.
    field : int [source]
        Which field, or group of :func:`linked_fields`: sources of one are never on both sides of a split.
    position : float64 [source, 2]
        RA and Dec in rad.
    flux : float64 [source]
        Jy, of the catalogue.
    """

    seen: dict[str, np.ndarray]
    label: np.ndarray
    field: np.ndarray
    position: np.ndarray
    flux: np.ndarray

    def of_classes(self, names: Sequence[str]) -> SourcePatches:
        """Return the sources of some classes; refuse a class that no source is of."""
        for name in names:
            if name not in self.label:
                raise ParameterError(
                    f"no source is of the class {name!r}; there are {', '.join(np.unique(self.label))}"
                )
        return self.take(np.isin(self.label, names))

    def take(self, rows: np.ndarray) -> SourcePatches:
        """Return the sources at ``rows`` (numbers or booleans)."""
        seen = {way: images[rows] for way, images in self.seen.items()}
        return SourcePatches(seen, self.label[rows], self.field[rows], self.position[rows], self.flux[rows])


@dataclass(frozen=True, eq=False)
class TilePatches:
    """Patches that tile the fields, and what lies in each.

    Parameters
    ----------
    images : float32 [patch, size, size, channel]
        In the fixed way.
    field : int [patch]
    compact : int [patch]
        Number of compact catalogued sources above five times the noise of the image.
    flux : float64 [patch]
        Total flux of all catalogued sources, Jy.
    brightness : float64 [patch, 3]
        What the image tells without a network: :mod:`vis2img.views.brightness`.
    """

    images: np.ndarray
    field: np.ndarray
    compact: np.ndarray
    flux: np.ndarray
    brightness: np.ndarray


def ways_of(names: Sequence[str]) -> dict[str, str | dict[str, object]]:
    """Return the ways of imaging behind names: presets of the prior, and both ends of :data:`ENDS`."""
    ways: dict[str, str | dict[str, object]] = {}
    for name in names:
        if name in ENDS:
            ways |= {f"{name} [{i}]": change for i, change in enumerate(ENDS[name])}
        elif name not in (ALIKE, SHIFTED):
            ways[name] = name
    return ways


def field_patches(
    config: TrainConfig,
    truths: Sequence[Truth],
    names: Sequence[str] = (ALIKE, SHIFTED, "full"),
    progress: Progress = no_progress,
    *,
    tiles: bool = False,
) -> tuple[SourcePatches, TilePatches | None]:
    """Cut the labelled sources of each field, seen in each of the ways of ``names``, and tiles if wanted.

    Parameters
    ----------
    config : TrainConfig
        Its data are the fields, and say how patches are cut.
    truths : list of Truth
        One for each field.
    names : sequence of str
        "imaged alike" is the fixed way (Briggs 0, all data); "off centre" the same, with patches up to an eighth of
        their side off; presets of the prior draw one set of parameters for each field; names of :data:`ENDS` give two
        ways each, called NAME [0] and NAME [1].
    progress : callable, optional
        Called with (fields done, fields in all).
    tiles : bool
        Whether to tile the fields, too, in the fixed way.

    Raises
    ------
    Vis2imgError
        If fewer than two classes or two groups of fields with labelled sources are left.
    """
    fixed, ways = fields_of(config.data), ways_of(names)
    presets = {way for way in ways.values() if isinstance(way, str)}
    of_preset = {name: fields_of(replace(config.data, imaging=name)) for name in presets}
    sources, tiled = [], []
    for i, (field, truth) in enumerate(zip(fixed, truths, strict=True)):
        draws = {ALIKE: evaluation_draw(field)}
        for name, way in ways.items():
            # One draw of a preset for each field, the same ones in every evaluation.
            draws[name] = (
                evaluation_draw(of_preset[way][i], varied=1 + i) if isinstance(way, str) else changed_draw(field, way)
            )
        sources.append(_of_field(config, field, truth, i, draws, SHIFTED in names))
        if tiles:
            tiled.append(_tiles_of(config, field, truth, i, draws[ALIKE]))
        progress("imaging", i + 1, len(fixed))

    group = linked_fields(truths)
    patches = _joined(sources, group)
    if len(np.unique(patches.label)) < 2 or len(np.unique(patches.field)) < 2:
        raise Vis2imgError(
            "evaluation needs labelled sources of at least two classes in at least two fields that share no source"
        )
    return patches, _joined(tiled, group) if tiles else None


def labelled_sources(truths: Sequence[Truth], classes: Sequence[str] = ()) -> int:
    """Return how many labelled sources the catalogues hold, of ``classes`` if any are named."""
    return sum(s.class_name in classes if classes else bool(s.class_name) for truth in truths for s in truth.sources)


def linked_fields(truths: Sequence[Truth]) -> np.ndarray:
    """Return the group [field] of each field: fields that show the same source are one group.

    The same are labelled sources within an arcsecond of each other and of one class, as of a sky observed twice, and
    cutouts of one real source. Else what is learnt in one field would be known in the other.
    """
    pairs = [(i, s.cutout.origin) for i, truth in enumerate(truths) for s in truth.sources if s.cutout]
    pairs = [(i, origin) for i, origin in pairs if origin]
    _, code = np.unique([origin for _, origin in pairs], return_inverse=True)
    fields = np.array([i for i, _ in pairs], dtype=np.int64)

    placed = [(i, s) for i, truth in enumerate(truths) for s in truth.sources if s.class_name]
    position = np.array([[s.ra, s.dec] for _, s in placed]).reshape(-1, 2)
    place = position_groups(position[:, 0], position[:, 1], SAME_POSITION)
    _, same = np.unique([f"{at} {s.class_name}" for at, (_, s) in zip(place, placed, strict=True)], return_inverse=True)

    cutouts = int(code.max(initial=-1)) + 1
    one = np.concatenate([fields, np.array([i for i, _ in placed], dtype=np.int64)])
    other = len(truths) + np.concatenate([code, cutouts + same]).astype(np.int64)
    return linked(len(truths) + cutouts + len(placed), one, other)[: len(truths)]


def changed_draw(source: Field, changes: Mapping[str, object]) -> Draw:
    """Image a field in the fixed way, but for ``changes`` (fields of ImagingParams)."""
    params = source.prior.fixed().draw(draw_rng(EVALUATION_SEED, 0, 0))
    return source.draw(replace(params, **changes))  # type: ignore[arg-type]


def _of_field(
    config: TrainConfig, source: Field, truth: Truth, field: int, draws: Mapping[str, Draw], shifted: bool
) -> SourcePatches:
    """Cut the labelled sources of a field that lie within it in every way of imaging."""
    views = config.data.views
    labelled = [s for s in truth.sources if s.class_name]
    position = np.array([[s.ra, s.dec] for s in labelled]).reshape(-1, 2)
    seen = {name: cut_patches(draw, source, views, position) for name, draw in draws.items()}
    if shifted:
        moved = off_centre(position, draws[ALIKE], patch_angle(source, views))
        seen[SHIFTED] = cut_patches(draws[ALIKE], source, views, moved)
    rows = reduce(np.intersect1d, [patches.rows for patches in seen.values()])
    return SourcePatches(
        {name: patches.images[np.isin(patches.rows, rows)] for name, patches in seen.items()},
        np.array([s.class_name for s in labelled])[rows],
        np.full(len(rows), field),
        position[rows],
        np.array([s.flux for s in labelled])[rows],
    )


def off_centre(position: np.ndarray, draw: Draw, patch: float) -> np.ndarray:
    """Return RA and Dec [patch, 2] moved by up to an eighth of a patch, the same way every time."""
    moved = direction_cosines(position[:, 0], position[:, 1], draw.phase_centre, draw.turn)[:, :2]
    moved = moved + np.random.default_rng(len(position)).uniform(-patch / 8, patch / 8, moved.shape)
    return np.stack(sky_position(moved[:, 0], moved[:, 1], draw.phase_centre, draw.turn), axis=-1)


def _tiles_of(config: TrainConfig, source: Field, truth: Truth, field: int, draw: Draw) -> TilePatches:
    """Cut patches that tile a field, with what its truth says of them.

    A source lies in the patch that its position lies in. Compact is what the class says, and what has no class but is
    no wider than two suggested pixels: it looks like the beam.
    """
    views = config.data.views
    patches = cut_patches(draw, source, views, grid_positions(draw, source, views))
    catalogue = np.array([[s.ra, s.dec, s.flux] for s in truth.sources]).reshape(-1, 3)
    small = [s.class_name == "compact" or (not s.class_name and s.size <= 2 * source.pixsize) for s in truth.sources]
    bright = np.array(small, bool) & (catalogue[:, 2] > 5 * draw.noise[0])
    centres = direction_cosines(patches.position[:, 0], patches.position[:, 1], draw.phase_centre, draw.turn)[:, :2]
    places = direction_cosines(catalogue[:, 0], catalogue[:, 1], draw.phase_centre, draw.turn)[:, :2]
    half = patch_angle(source, views) / 2
    inside = (np.abs(places[None] - centres[:, None]) <= half).all(axis=2)  # [patch, source]
    return TilePatches(
        patches.images,
        np.full(len(centres), field),
        inside @ bright.astype(int),
        inside @ catalogue[:, 2],
        patches.brightness,
    )


P = TypeVar("P", SourcePatches, TilePatches)


def _joined(parts: Sequence[P], group: np.ndarray) -> P:
    """Return the patches of all fields as one, with the group of a field in place of its number."""
    columns: dict[str, Any] = {}
    for name, first in vars(parts[0]).items():
        values = [getattr(part, name) for part in parts]
        if isinstance(first, dict):
            columns[name] = {way: np.concatenate([images[way] for images in values]) for way in first}
        else:
            columns[name] = np.concatenate(values)
    return type(parts[0])(**{**columns, "field": group[columns["field"]]})


def read_truths(config: TrainConfig, catalogues: Sequence[Path] = ()) -> list[Truth]:
    """Return the truth of each measurement set, from ``catalogues`` or from NAME.ms.truth.fits beside it."""
    if catalogues and len(catalogues) != len(config.data.ms):
        count = len(config.data.ms)
        raise Vis2imgError(f"{len(catalogues)} catalogues for {count} measurement sets; give one for each")
    for path in config.data.ms:
        if not Path(path).exists():
            raise MeasurementSetError(f"{path} does not exist (seen from {Path.cwd()})")
    return [Truth.read(path) for path in (catalogues or config.data.ms)]
