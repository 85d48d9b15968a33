"""Turns on the accelerator are those that the loader means."""

from __future__ import annotations

import jax
import numpy as np

from vis2img.train.objectives.augment import turn_views
from vis2img.views.crops import turned


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
