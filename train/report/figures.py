"""The pictures of a run, each as a matplotlib figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vis2img.draws.draw import Draw
from vis2img.imaging.figure_text import figure_text
from vis2img.imaging.image import Image
from vis2img.train.evaluate.neighbours import Index
from vis2img.train.evaluate.scores import Summary
from vis2img.units import ARCSEC, format_angle
from vis2img.views.crops import cut
from vis2img.views.stretch import Stretch

_SHOWN = {"origin": "lower", "cmap": "inferno", "interpolation": "nearest"}


def field_figure(image: Image) -> Figure:
    """Show a dirty image beside its point spread function."""
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    half = [n * image.params.pixsize / 2 / (60 * ARCSEC) for n in image.params.npix]
    extent = (half[0], -half[0], -half[1], half[1])
    shown = left.imshow(np.arcsinh(image.data / (3 * image.noise())), extent=extent, **_SHOWN)
    left.set(title="dirty image", xlabel="offset east (arcmin)", ylabel="offset north (arcmin)")
    figure.colorbar(shown, ax=left, label="arcsinh(flux / 3 noise)", shrink=0.8)
    if image.psf is not None:
        ny, nx = image.psf.shape
        side = min(64, nx // 2, ny // 2)
        middle = image.psf[ny // 2 - side : ny // 2 + side, nx // 2 - side : nx // 2 + side]
        arcsec = side * image.params.pixsize / ARCSEC
        shown = right.imshow(middle, extent=(arcsec, -arcsec, -arcsec, arcsec), vmin=-0.1, vmax=0.3, **_SHOWN)
        right.set(title="point spread function (centre)", xlabel="offset east (arcsec)")
        figure.colorbar(shown, ax=right, label="response", shrink=0.8)
    return figure


def draws_figure(draws: Sequence[Draw], l: float, m: float, side: float, size: int) -> Figure:
    """Show one patch of sky as each of ``draws`` has it, with the parameters that made it."""
    columns = 6
    rows = -(-len(draws) // columns)
    figure = Figure(figsize=(12, 2.5 * rows), layout="constrained")
    for axis, draw in zip(np.ravel(figure.subplots(rows, columns)), draws, strict=False):
        p = draw.params
        axis.imshow(cut(draw, l, m, side, size, Stretch())[..., 0], vmin=-0.5, vmax=4, **_SHOWN)
        robust = f" {p.robust:+.1f}" if p.weighting == "briggs" else ""
        taper = f", taper {format_angle(p.taper, 2)}" if p.taper else ""
        axis.set_title(f"{p.weighting}{robust}{taper}", fontsize=8)
        axis.set_xlabel(
            f"band {p.band[0]:.2f} to {p.band[1]:.2f}, time {p.time_span[0]:.2f} to {p.time_span[1]:.2f}\n"
            f"{format_angle(p.pixsize, 3)} px, noise {draw.noise[0] * 1e6:.0f} uJy/beam",
            fontsize=7,
        )
        axis.set(xticks=[], yticks=[])
    return figure


def curves_figure(metrics: dict[str, np.ndarray], out_dim: int) -> Figure:
    """Show loss and spread of the features, and between them what the objective tells besides.

    Of DINO that is teacher entropy and KL divergence, and use of the prototypes; of SimCLR its accuracy; of others
    their terms.
    """
    steps, of_dino = metrics["step"], "entropy" in metrics
    terms = ("invariance", "variance", "covariance", "coding_rate", "sigreg")
    shown = ["entropy", "usage"] if of_dino else [name for name in ("accuracy", *terms) if name in metrics]
    figure = Figure(figsize=(3 * (2 + len(shown)), 3), layout="constrained")
    loss, *axes, spread = figure.subplots(1, 2 + len(shown))
    loss.plot(steps, metrics["loss"])
    loss.set(title="loss", xlabel="step")
    if of_dino:
        loss.axhline(math.log(out_dim), color="grey", ls=":", lw=1)
        loss.set(title="loss (dotted: no information)", ylabel="nat")
        _answers(metrics, out_dim, *axes)
    else:
        for name, axis in zip(shown, axes, strict=True):
            axis.plot(steps, metrics[name])
            axis.set(title=name.replace("_", " "), xlabel="step")
    spread.plot(steps, metrics["feature_std"])
    spread.set(title="spread of normalised features", xlabel="step", ylim=(0, None))
    return figure


def _answers(metrics: dict[str, np.ndarray], out_dim: int, entropy: Axes, usage: Axes) -> None:
    """Show what DINO's teacher answers."""
    steps = metrics["step"]
    entropy.plot(steps, metrics["entropy"], label="teacher entropy")
    entropy.plot(steps, metrics["kl"], label="KL(teacher || student)")
    entropy.legend(fontsize=8)
    entropy.set(title="collapse: entropy at 0 or ln K", xlabel="step", ylabel="nat")
    usage.plot(steps, metrics["usage"] * out_dim)
    usage.set(title="prototypes used in a batch", xlabel="step", ylabel="number", ylim=(0, None))


def queries_figure(rows: Sequence[Summary], queries: Mapping[str, str], chance: float) -> Figure:
    """Show accuracies beside each other for each way the queries are seen, with intervals or, of few seeds, values."""
    names = list(dict.fromkeys(row.representation for row in rows))
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axis = figure.subplots()
    for offset, (way, label) in zip((-0.27, 0.0, 0.27), queries.items(), strict=True):
        of_way = {row.representation: row for row in rows if row.setting.startswith(f"{way},")}
        shown = [of_way[n] for n in names]
        half = np.nan_to_num([[row.mean - row.low for row in shown], [row.high - row.mean for row in shown]])
        bars = axis.bar(np.arange(len(names)) + offset, [row.mean for row in shown], 0.26, yerr=half, label=label)
        axis.bar_label(bars, fmt="%.2f", padding=2, fontsize=8)
        for at, row in enumerate(shown):
            if row.shown_singly:
                axis.plot([at + offset] * row.n, row.values, ".", color="#444444", markersize=3)
    axis.axhline(chance, color="grey", ls=":", lw=1)
    axis.set_xticks(range(len(names)), [*map(figure_text, names)])
    axis.set(ylabel="balanced accuracy (k-NN)", ylim=(0, 1))
    axis.legend(fontsize=8)
    return figure


def neighbours_figure(
    images: np.ndarray,
    label: np.ndarray,
    field: np.ndarray,
    vectors: np.ndarray,
    queries: Sequence[int],
    count: int = 6,
) -> Figure:
    """Show, for each query patch [n, y, x, 1], those of other fields whose embedding is most alike."""
    scaled = (vectors - vectors.mean(0)) / (vectors.std(0) + 1e-9)
    others = [int((field != field[query]).sum()) for query in queries]
    count = min(count, *others)
    rows, _ = Index(scaled, group=field).search(scaled[queries], count, exclude_group=field[queries])
    figure = Figure(figsize=(1.5 * (count + 1), 1.75 * len(queries)), layout="constrained")
    axes = np.atleast_2d(figure.subplots(len(queries), count + 1))
    for row, query, nearest in zip(axes, queries, rows, strict=True):
        for axis, index in zip(row, [query, *nearest], strict=True):
            axis.imshow(images[index, ..., 0], vmin=-0.5, vmax=4, **_SHOWN)
            axis.set(xticks=[], yticks=[])
            same = label[index] == label[query]
            axis.set_title(figure_text(label[index]), fontsize=9, color="black" if same else "tab:red")
            if index == query:
                axis.set_ylabel("query", fontsize=9)
    return figure
