"""Pictures of tokens: attention that holds a share of its mass, components that tell sources from the background."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from vis2img.errors import ParameterError
from vis2img.models.dino_head import DINOHead, DINOModel
from vis2img.models.resnet import make_resnet
from vis2img.models.vit import ViT
from vis2img.train.report.token_pictures import attention_figure, mass_mask, token_components, token_pca_figure
from vis2img.train.state import backbone_variables


@pytest.fixture(scope="module")
def variables(initial):
    return backbone_variables(initial)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, 16, 24, 1)).astype(np.float32)


def test_the_fewest_patches_that_hold_the_mass_are_kept() -> None:
    attention = np.array([[0.30, 0.05, 0.10], [0.25, 0.20, 0.10]])
    np.testing.assert_array_equal(mass_mask(attention, 0.5), [[1, 0, 0], [1, 0, 0]])
    np.testing.assert_array_equal(mass_mask(attention, 0.6), [[1, 0, 0], [1, 1, 0]])
    np.testing.assert_array_equal(mass_mask(attention, 1.0), np.ones((2, 3)))


def test_each_head_is_cut_by_its_own_mass() -> None:
    # Attention to patches need not sum to 1: the class token and the registers have their share.
    attention = np.array([[[0.02, 0.01], [0.01, 0.01]], [[0.1, 0.1], [0.1, 0.7]]])
    np.testing.assert_array_equal(mass_mask(attention, 0.6), [[[1, 1], [0, 0]], [[0, 0], [0, 1]]])


@pytest.mark.parametrize("mass", [0.0, -0.1, 1.1])
def test_a_share_out_of_range_is_refused(mass: float) -> None:
    with pytest.raises(ParameterError, match=r"in \(0, 1\]"):
        mass_mask(np.ones((2, 2)), mass)


def test_attention_is_drawn_per_head_plain_and_over_the_image(model, variables, images) -> None:
    figure = attention_figure(model, variables, images)
    axes = np.array(figure.axes).reshape(6, 3)  # two rows for each image, the image and two heads
    np.testing.assert_array_equal(axes[2, 0].images[0].get_array(), images[1, ..., 0])
    _, out = model.backbone.apply(variables, images, return_attention=True)
    expected = np.asarray(out["attention"])[1, :, 0, 1:].reshape(2, 4, 6)
    for head in range(2):
        shown = np.asarray(axes[2, head + 1].images[0].get_array())
        np.testing.assert_allclose(shown, expected[head], rtol=1e-5)
        image, shadow = axes[3, head + 1].images
        np.testing.assert_array_equal(image.get_array(), images[1, ..., 0])
        bright = np.asarray(shadow.get_array())[..., 3] == 0
        kept, dark = expected[head][bright], expected[head][~bright]
        assert kept.sum() >= 0.6 * expected[head].sum() > kept.sum() - kept.min()
        assert kept.min() >= dark.max()
        assert shadow.get_extent() == image.get_extent()
    np.testing.assert_allclose(axes[3, 0].images[0].get_array(), expected.mean(axis=0), rtol=1e-5)


def test_registers_are_not_taken_for_patches(quick_jit) -> None:
    model = DINOModel(ViT(patch=4, dim=24, depth=1, heads=2, img_size=8, registers=3), DINOHead(16, 32, 8))
    images = np.random.default_rng(1).normal(size=(1, 8, 8, 1)).astype(np.float32)
    variables = quick_jit(model.backbone.init)(jax.random.key(0), images)
    _, out = model.backbone.apply(variables, images, return_attention=True)
    shown = attention_figure(model, variables, images).axes[1].images[0].get_array()
    np.testing.assert_allclose(np.ravel(shown), np.asarray(out["attention"])[0, 0, 0, 4:], rtol=1e-5)


def test_a_larger_size_gives_more_patches(model, variables, images) -> None:
    square = images[:2, :, :16]
    figure = attention_figure(model, variables, square, size=32)
    assert figure.axes[1].images[0].get_array().shape == (8, 8)
    assert figure.axes[0].images[0].get_array().shape == (32, 32)
    assert token_pca_figure(model, variables, square, size=32).axes[2].images[0].get_array().shape == (8, 8)


def test_components_of_tokens_lie_where_their_patches_do(model, variables, images) -> None:
    figure = token_pca_figure(model, variables, images)
    axes = np.array(figure.axes).reshape(3, 3)
    tokens = np.asarray(model.backbone.apply(variables, images)[1]["patches"], np.float64)
    flat = tokens.reshape(-1, tokens.shape[-1])
    _, _, right = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    expected = ((flat - flat.mean(axis=0)) @ right[0]).reshape(3, 4, 6)
    shown = np.array([axis.images[0].get_array() for axis in axes[1]])
    sign = np.sign(shown[0, 0, 0] * expected[0, 0, 0])
    np.testing.assert_allclose(shown, sign * expected, rtol=1e-3, atol=1e-4)
    colours = np.array([axis.images[0].get_array() for axis in axes[2]])
    assert colours.shape == (3, 4, 6, 3)
    assert (colours[shown <= 0] == 0).all() and colours[shown > 0].any()


def test_the_foreground_is_the_bright_end_and_its_kinds_have_their_own_colours() -> None:
    rng = np.random.default_rng(2)
    kind = np.repeat([0, 1, 2], [140, 30, 30])  # background, and two kinds of source
    centre = np.zeros((3, 12))
    centre[1:, 0], centre[1, 1], centre[2, 1] = 10.0, 2.0, -2.0
    tokens = centre[kind] + 0.05 * rng.normal(size=(200, 12))
    for sign in (1, -1):
        first, foreground, colours = token_components(sign * tokens, (kind > 0).astype(float))
        np.testing.assert_array_equal(foreground, kind > 0)
        assert (first[kind > 0] > 0).all()
        assert (colours[kind == 0] == 0).all() and colours.min() == 0 and colours.max() == 1
        # What differs most within the foreground is its kind: the red channel tells it.
        red = [colours[kind == k, 0] for k in (1, 2)]
        assert abs(red[0].mean() - red[1].mean()) > 0.9 and max(r.std() for r in red) < 0.05


@pytest.mark.filterwarnings("error")
def test_tokens_that_are_all_alike_are_no_error() -> None:
    first, foreground, colours = token_components(np.ones((6, 5)), np.arange(6.0))
    assert foreground.all() and np.isfinite(first).all() and np.isfinite(colours).all()


@pytest.mark.parametrize("draw", [attention_figure, token_pca_figure])
def test_a_residual_network_is_refused(draw, images) -> None:
    with pytest.raises(ParameterError, match="ResNet has no tokens to picture; use a run of a vision transformer"):
        draw(DINOModel(make_resnet("resnet18"), DINOHead(16, 32, 8)), {}, images)


@pytest.mark.parametrize(
    ("size", "shape", "message"),
    [(30, (1, 16, 16, 1), "use size 32"), (None, (1, 18, 16, 1), "18 x 16 pixels"), (None, (0, 16, 16, 1), "not none")],
)
def test_images_that_do_not_divide_into_patches_are_refused(model, variables, size, shape, message) -> None:
    with pytest.raises(ParameterError, match=message):
        attention_figure(model, variables, np.zeros(shape, np.float32), size=size)


@pytest.mark.parametrize("channels", [2, 3])
def test_pictures_can_be_drawn_of_any_number_of_channels(channels: int, quick_jit, tmp_path) -> None:
    model = DINOModel(ViT(patch=4, dim=24, depth=1, heads=2, img_size=8), DINOHead(16, 32, 8))
    images = np.random.default_rng(1).normal(size=(2, 8, 8, channels)).astype(np.float32)
    variables = quick_jit(model.backbone.init)(jax.random.key(0), images)
    for draw in (attention_figure, token_pca_figure):
        draw(model, variables, images).savefig(tmp_path / "picture.png", dpi=20)
        assert (tmp_path / "picture.png").stat().st_size > 500
