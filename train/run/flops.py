"""How much arithmetic a network takes, and how much of it a device could do: the two sides of MFU.

MFU, the model FLOP utilisation of Chowdhery et al. 2022 (arXiv:2204.02311, appendix B), is the arithmetic that the
network needs for the samples seen in a second, over the peak of the devices. Needed are the matrix products and
convolutions of one forward and one backward pass, once; activations computed again do not count, nor does anything
elementwise. A product of (m, k) and (k, n) takes 2 m k n operations, as a multiplication and an addition are two.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, jaxprs_in_params

from vis2img.models.dino_head import DINOModel
from vis2img.views.crops import ViewConfig

# Peaks in TFLOP/s of dense products with bfloat16, TF32 and float32 inputs, by what JAX's device_kind looks like.
# NVIDIA's tables print those of the tensor cores with 2:4 sparsity, which is twice as much. None: no such hardware.
# Parts of a device (MIG) and mobile or custom versions have other peaks, so the patterns leave them out.
_NVIDIA: tuple[tuple[str, float | None, float | None, float], ...] = (
    # NVIDIA H200 Tensor Core GPU datasheet.
    (r"NVIDIA H200 NVL", 835.0, 417.0, 60.0),
    (r"NVIDIA H200", 989.0, 494.0, 67.0),
    # NVIDIA H100 Tensor Core GPU datasheet (SXM, NVL); of the PCIe card, that of 2022.
    (r"NVIDIA H100 PCIe", 756.0, 378.0, 51.0),
    (r"NVIDIA H100 NVL", 835.0, 417.0, 60.0),
    (r"NVIDIA H100( 80GB HBM3)?", 989.0, 494.0, 67.0),
    # NVIDIA A100 Tensor Core GPU datasheet.
    (r"(NVIDIA )?A100(-SXM4-40GB|-SXM4-80GB|-PCIE-40GB| 80GB PCIe)", 312.0, 156.0, 19.5),
    # NVIDIA L40S and L4 datasheets.
    (r"NVIDIA L40S", 362.0, 183.0, 91.6),
    (r"NVIDIA L4", 121.0, 60.0, 30.3),
    # NVIDIA Ada GPU architecture whitepaper, appendix A; products accumulate in float32.
    (r"NVIDIA GeForce RTX 4090", 165.2, 82.6, 82.6),
    # NVIDIA V100 datasheet. Its tensor cores (125 TFLOP/s) take float16 alone, which nothing here uses.
    (r"Tesla V100-SXM2-(16|32)GB", None, None, 15.7),
    (r"Tesla V100-PCIE-(16|32)GB", None, None, 14.0),
)
# Peaks in TFLOP/s of a JAX device with bfloat16 inputs: Google Cloud, "TPU system architecture" and its pages of each
# version. They are for chips; those of v2 and v3 (45 and 123) are two devices each.
_TPU = {
    "TPU v2": 22.5,
    "TPU v3": 61.5,
    "TPU v4": 275.0,
    "TPU v5 lite": 197.0,
    "TPU v5e": 197.0,
    "TPU v5": 459.0,
    "TPU v5p": 459.0,
    "TPU v6 lite": 918.0,
    "TPU v6e": 918.0,
}
_EXACT = ("highest", "float32")  # names of jax_default_matmul_precision that rule out TF32 and bfloat16 passes
_SECONDS, _ONE_PRODUCT, _LARGEST = 0.25, 0.06, 8192  # of measuring in all [s], at most of one [s], side of a matrix


def count_flops(function: Callable[..., Any], *args: Any) -> float:
    """Floating point operations of the matrix products and convolutions of ``function(*args)``.

    Nothing is computed: arguments may be ``jax.ShapeDtypeStruct``. All that is traced counts,
    used or not. Of alternatives (``cond``) the longest counts; the body of a ``while`` counts once, as nobody knows how
    often it runs; loops of a known length are unrolled.
    """
    return _of_jaxpr(jax.make_jaxpr(function)(*args).jaxpr)


def _of_jaxpr(jaxpr: Jaxpr) -> float:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: Any) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)
    if name == "conv_general_dilated":
        kernel, numbers = equation.invars[1].aval.shape, params["dimension_numbers"]
        # The kernel's input features are those of one group. Zeros between the pixels of a dilated input are no work.
        taps = math.prod(kernel) / kernel[numbers.rhs_spec[0]]
        return 2.0 * math.prod(equation.outvars[0].aval.shape) * taps / math.prod(params["lhs_dilation"])
    # Programs within: jit, custom derivatives, remat, scan, while and cond all keep theirs among the parameters.
    inner = [_of_jaxpr(jaxpr) for jaxpr in jaxprs_in_params(params)]
    if not inner:
        return 0.0
    if name == "cond":
        return max(inner)
    return sum(inner) * (params["length"] if name == "scan" else 1)


def model_flops_per_sample(
    model: DINOModel, views: ViewConfig, channels: int, *, ibot: bool = False, teacher: bool = True
) -> float:
    """Arithmetic of a training step for one sample [FLOP].

    The student on all views, three times (a backward pass takes two forward ones: the gradients by the input and by
    the weights of each product), and the teacher on the global views, once, unless the objective has none.

    With ``ibot`` patch tokens are wanted, too, half of which go through the head
    (`vis2img.train.objectives.dinov2.draw_masks`).
    """
    large = _crops(views.n_global, views.global_size, channels)
    small = [_crops(views.n_local, views.local_size, channels)] if views.n_local else []
    variables = jax.eval_shape(model.init, jax.random.key(0), [large])

    def forward(crops: list[Any]) -> float:
        def run(variables: Any, crops: Any) -> Any:
            out: Any = model.apply(variables, crops, patches=ibot, method=DINOModel.forward)
            if not ibot:
                return out
            hidden = out.patches[:, : max(1, round(0.5 * out.patches.shape[1]))]
            flat = hidden.reshape(-1, hidden.shape[-1])
            return out, model.apply(variables, flat, method=DINOModel.project)

        return count_flops(run, variables, crops)

    return 3.0 * forward([large, *small]) + (forward([large]) if teacher else 0.0)


def _crops(count: int, size: int, channels: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((count, size, size, channels), jnp.float32)


def peak_flops(device: jax.Device, precision: str) -> tuple[float, str]:
    """Peak of matrix products on one device, and where the number comes from.

    Parameters
    ----------
    device : jax.Device
    precision : str
        "float32" or "bfloat16". What JAX makes of float32 products counts: TF32 on NVIDIA's devices that have it and
        bfloat16 on TPUs, unless ``jax_default_matmul_precision`` forbids it (`jax.lax.Precision`).

    Returns
    -------
    peak : float
        FLOP/s. Of devices that are not in the table, CPUs among them, what a large product reaches just now, which
        takes half a second: ask while nothing else computes. Devices simulated on one CPU share what is measured.
    source : str
        "published ..." or "measured ...".
    """
    exact = precision == "float32" and getattr(jax.config, "jax_default_matmul_precision", None) in _EXACT
    kind = device.device_kind
    if kind in _TPU and not exact:
        return _TPU[kind] * 1e12, f"published for {kind}, bfloat16"
    for pattern, bfloat16, tf32, float32 in _NVIDIA:
        if re.fullmatch(pattern, kind):
            if precision == "bfloat16":
                peak, what = bfloat16, "bfloat16"
            else:
                peak, what = (float32, "float32") if exact or tf32 is None else (tf32, "TF32")
            if peak is not None:
                return peak * 1e12, f"published for {kind}, dense {what}"
    return measured_flops(device, precision)


def measured_flops(device: jax.Device, precision: str) -> tuple[float, str]:
    """Best rate of a few products of square matrices on ``device`` [FLOP/s], and a word on how it was found."""
    product = jax.jit(jnp.matmul)
    side, start = 512, time.perf_counter()
    while True:
        matrix = jax.device_put(jnp.ones((side, side), precision), device)
        product(matrix, matrix).block_until_ready()  # compiles
        # The best of three, as other work may get in the way of one.
        seconds = min(_seconds(product, matrix) for _ in range(3))
        growth = next((n for n in (4, 2) if n**3 * seconds < _ONE_PRODUCT and n * side <= _LARGEST), 1)
        if growth == 1:
            break
        side *= growth
    while time.perf_counter() - start < _SECONDS:
        seconds = min(seconds, _seconds(product, matrix))
    return 2.0 * side**3 / seconds, f"measured with products of {side} x {side} matrices, {precision}"


def _seconds(product: Callable[..., jax.Array], matrix: jax.Array) -> float:
    start = time.perf_counter()
    product(matrix, matrix).block_until_ready()
    return max(time.perf_counter() - start, 1e-9)
