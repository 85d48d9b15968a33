"""A map of embeddings: two dimensions in which what is alike lies together, coloured, or paved with thumbnails.

UMAP (McInnes et al. 2018, arXiv:1802.03426). Neighbourhoods on such a map mean something; distances between groups,
their sizes and the axes mean little.
"""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from sklearn.decomposition import PCA

from vis2img.errors import ParameterError, Vis2imgError
from vis2img.imaging.figure_text import figure_text
from vis2img.train.evaluate.neighbours import finite_vectors
from vis2img.train.report.plots import PALETTE

NEIGHBOURS = 15
# Wider vectors are reduced first: the principal components beyond these are mostly noise, and cost time.
COMPONENTS = 50
GRID = 20  # thumbnails along a side of the map
_SIDE, _FONT = 7.0, 9  # inches, points
_OTHER = "#BBBBBB"
_MARKERS = "osD^vPX"
_MOST_CLASSES = 12  # whole numbers of more values than this are a scale, not classes
_PERCENTILES = (0.5, 99.8)


def umap_points(vectors: np.ndarray, seed: int = 0) -> np.ndarray:
    """Lay vectors out on a plane.

    Parameters
    ----------
    vectors : float [n, dim]
        Embeddings; more than 15. They are centred, so that the cosine between them is not that of what all share, and
        wide ones are reduced to 50 principal components.
    seed : int
        The same seed gives the same map.

    Returns
    -------
    float32 [n, 2]

    Raises
    ------
    ParameterError
        If there are too few vectors, they are not finite, or all the same.
    Vis2imgError
        If umap-learn is not installed.
    """
    vectors = finite_vectors(vectors)
    if len(vectors) <= NEIGHBOURS:
        raise ParameterError(f"a map needs more than {NEIGHBOURS} vectors [n, dim]; got the shape {vectors.shape}")
    centred = vectors - vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    if np.abs(centred).max() <= 1e-6 * np.abs(vectors).max():
        raise ParameterError(f"all {len(vectors)} vectors are the same; there is no map of them")
    umap = _umap()
    reducer = umap.UMAP(n_neighbors=NEIGHBOURS, metric="cosine", random_state=seed, n_jobs=1)
    return np.asarray(reducer.fit_transform(_reduced(centred, seed)), dtype=np.float32)


def _umap() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it mentions TensorFlow, which only its parametric form needs
        try:
            import umap  # it compiles for half a minute
        except ImportError:
            raise Vis2imgError("a map of embeddings needs umap-learn: pip install 'vis2img[evaluate]'") from None
    return umap


def _reduced(centred: np.ndarray, seed: int) -> np.ndarray:
    if min(centred.shape) <= COMPONENTS:
        return centred
    return PCA(COMPONENTS, random_state=seed).fit_transform(centred)


