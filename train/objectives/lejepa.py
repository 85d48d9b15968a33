"""The LeJEPA objective: views agree, and vectors are spread as an isotropic Gaussian (SIGReg).

Balestriero & LeCun 2025 (arXiv:2511.08544), algorithms 1 and 2. There are neither negatives nor a teacher.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Key

from vis2img.models.dino_head import l2_normalise
from vis2img.models.layers import Array
from vis2img.train.objectives.devices import device_count, over_devices

SLICES = 256
_FURTHEST, _POINTS = 5.0, 9  # of the integral over t from 0; from -5 these are the paper's 17


def sigreg(
    vectors: Float32[Array, "view batch width"], directions: Float32[Array, "width slice"], axis_name: str | None = None
) -> Float32[Array, ""]:
    """Statistic of Epps & Pulley 1983 of the vectors along directions, mean over directions and views.

    ``N`` times the integral over t of ``|phi(t) - exp(-t^2 / 2)|^2 exp(-t^2 / 2)``, where phi is the characteristic
    function of the N samples of all devices: 0 for a Gaussian of mean 0 and variance 1.

    Parameters
    ----------
    vectors
        Of this device.
    directions
        Unit vectors; the same on all devices.
    """
    t = np.linspace(0.0, _FURTHEST, _POINTS, dtype=np.float32)
    gaussian = np.exp(-0.5 * t**2)
    # The trapezoidal rule over both signs of t, of which either gives the same.
    weights = np.full(_POINTS, 2.0 * (t[1] - t[0]), np.float32)
    weights[[0, -1]] *= 0.5
    weights = (weights * gaussian)[:, None, None]  # (T, 1, 1)

    along = jnp.matmul(vectors, directions[None])  # (V, B, S)
    # A point of t at a time, so that memory is that of one.
    real, imaginary = jax.lax.map(lambda at: _characteristic(at * along), jnp.asarray(t))  # (T, V, S)
    real, imaginary = over_devices(jax.lax.pmean, (real, imaginary), axis_name)
    samples = vectors.shape[1] * device_count(axis_name)
    distance = (real - gaussian[:, None, None]) ** 2 + imaginary**2
    return samples * jnp.sum(jnp.mean(distance, axis=(1, 2), keepdims=True) * weights)


def _characteristic(x: Float32[Array, "view batch slice"]) -> tuple[Array, Array]:
    return jnp.mean(jnp.cos(x), axis=1), jnp.mean(jnp.sin(x), axis=1)


def lejepa_terms(
    projections: Float[Array, "view batch width"],
    key: Key[Array, ""],
    *,
    n_global: int,
    axis_name: str | None = None,
) -> tuple[Float32[Array, ""], Float32[Array, ""]]:
    """Distance of the views from the middle of the global ones, and SIGReg.

    Parameters
    ----------
    projections
        Of all views, the ``n_global`` global ones first.
    key
        Of this step, for directions that are the same on all devices and new in each step.
    axis_name
        Device axis of the batch.

    Returns
    -------
    distance
        Squared, mean over dimensions, views and the samples of this device.
    sigreg
        As `sigreg`, of all views; the loss is (1 - weight) distance + weight sigreg.
    """
    z = projections.astype(jnp.float32)
    middle = jnp.mean(z[:n_global], axis=0, keepdims=True)
    directions = l2_normalise(jax.random.normal(key, (z.shape[-1], SLICES)), axis=0)
    return jnp.mean((z - middle) ** 2), sigreg(z, directions, axis_name)
