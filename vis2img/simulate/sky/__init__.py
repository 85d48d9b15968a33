"""Labelled radio skies: their values, how they are drawn or read, and the tables that hold them.

One place to import from. The parts are ``source`` (values), ``layout``, ``classes`` and ``diffuse`` (layouts of the
classes), ``draw`` (one source, a field of them), ``counts`` and ``population`` (published counts, and fields that
follow them), ``pictures`` (real pictures), ``build`` (the sky of an observation) and ``catalogue`` (files).
"""

from vis2img.simulate.sky.catalogue import read_catalogue, read_user_catalogue, write_catalogue
from vis2img.simulate.sky.counts import differential_counts, draw_fluxes, number_between, star_forming_fraction
from vis2img.simulate.sky.draw import ALL_CLASSES, CLASSES, COUNTS_SLOPE, draw_sky, draw_source
from vis2img.simulate.sky.pictures import CutoutSet, CutoutTemplate, cutout_source, read_cutouts
from vis2img.simulate.sky.population import RESOLVED_CLASSES, draw_population
from vis2img.simulate.sky.source import UNLABELLED, SkyComponent, SkyCutout, SkySource, single_component_source

__all__ = [
    "ALL_CLASSES",
    "CLASSES",
    "COUNTS_SLOPE",
    "RESOLVED_CLASSES",
    "UNLABELLED",
    "CutoutSet",
    "CutoutTemplate",
    "SkyComponent",
    "SkyCutout",
    "SkySource",
    "cutout_source",
    "differential_counts",
    "draw_fluxes",
    "draw_population",
    "draw_sky",
    "draw_source",
    "number_between",
    "read_catalogue",
    "read_cutouts",
    "read_user_catalogue",
    "single_component_source",
    "star_forming_fraction",
    "write_catalogue",
]
