"""Pictures of what a vision transformer sees: where its class token looks, and what its patch tokens have in common.

Attention as in Caron et al. 2021 (arXiv:2104.14294, figures 1 and 3), principal components of the tokens as in Oquab
et al. 2024 (arXiv:2304.07193, figure 1).
"""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.decomposition import PCA

from vis2img.errors import ParameterError
from vis2img.models.dino_head import DINOModel
from vis2img.models.vit import ViT
from vis2img.train.patches import Variables, attention_maps

MASS = 0.6
_CELL, _FONT = 1.5, 8  # inches, points
_PERCENTILES = (0.5, 99.8)  # of the pixels of all images: black and white
_OVERLAY = (0.0, 0.0, 0.0, 0.72)
_FEWEST = 4  # tokens that three components can be had of


def attention_figure(
    model: DINOModel, variables: Variables, images: np.ndarray, *, size: int | None = None, mass: float = MASS
) -> Figure:
    """Draw images beside the last block's attention of the class token, head by head.

    The upper row of an image shows the attention itself, each head on its own scale; the lower one the image where
    the patches that hold ``mass`` of it are left bright.

    Parameters
    ----------
    model : DINOModel
        From :func:`vis2img.train.state.build_model`, with a vision transformer.
    variables : dict
        Of student or teacher, from :func:`vis2img.train.state.backbone_variables`.
    images : float32 [image, y, x, channel]
        Stretched patches of any size.
    size : int, optional
        Side [pixel] that they are enlarged to, for more patches than in training; positions are interpolated.
    mass : float
        Share of the attention, in (0, 1].

    Returns
    -------
    Figure
        It belongs to no pyplot window.

    Raises
    ------
    ParameterError
        If the network is no transformer, the images or ``size`` do not divide into its patches, or ``mass`` is out of
        range.
    """
    images = _fitted(model, images, size)
    # One by one, as the attention of a large image alone takes hundreds of MB.
    attention = np.concatenate(
        [np.asarray(attention_maps(model, variables, images[i : i + 1])) for i in range(len(images))]
    )
    bright = mass_mask(attention, mass)
    heads, limits = attention.shape[1], _limits(images)
    shape = (_CELL * (heads + 1), 2 * _CELL * len(images) + 0.3)
    figure = Figure(figsize=shape, layout="constrained")
    axes = figure.subplots(2 * len(images), heads + 1, squeeze=False)
    for i, image in enumerate(images):
        above, below = axes[2 * i], axes[2 * i + 1]
        _show_image(above[0], image, limits)
        _show_map(below[0], attention[i].mean(axis=0))
        below[0].set_xlabel("mean of the heads", fontsize=_FONT)
        for head in range(heads):
            _show_map(above[head + 1], attention[i, head])
            _show_image(below[head + 1], image, limits)
            _darken(below[head + 1], ~bright[i, head])
    axes[0][0].set_title("image", fontsize=_FONT)
    for head in range(heads):
        axes[0][head + 1].set_title(f"head {head + 1}", fontsize=_FONT)
        axes[-1][head + 1].set_xlabel(f"{100 * mass:.0f}% of it", fontsize=_FONT)
    return figure


def mass_mask(attention: np.ndarray, mass: float = MASS) -> np.ndarray:
    """Return which patches [..., rows, columns] hold ``mass`` of the attention: the fewest that do.

    Raises
    ------
    ParameterError
        If ``mass`` is not in (0, 1].
    """
    if not 0 < mass <= 1:
        raise ParameterError(f"the share of attention must be in (0, 1], got {mass}")
    flat = attention.reshape(*attention.shape[:-2], -1).astype(np.float64)
    order = np.argsort(-flat, axis=-1, kind="stable")
    sorted_share = np.take_along_axis(flat, order, axis=-1) / flat.sum(axis=-1, keepdims=True)
    before = np.cumsum(sorted_share, axis=-1) - sorted_share
    mask = np.zeros(flat.shape, bool)
    # Sums of many shares are not exact; a patch is not needed for the last 1e-9.
    np.put_along_axis(mask, order, before < mass - 1e-9, axis=-1)
    return mask.reshape(attention.shape)


