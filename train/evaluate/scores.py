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
from scipy.stats import binomtest

from vis2img.errors import ParameterError
from vis2img.train.evaluate.intervals import CONFIDENCE, FEWEST, mean_interval, mean_text, metric_range

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
    """Mean over the seeds of one setting, with its confidence interval; low and high are NaN where it is not known.

    ``interval`` says what the interval is of, ``values`` are what the mean is of, by seed.
    """

    task: str
    representation: str
    setting: str
    metric: str
    x: float
    n: int
    mean: float
    low: float
    high: float
    interval: str = ""
    values: tuple[float, ...] = ()

    @property
    def shown_singly(self) -> bool:
        """Whether the values are too few for an interval, and are shown themselves."""
        return 1 < self.n < FEWEST and math.isnan(self.low) and math.isfinite(self.mean)

    def __str__(self) -> str:
        return mean_text(self.mean, self.low, self.high, self.values)


def summaries(scores: Iterable[Score]) -> list[Summary]:
    """Return the mean of each setting over its seeds, in the order the settings come in.

    The interval is Student's t of the mean at 95%, within what the metric can be
    (:func:`vis2img.train.evaluate.intervals.mean_interval`): it tells how far the mean of as many other seeds would
    lie, and nothing of sources that were never seen. Of a single share of independent sources it is Wilson's (1927,
    JASA 22, 209), which tells how far the share of all such sources may lie. Fewer than five values have none, nor have
    those that are all alike: nothing that was drawn changed them.

    Raises
    ------
    ParameterError
        If there are two scores of one seed of the same setting.
    """
    groups: dict[tuple[str, str, str, str, str], list[Score]] = {}
    for score in scores:
        # NaN is equal to nothing, itself included; its text is.
        key = (score.task, score.representation, score.setting, score.metric, repr(float(score.x)))
        groups.setdefault(key, []).append(score)
    return [_summary(members) for members in groups.values()]


def _summary(members: Sequence[Score]) -> Summary:
    first = members[0]
    if len({score.seed for score in members}) < len(members):
        where = f"{first.task}, {first.representation}, {first.setting}, {first.metric}"
        raise ParameterError(f"scores of one seed twice ({where}): they are one measurement, not two")

    values = np.array([score.value for score in members])
    mean = float(values.mean())
    if len(values) == 1 and first.count:
        low, high = binomtest(round(mean * first.count), first.count).proportion_ci(CONFIDENCE, "wilson")
        what = f"Wilson, {first.count} sources"
    else:
        low, high = mean_interval(values, *_range(first))
        what = "" if math.isnan(low) else f"Student's t, {len(values)} seeds"
    name = first.task, first.representation, first.setting, first.metric, first.x
    return Summary(*name, len(values), mean, float(low), float(high), what, tuple(values.tolist()))


def _range(score: Score) -> tuple[float, float]:
    """Return what a score can be; a difference can be anything."""
    return (-math.inf, math.inf) if MINUS in score.representation else metric_range(score.metric)


def to_csv(rows: Sequence[Score] | Sequence[Summary]) -> str:
    """Return scores or summaries as CSV with a header; numbers in full, NaN as an empty cell."""
    kind: type = type(rows[0]) if rows else Score
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(kind)], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        values = asdict(row)
        writer.writerow({name: _csv_text(value) for name, value in values.items()})
    return text.getvalue()


def _csv_text(value: object) -> object:
    if isinstance(value, tuple):
        return " ".join(map(repr, value))
    return "" if isinstance(value, float) and math.isnan(value) else value


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
        if isinstance(value, tuple):
            return [plain(each) for each in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps([{k: plain(v) for k, v in asdict(row).items()} for row in rows], indent=2, allow_nan=False)
