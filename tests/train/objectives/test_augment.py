"""Turns on the accelerator are those that the loader means."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest
from scipy import ndimage

from vis2img.errors import ParameterError
from vis2img.train.objectives.augment import jitter_views, resample_turned, turn_views
from vis2img.views.crops import ViewConfig, turned
from vis2img.views.jitter import ViewJitter


def test_views_are_turned_as_the_loader_says() -> None:
    rng = np.random.default_rng(0)
    batch = {
        "global": rng.normal(size=(2, 8, 6, 6, 2)).astype(np.float32),
        "local": rng.normal(size=(3, 8, 4, 4, 2)).astype(np.float32),
        "turns": np.stack([rng.permutation(8) for _ in range(5)]).astype(np.int8),
    }
    done = jax.jit(turn_views)(batch)
    assert set(done) == {"global", "local"}
    for name, first in (("global", 0), ("local", 2)):
        for view, images in enumerate(batch[name]):
            for sample, image in enumerate(images):
                expected = turned(image, int(batch["turns"][first + view, sample]))
                np.testing.assert_array_equal(done[name][view, sample], expected)


def test_a_batch_without_turns_or_local_views_is_left_as_it_is() -> None:
    views = np.ones((2, 3, 4, 4, 1), np.float32)
    assert turn_views({"global": views})["global"] is views
    empty = {"global": views, "local": np.zeros((0, 3, 2, 2, 1), np.float32), "turns": np.zeros((2, 3), np.int8)}
    assert jax.jit(turn_views)(empty)["local"].shape == (0, 3, 2, 2, 1)


def test_a_turned_zoomed_and_shifted_view_is_that_of_scipy() -> None:
    size, angle, zoom, shift = 24, 2.3, 0.8, np.array([1.7, -2.2])
    wide = ViewJitter(turn=True, zoom=(zoom, zoom), shift=2.2 / size).cut_size(size)
    view = np.random.default_rng(1).normal(size=(wide, wide, 2)).astype(np.float32)
    numbers = np.array(angle, np.float32), np.array(zoom, np.float32), shift.astype(np.float32)
    done = resample_turned(view, *numbers, size)
    b, a = (np.indices((size, size)) - (size - 1) / 2 + shift[::-1, None, None]) / zoom
    row = (wide - 1) / 2 + math.sin(angle) * a + math.cos(angle) * b
    column = (wide - 1) / 2 + math.cos(angle) * a - math.sin(angle) * b
    assert min(row.min(), column.min()) >= 0 and max(row.max(), column.max()) <= wide - 1  # no corner is beyond
    for channel in range(2):
        wanted = ndimage.map_coordinates(view[..., channel].astype(np.float64), [row, column], order=1)
        np.testing.assert_allclose(done[..., channel], wanted, atol=2e-4)


def test_views_vary_each_by_itself_and_do_not_depend_on_the_share_of_a_device() -> None:
    jitter = ViewJitter(turn=True, zoom=(0.8, 1.25), shift=0.1, power=(0.5, 2.0))
    views = ViewConfig(global_size=16, local_size=8, n_local=1, jitter=jitter)
    rng = np.random.default_rng(2)
    one = {name: rng.normal(size=(jitter.cut_size(side),) * 2 + (1,)).astype(np.float32)
           for name, side in (("global", 16), ("local", 8))}  # fmt: skip
    batch = {"global": np.tile(one["global"], (2, 6, 1, 1, 1)), "local": np.tile(one["local"], (1, 6, 1, 1, 1))}
    keys = jax.random.split(jax.random.key(3), 6)
    vary = jax.jit(jitter_views, static_argnums=2)
    done = vary(batch, keys, views)
    assert done["global"].shape == (2, 6, 16, 16, 1) and done["local"].shape == (1, 6, 8, 8, 1)
    flat = np.asarray(done["global"]).reshape(12, -1)
    assert len(np.unique(flat.round(4), axis=0)) == 12  # the same view of all samples, each varied by itself
    half = vary({name: x[:, 3:] for name, x in batch.items()}, keys[3:], views)
    for name in ("global", "local"):
        np.testing.assert_allclose(half[name], done[name][:, 3:], atol=1e-5)

    # Power alone: the brightest stays, and there is no margin.
    powered = ViewConfig(global_size=16, jitter=ViewJitter(power=(0.5, 0.5)))
    some = {"global": rng.normal(size=(2, 6, 16, 16, 1)).astype(np.float32)}
    peak = np.abs(some["global"]).max(axis=(2, 3), keepdims=True)
    wanted = np.sign(some["global"]) * peak * np.sqrt(np.abs(some["global"]) / peak)
    np.testing.assert_allclose(vary(some, keys, powered)["global"], wanted, rtol=1e-4, atol=1e-5)
    assert jitter_views(some, keys, ViewConfig())["global"] is some["global"]
    for name, value in (("zoom", (0.4, 1.0)), ("power", (2.0, 1.0)), ("shift", 0.3)):
        with pytest.raises(ParameterError, match=f"jitter.{name}"):
            ViewJitter(**{name: value})
