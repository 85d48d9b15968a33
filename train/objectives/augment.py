"""Augmentations that run on the accelerator: what would cost the loader copies costs nothing there."""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Float, Integer

from vis2img.models.layers import Array


def turn_views(batch: Mapping[str, Array]) -> dict[str, Array]:
    """Flip and turn each view as the loader chose.

    Parameters
    ----------
    batch : dict
        "global" (n_global, B, G, G, C), "local" (L, B, S, S, C), and "turns" (n_global + L, B), integers from 0 to 7
        of which bit 0 transposes, bit 1 flips x and bit 2 flips y, in this order (`vis2img.views.crops.turned`).

    Returns
    -------
    dict
        Without "turns"; the batch as it is if it has none.
    """
    if "turns" not in batch:
        return dict(batch)
    turns, n_global = batch["turns"], batch["global"].shape[0]
    turned = {"global": _turn(batch["global"], turns[:n_global])}
    if "local" in batch:
        turned["local"] = _turn(batch["local"], turns[n_global:])
    return turned


def _turn(
    views: Float[Array, "view batch side side channel"], turns: Integer[Array, "view batch"]
) -> Float[Array, "view batch side side channel"]:
    # Three choices between two pictures, and not one between eight, which would all be made.
    steps = ((1, lambda x: jnp.swapaxes(x, 2, 3)), (2, lambda x: jnp.flip(x, 3)), (4, lambda x: jnp.flip(x, 2)))
    for bit, change in steps:
        views = jnp.where((turns & bit)[:, :, None, None, None] > 0, change(views), views)
    return views
