"""Embeddings: one vector for each sky patch, with its position and how it was imaged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vis2img.coordinates import direction_cosines, sky_position
from vis2img.draws.draw import Draw
from vis2img.draws.field import Field
from vis2img.errors import ParameterError
from vis2img.loader.fields import patch_angle
from vis2img.models.dino_head import DINOModel
from vis2img.pictures.labels import symmetric_views
from vis2img.random import EVALUATION_SEED, draw_rng
from vis2img.views.brightness import NUMBERS, patch_brightness
from vis2img.views.crops import ViewConfig, cut

Variables = Mapping[str, Any]  # a tree of arrays


@dataclass(frozen=True, eq=False)
class Patches:
    """Sky patches cut from one field.

    Parameters
    ----------
    images : float32 [patch, size, size, channel]
        Stretched, as the network sees them.
    position : float64 [patch, 2]
        RA and Dec of the centres in rad.
    rows : int64 [patch]
        Which of the positions these are; the others lie too near the edge of the field.
    brightness : float64 [patch, 3]
        Peak in Jy/beam, flux in Jy, and peak over noise: :mod:`vis2img.views.brightness`.
    """

    images: np.ndarray
    position: np.ndarray
    rows: np.ndarray
    brightness: np.ndarray


def evaluation_draw(source: Field, *, varied: int | None = None) -> Draw:
    """Image a field for evaluation: in the fixed way, or under draw ``varied`` of its prior."""
    prior = source.prior.fixed() if varied is None else source.prior
    return source.draw(prior.draw(draw_rng(EVALUATION_SEED, 0, varied or 0)))


def cut_patches(draw: Draw, source: Field, views: ViewConfig, position: np.ndarray) -> Patches:
    """Cut the patches around ``position`` [patch, 2] (RA, Dec in rad) from ``draw``."""
    return cut_around(draw, patch_angle(source, views), views, position)


def cut_around(draw: Draw, side: float, views: ViewConfig, position: np.ndarray) -> Patches:
    """Cut patches of ``side`` rad around ``position`` [patch, 2] (RA, Dec in rad) from ``draw``."""
    position = np.asarray(position, dtype=np.float64).reshape(-1, 2)
    lmn = direction_cosines(position[:, 0], position[:, 1], draw.phase_centre, draw.turn)
    images, brightness, rows = [], [], []
    for i, (l, m, n) in enumerate(lmn):
        if n <= 0:
            continue
        try:
            images.append(cut(draw, float(l), float(m), side, views.global_size, views.stretches))
        except ParameterError:
            continue
        brightness.append(patch_brightness(draw, float(l), float(m), side))
        rows.append(i)
    empty = np.zeros((0, views.global_size, views.global_size, len(draw.data) * len(views.stretches)), np.float32)
    index = np.array(rows, dtype=np.int64)
    numbers = np.array(brightness).reshape(-1, len(NUMBERS))
    return Patches(np.stack(images) if images else empty, position[index], index, numbers)


def grid_positions(draw: Draw, source: Field, views: ViewConfig, overlap: float = 0.0) -> np.ndarray:
    """Return RA and Dec [patch, 2] of patches that tile the field: edge to edge, or by ``overlap`` of a side."""
    extent = source.prior.fov - 2 * source.prior.pixsize[1]
    side = patch_angle(source, views)
    return tiles((extent, extent), side, draw.phase_centre, turn=draw.turn, overlap=overlap)


def tiles(
    extent: tuple[float, float],
    side: float,
    phase_centre: tuple[float, float],
    *,
    turn: float = 0.0,
    middle: tuple[float, float] = (0.0, 0.0),
    overlap: float = 0.0,
) -> np.ndarray:
    """Return RA and Dec [patch, 2] in rad of squares that tile a rectangle of the sky, from south to north.

    Squares that reach beyond the horizon are left out.

    Parameters
    ----------
    extent : (float, float)
        Of the rectangle along l and m, rad.
    side : float
        Of a square, rad.
    phase_centre : (float, float)
        RA and Dec in rad, from which l and m are counted.
    turn : float
        Position angle of m, rad.
    middle : (float, float)
        Of the rectangle, l and m.
    overlap : float
        Of neighbours, as a fraction of the side; 0: edge to edge.
    """
    step = side * (1 - overlap)
    # A square as large as the rectangle fits, whatever the rounding.
    counts = [math.floor((length - side) / step + 1e-9) + 1 for length in extent]
    l, m = ((np.arange(n) - (n - 1) / 2) * step + at for n, at in zip(counts, middle, strict=True))
    m, l = (each.ravel() for each in np.meshgrid(m, l, indexing="ij"))
    above = (np.abs(l) + side / 2) ** 2 + (np.abs(m) + side / 2) ** 2 <= 1
    return np.stack(sky_position(l[above], m[above], phase_centre, turn), axis=-1)


def embed_images(model: DINOModel, variables: Variables, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
    """Return a vector of each image: its embedding, averaged over the turns of the network.

    Where the network says nothing of pooling, the class token beside the maximum of the patch tokens: the class token
    of a network that has seen little is mostly its own initial value; what any one patch token holds is not lost in the
    maximum. Of a residual network: the mean of its last feature map and its maximum.

    Parameters
    ----------
    model : DINOModel
        From :func:`vis2img.train.state.build_model`.
    variables : dict
        Of student or teacher, from :func:`vis2img.train.state.backbone_variables`.
    images : float32 [image, y, x, channel]
        Stretched patches.
    batch_size : int
        The last batch is padded, so that one shape is compiled.

    Returns
    -------
    float32 [image, `vector_dim`]
    """
    vectors = []
    for start in range(0, len(images), batch_size):
        part = images[start : start + batch_size]
        padded = np.pad(part, [(0, batch_size - len(part))] + [(0, 0)] * 3)
        turns = symmetric_views(padded) if model.turns > 1 else padded[None]
        each = [np.asarray(_forward(model, variables, view)) for view in turns]
        vectors.append(np.mean(each, axis=0)[: len(part)] if len(each) > 1 else each[0][: len(part)])
    return np.concatenate(vectors) if vectors else np.zeros((0, vector_dim(model)), np.float32)


def vector_dim(model: DINOModel) -> int:
    """Length of a vector of :func:`embed_images`."""
    own = (1 if model.backbone.pooling else 2) * model.backbone.embedding_dim
    return own + (2 * sum(model.backbone.stage_dims[-model.stages : -1]) if model.stages > 1 else 0)


def joined_tokens(model: DINOModel, variables: Variables, images: jax.Array) -> jax.Array:
    """Return the vectors of :func:`embed_images` of images as they are, not turned, inside of what is compiled."""
    embedding, out = model.backbone.apply(variables, images)
    if not model.backbone.pooling:
        embedding = jnp.concatenate([embedding, out["patches"].max(axis=1)], axis=1)
    maps = [out[f"stage{4 - i}"].astype(jnp.float32) for i in range(model.stages - 1, 0, -1)]
    earlier = [part for x in maps for part in (x.mean(axis=(1, 2)), x.max(axis=(1, 2)))]
    return jnp.concatenate([*earlier, embedding.astype(jnp.float32)], axis=1)


_forward = partial(jax.jit, static_argnums=0)(joined_tokens)


@partial(jax.jit, static_argnums=0)
def attention_maps(model: DINOModel, variables: Variables, images: jax.Array) -> jax.Array:
    """Return the last block's attention of the class token to the patches: [image, head, rows, columns]."""
    _, out = model.backbone.apply(variables, images, return_attention=True)
    rows, columns = (side // model.backbone.patch for side in images.shape[1:3])
    attention = out["attention"][:, :, 0, -rows * columns :]  # (B, heads, N)
    return attention.reshape(*attention.shape[:2], rows, columns)
