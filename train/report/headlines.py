"""The few numbers that a representation is judged by: one line for each, a column for each question."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vis2img.train.evaluate.intervals import mean_text
from vis2img.train.evaluate.scores import Summary

_ALL = 1.0  # of the labels
_MISSING = "–"


@dataclass(frozen=True)
class Headline:
    """A column: what it is called, and the score that stands in it; ``setting`` may end in ``*``, for any end."""

    title: str
    task: str
    setting: str
    metric: str
    x: float = math.nan

    def of(self, rows: Sequence[Summary]) -> Summary | None:
        """Return the one row that it is of; None where there is none, or several settings that it could be."""
        some = [row for row in rows if row.task == self.task and row.metric == self.metric and self._fits(row)]
        return some[0] if len(some) == 1 else None

    def _fits(self, row: Summary) -> bool:
        known = row.setting.startswith(self.setting[:-1]) if self.setting.endswith("*") else row.setting == self.setting
        return known and (row.x == self.x or (math.isnan(row.x) and math.isnan(self.x)))


def _of_fields() -> tuple[Headline, ...]:
    columns = []
    for short, fit in (("k-NN", "k-NN"), ("linear", "linear probe")):
        columns += [
            Headline(f"{short}, alike", "classification", fit, "balanced accuracy", _ALL),
            Headline(f"{short}, otherwise", "transfer", f"to full, {fit}", "balanced accuracy"),
            Headline(f"{short}, off centre", "transfer", f"to off centre, {fit}", "balanced accuracy"),
            Headline(f"{short}, robust -1 to 1", "transfer", f"robust -1 and 1, {fit}", "balanced accuracy"),
        ]
    return (
        *columns,
        Headline("compact, R²", "regression", "compact sources, ridge", "R2"),
        Headline("flux, R²", "regression", "flux, ridge", "R2"),
        Headline("flux with brightness, R²", "regression", "flux with brightness, ridge", "R2"),
        Headline("rare in 5% over random, forest", "anomaly", "isolation forest: *", "recall over random", 0.05),
        Headline("rare in 5% over random, LOF", "anomaly", "local outlier factor: *", "recall over random", 0.05),
    )


def _of_pictures() -> tuple[Headline, ...]:
    return (
        Headline("linear", "classification", "linear probe", "accuracy", _ALL),
        Headline("linear, macro-F1", "classification", "linear probe", "macro-F1", _ALL),
        Headline("k-NN", "classification", "k-NN", "accuracy", _ALL),
        Headline("k-NN, macro-F1", "classification", "k-NN", "macro-F1", _ALL),
        Headline("linear, 145 labels", "classification", "linear probe, 145 labels", "accuracy"),
        Headline("k-NN, 145 labels", "classification", "k-NN, 145 labels", "accuracy"),
        Headline("fine-tuned", "classification", "fine-tuned", "accuracy", _ALL),
        Headline("precision at 10", "similarity", "cosine", "balanced precision", 10.0),
    )


FIELDS, PICTURES = _of_fields(), _of_pictures()


@dataclass(frozen=True)
class HeadlineTable:
    """Titles of the columns, and for each representation the numbers; columns and lines without any are left out."""

    titles: tuple[str, ...]
    lines: tuple[tuple[str, tuple[Summary | None, ...]], ...]

    def texts(self) -> list[tuple[str, list[str]]]:
        """Return the lines as they stand on a page."""
        return [(name, [_MISSING if cell is None else str(cell) for cell in cells]) for name, cells in self.lines]


def headline_table(rows: Sequence[Summary], columns: Sequence[Headline]) -> HeadlineTable:
    """Return the numbers of ``columns`` for each representation, in the order they come in."""
    names = dict.fromkeys(row.representation for row in rows)
    of = {name: [row for row in rows if row.representation == name] for name in names}
    cells = {name: [column.of(some) for column in columns] for name, some in of.items()}
    kept = [i for i in range(len(columns)) if any(line[i] is not None for line in cells.values())]
    lines = tuple(
        (name, tuple(line[i] for i in kept)) for name, line in cells.items() if any(cell is not None for cell in line)
    )
    return HeadlineTable(tuple(columns[i].title for i in kept), lines)


def print_headlines(table: HeadlineTable, console: Console) -> None:
    """Print a line for each representation, in as many tables as the width of the terminal asks for."""
    # A cell is as wide as a mean, its interval stands below; borders and the widest words of titles are counted in.
    fit = max(1, (console.width - 26) // 14)
    for start in range(0, len(table.titles), fit):
        shown = Table(title=Text("Summary" if not start else ""), title_justify="left", pad_edge=False)
        shown.add_column("representation", max_width=22)
        for title in table.titles[start : start + fit]:
            shown.add_column(Text(title), justify="right", max_width=11)
        for name, cells in table.lines:
            shown.add_row(Text(name), *(Text(_on_lines(cell)) for cell in cells[start : start + fit]))
        console.print(shown)


def _on_lines(cell: Summary | None) -> str:
    """Return a mean with its interval below it; the values that it is of, where they are few, are for other tables."""
    if cell is None:
        return _MISSING
    mean, _, interval = mean_text(cell.mean, cell.low, cell.high).partition(" ")
    return f"{mean}\n{interval.replace(' -', chr(10) + '-')}" if interval else mean


def headlines_csv(table: HeadlineTable) -> str:
    """Return the table as CSV: mean, low and high end of each column; what there is none of is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["representation", *(f"{title}{end}" for title in table.titles for end in ("", " (low)", " (high)"))]
    )
    for name, cells in table.lines:
        numbers = [value for cell in cells for value in ((cell.mean, cell.low, cell.high) if cell else (math.nan,) * 3)]
        writer.writerow([name, *("" if math.isnan(value) else repr(value) for value in numbers)])
    return text.getvalue()


# What of each task is printed unless all is asked for: metrics, and positions.
_SHORT: dict[str, tuple[tuple[str, ...], tuple[float, ...]]] = {
    "classification": (("balanced accuracy",), (0.1, _ALL)),
    "similarity": (("balanced precision",), (1.0, 10.0)),
    "anomaly": (("recall over random",), (0.05,)),
    "active learning": (("recall",), ()),
    "regression": (("R2", "NMAD"), ()),
    "transfer": (("balanced accuracy",), ()),
    "invariance": (("distance ratio",), ()),
}


def short(rows: Sequence[Summary]) -> list[Summary]:
    """Return what is printed of each task: one metric, at a few positions; of single numbers all."""
    kept = []
    for row in rows:
        metrics, places = _SHORT.get(row.task, ((row.metric,), (row.x,)))
        if row.metric in metrics and (math.isnan(row.x) or row.x in places):
            kept.append(row)
    return kept
