"""What a user is given of scores: a folder with one page, tables and figures; a table in the terminal; JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vis2img.train.evaluate.intervals import CONFIDENCE, FEWEST
from vis2img.train.evaluate.scores import Score, Summary, summaries, to_csv
from vis2img.train.report.descriptions import (
    CHANCE,
    axis_name,
    describe,
    metric_title,
    position_text,
    round_positions,
)
from vis2img.train.report.folder import PAGE, check_report_folder, write_whole
from vis2img.train.report.headlines import FIELDS, Headline, HeadlineTable, headline_table, headlines_csv
from vis2img.train.report.page import data_uri, render, to_png
from vis2img.train.report.plots import task_figures

_MISSING = "–"
_LONG = 12  # positions of a curve that are all printed
ABOUT = (
    f"Numbers are means over seeds with the {100 * CONFIDENCE:.0f}% interval of the mean (Student's t; of shares on "
    "the scale of their logits, so that it stays between 0 and 1), which says how far other seeds would lie, and "
    f"nothing of sources that were never seen. Fewer than {FEWEST} seeds have no interval: their values stand in "
    "brackets. A single share of sources has Wilson's interval, which says how far the share of other sources may lie."
)


@dataclass(frozen=True)
class Cell:
    """Mean with half its interval, as text, and how many seeds it is of."""

    text: str
    seeds: str


@dataclass(frozen=True)
class ScoreTable:
    """One metric of one task: a row for each setting and position, a cell for each representation.

    Parameters
    ----------
    task, metric : str
        As in `Summary`.
    x_name : str
        What the positions are; empty where there are none.
    representations : tuple of str
        Columns.
    rows : tuple of (setting, position, cells)
    """

    task: str
    metric: str
    x_name: str
    representations: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[Cell, ...]], ...]

    @property
    def title(self) -> str:
        """Metric, and which way is better where that is not the usual one."""
        return metric_title(self.metric)

    @property
    def seeds(self) -> str:
        """How many seeds all cells are of, chance left out; empty where they differ."""
        columns = [i for i, name in enumerate(self.representations) if name != CHANCE]
        counts = {row[2][i].seeds for row in self.rows for i in columns} - {""}
        return counts.pop() if len(counts) == 1 else ""


@dataclass(frozen=True)
class TextTable:
    """A table that stands at the head of the page: its title, what it shows, and its columns and rows as text."""

    title: str
    about: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def score_tables(rows: Sequence[Summary]) -> list[ScoreTable]:
    """Return a table for each task and metric, curves and single numbers apart, in the order they come in."""
    tables = []
    for task, metric, curve in dict.fromkeys((r.task, r.metric, not math.isnan(r.x)) for r in rows):
        members = [r for r in rows if (r.task, r.metric, not math.isnan(r.x)) == (task, metric, curve)]
        names = tuple(dict.fromkeys(r.representation for r in members))
        positions = [r.x for r in members]
        shares = curve and max(positions) <= 1
        # NaN is equal to nothing, itself included; its text is.
        cells = {(r.setting, repr(float(r.x)), r.representation): _cell(r) for r in members}
        places = dict.fromkeys((r.setting, repr(float(r.x))) for r in members)
        lines = tuple(
            (setting, position_text(float(x), shares), tuple(cells.get((setting, x, n), _NOTHING) for n in names))
            for setting, x in places
        )
        tables.append(ScoreTable(task, metric, axis_name(task, positions), names, lines))
    return tables


_NOTHING = Cell(_MISSING, "")


def _cell(row: Summary) -> Cell:
    return Cell(str(row) if math.isfinite(row.mean) else _MISSING, str(row.n))


def print_table(rows: Sequence[Summary], console: Console) -> None:
    """Print a table for each task and metric; a line for each number where the columns do not fit the terminal.

    Of a long curve only round positions are printed, or those next to them. Below stands what the numbers are.
    """
    for table in score_tables(_thinned(rows)):
        wide = _wide(table)
        # A measurement is never wider than it is allowed to be.
        unbounded = console.options.update(max_width=10_000)
        fits = console.measure(wide, options=unbounded).maximum <= console.width
        console.print(wide if fits else _long(table))
    if rows:
        console.print(Text(ABOUT))


def _thinned(rows: Sequence[Summary]) -> list[Summary]:
    curves: dict[tuple[str, str], set[float]] = {}
    for row in rows:
        if not math.isnan(row.x):
            curves.setdefault((row.task, row.metric), set()).add(row.x)
    for key, positions in curves.items():
        above = [x for x in positions if x > 0]
        if len(positions) > _LONG:
            curves[key] = {min(above, key=lambda x: abs(x - r)) for r in round_positions(min(above), max(above))}
    return [row for row in rows if math.isnan(row.x) or row.x in curves[row.task, row.metric]]


def _empty(table: ScoreTable) -> Table:
    shown = Table(title=Text(f"{table.task}: {table.title}"), title_justify="left")
    shown.add_column("setting")
    if table.x_name:
        shown.add_column(Text(table.x_name), justify="right", overflow="fold")
    return shown


def _wide(table: ScoreTable) -> Table:
    shown = _empty(table)
    for name in table.representations:
        shown.add_column(Text(name), justify="right", no_wrap=True)
    shown.add_column("seeds", justify="right")
    for setting, position, cells in table.rows:
        seeds = ", ".join(dict.fromkeys(cell.seeds for cell in cells if cell.seeds))
        start = [setting, position] if table.x_name else [setting]
        shown.add_row(*map(Text, [*start, *(cell.text for cell in cells), seeds]))
    return shown


def _long(table: ScoreTable) -> Table:
    shown = _empty(table)
    # Values in brackets may go on in a second line, a mean and its interval may not.
    whole = not any("(" in cell.text for _, _, cells in table.rows for cell in cells)
    for name in ("representation", "value", "seeds"):
        justify: Literal["left", "right"] = "left" if name == "representation" else "right"
        shown.add_column(name, justify=justify, no_wrap=whole and name == "value", overflow="fold")
    for setting, position, cells in table.rows:
        start = [setting, position] if table.x_name else [setting]
        for name, cell in zip(table.representations, cells, strict=True):
            if cell.seeds:
                shown.add_row(*map(Text, [*start, name, cell.text, cell.seeds]))
                start = [""] * len(start)
        shown.add_section()
    return shown


def write_report(
    folder: Path,
    scores: Sequence[Score],
    *,
    title: str,
    facts: Mapping[str, str],
    tables: Sequence[TextTable] = (),
    pictures: Sequence[tuple[str, Figure]] = (),
    columns: Sequence[Headline] = FIELDS,
    overwrite: bool = False,
) -> Path:
    """Write the page, the tables and the figures of a list of scores, and return the path of the page.

    Everything is made aside first and then moved, the page last: where there is a ``report.html``, all that
    belongs to it is there too.

    Parameters
    ----------
    folder : Path
        Made where it is missing. Gets ``scores.csv`` (every score), ``summary.csv`` (means and intervals, what
        these are of, and the values), ``headlines.csv`` (a line for each representation),
        ``figure-NN-NAME.png`` and ``report.html``, which needs none of the others.
    scores : list of Score
    title : str
    facts : dict
        What the scores are of, by name: run, step, data, version, command.
    tables : list of TextTable
        At the head of the page.
    pictures : list of (title, Figure)
        Further figures, after those of the scores.
    columns : list of Headline
        Of the table that stands first.
    overwrite : bool
        Replace a report that is there.

    Raises
    ------
    OutputError
        As `check_report_folder`, or if the disk refuses. An older report stays until the new one is whole.
    """
    check_report_folder(folder, overwrite)
    means = summaries(scores)
    files = {"scores.csv": to_csv(scores).encode(), "summary.csv": to_csv(means).encode()}
    first = headline_table(means, columns)
    if first.titles:
        files["headlines.csv"] = headlines_csv(first).encode()
    shown: dict[str, list[tuple[str, str]]] = {}
    for number, (task, name, figure) in enumerate([*task_figures(means), *(("", *each) for each in pictures)], 1):
        png = to_png(figure)
        files[f"figure-{number:02d}-{_slug(name)}.png"] = png
        shown.setdefault(task, []).append((name, data_uri(png)))
    files[PAGE] = _page(title, facts, means, shown, first, tables).encode()
    write_whole(folder, files, overwrite)
    return folder / PAGE


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:40]


def _page(
    title: str,
    facts: Mapping[str, str],
    means: Sequence[Summary],
    figures: Mapping[str, list[tuple[str, str]]],
    first: HeadlineTable,
    heads: Sequence[TextTable],
) -> str:
    """Return the page; the figures are titles and data URIs by task, those of the user under no name."""
    tables = score_tables(means)
    tasks = [
        {
            "name": task,
            "anchor": f"task-{number}",
            "about": describe(task),
            "figures": figures.get(task, []),
            "tables": [table for table in tables if table.task == task],
        }
        for number, task in enumerate(dict.fromkeys(table.task for table in tables))
    ]
    shown = {"title": title, "facts": facts, "tasks": tasks, "pictures": figures.get("", []), "about": ABOUT}
    return render("tasks.html.j2", **shown, headlines=first, heads=heads)
