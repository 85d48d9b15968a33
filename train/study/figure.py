"""The picture of a study: how much better or worse each arm is than augmentation of finished images."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from vis2img.imaging.figure_text import figure_text
from vis2img.train.evaluate.scores import MINUS, Summary
from vis2img.train.report.plots import PALETTE

_BALANCED = "balanced accuracy"
# Title, task, setting, metric and x of what a study is judged by; for all of them more is better.
HEADLINES = (
    ("k-NN", "classification", "k-NN", _BALANCED, 1.0),
    ("linear probe", "classification", "linear probe", _BALANCED, 1.0),
    (
        "other half of\nthe band, probe",
        "transfer",
        "lower and upper half of the band, linear probe",
        _BALANCED,
        math.nan,
    ),
    ("off centre, k-NN", "transfer", "to off centre, k-NN", _BALANCED, math.nan),
    ("compact sources, R²", "regression", "compact sources, ridge", "R2", math.nan),
    ("flux, R²", "regression", "flux, ridge", "R2", math.nan),
)


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
    rows_by = {
        (*row.representation.split(MINUS), row.task, row.setting, row.metric, repr(float(row.x))): row
        for row in summaries
        if MINUS in row.representation
    }
    arms = list(dict.fromkeys(key[0] for key in rows_by if key[0] not in bases))
    figure = Figure(figsize=(2.1 * len(HEADLINES) + 1.6, 0.34 * len(arms) + 1.5), layout="constrained")
    axes = figure.subplots(1, len(HEADLINES), sharey=True, squeeze=False)[0]
    for axis, (title, *what, x) in zip(axes, HEADLINES, strict=True):
        axis.axvline(0, color="0.6", linewidth=1)
        axis.set_title(title, fontsize=9)
        for i, base in enumerate(bases):
            rows = [(place, rows_by.get((arm, base, *what, repr(float(x))))) for place, arm in enumerate(arms)]
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
