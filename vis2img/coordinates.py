"""Phase rotation: point an observation at another phase centre.

With direction cosines (l, m, n) of the new centre in the old frame, the baseline vector b is projected on
the axes of the new frame, and visibilities are multiplied by the phase that takes the delay of the new
centre out (Thompson, Moran & Swenson 2017, *Interferometry and Synthesis in Radio Astronomy*, ch. 3).
The sign of the phase is that of :mod:`vis2img.imaging.gridding`.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta

import numpy as np


def uvw_basis(ra: float, dec: float) -> np.ndarray:
    """Return the unit vectors of u (east), v (north) and w (to the source) as rows, in equatorial axes.

    Parameters
    ----------
    ra, dec : float
        Direction in rad.

    Returns
    -------
    float64 [3, 3]
    """
    sin_ra, cos_ra, sin_dec, cos_dec = math.sin(ra), math.cos(ra), math.sin(dec), math.cos(dec)
    return np.array(
        [
            [-sin_ra, cos_ra, 0.0],
            [-sin_dec * cos_ra, -sin_dec * sin_ra, cos_dec],
            [cos_dec * cos_ra, cos_dec * sin_ra, sin_dec],
        ]
    )


def direction_cosines(ra: np.ndarray, dec: np.ndarray, centre: tuple[float, float]) -> np.ndarray:
    """Return (l, m, n) of the directions ``ra``, ``dec`` [...] (rad) as seen from ``centre``; shape [..., 3]."""
    ra, dec = np.asarray(ra, float), np.asarray(dec, float)
    towards = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)
    return towards @ uvw_basis(*centre).T


def sky_position(l: np.ndarray, m: np.ndarray, centre: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return right ascension (0 to 2 pi) and declination in rad of the direction cosines ``l``, ``m``."""
    l, m = np.asarray(l, float), np.asarray(m, float)
    lmn = np.stack([l, m, np.sqrt(np.maximum(0.0, 1 - l**2 - m**2))], axis=-1)
    x, y, z = np.moveaxis(lmn @ uvw_basis(*centre), -1, 0)
    return np.mod(np.arctan2(y, x), 2 * np.pi), np.arcsin(np.clip(z, -1, 1))


def lm_to_pixel(l: float, m: float, npix: tuple[int, int], pixsize: float) -> tuple[float, float]:
    """Return the 0-based pixel (x, y) of direction cosines ``l``, ``m`` relative to the image centre."""
    return npix[0] // 2 - l / pixsize, npix[1] // 2 + m / pixsize


def pixel_to_lm(x: float, y: float, npix: tuple[int, int], pixsize: float) -> tuple[float, float]:
    """Return the direction cosines (l, m) of the 0-based pixel position (x, y)."""
    return (npix[0] // 2 - x) * pixsize, (y - npix[1] // 2) * pixsize


def separation(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Return the angle in rad between two directions (RA, Dec in rad)."""
    half = math.sin((a[1] - b[1]) / 2) ** 2 + math.cos(a[1]) * math.cos(b[1]) * math.sin((a[0] - b[0]) / 2) ** 2
    return 2 * math.asin(min(1.0, math.sqrt(half))) if math.isfinite(half) else math.nan


def vectors(ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the unit vectors east, north and towards the directions; float64 [k, 3] each."""
    sin_ra, cos_ra, sin_dec, cos_dec = np.sin(ra), np.cos(ra), np.sin(dec), np.cos(dec)
    east = np.stack([-sin_ra, cos_ra, np.zeros_like(ra)], axis=-1)
    north = np.stack([-sin_dec * cos_ra, -sin_dec * sin_ra, cos_dec], axis=-1)
    return east, north, np.stack([cos_dec * cos_ra, cos_dec * sin_ra, sin_dec], axis=-1)


SITE = (math.radians(21.4439), math.radians(-30.7110))  # east longitude and latitude of MeerKAT's centre, rad


def parallactic_angles(
    times: np.ndarray, pointing: tuple[float, float], site: tuple[float, float] = SITE
) -> np.ndarray:
    """Return the angles in rad, north through east, from the pole to the zenith at ``site``.

    Good to 1 degree, some degrees away from the zenith and the pole: precession is left out.

    Parameters
    ----------
    times : float64 [time]
        s (MJD, UTC), as in a measurement set.
    pointing : (float, float)
        RA and Dec in rad.
    site : (float, float)
        East longitude and latitude in rad; default: MeerKAT.

    Notes
    -----
    Sidereal time from Meeus 1998, *Astronomical Algorithms*, eq. 12.4; the angle from eq. 14.1.
    """
    days = np.asarray(times, float) / 86400 - 51544.5  # since J2000.0
    sidereal = np.radians(280.46061837 + 360.98564736629 * days) + site[0]
    hour, dec, latitude = sidereal - pointing[0], pointing[1], site[1]
    return np.arctan2(np.sin(hour), math.tan(latitude) * math.cos(dec) - math.sin(dec) * np.cos(hour))


_SIDEREAL = math.radians(360.98564736629)  # per day (Meeus 1998, eq. 12.4)


def local_sidereal(time: datetime, longitude: float) -> float:
    """Return the local mean sidereal time in rad, good to a second (Meeus 1998, eq. 12.4)."""
    days = (time - datetime(2000, 1, 1, 12)) / timedelta(days=1)
    return math.radians(280.46061837) + _SIDEREAL * days + longitude
