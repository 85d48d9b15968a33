"""Weights to and from PyTorch: outputs are the same as those of a plain PyTorch transformer and of timm."""

import math

import jax
import numpy as np
import pytest

from tests.helpers.torch_networks import numpy_state, plain_vit, shaken, torch_tokens
from vis2img.models.positions import resize_positions
from vis2img.models.resnet import ResNet, make_resnet
from vis2img.models.vit import ViT, make_vit
from vis2img.train.weights.names import adapt_stem, describe, from_torch, to_timm


def shapes_of(model, channels=1, size=None):
    size = size or getattr(model, "img_size", 32)
    return jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, size, size, channels), np.float32))


def small(**kwargs):
    return ViT(**{"patch": 4, "dim": 32, "depth": 2, "heads": 2, "img_size": 16, **kwargs})


def images_of(*shape):
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def spread(tree, seed=1):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.normal(0.0, 0.3, x.shape).astype(np.float32), tree)


def apply(model, variables, images):
    return np.asarray(jax.jit(lambda v, x: model.apply(v, x)[1]["tokens"])(variables, images))


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("variant", "img_size", "channels"), [("tiny/16", 64, 3), ("tiny/8", 32, 1), ("micro/8", 40, 2)]
)
def test_weights_of_dino_give_dinos_output(variant, img_size, channels):
    model = make_vit(variant, img_size=img_size)
    network = plain_vit(model.patch, model.dim, model.depth, model.heads, img_size, channels)
    variables = from_torch(numpy_state(network), shapes_of(model, channels), patch=model.patch)
    images = images_of(2, img_size, img_size, channels)
    close(apply(model, variables, images), torch_tokens(network, images))


def test_weights_of_dinov2_give_dinov2s_output():
    network = plain_vit(4, 32, 2, 2, 16, 3, registers=4, layer_scale=True)
    state = numpy_state(network)
    images = images_of(2, 16, 16, 3)
    model = small(registers=4, layer_scale=1e-5, mask_token=True)
    # Chunked blocks as in its training checkpoints, and a head beside the backbone.
    chunked = {f"backbone.{name.replace('blocks.', 'blocks.0.')}": value for name, value in state.items()}
    for arrays in (state, {"teacher": {**chunked, "dino_head.mlp.0.weight": np.ones((3, 3))}}):
        variables = from_torch(arrays, shapes_of(model, 3))
        close(apply(model, variables, images), torch_tokens(network, images))
        np.testing.assert_array_equal(variables["params"]["mask_token"][0], state["mask_token"])


TIMM_KINDS = {
    "plain": ({}, {}),
    "registers and LayerScale": (
        {"reg_tokens": 4, "no_embed_class": True, "init_values": 1e-5},
        {"registers": 4, "layer_scale": 1e-5},
    ),
}


def timm_vit(timm, channels, **kwargs):
    network = timm.models.vision_transformer.VisionTransformer(
        img_size=16, patch_size=4, in_chans=channels, embed_dim=32, depth=2, num_heads=2, num_classes=0, **kwargs
    )
    network = shaken(network)
    network.forward = network.forward_features  # all tokens after the norm
    return network


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        *TIMM_KINDS.values(),
        ({"no_embed_class": True}, {}),
        ({"reg_tokens": 3}, {"registers": 3}),
    ],
)
def test_weights_of_timm_give_timms_output(timm, theirs, ours):
    """With positions for the class token, for none but the patches, and for class and registers."""
    network, model, images = timm_vit(timm, 2, **theirs), small(**ours), images_of(2, 16, 16, 2)
    variables = from_torch(numpy_state(network), shapes_of(model, 2))
    close(apply(model, variables, images), torch_tokens(network, images))


@pytest.mark.parametrize("kind", TIMM_KINDS)
def test_timms_output_is_given_at_other_sizes_too(timm, kind):
    theirs, ours = TIMM_KINDS[kind]
    network = timm_vit(timm, 2, **theirs, dynamic_img_size=True)
    model, images = small(**ours, positions="antialias"), images_of(1, 12, 28, 2)
    variables = from_torch(numpy_state(network), shapes_of(model, 2))
    expected = torch_tokens(network, images)
    assert np.linalg.norm(apply(model, variables, images) - expected) < 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("kind", TIMM_KINDS)
def test_our_export_loads_into_timm_and_gives_our_output(timm, kind):
    import torch

    theirs, ours = TIMM_KINDS[kind]
    model, images = small(**ours, mask_token=True), images_of(2, 16, 16, 2)
    variables = spread(shapes_of(model, 2))
    network = timm_vit(timm, 2, **theirs)
    network.load_state_dict({k: torch.from_numpy(v) for k, v in to_timm(variables, 4).items()}, strict=True)
    close(torch_tokens(network, images), apply(model, variables, images))


