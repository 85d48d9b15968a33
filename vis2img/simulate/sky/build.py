"""The sky of a simulated observation: labelled sources, real pictures, a population, and what disturbs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from vis2img.coordinates import direction_cosines, sky_position
from vis2img.errors import ParameterError
from vis2img.simulate.sky.catalogue import read_user_catalogue
from vis2img.simulate.sky.counts import COUNTS_FREQ, COUNTS_INDEX
from vis2img.simulate.sky.draw import draw_sky, power_law
from vis2img.simulate.sky.layout import free_place
from vis2img.simulate.sky.pictures import CutoutSet, cutout_source, read_cutouts
from vis2img.simulate.sky.population import draw_population
from vis2img.simulate.sky.source import UNLABELLED, SkyComponent, SkySource, single_component_source

if TYPE_CHECKING:
    from vis2img.simulate.config import SimulateConfig

_OUTSIDE = (0.75, 1.2)  # of the field of view, from its centre: beyond the corners and beyond the grid's margin
_BRIGHTEST = 0.999  # Jy at 1.4 GHz, the upper end of the published counts


def simulated_sky(config: SimulateConfig, rng: np.random.Generator) -> list[SkySource]:
    """Draw or read the sources that ``config`` asks for, numbered from 0 in the order below.

    A catalogue, or else labelled sources and faint background; then pictures, population, points and the source
    outside the field.

    Raises
    ------
    ParameterError
        If the sky is empty, the sources do not fit, or one lies 90 degrees or more from the phase centre.
    Vis2imgError
        If a catalogue or a file of pictures cannot be read.
    """
    if config.catalogue is not None:
        sources = read_user_catalogue(config.catalogue, config.mid_freq)
    else:
        sources = draw_sky(
            rng,
            config.phase_centre,
            config.fov,
            config.n_sources,
            config.classes,
            config.flux_range,
            config.size_range,
            config.min_separation,
            config.n_background,
            config.mid_freq,
        )
    sources += _pictures(config, rng, sources)
    if config.counts_flux:
        brightest = _BRIGHTEST * (config.mid_freq / COUNTS_FREQ) ** COUNTS_INDEX
        if config.counts_flux >= brightest:
            raise ParameterError(f"counts_flux = {config.counts_flux:g} Jy is beyond the counts, {brightest:.3g} Jy")
        sources += draw_population(
            rng, config.phase_centre, config.fov, config.counts_flux, brightest, config.mid_freq,
            clustering=config.clustering,
        )  # fmt: skip
    points = [SkyComponent(ra, dec, flux, config.mid_freq) for ra, dec, flux in config.points]
    points += _outside(config, rng)
    sources += [single_component_source(0, UNLABELLED, point) for point in points]  # numbered below
    if not sources:
        raise ParameterError("the sky is empty; set n_sources, points or a catalogue with rows")
    _check_in_front(config, sources)
    return [dataclasses.replace(source, source_id=i) for i, source in enumerate(sources)]


def _pictures(config: SimulateConfig, rng: np.random.Generator, others: list[SkySource]) -> list[SkySource]:
    """Return sources that are cutouts, apart from each other and from ``others``."""
    if not config.n_cutouts:
        return []
    files = [read_cutouts(path, pixsize=config.cutout_pixsize) for path in config.cutouts]
    templates = _part([(one, row) for one in files for row in range(len(one))], *config.cutout_part)
    order = iter(np.tile(rng.permutation(len(templates)), -(-config.n_cutouts // len(templates)) + 1))
    flux = power_law(rng, config.flux_range, config.n_cutouts)
    low, high = map(math.log, config.size_range)
    size = np.exp(rng.uniform(low, high, config.n_cutouts))
    centres = np.array([(s.ra, s.dec) for s in others]).reshape(-1, 2)
    places = direction_cosines(centres[:, 0], centres[:, 1], config.phase_centre)[:, :2]
    sizes = np.array([s.size for s in others])
    result: list[SkySource] = []
    for one_flux, one_size in zip(flux.tolist(), size.tolist(), strict=True):
        apart = (sizes + one_size) / math.sqrt(2) + config.min_separation
        place = free_place(rng, config.fov, one_size, places, apart, f"{config.n_cutouts} cutouts")
        places, sizes = np.vstack([places, place]), np.append(sizes, one_size)
        ra, dec = map(float, sky_position(place[0], place[1], config.phase_centre))
        result.append(_picture(templates, order, (ra, dec, one_flux, one_size, rng.uniform(0, 2 * math.pi)), config))
    return result


def _part(templates: list[tuple[CutoutSet, int]], part: int, parts: int) -> list[tuple[CutoutSet, int]]:
    """Return every one of the ``parts``-th pictures, shuffled alike whatever the seed; files may be sorted by class."""
    if parts > len(templates):
        raise ParameterError(f"cutout_part = {part} {parts}: there are {len(templates)} cutouts only; use fewer parts")
    order = np.random.default_rng(len(templates)).permutation(len(templates)) if parts > 1 else range(len(templates))
    return [templates[i] for i in order[part::parts]]


def _picture(
    templates: list[tuple[CutoutSet, int]],
    order: Iterator[int],
    values: tuple[float, float, float, float, float],
    config: SimulateConfig,
) -> SkySource:
    """Return the next picture that holds a source: some are blank or all noise."""
    reason = ""
    for which in order:
        pictures, row = templates[which]
        try:
            return cutout_source(pictures[row], *values, ref_freq=config.mid_freq)
        except ParameterError as error:
            reason = str(error)
    raise ParameterError(f"too few of the cutouts hold a source: {reason or 'the files are empty'}")


def _outside(config: SimulateConfig, rng: np.random.Generator) -> list[SkyComponent]:
    """Return the bright source outside the field, if there is to be one."""
    if not config.outside_flux:
        return []
    radius, angle = config.fov * rng.uniform(*_OUTSIDE), rng.uniform(0, 2 * math.pi)
    place = np.array(radius * math.sin(angle)), np.array(radius * math.cos(angle))
    ra, dec = map(float, sky_position(*place, config.phase_centre))
    return [SkyComponent(ra, dec, config.outside_flux, config.mid_freq, spectral_index=-0.7)]


def _check_in_front(config: SimulateConfig, sources: list[SkySource]) -> None:
    places = [(part.ra, part.dec) for source in sources for part in source.components]
    places += [(source.cutout.ra, source.cutout.dec) for source in sources if source.cutout]
    ra, dec = np.array(places).T
    beyond = int(np.sum(direction_cosines(ra, dec, config.phase_centre)[:, 2] <= 0))
    if beyond:
        raise ParameterError(f"{beyond} components lie more than 90 degrees from the phase centre")
