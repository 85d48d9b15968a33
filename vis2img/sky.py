"""Labelled radio skies: their values, how they are drawn or read, and the tables that hold them.

One place to import from. The parts are :mod:`vis2img.sky_source` (values), :mod:`vis2img.sky_classes` and
:mod:`vis2img.sky_diffuse` (layouts of the classes), :mod:`vis2img.sky_draw` (one source, a field of them),
:mod:`vis2img.sky_counts` and :mod:`vis2img.sky_population` (published counts, and fields that follow them),
:mod:`vis2img.sky_cutouts` (real pictures) and :mod:`vis2img.sky_catalogue` (files).
"""

from vis2img.sky_catalogue import read_catalogue, read_user_catalogue, write_catalogue
from vis2img.sky_counts import differential_counts, draw_fluxes, number_between, star_forming_fraction
from vis2img.sky_cutouts import CutoutSet, CutoutTemplate, cutout_source, read_cutouts
from vis2img.sky_draw import ALL_CLASSES, CLASSES, COUNTS_SLOPE, draw_sky, draw_source
from vis2img.sky_population import RESOLVED_CLASSES, draw_population
from vis2img.sky_source import UNLABELLED, SkyComponent, SkyCutout, SkySource, single_component_source

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
