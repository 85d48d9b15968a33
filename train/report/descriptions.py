"""What the tasks measure and what chance is, in plain words, and how their axes read."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from vis2img.train.evaluate.intervals import metric_range

# A representation of this name is what knows nothing: shown as a line, not as one more competitor.
CHANCE = "chance"
# A setting of this name is what all orders are compared with: a line in the pictures of the others.
RANDOM_ORDER = "random order"


@dataclass(frozen=True)
class Description:
    """Of one task.

    Parameters
    ----------
    measures, chance : str
        Sentences: what a score says, and what it is of something that knows nothing.
    share, number : str
        What x is, where it is at most 1 and where it is more.
    """

    measures: str
    chance: str
    share: str = "share of labels"
    number: str = "number of labels"


_UNKNOWN = Description("Scores of the representations beside each other.", "")
_DESCRIPTIONS = {
    "classification": Description(
        "How well the class of a source that was kept back is told from its vector, against the share of the labels "
        "that were used to learn it.",
        "Guessing has a balanced accuracy of one over the number of classes; naming the most frequent class each time "
        "has an accuracy of that class's share.",
    ),
    "similarity": Description(
        "How many of the k sources that are most alike to a source, by the cosine between their vectors, are of its "
        "class: precision at k.",
        "Sources drawn at random have a precision of the share of the class that is asked for.",
        "share of the sources",
        "neighbours k",
    ),
    "anomaly": Description(
        "How many of the planted rare sources are found by someone who looks at the patches in the order of their "
        "anomaly score: recall against the patches looked at.",
        "In random order the share found is the share looked at (dotted line).",
        "share of patches looked at",
        "patches looked at",
    ),
    "active learning": Description(
        "How many of the planted rare sources someone has found who scores batches of patches from 0 to 5 while a "
        "learner chooses the next, against the number looked at; and beside it without a learner (no scores). And how "
        "many are in the first 5%, scored ones first, after a few scores.",
        "In random order the share found is the share looked at.",
        "share of patches looked at",
        "number of patches",
    ),
    "regression": Description(
        "How well a physical quantity (number of sources, flux, redshift) of a source that was kept back is told "
        "from its vector.",
        "Answering with the mean each time has R² = 0 and an RMS error of the scatter of the quantity itself.",
    ),
    "transfer": Description(
        "How well a classifier that learned on one telescope, band or weighting does on another that it never saw.",
        "Chance is as in classification; what to compare with is the score 'as learnt': of other sources, imaged as "
        "those that it learned on.",
    ),
    "invariance": Description(
        "How far a vector moves when nothing changes but how the patch was imaged, over the distance between "
        "different patches imaged alike, for each imaging parameter.",
        "One: the same patch imaged otherwise is as far away as another patch. Zero: imaging changes nothing.",
    ),
}

_LOWER_IS_BETTER = ("error", "rmse", "mae", "ratio", "distance", "scatter", "loss", "nmad", "outlier")


def describe(task: str) -> Description:
    """Return the description of a task; a general one where the task is not known."""
    return _DESCRIPTIONS.get(task, _UNKNOWN)


def axis_name(task: str, x: Iterable[float]) -> str:
    """Return what the positions ``x`` of a task's curve are; empty where there are none but NaN."""
    finite = [value for value in x if not math.isnan(value)]
    if not finite:
        return ""
    return describe(task).share if max(finite) <= 1 else describe(task).number


def position_text(x: float, shares: bool) -> str:
    """Return a position as people read it: ``5%`` where the curve's positions are ``shares``, ``10`` otherwise."""
    if math.isnan(x):
        return ""
    return f"{100 * x:.3g}%" if shares else f"{x:g}"


def round_positions(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten between ``low`` and ``high`` (both above 0), and these ends."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    between = [m * 10.0**e for e in exponents for m in (1, 2, 5) if 1.001 * low < m * 10.0**e < 0.999 * high]
    return [low, *between, high]


def metric_title(metric: str) -> str:
    """Return the name of a metric; of an error or a distance that says which way is better."""
    lower = any(word in metric.lower() for word in _LOWER_IS_BETTER)
    return f"{metric} (lower is better)" if lower else metric


def within_one(metric: str) -> bool:
    """Tell whether a metric lies between 0 and 1 and is best there, so that its axis shows all of that."""
    return metric_range(metric) == (0.0, 1.0) and metric_title(metric) == metric


def over_what(metric: str) -> str:
    """Return what a metric is a multiple of, so that it is 1 for no gain; empty where it is none."""
    if "ratio" in metric.lower():
        return "another patch"
    return RANDOM_ORDER if "over random" in metric.lower() else ""
