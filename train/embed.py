"""Embeddings: one vector for each sky patch, with its position and how it was imaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from train.run_config import TrainConfig
from vis2img.draws import Draw, FieldSource, image_draw
from vis2img.errors import OutputError, ParameterError, Vis2imgError
from vis2img.params import ImagingParams
from vis2img.phase import direction_cosines, sky_position
from vis2img.prior import draw_rng
from vis2img.sources import patch_angle
from vis2img.views import ViewConfig, cut


@dataclass(frozen=True, eq=False)
class Patches:
    """Sky patches cut from one field.

    Parameters
    ----------
    images : float32 [patch, size, size, channel]
        Stretched, as the network sees them.
    position : float64 [patch, 2]
        RA and Dec of the centres in rad.
    kept : int64 [patch]
        Which of the positions asked for these are; the others lie too near the edge of the field.
    params : ImagingParams
        How the field was imaged.
    """

    images: np.ndarray
    position: np.ndarray
    kept: np.ndarray
    params: ImagingParams


def evaluation_draw(source: FieldSource, *, varied: int | None = None) -> Draw:
    """Image a field for evaluation: in the fixed way, or under draw ``varied`` of its prior."""
    prior = source.prior.fixed() if varied is None else source.prior
    # A seed that no training run uses by default keeps evaluation draws apart from training ones.
    return image_draw(source, prior.draw(draw_rng(2**31 - 1, 0, varied or 0)))


def cut_patches(draw: Draw, source: FieldSource, views: ViewConfig, position: np.ndarray) -> Patches:
    """Cut the patches around ``position`` [patch, 2] (RA, Dec in rad) from ``draw``."""
    side = patch_angle(source, views)
    position = np.asarray(position, dtype=np.float64).reshape(-1, 2)
    lmn = direction_cosines(position[:, 0], position[:, 1], draw.phase_centre)
    images, kept = [], []
    for i, (l, m, n) in enumerate(lmn):
        if n <= 0:
            continue
        try:
            images.append(cut(draw, float(l), float(m), side, views.global_size, views.stretch))
        except ParameterError:
            continue
        kept.append(i)
    size = views.global_size
    stacked = np.stack(images) if images else np.zeros((0, size, size, source.channels), np.float32)
    index = np.array(kept, dtype=np.int64)
    return Patches(stacked, position[index], index, draw.params)


def grid_positions(draw: Draw, source: FieldSource, views: ViewConfig) -> np.ndarray:
    """Return RA and Dec [patch, 2] of patches that tile the field edge to edge."""
    side = patch_angle(source, views)
    count = int((source.prior.fov - 2 * source.prior.pixsize[1]) / side)
    offset = (np.arange(count) - (count - 1) / 2) * side
    m, l = np.meshgrid(offset, offset, indexing="ij")
    return np.stack(sky_position(l.ravel(), m.ravel(), draw.phase_centre), axis=-1)


def embed_images(model: Any, variables: Any, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
    """Return an embedding of each image: the class token beside the maximum of the patch tokens.

    The class token of a network that has seen little is mostly its own initial value; what any one patch
    token has found is not lost in the maximum. Of a residual network: the mean of its last feature map and its maximum.

    Parameters
    ----------
    model : DINOModel
        From :func:`train.state.build_model`.
    variables : dict
        Of student or teacher, from :func:`train.state.backbone_variables`.
    images : float32 [image, y, x, channel]
        Stretched patches.
    batch_size : int
        The last batch is padded, so that one shape is compiled.

    Returns
    -------
    float32 [image, 2 dim]
    """
    vectors = []
    for start in range(0, len(images), batch_size):
        part = images[start : start + batch_size]
        padded = np.pad(part, [(0, batch_size - len(part))] + [(0, 0)] * 3)
        vectors.append(np.asarray(_forward(model, variables, padded))[: len(part)])
    return np.concatenate(vectors) if vectors else np.zeros((0, 2 * model.backbone.dim), np.float32)


@partial(jax.jit, static_argnums=0)
def _forward(model: Any, variables: Any, images: jax.Array) -> jax.Array:
    token, out = model.backbone.apply(variables, images)
    return jnp.concatenate([token, out["patches"].max(axis=1)], axis=1).astype(jnp.float32)


@partial(jax.jit, static_argnums=0)
def attention_maps(model: Any, variables: Any, images: jax.Array) -> jax.Array:
    """Return the last block's attention of the class token to the patches: [image, head, rows, columns]."""
    _, out = model.backbone.apply(variables, images, return_attention=True)
    rows, columns = (side // model.backbone.patch for side in images.shape[1:3])
    attention = out["attention"][:, :, 0, -rows * columns :]  # (B, heads, N)
    return attention.reshape(*attention.shape[:2], rows, columns)


def embed_sources(
    config: TrainConfig,
    model: Any,
    variables: Any,
    sources: list[FieldSource],
    positions: list[np.ndarray] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, np.ndarray]:
    """Embed patches of each field: around ``positions`` (RA, Dec in rad), or tiling it.

    Returns
    -------
    dict
        ``vector`` [patch, dim], ``ra_deg``, ``dec_deg``, ``ms``, ``params`` (JSON), ``index`` (which of the
        positions asked for).
    """
    columns: dict[str, list[Any]] = {name: [] for name in ("vector", "ra_deg", "dec_deg", "ms", "params", "index")}
    for i, source in enumerate(sources):
        draw = evaluation_draw(source)
        wanted = grid_positions(draw, source, config.data.views) if positions is None else positions[i]
        patches = cut_patches(draw, source, config.data.views, wanted)
        columns["vector"].append(embed_images(model, variables, patches.images))
        columns["ra_deg"].append(np.degrees(patches.position[:, 0]))
        columns["dec_deg"].append(np.degrees(patches.position[:, 1]))
        columns["ms"].append(np.full(len(patches.kept), source.ms))
        columns["params"].append(np.full(len(patches.kept), json.dumps(patches.params.to_dict())))
        columns["index"].append(patches.kept)
        if progress:
            progress(i + 1, len(sources))
    table = {name: np.concatenate(parts) for name, parts in columns.items()}
    if not len(table["vector"]):
        raise Vis2imgError("no patch lies within the fields; check the positions, or choose a smaller patch_npix")
    return table


def write_embeddings(table: dict[str, np.ndarray], path: Path, overwrite: bool = False) -> None:
    """Write embeddings as a compressed ``.npz`` of plain arrays (no pickles), in one move.

    Raises
    ------
    OutputError
        If ``path`` exists and ``overwrite`` is not set, or cannot be written.
    """
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; choose another output or use --overwrite")
    partial_path = path.with_name(f".{path.name}.partial")
    try:
        with partial_path.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **table)
        partial_path.replace(path)
    except OSError as error:
        partial_path.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
