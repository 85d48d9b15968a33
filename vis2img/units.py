"""Units: their constants, and how people write angles, ranges, directions and times.

The command line and YAML files share the parsers of the option types below. In memory every value is in the units of
``docs/conventions.md``: radians, wavelengths, seconds (MJD), indices.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from tyro.constructors import PrimitiveConstructorSpec

ARCSEC = math.pi / 180 / 3600  # rad
FWHM_OF_SIGMA = math.sqrt(8 * math.log(2))  # of a Gaussian
SIGMA_OF_FWHM = 1 / FWHM_OF_SIGMA
_MJD_EPOCH = datetime(1858, 11, 17)
ANGLE_UNITS = {
    "rad": 1.0,
    "deg": math.pi / 180,
    "arcmin": 60 * ARCSEC,
    "amin": 60 * ARCSEC,
    "arcsec": ARCSEC,
    "asec": ARCSEC,
    "mas": 1e-3 * ARCSEC,
    "masec": 1e-3 * ARCSEC,
}
_FREQ_UNITS = {"GHz": 1e9, "MHz": 1e6, "kHz": 1e3, "Hz": 1.0}
_TIME_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_BYTE_UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_CASA_RANGE = re.compile(r"\s*(\d{1,9})\s*~\s*(\d{1,9})\s*")
_CASA_CHANNELS = re.compile(r"\s*(\d{1,9}):(\d{1,9})(?:~(\d{1,9}))?\s*")
_CASA_UV_RANGE = re.compile(
    r"\s*(?:>\s*(?P<least>[\d.]+)|<\s*(?P<most>[\d.]+)|(?P<low>[\d.]+)\s*~\s*(?P<high>[\d.]+))\s*(?P<k>k?)lambda\s*"
)
_ZERO = re.compile(r"\s*0(\.0*)?\s*")
_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_ANGLE = re.compile(rf"\s*([-+]?{_NUMBER})\s*([a-z]+)\s*")
_DURATION = re.compile(rf"\s*({_NUMBER})\s*([a-z]+)\s*")


def parse_angle(text: str) -> float:
    """Return the angle ``text`` (``2arcsec``, ``0.5deg``, ``1.5mas``, or 0 in any unit) in radians.

    Raises
    ------
    ValueError
        If the number or the unit is missing: a bare number would be degrees to WSClean and
        arcseconds to CASA, so none is assumed.
    """
    if _ZERO.fullmatch(text):
        return 0.0
    match = _ANGLE.fullmatch(text)
    if not match or match[2] not in ANGLE_UNITS:
        units = ", ".join(ANGLE_UNITS)
        raise ValueError(f"{text!r} is not an angle; write a number and a unit ({units}), e.g. 2arcsec")
    angle = float(match[1]) * ANGLE_UNITS[match[2]]
    if math.isinf(angle):
        raise ValueError(f"{text[:40]!r} is not an angle: it is beyond all numbers")
    return angle


def format_angle(radians: float, digits: int = 6) -> str:
    """Return ``radians`` in the unit that reads best, in a form that :func:`parse_angle` takes back."""
    size = abs(radians)
    limits = {"deg": ANGLE_UNITS["deg"], "arcmin": 1000 * ARCSEC, "arcsec": 0.1 * ARCSEC}
    unit = next((unit for unit, least in limits.items() if size >= least), "mas" if size else "arcsec")
    return f"{radians / ANGLE_UNITS[unit]:.{digits}g}{unit}"


def format_freq(*hertz: float, digits: int = 6) -> str:
    """Return a frequency, or a range of two (``0.856 to 1.712 GHz``), in the unit that reads best."""
    largest = max(map(abs, hertz))
    unit = next((unit for unit, size in _FREQ_UNITS.items() if largest >= size), "Hz")
    return f"{' to '.join(f'{value / _FREQ_UNITS[unit]:.{digits}g}' for value in hertz)} {unit}"


def parse_index_range(text: str) -> tuple[int | None, int | None]:
    """Return ``start:stop`` as a half-open range of indices; either end may be left out, ``7`` is one index."""
    parts = text.split(":")
    if both := _CASA_RANGE.fullmatch(text):
        meant = f"{both[1]}:{int(both[2]) + 1}"
        raise ValueError(f"{text!r} includes both ends, as CASA writes ranges; write {meant}, whose end is left out")
    try:
        if len(parts) == 1:
            start = int(parts[0])
            return start, start + 1
        low, high = parts
        return (int(low) if low.strip() else None), (int(high) if high.strip() else None)
    except ValueError:
        raise ValueError(f"{text!r} is not a range of indices; write start:stop, e.g. 0:32") from None


def format_index_range(value: tuple[int | None, int | None]) -> str:
    """Return the text form of a half-open index range."""
    return ":".join("" if end is None else str(end) for end in value)


def parse_uv_range(text: str) -> tuple[float, float]:
    """Return ``min:max`` in wavelengths; a ``k`` behind a number means thousands (``0.1k:20k``)."""

    def wavelengths(part: str, empty: float) -> float:
        part = part.strip().removesuffix("lambda")
        if not part:
            return empty
        return float(part[:-1]) * 1e3 if part.endswith("k") else float(part)

    if casa := _CASA_UV_RANGE.fullmatch(text):
        low, high = casa["low"] or casa["least"], casa["high"] or casa["most"]
        meant = ":".join(f"{end}{casa['k']}" if end else "" for end in (low, high))
        raise ValueError(f"{text!r} is a range as CASA writes it; write {meant}")
    try:
        low, high = text.split(":")
        ends = wavelengths(low, 0.0), wavelengths(high, math.inf)
        if any(map(math.isnan, ends)):
            raise ValueError
        return ends
    except ValueError:
        raise ValueError(
            f"{text!r} is not a uv range; write min:max in wavelengths, e.g. 100:20000 or 0.1k:20k"
        ) from None


def format_uv_range(value: tuple[float, float]) -> str:
    """Return the text form of a uv range in wavelengths."""
    return f"{value[0]:g}:" + ("" if math.isinf(value[1]) else f"{value[1]:g}")


def parse_npix(text: str) -> tuple[int, int]:
    """Return ``1024`` or ``1024,768`` as (npix_x, npix_y)."""
    try:
        sides = [int(part) for part in text.split(",")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2):
        raise ValueError(f"{text!r} is not an image size; write 1024 or 1024,768 (x,y)")
    return sides[0], sides[-1]


def parse_direction(text: str) -> tuple[float, float]:
    """Return ``RA,DEC`` (ICRS) in radians: ``12h30m49.4s,12d23m28s``, or two numbers in degrees."""
    from astropy import coordinates, units

    try:
        ra_text, dec_text = (part.strip() for part in text.split(","))
        ra_unit = "hourangle" if ":" in ra_text else None if re.search("[a-z]", ra_text) else "deg"
        ra = coordinates.Angle(ra_text, unit=ra_unit)
        dec = coordinates.Angle(dec_text, unit=None if re.search("[a-z]", dec_text) else "deg")
    except (ValueError, units.UnitsError):
        raise ValueError(
            f"{text!r} is not a direction; write RA,DEC, e.g. 12h30m49.4s,12d23m28s or 187.706,12.391 (degrees)"
        ) from None
    if not math.isfinite(ra.rad):
        raise ValueError(f"{text!r}: the right ascension is no number")
    if not abs(dec.rad) <= math.pi / 2:
        raise ValueError(f"{text!r}: the declination is beyond the pole")
    return float(ra.rad), float(dec.rad)


def format_direction(value: tuple[float, float]) -> str:
    """Return a direction as two numbers in degrees, which :func:`parse_direction` takes back."""
    return f"{math.degrees(value[0]):.9g},{math.degrees(value[1]):.9g}"


def parse_antennas(text: str) -> tuple[str, ...]:
    """Return a comma-separated list of antenna names or numbers."""
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if not names:
        raise ValueError("the list of antennas is empty; write names or numbers, e.g. m000,m001")
    return names


def parse_spws(text: str) -> int | tuple[int, ...] | Literal["all"]:
    """Return ``0`` as a number, ``0,2`` as numbers, or ``all``."""
    if text.strip() == "all":
        return "all"
    if both := _CASA_CHANNELS.fullmatch(text):
        last = int(both[3] or both[2]) + 1
        raise ValueError(f"{text!r} names channels, as CASA does; write --spw {both[1]} --channels {both[2]}:{last}")
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{text!r} is no spectral window; write a number, several (0,2) or all") from None
    return numbers[0] if len(numbers) == 1 else numbers


def format_spws(value: int | tuple[int, ...] | str) -> str:
    """Return the text form of spectral windows."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def parse_bytes(text: str) -> float:
    """Return ``1GB``, ``500MB`` or a number of bytes as bytes."""
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([kMGT]?)B?\s*", text)
    if not match:
        raise ValueError(f"{text!r} is not an amount of memory; write a number and a unit, e.g. 500MB or 2GB")
    amount = float(match[1]) * _BYTE_UNITS[match[2]]
    if math.isinf(amount):
        raise ValueError(f"{text[:40]!r} is not an amount of memory: it is beyond all numbers")
    return amount


