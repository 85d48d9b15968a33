"""Everything that changes during a run, in one value."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from models.dino_head import DINOHead, DINOModel
from models.vit import make_vit
from train.config import ModelConfig, OptimConfig
from train.optim import make_optimizer


@struct.dataclass
class TrainState:
    """State of a run.

    Attributes
    ----------
    step : () int32
        Steps taken, skipped ones included.
    params, teacher : dict
        ``{"backbone": ..., "head": ...}`` of student and teacher.
    opt_state : pytree
    centre : (K,)
        Moving average of the teacher's logits.
    rng : (2,) uint32
        Key data; never changes, as each step folds in its number.
    """

    step: jax.Array
    params: Any
    teacher: Any
    opt_state: Any
    centre: jax.Array
    rng: jax.Array


def build_model(config: ModelConfig, img_size: int) -> DINOModel:
    """Network of a configuration, with position embeddings for global views of ``img_size`` pixels a side.

    Raises
    ------
    ValueError
        If the variant or the patch is unknown.
    """
    backbone = make_vit(f"{config.variant}/{config.patch}", drop_path=config.drop_path, img_size=img_size)
    head = DINOHead(config.out_dim, config.hidden, config.bottleneck, config.norm_last_layer)
    return DINOModel(backbone, head)


def create_state(rng: jax.Array, model: DINOModel, optim: OptimConfig, image_shape: tuple[int, int, int]) -> TrainState:
    """State at step 0; the teacher starts as a copy of the student, as in the paper.

    Parameters
    ----------
    rng : key
        From ``jax.random.key`` (or the older ``PRNGKey``).
    model : DINOModel
        From `build_model`.
    optim : OptimConfig
    image_shape : (y, x, C)
        Of a global view; only C shapes the parameters.
    """
    init_rng, step_rng = jax.random.split(rng)
    sample = [jnp.zeros((1, *image_shape), jnp.float32)]
    params = jax.jit(model.init)(init_rng, sample)["params"]
    if jnp.issubdtype(step_rng.dtype, jax.dtypes.prng_key):
        step_rng = jax.random.key_data(step_rng)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        # A copy and not an alias: donated buffers must not be shared between leaves.
        teacher=jax.tree.map(jnp.copy, params),
        opt_state=make_optimizer(optim).init(params),
        centre=jnp.zeros((model.head.out_dim,), jnp.float32),
        rng=step_rng,
    )
