"""Data parallelism: the only module that knows about ``jax.pmap``.

Every device holds the whole state and a share of the batch; gradients and centre are averaged over the axis
"device", which runs over the devices of all hosts (`vis2img.train.hosts`).
Moving to ``shard_map`` is a change to this file.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vis2img.models.dino_head import DINOModel
from vis2img.train.config import OptimConfig
from vis2img.train.state import TrainState
from vis2img.train.step import Metrics, train_step
from vis2img.views.crops import ViewConfig

AXIS = "device"
ParallelStep = Callable[[TrainState, Mapping[str, np.ndarray]], tuple[TrainState, Metrics]]


def replicate(tree: Any, n_devices: int | None = None) -> Any:
    """Copy every leaf to the first ``n_devices`` local devices (all by default): () becomes (device,)."""
    # pmap places its own outputs, which works in every version of JAX, single- and multi-process.
    # The step's axis name is part of the sharding: with another one the step would compile a second time.
    spread = jax.pmap(lambda _, x: x, axis_name=AXIS, in_axes=(0, None), devices=_devices(n_devices))
    return spread(jnp.arange(_count(n_devices)), tree)


def unreplicate(tree: Any) -> Any:
    """First copy of every leaf of a replicated tree, without the device axis."""

    def first(x: jax.Array) -> jax.Array:
        # One shard, not x[0]: indexing a sharded array compiles a gather over all devices.
        return x.addressable_shards[0].data.reshape(x.shape[1:])

    return jax.tree.map(first, tree)


def shard(batch: Mapping[str, np.ndarray], n_devices: int | None = None) -> dict[str, np.ndarray]:
    """Split a host batch over the local devices.

    Parameters
    ----------
    batch : dict of (V, B, ...)
        Views first; B is the batch of this host.
    n_devices : int, optional
        All local devices by default.

    Returns
    -------
    dict of (device, V, B / device, ...)

    Raises
    ------
    ValueError
        If B is not divisible by the number of devices.
    """
    n_devices = _count(n_devices)

    def split(name: str, x: np.ndarray) -> np.ndarray:
        views, size, *rest = x.shape
        if size % n_devices:
            raise ValueError(f"batch size {size} of {name!r} is not divisible by {n_devices} devices")
        return np.moveaxis(np.asarray(x).reshape(views, n_devices, size // n_devices, *rest), 1, 0)

    return {name: split(name, x) for name, x in batch.items()}


def make_parallel_step(
    model: DINOModel,
    optim: OptimConfig,
    *,
    total_steps: int,
    n_devices: int | None = None,
    donate: bool = True,
    views: ViewConfig | None = None,
) -> ParallelStep:
    """Compile `train_step` for several devices.

    Returns
    -------
    callable
        ``(state, batch) -> (state, metrics)`` on replicated states, sharded batches and replicated metrics.
        With ``donate`` the state passed in is given away: it must not be used again, and the new one takes its memory.
    """
    step = partial(train_step, model=model, optim=optim, total_steps=total_steps, axis_name=AXIS, views=views)
    return jax.pmap(step, axis_name=AXIS, devices=_devices(n_devices), donate_argnums=(0,) if donate else ())


def _devices(n_devices: int | None) -> list[Any] | None:
    """Devices for pmap: none stands for those of all hosts."""
    if n_devices is not None and jax.process_count() > 1:
        raise ValueError("a number of devices cannot be chosen with several hosts; all of them are used")
    return None if n_devices is None else jax.local_devices()[: _count(n_devices)]


def _count(n_devices: int | None) -> int:
    available = jax.local_device_count()
    if n_devices is None:
        return available
    if not 0 < n_devices <= available:
        raise ValueError(f"{n_devices} devices wanted, {available} available")
    return n_devices