@pytest.mark.parametrize("variant", ["resnet18", "resnet50"])
def test_our_residual_networks_load_into_timm(timm, variant):
    import torch

    model, images = make_resnet(variant), images_of(1, 64, 64, 1)
    variables = jax.tree.map(lambda x: np.abs(x) + 0.5 if x.ndim == 1 else x * 0.1, spread(shapes_of(model)))
    network = timm.create_model(variant, in_chans=1, num_classes=0).eval()
    network.load_state_dict({k: torch.from_numpy(v) for k, v in to_timm(variables).items()}, strict=True)
    ours, theirs = apply(model, variables, images)[:, 0], torch_tokens(network, images)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())
    back = from_torch(numpy_state(network), shapes_of(model))
    for left, right in zip(jax.tree.leaves(back), jax.tree.leaves(variables), strict=True):
        np.testing.assert_array_equal(left, right)


def test_exports_with_registers_come_back_as_the_same_function():
    model, images = small(registers=2, layer_scale=0.1, mask_token=True), images_of(2, 16, 16, 1)
    variables = spread(shapes_of(model))
    arrays = to_timm(variables, 4)
    assert arrays["pos_embed"].shape == (1, 16, 32) and "mask_token" not in arrays
    back = from_torch(arrays, variables)
    assert not back["params"]["mask_token"].any()
    close(apply(model, back, images), apply(model, variables, images))


def test_exports_without_registers_come_back_bit_by_bit():
    for model, patch in ((small(), 4), (ResNet((1, 1, 1, 1), True), None)):
        variables = spread(shapes_of(model))
        back = from_torch(to_timm(variables, patch), variables)
        assert jax.tree.structure(back) == jax.tree.structure(variables)
        for left, right in zip(jax.tree.leaves(back), jax.tree.leaves(variables), strict=True):
            np.testing.assert_array_equal(left, right)


def test_a_grey_image_gives_what_the_rgb_network_made_of_it():
    network, model = plain_vit(4, 32, 2, 2, 16, 3), small()
    variables = from_torch(numpy_state(network), shapes_of(model, 1))
    grey = images_of(2, 16, 16, 1)
    close(apply(model, variables, grey), torch_tokens(network, np.repeat(grey, 3, axis=3)))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6, 7])
def test_stems_are_adapted_as_by_timm(timm, channels):
    import torch
    from timm.models import adapt_input_conv

    weight = images_of(5, 3, 4, 4)
    close(adapt_stem(weight, channels), adapt_input_conv(channels, torch.from_numpy(weight.copy())).numpy())


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_adapted_stems_keep_the_sum_over_channels(channels):
    weight = images_of(5, 3, 4, 4)
    np.testing.assert_allclose(adapt_stem(weight, channels).sum(1), weight.sum(1), atol=1e-5)


def test_stems_of_other_channels_cannot_be_adapted():
    with pytest.raises(ValueError, match="2 channels and those here 1; only RGB"):
        adapt_stem(images_of(5, 2, 4, 4), 1)


def test_positions_of_another_grid_are_resized():
    arrays = to_timm(spread(shapes_of(small())), 4)
    got = from_torch(arrays, shapes_of(small(img_size=24)))["params"]["pos_embed"]
    grid = resize_positions(arrays["pos_embed"][0, 1:].reshape(4, 4, 32), 6, 6)
    np.testing.assert_allclose(got[0, 1:], np.asarray(grid).reshape(36, 32), atol=1e-6)
    np.testing.assert_array_equal(got[0, 0], arrays["pos_embed"][0, 0])


@pytest.fixture
def checkpoint():
    """A full checkpoint of DINO, with other numbers in each network."""
    teacher, student = (to_timm(spread(shapes_of(small()), seed), 4) for seed in (1, 2))
    heads = {"module.head.mlp.0.weight": np.ones((2, 2)), "module.head.last_layer.weight_g": np.ones((2, 1))}
    return {
        "student": {**{f"module.backbone.{name}": value for name, value in student.items()}, **heads},
        "teacher": {f"backbone.{name}": value for name, value in teacher.items()},
        "optimizer": {"state": {}},
        "epoch": 3,
        "args": object(),
    }, {"student": student, "teacher": teacher}


@pytest.mark.parametrize("key", ["teacher", "student"])
def test_either_network_of_a_full_checkpoint_is_taken(checkpoint, key):
    full, parts = checkpoint
    got = from_torch(full, shapes_of(small()), key)["params"]
    np.testing.assert_array_equal(got["norm"]["scale"], parts[key]["norm.weight"])
    np.testing.assert_array_equal(got["block01"]["fc1"]["kernel"], parts[key]["blocks.1.mlp.fc1.weight"].T)


@pytest.mark.parametrize("container", ["state_dict", "model"])
def test_the_only_network_of_a_file_is_taken(checkpoint, container):
    got = from_torch({container: checkpoint[1]["teacher"], "epoch": 1}, shapes_of(small()), "student")["params"]
    np.testing.assert_array_equal(got["norm"]["scale"], checkpoint[1]["teacher"]["norm.weight"])


def test_files_without_the_network_say_so(checkpoint):
    full, _ = checkpoint
    with pytest.raises(ValueError, match="no student in it, but a teacher"):
        from_torch({"teacher": full["teacher"]}, shapes_of(small()), "student")
    with pytest.raises(ValueError, match="no weights in it; its keys are epoch, args"):
        from_torch({"epoch": 1, "args": object()}, shapes_of(small()))
    with pytest.raises(ValueError, match=r"two arrays are called norm\.weight"):
        from_torch({"norm.weight": np.ones(3), "module.norm.weight": np.ones(3)}, shapes_of(small()))


