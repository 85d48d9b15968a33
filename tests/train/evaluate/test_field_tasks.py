"""Numbers beside vectors: rows of the regression tasks that say what a network adds to the brightness of its patch."""

from __future__ import annotations

import numpy as np

from vis2img.train.evaluate.encoders import Encoder, component_encoders
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


def test_patches_that_lie_otherwise_in_each_field_are_known_by_the_nearest_turn_of_their_pixels() -> None:
    rng, count = np.random.default_rng(0), 96
    label, field = np.arange(count) % 2, np.arange(count) // 24
    shapes = rng.normal(size=(2, 6, 6))
    turned = [np.rot90(shapes[kind], way) for kind, way in zip(label, field, strict=True)]
    images = (np.stack(turned) + 0.3 * rng.normal(size=(count, 6, 6))).astype(np.float32)[..., None]
    position = np.zeros((count, 2))
    sources = SourcePatches({ALIKE: images, "off centre": images}, label.astype(str), field, position, np.ones(count))
    tasks = FieldTasks(sources, tasks=("classification", "similarity", "transfer"), shares=(1.0,), folds=4)
    upright, over_turns = (
        {(name.task, name.setting, name.metric): value for name, value in tasks.run(encoder)}
        for encoder in component_encoders(images)
    )
    for which in (("classification", "k-NN", "accuracy"), ("transfer", "to off centre, k-NN", "balanced accuracy")):
        assert over_turns[which] > 0.95 > 0.7 > upright[which]
    assert set(upright) == set(over_turns)
