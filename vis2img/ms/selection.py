"""What exactly a :class:`Selection` reads of a measurement set: field, bands, column, correlations, channels, rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vis2img.errors import MeasurementSetError, ParameterError
from vis2img.ms.choice import Choice, choose
from vis2img.ms.fields import FieldInfo
from vis2img.ms.metadata import LONGEST_BASELINE, Metadata, Partition
from vis2img.ms.stokes import NEEDS, Hands, stokes_hands
from vis2img.shapes import Float64, Int
from vis2img.units import Antennas, IndexRange, Spws

_OTHER_HAND = {"XX": "YY", "YY": "XX", "RR": "LL", "LL": "RR"}
_NAMED = 8  # windows that a message names
_MOST_ANTENNAS = 1 << 20  # more than any array has; numbers beyond are damage


@dataclass(frozen=True)
class Selection:
    """Which visibilities of a measurement set are read."""

    field: str | None = None
    """Field name (all rows of FIELD that have it) or FIELD_ID. Default: the first observed as a target (STATE), else
    the first that is no calibrator, else the first that has data."""
    spw: Spws | None = None
    """Spectral windows (SPECTRAL_WINDOW_ID): 0, or 0,2, or all. Default: all of one receiver that can form the Stokes
    parameters, but channel averages of others."""
    column: str | None = None
    """Data column; default: CORRECTED_DATA, else DATA, else MODEL_DATA, whichever is there first."""
    channels: IndexRange = (None, None)
    """Channels start:stop, in the order of increasing frequency."""
    times: IndexRange = (None, None)
    """Timesteps start:stop, counted over the distinct times of the field in all spectral windows that are read."""
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
    span: tuple[float, float] | None = None
    """First and last time that are read, s (MJD, UTC); None: all."""


def choice_of(meta: Metadata, selection: Selection) -> Choice:
    """Return which partitions a selection takes, and what it leaves out; see :func:`vis2img.ms.choice.choose`."""
    if meta.problems and not meta.all_partitions:
        raise MeasurementSetError(f"{meta.path}: {'; '.join(meta.problems)}")
    return choose(meta, selection.field, selection.spw, selection.stokes)


def resolve(meta: Metadata, selection: Selection, choice: Choice | None = None) -> list[Band]:
    """Make a selection definite, with clear errors for what is not there: all that the metadata can tell of it.

    Which rows are read follows from times and antennas of the main table; see :func:`select_rows`. ``choice`` is that
    of :func:`choice_of`, where it was made already.

    Returns
    -------
    list of Band
        One for each spectral window that has channels in the selection, by increasing frequency.

    Raises
    ------
    MeasurementSetError, ParameterError
        Name what is missing and what there is.
    """
    partitions = (choice or choice_of(meta, selection)).partitions
    column = _data_column(meta, selection)
    weights = selection.weight_column
    if weights not in ("auto", "none") and weights not in meta.columns:
        raise MeasurementSetError(f"{meta.path} has no column {weights}; use weight_column auto or none")

    bands, span = [], _span(meta, selection, partitions)
    for partition, chans in zip(partitions, _channels(meta, selection, partitions), strict=True):
        spw, hands = meta.spws[partition.spw], _hands(meta, partition, selection)
        freqs = np.ascontiguousarray(spw.chan_freq[chans])
        field = _field(meta, partition, span)
        bands.append(Band(selection, partition, field, column, hands, chans, freqs, spw.chan_width, span))
    return [band for band in bands if len(band.chans)]


def hand_cautions(meta: Metadata, bands: Sequence[Band]) -> list[str]:
    """Return what is to be said of Stokes I that is made of one hand, although the other was observed too."""
    single = {
        band.partition.spw: hands.label
        for band in bands
        for stokes, hands in band.hands
        if stokes == "I" and hands.sign == 0 and hands.label != "I"
    }
    if not single:
        return []
    labels = set(single.values())
    fields = {band.partition.field for band in bands}
    there = {
        (corr, p.spw)
        for p in meta.all_partitions
        if p.field in fields
        for corr in p.corrs
        if corr in _OTHER_HAND and _OTHER_HAND[corr] in labels
    }
    missing = sorted({corr for corr, _ in there} - labels)
    if missing:
        spws = sorted(spw for corr, spw in there if corr in missing)
        return [
            f"Stokes I is made of {', '.join(sorted(labels))} alone, as if the sky were unpolarised; "
            f"{', '.join(missing)} is in spectral window {', '.join(map(str, spws))} (--spw all for both)"
        ]
    if len(labels) > 1:
        own = ", ".join(f"{label} of spectral window {spw}" for spw, label in sorted(single.items())[:_NAMED])
        return [f"Stokes I is the mean of hands in windows of their own ({own})"]
    return []


def select_rows(meta: Metadata, band: Band, light: dict[str, np.ndarray]) -> np.ndarray:
    """Return which rows of a field and spectral window are read: cross-correlations of the times and antennas.

    Parameters
    ----------
    meta : Metadata
    band : Band
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
    selection, keep = band.selection, light["ANTENNA1"] != light["ANTENNA2"]
    if not keep.any():
        raise MeasurementSetError(f"{meta.path} holds autocorrelations only: nothing to image")

    for name in ("ANTENNA1", "ANTENNA2"):
        if not (light[name].min() >= 0 and light[name].max() < _MOST_ANTENNAS):
            row = int(np.flatnonzero((light[name] < 0) | (light[name] >= _MOST_ANTENNAS))[0])
            raise MeasurementSetError(
                f"{meta.path}: spectral window {band.partition.spw}: {name} has {light[name][row]} in its row {row}, "
                "which is the number of no antenna; the table is damaged, copy the measurement set again"
            )
    if selection.antennas is not None:
        allowed = _allowed_antennas(meta, selection.antennas, light)
        keep &= allowed[light["ANTENNA1"]] & allowed[light["ANTENNA2"]]
        if not keep.any():
            raise ParameterError(f"{meta.path} has no baseline between the antennas {', '.join(selection.antennas)}")

    if band.span is not None:
        keep &= (light["TIME"] >= band.span[0]) & (light["TIME"] <= band.span[1])
        if not keep.any():
            raise ParameterError(
                f"{meta.path}: spectral window {band.partition.spw} has no cross-correlation at the times chosen"
            )

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
        numbers = [number for number, own in enumerate(meta.antennas) if own == name]
        if not numbers and name.isdecimal() and int(name) < len(allowed):
            numbers = [int(name)]
        if not numbers:
            raise ParameterError(
                f"{meta.path} has no antenna {name!r}; it has {', '.join(meta.antennas[:8])}"
                + (", ..." if len(meta.antennas) > 8 else "")
            )
        allowed[numbers] = True
    return allowed


