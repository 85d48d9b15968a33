"""A training step must run on any accelerator: it lowers, from one machine, to plain StableHLO for each of them.

Nothing is compiled or run; `jax.export` traces the step on shapes and refuses custom calls without a promise of
stability, such as callbacks into Python.
"""

import re
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax import export

from vis2img.models.adversary import Adversary
from vis2img.models.byol_head import BYOLHead
from vis2img.models.dino_head import DINOHead, DINOModel
from vis2img.models.projector import Projector
from vis2img.models.resnet import ResNet
from vis2img.models.vit import ViT
from vis2img.train.config import OptimConfig
from vis2img.train.state import create_state
from vis2img.train.step import train_step

PLATFORMS = ("cpu", "cuda", "tpu")
# Of the Cholesky factorisation and its gradient, which JAX promises to keep.
FACTORISATIONS = {"lapack_spotrf_ffi", "lapack_strsm_ffi", "cusolver_potrf_ffi"}
# The random generator has a kernel of its own on CUDA; nothing else here may be more than StableHLO.
KERNELS = {"cu_threefry2x32_ffi"} | FACTORISATIONS
BATCH = 4


def vit(head=None, dtype=jnp.float32, **options):
    backbone = ViT(patch=4, dim=24, depth=2, heads=2, img_size=8, drop_path=0.2, dtype=dtype, **options)
    return DINOModel(backbone, DINOHead(16, hidden=32, bottleneck=8, dtype=dtype))


def resnet():
    return DINOModel(ResNet((1, 1, 1, 1), False), BYOLHead(8, hidden=32))


def alone(dtype=jnp.float32, adversary=False, conditions=0):
    backbone = ViT(patch=4, dim=24, depth=1, heads=2, img_size=8, dtype=dtype)
    other = Adversary(9, dtype=dtype) if adversary else None
    return DINOModel(backbone, Projector(8, 16, dtype=dtype), adversary=other, conditions=conditions)


CASES = {
    "dino": (vit, {}),
    "everything": (
        partial(vit, dtype=jnp.bfloat16, remat=True, mask_token=True, registers=2, layer_scale=1e-5),
        {"ibot": 1.0, "koleo": 0.1, "accumulate": 2},
    ),
    "sinkhorn": (vit, {"centring": "sinkhorn", "koleo": 0.1, "optimizer": "lars"}),
    "byol": (resnet, {"objective": "byol", "optimizer": "sgd"}),
    "simclr": (partial(alone, dtype=jnp.bfloat16, adversary=True), {"objective": "simclr", "nuisance": "adversarial"}),
    "simdino": (partial(alone, conditions=9), {"objective": "simdino", "nuisance": "condition"}),
    "lejepa": (alone, {"objective": "lejepa"}),
    "vicreg": (partial(alone, dtype=jnp.bfloat16), {"objective": "vicreg"}),
}


def exported(case, platforms):
    make, settings = CASES[case]
    model, optim = make(), OptimConfig(warmup_steps=2, **settings)
    state = jax.eval_shape(partial(create_state, model=model, optim=optim, image_shape=(8, 8, 1)), jax.random.key(0))
    shapes = {"global": (2, BATCH, 8, 8, 1), "local": (2, BATCH, 4, 4, 1)}
    batch = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    batch["turns"] = jax.ShapeDtypeStruct((4, BATCH), jnp.uint8)
    batch["item"] = jax.ShapeDtypeStruct((1, BATCH), jnp.int32)
    for name, shape in {"imaging": (4, BATCH, 9), "patch": (1, BATCH), "sky": (2, BATCH, 3)}.items():
        batch[name] = jax.ShapeDtypeStruct(shape, jnp.float32)
    step = jax.jit(partial(train_step, model=model, optim=optim, total_steps=20))
    return export.export(step, platforms=platforms)(state, batch)


def custom_calls(module):
    """Names of the custom calls in the text of a module."""
    return set(re.findall(r"custom_call @([\w.$]+)", module)) | set(re.findall(r'call_target_name = "([^"]+)"', module))


@pytest.mark.parametrize("case", CASES)
def test_a_step_lowers_for_every_platform(case):
    result = exported(case, PLATFORMS)
    assert result.platforms == PLATFORMS
    assert result.disabled_safety_checks == ()
    assert custom_calls(result.mlir_module()) <= KERNELS
    # The state that comes out can go in again.
    (given, _), _ = result.in_tree.unflatten(result.in_avals)
    taken, metrics = result.out_tree.unflatten(result.out_avals)
    assert jax.tree.structure(given) == jax.tree.structure(taken)
    for old, new in zip(jax.tree.leaves(given), jax.tree.leaves(taken), strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)
    assert {x.shape for x in metrics.values()} == {()}


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_everything_lowers_for_an_accelerator_alone(platform):
    result = exported("everything", (platform,))
    assert result.platforms == (platform,)
    module = result.mlir_module()
    assert custom_calls(module) <= (KERNELS if platform == "cuda" else set())
    assert not re.search(r"stablehlo\.(infeed|outfeed|send|recv)\b", module)
    # Half precision is in the module, and not left to the accelerator.
    assert re.search(r"dot_general.*xbf16>.*xbf16>", module)


def test_what_is_not_portable_would_be_found():
    """What the tests above rest on."""
    matrix = jax.ShapeDtypeStruct((3, 3), jnp.float32)

    def call_back(x):
        return jax.pure_callback(lambda y: y, matrix, x)

    with pytest.raises(NotImplementedError, match="callback"):
        export.export(jax.jit(call_back), platforms=["cpu"])(matrix)
    factorise = export.export(jax.jit(jnp.linalg.qr), platforms=["cpu"])(matrix)
    assert custom_calls(factorise.mlir_module()) - KERNELS
