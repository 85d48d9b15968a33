"""A picture of what the network sees: samples down, views across, as they are after turning and stretching."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave

from vis2img.files import atomic_output
from vis2img.imaging.figure_text import figure_text
from vis2img.views.crops import turned

# The scale of a channel is one for all views, so that what differs between panels differs between views. Where none is
# above 1, as of pixels over the brightest of their view, it ends there.
VMIN, VMAX, VMAX_OF_PARTS = -0.5, 4.0, 1.0
_LONGEST = 200  # letters of a note
_PANEL, _WIDEST, _EDGE, _HEAD, _NOTE = 1.4, 24.0, 0.06, 0.42, 0.25  # inches
_DPI, _FONT = 110, 6.5


def view_sheet(
    batch_arrays: Mapping[str, Any], path: Path, *, teacher_note: str = "", n_samples: int = 4
) -> np.ndarray:
    """Draw the first samples of a batch and write the picture as a PNG, whole or not at all.

    Parameters
    ----------
    batch_arrays : dict
        "global" (n_global, B, G, G, C), "local" (L, B, S, S, C) if there are any, and "turns" (n_global + L, B) if the
        views are still to be turned: one batch, not yet spread over devices.
    path : Path
        An older picture is replaced; the folder must exist.
    teacher_note : str
        Line above the picture, such as the step and what the teacher is.
    n_samples : int
        Rows, at most.

    Returns
    -------
    uint8 (y, x, 4)
        The picture, as for `vis2img.train.run.metrics_log.MetricsLog.image`.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    canvas = FigureCanvasAgg(draw_views(turned_views(batch_arrays, n_samples), teacher_note))
    canvas.draw()
    pixels = np.array(canvas.buffer_rgba())
    with atomic_output(path, overwrite=True) as temporary:
        imsave(temporary, pixels, format="png", dpi=_DPI)
    return pixels


def turned_views(batch_arrays: Mapping[str, Any], n_samples: int) -> dict[str, list[list[np.ndarray]]]:
    """Views of the first samples as the network gets them: "global" and "local", each [view][sample] of [y, x, C]."""
    first = {name: np.asarray(array)[:, :n_samples] for name, array in batch_arrays.items()}
    turns = first.pop("turns", None)
    if turns is None:
        turns = np.zeros((sum(len(views) for views in first.values()), n_samples), int)
    n_global = len(first["global"])
    of = {"global": turns[:n_global], "local": turns[n_global:]}
    return {
        name: [
            [turned(view, int(turn)) for view, turn in zip(views, row, strict=False)]
            for views, row in zip(first[name], of[name], strict=True)
        ]
        for name in ("global", "local")
        if name in first
    }


def draw_views(views: Mapping[str, list[list[np.ndarray]]], note: str = "") -> Figure:
    """Return a figure of `turned_views`; it belongs to no pyplot window.

    Three channels are shown as red, green and blue, any other number beside each other.
    """
    columns = [(name, number, samples) for name in views for number, samples in enumerate(views[name], 1)]
    rows, channels = len(columns[0][2]), columns[0][2][0].shape[-1]
    across = 1 if channels == 3 else channels
    side = min(_PANEL, _WIDEST / (len(columns) * across))
    head = _HEAD + (_NOTE if note else 0.0)
    # Room for the titles, which may be wider than a panel.
    step = max(side * across, _PANEL) + _EDGE
    width, height = len(columns) * step + _EDGE, head + rows * (side + _EDGE)
    figure = Figure(figsize=(width, height), dpi=_DPI)
    if note:
        figure.text(_EDGE / width, 1 - _EDGE / height, figure_text(note, _LONGEST), fontsize=_FONT + 1, va="top")
    peaks = [np.fmax.reduce(view, axis=(0, 1)) for *_, samples in columns for view in samples]
    brightest = np.fmax.reduce(peaks)
    tops = np.where(brightest > VMAX_OF_PARTS, VMAX, VMAX_OF_PARTS)
    for column, (name, number, samples) in enumerate(columns):
        for row, view in enumerate(samples):
            left, bottom = _EDGE + column * step, height - head - (row + 1) * (side + _EDGE) + _EDGE
            panel = figure.add_axes((left / width, bottom / height, side * across / width, side / height))
            _show(panel, (view - VMIN) / (tops - VMIN))
            if row == 0:
                panel.set_title(_title(name, number, view), fontsize=_FONT, pad=3, linespacing=1.2)
    return figure


def _title(name: str, number: int, view: np.ndarray) -> str:
    seen_by = "teacher, student" if name == "global" else "student"
    channels = f", {view.shape[-1]} channels" if view.shape[-1] > 1 else ""
    return f"{name} {number} ({seen_by})\n{view.shape[1]} x {view.shape[0]} pixels{channels}"


def _show(panel: Axes, view: np.ndarray) -> None:
    """Show a view [y, x, C] of brightness from 0 to 1; pixels that are no number are cyan."""
    panel.set(xticks=[], yticks=[])
    size, channels = view.shape[1], view.shape[2]
    if channels == 3:
        scaled = np.clip(view, 0.0, 1.0)
        scaled = np.where(np.isfinite(scaled).all(axis=-1, keepdims=True), scaled, (0.0, 1.0, 1.0))
        panel.imshow(scaled, origin="lower", interpolation="nearest")
        return
    beside = np.moveaxis(view, 2, 1).reshape(view.shape[0], channels * size)
    colours = matplotlib.colormaps["inferno"].with_extremes(bad="cyan")
    panel.imshow(beside, origin="lower", cmap=colours, vmin=0.0, vmax=1.0, interpolation="nearest")
    for channel in range(1, channels):
        panel.axvline(channel * size - 0.5, color="white", linewidth=0.8)
