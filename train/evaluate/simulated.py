"""Patches of observed fields whose truth is known, each seen under several ways of imaging.

The labels come from the catalogue beside each measurement set, as ``vis2img simulate`` writes it. A source is the same
row under every way, so that what imaging does to its vector can be told from what the source does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

import numpy as np

from vis2img.coordinates import direction_cosines, sky_position
from vis2img.draws.draw import Draw
from vis2img.draws.field import Field
from vis2img.errors import MeasurementSetError, ParameterError, Vis2imgError
from vis2img.loader.fields import fields_of, patch_angle
from vis2img.pictures.groups import linked
from vis2img.progress import Progress, no_progress
from vis2img.random import EVALUATION_SEED, draw_rng
from vis2img.simulate.truth.truth import Truth
from vis2img.train.embed.patches import cut_patches, evaluation_draw, grid_positions
from vis2img.train.run.config import TrainConfig

ALIKE, SHIFTED = "imaged alike", "off centre"
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
        """Return the sources of some classes.

        Raises
        ------
        ParameterError
            If no source is of one of them.
        """
        for name in names:
            if name not in self.label:
                known = ", ".join(np.unique(self.label))
                raise ParameterError(f"no source is of the class {name!r}; there are {known}")
        rows = np.isin(self.label, names)
        return SourcePatches(
            {name: images[rows] for name, images in self.seen.items()},
            self.label[rows], self.field[rows], self.position[rows], self.flux[rows],
        )  # fmt: skip


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
    """

    images: np.ndarray
    field: np.ndarray
    compact: np.ndarray
    flux: np.ndarray


def ways_of(names: Sequence[str]) -> dict[str, str | dict[str, object]]:
    """Return the ways of imaging behind names: presets of the prior, and both ends of :data:`ENDS`."""
    ways: dict[str, str | dict[str, object]] = {}
    for name in names:
        if name in ENDS:
            ways |= {f"{name} [{i}]": change for i, change in enumerate(ENDS[name])}
        elif name not in (ALIKE, SHIFTED):
            ways[name] = name
    return ways


def source_patches(
    config: TrainConfig,
    truths: Sequence[Truth],
    names: Sequence[str] = (ALIKE, SHIFTED, "full"),
    progress: Progress = no_progress,
) -> SourcePatches:
    """Return the sources of :func:`field_patches`."""
    return field_patches(config, truths, names, progress)[0]


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
    drawn = {name: fields_of(replace(config.data, imaging=name)) for name in presets}
    parts, tiled = [], []
    for i, (source, truth) in enumerate(zip(fixed, truths, strict=True)):
        draws = {ALIKE: evaluation_draw(source)}
        for name, way in ways.items():
            draws[name] = _drawn(drawn[way][i], i) if isinstance(way, str) else changed_draw(source, way)
        parts.append(_of_field(config, source, truth, i, draws, SHIFTED in names))
        if tiles:
            tiled.append(_tiles_of(config, source, truth, i, draws[ALIKE]))
        progress("imaging", i + 1, len(fixed))
    found = _joined(parts)
    group = linked_fields(truths)
    found = replace(found, field=group[found.field])
    if len(np.unique(found.label)) < 2 or len(np.unique(found.field)) < 2:
        raise Vis2imgError(
            "evaluation needs labelled sources of at least two classes in at least two fields that share no cutout"
        )
    if not tiles:
        return found, None
    every = _joined_tiles(tiled)
    return found, replace(every, field=group[every.field])


def labelled_sources(truths: Sequence[Truth], classes: Sequence[str] = ()) -> int:
    """Return how many labelled sources, of ``classes`` if any are named, the catalogues hold, seen or not."""
    return sum(s.class_name in classes if classes else bool(s.class_name) for truth in truths for s in truth.sources)


