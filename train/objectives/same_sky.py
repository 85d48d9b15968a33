"""Which samples of a batch show the same sky: they are no negatives of each other."""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Bool

from vis2img.models.layers import Array
from vis2img.train.objectives.devices import device_count, first_sample, join_samples


def same_sky(batch: Mapping[str, Array], reach: float, axis_name: str | None = None) -> Bool[Array, "batch samples"]:
    """Whether a sample of this device and one of the whole batch show the same sky; each does so with itself.

    Parameters
    ----------
    batch : dict
        As `vis2img.loader.batches.Batch.arrays` gives it: "item" (1, B), which picture; "sky" (2, B, 3), unit vectors
        to the patches as the sum of two float32 numbers, NaN of pictures; "patch" (1, B), their sides in radians.
        Without them only a sample itself is known to be the same.
    reach
        Largest distance of two patches, in sides of the larger one; 0: the very same place.
    axis_name
        Device axis of the batch.
    """
    batch_size = batch["global"].shape[1]
    sample = first_sample(batch_size, axis_name) + jnp.arange(batch_size)
    itself = sample[:, None] == jnp.arange(device_count(axis_name) * batch_size)[None]
    if "item" not in batch:
        return itself

    (item,), (side,), sky = batch["item"], batch["patch"], batch["sky"]
    (items,), (sides,), skies = (join_samples(batch[name], axis_name) for name in ("item", "patch", "sky"))
    # The leading parts first: the difference of numbers that are nearly the same is exact.
    leading, rest = sky[:, :, None] - skies[:, None]  # (B, samples, 3)
    distance = jnp.sqrt(jnp.sum((leading + rest) ** 2, axis=-1))
    # Nothing that is no number is near, nor far.
    near = distance <= reach * jnp.maximum(side[:, None], sides[None])
    picture, pictures = (jnp.isnan(x[0, :, 0]) for x in (sky, skies))
    alike = (item[:, None] == items[None]) & picture[:, None] & pictures[None]
    return itself | near | alike
