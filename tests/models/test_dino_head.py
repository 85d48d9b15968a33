"""The projection head against plain NumPy."""

import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vis2img.models.dino_head import DINOHead, DINOModel, l2_normalise
from vis2img.models.vit import ViT


def head(**kwargs):
    return DINOHead(**{"out_dim": 7, "hidden": 6, "bottleneck": 5, **kwargs})


@pytest.mark.parametrize("learned", [False, True])
def test_head_matches_numpy(learned):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 3)).astype(np.float32)
    model = head(norm_last_layer=not learned)
    params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    params = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), params)
    got = jax.jit(model.apply)({"params": params}, x)

    gelu = np.vectorize(lambda v: 0.5 * v * (1.0 + math.erf(v / math.sqrt(2.0))))
    h = gelu(x @ params["mlp0"]["kernel"] + params["mlp0"]["bias"])
    h = gelu(h @ params["mlp1"]["kernel"] + params["mlp1"]["bias"])
    h = h @ params["mlp2"]["kernel"] + params["mlp2"]["bias"]
    expected = np.zeros((4, 7))
    v = params["last_layer"]["v"]
    for n in range(4):
        for k in range(7):
            cosine = h[n] @ v[:, k] / math.sqrt((h[n] ** 2).sum()) / math.sqrt((v[:, k] ** 2).sum())
            expected[n, k] = cosine * (params["last_layer"]["g"][0, k] if learned else 1.0)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_length_is_learned_only_on_request():
    x = np.ones((1, 3), np.float32)
    fixed = jax.eval_shape(head().init, jax.random.key(0), x)["params"]["last_layer"]
    learned = jax.jit(head(norm_last_layer=False).init)(jax.random.key(0), x)["params"]["last_layer"]
    assert set(fixed) == {"v"}
    assert set(learned) == {"v", "g"}
    np.testing.assert_array_equal(learned["g"], np.ones((1, 7)))


def test_a_zero_vector_has_a_finite_gradient():
    value, gradient = jax.value_and_grad(lambda x: l2_normalise(x, axis=-1).sum())(jnp.zeros(3))
    assert value == 0.0
    assert np.isfinite(gradient).all()


def test_model_joins_resolutions_in_order():
    model = DINOModel(ViT(patch=4, dim=8, depth=1, heads=2, img_size=8), head())
    rng = np.random.default_rng(0)
    large, small = (rng.normal(size=(n, s, s, 1)).astype(np.float32) for n, s in ((2, 8), (3, 4)))
    variables = jax.eval_shape(model.init, jax.random.key(0), [large])
    variables = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), variables)
    logits, embeddings = jax.jit(model.apply)(variables, [large, small])
    assert set(variables["params"]) == {"backbone", "head"}
    backbone = {"params": variables["params"]["backbone"]}
    run = jax.jit(model.backbone.apply)
    expected = np.concatenate([run(backbone, x)[0] for x in (large, small)])
    np.testing.assert_allclose(embeddings, expected, atol=1e-4)
    projected = jax.jit(model.head.apply)({"params": variables["params"]["head"]}, expected)
    np.testing.assert_allclose(logits, projected, atol=1e-5)


def test_packages_import_without_jax():
    loaded = "print('jax' in sys.modules)"
    code = f"import sys, vis2img.models, vis2img.train.config; {loaded}; vis2img.models.ViT; {loaded}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
