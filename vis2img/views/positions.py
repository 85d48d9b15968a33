"""Where patches may lie: within the field, the primary beam and what the images show, anywhere or near peaks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vis2img.coordinates import lm_to_pixel
from vis2img.shapes import Bool, Float64, Int

_CELLS = 64  # of a weight map, along an axis


@dataclass(frozen=True, eq=False)
class WeightMap:
    """How likely the centre of a patch lies in each cell of a field."""

    weight: Float64[np.ndarray, "cell cell"]
    """float64 [y, x]: Not negative; cells cover the square of half width ``reach``, l growing with x and m with y."""
    reach: float
    """Largest abs(l) and abs(m) of a centre in rad."""

    @property
    def area(self) -> float:
        """Solid angle that has weight, rad^2."""
        return float((self.weight > 0).mean()) * (2 * self.reach) ** 2

    def allows(
        self, l: Float64[np.ndarray, " place"] | float, m: Float64[np.ndarray, " place"] | float
    ) -> Bool[np.ndarray, " place"] | np.bool_:
        """Return which positions have weight."""
        return self.weight[self._cell(m), self._cell(l)] > 0

    def within(self, places: Float64[np.ndarray, "place 2"]) -> Int[np.ndarray, " row"]:
        """Return which of the positions (l, m) lie in the square and have weight: their rows, in order."""
        inside = np.flatnonzero(np.all(np.abs(places) <= self.reach, axis=1))
        return inside[self.allows(places[inside, 0], places[inside, 1])]

    def near(
        self, rng: np.random.Generator, place: Float64[np.ndarray, 2], offset: float
    ) -> tuple[float, float] | None:
        """Return a position up to ``offset`` rad along each axis from ``place``, or none if that has no weight."""
        l, m = np.clip(place + rng.uniform(-offset, offset, 2), -self.reach, self.reach)
        return (float(l), float(m)) if self.allows(l, m) else None

    def draw(self, rng: np.random.Generator) -> tuple[float, float]:
        """Return a random position (l, m), rad."""
        total = np.cumsum(self.weight)
        at = int(np.searchsorted(total, rng.random() * total[-1], side="right"))
        y, x = divmod(min(at, total.size - 1), self.weight.shape[1])
        step = 2 * self.reach / np.array(self.weight.shape)
        return tuple((np.array([x, y]) + rng.random(2)) * step[::-1] - self.reach)

    def _cell(self, offset: np.ndarray | float) -> np.ndarray | np.int64:
        n = len(self.weight)
        return np.clip(((np.asarray(offset) / self.reach + 1) / 2 * n).astype(int), 0, n - 1)


def weight_map(reach: float, patch: float, beam: float, limit: float, pointing: tuple[float, float]) -> WeightMap:
    """Return the map of a field from what is known before it is imaged.

    Parameters
    ----------
    reach : float
        Largest abs(l) and abs(m) of a centre in rad.
    patch : float
        Side of a patch in rad, which must lie above the horizon (l^2 + m^2 < 1).
    beam : float
        FWHM of the primary beam in rad; NaN where it is not known, which counts as no beam.
    limit : float
        Centres lie where the beam, a Gaussian, lets through more than this fraction; 0: anywhere.
    pointing : (float, float)
        Direction cosines (l, m) where the dishes pointed.
    """
    middle = (np.arange(_CELLS) + 0.5) * (2 * reach / _CELLS) - reach
    l, m = middle[np.newaxis, :], middle[:, np.newaxis]
    corner = (np.abs(l) + patch / 2) ** 2 + (np.abs(m) + patch / 2) ** 2
    weight = (corner < 1).astype(np.float64)
    if limit > 0 and math.isfinite(beam):
        apart = (l - pointing[0]) ** 2 + (m - pointing[1]) ** 2
        weight *= np.exp(-4 * math.log(2) * apart / beam**2) >= limit
    return WeightMap(weight, reach)


def within_image(places: WeightMap, npix: tuple[int, int], pixsize: float, patch: float) -> WeightMap:
    """Return the map without the centres of patches that would reach beyond an image that is not square.

    Parameters
    ----------
    places : WeightMap
    npix : (int, int)
        Size of the image, x and y.
    pixsize : float
        Its pixel size in rad.
    patch : float
        Side of a patch in rad.
    """
    n = len(places.weight)
    farthest = np.abs((np.arange(n) + 0.5) * (2 * places.reach / n) - places.reach) + places.reach / n
    # A pixel to spare, as the prior has it: images reach half a pixel less far on one side than on the other.
    x, y = (farthest <= (side * pixsize - patch) / 2 - pixsize + 1e-9 * places.reach for side in npix)
    return WeightMap(places.weight * np.outer(y, x), places.reach)


def without_blanks(
    places: WeightMap, usable: Bool[np.ndarray, "cell_y cell_x"], npix: tuple[int, int], pixsize: float, patch: float
) -> WeightMap:
    """Return the map without the centres of patches that would show blank pixels.

    Parameters
    ----------
    places : WeightMap
    usable : bool [cell, cell]
        Which parts of the image hold no blank pixel, y and x; see :func:`vis2img.draws.peaks.usable_cells`.
    npix, pixsize, patch
        As :func:`within_image`.
    """
    if usable.all():
        return places
    blanks = np.pad(np.cumsum(np.cumsum(~usable, axis=0), axis=1), ((1, 0), (1, 0)))
    n = len(places.weight)
    middle = (np.arange(n) + 0.5) * (2 * places.reach / n) - places.reach
    half = patch / 2 + places.reach / n  # any centre within the cell
    x, y = lm_to_pixel(middle, middle, npix, pixsize)
    x0, x1 = _span(x, half / pixsize, npix[0], usable.shape[1])
    y0, y1 = _span(y, half / pixsize, npix[1], usable.shape[0])
    blank = blanks[np.ix_(y1, x1)] - blanks[np.ix_(y0, x1)] - blanks[np.ix_(y1, x0)] + blanks[np.ix_(y0, x0)]
    return WeightMap(places.weight * (blank == 0), places.reach)


def _span(
    pixel: Float64[np.ndarray, " centre"], half: float, npix: int, cells: int
) -> tuple[Int[np.ndarray, " centre"], Int[np.ndarray, " centre"]]:
    """Return the first of an image's cells, and the one behind the last, that squares around pixels touch.

    The resampler looks some pixels beyond a square: at most those of two pixels of an output of 16.
    """
    edges = np.linspace(0, npix, cells + 1).astype(int)
    reach = half * (1 + 2 / 8) + 2
    first = np.searchsorted(edges, pixel + 0.5 - reach, side="right") - 1
    last = np.searchsorted(edges, pixel + 0.5 + reach, side="left")
    return np.clip(first, 0, cells - 1), np.clip(last, 1, cells)


def random_position(
    rng: np.random.Generator,
    allowed: WeightMap,
    patch: float,
    peaks: Float64[np.ndarray, "peak 2"],
    near_peaks: float,
    offset: float = 1 / 8,
    flux: Float64[np.ndarray, " peak"] | None = None,
) -> tuple[float, float]:
    """Return the centre (l, m) of a patch: by the weight map, or near a bright peak.

    Parameters
    ----------
    rng : numpy Generator
        Source of the choice.
    allowed : WeightMap
        Where centres may lie.
    patch : float
        Side of the patch in rad.
    peaks : float64 [peak, 2]
        Direction cosines of peaks.
    near_peaks : float
        How often a patch is placed near a peak.
    offset : float
        How far a peak is from the centre at most, as a fraction of the side.
    flux : float64 [peak], optional
        Brightness of the peaks, positive: each factor of two of it comes alike; default: each peak does.
    """
    if len(peaks) and rng.random() < near_peaks:
        inside = allowed.within(peaks)
        if len(inside) and flux is not None:
            octave = np.floor(np.log2(flux[inside]))
            inside = inside[octave == rng.choice(np.unique(octave))]
        if len(inside):
            peak = peaks[inside[int(rng.integers(len(inside)))]]
            if near := allowed.near(rng, peak, patch * offset):
                return near
    return allowed.draw(rng)