def token_pca_figure(model: DINOModel, variables: Variables, images: np.ndarray, *, size: int | None = None) -> Figure:
    """Draw images above the principal components of their patch tokens, taken over all of them.

    The first component tells the foreground from the background; three components of the foreground are its red,
    green and blue (Oquab et al. 2024). The same colour is the same content in every image.

    Parameters
    ----------
    model, variables, images, size
        As for `attention_figure`.

    Raises
    ------
    ParameterError
        If the network is no transformer, or the images or ``size`` do not divide into its patches.
    """
    images = _fitted(model, images, size)
    patch = model.backbone.patch
    count, rows, columns = len(images), images.shape[1] // patch, images.shape[2] // patch
    tokens = np.concatenate([np.asarray(_patch_tokens(model, variables, images[i : i + 1])) for i in range(count)])
    blocks = images.reshape(count, rows, patch, columns, patch, -1)
    brightness = blocks.max(axis=(2, 4)).mean(axis=-1)  # [image, rows, columns]
    first, _, colours = token_components(tokens.reshape(-1, tokens.shape[-1]), brightness.ravel())
    grid, limits = (count, rows, columns), _limits(images)
    reach = float(np.percentile(np.abs(first), 99)) or 1.0
    figure = Figure(figsize=(_CELL * max(count, 2) + 1.0, 3 * _CELL + 0.3), layout="constrained")
    axes = figure.subplots(3, count, squeeze=False)
    for i in range(count):
        _show_image(axes[0][i], images[i], limits)
        axes[1][i].imshow(first.reshape(grid)[i], origin="lower", cmap="RdBu_r", vmin=-reach, vmax=reach)
        axes[2][i].imshow(colours.reshape(*grid, 3)[i], origin="lower")
        for axis in axes[:, i]:
            axis.set(xticks=[], yticks=[])
    for axis, name in zip(axes[:, 0], ("image", "1st component", "foreground"), strict=True):
        axis.set_ylabel(name, fontsize=_FONT)
    return figure


def token_components(tokens: np.ndarray, brightness: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reduce tokens to a foreground and three colours.

    Parameters
    ----------
    tokens : float [token, dim]
        Patch tokens of all images.
    brightness : float [token]
        Of the patches: decides which end of the first component is the foreground, as its sign means nothing.

    Returns
    -------
    first : float64 [token]
        First principal component, positive in the foreground.
    foreground : bool [token]
        Where it is above 0; everywhere if that is next to nowhere.
    colours : float64 [token, 3]
        First three components of the foreground alone, from the 1st to the 99th percentile as 0 to 1; black elsewhere.
    """
    tokens = tokens.astype(np.float64)
    colours = np.zeros((len(tokens), 3))
    if not np.ptp(tokens, axis=0).any():
        return np.zeros(len(tokens)), np.ones(len(tokens), bool), colours
    first = PCA(1, svd_solver="full").fit_transform(tokens)[:, 0]
    if np.dot(first, brightness - brightness.mean()) < 0:
        first = -first
    foreground = first > 0
    if foreground.sum() < _FEWEST:
        foreground = np.ones(len(tokens), bool)
    if len(tokens) >= _FEWEST:
        three = PCA(3, svd_solver="full").fit_transform(tokens[foreground])
        low, high = np.percentile(three, [1, 99], axis=0)
        colours[foreground] = np.clip((three - low) / np.maximum(high - low, 1e-12), 0, 1)
    return first, foreground, colours


@partial(jax.jit, static_argnums=0)
def _patch_tokens(model: DINOModel, variables: Variables, images: jax.Array) -> jax.Array:
    return model.backbone.apply(variables, images)[1]["patches"].astype(np.float32)


def _fitted(model: DINOModel, images: np.ndarray, size: int | None) -> np.ndarray:
    """Return images at the size that is asked for; refuse what the network cannot read."""
    if not isinstance(model.backbone, ViT):
        raise ParameterError(
            f"a {type(model.backbone).__name__} has no tokens to picture; use a run of a vision transformer"
        )
    images = np.asarray(images, dtype=np.float32)
    if images.ndim != 4 or not len(images):
        raise ParameterError(f"images must be [image, y, x, channel] and not none, got the shape {images.shape}")
    height, width = (size, size) if size is not None else images.shape[1:3]
    patch = model.backbone.patch
    if min(height, width) < patch or height % patch or width % patch:
        near = max(patch, round(height / patch) * patch)
        raise ParameterError(f"{height} x {width} pixels are no multiple of the patch of {patch}; use size {near}")
    if (height, width) == images.shape[1:3]:
        return images
    return np.asarray(jax.image.resize(images, (len(images), height, width, images.shape[3]), "bicubic"))


def _limits(images: np.ndarray) -> tuple[float, float]:
    low, high = np.nanpercentile(images, _PERCENTILES)
    return float(low), float(high) if high > low else float(low) + 1.0


def _show_image(axis: Axes, image: np.ndarray, limits: tuple[float, float]) -> None:
    """Show an image [y, x, C]: three channels as colours, of any other number the mean."""
    low, high = limits
    if image.shape[-1] == 3:
        axis.imshow(np.clip((image - low) / (high - low), 0, 1), origin="lower")
    else:
        axis.imshow(image.mean(axis=-1), origin="lower", cmap="inferno", vmin=low, vmax=high)
    axis.set(xticks=[], yticks=[])


def _show_map(axis: Axes, values: np.ndarray) -> None:
    axis.imshow(values, origin="lower", cmap="viridis", vmin=0.0, interpolation="nearest")
    axis.set(xticks=[], yticks=[])


def _darken(axis: Axes, where: np.ndarray) -> None:
    """Lay a shadow over the patches [rows, columns] of the image that an axis shows."""
    shadow = np.zeros((*where.shape, 4))
    shadow[where] = _OVERLAY
    axis.imshow(shadow, origin="lower", interpolation="nearest", extent=axis.images[0].get_extent())
