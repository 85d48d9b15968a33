"""A whole field of radio sources whose number, fluxes, sizes and spectra follow published distributions.

- Fluxes: :mod:`vis2img.simulate.sky.counts`, which also splits them into star-forming galaxies ("sfg") and AGN.
- Largest angular sizes of AGN: median 2 arcsec (S / mJy)^0.30, the fraction larger than theta being
  2^-(theta / median)^0.62 (Windhorst et al. 1990, at 1.4 GHz). Those beyond 10 arcsec get a class with
  structure, so that their fraction rises with flux: 6% at 0.1 mJy, 15% at 1 mJy, 45% at 0.1 Jy for 10 arcsec. The
  others are "compact": one Gaussian of at most 3 arcsec.
- Star-forming galaxies: inclined discs of thickness 0.2, their FWHM log-normal (0.25 dex, chosen here) around
  the same median, as Windhorst et al. measured it on a sample that is mostly these at its faint end. Cotton et
  al. 2018 find them smaller still (0.3 arcsec); MeerKAT resolves neither.
- Spectral indices: star-forming galaxies N(-0.8, 0.2); compact AGN N(-0.7, 0.2), but 30% flat cores, N(-0.1, 0.2);
  resolved ones as their class has them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from vis2img.coordinates import sky_position
from vis2img.errors import ParameterError
from vis2img.simulate.sky.counts import COUNTS_FREQ, COUNTS_INDEX, draw_fluxes, star_forming_fraction
from vis2img.simulate.sky.draw import check_class, draw_source
from vis2img.simulate.sky.source import SkyComponent, SkySource, single_component_source
from vis2img.units import ARCSEC

RESOLVED_CLASSES: Mapping[str, float] = MappingProxyType(
    {"fri": 0.5, "frii": 0.28, "bent": 0.08, "hybrid": 0.05, "wat": 0.04, "nat": 0.04, "ddrg": 0.01}
)
"""Shares of the classes among resolved AGN: of the order that LOFAR found (Mingo et al. 2019), not fits to it."""

_MAX_SIZE = 600 * ARCSEC  # the law of sizes has a tail beyond any known sample
_RESOLVED = 10 * ARCSEC  # largest angular size from which an AGN gets a class with structure
_MAX_COMPACT = 3 * ARCSEC
_CLUSTER_RADIUS = 60 * ARCSEC  # standard deviation along each axis
_FLAT_FRACTION = 0.3


def draw_population(
    rng: np.random.Generator,
    phase_centre: tuple[float, float],
    fov: float,
    flux_min: float,
    flux_max: float = 1.0,
    ref_freq: float = COUNTS_FREQ,
    *,
    resolved_classes: Mapping[str, float] = RESOLVED_CLASSES,
    clustering: float = 0.0,
) -> list[SkySource]:
    """Draw all sources of a square field, as many as the counts have between two fluxes.

    Parameters
    ----------
    rng : numpy.random.Generator
    phase_centre : (float, float)
        RA and Dec of the field centre in rad.
    fov : float
        Side in rad of the square in the tangent plane (SIN projection), which holds the middle of every source.
    flux_min, flux_max : float
        In Jy at ``ref_freq`` (Hz).
    resolved_classes : mapping of str to float
        Relative shares of the classes of resolved AGN.
    clustering : float
        Fraction of the sources that lie around another, of the rest, with a scatter of 1 arcmin along each axis (a
        Neyman-Scott process with Poisson groups). A toy: no published correlation function is matched.

    Returns
    -------
    list of SkySource
        Numbered from 0, brightest first, of "sfg", "compact" and ``resolved_classes``. Sources may overlap.

    Raises
    ------
    ParameterError
        If a class is unknown or a value out of range.
    """
    names, shares = _checked(resolved_classes, fov, clustering)
    # Uniform in (l, m) is uniform on the sky to 1 / n, 2e-4 at 1 degree from the centre.
    flux = np.sort(draw_fluxes(rng, flux_min, flux_max, fov**2, ref_freq))[::-1]
    n = len(flux)
    l, m = _positions(rng, n, fov, clustering)
    ra, dec = sky_position(l, m, phase_centre)
    shapes = _shapes(rng, flux, ref_freq)
    label = rng.choice(len(names), n, p=shares) if names else np.zeros(n, int)

    # Python numbers once, not a conversion at every use: it halves the time of the loop.
    columns = (x.tolist() for x in (ra, dec, flux, label, *shapes))
    sources = []
    for i, (a, d, s, k, extent, extended, sfg, *shape) in enumerate(zip(*columns, strict=True)):
        if extended and names:
            sources.append(draw_source(rng, names[k], a, d, s, extent, source_id=i, ref_freq=ref_freq))
        else:
            part = SkyComponent(a, d, s, ref_freq, *shape)
            sources.append(single_component_source(i, "sfg" if sfg else "compact", part))
    return sources


def _shapes(rng: np.random.Generator, flux: np.ndarray, ref_freq: float) -> list[np.ndarray]:
    """Draw sizes, which are resolved, which form stars, and axes, position angles and spectra of the others, [n]."""
    n = len(flux)
    median = 2 * ARCSEC * (flux * (COUNTS_FREQ / ref_freq) ** COUNTS_INDEX * 1e3) ** 0.30
    # The inverse of 2^-(theta / median)^0.62, for a uniform number in (0, 1].
    size = np.minimum(median * np.log2(1 / (1 - rng.random(n))) ** (1 / 0.62), _MAX_SIZE)
    star_forming = rng.random(n) < star_forming_fraction(flux, ref_freq)
    flat = rng.random(n) < _FLAT_FRACTION
    index = np.where(star_forming, -0.8, np.where(flat, -0.1, -0.7)) + rng.normal(0.0, 0.2, n)

    disc = median * 10 ** rng.normal(0.0, 0.25, n)
    major = np.where(star_forming, disc, np.minimum(size, _MAX_COMPACT))
    # cos(inclination) is uniform for discs of any direction; AGN are given any ratio from 0.3 to 1.
    cosine = rng.random(n)
    ratio = np.where(star_forming, np.sqrt(0.2**2 + (1 - 0.2**2) * cosine**2), 0.3 + 0.7 * cosine)
    pa = rng.uniform(0.0, math.pi, n)
    resolved = ~star_forming & (size > _RESOLVED)
    return [size, resolved, star_forming, major, major * ratio, pa, index]


def _checked(resolved: Mapping[str, float], fov: float, clustering: float) -> tuple[list[str], np.ndarray]:
    """Return the names of the resolved classes and their shares, which add up to 1."""
    for name in resolved:
        check_class(name)
    shares = np.array(list(resolved.values()), float)
    if len(shares) and not (np.all(shares >= 0) and np.isfinite(shares.sum()) and shares.sum() > 0):
        raise ParameterError("the shares of resolved_classes must be numbers of at least 0, with one above 0")
    if not 0 < fov < math.sqrt(2):
        raise ParameterError(f"fov = {fov:g} rad must be above 0, and its corners above the horizon")
    if not 0 <= clustering < 1:
        raise ParameterError(f"clustering = {clustering:g} must be at least 0 and below 1")
    return list(resolved), shares / shares.sum()


def _positions(rng: np.random.Generator, n: int, fov: float, clustering: float) -> np.ndarray:
    """Return (l, m) [2, n] in a square of side ``fov`` (rad)."""
    place = rng.uniform(-fov / 2, fov / 2, (2, n))
    follows = np.flatnonzero(rng.random(n) < clustering)
    leads = np.setdiff1d(np.arange(n), follows)
    if len(follows) and len(leads):
        near = place[:, rng.choice(leads, len(follows))] + rng.normal(0.0, _CLUSTER_RADIUS, (2, len(follows)))
        # Leaving on one side is entering on the other: the density stays even up to the edges.
        place[:, follows] = (near + fov / 2) % fov - fov / 2
    return place
