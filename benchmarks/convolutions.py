"""Rates of the convolutions of a ResNet on 64 pixels, in the form that is chosen here and in XLA's own.

python benchmarks/convolutions.py --batch 64
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vis2img.models.convolution import convolve

# side of the map, channels in and out, side of the kernel, stride
SHAPES = (
    (64, 1, 64, 5, 2),
    (16, 64, 64, 3, 1),
    (16, 64, 128, 3, 2),
    (8, 128, 128, 3, 1),
    (8, 128, 256, 3, 2),
    (4, 256, 256, 3, 1),
    (4, 256, 512, 3, 2),
    (2, 512, 512, 3, 1),
)


def plain(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """XLA's convolution, with the gradients that JAX makes of it."""
    pad = kernel.shape[0] // 2
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), [(pad, pad)] * 2, dimension_numbers=numbers)


def seconds(function: Callable[..., Any], *args: Any) -> float:
    """Return the seconds of a call, the least of five."""
    compiled = jax.jit(function)
    jax.block_until_ready(compiled(*args))
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        taken.append(time.perf_counter() - start)
    return min(taken)


def main() -> None:
    """Print GFLOP/s of value, gradient by the input, gradient by the kernel; run it while nothing else computes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    batch = parser.parse_args().batch
    rng = np.random.default_rng(0)
    print("GFLOP/s: value, gradient by the input, by the kernel; here and XLA's own")
    for side, inside, outside, width, stride in SHAPES:
        out = side // stride
        x = jnp.asarray(rng.normal(size=(batch, side, side, inside)), jnp.float32)
        kernel = jnp.asarray(rng.normal(size=(width, width, inside, outside)), jnp.float32)
        gradient = jnp.asarray(rng.normal(size=(batch, out, out, outside)), jnp.float32)
        flops = 2.0 * batch * out**2 * kernel.size
        rates = []
        for function in (convolve, plain):

            def value(x: jax.Array, kernel: jax.Array, f: Any = function, s: int = stride) -> jax.Array:
                return f(x, kernel, s)

            def by_input(x: jax.Array, kernel: jax.Array, gradient: jax.Array, f: Any = value) -> jax.Array:
                return jax.vjp(lambda x: f(x, kernel), x)[1](gradient)[0]

            def by_kernel(x: jax.Array, kernel: jax.Array, gradient: jax.Array, f: Any = value) -> jax.Array:
                return jax.vjp(lambda kernel: f(x, kernel), kernel)[1](gradient)[0]

            taken = [seconds(value, x, kernel), *(seconds(f, x, kernel, gradient) for f in (by_input, by_kernel))]
            rates.append(" ".join(f"{flops / t / 1e9:6.1f}" for t in taken))
        print(
            f"{side:3d} px {inside:4d} to {outside:4d}, {width} x {width}, stride {stride}: {' | '.join(rates)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
