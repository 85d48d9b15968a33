"""Labelled sources drawn at random: a layout of a class, seen from a random direction, scaled and placed.

A source is laid out in its own frame (:mod:`vis2img.simulate.sky.layout`), each component a centre and a covariance.
Foreshortening, rotation to a position angle and scaling to the wanted size then act on both alike. Components
are few (11 to 18 per extended source), so that exact prediction stays cheap. ``compact`` is one component below
3 arcsec, half of them points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields

import numpy as np

from vis2img.coordinates import sky_position
from vis2img.errors import ParameterError
from vis2img.simulate.sky.classes import bent, ddrg, fri, frii, hybrid, nat, wat
from vis2img.simulate.sky.diffuse import halo, relic, ring
from vis2img.simulate.sky.layout import Part, free_place
from vis2img.simulate.sky.source import UNLABELLED, SkyComponent, SkySource, single_component_source
from vis2img.units import ARCSEC

COUNTS_SLOPE = 1.7  # -dlnN/dlnS near 1 mJy to 0.1 Jy at 1.4 GHz (counts compiled by de Zotti et al. 2010)

_LAYOUTS: dict[str, Callable[[np.random.Generator], list[Part]]] = {
    layout.__name__: layout for layout in (fri, frii, bent, hybrid, wat, nat, ddrg, ring, halo, relic)
}
_FLAT = frozenset({"wat", "nat", "ring", "halo", "relic"})  # defined by what is seen on the sky
CLASSES = ("compact", "fri", "frii", "bent")  # the default mix
ALL_CLASSES = ("compact", *_LAYOUTS)


def _extent(centre: np.ndarray, covariance: np.ndarray) -> float:
    """Return the largest distance between the half-maximum contours, over all directions on the sky."""
    angle = np.linspace(0, math.pi, 181)
    axis = np.stack([np.cos(angle), np.sin(angle)])
    along = centre @ axis  # (n, angle)
    half = 0.5 * np.sqrt(np.einsum("ia,nij,ja->na", axis, covariance, axis))
    return float(np.max((along + half).max(axis=0) - (along - half).min(axis=0)))


def _projected(rng: np.random.Generator, layout: Part, size: float, flat: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return centres [n, 2] and squared-FWHM matrices [n, 2, 2] in (l, m), rad, as seen at a random angle.

    ``flat`` layouts are drawn as seen already: they are turned, not foreshortened.
    """
    cos_t, sin_t = np.cos(layout.tilt), np.sin(layout.tilt)
    axes = np.moveaxis(np.array([[cos_t, -sin_t], [sin_t, cos_t]]), -1, 0)
    covariance = axes @ (layout.fwhm[:, :, None] ** 2 * np.eye(2)) @ np.swapaxes(axes, 1, 2)
    # Isotropic beyond 30 degrees to the line of sight; nearer, a core dominates (Barthel 1989).
    sin_inclination = 1.0 if flat else math.sqrt(1 - rng.uniform(0.0, math.cos(math.radians(30))) ** 2)
    pa = rng.uniform(0.0, 2 * math.pi)
    turn = np.array([[math.sin(pa), math.cos(pa)], [math.cos(pa), -math.sin(pa)]])  # (x, y) -> (l east, m north)
    view = turn @ np.diag([sin_inclination, 1.0])
    centre, covariance = layout.centre @ view.T, view @ covariance @ view.T
    half = 0.5 * np.sqrt(covariance[:, [0, 1], [0, 1]])  # (n, 2) reach along l and m
    centre = centre - ((centre + half).max(axis=0) + (centre - half).min(axis=0)) / 2
    scale = size / _extent(centre, covariance)
    return centre * scale, covariance * scale**2


def check_class(name: str) -> None:
    """Refuse a class that is none of :data:`ALL_CLASSES`."""
    if name not in ALL_CLASSES:
        raise ParameterError(f"there is no source class {name!r}; known are {', '.join(ALL_CLASSES)}")


def draw_source(
    rng: np.random.Generator,
    class_name: str,
    ra: float,
    dec: float,
    flux: float,
    size: float,
    *,
    source_id: int = 0,
    ref_freq: float = 1.4e9,
) -> SkySource:
    """Draw one source of a class at a position.

    Parameters
    ----------
    rng : numpy.random.Generator
    class_name : str
        One of :data:`ALL_CLASSES`.
    ra, dec : float
        Middle of the source in rad.
    flux : float
        Total flux density in Jy at ``ref_freq`` (Hz).
    size : float
        Largest angular size as seen, in rad; a compact source stays below 3 arcsec whatever it is.
    source_id : int
        Goes into the result unchanged.

    Raises
    ------
    ParameterError
        If the class is unknown or a value is out of range.
    """
    check_class(class_name)
    if not (size > 0 and math.isfinite(size)):
        raise ParameterError(f"the size of a source, {size:g} rad, must be above 0")
    if class_name == "compact":
        major = min(size, 3 * ARCSEC) * float(rng.uniform(0.1, 1.0) * rng.integers(2))
        minor, pa, index = major * rng.uniform(0.3, 1.0), rng.uniform(0, math.pi), rng.uniform(-0.9, 0.0)
        component = SkyComponent(ra, dec, flux, ref_freq, major, minor, pa, index)
        return single_component_source(source_id, class_name, component)
    parts = _LAYOUTS[class_name](rng)
    layout = Part(*(np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(Part)))
    centre, covariance = _projected(rng, layout, size, class_name in _FLAT)
    squares, vectors = np.linalg.eigh(covariance)  # ascending: the last vector is the major axis
    fwhm = np.sqrt(np.maximum(squares, 0.0))
    pa = np.arctan2(vectors[:, 0, 1], vectors[:, 1, 1]) % math.pi
    position = sky_position(centre[:, 0], centre[:, 1], (ra, dec))
    part_flux = flux * layout.flux / layout.flux.sum()
    freqs = np.full(len(pa), ref_freq)
    columns = (*position, part_flux, freqs, fwhm[:, 1], fwhm[:, 0], pa, layout.spectral_index)
    components = tuple(SkyComponent(*map(float, row)) for row in zip(*columns, strict=True))
    return SkySource(source_id, class_name, ra, dec, flux, size, components)