def linked_fields(truths: Sequence[Truth]) -> np.ndarray:
    """Return the group [field] of each field: fields that show the same cutout of a real source are one group."""
    pairs = [(i, s.cutout.origin) for i, truth in enumerate(truths) for s in truth.sources if s.cutout]
    pairs = [(i, origin) for i, origin in pairs if origin]
    _, code = np.unique([origin for _, origin in pairs], return_inverse=True)
    fields = np.array([i for i, _ in pairs], dtype=np.int64)
    return linked(len(truths) + int(code.max(initial=-1)) + 1, fields, len(truths) + code)[: len(truths)]


def changed_draw(source: Field, changes: Mapping[str, object]) -> Draw:
    """Image a field in the fixed way, but for ``changes`` (fields of ImagingParams)."""
    params = source.prior.fixed().draw(draw_rng(EVALUATION_SEED, 0, 0))
    return source.draw(replace(params, **changes))  # type: ignore[arg-type]


def _drawn(source: Field, field: int) -> Draw:
    # One draw for each field, the same ones in every evaluation.
    return evaluation_draw(source, varied=1 + field)


def _of_field(
    config: TrainConfig, source: Field, truth: Truth, field: int, draws: Mapping[str, Draw], shifted: bool
) -> SourcePatches:
    views, fixed = config.data.views, draws[ALIKE]
    known = [s for s in truth.sources if s.class_name]
    position = np.array([[s.ra, s.dec] for s in known]).reshape(-1, 2)
    seen = {name: cut_patches(draw, source, views, position) for name, draw in draws.items()}
    if shifted:
        seen[SHIFTED] = cut_patches(fixed, source, views, off_centre(position, fixed, patch_angle(source, views)))
    kept = reduce(np.intersect1d, [patches.kept for patches in seen.values()])
    return SourcePatches(
        {name: patches.images[np.isin(patches.kept, kept)] for name, patches in seen.items()},
        np.array([s.class_name for s in known])[kept],
        np.full(len(kept), field),
        position[kept],
        np.array([s.flux for s in known])[kept],
    )


def off_centre(position: np.ndarray, draw: Draw, patch: float) -> np.ndarray:
    """Return RA and Dec [patch, 2] moved by up to an eighth of a patch, the same way every time."""
    moved = direction_cosines(position[:, 0], position[:, 1], draw.phase_centre)[:, :2]
    moved = moved + np.random.default_rng(len(position)).uniform(-patch / 8, patch / 8, moved.shape)
    return np.stack(sky_position(moved[:, 0], moved[:, 1], draw.phase_centre), axis=-1)


def _joined(parts: Sequence[SourcePatches]) -> SourcePatches:
    return SourcePatches(
        {name: np.concatenate([part.seen[name] for part in parts]) for name in parts[0].seen},
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("label", "field", "position", "flux")),
    )


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
    centres = direction_cosines(patches.position[:, 0], patches.position[:, 1], draw.phase_centre)[:, :2]
    places = direction_cosines(catalogue[:, 0], catalogue[:, 1], draw.phase_centre)[:, :2]
    half = patch_angle(source, views) / 2
    inside = (np.abs(places[None] - centres[:, None]) <= half).all(axis=2)  # [patch, source]
    return TilePatches(
        patches.images, np.full(len(centres), field), inside @ bright.astype(int), inside @ catalogue[:, 2]
    )


def _joined_tiles(parts: Sequence[TilePatches]) -> TilePatches:
    names = ("images", "field", "compact", "flux")
    return TilePatches(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def read_truths(config: TrainConfig, catalogues: Sequence[Path] = ()) -> list[Truth]:
    """Return the truth of each measurement set, from ``catalogues`` or from NAME.ms.truth.fits beside it."""
    if catalogues and len(catalogues) != len(config.data.ms):
        count = len(config.data.ms)
        raise Vis2imgError(f"{len(catalogues)} catalogues for {count} measurement sets; give one for each")
    for path in config.data.ms:
        if not Path(path).exists():
            raise MeasurementSetError(f"{path} does not exist (seen from {Path.cwd()})")
    return [Truth.read(path) for path in (catalogues or config.data.ms)]
