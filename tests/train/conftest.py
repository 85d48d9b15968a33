"""A network small enough to compile in a second, and batches for it."""

from functools import partial

import jax
import numpy as np
import pytest

from vis2img.models.dino_head import DINOHead, DINOModel
from vis2img.models.vit import ViT
from vis2img.train.config import OptimConfig
from vis2img.train.state import create_state
from vis2img.train.step import train_step

TOTAL_STEPS = 20


@pytest.fixture(scope="session")
def model():
    backbone = ViT(patch=4, dim=24, depth=2, heads=2, img_size=8, drop_path=0.2)
    return DINOModel(backbone, DINOHead(out_dim=16, hidden=32, bottleneck=8))


@pytest.fixture(scope="session")
def optim():
    # A peak rate of 1e-3 for the batch of 4, so that one step moves the parameters visibly.
    return OptimConfig(base_lr=0.064, warmup_steps=0, freeze_last_layer_steps=2, clip_grad=0.5)


@pytest.fixture(scope="session")
def initial(model, optim):
    return create_state(jax.random.key(0), model, optim, (8, 8, 1))


@pytest.fixture(scope="session")
def quick_jit():
    """``jax.jit`` without optimisation, as these tests spend most of their time in the compiler."""
    return partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(scope="module")
def compile_once(tmp_path_factory):
    """Keep what is compiled for the tests of a module: runs that are alike compile in the first of them only."""
    settings = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="session")
def step(model, optim, quick_jit):
    return quick_jit(partial(train_step, model=model, optim=optim, total_steps=TOTAL_STEPS))


@pytest.fixture(scope="session")
def make_batch():
    def make(seed, n_local=2):
        rng = np.random.default_rng(seed)
        shapes = {"global": (2, 4, 8, 8, 1), "local": (n_local, 4, 4, 4, 1)}
        return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}

    return make
