"""Directions, pixels and signs: the one place that turns one into another.

- Directions are right ascension and declination in rad (ICRS). Direction cosines (l, m, n) are relative to a centre:
  l grows to the east, m to the north, n towards the centre.
- Images are ``[y, x]``: x to the right, along decreasing right ascension (CDELT1 < 0), y up, along increasing
  declination. The reference pixel is ``npix // 2``, counted from 0, in the SIN projection: so x falls with l, and y
  grows with m. Sizes are (x, y).
- Position angles run from north through east, which is anticlockwise on the sky as it is shown.
- Baselines (u, v, w) lie along the rows of :func:`uvw_basis`. The sign of the phase that goes with them is in
  :mod:`vis2img.imaging.gridding`, which also knows the order of ducc0's axes.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from astropy.coordinates import BaseCoordinateFrame

Coordinate = TypeVar("Coordinate", float, np.ndarray)
SITE = (math.radians(21.4439), math.radians(-30.7110))  # east longitude and latitude of MeerKAT's centre, rad
# Turn from ICRS to the mean equator and equinox of J2000, as casacore and IERS have it: the frame bias of IAU 2000
# (IERS Conventions 2010, section 5.4.4), about the axes x, y, z.
_BIAS = np.radians(np.array([-6.8192, -16.617, -14.6]) / 3.6e6)
_STEP = 1e-4  # rad, over which the direction of north is looked at
_DEGREES_PER_DAY = 360.98564736629  # that the stars turn (Meeus 1998, *Astronomical Algorithms*, eq. 12.4)
SIDEREAL_RATE = math.radians(_DEGREES_PER_DAY)  # rad a day


def direction_vectors(ra: np.ndarray | float, dec: np.ndarray | float) -> np.ndarray:
    """Return the unit vectors to the directions ``ra``, ``dec`` [...] (rad), in equatorial axes; float64 [..., 3]."""
    cos_dec = np.cos(dec)
    return np.stack([cos_dec * np.cos(ra), cos_dec * np.sin(ra), np.sin(dec)], axis=-1)


def uvw_basis(ra: np.ndarray | float, dec: np.ndarray | float) -> np.ndarray:
    """Return the unit vectors of u (east), v (north) and w (to the direction) as rows, in equatorial axes.

    Parameters
    ----------
    ra, dec : float64 [...]
        Directions in rad.

    Returns
    -------
    float64 [..., 3, 3]
    """
    sin_ra, cos_ra, sin_dec, cos_dec = np.sin(ra), np.cos(ra), np.sin(dec), np.cos(dec)
    east = np.stack([-sin_ra, cos_ra, np.zeros_like(sin_ra)], axis=-1)
    north = np.stack([-sin_dec * cos_ra, -sin_dec * sin_ra, cos_dec], axis=-1)
    return np.stack([east, north, direction_vectors(ra, dec)], axis=-2)


@lru_cache(maxsize=64)
def _basis(ra: float, dec: float, turn: float) -> np.ndarray:
    """Return the basis of one direction; patches by the thousand are placed about the same few centres."""
    basis = uvw_basis(ra, dec)
    if turn != 0:
        east, north, toward = basis
        sin, cos = math.sin(turn), math.cos(turn)
        basis = np.stack([cos * east - sin * north, sin * east + cos * north, toward])
    basis.setflags(write=False)
    return basis


def direction_cosines(ra: np.ndarray, dec: np.ndarray, centre: tuple[float, float], turn: float = 0.0) -> np.ndarray:
    """Return (l, m, n) of the directions ``ra``, ``dec`` [...] (rad) as seen from ``centre``; shape [..., 3].

    ``turn`` is the position angle of m in rad, where it is not north.
    """
    return direction_vectors(np.asarray(ra, float), np.asarray(dec, float)) @ _basis(*centre, turn).T


def sky_position(
    l: np.ndarray, m: np.ndarray, centre: tuple[float, float], turn: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return right ascension (0 to 2 pi) and declination in rad of the direction cosines ``l``, ``m``.

    ``turn`` is the position angle of m in rad, where it is not north.
    """
    l, m = np.asarray(l, float), np.asarray(m, float)
    lmn = np.stack([l, m, np.sqrt(np.maximum(0.0, 1 - l**2 - m**2))], axis=-1)
    x, y, z = np.moveaxis(lmn @ _basis(*centre, turn), -1, 0)
    return np.mod(np.arctan2(y, x), 2 * np.pi), np.arcsin(np.clip(z, -1, 1))


