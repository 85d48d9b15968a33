"""What a study says in a few lines: what helps, what imaging is worth, and what it took."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vis2img.errors import Vis2imgError
from vis2img.train.evaluate.scores import Summary
from vis2img.train.report.scores_page import TextTable
from vis2img.train.run.folder import read_config_of
from vis2img.train.run.metrics_log import read_metrics
from vis2img.train.study.budget import Pace
from vis2img.train.study.config import CLEAN, FULL, IMAGE_ONLY, STRONG, StudyConfig
from vis2img.train.study.figure import HEADLINES, difference
from vis2img.train.study.folder import budget_path
from vis2img.units import format_duration

_OTHERS = (IMAGE_ONLY, f"{IMAGE_ONLY}{STRONG}", CLEAN, f"{CLEAN}{STRONG}")  # what imaging as augmentation must beat
_MISSING = "–"


def compared_pairs(config: StudyConfig) -> list[tuple[str, str]]:
    """Return the pairs of arms whose differences are scored: each with the bases, and full with what it must beat."""
    arms = config.compared
    pairs = [(arm, base) for base in config.bases for arm in arms if arm != base]
    pairs += [(FULL, other) for other in _OTHERS if FULL in arms and other in arms]
    return list(dict.fromkeys(pairs))


def study_tables(config: StudyConfig, rows: Sequence[Summary], steps: Mapping[str, int]) -> list[TextTable]:
    """Return the tables at the head of the report.

    Parameters
    ----------
    config : StudyConfig
    rows : list of Summary
        Of scores and of differences.
    steps : dict of int
        Of the runs of each arm.
    """
    tables = [_what_helps(config, rows, base) for base in config.bases if len(config.compared) > 1]
    others = [other for other in _OTHERS if FULL in config.compared and other in config.compared]
    if others:
        tables.append(
            TextTable(
                "Imaging as augmentation",
                "What varying all imaging parameters is worth over augmenting finished images, seed by seed.",
                (f"{FULL} minus", *_titles()),
                tuple((other, *_cells(rows, FULL, other)) for other in others),
            )
        )
    return [*tables, _costs(config, steps)]


def _what_helps(config: StudyConfig, rows: Sequence[Summary], base: str) -> TextTable:
    """Return the differences of all arms from one, the largest mean over the columns first."""
    arms = [arm for arm in config.compared if arm != base]
    arms.sort(key=lambda arm: -_mean_difference(rows, arm, base))
    return TextTable(
        f"What helps, against {base}",
        f"Each arm minus {base}, seed by seed, in the order of the mean over the columns.",
        ("arm", *_titles()),
        tuple((arm, *_cells(rows, arm, base)) for arm in arms),
    )


def _titles() -> list[str]:
    return [column.title for column in HEADLINES]


def _differences(rows: Sequence[Summary], arm: str, base: str) -> list[Summary | None]:
    """Return the difference of two arms in each of the headlines, None where it was not scored."""
    return [difference(rows, column, arm, base) for column in HEADLINES]


def _mean_difference(rows: Sequence[Summary], arm: str, base: str) -> float:
    means = [row.mean for row in _differences(rows, arm, base) if row is not None and math.isfinite(row.mean)]
    return float(np.mean(means)) if means else -math.inf


def _cells(rows: Sequence[Summary], arm: str, base: str) -> list[str]:
    return [_MISSING if row is None else str(row) for row in _differences(rows, arm, base)]


def _costs(config: StudyConfig, steps: Mapping[str, int]) -> TextTable:
    """Return what the runs of each arm took."""
    lines = []
    for arm in config.compared:
        path = budget_path(config, arm)
        pace = f"{Pace.read(path).step_seconds:.3g}" if config.budget and path.exists() else _MISSING
        folders = [Path(config.run_config(arm, seed).out) for seed in range(config.seeds)]
        times = [seconds for seconds in map(training_seconds, folders) if seconds is not None]
        span = ", ".join(format_duration(each) for each in sorted({min(times), max(times)})) if times else _MISSING
        mean = format_duration(float(np.mean(times))) if times else _MISSING
        lines.append((arm, str(steps[arm]), pace, mean, span))
    given = f"Every arm has {format_duration(config.budget)}; " if config.budget else "Every arm has the same steps; "
    return TextTable(
        "Steps and time",
        f"{given}times are those that the steps of the runs took in fact, the first with its compiling included.",
        ("arm", "steps of a run", "s a step, measured beforehand", "time of a run, mean", "shortest, longest"),
        tuple(lines),
    )


def training_seconds(folder: Path) -> float | None:
    """Return how long the steps of a run took in all, s; None where its metrics are gone.

    A line of the metrics has the rate since they were read last, in samples/s.
    """
    try:
        metrics = read_metrics(folder)
        batch = read_config_of(folder).data.batch_size
        return float(np.nansum(batch / metrics["samples_per_s"]))
    except (Vis2imgError, KeyError):
        return None