def changed(arrays, **changes):
    out = {**arrays, **{name.replace("__", "."): value for name, value in changes.items()}}
    return {name: value for name, value in out.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"norm__bias": None}, r"norm\.bias of shape \(32,\) is not in the file"),
        ({"fc_norm__bias": np.ones(32)}, r"fc_norm\.bias of shape \(32,\) is in the file, but not in the model"),
        ({"norm__bias": np.ones(31)}, r"norm\.bias is \(31,\) in the file and \(32,\) here"),
        ({"norm__bias": np.full(32, np.nan)}, r"norm\.bias has values that are not finite"),
        ({"pos_embed": np.ones((1, 13, 32))}, "no square grid"),
        ({"patch_embed__proj__weight": np.ones((32, 2, 4, 4))}, "2 channels and those here 1"),
        ({"patch_embed__proj__weight": np.ones((32, 1, 8, 8))}, "use patch 8"),
        ({"blocks__0__ls1__gamma": np.ones(32)}, "use layer_scale above 0"),
    ],
)
def test_what_does_not_fit_is_named(changes, words):
    arrays = changed(to_timm(spread(shapes_of(small())), 4), **changes)
    with pytest.raises(ValueError, match=words) as error:
        from_torch(arrays, shapes_of(small()), patch=4)
    assert "\n" not in str(error.value)


def torch_shapes(model, patch=None, channels=3):
    """Names and shapes of a file, without numbers."""
    return to_timm(jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), shapes_of(model, channels)), patch)


@pytest.mark.parametrize(
    ("file", "model", "words"),
    [
        (
            make_vit("small/16"),
            make_vit("tiny/16"),
            "of a small/16, the model here a tiny/16; use variant small$",
        ),
        (make_vit("micro/16"), make_vit("micro/8"), "use patch 16$"),
        (make_vit("micro/8", registers=4), make_vit("micro/8"), "use registers 4$"),
        (make_vit("micro/8"), make_vit("micro/8", registers=4), "use registers 0$"),
        (make_vit("micro/8"), make_vit("micro/8", layer_scale=1e-5), "use layer_scale 0$"),
        (make_vit("micro/8", depth=7), make_vit("micro/8"), "ViT of width 96 and depth 7/8.*another file"),
        (
            make_resnet("resnet18"),
            make_vit("micro/8"),
            "of a resnet18, the model here a micro/8; use variant resnet18$",
        ),
        (
            make_resnet("resnet18", width=32),
            make_resnet("resnet18"),
            "of a resnet18 with width 32, the model here a resnet18; use width 32$",
        ),
        (make_vit("micro/8"), make_resnet("resnet18"), "of a micro/8, the model here a resnet18; use variant micro$"),
    ],
)
def test_another_architecture_is_named_with_what_to_use(file, model, words):
    arrays = torch_shapes(file, getattr(file, "patch", None))
    with pytest.raises(ValueError, match=words):
        from_torch(arrays, shapes_of(model, 3), patch=getattr(model, "patch", None))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (make_vit("tiny/16"), ("tiny", 16, 0, False, None)),
        (make_vit("small/8", registers=4), ("small", 8, 4, False, None)),
        (make_vit("micro/4", layer_scale=1.0), ("micro", 4, 0, True, None)),
        (make_resnet("resnet18"), ("resnet18", None, 0, False, 64)),
        (make_resnet("resnet50"), ("resnet50", None, 0, False, 64)),
        (make_resnet("resnet10", width=32), ("resnet10", None, 0, False, 32)),
    ],
)
def test_architectures_are_told_from_shapes(model, expected):
    assert describe(torch_shapes(model, getattr(model, "patch", None))) == expected


def test_unknown_networks_are_not_described():
    with pytest.raises(ValueError, match=r"neither a ViT nor a ResNet: its first array is stem\.weight"):
        describe({"stem.weight": np.ones(3)})


def test_empty_collections_of_the_template_stay():
    variables = {**spread(shapes_of(small())), "batch_stats": {}}
    assert jax.tree.structure(from_torch(to_timm(variables, 4), variables)) == jax.tree.structure(variables)


def test_a_patch_is_needed_to_export_a_vit():
    for patch in (None, 3):
        with pytest.raises(ValueError, match="patches of"):
            to_timm(spread(shapes_of(small())), patch)


def test_kernels_are_ordered_by_row_column_and_channel():
    model = small(img_size=8)
    params = spread(shapes_of(model, 2))
    kernel = to_timm(params, 4)["patch_embed.proj.weight"]
    assert kernel.shape == (32, 2, 4, 4) and math.prod(kernel.shape) == params["params"]["patch_embed"]["kernel"].size
    assert kernel[7, 1, 2, 3] == params["params"]["patch_embed"]["kernel"][(2 * 4 + 3) * 2 + 1, 7]