def to_icrs(longitude: np.ndarray, latitude: np.ndarray, frame: BaseCoordinateFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return right ascension and declination (ICRS, rad) of longitudes and latitudes in a frame of astropy, rad."""
    from astropy.coordinates import SkyCoord  # half a second, and most of what is opened is equatorial already

    there = SkyCoord(longitude, latitude, unit="rad", frame=frame).icrs
    return there.ra.rad, there.dec.rad


def place_in_icrs(centre: tuple[float, float], frame: BaseCoordinateFrame) -> tuple[tuple[float, float], float]:
    """Return a direction of another frame in ICRS, and the position angle there of the north of that frame, rad."""
    _, north, toward = uvw_basis(*centre)
    x, y, z = math.cos(_STEP) * toward + math.sin(_STEP) * north
    there = np.array([centre[0], math.atan2(y, x)]), np.array([centre[1], math.asin(z)])
    ra, dec = to_icrs(*there, frame)
    here = float(ra[0] % (2 * math.pi)), float(dec[0])
    l, m, _ = direction_cosines(ra[1:], dec[1:], here)[0]
    return here, math.atan2(l, m)


def frame_turn(frame: str, to: str) -> np.ndarray:
    """Return the matrix [3, 3] that turns equatorial vectors of one frame, ICRS or J2000, into those of the other."""
    if frame == to:
        return np.eye(3)
    eta, xi, alpha = _BIAS if (frame, to) == ("ICRS", "J2000") else -_BIAS
    return np.array([[1.0, alpha, -xi], [-alpha, 1.0, -eta], [xi, eta, 1.0]])


def turn_uvw(uvw: np.ndarray, angle: float) -> np.ndarray:
    """Return baselines [..., 3] along other axes of east and north: theirs is at the position angle ``angle``, rad."""
    if angle == 0:
        return uvw
    sin, cos = math.sin(angle), math.cos(angle)
    return uvw @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


def separation(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Return the angle in rad between two directions (RA, Dec in rad)."""
    half = math.sin((a[1] - b[1]) / 2) ** 2 + math.cos(a[1]) * math.cos(b[1]) * math.sin((a[0] - b[0]) / 2) ** 2
    return 2 * math.asin(min(1.0, math.sqrt(half))) if math.isfinite(half) else math.nan


def lm_to_pixel(l: Coordinate, m: Coordinate, npix: tuple[int, int], pixsize: float) -> tuple[Coordinate, Coordinate]:
    """Return the 0-based pixel (x, y) of direction cosines ``l``, ``m`` relative to the image centre.

    With ``npix`` (0, 0) it is counted from the reference pixel: the way of a vector (l, m) in pixels.
    """
    return npix[0] // 2 - l / pixsize, npix[1] // 2 + m / pixsize


def pixel_to_lm(x: Coordinate, y: Coordinate, npix: tuple[int, int], pixsize: float) -> tuple[Coordinate, Coordinate]:
    """Return the direction cosines (l, m) of the 0-based pixel position (x, y)."""
    return (npix[0] // 2 - x) * pixsize, (y - npix[1] // 2) * pixsize


def beyond_horizon(npix: tuple[int, int], pixsize: float) -> np.ndarray | None:
    """Return which pixels [y, x] of an image are beyond the horizon (l^2 + m^2 > 1), bool; None if none is."""
    if (npix[0] // 2) ** 2 + (npix[1] // 2) ** 2 <= pixsize**-2:
        return None
    y, x = np.ogrid[: npix[1], : npix[0]]
    l, m = pixel_to_lm(x, y, npix, pixsize)
    return l**2 + m**2 > 1


def local_sidereal(times: Coordinate, longitude: float) -> Coordinate:
    """Return the local mean sidereal time in rad, good to a second, at ``times`` in s (MJD, UTC)."""
    days = times / 86400 - 51544.5  # since J2000.0
    return np.radians(280.46061837 + _DEGREES_PER_DAY * days) + longitude


def parallactic_angles(
    times: np.ndarray, pointing: tuple[float, float], site: tuple[float, float] = SITE
) -> np.ndarray:
    """Return the angles in rad, north through east, from the pole to the zenith at ``site`` (Meeus 1998, eq. 14.1).

    Good to 1 degree, some degrees away from the zenith and the pole: precession is left out.

    Parameters
    ----------
    times : float64 [time]
        s (MJD, UTC), as in a measurement set.
    pointing : (float, float)
        RA and Dec in rad.
    site : (float, float)
        East longitude and latitude in rad; default: MeerKAT.
    """
    hour = local_sidereal(np.asarray(times, float), site[0]) - pointing[0]
    dec, latitude = pointing[1], site[1]
    return np.arctan2(np.sin(hour), math.tan(latitude) * math.cos(dec) - math.sin(dec) * np.cos(hour))
