"""The BYOL objective: predict what a slowly moving copy makes of another view.

Grill et al. 2020 (arXiv:2006.07733), equation 2; used on radio galaxies by Slijepcevic et al. 2024
(arXiv:2305.16127). There are no negatives and no prototypes: the predictor and the moving average keep it from
collapse.
"""

import jax
from jaxtyping import Float, Float32

from vis2img.models.dino_head import l2_normalise
from vis2img.models.layers import Array
from vis2img.train.objectives.pairs import check_pairs, mean_over_pairs


def byol_loss(
    predictions: Float[Array, "view batch width"],
    projections: Float[Array, "global_view batch width"],
    *,
    n_global: int,
) -> Float32[Array, ""]:
    """Squared distance of normalised vectors, ``2 - 2 cos``, over all pairs of different views.

    Parameters
    ----------
    predictions
        The student's, behind its predictor; the ``n_global`` global views first. Local views are multi-crop (Caron et
        al. 2020, arXiv:2006.09882), which the paper does without.
    projections
        The teacher's of the same global views; no gradient flows into them.
    n_global
        Number of global views.

    Returns
    -------
    loss
        Mean over pairs and samples, from 0 to 4.

    Raises
    ------
    ValueError
        If the shapes disagree or there is no pair of different views.
    """
    check_pairs(predictions, projections, n_global)
    teacher = jax.lax.stop_gradient(l2_normalise(projections, axis=-1))
    return 2.0 - 2.0 * mean_over_pairs(l2_normalise(predictions, axis=-1), teacher)