def map_figure(
    points: np.ndarray, colour: np.ndarray | None = None, *, name: str = "", thumbnails: np.ndarray | None = None
) -> Figure:
    """Draw points of a map, and beside it the same map paved with thumbnails.

    Parameters
    ----------
    points : float [n, 2]
        From `umap_points`.
    colour : [n], optional
        Labels (strings, truth values, or whole numbers of at most 12 values) get a colour and a marker each, the 7 most
        frequent of them; other numbers are a scale. What is NaN or a rarer label is grey.
    name : str
        What the colours are.
    thumbnails : [n, y, x] or [n, y, x, channel], optional
        Images: three channels of uint8 or of 0 to 1 are colours, one channel is shown by brightness.

    Returns
    -------
    Figure
        It belongs to no pyplot window.

    Raises
    ------
    ParameterError
        If the numbers of points, colours and thumbnails differ.
    """
    for what, array in (("colours", colour), ("thumbnails", thumbnails)):
        if array is not None and len(array) != len(points):
            raise ParameterError(f"{len(array)} {what} for {len(points)} points; give one for each")
    panels = 1 if thumbnails is None else 2
    figure = Figure(figsize=(_SIDE * panels + 0.8, _SIDE + 0.4), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    edges = _scatter(axes[0], points, colour, name)
    if thumbnails is not None:
        _pave(axes[1], points, np.asarray(thumbnails), edges)
    return figure


def _scatter(axis: Axes, points: np.ndarray, colour: np.ndarray | None, name: str) -> list[str] | None:
    """Draw the points; return the colour of each if they are classes."""
    size = float(np.clip(15000 / len(points), 4, 30))
    style: dict[str, Any] = {"s": size, "linewidths": 0, "alpha": 0.8}
    axis.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
    (left, bottom), side = _square(points)
    edge = 0.02 * side
    axis.set(xlim=(left - edge, left + side + edge), ylim=(bottom - edge, bottom + side + edge), aspect="equal")
    x, y = points.T
    if colour is None:
        axis.scatter(x, y, color=PALETTE[0], **style)
        return None
    colour = np.asarray(colour)
    if not is_classes(colour):
        values = colour.astype(np.float64)
        finite = np.isfinite(values)
        axis.scatter(x[~finite], y[~finite], color=_OTHER, **style)
        points_of = axis.scatter(x[finite], y[finite], c=values[finite], cmap="viridis", **style)
        axis.figure.colorbar(points_of, ax=axis, label=figure_text(name), shrink=0.7)
        return None
    classes, index, counts = np.unique(colour.astype(str), return_inverse=True, return_counts=True)
    frequent = np.argsort(-counts, kind="stable")[: len(PALETTE)]
    edges = np.full(len(points), _OTHER, dtype="U7")
    rare = ~np.isin(index, frequent)
    if rare.any():
        axis.scatter(x[rare], y[rare], color=_OTHER, label=f"other ({rare.sum()})", **style)
    for place, number in enumerate(frequent):
        here = index == number
        edges[here] = PALETTE[place]
        label = f"{figure_text(classes[number])} ({counts[number]})"
        axis.scatter(x[here], y[here], color=PALETTE[place], marker=_MARKERS[place], label=label, **style)
    scale = (30 / size) ** 0.5
    where: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.04), "ncols": 3, "frameon": False}
    axis.legend(title=figure_text(name) or None, fontsize=_FONT, title_fontsize=_FONT, markerscale=scale, **where)
    return edges.tolist()


def is_classes(colour: np.ndarray) -> bool:
    """Tell whether values are labels, or numbers on a scale."""
    if colour.dtype.kind in "iu":
        return len(np.unique(colour)) <= _MOST_CLASSES
    return colour.dtype.kind != "f"


def thumbnail_places(points: np.ndarray, grid: int = GRID) -> tuple[np.ndarray, np.ndarray]:
    """Choose which points stand for their surroundings.

    The square around the points is divided into ``grid`` x ``grid`` cells; the point nearest to the centre of a cell
    stands for it, and no two thumbnails overlap.

    Returns
    -------
    rows : int64 [k]
        Row of the point of each cell that holds any.
    cell : int64 [k, 2]
        Its column (along the first axis of the points) and row.
    """
    low, side = _square(points)
    place = (points - low) / side * grid
    cell = np.clip(np.floor(place), 0, grid - 1).astype(np.int64)
    distance = ((place - cell - 0.5) ** 2).sum(axis=1)
    number = cell[:, 1] * grid + cell[:, 0]
    order = np.lexsort((distance, number))
    rows = order[np.unique(number[order], return_index=True)[1]]
    return rows, cell[rows]


def _square(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the lower corner [2] and the side of the square around the points."""
    low, high = points.min(axis=0), points.max(axis=0)
    side = float((high - low).max()) or 1.0
    return (low + high) / 2 - side / 2, side


def _pave(axis: Axes, points: np.ndarray, thumbnails: np.ndarray, edges: list[str] | None) -> None:
    rows, cell = thumbnail_places(points)
    images = thumbnails[rows]
    if images.ndim == 4 and images.shape[-1] != 3:
        images = images.mean(axis=-1)
    low, high = np.nanpercentile(images, _PERCENTILES) if images.ndim == 3 else (None, None)
    margin = 0.06
    for image, index, (x, y) in zip(images, rows, cell, strict=True):
        box = (x + margin, x + 1 - margin, y + margin, y + 1 - margin)
        axis.imshow(image, extent=box, origin="lower", cmap="inferno", vmin=low, vmax=high)
        if edges is not None:
            corner, length = (x + margin, y + margin), 1 - 2 * margin
            axis.add_patch(Rectangle(corner, length, length, fill=False, edgecolor=edges[index], linewidth=1.6))
    axis.set(xlim=(0, GRID), ylim=(0, GRID), xticks=[], yticks=[], aspect="equal")
    axis.set_xlabel("each stands for the points around it", fontsize=_FONT)
