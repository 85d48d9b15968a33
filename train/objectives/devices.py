"""Sums, means, maxima and samples over devices, for functions that also run on one."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Int32, Shaped

from vis2img.models.layers import Array

Tree = TypeVar("Tree")


def over_devices(operation: Callable[[Tree, str], Tree], tree: Tree, axis_name: str | None) -> Tree:
    """Apply `jax.lax.pmean`, ``psum`` or ``pmax`` over the device axis, if there is one."""
    return tree if axis_name is None else operation(tree, axis_name)


def join_samples(x: Shaped[Array, "view batch *rest"], axis_name: str | None) -> Shaped[Array, "view samples *rest"]:
    """Samples of all devices, in the order of the devices, on each of them; the gradient flows back to where they are.

    The gradient that a device is given is that of the sum of the losses of all: with gradients averaged over devices it
    is that of the mean loss.
    """
    return jnp.asarray(x) if axis_name is None else jax.lax.all_gather(x, axis_name, axis=1, tiled=True)


def device_count(axis_name: str | None) -> int:
    """Number of devices along the axis; 1 without one."""
    return 1 if axis_name is None else jax.lax.axis_size(axis_name)


def first_sample(batch: int, axis_name: str | None) -> Int32[Array, ""]:
    """Place of this device's first sample among those of all devices, of which each has ``batch``."""
    return jnp.asarray(0 if axis_name is None else jax.lax.axis_index(axis_name) * batch, jnp.int32)
