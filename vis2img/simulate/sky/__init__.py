"""Labelled radio skies: their values, how they are drawn or read, and the tables that hold them.

Imports errors, coordinates, units, and pictures for real ones; knows nothing of telescopes, visibilities and images.
Values and what draws them are imported from here, the rest from its module: ``catalogue`` (files, by astropy),
``pictures`` (real pictures) and ``build`` (the sky of an observation).
"""

from vis2img.simulate.sky.counts import differential_counts, draw_fluxes, number_between, star_forming_fraction
from vis2img.simulate.sky.draw import ALL_CLASSES, CLASSES, COUNTS_SLOPE, draw_sky, draw_source
from vis2img.simulate.sky.population import RESOLVED_CLASSES, draw_population
from vis2img.simulate.sky.source import UNLABELLED, SkyComponent, SkyCutout, SkySource, single_component_source

__all__ = [
    "ALL_CLASSES",
    "CLASSES",
    "COUNTS_SLOPE",
    "RESOLVED_CLASSES",
    "UNLABELLED",
    "SkyComponent",
    "SkyCutout",
    "SkySource",
    "differential_counts",
    "draw_fluxes",
    "draw_population",
    "draw_sky",
    "draw_source",
    "number_between",
    "single_component_source",
    "star_forming_fraction",
]
