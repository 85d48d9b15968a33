"""What exactly a :class:`Selection` reads of a measurement set: field, spectral windows, column, correlations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vis2img.errors import MeasurementSetError, ParameterError
from vis2img.ms.metadata import Metadata, Partition
from vis2img.units import Antennas, IndexRange, Spws


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


@dataclass(frozen=True)
class Plan:
    """A :class:`Selection` made definite against one spectral window of a measurement set."""

    partition: Partition
    column: str
    hands: tuple[tuple[str, Hands], ...]
    """(Stokes parameter, correlations that form it), in the order asked for."""
    weight_column: str
    field_name: str
    phase_centre: tuple[float, float]
    frame: str
    pointing: tuple[float, float]
    """Where the dishes pointed, RA and Dec in rad."""


def resolve(meta: Metadata, selection: Selection) -> list[Plan]:
    """Choose field, spectral windows, column and correlations, with clear errors for what is not there.

    Returns
    -------
    list of Plan
        One for each spectral window, in the order of increasing frequency.

    Raises
    ------
    MeasurementSetError, ParameterError
        Name what is missing and what there is.
    """
    if meta.problems and not meta.all_partitions:
        raise MeasurementSetError(f"{meta.path}: {'; '.join(meta.problems)}")
    partitions = _partitions(meta, selection)
    column = _data_column(meta, selection)
    weight_column = selection.weight_column
    if weight_column not in ("auto", "none") and weight_column not in meta.columns:
        raise MeasurementSetError(f"{meta.path} has no column {weight_column}; use weight_column auto or none")
    info = meta.field(partitions[0].field)
    return [
        Plan(
            partition=p,
            column=column,
            hands=_hands(meta, p, selection),
            weight_column=weight_column,
            field_name=info.name,
            phase_centre=info.phase_centre,
            frame=info.frame,
            pointing=info.pointing,
        )
        for p in partitions
    ]


def stokes_hands(stokes: str, corrs: tuple[str, ...]) -> Hands | None:
    """Return how ``corrs`` form a Stokes parameter, or None when they cannot."""
    for names, sign, factor in _RECIPES[stokes]:
        if all(name in corrs for name in names):
            first, second = corrs.index(names[0]), corrs.index(names[-1])
            return Hands(first, second, sign, factor, ("-" if sign < 0 else "+").join(names))
    return None


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
