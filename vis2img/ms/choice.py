"""Which fields and spectral windows of a measurement set become one image, and what of it is left out.

By default a field is imaged with all that there is of it: every row of FIELD that has its name, every spectral window
and polarisation set-up that can form the Stokes parameters. Left out is what would count twice or belongs to another
receiver; whatever is left out is told.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from vis2img.coordinates import separation
from vis2img.errors import ParameterError
from vis2img.ms.metadata import OCTAVE, Metadata, Partition
from vis2img.ms.stokes import stokes_hands
from vis2img.units import Spws, format_angle

_GAP = 1.25  # highest frequency of a spectral window to the lowest of the next, between receivers
_NAMED = 8  # fields or windows that a message names


@dataclass(frozen=True)
class Choice:
    """The rows that become one image: their partitions, and what was taken of what there is."""

    partitions: tuple[Partition, ...]
    """By increasing frequency."""
    reason: str
    """Why this field; empty where it was named, or is the only one."""
    windows: tuple[int, int]
    """Spectral windows taken, and those with data of the field."""
    fields: tuple[int, int]
    """Fields taken (1: rows of one name count once), and those with data."""
    left_out: tuple[str, ...]
    """What of the field is not taken, and why."""

    @property
    def text(self) -> str:
        """What was taken of what there is, in one line; empty where it is all."""
        parts = []
        if self.windows[0] < self.windows[1]:
            parts.append(f"{self.windows[0]} of {self.windows[1]} windows")
        if self.fields[0] < self.fields[1]:
            parts.append(f"{self.fields[0]} of {self.fields[1]} fields")
        if not parts and not self.left_out:
            return ""
        options = [
            name for name, (taken, every) in (("--spw", self.windows), ("--field", self.fields)) if taken < every
        ]
        advice = f": {', '.join(options)} to choose" if options else ""
        why = [*self.left_out, *([self.reason] if self.reason else [])]
        return ", ".join(parts) + advice + (f" ({'; '.join(why)})" if why else "")


def choose(meta: Metadata, field: str | None, spw: Spws | None, stokes: str) -> Choice:
    """Choose what is imaged of a measurement set.

    Parameters
    ----------
    meta : Metadata
    field : str, optional
        Name or FIELD_ID; default: the first field that was observed as a target, else the first that is not marked as a
        calibrator, else the first with data.
    spw : int, tuple of str or "all", optional
        Spectral windows; default: all that belong into one image; ``all``: all that can form ``stokes``.
    stokes : str
        Stokes parameters that must be formed, such as IQUV.

    Raises
    ------
    ParameterError
        If the field or window has no data; names those that have.
    """
    groups = field_groups(meta)
    with_hands = {p.field for p in meta.all_partitions if _can_form(p, stokes)}
    ids, reason = (_named(meta, field), "") if field is not None else _default_field(meta, groups, with_hands)
    ids, apart = _together(meta, ids)
    every = [p for p in meta.all_partitions if p.field in ids]
    windows = sorted({p.spw for p in every})

    left_out = [apart] if apart else []
    able = [p for p in every if _can_form(p, stokes)]
    usable = [p for p in able if p.cross] or able
    chosen: list[Partition]
    if spw is None or spw == "all":
        chosen = usable or every[:1]
        left_out += _unusable(every, able, usable, stokes) if usable else []
    else:
        named = _numbered(meta, every, spw)
        chosen = [p for p in named if p in usable] or named
    if spw is None:
        chosen, copies = _without_copies(meta, chosen)
        chosen, foreign = _one_receiver(meta, chosen)
        left_out += [*copies, *foreign]

    chosen = sorted(chosen, key=lambda p: (_lowest(meta, p), p.field, p.ddid))
    taken = {p.spw for p in chosen}
    return Choice(tuple(chosen), reason, (len(taken), len(windows)), (1, len(groups)), tuple(left_out))


def field_groups(meta: Metadata) -> list[tuple[int, ...]]:
    """Return the FIELD_IDs with data, those of one name together, in the order of their first."""
    groups: dict[object, list[int]] = {}
    for number in sorted({p.field for p in meta.all_partitions}):
        groups.setdefault(meta.fields[number].name or number, []).append(number)
    return [tuple(ids) for ids in groups.values()]


def field_labels(meta: Metadata) -> dict[int, str]:
    """Return how a selection names each field with data: by its name, or by its number where it has no name."""
    groups = field_groups(meta)
    return {number: meta.fields[ids[0]].name or str(number) for ids in groups for number in ids}


def _named_ids(meta: Metadata, name: str) -> tuple[int, ...]:
    present = {p.field for p in meta.all_partitions}
    return tuple(f.id for f in meta.fields if f.name == name and f.id in present)


def _named(meta: Metadata, field: str) -> tuple[int, ...]:
    """Return the FIELD_IDs of a name, else of a number."""
    ids = _named_ids(meta, field)
    if ids:
        return ids
    present = sorted({p.field for p in meta.all_partitions})
    if field.isdecimal() and int(field) in present:
        return (int(field),)
    known = ", ".join(f"{i} ({meta.fields[i].name})" for i in present[:_NAMED]) + ", ..." * (len(present) > _NAMED)
    raise ParameterError(f"{meta.path}: no data for field {field!r}; fields with data: {known}")


def _default_field(meta: Metadata, groups: Sequence[tuple[int, ...]], able: set[int]) -> tuple[tuple[int, ...], str]:
    """Return the field that is imaged where none is named, and why."""
    usable = [ids for ids in groups if able & set(ids)] or list(groups)
    if len(groups) == 1:
        return usable[0], ""

    def intents(ids: Iterable[int]) -> set[str]:
        return set().union(*(meta.intents.get(number, ()) for number in ids))

    targets = [ids for ids in usable if any("TARGET" in mode for mode in intents(ids))]
    others = [ids for ids in usable if not any("CALIBRATE" in mode for mode in intents(ids))]
    if targets:
        return targets[0], f"field {_shown(meta, targets[0])} is the first observed as a target"
    if others and len(others) < len(usable):
        return others[0], f"field {_shown(meta, others[0])} is the first that is not a calibrator"
    return usable[0], f"field {_shown(meta, usable[0])} is the first with data"


def _shown(meta: Metadata, ids: Sequence[int]) -> str:
    return f"{ids[0]} {meta.fields[ids[0]].name!r}"


def _together(meta: Metadata, ids: tuple[int, ...]) -> tuple[tuple[int, ...], str]:
    """Return the rows of FIELD of one name that belong into one image, and what is said of others.

    Those further than a primary beam from the first are pointings of a mosaic, of which one is imaged.
    """
    places = [meta.fields[number] for number in ids]
    if len(ids) == 1 or any(place.trouble for place in places):
        return ids, ""
    beam = meta.suggested_fov or math.radians(1)
    away = [separation(places[0].phase_centre, place.phase_centre) for place in places]
    near = tuple(number for number, angle in zip(ids, away, strict=True) if not angle > beam)
    if len(near) == len(ids):
        return ids, ""
    far = [number for number in ids if number not in near]
    return near, (
        f"FIELD rows {_listed(far)} have the name {places[0].name!r} too, and lie up to {format_angle(max(away), 3)} "
        "away, more than a primary beam: choose them by number"
    )


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:_NAMED])) + ", ..." * (len(numbers) > _NAMED)


def _can_form(partition: Partition, stokes: str) -> bool:
    return all(stokes_hands(s, partition.corrs) for s in stokes)


def _unusable(
    every: Sequence[Partition], able: Sequence[Partition], usable: Sequence[Partition], stokes: str
) -> list[str]:
    """Return what is said of partitions that cannot be imaged."""
    others = [p for p in every if p not in able]
    alone = [p for p in able if p not in usable]
    told = []
    if others:
        corrs = dict.fromkeys(",".join(p.corrs) or "unknown correlations" for p in others)
        told.append(f"no Stokes {stokes} from {' / '.join(corrs)} of {_windows(others)}")
    if alone:
        told.append(f"autocorrelations only in {_windows(alone)}")
    return told


def _windows(partitions: Sequence[Partition]) -> str:
    numbers = sorted({p.spw for p in partitions})
    return f"window{'s' * (len(numbers) > 1)} {_listed(numbers)}"


def _numbered(meta: Metadata, every: Sequence[Partition], spw: Spws) -> list[Partition]:
    numbers = (spw,) if isinstance(spw, int) else tuple(map(int, spw))
    there = sorted({p.spw for p in every})
    for number in numbers:
        if number not in there:
            raise ParameterError(
                f"{meta.path}: spectral window {number} has no data here; choose from {', '.join(map(str, there))}"
            )
    return [p for p in every if p.spw in numbers]


def _lowest(meta: Metadata, partition: Partition) -> float:
    return float(meta.spws[partition.spw].chan_freq.min(initial=math.inf))


def _range(meta: Metadata, partition: Partition) -> tuple[float, float]:
    """Return the edges of a spectral window in Hz."""
    spw = meta.spws[partition.spw]
    half = abs(spw.chan_width) / 2 if math.isfinite(spw.chan_width) else 0.0
    freq = spw.chan_freq if len(spw.chan_freq) else np.array([math.nan])
    return float(freq.min()) - half, float(freq.max()) + half


def _without_copies(meta: Metadata, chosen: list[Partition]) -> tuple[list[Partition], list[str]]:
    """Leave out windows that hold the data of another once more with fewer channels, such as ALMA's channel averages.

    Windows of baseline-dependent averages overlap in frequency as well, but no baseline is in two of them at one time.
    """
    kept: list[Partition] = []
    copies: list[tuple[int, int]] = []
    for part in sorted(chosen, key=lambda p: -len(meta.spws[p.spw].chan_freq)):
        original = next((other for other in kept if _is_copy(meta, part, other)), None)
        if original is None:
            kept.append(part)
        else:
            copies.append((part.spw, original.spw))
    told = [f"window {own} has the data of window {other} with fewer channels" for own, other in dict.fromkeys(copies)]
    if len(told) > _NAMED:
        told = [f"{len(told)} windows have the data of others with fewer channels"]
    return [p for p in chosen if p in kept], told


def _is_copy(meta: Metadata, part: Partition, other: Partition) -> bool:
    """Return whether a partition has the same hands, frequencies and samples as another, in fewer channels."""
    nchan, finer = len(meta.spws[part.spw].chan_freq), len(meta.spws[other.spw].chan_freq)
    if part.spw == other.spw or part.field != other.field or set(part.corrs) != set(other.corrs) or nchan >= finer:
        return False
    (low, high), (bottom, top) = _range(meta, part), _range(meta, other)
    slack = 0.01 * (high - low)
    return low >= bottom - slack and high <= top + slack and meta.share_samples(part, other)


def _one_receiver(meta: Metadata, chosen: list[Partition]) -> tuple[list[Partition], list[str]]:
    """Keep the windows of one receiver, that with the most samples, where a gap in frequency sets them apart."""
    spans = sorted((*_range(meta, p), p.ddid, p.field) for p in chosen)
    if not spans or not (math.isfinite(spans[0][0]) and spans[-1][1] > OCTAVE * spans[0][0]):
        return chosen, []
    edges, top = [], spans[0][1]
    for before, after in pairwise(spans):
        top = max(top, before[1])
        if after[0] > _GAP * top:
            edges.append(after[0])
    if not edges:
        return chosen, []

    of = {id(p): int(np.searchsorted(edges, _range(meta, p)[0], side="right")) for p in chosen}
    size = [0] * (len(edges) + 1)
    for p in chosen:
        size[of[id(p)]] += p.nrow * len(meta.spws[p.spw].chan_freq)
    best = int(np.argmax(size))
    others = [p for p in chosen if of[id(p)] != best]
    return [p for p in chosen if of[id(p)] == best], [f"{_windows(others)} of another receiver"]
