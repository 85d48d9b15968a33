"""The VICReg objective: views agree, each dimension varies over a batch, and no two dimensions say the same.

Bardes et al. 2022 (arXiv:2105.04906), equations 1 to 6. There are neither negatives nor a teacher, so batches may be
small.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Float, Float32

from vis2img.models.layers import Array
from vis2img.train.objectives.devices import join_samples
from vis2img.train.objectives.pairs import squared_distance

_EPSILON = 1e-4  # of the paper: the square root has no gradient at 0


class VICReg(NamedTuple):
    """The terms of the loss, without their weights.

    Attributes
    ----------
    invariance
        Squared distance of two views, mean over dimensions, pairs and the samples of this device.
    variance
        How much the standard deviation of a dimension over the batch falls short of 1, mean over dimensions; summed
        over two views, of more views twice the mean.
    covariance
        Sum of squared covariances of two dimensions, over the number of dimensions; likewise.
    """

    invariance: Float32[Array, ""]
    variance: Float32[Array, ""]
    covariance: Float32[Array, ""]


def vicreg_terms(
    projections: Float[Array, "view batch width"], *, n_global: int, axis_name: str | None = None
) -> VICReg:
    """Terms of the loss, for a batch over all devices of ``axis_name``.

    Parameters
    ----------
    projections
        Of all views, the ``n_global`` global ones first. Local views are compared with global ones; variance and
        covariance are of global views.

    Raises
    ------
    ValueError
        If there is no pair of different views.
    """
    z = projections.astype(jnp.float32)
    width = z.shape[-1]
    everyone = join_samples(z[:n_global], axis_name)  # (n_global, N, W)
    centred = everyone - jnp.mean(everyone, axis=1, keepdims=True)
    covariance = jnp.matmul(centred.swapaxes(1, 2), centred) / (everyone.shape[1] - 1)  # (n_global, W, W)

    own = jnp.diagonal(covariance, axis1=1, axis2=2)  # (n_global, W)
    short = jnp.maximum(0.0, 1.0 - jnp.sqrt(own + _EPSILON))
    shared = (jnp.sum(covariance**2) - jnp.sum(own**2)) / (n_global * width)
    return VICReg(squared_distance(z, z[:n_global]) / width, 2.0 * jnp.mean(short), 2.0 * shared)
