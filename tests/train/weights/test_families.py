"""Files by the names of those who publish them: at every size the output is that of their network."""

import re

import jax
import numpy as np
import pytest

from tests.helpers.torch_networks import numpy_state, plain_vit, torch_tokens
from vis2img.models.resnet import make_resnet
from vis2img.models.vit import ViT, make_vit
from vis2img.train.weights.families import read_backbone
from vis2img.train.weights.names import describe, from_torch, native_side, to_timm

SIZES = [(24, 24), (16, 16), (12, 28)]
REGISTERS = {"registers": 4, "layer_scale": True}


def shapes_of(model, channels=3, size=24):
    return jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, size, size, channels), np.float32))


def under(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


def timm_names(state):
    """The names of DINOv2 as timm writes them."""
    return {name.replace("register_tokens", "reg_token"): x for name, x in state.items() if name != "mask_token"}


def transformers_names(state, old=True):
    """The names that files of transformers have (of its DINOv2 if there is a mask token), or its networks since 5."""
    dinov2 = "mask_token" in state
    layer, inner = ("encoder.layer", "attention.attention") if old else ("layers", "attention")
    parts = ("query", "key", "value") if old else ("q_proj", "k_proj", "v_proj")
    renames = [
        (r"^(cls_token|mask_token|register_tokens)", r"embeddings.\1"),
        ("^pos_embed", "embeddings.position_embeddings"),
        (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"),
        (r"^norm\.", "layernorm."),
        (r"^blocks\.(\d+)", rf"{layer}.\1"),
        (r"\.attn\.proj\.", ".attention.output.dense." if old else ".attention.o_proj."),
        (r"\.ls(\d)\.gamma", r".layer_scale\1.lambda1"),
    ]
    if not dinov2:
        renames += [(r"\.norm1\.", ".layernorm_before."), (r"\.norm2\.", ".layernorm_after.")]
    if old and not dinov2:
        renames += [(r"\.mlp\.fc1\.", ".intermediate.dense."), (r"\.mlp\.fc2\.", ".output.dense.")]

    named = {}
    for name, value in state.items():
        for pattern, replacement in renames:
            name = re.sub(pattern, replacement, name)
        if ".attn.qkv." not in name:
            named[name] = value
            continue
        for part, third in zip(parts, np.split(value, 3), strict=True):
            named[name.replace("attn.qkv", f"{inner}.{part}")] = third
    return named


ONES = np.ones((3, 3), np.float32)
DECODER = {"decoder_embed.weight": ONES, "decoder_pos_embed": ONES[None], "mask_token": np.ones((1, 1, 3), np.float32)}
# What is called so, from the names of DINO or DINOv2 (arrays and header), how it resizes, and what its network has.
FILES = {
    "DINO": (lambda s: (s, None), "dino", {}),
    "DINO, full": (lambda s: ({"teacher": under("backbone.", s), "epoch": 1}, None), "dino", {}),
    "DINOv2": (lambda s: (s | {"mask_token": np.ones((1, 32), np.float32)}, None), "dino", {}),
    "DINOv2 with registers": (lambda s: (s, None), "antialias", REGISTERS),
    "iBOT": (lambda s: ({"state_dict": s | {"masked_embed": np.ones((1, 32), np.float32)}}, None), "dino", {}),
    "MAE": (lambda s: ({"model": s}, None), "plain", {}),
    "MAE with its decoder": (lambda s: ({"model": s | DECODER}, None), "plain", {}),
    "timm": (lambda s: (s, {"format": "pt"}), "antialias", {}),
    "timm with a classifier": (lambda s: (s | {"head.weight": ONES, "head.bias": ONES[0]}, None), "antialias", {}),
    "timm with registers": (lambda s: (timm_names(s), None), "antialias", REGISTERS),
    "transformers": (lambda s: (transformers_names(s), {"format": "pt"}), "plain", {}),
    "transformers 5": (lambda s: (transformers_names(s, old=False), None), "plain", {}),
    "transformers, classifier": (
        lambda s: (under("vit.", transformers_names(s)) | {"classifier.weight": ONES}, None),
        *("plain", {}),
    ),
    "transformers, MAE": (
        lambda s: (
            under("vit.", transformers_names(s))
            | {"decoder.mask_token": ONES, "decoder.decoder_layers.0.attention.attention.query.weight": ONES},
            None,
        ),
        *("plain", {}),
    ),
    "transformers, DINOv2 with registers": (lambda s: (transformers_names(s), None), "antialias", REGISTERS),
    "solo-learn": (
        lambda s: (
            {
                "pytorch-lightning_version": "2.0",
                "state_dict": under("momentum_backbone.", s)
                | under("backbone.", {name: 2 * x for name, x in s.items()})
                | {"classifier.weight": ONES, "momentum_projector.0.weight": ONES, "queue": ONES},
            },
            None,
        ),
        *("antialias", {}),
    ),
    "lightly": (
        lambda s: (
            {
                "pytorch-lightning_version": "2.0",
                "state_dict": under("teacher_backbone.vit.", s)
                | {"teacher_backbone.mask_token": np.ones((1, 1, 32), np.float32)}
                | under("student_backbone.vit.", {name: 2 * x for name, x in s.items()})
                | {"student_head.layers.0.weight": ONES, "criterion.center": ONES},
            },
            None,
        ),
        *("antialias", {}),
    ),
    "lightly, DINO's network": (
        lambda s: (
            {"state_dict": under("teacher_backbone.", s) | under("student_backbone.", s) | {"teacher_head.x": ONES}},
            None,
        ),
        *("dino", {}),
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_names_are_read_as_those_of_one_network(kind):
    published, resizing, extras = FILES[kind]
    registers = {"registers": 4, "layer_scale": 1.0} if extras else {}
    state = plain_state(img_size=24, **registers)
    if extras:
        state["register_tokens"] = state.pop("reg_token")
        # As DINOv2, whose class token has a position; our own exports with registers have none.
        state["pos_embed"] = np.pad(state["pos_embed"], ((0, 0), (1, 0), (0, 0)))
        state["mask_token"] = np.ones((1, 32), np.float32)
    arrays, metadata = published(state)

    found = read_backbone(arrays, metadata=metadata)
    assert found.positions == resizing
    assert native_side(found.arrays) == (1, 6)
    expected = {name.replace("register_tokens", "reg_token"): x for name, x in state.items()}
    assert {*found.arrays} - {"mask_token"} == {*expected} - {"mask_token"}
    for name, value in found.arrays.items():
        if name != "mask_token":
            np.testing.assert_array_equal(value, expected[name], err_msg=name)


@pytest.mark.parametrize("kind", ["DINO", "MAE", "timm", "DINOv2 with registers", "transformers"])
def test_outputs_are_those_of_the_published_network_at_every_size(kind):
    published, resizing, extras = FILES[kind]
    theirs = plain_vit(4, 32, 2, 2, 24, 3, resizing=resizing, **extras)
    arrays, metadata = published(numpy_state(theirs))
    model = ViT(
        **{"patch": 4, "dim": 32, "depth": 2, "heads": 2, "img_size": 24},
        positions=read_backbone(arrays, metadata=metadata).positions,
        **({"registers": 4, "layer_scale": 1.0, "mask_token": True} if extras else {}),
    )
    variables = from_torch(arrays, shapes_of(model), patch=4, metadata=metadata)
    for size in SIZES:
        images = np.random.default_rng(3).normal(size=(1, *size, 3)).astype(np.float32)
        ours = np.asarray(jax.jit(model.apply)(variables, images)[1]["tokens"])
        expected = torch_tokens(theirs, images)
        assert np.linalg.norm(ours - expected) < 1e-5 * np.linalg.norm(expected), size


def test_registers_alone_make_the_resizing_of_dinov2():
    """As a network made in Python, without a file that would tell."""
    assert ViT(patch=4, dim=32, depth=1, heads=2, registers=4).resizing == "antialias"
    assert ViT(patch=4, dim=32, depth=1, heads=2).resizing == "dino"


def plain_state(**kwargs):
    model = ViT(**{"patch": 4, "dim": 32, "depth": 2, "heads": 2, "img_size": 16, **kwargs})
    rng = np.random.default_rng(1)
    return to_timm(jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes_of(model, size=16)), 4)


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ("backbone.", "momentum_backbone."),
        ("backbone.", "backbone_momentum."),
        ("student_backbone.", "teacher_backbone."),
        ("student.backbone.", "teacher.backbone."),
        ("anchor_backbone.", "backbone."),
        ("module.encoder_q.", "module.encoder_k."),
        ("module.base_encoder.", "module.momentum_encoder."),
    ],
)
def test_either_of_two_networks_side_by_side_is_taken(student, teacher):
    state = plain_state()
    both = under(student, state) | under(teacher, {name: 3 * x for name, x in state.items()})
    for key, factor in (("student", 1), ("teacher", 3)):
        got = read_backbone({"state_dict": both}, key).arrays
        assert got.keys() == state.keys()
        np.testing.assert_array_equal(got["norm.bias"], factor * state["norm.bias"])
    # There is nothing to choose where there is one.
    assert read_backbone(under(student, state), "teacher").arrays.keys() == state.keys()


def test_numbered_layers_of_lightly_are_a_residual_network():
    variables = jax.tree.map(lambda x: np.ones(x.shape, np.float32), shapes_of(make_resnet("resnet18"), size=32))
    state = to_timm(variables)
    numbers = {"conv1": "0", "bn1": "1", **{f"layer{i}": str(i + 3) for i in (1, 2, 3, 4)}}
    numbered = {f"backbone.{numbers[n.partition('.')[0]]}.{n.partition('.')[2]}": x for n, x in state.items()}
    numbered |= {"projection_head.layers.0.weight": ONES}
    assert describe({"state_dict": numbered}).variant == "resnet18"
    assert read_backbone({"state_dict": numbered}).arrays.keys() == state.keys()


@pytest.mark.parametrize(("positions", "expected"), [({}, "dino"), ({"positions": "plain"}, "plain")])
def test_our_own_files_say_how_they_resize(positions, expected):
    """Those of before said nothing, and did as DINO."""
    found = read_backbone(plain_state(), metadata={"vis2img": "0.1", **positions})
    assert (found.family, found.positions) == ("vis2img", expected)


@pytest.mark.parametrize(
    ("arrays", "metadata", "words"),
    [
        ({"rope_embed.periods": ONES, "cls_token": ONES}, None, "rotates queries by position, as DINOv3's"),
        ({"class_token": ONES, "encoder.layers.0.ln_1.weight": ONES}, None, "known are the names of DINO.*lightly"),
        ({"visual.class_embedding": ONES}, None, "known are the names of DINO"),
        ({"norm.weight": ONES}, {"vis2img": "9", "positions": "round"}, "known are dino, plain, antialias"),
        (
            under("module.base_encoder.", {"cls_token": np.ones((1, 1, 384), np.float32)}),
            *(None, "12 heads, and all here have heads of 64"),
        ),
        (
            {
                name: x
                for name, x in transformers_names(plain_state()).items()
                if not name.endswith("0.attention.attention.key.bias")
            },
            *(None, r"blocks\.0\.attn\.key\.bias is not in the file, but blocks\.0\.attn\.query\.bias is"),
        ),
    ],
)
def test_what_no_network_here_computes_is_refused_in_one_line(arrays, metadata, words):
    with pytest.raises(ValueError, match=words) as error:
        describe(read_backbone(arrays, metadata=metadata).arrays)
    assert "\n" not in str(error.value)


def test_published_sizes_are_described():
    state = plain_state(dim=384, depth=12, heads=6)
    assert str(describe(transformers_names(state))) == "small/4"
    assert make_vit("small/4").heads == 6
