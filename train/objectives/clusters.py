"""Clusters: tell from any view in which cluster its place is.

The clusters are those of vectors of the places imaged in the fixed way (`vis2img.train.clusters`), so that what a
network learns to tell in all imaging is what can be seen in the best one. Deep clustering (Caron et al. 2018,
arXiv:1807.05520) with several numbers of clusters at once (as Asano et al. 2020, arXiv:1911.05371, have several heads),
whose targets do not move while the network learns.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import optax
from jaxtyping import Float, Float32, Int

from vis2img.models.layers import Array


def cluster_loss(
    logits: Float[Array, "view batch out"], codes: Int[Array, "head batch"], clusters: Sequence[int]
) -> tuple[Float32[Array, ""], Float32[Array, ""]]:
    """Cross-entropy of the clusters, averaged over their numbers.

    Parameters
    ----------
    logits
        Of all views: as many for each number of clusters as there are, side by side.
    codes
        In which cluster of each number a sample is.
    clusters
        The numbers of clusters.

    Returns
    -------
    loss
        Mean over numbers, views and samples of this device [nat].
    accuracy
        Share of the views of which the most likely cluster is right, averaged over numbers.

    Raises
    ------
    ValueError
        If logits, codes and numbers do not fit.
    """
    if logits.shape[-1] != sum(clusters) or len(codes) != len(clusters):
        raise ValueError(f"{logits.shape[-1]} logits and {len(codes)} codes do not fit {clusters} clusters")
    losses, hits, start = [], [], 0
    for code, count in zip(codes, clusters, strict=True):
        told = logits[..., start : start + count].astype(jnp.float32)  # (V, B, K)
        right = jnp.broadcast_to(code, told.shape[:2])
        losses.append(jnp.mean(optax.softmax_cross_entropy_with_integer_labels(told, right)))
        hits.append(jnp.mean((jnp.argmax(told, axis=-1) == right).astype(jnp.float32)))
        start += count
    return sum(losses, jnp.float32(0.0)) / len(losses), sum(hits, jnp.float32(0.0)) / len(hits)
