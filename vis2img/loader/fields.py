"""The fields of a loader: every measurement set or image opened, with the prior and the weight map that suit it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from vis2img.coordinates import direction_cosines
from vis2img.dataset import Dataset, open_ms
from vis2img.draws.draw import FieldSource
from vis2img.draws.fits_field import image_source, is_image, open_image
from vis2img.draws.presets import PriorConfig, load_prior
from vis2img.draws.prior import ImagingPrior
from vis2img.errors import MeasurementSetError, ParameterError
from vis2img.loader.config import LoaderConfig
from vis2img.ms.selection import Selection
from vis2img.views.crops import ViewConfig
from vis2img.views.positions import WeightMap, weight_map, within_image

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Sources:
    """The fields that a loader takes views of.

    Parameters
    ----------
    fields : list of FieldSource
    weights : list of float
        How often samples come from each, relative to the others.
    patches : list of float
        Side of a patch in each field, rad.
    maps : list of WeightMap
        Where the centres of patches may lie in each.
    skipped : dict
        Measurement sets that cannot be used, and why.
    """

    fields: list[FieldSource]
    weights: list[float]
    patches: list[float]
    maps: list[WeightMap]
    skipped: dict[str, str]


def open_sources(config: LoaderConfig, *, skip: bool = True) -> Sources:
    """Open every measurement set and FITS image of ``config``.

    Parameters
    ----------
    config : LoaderConfig
    skip : bool
        Leave out, and name, measurement sets that are damaged or cannot be imaged.

    Raises
    ------
    MeasurementSetError
        If a path does not exist, or none of the measurement sets can be used; without ``skip``, if one cannot.
    ParameterError
        If the configuration does not suit one of them, or names none.
    """
    if not config.ms:
        raise ParameterError(f"there are no fields in cutouts ({', '.join(config.cutouts)}): name measurement sets")
    for path in config.ms:
        if not Path(path).exists():
            raise MeasurementSetError(f"{path} does not exist")
    prior = load_prior(config.imaging)
    found: list[tuple[FieldSource, float]] = []
    maps: list[WeightMap] = []
    skipped: dict[str, str] = {}
    for number, path in enumerate(config.ms):
        own: list[tuple[FieldSource, WeightMap]] = []
        try:
            for name, opened in _fields(path, config, prior):
                try:
                    own.append(opened())
                except MeasurementSetError as error:
                    _skip(name, error, skip, skipped)
        except MeasurementSetError as error:
            _skip(path, error, skip, skipped)
        weight = config.weights[number] / len(own) if config.weights and own else 1.0
        found += [(source, weight) for source, _ in own]
        maps += [each for _, each in own]
    if not found:
        raise MeasurementSetError(f"no field can be imaged: {next(iter(skipped.values()))}")
    fields, weights = zip(*found, strict=True)
    return Sources(list(fields), list(weights), [patch_angle(f, config.views) for f in fields], maps, skipped)


def _fields(
    path: str, config: LoaderConfig, prior: PriorConfig
) -> Iterator[tuple[str, Callable[[], tuple[FieldSource, WeightMap]]]]:
    """Yield what messages call each field of a measurement set or image, and what opens it."""
    if is_image(path):
        yield path, partial(_image, path, config)
        return
    ms = open_ms(path)
    selections = list(_selections(ms, config))
    for selection in selections:
        name = _name(ms, selection, len(selections) > 1)
        yield path if len(selections) == 1 else name, partial(_field, ms, selection, config, prior, name)


def _field(
    ms: Dataset, selection: Selection, config: LoaderConfig, prior: PriorConfig, name: str
) -> tuple[FieldSource, WeightMap]:
    source = _source(ms, selection, config, prior, name)
    return source, _map(ms, source, config)


def _skip(name: str, error: MeasurementSetError, allowed: bool, skipped: dict[str, str]) -> None:
    if not allowed:
        raise error
    skipped[name] = str(error)
    log.warning("skipped: %s", error)


def field_sources(config: LoaderConfig) -> list[FieldSource]:
    """Return the fields of ``config``, all of which must be usable; see :func:`open_sources`."""
    return open_sources(config, skip=False).fields


def _selections(ms: Dataset, config: LoaderConfig) -> Iterator[Selection]:
    """Yield what each field of a measurement set is made of."""
    chosen = config.selection
    partitions = () if config.fields == "one" and config.bands == "one" else ms.partitions
    if not partitions:
        yield chosen
        return
    pairs: list[tuple[str | None, int | None]] = [
        (str(p.field) if config.fields == "all" else chosen.field, p.spw if config.bands == "each" else None)
        for p in partitions
    ]
    for name, spw in dict.fromkeys(pairs):
        yield replace(chosen, field=name, spw=chosen.spw if spw is None else spw)


def _name(ms: Dataset, selection: Selection, several: bool) -> str:
    """Return what messages call a field: the path, and which of several it is."""
    given = {"field": selection.field, "spw": selection.spw}
    place = [f"{what} {value}" for what, value in given.items() if several and value is not None]
    return ", ".join([str(ms.path.resolve()), *place])


def _source(ms: Dataset, selection: Selection, config: LoaderConfig, chosen: PriorConfig, name: str) -> FieldSource:
    npix = config.field_npix
    prior = ImagingPrior.for_ms(ms, selection, npix=npix + npix % 2, config=chosen)
    if config.fov is not None:
        prior = replace(prior, fov=config.fov)
    return FieldSource(
        ms=str(ms.path.resolve()),
        selection=selection,
        prior=prior,
        pixsize=prior.suggested_pixsize,
        subbands=config.subbands,
        memory=config.draw_memory,
        name=name,
    )


def _image(path: str, config: LoaderConfig) -> tuple[FieldSource, WeightMap]:
    """Return a FITS image as a field, and where patches may lie: anywhere, as its primary beam is not known."""
    if config.channels != 1:
        raise ParameterError(f"{path}: an image gives one input channel; leave subbands at 1 and selection.stokes at I")
    image = open_image(path, math.inf if config.fov is None else config.fov)
    source = image_source(image, config.image_pixsize)
    if config.fov is not None and config.fov < source.prior.fov:
        source = replace(source, prior=replace(source.prior, fov=config.fov))
    patch = patch_angle(source, config.views)
    reach = source.prior.reach(patch)
    whole = weight_map(reach, patch, math.nan, 0.0, (0.0, 0.0))
    found = within_image(whole, image.npix, image.pixsize, patch)
    if not found.weight.any():
        raise MeasurementSetError(
            f"{source}: no patch of {config.views.patch_npix} suggested pixels lies in the image of {image.npix[0]} x "
            f"{image.npix[1]} pixels; choose a smaller views.patch_npix or image_pixsize"
        )
    return source, found


def patch_angle(source: FieldSource, views: ViewConfig) -> float:
    """Return the side of a patch in rad, and check that it fits into the field with a pixel to spare."""
    side = views.patch_npix * (source.pixsize or source.prior.pixsize[1])
    if source.prior.reach(side) < 0:
        raise ParameterError(
            f"{source}: a patch of {views.patch_npix} pixels does not fit into the field; "
            "choose a larger field_npix or a smaller patch_npix"
        )
    return side


def _map(ms: Dataset, source: FieldSource, config: LoaderConfig) -> WeightMap:
    """Return where patches may lie, from the metadata."""
    patch = patch_angle(source, config.views)
    known = ms.outline(source.selection)
    lowest = min(freqs[0] for freqs, _ in known.bands)
    highest = max(freqs[-1] for freqs, _ in known.bands)
    beam = known.beam * lowest / ((lowest + highest) / 2)
    ra, dec = np.array(known.pointing)
    l, m, _ = direction_cosines(ra, dec, known.phase_centre)
    found = weight_map(source.prior.reach(patch), patch, beam, config.pb_limit, (float(l), float(m)))
    if not found.weight.any():
        raise MeasurementSetError(
            f"{source}: no patch lies in the field where the primary beam lets through more than pb_limit = "
            f"{config.pb_limit:g}; choose a lower one, or another field"
        )
    return found
