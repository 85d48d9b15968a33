"""What a measurement set holds, read from its sub-tables and a bounded sample of its rows.

Nothing here reads a data column, so that it answers at once on any size. Tables are opened read-only and
without locks: a user's measurement set is never written to.

Reference: Kemball & Wieringa 2000, *MeasurementSet definition version 2.0* (AIPS++ note 229).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from vis2img.errors import MeasurementSetError
from vis2img.ms.directions import axes_of
from vis2img.ms.fields import FieldInfo, Span, fields
from vis2img.ms.measures import to_utc
from vis2img.ms.subtables import (
    SpectralWindow,
    antennas,
    data_descriptions,
    feed_cautions,
    flagged_rows,
    observing_modes,
    spectral_windows,
    telescope_of,
)
from vis2img.ms.tables import check_storage, in_unit, measinfo, open_table, reading, row_sample, table
from vis2img.units import format_freq
from vis2img.visibilities import RADIO, SPEED_OF_LIGHT

DATA_COLUMNS = ("CORRECTED_DATA", "DATA", "MODEL_DATA")  # in order of preference, as WSClean
LONGEST_BASELINE = 1e10  # m; a longer UVW is no measurement (RadioAstron: 3e8 m)
_FLAG_BUDGET = 30_000_000  # flags looked at for the flagged fraction
_ROW_BUDGET = 2_000_000  # rows looked at for times and baselines
_ROWS_AT_ONCE = 10_000_000  # of the numbers of fields and set-ups, where all rows are looked at
OCTAVE = 2.02  # highest over lowest frequency of one receiver, at most


@dataclass(frozen=True)
class Partition:
    """Rows of one FIELD_ID and DATA_DESC_ID: what can be imaged in one piece."""

    field: int
    ddid: int
    spw: int
    corrs: tuple[str, ...]
    nrow: int
    cross: bool = True
    """Whether some rows are of two antennas; False only where all rows were looked at."""


@dataclass(frozen=True, eq=False)
class Metadata:
    """The description of a measurement set; see :func:`read_metadata`."""

    path: Path
    telescope: str
    fields: tuple[FieldInfo, ...]
    spws: tuple[SpectralWindow, ...]
    partitions: tuple[Partition, ...]
    antennas: tuple[str, ...]
    dish_diameter: float
    columns: tuple[str, ...]
    nrow: int
    exact: bool
    """Whether every row was looked at; else times, partitions and uv range come from a sample."""
    time_range: tuple[float, float]
    ntimes: int
    interval: float
    uv_range_m: tuple[float, float]
    problems: tuple[str, ...]
    rows: dict[str, np.ndarray] | None = field(default=None, repr=False)
    """The light columns of every row (times, antennas, uvw, ids), where all were looked at."""
    setups: tuple[tuple[int, tuple[str, ...]], ...] = ()
    """Spectral window and correlations of each DATA_DESC_ID."""
    intents: Mapping[int, frozenset[str]] = field(default_factory=dict)
    """What each field was observed for, in capitals, as STATE has it (OBS_MODE: OBSERVE_TARGET#ON_SOURCE, ...)."""
    cautions: tuple[str, ...] = ()
    """What a user should know of an image of this set, such as beams away from the field; no reason to refuse it."""

    @property
    def data_columns(self) -> tuple[str, ...]:
        """Visibility columns present, the preferred one first."""
        known = [name for name in DATA_COLUMNS if name in self.columns]
        return (
            *known,
            *(c for c in self.columns if c.endswith("_DATA") and c not in known and c != "FLOAT_DATA"),
        )

    @cached_property
    def all_partitions(self) -> tuple[Partition, ...]:
        """The partitions of every row, where ``partitions`` may miss those of a few; read late."""
        if self.exact:
            return self.partitions
        counts: Counter[int] = Counter()
        main = open_table(self.path)
        try:
            for start in range(0, self.nrow, _ROWS_AT_ONCE):
                count = min(_ROWS_AT_ONCE, self.nrow - start)
                counts.update(_pairs(*(main.getcol(name, start, count) for name in ("FIELD_ID", "DATA_DESC_ID"))))
        except RuntimeError as error:
            raise MeasurementSetError(f"{self.path}: cannot read FIELD_ID, DATA_DESC_ID: {error}".strip()) from error
        return _partitions(counts, self.setups, len(self.fields), 1.0, [])

    def times_of(self, partition: Partition) -> np.ndarray:
        """Return the distinct times of a partition, s (MJD, UTC), increasing."""
        rows = self.rows
        if rows is None:
            main = open_table(self.path)
            rows = {name: main.getcol(name) for name in ("FIELD_ID", "DATA_DESC_ID", "TIME")}
            rows["TIME"] = utc_times(main, rows["TIME"], self.path)
        mine = (rows["FIELD_ID"] == partition.field) & (rows["DATA_DESC_ID"] == partition.ddid)
        return np.unique(rows["TIME"][mine])

    def share_samples(self, part: Partition, other: Partition) -> bool:
        """Return whether most samples (time and baseline) of a partition are in another too; of the first rows."""
        names = ("FIELD_ID", "DATA_DESC_ID", "TIME", "ANTENNA1", "ANTENNA2")
        rows = self.rows
        if rows is None:
            main = open_table(self.path)
            rows = {name: main.getcol(name, 0, min(self.nrow, _ROW_BUDGET)) for name in names}
        mine, theirs = (
            (rows["FIELD_ID"] == each.field) & (rows["DATA_DESC_ID"] == each.ddid) for each in (part, other)
        )
        keys = [np.unique(rows[name], return_inverse=True)[1].astype(np.int64) for name in names[2:]]
        sample = (keys[0] * (keys[1].max(initial=0) + 1) + keys[1]) * (keys[2].max(initial=0) + 1) + keys[2]
        return bool(mine.any() and np.isin(sample[mine], sample[theirs]).mean() > 0.5)

    def band(self, spw: int) -> tuple[float, float]:
        """Return the lowest and highest frequency in Hz that tell of the receiver behind a spectral window.

        Those of all spectral windows with rows, if they are no more than an octave, as one receiver has; else of this.
        """
        low, high = self._freq_range
        own = self.spws[spw].chan_freq
        one = high <= OCTAVE * low
        return (low, high) if one else (float(own.min()), float(own.max()))

    @cached_property
    def flags(self) -> tuple[float | None, int]:
        """Fraction flagged (FLAG or FLAG_ROW) of a sample of rows, None if unreadable, and their number; read late."""
        per_row = {p.ddid: len(self.spws[p.spw].chan_freq) * max(1, len(p.corrs)) for p in self.partitions}
        if not per_row:
            return None, 0
        rows = row_sample(self.nrow, max(64, _FLAG_BUDGET // max(per_row.values())))
        flagged = total = 0
        try:
            main = open_table(self.path)
            setup = main.selectrows(rows).getcol("DATA_DESC_ID")
            for ddid in per_row:
                here = rows[setup == ddid]
                if not len(here):
                    continue
                part = main.selectrows(here)
                flags = part.getcol("FLAG").reshape(len(here), -1)
                if "FLAG_ROW" in self.columns:
                    flags = flags | part.getcol("FLAG_ROW")[:, None]
                flagged, total = flagged + int(flags.sum()), total + flags.size
        except RuntimeError:
            return None, 0
        return (flagged / total, len(rows)) if total else (None, 0)

    @cached_property
    def uv_max(self) -> float:
        """Longest baseline in wavelengths at the highest frequency that has rows."""
        return self.uv_range_m[1] * self._freq_range[1] / SPEED_OF_LIGHT

    @property
    def _freq_range(self) -> tuple[float, float]:
        used = {p.spw for p in self.partitions} or {s.id for s in self.spws}
        freqs = [
            f for s in self.spws if s.id in used and len(s.chan_freq) for f in (s.chan_freq.min(), s.chan_freq.max())
        ]
        return (float(min(freqs)), float(max(freqs))) if freqs else (math.nan, math.nan)

    @property
    def nonsense(self) -> tuple[str, ...]:
        """What no telescope can have observed, so that no pixel size can be suggested by it; a line each."""
        found, (low, high), longest = [], self._freq_range, self.uv_range_m[1]
        if low < RADIO[0] or high > RADIO[1]:
            found.append(
                f"the frequencies are {format_freq(low, high)}, where no radio telescope observes: CHAN_FREQ holds Hz, "
                "were GHz or MHz written?"
            )
        if 0 < longest < self.dish_diameter / 2:
            found.append(
                f"the longest baseline is {longest:.3g} m, shorter than the dishes of {self.dish_diameter:g} m: UVW "
                "holds m, were km written?"
            )
        return tuple(found)

    @property
    def suggested_pixsize(self) -> float | None:
        """Pixel size in rad that samples the finest fringe; see :func:`suggest_pixsize`."""
        return suggest_pixsize(self.uv_max)

    @property
    def suggested_fov(self) -> float | None:
        """Primary beam FWHM 1.2 lambda / D at the lowest frequency, at most 1 rad, in rad."""
        if not (self.dish_diameter > 0 and self._freq_range[0] > 0):
            return None
        return min(1.0, 1.2 * SPEED_OF_LIGHT / self._freq_range[0] / self.dish_diameter)


def suggest_pixsize(uv_max: float) -> float | None:
    """Return a third of the finest fringe 1 / ``uv_max`` (wavelengths), in rad to two digits, or None."""
    if not (math.isfinite(uv_max) and uv_max > 0):
        return None
    arcsec = math.degrees(1 / (3 * uv_max)) * 3600
    return math.radians(round(arcsec, 1 - math.floor(math.log10(arcsec))) / 3600)


def read_metadata(path: str | Path) -> Metadata:
    """Describe the measurement set at ``path``.

    Raises
    ------
    MeasurementSetError
        If ``path`` is no measurement set or a table of it is damaged; the message names the table.
    """
    path = Path(path)
    with reading(path):
        return _describe(path)


def _describe(path: Path) -> Metadata:
    main = open_table(path)
    check_storage(main, path)
    columns = tuple(main.colnames())
    missing = [
        c for c in ("UVW", "TIME", "ANTENNA1", "ANTENNA2", "FIELD_ID", "DATA_DESC_ID", "FLAG") if c not in columns
    ]
    if missing:
        raise MeasurementSetError(f"{path} lacks the column {', '.join(missing)}, which every measurement set has")
    problems: list[str] = []
    spws = spectral_windows(path)
    names, dish_diameter = antennas(path)
    rows = row_sample(main.nrows(), _ROW_BUDGET)
    sample = _sample_main(main, path, rows)
    setups = data_descriptions(path, len(spws), problems, set(np.unique(sample["DATA_DESC_ID"]).tolist()))
    sky = fields(path, _axes_of(main, path), _spans(sample["TIME"], sample["FIELD_ID"]))
    scale = main.nrows() / max(1, len(rows))
    counts = _pairs(sample["FIELD_ID"], sample["DATA_DESC_ID"])
    cross = sample["ANTENNA1"] != sample["ANTENNA2"]
    correlated = set(_pairs(sample["FIELD_ID"][cross], sample["DATA_DESC_ID"][cross]))
    exact = len(rows) == main.nrows()
    partitions = _partitions(counts, setups, len(sky), scale, problems, correlated if exact else None)
    if empty := sorted({p.spw for p in partitions if not len(spws[p.spw].chan_freq)}):
        raise MeasurementSetError(
            f"{path}: data refer to SPECTRAL_WINDOW row {empty[0]}, which has no channel in CHAN_FREQ; write it anew"
        )
    flagged_setups = flagged_rows(path, "DATA_DESCRIPTION", {p.ddid for p in partitions})
    flagged_fields = flagged_rows(path, "FIELD", {p.field for p in partitions})
    problems += [sky[number].trouble for number in dict.fromkeys(p.field for p in partitions) if sky[number].trouble]
    observed_by, others = telescope_of(main, path, rows)
    times = np.unique(sample["TIME"])
    if main.nrows() == 0:
        problems.append("the main table has no row")
    length = np.hypot(sample["UVW"][cross, 0], sample["UVW"][cross, 1])
    length = length[length < LONGEST_BASELINE]  # not true for NaN
    if main.nrows() and not np.any(length > 0):
        problems.append("all UVW are zero or not a number" if cross.any() else "there are autocorrelations only")
    return Metadata(
        path=path,
        telescope=observed_by,
        fields=sky,
        spws=spws,
        partitions=partitions,
        antennas=names,
        dish_diameter=dish_diameter,
        columns=columns,
        nrow=main.nrows(),
        exact=exact,
        time_range=(float(times[0]), float(times[-1])) if len(times) else (math.nan, math.nan),
        ntimes=len(times),
        interval=float(np.median(sample["INTERVAL"])) if len(sample["INTERVAL"]) else math.nan,
        uv_range_m=(float(length.min()), float(length.max())) if len(length) else (0.0, 0.0),
        problems=tuple(problems),
        rows=sample if exact else None,
        setups=tuple(setups),
        intents=_intents(path, sample),
        cautions=(*others, *flagged_setups, *flagged_fields, *feed_cautions(path, sample)),
    )


def _axes_of(main: table, path: Path) -> str | None:
    try:
        return axes_of(main)
    except ValueError as error:
        raise MeasurementSetError(f"{path}: {error}") from error


def _spans(times: np.ndarray, field: np.ndarray) -> Callable[[int], Span]:
    """Return what tells the first and last time of a field; of all rows, where it has none."""

    @cache
    def known() -> dict[int, Span]:
        finite = np.isfinite(times)
        order = np.argsort(field[finite], kind="stable")
        own, numbers = times[finite][order], field[finite][order]
        found, first = np.unique(numbers, return_index=True)
        if not len(found):
            return {}
        low, high = (each.reduceat(own, first).tolist() for each in (np.minimum, np.maximum))
        spans = dict(zip(found.tolist(), zip(low, high, strict=True), strict=True))
        return {-1: (min(low), max(high)), **spans}

    return lambda number: known().get(number, known().get(-1, (0.0, 0.0)))


def utc_times(main: table, times: np.ndarray, path: Path) -> np.ndarray:
    """Return values of TIME in UTC, whatever scale its column is in.

    Raises
    ------
    MeasurementSetError
        If the scale is no time, or not known.
    """
    told = measinfo(main, "TIME")
    try:
        if "Ref" not in told and "VarRefCol" in told:
            raise ValueError("its scale is another from row to row")
        return to_utc(in_unit(main, "TIME", times, "s", path), str(told.get("Ref", "")) or "UTC")
    except (ValueError, RuntimeError) as error:
        raise MeasurementSetError(f"{path}: the column TIME cannot be read as UTC: {error}".strip()) from error


def _sample_main(main: table, path: Path, rows: np.ndarray) -> dict[str, np.ndarray]:
    part = main if len(rows) == main.nrows() else main.selectrows(rows)
    sample = {"INTERVAL": np.zeros(0)}
    optional = {"INTERVAL", "STATE_ID", "FEED1"} & set(main.colnames())
    for name in ("TIME", "ANTENNA1", "ANTENNA2", "UVW", "FIELD_ID", "DATA_DESC_ID", *optional):
        try:
            sample[name] = part.getcol(name) if len(rows) else np.zeros((0, 3) if name == "UVW" else 0)
        except RuntimeError as error:
            raise MeasurementSetError(f"{path}: cannot read the column {name}: {error}".strip()) from error
    sample["TIME"] = utc_times(main, sample["TIME"], path)
    sample["UVW"] = in_unit(main, "UVW", sample["UVW"], "m", path)
    if "INTERVAL" in optional:
        sample["INTERVAL"] = in_unit(main, "INTERVAL", sample["INTERVAL"], "s", path)
    return sample


def _intents(path: Path, sample: dict[str, np.ndarray]) -> dict[int, frozenset[str]]:
    """Return what each field was observed for."""
    modes = observing_modes(path) if "STATE_ID" in sample else ()
    result: dict[int, set[str]] = {}
    for pair in _pairs(sample["FIELD_ID"], sample["STATE_ID"]) if modes else ():
        state = pair & 0xFFFFFFFF
        if state < len(modes) and modes[state]:
            result.setdefault(pair >> 32, set()).add(modes[state])
    return {number: frozenset(found) for number, found in result.items()}


def _pairs(field: np.ndarray, ddid: np.ndarray) -> dict[int, int]:
    """Return how many rows have each FIELD_ID and DATA_DESC_ID, the pair as one number, which sorts far faster."""
    pairs = field.astype(np.int64) << 32 | (ddid.astype(np.int64) & 0xFFFFFFFF)
    found, counts = np.unique(pairs, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _partitions(
    counts: Mapping[int, int],
    setups: Sequence[tuple[int, tuple[str, ...]]],
    nfield: int,
    scale: float,
    problems: list[str],
    correlated: set[int] | None = None,
) -> tuple[Partition, ...]:
    result = []
    for pair, count in sorted(counts.items()):
        field, ddid = pair >> 32, (pair & 0xFFFFFFFF) - (0 if pair & 0x80000000 == 0 else 1 << 32)
        if not (0 <= ddid < len(setups) and setups[ddid][0] >= 0 and 0 <= field < nfield):
            problems.append(f"rows with FIELD_ID {field}, DATA_DESC_ID {ddid} point outside their sub-table")
            continue
        spw, corrs = setups[ddid]
        cross = correlated is None or pair in correlated
        result.append(Partition(field, ddid, spw, corrs, round(count * scale), cross))
    return tuple(result)