def format_bytes(value: float) -> str:
    """Return an amount of memory in the unit that reads best."""
    unit = next((u for u in "TGMk" if value >= _BYTE_UNITS[u]), "")
    return f"{value / _BYTE_UNITS[unit]:.3g}{unit}B"


def parse_duration(text: str) -> float:
    """Return ``90s``, ``10min``, ``1.5h``, ``2d``, or 0 in any unit, in seconds.

    Raises
    ------
    ValueError
        If the number or the unit is missing.
    """
    if _ZERO.fullmatch(text):
        return 0.0
    match = _DURATION.fullmatch(text)
    if not match or match[2] not in _TIME_UNITS:
        units = ", ".join(_TIME_UNITS)
        raise ValueError(f"{text[:40]!r} is not a duration; write a number and a unit ({units}), e.g. 10min")
    duration = float(match[1]) * _TIME_UNITS[match[2]]
    if math.isinf(duration):
        raise ValueError(f"{text[:40]!r} is not a duration: it is beyond all numbers")
    return duration


def format_duration(seconds: float, digits: int = 3) -> str:
    """Return seconds in the unit that reads best, in a form that :func:`parse_duration` takes back."""
    unit = next((unit for unit in ("d", "h", "min") if seconds >= _TIME_UNITS[unit]), "s")
    return f"{seconds / _TIME_UNITS[unit]:.{digits}g}{unit}"


