"""Directions as a measurement set has them: in any frame, moving with time or not; where they are at one time.

Reference: Kemball & Wieringa 2000, *MeasurementSet definition version 2.0* (AIPS++ note 229), FIELD; frames and
ephemerides as casacore's MSFieldColumns and MeasComet read them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vis2img.coordinates import direction_vectors, uvw_basis
from vis2img.ms.measures import (
    BODIES,
    CODES,
    COMET,
    EARTH,
    EQUATORIAL,
    FRAMES,
    J2000,
    Angles,
    convert,
    north_of,
    to_utc,
)
from vis2img.ms.tables import find_subtable, in_unit, measinfo, open_folder, table

_SYNONYMS = {"FK5": J2000, "FK4": "B1950"}
_UNITS = {"rad": 1.0, "deg": math.pi / 180, "arcmin": math.pi / 10800, "arcsec": math.pi / 648000}
_MOST_LONGITUDE = 4 * math.pi  # rad; a larger one is in other units
_MOST_OFFSET = 0.1  # rad, of a field from what it follows; PHASE_DIR of such a field is an offset
_AU, _DAY = 149_597_870_700.0, 86400.0  # m, s


@dataclass(frozen=True, eq=False)
class Ephemeris:
    """The way of a body, a row a time: as ``FIELD/EPHEM0_NAME.tab`` has it."""

    name: str
    frame: str
    geocentric: bool
    time: np.ndarray
    """float64 [row]: s (MJD, UTC), increasing."""
    vector: np.ndarray
    """float64 [row, 3]: Where it is, au."""

    def at(self, time: float, site: np.ndarray | None) -> Angles:
        """Return where it is seen from the telescope, in ``frame``, by linear interpolation as casacore does it.

        Raises
        ------
        ValueError
            If it does not reach to ``time``.
        """
        if not self.time[0] <= time <= self.time[-1]:
            raise ValueError(f"the ephemeris {self.name} does not reach to the time of the data")
        vector = np.array([np.interp(time, self.time, each) for each in self.vector.T])
        if self.geocentric and site is not None and self.frame in EQUATORIAL:
            radius = float(np.linalg.norm(site))
            x, y, z = site / radius
            up = convert((math.atan2(y, x), math.asin(z)), "ITRF", self.frame, time, site)
            vector -= radius / _AU * direction_vectors(*up)
        return _angles(vector)


@dataclass(frozen=True, eq=False)
class Course:
    """A direction of FIELD: in its frame a polynomial in time, or an offset from what it follows."""

    frame: str
    coefficients: np.ndarray
    """float64 [order + 1, 2]: Longitude and latitude, rad and rad/s, ..."""
    start: float = 0.0
    """When the polynomial is at its first coefficient, s (MJD, UTC)."""
    ephemeris: Ephemeris | None = None

    @property
    def steady(self) -> bool:
        """Whether it is one direction at any time, in an equatorial frame: nothing is to be evaluated."""
        return self.frame in EQUATORIAL and len(self.coefficients) == 1 and self.ephemeris is None

    @property
    def moves(self) -> bool:
        """Whether it is another place on the sky at another time."""
        fixed = self.frame not in (*EARTH, *BODIES)
        return not (fixed and len(self.coefficients) == 1 and self.ephemeris is None)

    @property
    def target(self) -> str:
        """The frame of images: ICRS where the direction is, J2000 of all others."""
        return self.frame if self.frame in EQUATORIAL else J2000

    @property
    def axes(self) -> str:
        """The frame whose north UVW keep to, if the UVW column does not tell."""
        if self.frame in EARTH:
            return "APP"  # the pole about which the Earth turns
        return J2000 if self.frame in BODIES else self.frame

    def at(self, time: float, site: np.ndarray | None) -> Angles:
        """Return right ascension (0 to 2 pi) and declination in rad, in ``target``, at ``time`` in s (MJD, UTC).

        Raises
        ------
        ValueError
            If it is no direction, or cannot be converted.
        """
        longitude, latitude = map(float, self.coefficients[-1])
        for first, second in self.coefficients[-2::-1].tolist():
            longitude, latitude = (longitude * (time - self.start) + first, latitude * (time - self.start) + second)
        check(longitude, latitude)
        if self.steady:
            return longitude % (2 * math.pi), latitude
        if self.ephemeris is None:
            longitude, latitude = convert((longitude, latitude), self.frame, self.target, time, site)
            return longitude % (2 * math.pi), latitude
        # The offset is along great circles from where the body is, as if that were at 0, 0.
        east, north, toward = uvw_basis(*self.ephemeris.at(time, site))
        vector = direction_vectors(longitude, latitude) @ np.stack([toward, east, north])
        return convert(_angles(vector), self.ephemeris.frame, self.target, time, site)

    def turn(self, axes: str | None, time: float, site: np.ndarray | None) -> float:
        """Return the position angle in rad of the north of UVW in ``target``; 0 where they have the same.

        Parameters
        ----------
        axes : str or None
            Frame of UVW, if the column tells it.
        time, site
            As :meth:`at`.
        """
        axes = axes or self.axes
        return 0.0 if axes in EQUATORIAL else north_of(axes, self.at(time, site), self.target, time, site)


def check(longitude: float, latitude: float) -> None:
    """Refuse what is no direction (rad); a ValueError says why."""
    if not (math.isfinite(longitude) and math.isfinite(latitude)):
        raise ValueError("is not finite")
    if abs(latitude) > math.pi / 2 + 1e-9:
        raise ValueError(f"has a declination of {math.degrees(latitude):.5g} deg")
    if abs(longitude) > _MOST_LONGITUDE:
        raise ValueError(f"has a right ascension of {longitude:.5g} rad (degrees in place of radians?)")


def _angles(vector: np.ndarray) -> Angles:
    x, y, z = map(float, vector / np.linalg.norm(vector))
    return math.atan2(y, x) % (2 * math.pi), math.asin(max(-1.0, min(1.0, z)))


class DirectionColumn:
    """A column of directions of FIELD, and what says how to read it; there may be thousands of rows.

    Parameters
    ----------
    t : table
        FIELD, open.
    name : str
        PHASE_DIR, DELAY_DIR, ...
    path : Path
        Of the measurement set.
    """

    def __init__(self, t: table, name: str, path: Path) -> None:
        self._table, self._name, self._path = t, name, path
        keywords, self._names = t.getcolkeywords(name), frozenset(t.colnames())
        self._units = [str(unit) for unit in np.atleast_1d(keywords.get("QuantumUnits", ["rad", "rad"]))]
        self._measinfo = measinfo(t, name)
        codes, types = (np.atleast_1d(self._measinfo.get(key, [])) for key in ("TabRefCodes", "TabRefTypes"))
        self._known = dict(zip(codes.tolist(), map(str, types), strict=False)) or CODES
        variable = self._measinfo.get("VarRefCol")
        self._variable = None if variable is None else str(variable)
        self._of_rows = t.getcol(self._variable) if self._variable in self._names else None
        self._orders, self._ephemerides = (
            np.asarray(t.getcol(each)) if each in self._names else np.full(t.nrows(), none)
            for each, none in (("NUM_POLY", 0), ("EPHEMERIS_ID", -1))
        )
        try:
            cells = t.getcol(name)
        except RuntimeError:  # cells of several shapes, or without a value
            cells = None
        self._cells: np.ndarray | None = cells if isinstance(cells, np.ndarray) else None

    def course(self, row: int) -> Course:
        """Return what a row has.

        Raises
        ------
        ValueError
            If it has no direction, or in a frame that is not known; the text says why, without the name of the column.
        """
        frame, values = self._frame(row), self._values(row)
        order, number = _whole(self._orders[row], "NUM_POLY"), _whole(self._ephemerides[row], "EPHEMERIS_ID")
        if order > 0 and len(values) <= order:
            raise ValueError(f"has {len(values)} coefficients of a polynomial, and NUM_POLY says {order + 1}")
        check(*map(float, values[0]))
        if number >= 0:
            if np.abs(values[0]).max() > _MOST_OFFSET:
                raise ValueError(f"is no offset from ephemeris {number}, as EPHEMERIS_ID has it")
            ephemeris = read_ephemeris(self._path, number)
            return Course(frame if frame in EQUATORIAL else J2000, values[:1], ephemeris=ephemeris)
        if frame == COMET:
            raise ValueError("follows a comet, and EPHEMERIS_ID names no table of it")
        start = time_utc(self._table, row, self._path) if order > 0 else 0.0
        return Course(frame, values[: max(0, order) + 1], start)

    def _values(self, row: int) -> np.ndarray:
        """Return longitude and latitude, and what follows of a polynomial, float64 [order + 1, 2] in rad."""
        if self._cells is None and not self._table.iscelldefined(self._name, row):
            raise ValueError("has no value")
        cell = self._table.getcell(self._name, row) if self._cells is None else self._cells[row]
        if np.iscomplexobj(cell) or isinstance(cell, dict):  # text
            raise ValueError("holds no angles")
        values = np.asarray(cell, dtype=float)
        if values.size < 2 or values.size % 2:
            raise ValueError("has not two numbers")
        if not set(self._units) <= set(_UNITS):
            raise ValueError(f"is in {' and '.join(self._units)}, which are no angles")
        values = values.reshape(-1, 2)
        first, last = self._units[0], self._units[-1]
        return values if first == last == "rad" else values * [_UNITS[first], _UNITS[last]]

    def _frame(self, row: int) -> str:
        """Return the frame of a row, by its name: that of the column, or of the row where the keywords say so."""
        frame = self._measinfo.get("Ref", J2000)
        if self._variable is not None:
            if self._of_rows is None:
                raise ValueError(f"has its frame in a column {self._variable}, which is not there")
            frame = self._of_rows[row]
            if not isinstance(frame, str):
                if np.ndim(frame) or frame not in self._known:
                    raise ValueError(f"has a frame of the number {frame}, which {self._variable} does not explain")
                frame = self._known[frame]
        name = str(frame).strip().upper()
        name = _SYNONYMS.get(name, name)
        if name not in FRAMES:
            raise ValueError(f"is in the frame {name or 'of no name'}, which casacore does not know")
        return name


def _whole(value: object, column: str) -> int:
    if not isinstance(value, int | np.integer):
        raise ValueError(f"has {value} in {column}, which is no whole number")
    return int(value)


def axes_of(main: table) -> str | None:
    """Return the frame of the axes of UVW, where its column tells one; ITRF, the default of the table, tells none.

    Raises
    ------
    ValueError
        If they are said to be along axes of the horizon, which are no east and north on the sky.
    """
    frame = str(measinfo(main, "UVW").get("Ref", "")).strip().upper()
    frame = _SYNONYMS.get(frame, frame)
    if frame in EARTH and frame != "ITRF":
        raise ValueError(f"UVW are said to be along axes of {frame}; write them anew along J2000 (e.g. CASA fixvis)")
    return frame if frame in FRAMES and frame not in (*EARTH, *BODIES, COMET) else None


def time_utc(t: table, row: int, path: Path) -> float:
    """Return TIME of a row of a table in s (MJD, UTC)."""
    value = in_unit(t, "TIME", np.array([t.getcell("TIME", row)], dtype=float), "s", path)
    return float(to_utc(value, str(measinfo(t, "TIME").get("Ref", "UTC")))[0])


def read_ephemeris(path: Path, number: int) -> Ephemeris:
    """Return the ephemeris that EPHEMERIS_ID names: ``FIELD/EPHEM<number>_*.tab``, in the format of CASA and ALMA.

    Raises
    ------
    ValueError
        If there is none, or it cannot be read.
    """
    found = sorted((find_subtable(path, "FIELD") or path / "FIELD").glob(f"EPHEM{number}_*.tab"))
    if not found:
        raise ValueError(f"follows ephemeris {number}, and its table FIELD/EPHEM{number}_*.tab is not there")
    with open_folder(found[0]) as t:
        missing = sorted({"MJD", "RA", "DEC"} - set(t.colnames()))
        if missing or t.nrows() < 2:
            raise ValueError(f"follows {found[0].name}, which has {'no ' + missing[0] if missing else 'too few rows'}")
        mjd, ra, dec = (np.asarray(t.getcol(name), float) for name in ("MJD", "RA", "DEC"))
        far = np.asarray(t.getcol("Rho"), float) if "Rho" in t.colnames() else np.full(len(mjd), np.inf)
        keywords = t.getkeywords()
    if not (np.isfinite([mjd, ra, dec]).all() and (np.diff(mjd) > 0).all()):
        raise ValueError(f"follows {found[0].name}, whose times do not increase or whose values are not finite")
    distant = not (np.isfinite(far).all() and (far > 0).all())
    told, geocentric = str(keywords.get("posrefsys", "")).upper(), not keywords.get("GeoDist", 0.0)
    known = next((name for name in (J2000, "B1950", "APP", "ICRS", "TOPO") if name in told), None)
    if told and known is None:
        raise ValueError(f"follows {found[0].name}, whose posrefsys {told} is not known")
    vector = direction_vectors(np.radians(ra), np.radians(dec)) * (1.0 if distant else far[:, np.newaxis])
    frame = known or ("APP" if geocentric else "TOPO")
    return Ephemeris(found[0].name, frame, geocentric and not distant, mjd * _DAY, vector)
