"""Losses on any number of devices, which `jax.vmap` stands for: it knows the same sums and gathers as `jax.pmap`."""

import jax
import numpy as np


def on_devices(loss, projections, devices, jit):
    """Value and gradient as a step has them, means over devices of which each has its share of the samples.

    Parameters
    ----------
    loss : callable
        Of (view, batch, width), on the device axis "device"; gives a scalar, and what else there is.
    projections : (view, sample, width)
    devices : int
    jit : callable
        Compiles.
    """
    n_views, _, width = projections.shape
    shares = np.moveaxis(projections.reshape(n_views, devices, -1, width), 1, 0).astype(np.float32)
    run = jit(jax.vmap(jax.value_and_grad(loss, has_aux=True), axis_name="device"))
    (value, others), gradient = run(shares)
    gradient = np.moveaxis(np.asarray(gradient), 0, 1).reshape(projections.shape) / devices
    return np.mean(value), jax.tree.map(np.mean, others), gradient