def mjd_seconds(time: datetime) -> float:
    """Return a time (UTC) as a measurement set has it, s (MJD)."""
    return (time - _MJD_EPOCH).total_seconds()


def utc_text(seconds: float) -> str | None:
    """Return a measurement set time (s, MJD UTC) as ISO 8601, or None when it is no date."""
    try:
        return (_MJD_EPOCH + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError):
        return None


@dataclass(frozen=True)
class Form(PrimitiveConstructorSpec[Any]):
    """How a value of a type below is written: an option of the command line, and a value of a YAML file."""

    spell: Callable[[Any], str] = str
    """Text that gives the very same value; help texts are content with fewer digits."""
    bare: bool = True
    """Whether the numbers in memory mean something by themselves, as indices do and angles do not."""
    takes_keys: bool = False
    """Whether a YAML file gives keys and values in its place."""

    def read(self, value: Any) -> Any:
        """Return what ``value`` of a YAML file means; a ValueError says what is wrong with it."""
        text = str(value)
        if self.bare and isinstance(value, list):
            with contextlib.suppress(AttributeError, IndexError, OverflowError, TypeError):  # the parser tells
                text = self.spell(tuple(value))
        return self.instance_from_str([text])

    def write(self, value: Any) -> Any:
        """Return ``value`` as a YAML file holds it, such that :meth:`read` gives it back."""
        if not self.bare:
            return self.spell(value)
        return list(value) if isinstance(value, tuple) else value


def _form(
    metavar: str,
    parse: Callable[[str], Any],
    show: Callable[[Any], str],
    spell: Callable[[Any], str] | None = None,
    bare: bool = True,
) -> Form:
    return Form(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda args: parse(args[0]),
        is_instance=lambda value: isinstance(value, (float, int, tuple, str)),
        str_from_instance=lambda value: [show(value)],
        spell=spell or show,
        bare=bare,
    )


def _spell_angles(*angles: float) -> str:
    return ",".join(f"{float(angle)!r}rad" for angle in angles)


def _spell_uv_range(value: tuple[float, float]) -> str:
    return f"{value[0]!r}:" + ("" if math.isinf(value[1]) else repr(value[1]))


def _spell_list(value: tuple[Any, ...]) -> str:
    return ",".join(map(str, value))


Angle = Annotated[float, _form("ANGLE", parse_angle, format_angle, _spell_angles, bare=False)]
IndexRange = Annotated[tuple[int | None, int | None], _form("START:STOP", parse_index_range, format_index_range)]
UVRange = Annotated[tuple[float, float], _form("MIN:MAX", parse_uv_range, format_uv_range, _spell_uv_range)]
Npix = Annotated[tuple[int, int], _form("X[,Y]", parse_npix, _spell_list)]
Direction = Annotated[
    tuple[float, float],
    _form("RA,DEC", parse_direction, format_direction, lambda value: _spell_angles(*value), bare=False),
]
Antennas = Annotated[tuple[str, ...], _form("A,B,...", parse_antennas, _spell_list)]
Spws = Annotated[int | tuple[int, ...] | Literal["all"], _form("N,...|all", parse_spws, format_spws)]
Memory = Annotated[float, _form("BYTES", parse_bytes, format_bytes, repr)]
Duration = Annotated[
    float, _form("DURATION", parse_duration, format_duration, lambda value: f"{float(value)!r}s", bare=False)
]
