"""The rows of FIELD: where each was observed, as right ascension and declination, whatever FIELD has it in.

Directions are ICRS where FIELD has ICRS, and FK5 J2000 of all other frames, as casacore's measures convert them at the
time of the data, seen from the middle of the antennas. UVW keep to the axes of the frame that FIELD has a direction in
(or that the UVW column names): their north is turned to that of the image.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from vis2img.coordinates import separation
from vis2img.errors import MeasurementSetError, Vis2imgWarning
from vis2img.ms.directions import Course, DirectionColumn
from vis2img.ms.measures import EARTH, EQUATORIAL, Angles, site_of
from vis2img.ms.subtables import antenna_positions, telescopes
from vis2img.ms.tables import subtable
from vis2img.units import format_angle

Span = tuple[float, float]
"""First and last time in s (MJD, UTC)."""

_SAME_PLACE = 0.5  # of the finest fringe, that the phase centre may move from the middle of the data
_SAME_POINTING = math.radians(5)  # a DELAY_DIR further from the phase centre is no pointing


@dataclass(frozen=True)
class FieldInfo:
    """A row of FIELD: where it was observed.

    Parameters
    ----------
    id : int
    name : str
    phase_centre, pointing : (float, float)
        Phase centre, and where the dishes pointed, RA and Dec in rad; of what moves, in the middle of the data.
    frame : {"J2000", "ICRS"}
        What they are in.
    stored : str
        The frame that FIELD has the phase centre in.
    turn : float
        Position angle in rad of the north of UVW in ``frame``.
    motion : float
        How far the phase centre is from there at the ends of the data, rad.
    trouble : str
        Why it cannot be imaged; empty where it can.
    """

    id: int
    name: str
    phase_centre: Angles
    frame: str
    pointing: Angles
    stored: str = ""
    turn: float = 0.0
    motion: float = 0.0
    trouble: str = ""
    row: _Row | None = field(default=None, repr=False, compare=False)

    @property
    def moves(self) -> bool:
        """Whether it is another place on the sky at another time."""
        return self.row is not None and self.row.phase.moves

    @property
    def on_earth(self) -> bool:
        """Whether it is fixed to the Earth, so that the sky passes through it."""
        return self.stored in EARTH

    def check(self, path: Path, fringe: float) -> None:
        """Refuse a field that cannot be imaged, and warn of one that moves by more than half a fringe (rad).

        What follows a body is imaged in axes that move with it, as it was observed. Through a field that is fixed to
        the Earth the sky passes, and no one image shows it.

        Raises
        ------
        MeasurementSetError
            Names the row and what is wrong with it.
        """
        if self.trouble:
            raise MeasurementSetError(f"{path}: {self.trouble}")
        if not self.motion > fringe * _SAME_PLACE:
            return
        way = f"moves by {format_angle(self.motion, 3)} either way during the data"
        if self.on_earth:
            raise MeasurementSetError(
                f"{path}: FIELD row {self.id} ({self.name!r}) is fixed to the Earth ({self.stored}) and {way}, and the "
                f"finest fringe is {format_angle(fringe, 3)}: choose times (--times 0:1), or phase it to one place"
            )
        warnings.warn(
            f"{path}: field {self.name!r} follows what {way}; the image is centred on it, and has the coordinates of "
            "the middle of the data",
            Vis2imgWarning,
            stacklevel=2,
        )

    def at(self, span: Span) -> FieldInfo:
        """Return where it was between two other times."""
        return self if self.row is None else self.row.place(span)


@dataclass(frozen=True, eq=False)
class _Row:
    """A row of FIELD as it is stored."""

    id: int
    name: str
    phase: Course
    delay: Course | None
    axes: str | None
    site: np.ndarray | None

    def place(self, span: Span) -> FieldInfo:
        """Return where it was between two times, and by how much it moved."""
        phase, middle = self.phase, (span[0] + span[1]) / 2
        unknown = (math.nan, math.nan)
        info = FieldInfo(self.id, self.name, unknown, phase.target, unknown, phase.frame, row=self)
        try:
            centre = phase.at(middle, self.site)
            ends = [phase.at(time, self.site) for time in span] if phase.moves else []
            turn = phase.turn(self.axes, middle, self.site)
        except ValueError as error:
            return replace(info, trouble=_trouble(self.id, self.name, f"its PHASE_DIR {_reason(error, self)}"))
        motion = max((separation(centre, end) for end in ends), default=0.0)
        return replace(info, phase_centre=centre, pointing=self.pointing(centre, middle), turn=turn, motion=motion)

    def pointing(self, centre: Angles, time: float) -> Angles:
        """Return where the dishes pointed: DELAY_DIR, which moving the phase centre leaves alone (CASA, chgcentre).

        The phase centre, where there is none, or none that can be one: not finite, or far away.
        """
        try:
            place = centre if self.delay is None else self.delay.at(time, self.site)
        except ValueError:
            return centre
        return place if separation(place, centre) <= _SAME_POINTING else centre


def fields(path: Path, axes: str | None, span_of: Callable[[int], Span]) -> tuple[FieldInfo, ...]:
    """Return the rows of FIELD.

    Parameters
    ----------
    path : Path
        Of the measurement set.
    axes : str or None
        Frame of the axes of UVW, if it is told.
    span_of : callable
        Returns the first and last time of the data of a row of FIELD in s (MJD, UTC); asked only where it counts.
    """
    result = []
    site: list[np.ndarray | None] = []
    with subtable(path, "FIELD") as t:
        if not t.nrows():
            raise MeasurementSetError(f"{path}: the FIELD table has no row, so the phase centre is unknown")
        phases = DirectionColumn(t, "PHASE_DIR", path)
        delays = DirectionColumn(t, "DELAY_DIR", path) if "DELAY_DIR" in t.colnames() else None
        for i, name in enumerate(t.getcol("NAME")):
            try:
                phase = phases.course(i)
            except ValueError as error:
                unknown = (math.nan, math.nan)
                trouble = _trouble(i, name, f"its PHASE_DIR {error}")
                result.append(FieldInfo(i, name, unknown, "J2000", unknown, trouble=trouble))
                continue
            delay = _delay(delays, i)
            plain = phase.steady and axes in (None, *EQUATORIAL) and (delay is None or delay.steady)
            if not plain and not site:
                site.append(site_of(antenna_positions(path), telescopes(path)[0]))
            row = _Row(i, name, phase, delay, axes, None if plain else site[0])
            result.append(row.place((0.0, 0.0) if plain else span_of(i)))
    return tuple(result)


def _delay(column: DirectionColumn | None, row: int) -> Course | None:
    try:
        return None if column is None else column.course(row)
    except ValueError:
        return None


def _reason(error: ValueError, row: _Row) -> str:
    """Return what is wrong; what casacore says of a conversion is put into words."""
    if "missing frame information" not in str(error):
        return str(error)
    missing = "no antenna has a position on the Earth to see it from"
    if row.site is not None:
        missing = "casacore finds no tables of leap seconds (measures.directory in ~/.casarc tells where they are)"
    return f"is in the frame {row.phase.frame}, and {missing}"


def _trouble(number: int, name: str, text: str) -> str:
    return f"FIELD row {number} ({name!r}): {text}; write its direction anew"
