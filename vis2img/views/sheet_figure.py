"""The picture of a contact sheet: rows of sky patches, columns of draws with what varies above them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vis2img.files import atomic_output
from vis2img.imaging.figure_text import figure_text
from vis2img.views.sheet import ANGLES, Sheet

_PANEL, _LEFT, _LINE, _EDGE = 1.4, 1.2, 0.13, 0.06  # inches: panel, row labels, line of a caption, between panels
_DPI, _FONT = 110, 7
_TITLE = 200  # letters of a title
_ROUND = (30, 20, 10, 5, 2, 1)
_BLACK = 0.5  # percentile of a row


def draw_sheet(sheet: Sheet, title: str = "") -> Figure:
    """Return a figure of ``sheet``; it belongs to no pyplot window. Each row has its own brightness scale."""
    rows, columns = len(sheet.patches), len(sheet.columns)
    head = _LINE * (3 + max(len(column.caption) for column in sheet.columns))
    width, height = _LEFT + columns * (_PANEL + _EDGE), head + rows * (_PANEL + _EDGE)
    figure = Figure(figsize=(width, height), dpi=_DPI)
    figure.text(_EDGE / width, 1 - 0.4 * _LINE / height, figure_text(title, _TITLE), fontsize=_FONT + 1, va="top")
    digits = max(0, math.ceil(2 - math.log10(math.degrees(sheet.side))))
    for i, patch in enumerate(sheet.patches):
        views = np.stack([column.views[i] for column in sheet.columns])
        low, high = np.nanpercentile(views, _BLACK), np.nanmax(views)
        bottom = height - head - (i + 1) * (_PANEL + _EDGE)
        ra, dec = map(math.degrees, patch.position)
        text = f"{patch.label}\nRA {ra:.{digits}f}\nDec {dec:.{digits}f}"
        figure.text(_EDGE / width, (bottom + _PANEL / 2) / height, text, fontsize=_FONT, va="center")
        for j, column in enumerate(sheet.columns):
            place = _LEFT + j * (_PANEL + _EDGE), bottom, _PANEL, _PANEL
            panel = figure.add_axes((place[0] / width, place[1] / height, place[2] / width, place[3] / height))
            panel.imshow(views[j], origin="lower", cmap="inferno", vmin=low, vmax=max(high, low + 1e-6))
            panel.set(xticks=[], yticks=[])
            if i == 0:
                panel.set_title("\n".join([column.title, *column.caption]), fontsize=_FONT, pad=3, linespacing=1.2)
            if column.problem:
                panel.text(0.5, 0.5, "nothing left", transform=panel.transAxes, fontsize=_FONT, ha="center")
        _bar(figure.axes[i * columns], sheet.side, views.shape[-1])
    return figure


def _bar(panel: Axes, side: float, npix: int) -> None:
    """Draw a bar of a round angle of up to 0.4 of the ``side`` (rad) of a panel of ``npix`` pixels."""
    lengths = ((f"{n} {unit}", n * size) for unit, size in ANGLES for n in _ROUND)
    label, length = next(((text, length) for text, length in lengths if length <= 0.4 * side), ("", 0.0))
    pixels = length / side * npix
    start, level = 0.06 * npix, 0.07 * npix
    panel.plot([start, start + pixels], [level, level], color="white", linewidth=1.5, gid="bar")
    panel.text(start, 1.3 * level, label, color="white", fontsize=_FONT - 1, va="bottom")
    panel.set(xlim=(-0.5, npix - 0.5), ylim=(-0.5, npix - 0.5))


def save_sheet(sheet: Sheet, path: Path, title: str = "", overwrite: bool = False) -> Path:
    """Write ``sheet`` to ``path``, PNG or PDF by its ending, whole or not at all.

    Raises
    ------
    OutputError
        If the file exists already, or cannot be written.
    """
    figure = draw_sheet(sheet, title)
    with atomic_output(path, overwrite) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower())
    return path
