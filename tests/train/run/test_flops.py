"""Arithmetic is counted as in the closed form, through everything that JAX wraps programs in; peaks are per device."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from vis2img.models.dino_head import DINOHead, DINOModel
from vis2img.models.vit import ViT, make_vit
from vis2img.train.run.flops import count_flops, measured_flops, model_flops_per_sample, peak_flops
from vis2img.views.crops import ViewConfig


def shape(*sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


A, B = shape(3, 5), shape(5, 7)
PRODUCT = 2 * 3 * 5 * 7


def test_a_product_of_matrices() -> None:
    assert count_flops(jnp.matmul, A, B) == PRODUCT
    assert count_flops(lambda a: jnp.tanh(a) + a, A) == 0


def test_batched_and_transposed_products() -> None:
    product = "bhqd,bhkd->bhqk"
    assert (
        count_flops(lambda q, k: jnp.einsum(product, q, k), shape(2, 3, 4, 5), shape(2, 3, 6, 5)) == 2 * 6 * 4 * 6 * 5
    )


@jax.custom_vjp
def with_rule(a, b):
    return a @ b


with_rule.defvjp(lambda a, b: (a @ b, (a, b)), lambda kept, g: (g @ kept[1].T, kept[0].T @ g))


@pytest.mark.parametrize(
    "wrapped",
    [
        jax.jit(jnp.matmul),
        jax.checkpoint(jnp.matmul),
        jax.jit(jax.checkpoint(jax.jit(jnp.matmul))),
        with_rule,
        lambda a, b: jax.nn.relu(a @ b),
        lambda a, b: jax.vmap(lambda row: row @ b)(a),
        lambda a, b: jax.lax.cond(a[0, 0] > 0, lambda: a @ b, lambda: jnp.zeros((3, 7))),
    ],
)
def test_what_a_product_is_wrapped_in_changes_nothing(wrapped) -> None:
    assert count_flops(wrapped, A, B) == PRODUCT


def test_loops_of_known_length_are_unrolled() -> None:
    square = shape(4, 4)
    once = 2 * 4**3
    assert count_flops(lambda x: jax.lax.scan(lambda c, _: (c @ x, None), x, length=6)[0], square) == 6 * once
    assert count_flops(lambda x: jax.lax.fori_loop(0, 5, lambda i, c: c @ x, x), square) == 5 * once
    assert count_flops(lambda x: jax.lax.while_loop(lambda c: c[0, 0] < 9, lambda c: c @ x, x), square) == once


def test_a_backward_pass_is_two_forward_ones() -> None:
    assert count_flops(jax.grad(lambda a, b: jnp.sin(a @ b).sum(), argnums=(0, 1)), A, B) == 3 * PRODUCT


@pytest.mark.parametrize(("groups", "stride"), [(1, 1), (1, 2), (4, 1)])
def test_convolutions(groups: int, stride: int) -> None:
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    x, kernel = shape(2, 8, 8, 4), shape(3, 3, 4 // groups, 12)
    forward = 2 * (2 * (8 // stride) ** 2 * 12) * (9 * 4 // groups)
    assert count_flops(convolve, x, kernel) == forward
    by_input = jax.grad(lambda x, kernel: convolve(x, kernel).sum())
    assert count_flops(by_input, x, kernel) == pytest.approx(2 * forward, rel=1e-6)  # forward, and back to the input


def test_the_vision_transformer_of_the_papers() -> None:
    """ViT-S/16 at 224 pixels: 4.6 GMAC (Touvron et al. 2021, arXiv:2012.12877, table 5)."""
    backbone, image = make_vit("small/16"), shape(1, 224, 224, 3)
    variables = jax.eval_shape(backbone.init, jax.random.key(0), image)
    counted = count_flops(backbone.apply, variables, image)
    dim, depth, patches = 384, 12, (224 // 16) ** 2
    tokens = patches + 1
    macs = patches * 3 * 16**2 * dim + depth * (12 * tokens * dim**2 + 2 * tokens**2 * dim)
    assert counted == 2 * macs
    assert counted == pytest.approx(9.2e9, rel=0.01)


def closed_form(n_views: int, size: int, *, hidden: int, bottleneck: int, out_dim: int) -> float:
    """FLOP of ViT(patch 4, dim 24, depth 2) and head on views; the last block asks for the class token alone."""
    dim, patches = 24, (size // 4) ** 2
    tokens = patches + 1
    whole = 12 * tokens * dim**2 + 2 * tokens**2 * dim
    last = 3 * tokens * dim**2 + 2 * tokens * dim + 9 * dim**2
    head = dim * hidden + hidden**2 + hidden * bottleneck + bottleneck * out_dim
    return 2.0 * n_views * (patches * 16 * dim + whole + last + head)


def test_a_sample_is_the_student_three_times_and_the_teacher_once() -> None:
    head = {"hidden": 32, "bottleneck": 8, "out_dim": 16}
    views = ViewConfig(global_size=16, local_size=8, n_global=2, n_local=3)
    large, small = closed_form(2, 16, **head), closed_form(3, 8, **head)
    resize = 2 * 24 * (2 * 4 * 4 + 2 * 2 * 4)  # of the positions, 4 x 4 to 2 x 2, once a step
    counts = []
    for remat in (False, True):
        backbone = ViT(patch=4, dim=24, depth=2, heads=2, img_size=16, drop_path=0.2, remat=remat)
        model = DINOModel(backbone, DINOHead(**head))
        counts.append(model_flops_per_sample(model, views, 1))
        assert model_flops_per_sample(model, views, 1, ibot=True) > counts[-1]
    assert counts[0] == counts[1] == pytest.approx(3 * (large + small) + large, abs=3 * resize)
    alone = ViewConfig(global_size=16, local_size=8, n_global=2, n_local=0)
    assert model_flops_per_sample(model, alone, 1) == 4 * large
    assert model_flops_per_sample(model, alone, 1, teacher=False) == 3 * large


@pytest.mark.parametrize(
    ("kind", "precision", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989e12),
        ("NVIDIA H100 80GB HBM3", "float32", 494e12),
        ("NVIDIA H100 PCIe", "bfloat16", 756e12),
        ("NVIDIA H200", "bfloat16", 989e12),
        ("NVIDIA A100-SXM4-40GB", "bfloat16", 312e12),
        ("NVIDIA A100 80GB PCIe", "bfloat16", 312e12),
        ("NVIDIA A100-PCIE-40GB", "float32", 156e12),
        ("NVIDIA L4", "bfloat16", 121e12),
        ("NVIDIA L40S", "bfloat16", 362e12),
        ("Tesla V100-SXM2-32GB", "float32", 15.7e12),
        ("TPU v3", "bfloat16", 61.5e12),
        ("TPU v4", "float32", 275e12),
        ("TPU v5 lite", "bfloat16", 197e12),
    ],
)
def test_published_peaks(kind: str, precision: str, peak: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vis2img.train.run.flops.measured_flops", lambda device, precision: (1.0, "measured"))
    value, source = peak_flops(SimpleNamespace(device_kind=kind), precision)
    assert value == peak and source.startswith("published") and kind in source


@pytest.mark.parametrize(
    ("kind", "precision"),
    [
        ("NVIDIA L40", "bfloat16"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bfloat16"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "float32"),
        ("Tesla V100-SXM2-16GB", "bfloat16"),
        ("TPU v9", "bfloat16"),
        ("cpu", "float32"),
    ],
)
def test_other_devices_are_measured(kind: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "vis2img.train.run.flops.measured_flops", lambda device, precision: (1.0, f"measured {precision}")
    )
    assert peak_flops(SimpleNamespace(device_kind=kind), precision) == (1.0, f"measured {precision}")


def test_exact_products_have_another_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vis2img.train.run.flops.measured_flops", lambda device, precision: (1.0, "measured"))
    with jax.default_matmul_precision("highest"):
        assert peak_flops(SimpleNamespace(device_kind="NVIDIA H200"), "float32")[0] == 67e12
        assert peak_flops(SimpleNamespace(device_kind="NVIDIA H200"), "bfloat16")[0] == 989e12
        assert peak_flops(SimpleNamespace(device_kind="TPU v4"), "float32")[1] == "measured"


def test_a_measured_rate_is_that_of_a_computer() -> None:
    rate, source = measured_flops(jax.devices()[0], "float32")
    assert 1e8 < rate < 1e16
    assert source.startswith("measured with products of ")
