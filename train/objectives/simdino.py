"""The SimDINO objective: DINO without prototypes, temperatures and centre; the coding rate keeps it from collapse.

Wu et al. 2025 (arXiv:2502.10385), with constants as the authors' code has them.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Float32

from vis2img.models.dino_head import l2_normalise
from vis2img.models.layers import Array
from vis2img.train.objectives.devices import join_samples
from vis2img.train.objectives.pairs import squared_distance

_EPSILON = 0.5  # of the coding rate


def coding_rate(unit: Float32[Array, "view sample width"]) -> Float32[Array, ""]:
    """Mean over views of ``gamma log det(I + W / (N epsilon) Z^T Z)`` for N vectors of W numbers [nat].

    ``gamma = (W + N) / (W N)`` makes it of the order of one, whatever the batch and the width.
    """
    _, count, width = unit.shape
    scale = width / (count * _EPSILON)
    # det(I + Z^T Z) = det(I + Z Z^T): of the two the smaller one.
    z = unit if count < width else unit.swapaxes(1, 2)
    gram = jnp.matmul(z, z.swapaxes(1, 2), precision=jax.lax.Precision.HIGHEST)
    factor = jnp.linalg.cholesky(jnp.eye(z.shape[1])[None] + scale * gram)
    log_det = 2.0 * jnp.sum(jnp.log(jnp.diagonal(factor, axis1=1, axis2=2)), axis=1)
    return (width + count) / (width * count) * jnp.mean(log_det)


def simdino_terms(
    student: Float[Array, "view batch width"],
    teacher: Float[Array, "global_view batch width"],
    *,
    axis_name: str | None = None,
) -> tuple[Float32[Array, ""], Float32[Array, ""]]:
    """Distance of student and teacher, and the coding rate of the student's global views.

    Parameters
    ----------
    student
        Projections of all views, the global ones first.
    teacher
        Of the global views; no gradient flows into them.
    axis_name
        Device axis: the coding rate is of the batch over all devices.

    Returns
    -------
    distance
        Half the squared distance of unit vectors, mean over pairs of different views and the samples of this device.
    rate
        As `coding_rate`; the loss is the distance less the rate.

    Raises
    ------
    ValueError
        If the shapes disagree or there is no pair of different views.
    """
    unit = l2_normalise(student, axis=-1)
    target = jax.lax.stop_gradient(l2_normalise(teacher, axis=-1))
    rate = coding_rate(join_samples(unit[: target.shape[0]], axis_name))
    return 0.5 * squared_distance(unit, target), rate
