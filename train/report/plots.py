"""Figures of scores: curves where the rows have positions x, bars where they have none.

A representation has one colour and one marker in all figures of a report. The colours are those of Okabe and Ito
(2008, "Color Universal Design"), which people with any kind of colour vision tell apart; the yellow is left out,
as it is lost on white.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from vis2img.imaging.figure_text import figure_text
from vis2img.train.evaluate.scores import MINUS, Summary
from vis2img.train.report.descriptions import (
    CHANCE,
    RANDOM_ORDER,
    axis_name,
    metric_title,
    over_what,
    position_text,
    round_positions,
    within_one,
)

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vPX"
_POINT = "."  # of one seed
_LINES = ("-", "--", "-.", ":")  # for more representations than colours
_PANEL, _NARROWEST, _MOST_COLUMNS = (4.0, 3.1), 6.6, 3  # inches
_BAR, _HEAD = 0.19, 1.0  # inches
_FONT = 9


class Look(NamedTuple):
    """How a representation is drawn: colour, marker, and line style."""

    colour: str
    marker: str
    line: str


def looks(representations: Sequence[str]) -> dict[str, Look]:
    """Return a look for each of the names, no two alike for up to 28 of them; chance is not among them."""
    names = [name for name in dict.fromkeys(representations) if name != CHANCE]
    count = len(PALETTE)
    return {
        name: Look(PALETTE[i % count], _MARKERS[i % count], _LINES[i // count % len(_LINES)])
        for i, name in enumerate(names)
    }


def task_figures(summaries: Sequence[Summary]) -> list[tuple[str, str, Figure]]:
    """Return (task, title, figure) of all figures, in the order the tasks come in; they belong to no pyplot window.

    Parameters
    ----------
    summaries : list of Summary
        Rows with positions x become curves, a panel for each setting and metric; rows without (NaN), or with one
        position only, become bars, a panel for each metric and a group for each setting. A representation named
        "chance" and the setting "random order" become dotted lines. Differences between representations are left
        out, as their zero is elsewhere.
    """
    summaries = [row for row in summaries if MINUS not in row.representation]
    look = looks([row.representation for row in summaries])
    shown = []
    for task in dict.fromkeys(row.task for row in summaries):
        # What was not measured has no place in a picture; the tables tell it.
        rows = [r for r in summaries if r.task == task and math.isfinite(r.mean) and r.setting != RANDOM_ORDER]
        curved = {metric for metric in {r.metric for r in rows} if len({r.x for r in rows if r.metric == metric}) > 1}
        curves = [row for row in rows if row.metric in curved and not math.isnan(row.x)]
        single = [row for row in rows if row.metric not in curved or math.isnan(row.x)]
        if curves:
            shown.append((task, f"{task}: curves" if single else task, curves_figure(curves, look)))
        if single:
            shown.append((task, f"{task}: single numbers" if curves else task, bars_figure(single, look)))
    return shown


def curves_figure(rows: Sequence[Summary], look: Mapping[str, Look]) -> Figure:
    """Draw the curves of one task: a panel for each setting and metric, with intervals, or points of few seeds."""
    panels = {
        metric: list(dict.fromkeys(row.setting for row in rows if row.metric == metric))
        for metric in dict.fromkeys(row.metric for row in rows)
    }
    columns = min(max(map(len, panels.values())), _MOST_COLUMNS)
    lines = sum(-(-len(settings) // columns) for settings in panels.values())
    figure = Figure(figsize=(max(_PANEL[0] * columns, _NARROWEST), _PANEL[1] * lines + 0.5), layout="constrained")
    free = figure.subplots(lines, columns, squeeze=False)
    used, line = [], 0
    for metric, settings in panels.items():
        of_metric = [row for row in rows if row.metric == metric]
        height = -(-len(settings) // columns)
        block = free[line : line + height].ravel()
        for axis, setting in zip(block, settings, strict=False):
            members = [row for row in of_metric if row.setting == setting]
            for name in dict.fromkeys(row.representation for row in members):
                _curve(axis, sorted((row for row in members if row.representation == name), key=lambda r: r.x), look)
            _dress_curves(axis, members)
            axis.set_title(figure_text(setting), fontsize=_FONT + 1)
            # One scale for a metric, so that its panels can be compared.
            axis.set_ylim(*_limits(metric, of_metric))
            used.append(axis)
        for axis in block[len(settings) :]:
            axis.set_axis_off()
        line += height
    _legend(figure, used)
    return figure


def _curve(axis: Axes, rows: Sequence[Summary], look: Mapping[str, Look]) -> None:
    x, mean, low, high = (np.array([getattr(row, name) for row in rows]) for name in ("x", "mean", "low", "high"))
    name = rows[0].representation
    if name == CHANCE:
        axis.plot(x, mean, color="grey", linestyle=":", label=CHANCE)
        return
    colour, marker, line = look[name]
    # Long curves are smooth lines; a marker on each of 200 points would hide them.
    every = max(1, len(x) // 12)
    axis.plot(
        x, mean, color=colour, marker=marker, markersize=4, markevery=every, linestyle=line, label=figure_text(name)
    )
    if np.isfinite(low).any():
        axis.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
    for row in (row for row in rows if row.shown_singly):
        axis.plot([row.x] * row.n, row.values, _POINT, color=colour, markersize=3, alpha=0.6)


def _dress_curves(axis: Axes, rows: Sequence[Summary]) -> None:
    """Label the axes; shares and neighbours are on a logarithmic axis, where what matters lies on the left."""
    task, metric = rows[0].task, rows[0].metric
    x = np.unique([row.x for row in rows])
    shares = float(x[-1]) <= 1
    if metric == "recall" and task == "anomaly" and shares:
        random = np.geomspace(max(x[0], 1e-4), x[-1], 100)
        axis.plot(random, random, color="grey", linestyle=":", label=RANDOM_ORDER, zorder=1)
    if x[0] > 0 and x[-1] > 4 * x[0]:
        axis.set_xscale("log")
        axis.set_xticks(_ticks(x))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: position_text(value, shares)))
    axis.set_xlabel(axis_name(task, x), fontsize=_FONT)
    axis.set_ylabel(metric_title(metric), fontsize=_FONT)
    axis.tick_params(labelsize=_FONT - 1)
    axis.grid(alpha=0.25, linewidth=0.6)


def _ticks(x: np.ndarray) -> list[float]:
    """Return the positions themselves where they are few, round numbers otherwise; none too near the one before."""
    positions = x if len(x) <= 9 else round_positions(float(x[0]), float(x[-1]))
    apart = math.log(x[-1] / x[0]) / 11
    ticks: list[float] = []
    for value in map(float, positions):
        if not ticks or math.log(value / ticks[-1]) >= apart:
            ticks.append(value)
    return ticks


def bars_figure(rows: Sequence[Summary], look: Mapping[str, Look]) -> Figure:
    """Draw the single numbers of one task: a panel for each metric, a group of bars for each setting."""
    metrics = list(dict.fromkeys(row.metric for row in rows))
    names = [name for name in look if any(row.representation == name for row in rows)]
    settings = list(dict.fromkeys(row.setting for row in rows))
    columns = min(len(metrics), 2)
    lines = -(-len(metrics) // columns)
    height = _HEAD + _BAR * len(settings) * (len(names) + 1)
    figure = Figure(figsize=(max(6.0 * columns, 8.0), height * lines + 0.4), layout="constrained")
    axes = list(figure.subplots(lines, columns, squeeze=False).ravel())
    for axis, metric in zip(axes, metrics, strict=False):
        _bars(axis, metric, [row for row in rows if row.metric == metric], names, look)
    for axis in axes[len(metrics) :]:
        axis.set_axis_off()
    _legend(figure, axes[: len(metrics)])
    return figure


def _bars(axis: Axes, metric: str, rows: Sequence[Summary], names: Sequence[str], look: Mapping[str, Look]) -> None:
    settings = list(dict.fromkeys(row.setting for row in rows))
    place = {setting: i * (len(names) + 1) for i, setting in enumerate(settings)}
    for offset, name in enumerate(names):
        members = [row for row in rows if row.representation == name]
        if not members:
            continue
        y = [place[row.setting] + offset for row in members]
        mean = [row.mean for row in members]
        error = np.array([[row.mean - row.low for row in members], [row.high - row.mean for row in members]])
        style = {"ecolor": "#444444", "elinewidth": 1.0, "capsize": 2}
        hatch = None if look[name].line == "-" else "///"
        axis.barh(
            y, mean, 0.9, xerr=error, color=look[name].colour, hatch=hatch, error_kw=style, label=figure_text(name)
        )
        for row, at in zip(members, y, strict=True):
            if row.shown_singly:
                axis.plot(row.values, [at] * row.n, _POINT, color="#444444", markersize=3)
            beyond = max(
                (row.mean, *row.values) if row.shown_singly else (row.mean, np.nan_to_num(row.high, nan=row.mean))
            )
            text = f" {row.mean:.3g}" if abs(row.mean) >= 10 else f" {row.mean:.2f}"
            axis.text(max(beyond, 0), at, text, fontsize=_FONT - 2, va="center", clip_on=True)
    for row in (row for row in rows if row.representation == CHANCE):
        ends = place[row.setting] - 0.5, place[row.setting] + len(names) - 0.5
        axis.plot([row.mean, row.mean], ends, color="black", linestyle=":", linewidth=1.4, label=CHANCE)
    if over_what(metric):
        axis.axvline(1, color="black", linestyle=":", linewidth=1.4, label=over_what(metric))
    axis.set_yticks(
        [place[setting] + (len(names) - 1) / 2 for setting in settings], [*map(figure_text, settings)], fontsize=_FONT
    )
    axis.invert_yaxis()
    x = rows[0].x
    where = "" if math.isnan(x) else f", {axis_name(rows[0].task, [x])}: {position_text(x, x <= 1)}"
    axis.set_xlabel(metric_title(metric) + where, fontsize=_FONT)
    axis.tick_params(labelsize=_FONT - 1)
    axis.grid(axis="x", alpha=0.25, linewidth=0.6)
    axis.set_axisbelow(True)
    low, high = axis.get_xlim()
    if metric in ("R2", "R²"):
        low = max(low, -1.0)  # far worse than the mean is as bad as worse than the mean, and would hide the rest
    # Room for the numbers beside the bars.
    axis.set_xlim(low, max(1.0, high) if within_one(metric) else high + 0.1 * (high - low))


def _limits(metric: str, rows: Sequence[Summary]) -> tuple[float, float]:
    """Return limits that hold the means and their intervals or values; up to 1 where a metric ends there."""
    low = min(min(row.values, default=row.mean) if math.isnan(row.low) else row.low for row in rows)
    high = max(max(row.values, default=row.mean) if math.isnan(row.high) else row.high for row in rows)
    if within_one(metric):
        return max(0.0, math.floor(low * 10 - 0.2) / 10), 1.02
    margin = 0.06 * (high - low) or 0.1
    return low - margin, high + margin


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """Put one legend for all panels above them: the representations, then what they are compared with."""
    shown: dict[str, Artist] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            shown.setdefault(label, handle)
    if not shown:
        return
    names = sorted(shown, key=lambda label: label in (CHANCE, RANDOM_ORDER, "another patch"))
    entry = 0.6 + 0.085 * max(map(len, names))  # inches: key and text
    columns = max(1, min(len(names), int(figure.get_figwidth() / entry)))
    handles = [shown[name] for name in names]
    figure.legend(handles, names, loc="outside upper left", ncols=columns, fontsize=_FONT, frameon=False)
