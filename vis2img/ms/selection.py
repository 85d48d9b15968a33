"""What exactly a :class:`Selection` reads of a measurement set: field, bands, column, correlations, channels, rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vis2img.errors import MeasurementSetError, ParameterError
from vis2img.ms.fields import FieldInfo
from vis2img.ms.metadata import LONGEST_BASELINE, Metadata, Partition
from vis2img.shapes import Float64, Int
from vis2img.units import Antennas, IndexRange, Spws


@dataclass(frozen=True)
class Selection:
    """Which visibilities of a measurement set are read."""

    field: str | None = None
    """Field name or FIELD_ID; default: the first field that has data."""
    spw: Spws | None = None
    """Spectral windows (SPECTRAL_WINDOW_ID): 0, or 0,2, or all; default: the first that has data and can form
    the Stokes parameters."""
    column: str | None = None
    """Data column; default: CORRECTED_DATA, else DATA, else MODEL_DATA, whichever is there first."""
    channels: IndexRange = (None, None)
    """Channels start:stop, in the order of increasing frequency."""
    times: IndexRange = (None, None)
    """Timesteps start:stop, counted over the distinct times of the field and spectral window."""
    antennas: Antennas | None = None
    """Only baselines between these antennas (names or numbers)."""
    weight_column: Literal["auto", "WEIGHT_SPECTRUM", "WEIGHT", "none"] = "auto"
    """Data weights; auto: WEIGHT_SPECTRUM, else WEIGHT. none: every sample weighs 1."""
    stokes: str = "I"
    """Stokes parameters: I, or several of I, Q, U, V without a blank (IQUV)."""

    def __post_init__(self) -> None:
        for name in ("channels", "times"):
            start, stop = getattr(self, name)
            if (start is not None and start < 0) or (stop is not None and stop <= (start or 0)):
                shown = ":".join("" if end is None else str(end) for end in (start, stop))
                raise ParameterError(f"{name} {shown} selects nothing; write start:stop with 0 <= start < stop")
        if not self.stokes or set(self.stokes) - set("IQUV") or len(set(self.stokes)) < len(self.stokes):
            raise ParameterError(f"stokes {self.stokes!r} is unknown; write I, or several of I, Q, U and V: IQUV")


@dataclass(frozen=True)
class Hands:
    """The correlations that form a Stokes parameter: (first + sign * second) * factor.

    A single correlation has ``first == second`` and sign 0.
    """

    first: int
    second: int
    sign: float
    factor: complex
    label: str


# Stokes parameters of linear and circular feeds (Hamaker & Bregman 1996, A&AS 117, 161), as casacore counts
# them: I = (XX + YY) / 2. One parallel hand alone counts as I of an unpolarised sky.
_RECIPES: dict[str, tuple[tuple[tuple[str, ...], float, complex], ...]] = {
    "I": (
        (("I",), 0, 1),
        (("XX", "YY"), 1, 0.5),
        (("RR", "LL"), 1, 0.5),
        *(((hand,), 0, 1) for hand in ("XX", "YY", "RR", "LL")),
    ),
    "Q": ((("Q",), 0, 1), (("XX", "YY"), -1, 0.5), (("RL", "LR"), 1, 0.5)),
    "U": ((("U",), 0, 1), (("XY", "YX"), 1, 0.5), (("RL", "LR"), -1, -0.5j)),
    "V": ((("V",), 0, 1), (("XY", "YX"), -1, -0.5j), (("RR", "LL"), -1, 0.5)),
}
_NEEDS = {
    "I": "XX and YY, or RR and LL",
    "Q": "XX and YY, or RL and LR",
    "U": "XY and YX, or RL and LR",
    "V": "XY and YX, or RR and LL",
}


@dataclass(frozen=True, eq=False)
class Band:
    """What is read of one field and spectral window: a :class:`Selection` made definite."""

    selection: Selection
    partition: Partition
    field: FieldInfo
    column: str
    """Data column."""
    hands: tuple[tuple[str, Hands], ...]
    """Stokes parameters in the order of the selection, and the correlations that form each."""
    chans: Int[np.ndarray, " chan"]
    """Channels of the spectral window, in the order of increasing frequency."""
    chan_freq: Float64[np.ndarray, " chan"]
    """Their frequencies in Hz."""
    chan_width: float
    """Their width in Hz."""


def resolve(meta: Metadata, selection: Selection) -> list[Band]:
    """Make a selection definite, with clear errors for what is not there: all that the metadata can tell of it.

    Which rows are read follows from times and antennas of the main table; see :func:`select_rows`.

    Returns
    -------
    list of Band
        One for each spectral window that has channels in the selection, by increasing frequency.

    Raises
    ------
    MeasurementSetError, ParameterError
        Name what is missing and what there is.
    """
    if meta.problems and not meta.all_partitions:
        raise MeasurementSetError(f"{meta.path}: {'; '.join(meta.problems)}")
    partitions = _partitions(meta, selection)
    column = _data_column(meta, selection)
    weights = selection.weight_column
    if weights not in ("auto", "none") and weights not in meta.columns:
        raise MeasurementSetError(f"{meta.path} has no column {weights}; use weight_column auto or none")

    bands = []
    for partition, chans in zip(partitions, _channels(meta, selection, partitions), strict=True):
        spw, hands = meta.spws[partition.spw], _hands(meta, partition, selection)
        freqs = np.ascontiguousarray(spw.chan_freq[chans])
        field = _field(meta, selection, partition)
        bands.append(Band(selection, partition, field, column, hands, chans, freqs, spw.chan_width))
    return [band for band in bands if len(band.chans)]


def select_rows(meta: Metadata, selection: Selection, light: dict[str, np.ndarray]) -> np.ndarray:
    """Return which rows of a field and spectral window are read: cross-correlations of the times and antennas.

    Parameters
    ----------
    meta : Metadata
    selection : Selection
    light : dict of arrays [row]
        The columns ANTENNA1, ANTENNA2, TIME and UVW.

    Returns
    -------
    int64 [row']
        Indices, increasing.

    Raises
    ------
    MeasurementSetError, ParameterError
        If none is left; names the reason.
    """
    keep = light["ANTENNA1"] != light["ANTENNA2"]
    if not keep.any():
        raise MeasurementSetError(f"{meta.path} holds autocorrelations only: nothing to image")

    if selection.antennas is not None:
        allowed = _allowed_antennas(meta, selection.antennas, light)
        keep &= allowed[light["ANTENNA1"]] & allowed[light["ANTENNA2"]]
        if not keep.any():
            raise ParameterError(f"{meta.path} has no baseline between the antennas {', '.join(selection.antennas)}")

    if selection.times != (None, None):
        times, step = np.unique(light["TIME"], return_inverse=True)
        span = _index_slice(selection.times, len(times), f"{meta.path}: times", "the observation")
        keep &= (step >= span.start) & (step < span.stop)

    keep &= (np.abs(light["UVW"]) < LONGEST_BASELINE).all(axis=1)  # not true for NaN
    if not keep.any():
        raise MeasurementSetError(f"{meta.path}: no cross-correlation with a finite UVW is selected")
    if not np.any(light["UVW"][keep]):
        raise MeasurementSetError(
            f"{meta.path}: UVW are all zero, so nothing can be imaged; recompute the UVW column (e.g. CASA fixvis)"
        )
    return np.flatnonzero(keep)


def _allowed_antennas(meta: Metadata, names: tuple[str, ...], light: dict[str, np.ndarray]) -> np.ndarray:
    """Return which antenna numbers, bool [antenna], are among ``names``."""
    highest = max(int(light[name].max()) for name in ("ANTENNA1", "ANTENNA2"))
    allowed = np.zeros(max(len(meta.antennas), highest + 1), dtype=bool)
    for name in names:
        index = meta.antennas.index(name) if name in meta.antennas else int(name) if name.isdecimal() else -1
        if not 0 <= index < len(allowed):
            raise ParameterError(
                f"{meta.path} has no antenna {name!r}; it has {', '.join(meta.antennas[:8])}"
                + (", ..." if len(meta.antennas) > 8 else "")
            )
        allowed[index] = True
    return allowed


def _channels(meta: Metadata, selection: Selection, partitions: list[Partition]) -> list[np.ndarray]:
    """Return the channels of each partition that are read, in the order of increasing frequency.

    Over several spectral windows channels are counted as WSClean counts them: all distinct frequencies, increasing.
    """
    freqs = [meta.spws[each.spw].chan_freq for each in partitions]
    orders = [np.argsort(freq, kind="stable") for freq in freqs]
    what = f"{meta.path}: channels"
    if len(partitions) == 1:
        where = f"spectral window {partitions[0].spw}"
        return [orders[0][_index_slice(selection.channels, len(orders[0]), what, where)]]
    every = np.unique(np.concatenate(freqs))
    wanted = every[_index_slice(selection.channels, len(every), what, "the spectral windows")]
    return [order[np.isin(freq[order], wanted)] for freq, order in zip(freqs, orders, strict=True)]


def _index_slice(bounds: tuple[int | None, int | None], n: int, what: str, where: str) -> slice:
    start, stop = bounds[0] or 0, n if bounds[1] is None else bounds[1]
    if start >= n or stop > n:
        raise ParameterError(f"{what} {start}:{stop} is outside {where}, which has {n} (0:{n})")
    return slice(start, stop)


def stokes_hands(stokes: str, corrs: tuple[str, ...]) -> Hands | None:
    """Return how ``corrs`` form a Stokes parameter, or None when they cannot."""
    for names, sign, factor in _RECIPES[stokes]:
        if all(name in corrs for name in names):
            first, second = corrs.index(names[0]), corrs.index(names[-1])
            return Hands(first, second, sign, factor, ("-" if sign < 0 else "+").join(names))
    return None


def _field(meta: Metadata, selection: Selection, partition: Partition) -> FieldInfo:
    """Return the field where it is at the times that are read; refuse one that has no direction."""
    field = meta.fields[partition.field]
    if field.moves and selection.times != (None, None):
        times = meta.times_of(partition)
        chosen = times[_index_slice(selection.times, len(times), f"{meta.path}: times", "the observation")]
        field = field.at((float(chosen[0]), float(chosen[-1])))
    field.check(meta.path, 1 / meta.uv_max if meta.uv_max > 0 else math.inf)
    return field


def _hands(meta: Metadata, partition: Partition, selection: Selection) -> tuple[tuple[str, Hands], ...]:
    result = []
    for stokes in selection.stokes:
        hands = stokes_hands(stokes, partition.corrs)
        if hands is None:
            raise MeasurementSetError(
                f"{meta.path}: spectral window {partition.spw} has the correlations "
                f"{', '.join(partition.corrs) or 'none'}; Stokes {stokes} needs {_NEEDS[stokes]}"
                + (f" ({meta.problems[0]})" if not partition.corrs and meta.problems else "")
            )
        result.append((stokes, hands))
    return tuple(result)


def _partitions(meta: Metadata, selection: Selection) -> list[Partition]:
    fields = {p.field for p in meta.all_partitions}
    wanted = _field_id(meta, selection.field, fields)
    options = [p for p in meta.all_partitions if wanted is None or p.field == wanted]
    usable = [p for p in options if all(stokes_hands(s, p.corrs) for s in selection.stokes)]
    first = (usable or options)[0]
    if selection.spw is None:
        return [first]
    options = [p for p in options if p.field == (first.field if wanted is None else wanted)]
    if selection.spw == "all":
        chosen = [p for p in usable if p.field == first.field] or [first]
    else:
        numbers = (selection.spw,) if isinstance(selection.spw, int) else tuple(map(int, selection.spw))
        there = sorted({p.spw for p in options})
        for number in numbers:
            if number not in there:
                raise ParameterError(
                    f"{meta.path}: spectral window {number} has no data here; choose from {', '.join(map(str, there))}"
                )
        chosen = [p for p in options if p.spw in numbers]
    return sorted(chosen, key=lambda p: float(meta.spws[p.spw].chan_freq.min()))


def _field_id(meta: Metadata, field: str | None, present: set[int]) -> int | None:
    if field is None:
        return None
    matches = [f.id for f in meta.fields if f.name == field]
    if not matches and field.isdecimal():
        matches = [int(field)]
    for candidate in matches:
        if candidate in present:
            return candidate
    known = ", ".join(f"{i} ({meta.fields[i].name})" for i in sorted(present)[:8])
    raise ParameterError(f"{meta.path}: no data for field {field!r}; fields with data: {known}")


def _data_column(meta: Metadata, selection: Selection) -> str:
    if selection.column is None and meta.data_columns:
        return meta.data_columns[0]
    if selection.column is not None and selection.column in meta.columns:
        return selection.column
    if not meta.data_columns:
        missing = f"{selection.column}, and no" if selection.column else ""
        raise MeasurementSetError(f"{meta.path} has no {missing} column with visibilities".replace("  ", " "))
    there = ", ".join(meta.data_columns)
    raise MeasurementSetError(f"{meta.path} has no {selection.column}; it has {there} (choose with --column)")
