"""Augmentations that run on the accelerator: what would cost the loader copies costs nothing there."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Float, Float32, Integer, Key

from vis2img.models.layers import Array
from vis2img.random import JITTER
from vis2img.views.crops import ViewConfig
from vis2img.views.jitter import ViewJitter


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
    turned = {name: x for name, x in batch.items() if name != "turns"}
    turned["global"] = _turn(batch["global"], turns[:n_global])
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


def jitter_views(batch: Mapping[str, Array], keys: Key[Array, " batch"], views: ViewConfig) -> dict[str, Array]:
    """Turn, zoom and shift each view as `views.jitter` says, and raise its pixels to a power.

    What is random belongs to the sample and its place in the batch, and so does not depend on the number of devices.

    Parameters
    ----------
    batch : dict
        "global" (n_global, B, W, W, C) and "local" (L, B, V, V, C) with their margins, flipped and turned already.
    keys : (B,)
        Random key of each sample.
    views : ViewConfig

    Returns
    -------
    dict
        "global" (n_global, B, G, G, C) and "local" (L, B, S, S, C); the batch as it is where nothing varies.
    """
    if not views.jitter.changes:
        return dict(batch)
    first, done = 0, dict(batch)
    for name, size in (("global", views.global_size), ("local", views.local_size)):
        if name not in batch:
            continue
        numbers = first + jnp.arange(batch[name].shape[0])
        first += batch[name].shape[0]

        def of_view(view: Array, number: Array, key: Array, size: int = size) -> Array:
            uniform = jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, JITTER), number), (5,))
            return _jittered(view, uniform, size, views.jitter)

        done[name] = jax.vmap(jax.vmap(of_view, in_axes=(0, None, 0)), in_axes=(0, 0, None))(batch[name], numbers, keys)
    return done


def _jittered(
    view: Float32[Array, "wide wide channel"], uniform: Float32[Array, "5"], size: int, jitter: ViewJitter
) -> Float32[Array, "{size} {size} channel"]:
    """Return a view by five numbers from 0 to 1: angle, zoom, shift along x and y, power."""
    if jitter.moves:
        angle = uniform[0] * (2 * jnp.pi if jitter.turn else 0.0)
        shift = (2 * uniform[2:4] - 1) * (jitter.shift * size)
        view = resample_turned(view, angle, _log_uniform(uniform[1], jitter.zoom), shift, size)
    if jitter.power != (1.0, 1.0):
        peak = jnp.max(jnp.abs(view), axis=(0, 1), keepdims=True)
        part = jnp.abs(view) / jnp.maximum(peak, 1e-30)
        view = jnp.sign(view) * peak * part ** _log_uniform(uniform[4], jitter.power)
    return view


def _log_uniform(uniform: Float32[Array, ""], ends: tuple[float, float]) -> Float32[Array, ""]:
    low, high = ends
    return low * (high / low) ** uniform


def resample_turned(
    view: Float32[Array, "wide wide channel"],
    angle: Float32[Array, ""],
    zoom: Float32[Array, ""],
    shift: Float32[Array, "2"],
    size: int,
) -> Float32[Array, "{size} {size} channel"]:
    """Return the middle of a view, zoomed and shifted, and turned then: bilinear.

    Parameters
    ----------
    view : (W, W, C)
    angle : ()
        Counterclockwise where x runs to the right and y up, rad; what is shown turns the other way.
    zoom : ()
    shift : (2,)
        Along x and y before the turn, in pixels of the result.
    size : int
        Pixels of the result; beyond the edge of the view the edge goes on.
    """
    wide, channels = view.shape[0], view.shape[-1]
    place = jnp.arange(size, dtype=jnp.float32) - (size - 1) / 2
    a, b = (place + shift[0])[None, :] / zoom, (place + shift[1])[:, None] / zoom
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    x, y = ((wide - 1) / 2 + at for at in (cos * a - sin * b, sin * a + cos * b))  # (S, S) each
    left, lower = (jnp.clip(jnp.floor(at), 0, wide - 2) for at in (x, y))
    fx, fy = (jnp.clip(at, 0.0, 1.0)[:, :, None] for at in (x - left, y - lower))
    first = (lower * wide + left).astype(jnp.int32)
    pixels = view.reshape(wide * wide, channels)
    # Gathers of whole pixels, which processors do fast, too.
    here, east, north, both = (jnp.take(pixels, first + step, axis=0) for step in (0, 1, wide, wide + 1))
    return (1 - fy) * ((1 - fx) * here + fx * east) + fy * ((1 - fx) * north + fx * both)
