"""A contact sheet of a prior: sky patches down, draws across, each as the network sees it.

>>> sheet = make_sheet(field, SheetConfig(draws=4), reference)      # doctest: +SKIP
>>> save_sheet(sheet, Path("sheet.png"))                             # vis2img.views.sheet_figure
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from vis2img.coordinates import direction_cosines, lm_to_pixel, pixel_to_lm, sky_position
from vis2img.draws.draw import Draw
from vis2img.draws.field import make_draw
from vis2img.draws.observed_field import ObservedField
from vis2img.draws.prior import ImagingPrior
from vis2img.errors import ParameterError, Vis2imgError
from vis2img.imaging.memory import image_bytes
from vis2img.imaging.params import MIN_NPIX, ImagingParams
from vis2img.imaging.sampling import kept_band
from vis2img.machine import free_bytes
from vis2img.progress import Progress, no_progress
from vis2img.random import draw_rng
from vis2img.units import ANGLE_UNITS, Direction, format_angle, format_direction
from vis2img.views.crops import cut
from vis2img.views.stretch import Stretch

ANGLES = tuple((unit, ANGLE_UNITS[unit]) for unit in ("deg", "arcmin", "arcsec", "mas"))
"""Units of angles, in rad, from the largest."""
_LENGTHS = (("Mlambda", 1e6), ("klambda", 1e3), ("lambda", 1.0))
_FLUXES = (("Jy", 1.0), ("mJy", 1e-3), ("uJy", 1e-6))


@dataclass(frozen=True)
class SheetConfig:
    """What a contact sheet shows."""

    draws: int = 8
    """Draws of the prior, in a column each, behind the fixed image (preset image-only) as reference."""
    patches: int = 4
    """Sky patches, in a row each: around the brightest peaks that lie apart, and an empty one."""
    at: tuple[Direction, ...] = ()
    """Centres of the patches as RA,DEC, instead."""
    npix: int | None = None
    """Side of the imaged field in pixels of the suggested size. Default: up to the primary beam, at most 2048."""
    patch_npix: int = 128
    """Side of a patch in suggested pixels, and of its panel in pixels."""
    seed: int = 0
    """Seed of the draws."""

    def __post_init__(self) -> None:
        for name, least in (("draws", 1), ("patches", 1), ("patch_npix", 8), ("seed", 0), ("npix", MIN_NPIX)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ParameterError(f"--{name.replace('_', '-')} {value}: at least {least} is needed")


@dataclass(frozen=True)
class Patch:
    """A row: direction cosines (l, m) from the field centre, RA and Dec in rad, and what is there."""

    lm: tuple[float, float]
    position: tuple[float, float]
    label: str


@dataclass(frozen=True, eq=False)
class Column:
    """One image of the field."""

    title: str
    """The reference, or which draw it is."""
    params: ImagingParams
    """How it was made."""
    noise: float
    """Jy/beam; NaN where nothing could be imaged."""
    views: np.ndarray
    """float32 [patch, y, x]: Stretched as for the network; NaN where nothing could be imaged."""
    problem: str = ""
    """Why nothing could be imaged."""
    caption: tuple[str, ...] = ()
    """What varies over the sheet, a line each."""


@dataclass(frozen=True, eq=False)
class Sheet:
    """Rows and columns of a contact sheet, and the side of a patch in rad."""

    patches: tuple[Patch, ...]
    columns: tuple[Column, ...]
    side: float


def make_sheet(
    field: ObservedField,
    config: SheetConfig,
    reference: ImagingParams,
    *,
    workers: int = 1,
    progress: Progress = no_progress,
) -> Sheet:
    """Image a field as it is and under draws of its prior, and cut the same patches from each.

    Parameters
    ----------
    field : ObservedField
        With its prior.
    config : SheetConfig
    reference : ImagingParams
        How the first column is imaged.
    workers : int
        Images at a time, one thread each; fewer where memory is short.
    progress : callable, optional
        Called with (images made, images wanted).

    Raises
    ------
    MeasurementSetError, ParameterError
        If the field cannot be read or imaged in the reference, or a patch reaches beyond it.
    """
    side = patch_side(field, config)
    total = 1 + config.draws
    progress("imaging", 0, total)
    first = field.draw(reference, workers)
    patches = patches_at(field, config, first.phase_centre) or choose_patches(first, field.prior, side, config)
    columns = [_column("reference", first, patches, side, config)]
    progress("imaging", 1, total)
    drawn = [field.prior.draw(draw_rng(config.seed, 0, index)) for index in range(config.draws)]
    fitting = free_bytes() // (2 * max(map(image_bytes, drawn)))
    del first

    def image(index: int) -> Column:
        try:
            draw = make_draw(field, config.seed, 0, index)
        except Vis2imgError as error:  # a prior that leaves nothing of some draws is what a sheet should show
            blank = np.full((len(patches), config.patch_npix, config.patch_npix), np.nan, np.float32)
            return Column(f"draw {index}", drawn[index], math.nan, blank, str(error))
        return _column(f"draw {index}", draw, patches, side, config)

    with ThreadPoolExecutor(max(1, min(workers, fitting))) as pool:
        for column in pool.map(image, range(config.draws)):
            columns.append(column)
            progress("imaging", len(columns), total)
    freqs = field.data().freqs
    captions = _captions([column.params for column in columns], freqs)
    captioned = (replace(column, caption=caption) for column, caption in zip(columns, captions, strict=True))
    return Sheet(tuple(patches), tuple(captioned), side)


def _column(title: str, draw: Draw, patches: Sequence[Patch], side: float, config: SheetConfig) -> Column:
    views = [cut(draw, *patch.lm, side, config.patch_npix, Stretch())[..., 0] for patch in patches]
    return Column(title, draw.params, float(draw.noise[0]), np.stack(views))


def patch_side(field: ObservedField, config: SheetConfig) -> float:
    """Return the side of a patch in rad, counted as the loader counts it.

    Raises
    ------
    ParameterError
        If it does not fit into the field.
    """
    prior = field.prior
    fitting = math.floor((prior.fov - 2 * prior.pixsize[1]) / field.pixsize)
    if config.patch_npix > fitting:
        raise ParameterError(
            f"--patch-npix {config.patch_npix} does not fit into the field of {format_angle(prior.fov, 3)}; "
            f"choose at most {fitting}, or a larger --npix"
        )
    return config.patch_npix * field.pixsize


def patches_at(field: ObservedField, config: SheetConfig, centre: tuple[float, float]) -> list[Patch]:
    """Return the patches that ``config.at`` names, in a field around ``centre`` (RA, Dec in rad).

    Raises
    ------
    ParameterError
        If one reaches beyond the field.
    """
    prior, patches = field.prior, []
    reach = prior.reach(patch_side(field, config))
    for ra, dec in config.at:
        l, m, n = map(float, direction_cosines(np.array(ra), np.array(dec), centre))
        if n <= 0 or max(abs(l), abs(m)) > reach:
            raise ParameterError(
                f"--at {format_direction((ra, dec))}: the patch reaches beyond the field of "
                f"{format_angle(prior.fov, 3)} around {format_direction(centre)}; choose a larger --npix"
            )
        patches.append(Patch((l, m), (ra, dec), "as given"))
    return patches


def choose_patches(draw: Draw, prior: ImagingPrior, side: float, config: SheetConfig) -> list[Patch]:
    """Return patches of ``side`` (rad) around the brightest peaks of ``draw``, and the one with least in it.

    No two centres of peaks are closer than half a side. There are fewer patches where there are fewer peaks.
    """
    from scipy.ndimage import maximum_filter

    plane, (nx, ny), pixsize = draw.data[0], draw.params.npix, draw.params.pixsize
    reach = prior.reach(side)
    pixels = [lm_to_pixel(l, m, (nx, ny), pixsize) for l, m in draw.peaks]
    flux = np.array([plane[round(y), round(x)] for x, y in pixels])
    places: list[tuple[float, float, str]] = []
    for i in np.argsort(-flux, kind="stable"):
        l, m = map(float, draw.peaks[i])
        apart = all(max(abs(l - other[0]), abs(m - other[1])) > side / 2 for other in places)
        if len(places) < max(1, config.patches - 1) and max(abs(l), abs(m)) <= reach and apart:
            places.append((l, m, f"peak {_short(float(flux[i]), _FLUXES, ' ')}/beam"))
    if len(places) < config.patches:
        strongest = maximum_filter(np.abs(plane), size=max(1, round(side / pixsize)))
        across, up = (np.abs(np.arange(n) - n // 2) * pixsize for n in (nx, ny))
        on_sky = (up[:, None] + side / 2) ** 2 + (across + side / 2) ** 2 < 1
        inside = (up[:, None] <= reach) & (across <= reach) & on_sky
        y, x = divmod(int(np.argmin(np.where(inside, strongest, np.inf))), nx)
        places.append((*pixel_to_lm(float(x), float(y), (nx, ny), pixsize), "empty"))
    patches = []
    for l, m, label in places:
        ra, dec = map(float, sky_position(np.array(l), np.array(m), draw.phase_centre))
        patches.append(Patch((l, m), (ra, dec), label))
    return patches


def _captions(params: Sequence[ImagingParams], freqs: np.ndarray) -> list[tuple[str, ...]]:
    """Return what differs between ``params``, a line for each kind of parameter."""
    lines = [[_weighting(p), _taper(p), _band(p, freqs), _times(p), _uv(p), *_kept(p), _pixel(p)] for p in params]
    varied = [len(set(kind)) > 1 for kind in zip(*lines, strict=True)]
    return [tuple(line for line, shown in zip(own, varied, strict=True) if shown) for own in lines]


def _weighting(p: ImagingParams) -> str:
    return f"robust {p.robust:.1f}" if p.weighting == "briggs" else p.weighting


def _taper(p: ImagingParams) -> str:
    return f"taper {_short(p.taper, ANGLES, digits=2)}" if p.taper else "no taper"


def _band(p: ImagingParams, freqs: np.ndarray) -> str:
    part = kept_band(freqs, p)
    unit, size = ("GHz", 1e9) if freqs[-1] >= 1e9 else ("MHz", 1e6)
    digits = max(0, math.ceil(-math.log10(max(freqs[-1] - freqs[0], 1e-9 * freqs[-1]) / size / 20)))
    ends = dict.fromkeys(f"{end / size:.{digits}f}" for end in (part[0], part[-1]))
    return f"{'-'.join(ends)} {unit}"


def _times(p: ImagingParams) -> str:
    share = (p.time_span[1] - p.time_span[0]) * p.keep_times
    return f"{100 * share:.0f}% of times"


def _uv(p: ImagingParams) -> str:
    low, high = p.uvrange
    if math.isinf(high):
        return f"uv from {_short(low, _LENGTHS, ' ')}" if low else "all uv"
    unit, size = next(((u, s) for u, s in _LENGTHS if high >= s), _LENGTHS[-1])
    return f"uv {_rounded(low / size, 2)}-{_rounded(high / size, 3)} {unit}"


def _kept(p: ImagingParams) -> tuple[str, str]:
    return f"{100 * p.keep_antennas:.0f}% of antennas", f"{100 * p.keep_baselines:.0f}% of baselines"


def _pixel(p: ImagingParams) -> str:
    return f"pixel {_short(p.pixsize, ANGLES)}"


def _rounded(value: float, digits: int) -> str:
    return f"{float(f'{value:.{digits}g}'):g}"  # 1700, not 1.7e+03


def _short(value: float, units: Sequence[tuple[str, float]], space: str = "", digits: int = 3) -> str:
    """Return ``value`` in the first of ``units`` (name, size) that it fills, or in the last."""
    unit, size = next(((u, s) for u, s in units if value >= s), units[-1])
    return f"{_rounded(value / size, digits)}{space}{unit}"
