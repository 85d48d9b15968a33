"""Vectors of pictures: what they are made of, and over which turns."""

import jax
import numpy as np
import pytest

from vis2img.train.config import ModelConfig, OptimConfig
from vis2img.train.patches import embed_images, vector_dim
from vis2img.train.state import backbone_variables, build_model, create_state


@pytest.mark.parametrize(
    ("settings", "length"),
    [({}, 2 * 96), ({"pooling": ("mean", "max"), "turns": 8}, 2 * 96), ({"pooling": ("mean",)}, 96)],
)
def test_a_vector_is_what_the_settings_say(settings, length):
    config = ModelConfig(variant="micro", patch=8, out_dim=8, hidden=8, bottleneck=8, **settings)
    model = build_model(config, 16)
    blank = jax.eval_shape(lambda: create_state(jax.random.key(0), model, OptimConfig(), (16, 16, 1)))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32), backbone_variables(blank))
    images = rng.normal(size=(5, 16, 16, 1)).astype(np.float32)
    vectors = embed_images(model, variables, images, batch_size=4)
    assert vectors.shape == (5, length) == (5, vector_dim(model)) and vectors.dtype == np.float32

    # Vectors that are averaged over all turns are those of the turned picture, others are not.
    quarter = embed_images(model, variables, np.rot90(images, axes=(1, 2)), batch_size=4)
    mirrored = embed_images(model, variables, images[:, ::-1], batch_size=4)
    for other in (quarter, mirrored):
        assert np.allclose(other, vectors, atol=1e-5) == (config.turns == 8)
    _, out = model.backbone.apply(variables, images)
    patches = np.asarray(out["patches"])
    if not config.pooling:  # as before there was a choice
        expected = np.concatenate([out["tokens"][:, 0], patches.max(axis=1)], axis=1)
        np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-5)
    elif config.turns == 1:
        np.testing.assert_allclose(vectors, patches.mean(axis=1), rtol=1e-4, atol=1e-5)


def test_earlier_stages_come_before_the_last():
    config = ModelConfig(variant="resnet10", stages=3, hidden=8, bottleneck=8)
    model, last = build_model(config, 32), build_model(ModelConfig(variant="resnet10", hidden=8, bottleneck=8), 32)
    blank = jax.eval_shape(lambda: create_state(jax.random.key(0), model, OptimConfig(), (32, 32, 1)))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32), backbone_variables(blank))
    images = rng.normal(size=(2, 32, 32, 1)).astype(np.float32)
    vectors = embed_images(model, variables, images, batch_size=2)

    _, out = jax.jit(model.backbone.apply)(variables, images)
    second, third = np.asarray(out["stage2"]), np.asarray(out["stage3"])
    parts = [pool(axis=(1, 2)) for stage in (second, third) for pool in (stage.mean, stage.max)]
    expected = np.concatenate([*parts, embed_images(last, variables, images, batch_size=2)], axis=1)
    assert vectors.shape == (2, vector_dim(model))
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-5)
