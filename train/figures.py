"""The pictures of a run, each as a matplotlib figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from train.evaluate import QUERIES, LabelledPatches, Score
from vis2img.draws import Draw
from vis2img.imaging import Image
from vis2img.options import format_angle
from vis2img.views import Stretch, cut

_SHOWN = {"origin": "lower", "cmap": "inferno", "interpolation": "nearest"}


def field_figure(image: Image) -> Figure:
    """Show a dirty image beside its point spread function."""
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    half = [n * image.params.pixsize / 2 * 60 * 180 / math.pi for n in image.params.npix]
    extent = (half[0], -half[0], -half[1], half[1])
    shown = left.imshow(np.arcsinh(image.data / (3 * image.noise())), extent=extent, **_SHOWN)
    left.set(title="dirty image", xlabel="offset east (arcmin)", ylabel="offset north (arcmin)")
    figure.colorbar(shown, ax=left, label="arcsinh(flux / 3 noise)", shrink=0.8)
    if image.psf is not None:
        ny, nx = image.psf.shape
        side = min(64, nx // 2, ny // 2)
        middle = image.psf[ny // 2 - side : ny // 2 + side, nx // 2 - side : nx // 2 + side]
        arcsec = side * image.params.pixsize * 180 * 3600 / math.pi
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
    """Show loss, teacher entropy and KL divergence, use of the prototypes, and spread of the features."""
    figure = Figure(figsize=(12, 3), layout="constrained")
    loss, entropy, usage, spread = figure.subplots(1, 4)
    steps = metrics["step"]
    loss.plot(steps, metrics["loss"])
    loss.axhline(math.log(out_dim), color="grey", ls=":", lw=1)
    loss.set(title="loss (dotted: no information)", xlabel="step", ylabel="nat")
    entropy.plot(steps, metrics["entropy"], label="teacher entropy")
    entropy.plot(steps, metrics["kl"], label="KL(teacher || student)")
    entropy.legend(fontsize=8)
    entropy.set(title="collapse: entropy at 0 or ln K", xlabel="step", ylabel="nat")
    usage.plot(steps, metrics["usage"] * out_dim)
    usage.set(title="prototypes used in a batch", xlabel="step", ylabel="number", ylim=(0, None))
    spread.plot(steps, metrics["feature_std"])
    spread.set(title="spread of normalised features", xlabel="step", ylim=(0, None))
    return figure


def scores_figure(scores: Sequence[Score], chance: float) -> Figure:
    """Show the accuracies of representations beside each other, with the spread over seeds."""
    names = list(dict.fromkeys(score.name for score in scores))
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axis = figure.subplots()
    for offset, (imaging, label) in zip((-0.27, 0.0, 0.27), QUERIES.items(), strict=True):
        chosen = {s.name: s for s in scores if s.imaging == imaging}
        x = np.arange(len(names)) + offset
        bars = axis.bar(x, [chosen[n].mean for n in names], 0.26, yerr=[chosen[n].std for n in names], label=label)
        axis.bar_label(bars, fmt="%.2f", padding=2, fontsize=8)
    axis.axhline(chance, color="grey", ls=":", lw=1)
    axis.set_xticks(range(len(names)), names)
    axis.set(ylabel="balanced accuracy (k-NN)", ylim=(0, 1))
    axis.legend(fontsize=8)
    return figure


def neighbours_figure(patches: LabelledPatches, vectors: np.ndarray, queries: Sequence[int], count: int = 6) -> Figure:
    """Show, for each query patch, those of other fields whose embedding is most alike."""
    scaled = (vectors - vectors.mean(0)) / (vectors.std(0) + 1e-9)
    scaled /= np.linalg.norm(scaled, axis=1, keepdims=True) + 1e-12
    figure = Figure(figsize=(1.5 * (count + 1), 1.75 * len(queries)), layout="constrained")
    axes = np.atleast_2d(figure.subplots(len(queries), count + 1))
    for row, query in zip(axes, queries, strict=True):
        likeness = np.where(patches.field == patches.field[query], -np.inf, scaled @ scaled[query])
        for axis, index in zip(row, [query, *np.argsort(-likeness)[:count]], strict=True):
            axis.imshow(patches.fixed[index, ..., 0], vmin=-0.5, vmax=4, **_SHOWN)
            axis.set(xticks=[], yticks=[])
            same = patches.label[index] == patches.label[query]
            axis.set_title(patches.label[index], fontsize=9, color="black" if same else "tab:red")
            if index == query:
                axis.set_ylabel("query", fontsize=9)
    return figure


def attention_figure(images: np.ndarray, attention: Any, labels: Sequence[str]) -> Figure:
    """Show patches [n, y, x, 1] above the mean attention of the class token [n, heads, rows, columns]."""
    figure = Figure(figsize=(1.6 * len(images), 3.4), layout="constrained")
    top, bottom = figure.subplots(2, len(images))
    for i, (above, below) in enumerate(zip(top, bottom, strict=True)):
        above.imshow(images[i, ..., 0], vmin=-0.5, vmax=4, **_SHOWN)
        above.set_title(labels[i], fontsize=9)
        below.imshow(np.asarray(attention[i]).mean(axis=0), origin="lower", cmap="viridis")
        for axis in (above, below):
            axis.set(xticks=[], yticks=[])
    return figure
