"""Clusters of the places of fields, by what a network sees there in images made in the fixed way.

Places are the middles of what shines around peaks (:func:`vis2img.draws.peaks.middles_of_emission`). Their vectors are
reduced to principal components, which are scaled towards equal spread and to length 1, and clustered by k-means, once
for each number of clusters.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from vis2img.coordinates import sky_position
from vis2img.errors import ParameterError, Vis2imgError
from vis2img.loader.config import LoaderConfig
from vis2img.loader.fields import open_fields
from vis2img.loader.places import Places
from vis2img.models.dino_head import DINOModel
from vis2img.progress import Progress, no_progress
from vis2img.train.patches import Variables, cut_patches, embed_images, evaluation_draw

log = logging.getLogger(__name__)
_COMPONENTS = 32
_SPREAD = 0.25  # exponent on the variance of a component that it is divided by; 0.5 would make all alike
_RESTARTS = 4
_MOST = 50_000  # vectors that clusters are worked out from


def cluster_places(
    config: LoaderConfig,
    clusters: Sequence[int],
    model: DINOModel,
    variables: Variables,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Places:
    """Find the places of all fields, and their clusters; fields that cannot be imaged are left out, and named.

    Parameters
    ----------
    config : LoaderConfig
        The fields.
    clusters : sequence of int
        Numbers of clusters.
    model, variables
        What places are looked at with.
    seed : int
        Of the clusters.
    progress : callable, optional
        Told the fields that were imaged, of all.

    Raises
    ------
    ParameterError
        If there are fewer places than clusters.
    MeasurementSetError
        If no field can be opened.
    """
    located = open_fields(config)
    names, field, positions, vectors = [str(each) for each in located.fields], [], [], []
    for number, (source, patch, allowed) in enumerate(zip(located.fields, located.patches, located.maps, strict=True)):
        progress("looking for sources", number, len(names))
        try:
            draw = evaluation_draw(source)
        except Vis2imgError as error:
            log.warning("skipped: %s", error)
            continue
        middles = draw.middles(patch)
        l, m = middles[allowed.within(middles)].T
        position = np.stack(sky_position(l, m, draw.phase_centre, draw.turn), axis=-1)
        patches = cut_patches(draw, source, config.views, position)
        if len(patches.images):
            positions.append(patches.position)
            field.append(np.full(len(patches.images), number))
            vectors.append(embed_images(model, variables, patches.images))
    progress("looking for sources", len(names), len(names))
    count = sum(map(len, vectors))
    if count < max(clusters):
        raise ParameterError(
            f"optim.clusters asks for {max(clusters)} sources, and the fields show {count}: use fewer, or more fields"
        )
    codes = clusters_of(np.concatenate(vectors), clusters, seed)
    return Places(names, np.concatenate(field), np.concatenate(positions), codes)


def clusters_of(vectors: np.ndarray, clusters: Sequence[int], seed: int = 0) -> np.ndarray:
    """Return in which cluster of each number ``vectors`` [place, dim] are: int32 [place, number]."""
    rng = np.random.default_rng(seed)
    some = vectors if len(vectors) <= _MOST else vectors[np.sort(rng.choice(len(vectors), _MOST, replace=False))]
    components = PCA(min(_COMPONENTS, *some.shape), random_state=seed).fit(some)
    scale = np.maximum(components.explained_variance_, np.finfo(np.float32).tiny) ** _SPREAD

    def reduced(those: np.ndarray) -> np.ndarray:
        scaled = components.transform(those) / scale
        return scaled / np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), np.finfo(np.float32).tiny)

    few, every = reduced(some), reduced(vectors)
    fits = [KMeans(count, n_init=_RESTARTS, random_state=seed).fit(few) for count in clusters]
    return np.stack([fit.predict(every) for fit in fits], axis=1).astype(np.int32)
