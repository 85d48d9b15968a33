"""The fields of a loader: every measurement set or image opened, with the prior and the weight map that suit it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from vis2img.coordinates import direction_cosines
from vis2img.dataset import Dataset, open_ms
from vis2img.dataset.contents import version_of
from vis2img.draws.field import Field
from vis2img.draws.fits_field import FitsField, is_image
from vis2img.draws.observed_field import ObservedField
from vis2img.draws.presets import PriorConfig, load_prior
from vis2img.draws.prior import ImagingPrior
from vis2img.errors import MeasurementSetError, ParameterError, Vis2imgError, reason_of
from vis2img.loader.config import LoaderConfig
from vis2img.ms.selection import Selection
from vis2img.views.crops import ViewConfig
from vis2img.views.positions import WeightMap, weight_map, within_image

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class FieldSet:
    """The fields that a loader takes views of."""

    fields: list[Field]
    weights: list[float]
    """How often samples come from each, relative to the others."""
    patches: list[float]
    """Side of a patch in each field, rad."""
    maps: list[WeightMap]
    """Where the centres of patches may lie in each."""
    skipped: dict[str, str]
    """Measurement sets that cannot be used, and why."""
    told: dict[str, str]
    """What is read of each field: its windows, its visibilities, and what is left out."""


def open_fields(config: LoaderConfig, *, skip: bool = True) -> FieldSet:
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
    opened: list[tuple[Field, WeightMap]] = []
    weights: list[float] = []
    skipped: dict[str, str] = {}
    told: dict[str, str] = {}
    for number, path in enumerate(config.ms):
        own: list[tuple[Field, WeightMap]] = []
        with _skipping(path, skip, skipped):
            for name, opens in _openers(path, config, prior):
                with _skipping(name, skip, skipped):
                    field, places, told[name] = opens()
                    own.append((field, places))
        weight = config.weights[number] / len(own) if config.weights and own else 1.0
        opened += own
        weights += [weight] * len(own)

    if not opened:
        raise MeasurementSetError(f"no field can be imaged: {next(iter(skipped.values()))}")
    fields, maps = map(list, zip(*opened, strict=True))
    return FieldSet(fields, weights, [patch_angle(field, config.views) for field in fields], maps, skipped, told)


def fields_of(config: LoaderConfig) -> list[Field]:
    """Return the fields of ``config``, all of which must be usable; see :func:`open_fields`."""
    return open_fields(config, skip=False).fields


def patch_angle(field: Field, views: ViewConfig, scale: float = 1.0) -> float:
    """Return the side of a patch in rad, and check that it fits into the field with a pixel to spare."""
    side = views.patch_npix * field.pixsize * scale
    if field.prior.reach(side) < 0:
        raise ParameterError(
            f"{field}: a patch of {views.patch_npix * scale:.0f} pixels does not fit into the field; "
            f"choose a larger field_npix or a smaller patch_npix{', patch_scale or views.jitter' if scale > 1 else ''}"
        )
    return side


def largest_patch(field: Field, config: LoaderConfig) -> float:
    """Return the side of the largest patch of a run in rad, with its margin: it has room wherever patches lie."""
    return patch_angle(field, config.views, max(1.0, config.patch_scale[1]) * config.views.margin)


@contextmanager
def _skipping(name: str, allowed: bool, skipped: dict[str, str]) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # casacore and astropy raise many types for what is damaged
        if not allowed or (isinstance(error, Vis2imgError) and not isinstance(error, MeasurementSetError)):
            raise
        skipped[name] = reason_of(error, name)
        log.warning("skipped: %s", skipped[name])


def _openers(
    path: str, config: LoaderConfig, prior: PriorConfig
) -> Iterator[tuple[str, Callable[[], tuple[Field, WeightMap, str]]]]:
    """Yield what messages call each field of a measurement set or image, and what opens and describes it."""
    if is_image(path):
        yield path, partial(_image, path, config)
        return
    ms = open_ms(path)
    selections = list(_selections(ms, config))
    for selection in selections:
        name = _name(ms, selection, len(selections) > 1)
        yield path if len(selections) == 1 else name, partial(_observed, ms, selection, config, prior, name)


def _selections(ms: Dataset, config: LoaderConfig) -> Iterator[Selection]:
    """Yield what each field of a measurement set is made of."""
    selection = config.selection
    partitions = () if config.fields == "one" and config.bands == "one" else ms.partitions
    if not partitions:
        yield selection
        return
    names = ms.field_labels()
    chosen = ms.outline(selection).field_ids if config.fields == "one" else tuple(names)
    pairs: list[tuple[str | None, int | None]] = [
        (names[p.field] if config.fields == "all" else selection.field, p.spw if config.bands == "each" else None)
        for p in partitions
        if p.field in chosen
    ]
    for name, spw in dict.fromkeys(pairs):
        yield replace(selection, field=name, spw=selection.spw if spw is None else spw)


def _name(ms: Dataset, selection: Selection, several: bool) -> str:
    """Return what messages call a field: the path, and which of several it is."""
    given = {"field": selection.field, "spw": selection.spw}
    place = [f"{what} {value}" for what, value in given.items() if several and value is not None]
    return ", ".join([str(ms.path.resolve()), *place])


def _observed(
    ms: Dataset, selection: Selection, config: LoaderConfig, ranges: PriorConfig, name: str
) -> tuple[Field, WeightMap, str]:
    """Return a field of a measurement set or of averaged data, where patches may lie, and what is read of it."""
    npix = config.field_npix + config.field_npix % 2
    prior = ImagingPrior.for_ms(ms, selection, npix=npix, config=ranges)
    if config.fov is not None:
        prior = replace(prior, fov=config.fov)
    path = str(ms.path.resolve())
    version, noise = version_of(path), config.noise
    field = ObservedField(path, selection, prior, config.subbands, config.draw_memory, name, version, noise)

    patch = largest_patch(field, config)
    outline = ms.outline(selection)
    lowest = min(freqs[0] for freqs, _ in outline.bands)
    highest = max(freqs[-1] for freqs, _ in outline.bands)
    beam = outline.beam * lowest / ((lowest + highest) / 2)
    ra, dec = np.array(outline.pointing)
    l, m, _ = direction_cosines(ra, dec, outline.phase_centre)
    places = weight_map(prior.reach(patch), patch, beam, config.pb_limit, (float(l), float(m)))
    if not places.weight.any():
        raise MeasurementSetError(
            f"{field}: no patch lies in the field where the primary beam lets through more than pb_limit = "
            f"{config.pb_limit:g}; choose a lower one, or another field"
        )
    return field, places, outline.text


def _image(path: str, config: LoaderConfig) -> tuple[Field, WeightMap, str]:
    """Return a FITS image as a field, where patches may lie (anywhere, as its beam is not known), and its size."""
    if config.planes != 1:
        raise ParameterError(f"{path}: an image gives one input channel; leave subbands at 1 and selection.stokes at I")
    field = FitsField.open(path, math.inf if config.fov is None else config.fov, config.image_pixsize)
    patch, image = largest_patch(field, config), field.image
    whole = weight_map(field.prior.reach(patch), patch, math.nan, 0.0, (0.0, 0.0))
    places = within_image(whole, image.npix, image.pixsize, patch)
    if not places.weight.any():
        raise MeasurementSetError(
            f"{field}: no patch of {config.views.patch_npix} suggested pixels lies in the image of {image.npix[0]} x "
            f"{image.npix[1]} pixels; choose a smaller views.patch_npix or image_pixsize"
        )
    return field, places, f"image of {image.npix[0]} x {image.npix[1]} pixels"
