"""The transformer against plain NumPy, and what its position embedding does at other sizes."""

import math
from functools import partial

import jax
import numpy as np
import pytest

from vis2img.models.positions import resize_positions
from vis2img.models.vit import Block, ViT, make_vit

PATCH, DIM, HEADS = 4, 24, 2


def tiny(**kwargs):
    return ViT(**{"patch": PATCH, "dim": DIM, "depth": 2, "heads": HEADS, "img_size": 16, **kwargs})


def apply(model, params, x, drop=None, **kwargs):
    """Compiled as a whole: op by op it takes seconds."""
    return jax.jit(lambda p, x, d: model.apply({"params": p}, x, drop=d, **kwargs))(params, x, drop)


@pytest.fixture(scope="module")
def variables():
    shapes = jax.eval_shape(tiny().init, jax.random.key(0), np.zeros((1, 16, 16, 1), np.float32))
    return spread(shapes, 1)


def np_norm(x, p):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-6) * p["scale"] + p["bias"]


def np_dense(x, p):
    return x @ p["kernel"] + p["bias"]


def np_gelu(x):
    return 0.5 * x * (1.0 + np.vectorize(math.erf)(x / math.sqrt(2.0)))


def np_block(x, p, heads):
    """One block on (T, D), head by head and query by query."""
    length, dim = x.shape
    width = dim // heads
    qkv = np_dense(np_norm(x, p["norm1"]), p["attn"]["qkv"])
    q, k, v = qkv[:, :dim], qkv[:, dim : 2 * dim], qkv[:, 2 * dim :]
    mixed, weights = np.zeros((length, dim)), np.zeros((heads, length, length))
    for h in range(heads):
        part = slice(h * width, (h + 1) * width)
        for i in range(length):
            scores = np.array([q[i, part] @ k[j, part] / math.sqrt(width) for j in range(length)])
            weights[h, i] = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
            mixed[i, part] = sum(weights[h, i, j] * v[j, part] for j in range(length))
    x = x + np_dense(mixed, p["attn"]["proj"])
    return x + np_dense(np_gelu(np_dense(np_norm(x, p["norm2"]), p["fc1"])), p["fc2"]), weights


