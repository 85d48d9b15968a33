"""The BYOL objective: predict what a slowly moving copy makes of another view.

Grill et al. 2020 (arXiv:2006.07733), equation 2; used on radio galaxies by Slijepcevic et al. 2024
(arXiv:2305.16127). There are no negatives and no prototypes: the predictor and the moving average keep it from
collapse.
"""

import jax
import jax.numpy as jnp

from models.dino_head import l2_normalise


def byol_loss(predictions: jax.Array, projections: jax.Array, *, n_global: int) -> jax.Array:
    """Squared distance of normalised vectors, ``2 - 2 cos``, over all pairs of different views.

    Parameters
    ----------
    predictions : (V, B, P)
        The student's, behind its predictor; the ``n_global`` global views first. Local views are multi-crop (Caron et
        al. 2020, arXiv:2006.09882), which the paper does without.
    projections : (n_global, B, P)
        The teacher's of the same global views; no gradient flows into them.
    n_global : int

    Returns
    -------
    ()
        Mean over pairs and samples, from 0 to 4.

    Raises
    ------
    ValueError
        If the shapes disagree or there is no pair of different views.
    """
    n_views, batch, width = predictions.shape
    if projections.shape != (n_global, batch, width) or n_global > n_views:
        raise ValueError(f"{n_global} teacher views {projections.shape} do not match {predictions.shape}")
    n_pairs = n_global * (n_views - 1)
    if n_pairs == 0:
        raise ValueError("BYOL needs at least two views, one of them global")
    student = l2_normalise(predictions, axis=-1)
    teacher = jax.lax.stop_gradient(l2_normalise(projections, axis=-1))
    # All views but itself, as a sum over views minus itself.
    others = jnp.sum(student, axis=0) - student[:n_global]  # (n_global, B, P)
    return 2.0 - 2.0 * jnp.sum(teacher * others) / (n_pairs * batch)
