"""Pooling against its formulas in NumPy, alone and in the backbones."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from vis2img.models.pooling import PARTS, Pooling, max_pool
from vis2img.models.resnet import ResNet
from vis2img.models.vit import ViT


def test_parts_are_joined_in_their_order():
    rng = np.random.default_rng(0)
    token, patches = rng.normal(size=(3, 8)).astype(np.float32), rng.normal(size=(3, 5, 8)).astype(np.float32)
    query = rng.normal(size=8).astype(np.float32)
    score = np.exp(patches @ query / np.sqrt(8))
    attended = (patches * (score / score.sum(axis=1, keepdims=True))[..., None]).sum(axis=1)
    expected = np.concatenate([token, patches.mean(axis=1), patches.max(axis=1), attended], axis=1)
    got = Pooling(PARTS).apply({"params": {"query": query}}, token, patches)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("parts", [("mean", "max"), ("max", "attention")])
def test_backbones_give_what_is_pooled(parts):
    images = np.random.default_rng(1).normal(size=(2, 16, 16, 1)).astype(np.float32)
    for model in (
        ViT(patch=4, dim=24, depth=1, heads=2, img_size=16, pooling=("class", *parts)),
        ResNet((1, 1, 1, 1), False, norm="group", pooling=parts),
    ):
        shapes = jax.eval_shape(model.init, jax.random.key(0), images)
        rng = np.random.default_rng(2)
        variables = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32), shapes)  # noqa: B023
        # As in training, where patch tokens are not asked for.
        embedding, out = jax.jit(lambda v, x, m=model: m.apply(v, x, patches=False))(variables, images)
        assert embedding.shape == (2, model.embedding_dim)
        assert [path[-1] for path in flatten_dict(shapes["params"]) if "pool" in path] == ["query"] * (
            "attention" in parts
        )
        token = np.asarray(out["tokens"][:, 0])
        patches = np.asarray(out["patches"] if isinstance(model, ViT) else out["stage4"].reshape(2, -1, model.dim))
        wanted = {"class": token, "mean": patches.mean(axis=1), "max": patches.max(axis=1)}
        for i, part in enumerate(model.pooling):
            if part in wanted:
                got = embedding[:, i * model.dim : (i + 1) * model.dim]
                np.testing.assert_allclose(got, wanted[part], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 8, 6, 4), (2, 7, 9, 5), (1, 1, 2, 3)])
def test_the_maximum_is_that_of_flax_and_so_is_its_gradient(shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = []
    for pool in (max_pool, lambda x: nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))):
        values = jax.value_and_grad(lambda x, f=pool: (jnp.sum(jnp.sin(f(x))), f(x)), has_aux=True)
        found.append(jax.jit(values)(x))
    ((_, ours), of_ours), ((_, theirs), of_theirs) = found
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(of_ours, of_theirs, atol=1e-6)


def test_of_equal_maxima_one_has_the_gradient():
    gradient = jax.grad(lambda x: max_pool(x).sum())(jnp.ones((1, 4, 4, 1)))
    assert gradient.sum() == 4 and set(np.unique(gradient)) <= {0.0, 1.0, 2.0, 4.0}
