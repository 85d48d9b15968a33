"""The SimCLR objective: tell the other views of a sample among those of the whole batch.

Chen et al. 2020 (arXiv:2002.05709), equation 1, NT-Xent. With more than two views the positive pairs are averaged
outside the logarithm, as Khosla et al. 2020 have it (arXiv:2004.11362, equation 2).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Float32

from vis2img.models.dino_head import l2_normalise
from vis2img.models.layers import Array
from vis2img.train.objectives.devices import first_sample, join_samples


def simclr_loss(
    projections: Float[Array, "view batch width"],
    *,
    n_global: int,
    temperature: float,
    same: Bool[Array, "batch samples"] | None = None,
    axis_name: str | None = None,
) -> tuple[Float32[Array, ""], Float32[Array, ""]]:
    """Cross-entropy of choosing another view of the same sample by cosine, over temperature.

    Parameters
    ----------
    projections
        Of all views, the ``n_global`` global ones first. Each view is asked for; the global ones of the whole batch
        are what is chosen from. With global views alone this is the paper's loss.
    n_global
        Number of global views.
    temperature
        Of the softmax.
    same
        Which samples of the whole batch show the same sky as one of this device (`vis2img.train.objectives.same_sky`):
        their views are not chosen from; default: none but itself.
    axis_name
        Device axis: what is chosen from are the samples of all devices.

    Returns
    -------
    loss
        Mean over pairs of different views of a sample, the second one global, and over the samples of this device
        [nat].
    accuracy
        Share of the views for which the most similar other view is of the same sample.

    Raises
    ------
    ValueError
        If there is no pair of different views.
    """
    n_views, batch, width = projections.shape
    if n_global * (n_views - 1) == 0:
        raise ValueError("pairs need at least two views, one of them global")
    unit = l2_normalise(projections, axis=-1)
    others = join_samples(unit[:n_global], axis_name)  # (n_global, samples, W)
    logits = unit.reshape(-1, width) @ others.reshape(-1, width).T / temperature
    logits = logits.reshape(n_views, batch, n_global, -1)

    sample = first_sample(batch, axis_name) + jnp.arange(batch)
    of_same = sample[:, None] == jnp.arange(logits.shape[-1])[None]  # (B, samples)
    of_same_view = jnp.arange(n_views)[:, None] == jnp.arange(n_global)[None]  # (V, n_global)
    itself = of_same_view[:, None, :, None] & of_same[None, :, None]
    positive = of_same[None, :, None] & ~itself  # (V, B, n_global, samples)

    left_out = itself
    if same is not None:
        left_out = itself | (same & ~of_same)[None, :, None]
    logits = jnp.where(left_out, -jnp.inf, logits)
    total = jax.nn.logsumexp(logits, axis=(2, 3), keepdims=True)  # (V, B, 1, 1)
    pairs = n_global * (n_views - 1) * batch
    loss = jnp.sum(jnp.where(positive, total - logits, 0.0)) / pairs

    best = jnp.max(logits, axis=(2, 3))
    hit = jnp.max(jnp.where(positive, logits, -jnp.inf), axis=(2, 3)) >= best
    return loss, jax.lax.stop_gradient(jnp.mean(hit.astype(jnp.float32)))
