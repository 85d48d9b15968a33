"""Everything that changes during a run, in one value."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Float32, Int32, UInt32

from vis2img.draws.numbers import NUMBERS
from vis2img.models.adversary import Adversary
from vis2img.models.byol_head import BYOLHead
from vis2img.models.dino_head import DINOHead, DINOModel
from vis2img.models.layers import Array
from vis2img.models.projector import Projector
from vis2img.models.resnet import make_resnet
from vis2img.models.vit import make_vit
from vis2img.train.config import ModelConfig, OptimConfig
from vis2img.train.optim import make_optimizer


@struct.dataclass
class TrainState:
    """State of a run.

    Attributes
    ----------
    step
        Steps taken, skipped ones included.
    params, teacher : dict
        ``{"backbone": ..., "head": ...}``, and "adversary" if there is one, of student and teacher; float32, whatever
        the precision of the network. Of objectives without a teacher, its place has a moving average of the student,
        which is better than its last step.
    stats : dict
        Batch statistics of "student" and "teacher", each with the keys of ``params``; {} without batch normalisation.
    opt_state
        Of the optimiser.
    centre, patch_centre
        Moving averages of the teacher's logits: of views, and of patches with iBOT.
    moment
        Moving average of z z^T over the teacher's embeddings z, which tells their rank (`vis2img.train.run.monitors`).
    usage
        Moving average of the share of batches in which a prototype was the teacher's first choice; 0 without any.
    rng
        Key data; never changes, as each step folds in its number.
    """

    step: Int32[Array, ""]
    params: Any
    teacher: Any
    stats: Any
    opt_state: Any
    centre: Float32[Array, " out"]
    patch_centre: Float32[Array, " out"]
    moment: Float32[Array, "dim dim"]
    usage: Float32[Array, " out"]
    rng: UInt32[jax.Array, "2"]


def build_model(
    config: ModelConfig, img_size: int, optim: OptimConfig | None = None, *, axis_name: str | None = None
) -> DINOModel:
    """Network of a configuration, with position embeddings for views of ``img_size`` pixels a side if it does not say.

    Parameters
    ----------
    config : ModelConfig
    img_size : int
    optim : OptimConfig, optional
        Its objective decides on the head and on the mask token; default: DINO's.
    axis_name : str, optional
        Device axis over which batch statistics are taken.

    Raises
    ------
    ValueError
        If the variant or the patch is unknown.
    """
    optim = optim or OptimConfig()
    shared: dict[str, Any] = {"pooling": config.parts, "dtype": jnp.dtype(config.precision)}
    if config.is_resnet:
        chosen = {} if config.norm is None else {"norm": config.norm}
        backbone: Any = make_resnet(config.variant, width=config.width, axis_name=axis_name, **chosen, **shared)
    else:
        backbone = make_vit(
            f"{config.variant}/{config.patch}",
            drop_path=config.drop_path,
            img_size=config.img_size or img_size,
            positions=config.positions or "dino",
            registers=config.registers,
            layer_scale=config.layer_scale,
            mask_token=optim.ibot > 0.0,
            remat=config.remat,
            **shared,
        )
    head = _head(config, optim, axis_name)
    if optim.nuisance == "adversarial":
        adversary = Adversary(len(NUMBERS), weight=optim.nuisance_weight, dtype=jnp.dtype(config.precision))
        return DINOModel(backbone, head, config.turns, config.stages, adversary)
    conditions = len(NUMBERS) if optim.nuisance == "condition" else 0
    return DINOModel(backbone, head, config.turns, config.stages, conditions=conditions)


def _head(config: ModelConfig, optim: OptimConfig, axis_name: str | None) -> nn.Module:
    shared: dict[str, Any] = {"axis_name": axis_name, "dtype": jnp.dtype(config.precision)}
    if optim.objective == "dino":
        return DINOHead(
            config.out_dim,
            config.hidden,
            config.bottleneck,
            config.norm_last_layer,
            layers=config.head_layers,
            use_bn=config.use_bn_in_head,
            **shared,
        )
    if optim.objective == "byol":
        return BYOLHead(config.bottleneck, config.hidden, **shared)
    out = sum(optim.clusters) if optim.objective == "clusters" else config.bottleneck
    return Projector(out, config.hidden, config.projector_layers, config.use_bn_in_head, **shared)


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
    variables = jax.jit(model.init)(init_rng, sample)
    params, stats = variables["params"], variables.get("batch_stats", {})
    if jnp.issubdtype(step_rng.dtype, jax.dtypes.prng_key):
        step_rng = jax.random.key_data(step_rng)

    def copy(tree: Any) -> Any:
        # Copies and not aliases: donated buffers must not be shared between leaves.
        return jax.tree.map(jnp.copy, tree)

    # A centre of K numbers each, which only DINO moves; other objectives keep it, so that there is one kind of state.
    outputs = model.head.out_dim
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        teacher=copy(params),
        stats={"student": stats, "teacher": copy(stats)},
        opt_state=make_optimizer(optim).init(params),
        centre=jnp.zeros((outputs,), jnp.float32),
        patch_centre=jnp.zeros((outputs,), jnp.float32),
        moment=jnp.zeros(2 * (model.backbone.embedding_dim,), jnp.float32),
        usage=jnp.zeros((outputs,), jnp.float32),
        rng=step_rng,
    )


def backbone_variables(state: TrainState, role: str = "teacher") -> dict[str, Any]:
    """What ``model.backbone.apply`` takes of the "teacher" or the "student"."""
    params = state.teacher if role == "teacher" else state.params
    return {"params": params["backbone"], "batch_stats": state.stats[role].get("backbone", {})}
