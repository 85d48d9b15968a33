"""casacore's measures: directions and times of any frame, at a time and a place on the Earth.

The one module that calls them. They come with tables of the Earth's rotation and of the planets, which reach as far as
the casacore package is new: behind their end UT1 counts as UTC, so that what is fixed to the Earth (AZEL, HADEC) is off
by at most 0.9 s of its rotation, 14 arcsec.
"""

from __future__ import annotations

import math

import numpy as np
from casacore.measures import measures

from vis2img.coordinates import direction_vectors, uvw_basis
from vis2img.machine import stderr_dropped

Angles = tuple[float, float]
"""Longitude and latitude in rad."""

J2000, ICRS = "J2000", "ICRS"
EQUATORIAL = (J2000, ICRS)
"""What images are in. Their axes are within 0.03 arcsec of each other."""
# Names of MDirection (casacore measures/MDirection.h), by whether a place in them is one on the sky at any time ...
STEADY = (*EQUATORIAL, "B1950", "B1950_VLA", "GALACTIC", "SUPERGAL", "ECLIPTIC")
OF_DATE = ("JMEAN", "JTRUE", "JNAT", "APP", "TOPO", "BMEAN", "BTRUE", "MECLIPTIC", "TECLIPTIC")
EARTH = ("HADEC", "AZEL", "AZELNE", "AZELSW", "AZELGEO", "AZELNEGEO", "AZELSWGEO", "ITRF")
BODIES = ("MERCURY", "VENUS", "MARS", "JUPITER", "SATURN", "URANUS", "NEPTUNE", "PLUTO", "SUN", "MOON")
COMET = "COMET"
FRAMES = (*STEADY, *OF_DATE, *EARTH, *BODIES, COMET)
# ... and their numbers in columns of frames.
_NUMBERED = (
    "J2000", "JMEAN", "JTRUE", "APP", "B1950", "B1950_VLA", "BMEAN", "BTRUE", "GALACTIC", "HADEC", "AZEL", "AZELSW",
    "AZELGEO", "AZELSWGEO", "JNAT", "ECLIPTIC", "MECLIPTIC", "TECLIPTIC", "SUPERGAL", "ITRF", "TOPO", "ICRS",
)  # fmt: skip
CODES = {**dict(enumerate(_NUMBERED)), **dict(enumerate((*BODIES, COMET), start=32))}
TIME_SCALES = ("UTC", "TAI", "TT", "TDT", "ET", "UT1", "UT", "UT2", "TDB", "TCB", "TCG", "IAT")
_EARTH_RADIUS = (6.3e6, 6.5e6)  # m, between which antennas stand
_STEP = 1e-4  # rad, over which the direction of north is looked at
_GRID = 3600.0  # s, at which the difference of time scales is asked for
_MOST = 20_000  # times asked for at most


def convert(place: Angles, frame: str, to: str, time: float, site: np.ndarray | None) -> Angles:
    """Return a direction in another frame.

    Parameters
    ----------
    place : (float, float)
        Longitude and latitude in ``frame``, rad; of a body of the solar system, the offset from it.
    frame, to : str
        Of :data:`FRAMES`.
    time : float
        s (MJD, UTC).
    site : float64 [3] or None
        Place of the telescope, m (ITRF).

    Raises
    ------
    ValueError
        If casacore cannot do it, as without a site for what is fixed to the Earth.
    """
    if frame == to:
        return place
    dm = measures()
    try:
        with stderr_dropped():  # casacore remarks that its table of leap seconds is old
            dm.do_frame(dm.epoch("UTC", f"{float(time) / 86400!r}d"))
            if site is not None:
                dm.do_frame(dm.position("ITRF", *(f"{float(x)!r}m" for x in site)))
            there = dm.direction(frame, *(f"{float(angle)!r}rad" for angle in place))
            if frame in BODIES:  # seen from the telescope, not from the middle of the Earth
                there = dm.measure(there, "TOPO")
            there = dm.measure(there, to)
    except RuntimeError as error:
        raise ValueError(str(error).strip()) from error
    longitude, latitude = (float(there[name]["value"]) for name in ("m0", "m1"))
    return longitude % (2 * math.pi), latitude


def north_of(axes: str, place: Angles, frame: str, time: float, site: np.ndarray | None) -> float:
    """Return the position angle in rad, in ``frame`` at ``place``, of the north of the frame ``axes``.

    Raises
    ------
    ValueError
        As :func:`convert`.
    """
    there = convert(place, frame, axes, time, site)
    _, north, toward = uvw_basis(*there)
    x, y, z = math.cos(_STEP) * toward + math.sin(_STEP) * north
    step = convert((math.atan2(y, x), math.asin(z)), axes, frame, time, site)
    # From the place as it comes back, so that what a round trip loses is no part of the step.
    back = convert(there, axes, frame, time, site)
    east, up, _ = uvw_basis(*back) @ direction_vectors(*step)
    return math.atan2(east, up)


def site_of(positions: np.ndarray, telescope: str) -> np.ndarray | None:
    """Return the middle of antennas, m (ITRF), of those that stand on the Earth; else the telescope's place, if known.

    Parameters
    ----------
    positions : float64 [antenna, 3]
        m (ITRF).
    telescope : str
        Name, as casacore lists them.
    """
    positions = np.asarray(positions, float).reshape(-1, 3)
    low, high = _EARTH_RADIUS
    radius = np.sqrt(np.sum(positions**2, axis=1))
    there = positions[(radius > low) & (radius < high)]  # not true for NaN
    if len(there):
        return np.asarray(there.mean(axis=0))
    dm = measures()
    try:
        with stderr_dropped():
            at = dm.measure(dm.observatory(telescope), "ITRF")
    except RuntimeError:
        return None
    longitude, latitude, radius = (float(at[name]["value"]) for name in ("m0", "m1", "m2"))
    return np.asarray(radius * direction_vectors(longitude, latitude))


def to_utc(times: np.ndarray, scale: str) -> np.ndarray:
    """Return times in s (MJD) of another scale in UTC.

    Differences of scales are asked for once an hour: they change by a millisecond a day, and by leap seconds.

    Raises
    ------
    ValueError
        If ``scale`` is none of :data:`TIME_SCALES`, as sidereal times are not.
    """
    scale = scale.strip().upper()
    if scale == "UTC" or not len(times):
        return times
    if scale not in TIME_SCALES:
        raise ValueError(f"the time scale {scale} is none of {', '.join(TIME_SCALES)}")
    known = np.isfinite(times) & (np.abs(times) < 1e11)  # year 5000
    if not known.any():
        return times
    first, last = float(times[known].min()), float(times[known].max())
    grid = np.linspace(first, last, min(_MOST, math.ceil((last - first) / _GRID) + 1))
    dm, later = measures(), []
    with stderr_dropped():
        for time in map(float, grid):
            at = dm.measure(dm.epoch(scale, f"{time / 86400!r}d"), "UTC")
            later.append((float(at["m0"]["value"]) - time / 86400) * 86400)
    return np.where(known, times + np.interp(times, grid, later), times)
