"""The values that a sky consists of: a source with its label, and the Gaussians, points or picture it is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

import numpy as np

from vis2img.errors import ParameterError

UNLABELLED = ""  # class of sources without a label: background, bare points, catalogue rows without one


@dataclass(frozen=True)
class SkyComponent:
    """An elliptical Gaussian, or a point when ``major`` is 0.

    Parameters
    ----------
    ra, dec : float
        Position in rad (ICRS).
    flux : float
        Integrated flux density in Jy at ``ref_freq``.
    ref_freq : float
        Frequency of ``flux`` in Hz; elsewhere it is flux * (nu / ref_freq) ** spectral_index.
    major, minor : float
        FWHM in rad.
    pa : float
        Position angle of the major axis in rad, north through east.
    spectral_index : float

    Raises
    ------
    ParameterError
        If a value is not finite or out of range.
    """

    ra: float
    dec: float
    flux: float
    ref_freq: float
    major: float = 0.0
    minor: float = 0.0
    pa: float = 0.0
    spectral_index: float = 0.0

    def __post_init__(self) -> None:
        for item in fields(self):
            if not math.isfinite(getattr(self, item.name)):
                raise ParameterError(f"{item.name} = {getattr(self, item.name)} is not a finite number")
        if abs(self.dec) > math.pi / 2:
            raise ParameterError(f"dec = {math.degrees(self.dec):g} degrees lies beyond the pole")
        if self.flux <= 0 or self.ref_freq <= 0:
            raise ParameterError(f"flux = {self.flux:g} Jy at {self.ref_freq:g} Hz: both must be above 0")
        if not 0 <= self.minor <= self.major:
            raise ParameterError(f"minor = {self.minor:g} rad must be between 0 and major = {self.major:g} rad")


@dataclass(frozen=True, eq=False)
class SkyCutout:
    """A picture of a source as sky brightness, for example of a real radio galaxy.

    Parameters
    ----------
    pixels : float32 [y, x]
        Flux density in Jy per pixel at ``ref_freq``. With ``pa`` 0, x runs along decreasing right ascension and
        y along increasing declination; the pixel at ``[ny // 2, nx // 2]`` (0-based) lies at (``ra``, ``dec``).
    pixsize : float
        Side of a pixel in rad.
    ra, dec : float
        Position in rad (ICRS).
    ref_freq : float
        Frequency of ``pixels`` in Hz; elsewhere they are times (nu / ref_freq) ** spectral_index.
    pa : float
        Angle in rad by which the picture is turned, north through east.
    spectral_index : float
    origin : str
        File and row that it comes from.

    Raises
    ------
    ParameterError
        If a value is not finite or out of range.
    """

    pixels: np.ndarray
    pixsize: float
    ra: float
    dec: float
    ref_freq: float
    pa: float = 0.0
    spectral_index: float = 0.0
    origin: str = ""

    def __post_init__(self) -> None:
        name = self.origin or "without a name"
        numbers = (self.pixsize, self.ra, self.dec, self.ref_freq, self.pa, self.spectral_index)
        if not all(map(math.isfinite, numbers)) or self.pixsize <= 0 or self.ref_freq <= 0:
            raise ParameterError(f"cutout {name}: a number is not finite or not above 0")
        if self.pixels.ndim != 2 or not np.isfinite(self.pixels).all():
            raise ParameterError(f"cutout {name}: pixels must be [y, x] and finite")

    @property
    def flux(self) -> float:
        """Flux density in Jy at ``ref_freq``."""
        return float(self.pixels.sum(dtype=np.float64))


@dataclass(frozen=True)
class SkySource:
    """A source with its label and what it consists of: components, or a cutout.

    ``ra``, ``dec`` (rad) are the middle of what is seen of it, which need not be the nucleus; ``flux`` (Jy)
    is the sum over the components and the cutout. ``size`` (rad) is the largest angular size, between
    half-maximum contours of the outermost components; 0 for a point.
    """

    source_id: int
    class_name: str
    ra: float
    dec: float
    flux: float
    size: float
    components: tuple[SkyComponent, ...] = field(repr=False, default=())
    cutout: SkyCutout | None = field(repr=False, default=None)

    def __post_init__(self) -> None:
        total = sum(component.flux for component in self.components) + (self.cutout.flux if self.cutout else 0.0)
        if not math.isclose(total, self.flux, rel_tol=1e-5):
            raise ParameterError(
                f"source {self.source_id}: flux {self.flux:g} Jy, but its components hold {total:g} Jy"
            )


def single_component_source(source_id: int, class_name: str, component: SkyComponent) -> SkySource:
    """Return a source that is one component."""
    c = component
    return SkySource(source_id, class_name, c.ra, c.dec, c.flux, c.major, (c,))
