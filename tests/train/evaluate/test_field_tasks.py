"""Numbers beside vectors: rows of the regression tasks that say what a network adds to the brightness of its patch."""

from __future__ import annotations

import numpy as np

from vis2img.train.evaluate.encoders import Encoder
from vis2img.train.evaluate.field_tasks import FieldTasks
from vis2img.train.evaluate.simulated import ALIKE, SourcePatches, TilePatches


def test_brightness_beside_vectors_tells_the_flux_that_they_do_not() -> None:
    rng, count = np.random.default_rng(0), 200
    flux = 10 ** rng.normal(size=count)
    compact = rng.integers(5, size=count)
    # The images show how many sources there are, and nothing of how bright they are.
    images = (compact[:, None, None, None] + 0.1 * rng.normal(size=(count, 4, 4, 1))).astype(np.float32)
    brightness = np.stack([flux, flux * 10 ** (0.05 * rng.normal(size=count)), flux / 1e-3], axis=1)
    field = np.arange(count) % 4
    sources = SourcePatches({ALIKE: images}, np.full(count, "any"), field, np.zeros((count, 2)), flux)
    tasks = FieldTasks(sources, TilePatches(images, field, compact, flux, brightness), tasks=("regression",))
    pixels = Encoder("pixels", 0, lambda views: views.reshape(-1, 16))
    found = {name.setting: value for name, value in tasks.run(pixels) if name.metric == "R2"}
    assert found["flux with brightness, ridge"] > 0.95 and found["flux from brightness, ridge"] > 0.95
    assert found["flux, ridge"] < 0.1
    assert (
        found["compact sources with brightness, ridge"] > 0.95 and found["compact sources from brightness, ridge"] < 0.1
    )
    assert "flux with brightness, k-NN" not in found and "flux, k-NN" in found
