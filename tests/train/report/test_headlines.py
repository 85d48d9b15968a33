"""The summary: one line for each representation, the right number in each column, legible at any width."""

from __future__ import annotations

import csv
import io
import math
import re

import pytest
from rich.console import Console

from vis2img.train.evaluate.scores import Score, Summary, summaries
from vis2img.train.report.headlines import FIELDS, PICTURES, headline_table, headlines_csv, print_headlines, short

NAN = math.nan


def made() -> list[Summary]:
    """Scores of two representations; the value tells seed, representation and column."""
    wanted = [
        ("classification", "k-NN", "balanced accuracy", 1.0), ("classification", "k-NN", "balanced accuracy", 0.1),
        ("classification", "k-NN", "accuracy", 1.0), ("transfer", "to full, k-NN", "balanced accuracy", NAN),
        ("transfer", "robust -1 and 1, linear probe, as learnt", "balanced accuracy", NAN),
        ("transfer", "robust -1 and 1, linear probe", "balanced accuracy", NAN),
        ("regression", "flux, ridge", "R2", NAN), ("regression", "flux with brightness, ridge", "R2", NAN),
        ("anomaly", "isolation forest: ring", "recall over random", 0.05),
        ("anomaly", "local outlier factor: ring", "recall over random", 0.05),
        ("anomaly", "local outlier factor: bent", "recall over random", 0.05),
        ("classification", "k-NN, 145 labels", "accuracy", NAN),
    ]  # fmt: skip
    return summaries(
        Score(task, name, setting, metric, x, seed, 0.2 + 0.05 * i + 0.3 * (name == "trained") + 0.001 * seed)
        for name in ("trained", "pixels")
        for i, (task, setting, metric, x) in enumerate(wanted)
        for seed in range(5)
        if not (name == "pixels" and task == "regression")
    )


def test_each_column_holds_its_own_number_and_what_is_ambiguous_or_missing_none() -> None:
    table = headline_table(made(), FIELDS)
    assert table.titles == (
        "k-NN, alike", "k-NN, otherwise", "linear, robust -1 to 1", "flux, R²",
        "flux with brightness, R²", "rare in 5% over random, forest",
    )  # fmt: skip
    (name, trained), (_, pixels) = table.lines
    assert name == "trained"
    assert [round(cell.mean - 0.502, 3) if cell else None for cell in trained] == [0.0, 0.15, 0.25, 0.3, 0.35, 0.4]
    assert pixels[3] is None and pixels[0] is not None and pixels[0].mean == pytest.approx(0.202)
    assert headline_table(made(), PICTURES).titles == ("k-NN", "k-NN, 145 labels")


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_summary_is_legible_in_terminals_of_any_width(width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    table = headline_table(made(), FIELDS)
    print_headlines(table, console)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    means = [f"{cell.mean:.3f}" for _, cells in table.lines for cell in cells if cell]
    assert sorted(re.findall(r"(?<![±+-] )(?<![+-])\b\d\.\d{3}", text)) == sorted(means)


def test_the_csv_has_mean_and_interval_of_each_column() -> None:
    table = headline_table(made(), FIELDS)
    (first, second) = csv.DictReader(io.StringIO(headlines_csv(table)))
    cell = table.lines[0][1][1]
    assert cell is not None and float(first["k-NN, otherwise"]) == cell.mean
    assert float(first["k-NN, otherwise (low)"]) == cell.low < cell.mean < float(first["k-NN, otherwise (high)"])
    assert second["representation"] == "pixels" and second["flux, R²"] == second["flux, R² (low)"] == ""


def test_what_is_printed_of_a_task_is_one_metric_at_a_few_positions() -> None:
    kept = short(made())
    assert {row.metric for row in kept if row.task == "classification"} == {"balanced accuracy"}
    assert {row.x for row in kept if row.task == "classification"} == {0.1, 1.0}
    assert {row.setting for row in kept if row.task == "transfer"} == {
        row.setting for row in made() if row.task == "transfer"
    }
