"""Rows of a table of scores, and what they say together: means with confidence intervals over seeds.

Every evaluator has a method ``run`` that yields pairs of a :class:`Name` and a value. :func:`scores_of` alone makes
rows of them, and one form makes tables, plots and pages of all rows.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
from scipy.stats import binomtest, t

CONFIDENCE = 0.95
MINUS = " minus "  # in the names of differences


@dataclass(frozen=True)
class Score:
    """One number that was measured once.

    Parameters
    ----------
    task : str
        "classification", "similarity", ...
    representation : str
        What was scored: "trained", "random weights", "pixels", the name of a run.
    setting : str
        How: "linear probe", "k-NN", "isolation forest".
    metric : str
        "accuracy", "balanced accuracy", "precision", "recall", ...
    x : float
        Where a curve has it: share of labels, neighbours, patches looked at; NaN for single numbers.
    seed : int
        Of what was drawn: labels, folds, weights.
    value : float
    count : int
        Of a share of sources that are independent of each other, their number; else 0.
    """

    task: str
    representation: str
    setting: str
    metric: str
    x: float
    seed: int
    value: float
    count: int = 0


@dataclass(frozen=True)
class Name:
    """What a value of an evaluator is of; the parts are those of :class:`Score`."""

    task: str
    setting: str
    metric: str
    x: float = math.nan
    seed: int = 0
    count: int = 0


Pairs = Iterator[tuple[Name, float]]


def scores_of(representation: str, pairs: Iterable[tuple[Name, float]]) -> list[Score]:
    """Return the rows of what an evaluator yields of a representation."""
    return [Score(representation=representation, value=float(value), **vars(name)) for name, value in pairs]


@dataclass(frozen=True)
class Summary:
    """Mean over the seeds of one setting, with its confidence interval; low and high are NaN where it is not known."""

    task: str
    representation: str
    setting: str
    metric: str
    x: float
    n: int
    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        half = (self.high - self.low) / 2
        return f"{self.mean:.3f}" if math.isnan(half) else f"{self.mean:.3f} ± {half:.3f}"


def summaries(scores: Iterable[Score]) -> list[Summary]:
    """Return the mean of each setting over its seeds, in the order the settings come in.

    The interval is Student's t of the mean at 95%: it tells how far the mean of as many other seeds would lie,
    and nothing of sources that were never seen. Of a single share of independent sources it is Wilson's (1927, JASA 22,
    209), which tells how far the share of all such sources may lie. Values that are all alike have none: nothing that
    was drawn changed them.
    """
    groups: dict[tuple[str, str, str, str, str], list[Score]] = {}
    for score in scores:
        # NaN is equal to nothing, itself included; its text is.
        key = (score.task, score.representation, score.setting, score.metric, repr(float(score.x)))
        groups.setdefault(key, []).append(score)
    rows = []
    for members in groups.values():
        values = np.array([score.value for score in members])
        first, mean = members[0], float(values.mean())
        if len(values) == 1 and first.count:
            low, high = binomtest(round(mean * first.count), first.count).proportion_ci(CONFIDENCE, "wilson")
        else:
            half = half_width(values) if np.ptp(values) > 0 else math.nan
            low, high = mean - half, mean + half
        what = first.task, first.representation, first.setting, first.metric, first.x
        rows.append(Summary(*what, len(values), mean, low, high))
    return rows


def half_width(values: Sequence[float] | np.ndarray) -> float:
    """Return half the confidence interval of a mean by Student's t; NaN of fewer than two values."""
    count = len(values)
    if count < 2:
        return math.nan
    return float(t.ppf((1 + CONFIDENCE) / 2, count - 1) * np.std(values, ddof=1) / math.sqrt(count))


def to_csv(rows: Sequence[Score] | Sequence[Summary]) -> str:
    """Return scores or summaries as CSV with a header; numbers in full, NaN as an empty cell."""
    kind: type = type(rows[0]) if rows else Score
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(kind)], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        values = asdict(row)
        writer.writerow({k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()})
    return text.getvalue()


def from_csv(text: str) -> list[Score]:
    """Return the scores that :func:`to_csv` wrote."""
    number = {"x": float, "seed": int, "value": float, "count": int}
    return [
        Score(**{name: number.get(name, str)(cell or "nan") for name, cell in row.items()})
        for row in csv.DictReader(io.StringIO(text))
    ]


def differences(scores: Sequence[Score], first: str, second: str) -> list[Score]:
    """Return ``first`` minus ``second``, seed by seed, as scores of a representation "FIRST minus SECOND".

    What both share, such as folds and labels of a seed, drops out of the difference, and its interval is the narrower.
    """

    def key(score: Score) -> tuple[str, str, str, str, int]:
        return score.task, score.setting, score.metric, repr(float(score.x)), score.seed

    other = {key(score): score.value for score in scores if score.representation == second}
    return [
        replace(score, representation=f"{first}{MINUS}{second}", value=score.value - other[key(score)], count=0)
        for score in scores
        if score.representation == first and key(score) in other
    ]


def to_json(rows: Sequence[Summary]) -> str:
    """Return summaries as a JSON list of objects; what is no finite number is null."""

    def plain(value: object) -> object:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps([{k: plain(v) for k, v in asdict(row).items()} for row in rows], indent=2, allow_nan=False)