def _channels(meta: Metadata, selection: Selection, partitions: Sequence[Partition]) -> list[np.ndarray]:
    """Return the channels of each partition that are read, in the order of increasing frequency.

    Over several spectral windows channels are counted as WSClean counts them: all distinct frequencies, increasing.
    """
    freqs = [meta.spws[each.spw].chan_freq for each in partitions]
    orders = [np.argsort(freq, kind="stable") for freq in freqs]
    what = f"{meta.path}: channels"
    if len({each.spw for each in partitions}) == 1:
        where = f"spectral window {partitions[0].spw}"
        return [orders[0][_index_slice(selection.channels, len(orders[0]), what, where)]] * len(partitions)
    every = np.unique(np.concatenate(freqs))
    wanted = every[_index_slice(selection.channels, len(every), what, "the spectral windows")]
    return [order[np.isin(freq[order], wanted)] for freq, order in zip(freqs, orders, strict=True)]


def _index_slice(bounds: tuple[int | None, int | None], n: int, what: str, where: str) -> slice:
    start, stop = bounds[0] or 0, n if bounds[1] is None else bounds[1]
    if start >= n or stop > n:
        raise ParameterError(f"{what} {start}:{stop} is outside {where}, which has {n} (0:{n})")
    return slice(start, stop)


def _span(meta: Metadata, selection: Selection, partitions: Sequence[Partition]) -> tuple[float, float] | None:
    """Return the first and last time that are read; timesteps are counted over all partitions together."""
    if selection.times == (None, None):
        return None
    times = np.unique(np.concatenate([meta.times_of(partition) for partition in partitions]))
    chosen = times[_index_slice(selection.times, len(times), f"{meta.path}: times", "the observation")]
    return float(chosen[0]), float(chosen[-1])


def _field(meta: Metadata, partition: Partition, span: tuple[float, float] | None) -> FieldInfo:
    """Return the field where it is at the times that are read; refuse one that has no direction."""
    field = meta.fields[partition.field]
    if field.moves and span is not None:
        field = field.at(span)
    field.check(meta.path, 1 / meta.uv_max if meta.uv_max > 0 else math.inf)
    return field


def _hands(meta: Metadata, partition: Partition, selection: Selection) -> tuple[tuple[str, Hands], ...]:
    result = []
    for stokes in selection.stokes:
        hands = stokes_hands(stokes, partition.corrs)
        if hands is None:
            raise MeasurementSetError(
                f"{meta.path}: spectral window {partition.spw} has the correlations "
                f"{', '.join(partition.corrs) or 'none'}; Stokes {stokes} needs {NEEDS[stokes]}"
                + (f" ({meta.problems[0]})" if not partition.corrs and meta.problems else "")
            )
        result.append((stokes, hands))
    return tuple(result)


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
