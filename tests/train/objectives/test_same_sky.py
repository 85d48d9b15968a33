"""Samples of the same sky: by positions to a fraction of an arcsecond, by pictures, and left out of SimCLR's choice."""

from functools import partial

import jax
import numpy as np
import torch

from vis2img.coordinates import separation
from vis2img.loader.batches import Batch
from vis2img.train.objectives.same_sky import same_sky
from vis2img.train.objectives.simclr import simclr_loss
from vis2img.units import ARCSEC
from vis2img.views.crops import ViewConfig

PATCH = 0.02 * ARCSEC  # of a VLBI field, below what float32 tells apart on the sphere
# Three places, the second of them twice; a patch five times as large; three pictures.
PLACES = [(4.1, -0.8 + offset * PATCH) for offset in (0.0, 0.3, 0.3, 1.2, 4.0)]
POSITION = np.array(PLACES + [(np.nan, np.nan)] * 3)


def make_batch():
    batch = Batch.empty(ViewConfig(n_local=0, global_size=8), 8, 1)
    batch.position[:] = POSITION
    batch.patch[:] = [PATCH] * 4 + [5 * PATCH] + [np.nan] * 3
    batch.item[:] = [0, 0, 0, 0, 1, 7, 8, 7]
    return batch.arrays()


def slow_same(reach):
    """A pair at a time, in float64."""
    batch, expected = make_batch(), np.eye(8, dtype=bool)
    for i in range(8):
        for j in range(8):
            if i >= 5 and j >= 5:
                expected[i, j] = batch["item"][0, i] == batch["item"][0, j]
            elif i < 5 and j < 5:
                limit = reach * PATCH * (5 if 4 in (i, j) else 1)
                expected[i, j] |= separation(POSITION[i], POSITION[j]) <= limit + 1e-6 * PATCH
    return expected


def spread(batch, devices):
    return {
        name: np.moveaxis(x.reshape(len(x), devices, -1, *x.shape[2:]), 1, 0)
        for name, x in batch.items()
        if name in ("global", "item", "patch", "sky")
    }


def test_the_same_sky_is_known_by_position_or_picture_on_any_number_of_devices(quick_jit):
    for reach, pairs in ((0.0, 2), (0.5, 4), (1.0, 10)):  # of which one is of pictures
        expected = slow_same(reach)
        assert expected.sum() == 8 + 2 * pairs
        for devices in (1, 2, 8):
            find = jax.vmap(partial(same_sky, reach=reach, axis_name="device"), axis_name="device")
            found = quick_jit(find)(spread(make_batch(), devices))
            np.testing.assert_array_equal(np.asarray(found).reshape(8, 8), expected)


def test_without_positions_a_sample_is_alone():
    found = same_sky({"global": np.zeros((2, 3, 8, 8, 1), np.float32)}, 1.0)
    np.testing.assert_array_equal(found, np.eye(3, dtype=bool))


def test_the_same_sky_is_not_chosen_from(quick_jit):
    z = np.random.default_rng(0).normal(size=(2, 8, 5))
    same = slow_same(0.5)
    unit = torch.tensor(z / np.linalg.norm(z, axis=-1, keepdims=True)).reshape(16, 5)
    losses = []
    for row in range(16):
        keys = [key for key in range(16) if key % 8 == row % 8 or not same[row % 8, key % 8]]
        weights = torch.exp(unit[[key for key in keys if key != row]] @ unit[row] / 0.1)
        losses.append(-torch.log(torch.exp(unit[(row + 8) % 16] @ unit[row] / 0.1) / weights.sum()))
    loss, _ = quick_jit(partial(simclr_loss, n_global=2, temperature=0.1))(z.astype(np.float32), same=same)
    np.testing.assert_allclose(loss, torch.stack(losses).mean(), rtol=1e-5)