def power_law(rng: np.random.Generator, flux_range: tuple[float, float], n: int) -> np.ndarray:
    """Draw ``n`` fluxes of dN/dS ~ S ** -COUNTS_SLOPE by inverting the cumulative counts."""
    low, high = (flux ** (1 - COUNTS_SLOPE) for flux in flux_range)
    return (low + rng.random(n) * (high - low)) ** (1 / (1 - COUNTS_SLOPE))


def _place(rng: np.random.Generator, sizes: np.ndarray, fov: float, gap: float) -> np.ndarray:
    """Return (l, m) [n, 2] in rad, uniform in a square of side ``fov``, any two extents ``gap`` apart."""
    places = np.zeros((len(sizes), 2))
    order = np.argsort(-sizes)  # the large ones first, while there is room
    for rank, i in enumerate(order):
        done, what = order[:rank], f"{len(sizes)} sources (stopped at {rank})"
        places[i] = free_place(rng, fov, sizes[i], places[done], (sizes[done] + sizes[i]) / 2 + gap, what)
    return places


def draw_sky(
    rng: np.random.Generator,
    phase_centre: tuple[float, float],
    fov: float,
    n_sources: int,
    classes: Sequence[str] = CLASSES,
    flux_range: tuple[float, float] = (1e-3, 1e-1),
    size_range: tuple[float, float] = (20 * ARCSEC, 120 * ARCSEC),
    min_separation: float = 30 * ARCSEC,
    n_background: int = 0,
    ref_freq: float = 1.4e9,
) -> list[SkySource]:
    """Draw labelled sources that do not overlap, and faint points without a label that may lie anywhere.

    Parameters
    ----------
    rng : numpy.random.Generator
    phase_centre : (float, float)
        RA and Dec of the field centre in rad.
    fov : float
        Side in rad of the square in the tangent plane (SIN projection) that the sources lie in.
    n_sources, n_background : int
        How many with and without a label.
    classes : sequence of str
        Drawn in equal shares.
    flux_range : (float, float)
        In Jy at ``ref_freq`` (Hz), as a power law of slope :data:`COUNTS_SLOPE`; the background reaches from
        a hundredth to a tenth of the lower limit.
    size_range : (float, float)
        Largest angular sizes in rad, log-uniform.
    min_separation : float
        Least gap between the extents of two labelled sources, rad.

    Returns
    -------
    list of SkySource, numbered from 0, the background last

    Raises
    ------
    ParameterError
        If the sources do not fit, or a class is unknown.
    """
    unknown = sorted(set(classes) - set(ALL_CLASSES))
    if unknown or (n_sources and not len(classes)):
        raise ParameterError(f"classes = {', '.join(unknown) or 'none'}: known are {', '.join(ALL_CLASSES)}")

    labels = rng.permutation(np.resize(np.array(classes, dtype=object), n_sources))
    flux = power_law(rng, flux_range, n_sources)
    size = np.exp(rng.uniform(math.log(size_range[0]), math.log(size_range[1]), n_sources))
    # Nothing is farther from the middle of its bounding box than 1 / sqrt(2) of the largest angular size.
    room = np.where(labels == "compact", np.minimum(size, 3 * ARCSEC), math.sqrt(2) * size)
    l, m = _place(rng, np.asarray(room, float), fov, min_separation).T
    ra, dec = sky_position(l, m, phase_centre)
    sources = [
        draw_source(rng, label, *values, source_id=i, ref_freq=ref_freq)
        for i, (label, *values) in enumerate(zip(labels, *(x.tolist() for x in (ra, dec, flux, size)), strict=True))
    ]
    faint = power_law(rng, (flux_range[0] / 100, flux_range[0] / 10), n_background)
    points = _points(rng, faint, phase_centre, fov, ref_freq)
    return sources + [single_component_source(n_sources + i, UNLABELLED, point) for i, point in enumerate(points)]


def _points(
    rng: np.random.Generator, flux: np.ndarray, phase_centre: tuple[float, float], fov: float, ref_freq: float
) -> list[SkyComponent]:
    """Return points of these fluxes [n] anywhere in the field."""
    l, m = rng.uniform(-fov / 2, fov / 2, (2, len(flux)))
    ra, dec = sky_position(l, m, phase_centre)
    rows = zip(ra.tolist(), dec.tolist(), flux.tolist(), strict=True)
    return [SkyComponent(*row, ref_freq, spectral_index=float(rng.normal(-0.7, 0.2))) for row in rows]