def as_float64(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def spread(tree, seed):
    """Random parameters of order one third, so that no term of the network is negligible."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.normal(0.0, 0.3, x.shape).astype(np.float32), tree)


def test_whole_network_matches_numpy(variables):
    params = variables["params"]
    images = np.random.default_rng(2).normal(size=(1, 16, 16, 1)).astype(np.float32)
    cls, out = apply(tiny(), params, images, return_attention=True)

    p = as_float64(params)
    tokens = [p["cls_token"][0, 0] + p["pos_embed"][0, 0]]
    for row in range(4):
        for column in range(4):
            pixels = images[0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].ravel()
            tokens.append(np_dense(pixels, p["patch_embed"]) + p["pos_embed"][0, 1 + 4 * row + column])
    x = np.array(tokens)
    np.testing.assert_allclose(out["stem"][0], x, rtol=1e-4, atol=1e-5)
    for name in ("block00", "block01"):
        x, weights = np_block(x, p[name], HEADS)
        np.testing.assert_allclose(out[name][0], x, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(out["attention"][0], weights, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(out["tokens"][0], np_norm(x, p["norm"]), rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(cls, out["tokens"][:, 0])


def test_attention_is_only_returned_on_request(variables):
    _, out = apply(tiny(), variables["params"], np.zeros((1, 16, 16, 1), np.float32))
    assert "attention" not in out


def test_positions_are_untouched_at_native_size():
    grid = np.random.default_rng(0).normal(size=(4, 4, 3)).astype(np.float32)
    assert resize_positions(grid, 4, 4) is grid


def cubic(t):
    """Cubic convolution (Keys 1981, equation 10) with a = -3/4."""
    t = abs(t)
    if t < 1.0:
        return 1.25 * t**3 - 2.25 * t**2 + 1.0
    return -0.75 * t**3 + 3.75 * t**2 - 6.0 * t + 3.0 if t < 2.0 else 0.0


def np_resize_axis(x, size):
    """Resize the first axis at the scale (size + 0.1) / side; what lies off the edge repeats it."""
    padded = np.concatenate([x[:1]] * 8 + [x] + [x[-1:]] * 8)
    out = np.zeros((size, *x.shape[1:]))
    for i in range(size):
        at = (i + 0.5) / ((size + 0.1) / len(x)) - 0.5
        out[i] = np.tensordot([cubic(at - j) for j in range(-8, len(x) + 8)], padded, 1)
    return out


@pytest.mark.parametrize("size", [(6, 3), (2, 2), (3, 7)])
def test_positions_are_resized_bicubically(size):
    grid = np.random.default_rng(0).normal(size=(5, 5, 3)).astype(np.float32)
    expected = np_resize_axis(grid, size[0]).swapaxes(0, 1)
    expected = np_resize_axis(expected, size[1]).swapaxes(0, 1)
    np.testing.assert_allclose(resize_positions(grid, *size), expected, atol=1e-5)


def test_rows_stay_rows_in_a_non_square_image(variables):
    """A position embedding that only depends on y must give stems that only depend on y."""
    params = jax.tree.map(np.zeros_like, variables["params"])
    ramp = np.repeat(np.arange(4.0), 4)[:, None] * np.ones(DIM)
    params["pos_embed"] = np.concatenate([np.zeros((1, DIM)), ramp])[None].astype(np.float32)
    _, out = apply(tiny(), params, np.zeros((1, 8, 24, 1), np.float32))
    grid = np.asarray(out["stem"])[0, 1:, 0].reshape(2, 6)
    np.testing.assert_allclose(grid, np.repeat(grid[:, :1], 6, axis=1), atol=1e-6)
    assert grid[1, 0] - grid[0, 0] > 1.0


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_any_number_of_channels(channels):
    images = np.random.default_rng(0).normal(size=(2, 8, 8, channels)).astype(np.float32)
    (cls, _), variables = jax.eval_shape(tiny(img_size=8).init_with_output, jax.random.key(0), images)
    assert cls.shape == (2, DIM)
    assert variables["params"]["patch_embed"]["kernel"].shape == (PATCH * PATCH * channels, DIM)


@pytest.mark.parametrize(
    ("kwargs", "shape", "words"),
    [
        ({}, (1, 16, 18, 1), "16 x 18 is not a multiple of the patch size 4"),
        ({}, (16, 16, 1), "must be"),
        ({"img_size": 18}, (1, 16, 16, 1), "img_size 18"),
        ({"heads": 5}, (1, 16, 16, 1), "multiple of heads"),
        ({"drop_path": 1.0}, (1, 16, 16, 1), "drop_path"),
    ],
)
def test_bad_shapes_are_refused(kwargs, shape, words):
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(tiny(**kwargs).init, jax.random.key(0), np.zeros(shape, np.float32))


def test_drop_path_drops_whole_samples_and_rescales_the_others(variables):
    """A dropped sample keeps nothing of the branch, a kept one has it divided by 1 - rate."""
    rate, x = 0.25, np.random.default_rng(0).normal(size=(4, 3, DIM)).astype(np.float32)
    block = Block(HEADS, 4.0, rate)
    params = variables["params"]["block01"]
    # Without a second branch (fc2 = 0) the output is x + mask / keep * attention.
    first = {**params, "fc2": jax.tree.map(np.zeros_like, params["fc2"])}
    uniform = np.array([[0.0, 0.9], [0.24, 0.9], [0.26, 0.9], [0.99, 0.0]], np.float32)
    branch = np.asarray(apply(block, first, x)[0]) - x
    got = np.asarray(apply(block, first, x, drop=uniform)[0]) - x
    np.testing.assert_allclose(got, np.array([0, 0, 1, 1])[:, None, None] / 0.75 * branch, atol=1e-5)
    # The second number decides on the second branch.
    whole, kept = (np.asarray(apply(block, params, x[3:], drop=uniform[i : i + 1])[0]) for i in (3, 2))
    np.testing.assert_allclose(whole[0], x[3] + branch[3] / 0.75, atol=1e-5)
    assert np.abs(kept - whole).max() > 1e-2


def test_drop_path_rises_from_none_in_the_first_block(variables):
    images = np.random.default_rng(0).normal(size=(8, 16, 16, 1)).astype(np.float32)
    model, params = tiny(drop_path=0.9), variables["params"]
    reference, plain = apply(tiny(), params, images)
    evaluated, _ = apply(model, params, images)
    _, trained = apply(model, params, images, drop=np.full((8, model.n_drops), 0.5, np.float32))
    np.testing.assert_array_equal(evaluated, reference)
    np.testing.assert_array_equal(trained["block00"], plain["block00"])
    assert np.abs(np.asarray(trained["block01"]) - plain["block01"]).max() > 1e-3


def test_without_patches_the_class_token_is_the_same(variables):
    images = np.random.default_rng(0).normal(size=(3, 16, 24, 1)).astype(np.float32)
    token, out = apply(tiny(), variables["params"], images, drop=np.full((3, 4), 0.5, np.float32))
    alone, less = apply(tiny(), variables["params"], images, drop=np.full((3, 4), 0.5, np.float32), patches=False)
    np.testing.assert_allclose(alone, token, atol=1e-5)
    np.testing.assert_array_equal(out["tokens"][:, 1:], out["patches"])
    assert less["tokens"].shape == (3, 1, DIM) and less["patches"].shape == (3, 0, DIM)


def test_registers_layer_scale_and_masks(variables):
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 1)).astype(np.float32)
    model = tiny(registers=3, layer_scale=0.1, mask_token=True)
    new = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    assert new["registers"].shape == (1, 3, DIM) and new["block00"]["ls1"].shape == (DIM,)
    params = jax.tree.map(lambda x: np.random.default_rng(x.size).normal(size=x.shape).astype(np.float32), new)
    _, out = apply(model, params, images)
    n = out["patches"].shape[1]
    assert out["tokens"].shape[1] == 1 + 3 + n
    np.testing.assert_array_equal(out["tokens"][:, 4:], out["patches"])
    # Registers are added without a position; a scale of nothing leaves the stem as it is.
    np.testing.assert_allclose(out["stem"][0, 1:4], params["registers"][0], atol=1e-6)
    for block in ("block00", "block01"):
        params[block] |= {name: np.zeros(DIM, np.float32) for name in ("ls1", "ls2")}
    _, out = apply(model, params, images)
    np.testing.assert_array_equal(out["block01"], out["stem"])
    # What a hidden patch shows has no influence; its position has.
    hidden = np.arange(n) % 2 == 0
    masks = np.stack([hidden, hidden])
    first, second = apply(model, params, images, masks=masks)[1]["stem"], out["stem"]
    np.testing.assert_array_equal(first[:, 4:][:, ~hidden], second[:, 4:][:, ~hidden])
    np.testing.assert_allclose(first[0, 4:][hidden], first[1, 4:][hidden], atol=1e-6)
    assert np.abs(first[0, 4] - first[0, 6]).max() > 1e-3
    with pytest.raises(ValueError, match="mask_token=True"):
        apply(tiny(), variables["params"], images, masks=masks)


@pytest.mark.parametrize("patches", [True, False])
def test_small_branches_are_heard_in_bfloat16(patches):
    """A LayerScale of 1e-5 is below the last digit of a bfloat16; what it adds must not be lost."""
    images = np.random.default_rng(0).normal(size=(6, 16, 16, 1)).astype(np.float32)
    shapes = jax.eval_shape(tiny(layer_scale=1.0).init, jax.random.key(0), images)
    params = spread(shapes, 1)["params"]
    for block in ("block00", "block01"):
        params[block] |= {name: np.full(DIM, 1e-5, np.float32) for name in ("ls1", "ls2")}
    single, half = (
        np.asarray(apply(tiny(layer_scale=1e-5, dtype=dtype), params, images, patches=patches)[1]["block01"])[:, 0]
        for dtype in (np.float32, jax.numpy.bfloat16)
    )
    assert half.dtype == np.float32
    # The class token sees the images only through the branches.
    varies = (single - single.mean(0)).std()
    assert varies > 0
    np.testing.assert_allclose(half - half.mean(0), single - single.mean(0), atol=0.1 * varies)


def test_rematerialised_gradients_are_the_same(variables):
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 1)).astype(np.float32)

    def gradient(model):
        return jax.grad(lambda p: (model.apply({"params": p}, images)[0] ** 2).sum())

    again, kept = gradient(tiny(remat=True)), gradient(tiny())
    # Each activation function is worked out a second time.
    params = variables["params"]
    count = [str(jax.make_jaxpr(g)(params)).count(" erf ") for g in (again, kept)]
    assert count[0] == 2 * count[1]
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-4), jax.jit(again)(params), jax.jit(kept)(params))


@pytest.mark.parametrize(
    ("variant", "millions"), [("tiny/16", 5.5), ("small/16", 21.7), ("base/16", 85.8), ("micro/8", 0.54)]
)
def test_variants_have_the_published_size(variant, millions):
    """Parameter counts of the published backbones (Caron et al. 2021, table 1: 21 and 85 million)."""
    shapes = jax.eval_shape(make_vit(variant).init, jax.random.key(0), np.zeros((1, 224, 224, 3), np.float32))
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    assert count / 1e6 == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize("variant", ["huge/16", "tiny/5", "tiny", "tiny/16/2", "/16"])
def test_unknown_variants_list_the_known_ones(variant):
    with pytest.raises(ValueError, match=r"tiny/16.*base/16"):
        make_vit(variant)


def test_make_vit_passes_fields_on():
    model = make_vit("small/8", img_size=96, drop_path=0.2)
    assert (model.patch, model.dim, model.heads, model.img_size, model.drop_path) == (8, 384, 6, 96, 0.2)
