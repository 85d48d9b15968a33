"""The picture of a study: how much better or worse each arm is than augmentation of finished images."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from vis2img.imaging.figure_text import figure_text
from vis2img.train.evaluate.scores import MINUS, Summary
from vis2img.train.report.headlines import FIELDS, Headline
from vis2img.train.report.plots import PALETTE

_JUDGED_BY = {
    "k-NN, alike", "k-NN, otherwise", "k-NN, off centre", "k-NN, robust -1 to 1", "linear, alike", "linear, otherwise",
    "compact, R²", "flux, R²",
}  # fmt: skip
# Columns that a study is judged by; for all of them more is better.
HEADLINES = tuple(column for column in FIELDS if column.title in _JUDGED_BY)


def differences_figure(summaries: Sequence[Summary], bases: Sequence[str]) -> Figure:
    """Draw the differences of arms from each of ``bases`` with their intervals, a panel for each headline.

    Few seeds have no interval: their values are points.

    Parameters
    ----------
    summaries : list of Summary
        Rows "ARM minus BASE" of them are drawn.
    bases : list of str
        Names of arms.
    """
    found = [row.representation.split(MINUS)[0] for row in summaries if MINUS in row.representation]
    arms = [arm for arm in dict.fromkeys(found) if arm not in bases]
    figure = Figure(figsize=(1.8 * len(HEADLINES) + 1.6, 0.34 * len(arms) + 1.5), layout="constrained")
    axes = figure.subplots(1, len(HEADLINES), sharey=True, squeeze=False)[0]
    for axis, column in zip(axes, HEADLINES, strict=True):
        axis.axvline(0, color="0.6", linewidth=1)
        axis.set_title(column.title.replace(", ", ",\n", 1), fontsize=9)
        for i, base in enumerate(bases):
            rows = [(place, difference(summaries, column, arm, base)) for place, arm in enumerate(arms)]
            shown = [(place - 0.12 + 0.24 * i, row) for place, row in rows if row is not None]
            axis.errorbar(
                [row.mean for _, row in shown], [y for y, _ in shown],
                xerr=[[row.mean - row.low for _, row in shown], [row.high - row.mean for _, row in shown]],
                fmt="os"[i % 2], color=PALETTE[i], markersize=4, label=f"minus {figure_text(base)}",
            )  # fmt: skip
            for y, row in shown:
                if row.shown_singly:
                    axis.plot(row.values, [y] * row.n, ".", color=PALETTE[i], markersize=3, alpha=0.6)
        axis.grid(axis="x", alpha=0.3)
        axis.tick_params(labelsize=8)
    axes[0].set_yticks(range(len(arms)), [*map(figure_text, arms)])
    axes[0].invert_yaxis()
    axes[0].legend(fontsize=8, loc="upper left", bbox_to_anchor=(-0.9, -0.12), ncols=len(bases), frameon=False)
    return figure


def difference(summaries: Sequence[Summary], column: Headline, arm: str, base: str) -> Summary | None:
    """Return the row "ARM minus BASE" of a column; None where it was not scored."""
    return column.of([row for row in summaries if row.representation == f"{arm}{MINUS}{base}"])
