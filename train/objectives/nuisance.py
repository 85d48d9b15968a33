"""Imaging parameters that the vectors are not to depend on: told to a head that must not be able to tell them, or as a
condition to the projector.

Gradient reversal of Ganin & Lempitsky 2015 (arXiv:1409.7495), as FINO has it for metadata of images (arXiv:2606.05107).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float32

from vis2img.models.layers import Array
from vis2img.train.objectives.devices import over_devices

_LEAST_SPREAD = 1e-4  # of the numbers of `vis2img.draws.numbers`, which are of the order of one


def standardised(
    numbers: Float32[Array, "view batch number"], axis_name: str | None = None
) -> tuple[Float32[Array, "view batch number"], Bool[Array, "view batch number"]]:
    """Numbers less their mean, over their standard deviation in the batch of all devices.

    Parameters
    ----------
    numbers
        `vis2img.draws.numbers.NUMBERS` of each view; NaN where they are not known.

    Returns
    -------
    values
        0 where a number is not known, or does not vary.
    known
        Where there is something to tell.
    """
    there = jnp.isfinite(numbers)

    def mean(x: Float32[Array, "view batch number"]) -> Float32[Array, "1 1 number"]:
        total = over_devices(jax.lax.psum, jnp.sum(jnp.where(there, x, 0.0), axis=(0, 1), keepdims=True), axis_name)
        count = over_devices(jax.lax.psum, jnp.sum(there, axis=(0, 1), keepdims=True).astype(jnp.float32), axis_name)
        return total / jnp.maximum(count, 1.0)

    numbers = jnp.where(there, numbers, 0.0)
    centred = numbers - mean(numbers)
    spread = jnp.sqrt(mean(centred**2))
    known = there & (spread > _LEAST_SPREAD)
    return jnp.where(known, centred / jnp.maximum(spread, _LEAST_SPREAD), 0.0), known


def nuisance_loss(
    guesses: Float32[Array, "view batch number"],
    values: Float32[Array, "view batch number"],
    known: Bool[Array, "view batch number"],
    axis_name: str | None = None,
) -> Float32[Array, ""]:
    """Mean squared error of the guesses, of what is known: 1 for who knows nothing, 0 if there is nothing to tell.

    The share of this device, so that the mean over devices is that over the batch.
    """
    # What is known need not be spread evenly over devices.
    count = over_devices(jax.lax.pmean, jnp.sum(known).astype(jnp.float32), axis_name)
    return jnp.sum(jnp.where(known, (guesses - values) ** 2, 0.0)) / jnp.maximum(count, 1.0)
