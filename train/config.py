"""Settings of the network, of the optimiser and of several hosts, as frozen, validated values.

Nothing heavy is imported, so that ``--help`` costs nothing. The docstring below a field is its
help text. Defaults are those of Caron et al. 2021 (arXiv:2104.14294) unless the text says otherwise; step
counts keep the paper's share of a run (10, 1 and 30 of 100 epochs) for a run of 10,000 steps.
"""

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_origin

from vis2img.errors import ParameterError

TRANSFORMERS = ("micro", "tiny", "small", "base")
RESNETS = ("resnet10", "resnet18", "resnet50")
PATCHES = (4, 8, 14, 16)
POOLINGS = ("class", "mean", "max", "attention")
RESIZINGS = ("dino", "plain", "antialias")
_WITH_TEACHER = ("dino", "byol", "simdino")
_OF_WHOLE_BATCH = (
    "simclr",
    "vicreg",
    "simdino",
    "lejepa",
)  # the loss of a sample depends on all others, not through averages alone


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ParameterError(message)


def _check(config: Any, group: str, *, positive: tuple[str, ...], not_negative: tuple[str, ...]) -> None:
    """Refuse what is none of the choices, infinities and what is no number, and numbers that are too small."""
    for field in fields(config):
        name, value = field.name, getattr(config, field.name)
        if get_origin(field.type) is Literal:
            choices = get_args(field.type)
            _require(value in choices, f"{group}.{name} must be {_one_of(choices)}, got {value}")
        finite = not isinstance(value, float) or math.isfinite(value)
        _require(finite, f"{group}.{name} must be a finite number, got {value}")
        _require(name not in positive or value > 0, f"{group}.{name} must be positive, got {value}")
        _require(name not in not_negative or value >= 0, f"{group}.{name} must not be negative, got {value}")


def _one_of(names: tuple[Any, ...]) -> str:
    """Return ``a, b or c``."""
    return " or ".join(filter(None, (", ".join(map(str, names[:-1])), str(names[-1]))))


@dataclass(frozen=True)
class ModelConfig:
    """Backbone and projection head."""

    variant: str = "tiny"
    """Transformer: micro, tiny, small or base (1, 5, 21 or 85 million parameters); or resnet10, resnet18 or resnet50
    (5, 11, 23), of which resnet10 is made for small pictures and few cores."""
    patch: int = 8
    """Patch side of a transformer [pixel]: 4, 8, 14 or 16. 8 rather than 16, because most radio sources are a few
    pixels wide."""
    norm: Literal["batch", "group"] | None = None
    """Normalisation of a residual network: batch, or group, which depends on no other picture; default: group for
    resnet10, batch for the published ones."""
    width: int = 64
    """Channels of the first stage of a residual network, a multiple of 8; each further stage has twice as many. Of
    resnet10, 32 take a third of the time of a step."""
    pooling: tuple[str, ...] = ()
    """What a vector is made of: class (token of a transformer), mean, max and attention (by a learned query) over the
    last map, joined in this order; the head is given the same. Default: mean and max for resnet10; for the others the
    head is given the class token, or the mean, and the vector has the maximum beside it."""
    turns: int = 1
    """Symmetries of the square over which vectors are averaged once the network is trained: 1 or 8, by every command
    that embeds or scores."""
    stages: int = 1
    """Last stages of a residual network that vectors are made of once it is trained: 1, the last, or up to 4, those
    before it in front; the head is given the last alone. Early maps tell how many sources there are, and how they were
    imaged, too."""
    registers: int = 0
    """Learned tokens beside the patches, which keep maps of attention clean (4 in the paper, for large models)."""
    layer_scale: float = 0.0
    """Initial LayerScale of the transformer's branches (1e-5 for deep models); 0: none."""
    drop_path: float = 0.1
    """Drop-path probability of the last block, in [0, 1); the paper's regularisation of the student."""
    weights: str | None = None
    """File to start the backbone from (.pth or safetensors): of DINO, iBOT, DINOv2, MAE, timm, torchvision's ResNets,
    transformers, solo-learn or lightly, what `vis2img export` wrote, or a name that `vis2img weights` lists;
    default: random."""
    positions: Literal["dino", "plain", "antialias"] | None = None
    """How a transformer resizes its learned positions to views of other sizes: dino (DINO, iBOT, DINOv2), plain (MAE,
    transformers) or antialias (DINOv2 with registers, timm); default: as the code of the weights, else dino."""
    img_size: int | None = None
    """Side of the images [pixel] for whose patches a transformer has learned positions; default: that of the weights,
    else that of global views."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the computation; the parameters are float32 in either case."""
    remat: bool = False
    """Whether activations are computed again in the backward pass: a third more time, a fraction of the memory. For
    transformers."""
    out_dim: int = 4096
    """Prototypes K. The paper's 65536 suits ImageNet; fewer suit fewer samples, and save memory."""
    hidden: int = 2048
    """Hidden width of the projection head."""
    bottleneck: int = 256
    """Width of the L2-normalised bottleneck; of the projections of other objectives."""
    head_layers: int = 3
    """Layers of DINO's projection head, the bottleneck's included."""
    projector_layers: int = 2
    """Layers of the projector of objectives but dino and byol; 2: one hidden layer."""
    use_bn_in_head: bool = False
    """Whether the projection head of DINO, or the projector of other objectives but byol, has batch normalisation."""
    norm_last_layer: bool = True
    """Whether the prototypes keep length 1. On: steadier; off: their lengths are learned (for large models)."""

    def __post_init__(self) -> None:
        positive = ("hidden", "bottleneck", "head_layers", "projector_layers")
        _check(self, "model", positive=positive, not_negative=("registers", "layer_scale"))
        names = (*TRANSFORMERS, *RESNETS)
        _require(self.variant in names, f"model.variant must be {_one_of(names)}, got {self.variant}")
        choices = ", ".join(POOLINGS[self.is_resnet :])
        order = tuple(part for part in POOLINGS if part in self.pooling)
        fits = self.pooling == order and not (self.is_resnet and "class" in order)
        _require(
            fits,
            f"model.pooling must be of {choices}, each once and in this order, got {self.pooling}",
        )
        _require(self.turns in (1, 8), f"model.turns must be 1 or 8, got {self.turns}")
        _require(self.out_dim > 1, f"model.out_dim must be at least 2, got {self.out_dim}")
        _require(0.0 <= self.drop_path < 1.0, f"model.drop_path must be in [0, 1), got {self.drop_path}")
        _require(1 <= self.stages <= 4, f"model.stages must be from 1 to 4, got {self.stages}")
        if self.is_resnet:
            fields_of_vit = ("registers", "layer_scale", "remat", "positions", "img_size")
            only_vit = {name: getattr(self, name) for name in fields_of_vit}
            wrong = [f"model.{name}" for name, value in only_vit.items() if value]
            _require(not wrong, f"{', '.join(wrong)}: of transformers only, and model.variant is {self.variant}")
            norms = (None, "batch", "group")
            _require(self.norm in norms, f"model.norm must be {_one_of(norms[1:])}, got {self.norm}")
            whole = self.width > 0 and self.width % 8 == 0
            _require(whole, f"model.width must be a positive multiple of 8, got {self.width}")
        else:
            _require(self.norm is None, f"model.norm: of residual networks only, and model.variant is {self.variant}")
            _require(self.width == 64, f"model.width: of residual networks only, and model.variant is {self.variant}")
            _require(self.stages == 1, f"model.stages: of residual networks only, and model.variant is {self.variant}")
            _require(self.patch in PATCHES, f"model.patch must be {_one_of(PATCHES)}, got {self.patch}")
            _require(
                self.positions in (None, *RESIZINGS),
                f"model.positions must be {_one_of(RESIZINGS)}, got {self.positions}",
            )
            fits = self.img_size is None or (self.img_size > 0 and self.img_size % self.patch == 0)
            _require(fits, f"model.img_size must be a multiple of model.patch = {self.patch}, got {self.img_size}")

    @property
    def parts(self) -> tuple[str, ...]:
        """What a vector is made of; none: as the networks had it before there was a choice."""
        return self.pooling or (("mean", "max") if self.variant == "resnet10" else ())

    @property
    def is_resnet(self) -> bool:
        """Whether the backbone is a residual network, without patches."""
        return self.variant in RESNETS


@dataclass(frozen=True)
class OptimConfig:
    """Objective, optimiser, schedules, and the teacher."""

    objective: Literal["dino", "byol", "simclr", "vicreg", "simdino", "lejepa", "clusters"] = "dino"
    """dino, byol (no prototypes, a predictor instead), simdino (no prototypes, a coding rate instead); or, of the
    student alone, simclr (contrastive), vicreg (variance and covariance), lejepa (vectors spread as a Gaussian) or
    clusters (tell from any view in which cluster its place is, by what the untrained network, or model.weights, see in
    an image made in the fixed way)."""
    clusters: tuple[int, ...] = (8, 16, 32, 64)
    """Numbers of clusters, each of which is a target of its own."""
    temperature: float = 0.1
    """Temperature of SimCLR's softmax."""
    same_sky: float = 0.0
    """Samples that lie closer than this are no negatives of SimCLR, in sides of a patch; 0: those of the very same
    place or picture."""
    vicreg: tuple[float, float, float] = (25.0, 25.0, 1.0)
    """Weights of VICReg's invariance, variance and covariance."""
    coding_rate: float = 1.0
    """Weight of SimDINO's coding rate, which spreads vectors."""
    sigreg: float = 0.05
    """Weight of LeJEPA's SIGReg, in (0, 1); that of the distance of views is the rest."""
    nuisance: Literal["none", "adversarial", "condition"] = "none"
    """What is done with the imaging parameters of the views, none of which is needed to embed: none; adversarial, a
    head must not be able to tell them from the vectors (gradient reversal); condition, the projection head is told."""
    nuisance_weight: float = 0.1
    """Weight of the reversed gradient of optim.nuisance adversarial."""
    centring: Literal["mean", "sinkhorn"] = "mean"
    """What keeps the teacher from always giving one answer: mean (DINO) or sinkhorn (SwAV, DINOv2)."""
    koleo: float = 0.0
    """Weight of the KoLeo term, which spreads embeddings evenly (DINOv2: 0.1); 0: without."""
    ibot: float = 0.0
    """Weight of the loss of masked patches (iBOT, DINOv2: 1); 0: without. For transformers."""
    optimizer: Literal["adamw", "sgd", "lars"] = "adamw"
    """adamw; sgd and lars, both with momentum 0.9, for residual networks."""
    accumulate: int = 1
    """Parts that a batch goes through the network in, one after the other: less memory, the same step."""
    base_lr: float = 5e-4
    """Peak learning rate for a batch of 256; scaled linearly with the global batch."""
    min_lr: float = 1e-6
    """Learning rate at the end of the run; not scaled with the batch."""
    warmup_steps: int = 1000
    """Steps over which the learning rate rises from 0; must be less than the length of the run."""
    weight_decay: float = 0.04
    """Weight decay at the start; matrices only, not biases or norms."""
    weight_decay_end: float = 0.4
    """Weight decay at the end; a rising decay helped transformers in the paper."""
    clip_grad: float = 3.0
    """Largest gradient norm of each parameter tensor by itself; 0 does not clip."""
    freeze_last_layer_steps: int = 100
    """Steps in which the prototypes stay at their initial values, which steadies the start."""
    momentum_teacher: float = 0.996
    """Teacher momentum at the start, rising to 1; raise it (0.9995) for batches below 128. Of a student alone:
    constant momentum of the average of the student that `vis2img embed` reads; 0.99 suits runs of hundreds of steps."""
    student_temp: float = 0.1
    """Temperature of the student's softmax."""
    teacher_temp: float = 0.04
    """Temperature of the teacher's softmax after its warm-up; up to 0.07 helps if the warm-up is on."""
    warmup_teacher_temp: float = 0.04
    """Temperature of the teacher's softmax at step 0; lower it if the loss does not fall."""
    warmup_teacher_temp_steps: int = 3000
    """Steps from warmup_teacher_temp to teacher_temp."""
    centre_momentum: float = 0.9
    """Momentum of the teacher's centre, in [0, 1)."""

    def __post_init__(self) -> None:
        _check(
            self,
            "optim",
            positive=("base_lr", "temperature", "student_temp", "teacher_temp", "warmup_teacher_temp"),
            not_negative=(
                *("min_lr", "weight_decay", "weight_decay_end", "clip_grad", "koleo", "ibot"),
                *("same_sky", "coding_rate", "nuisance_weight"),
                *("warmup_steps", "freeze_last_layer_steps", "warmup_teacher_temp_steps"),
            ),
        )
        _require(self.accumulate >= 1, f"optim.accumulate must be at least 1, got {self.accumulate}")
        dino_only = self.ibot > 0.0 or self.centring != "mean"
        _require(self.objective == "dino" or not dino_only, "optim.ibot and optim.centring need optim.objective dino")
        _require(
            self.accumulate == 1 or self.objective not in _OF_WHOLE_BATCH,
            f"optim.accumulate = {self.accumulate} with optim.objective {self.objective}, which compares all samples "
            "of a batch: set it to 1; if memory is short, use model.precision bfloat16 or more devices",
        )
        told = self.nuisance == "condition" and self.ibot > 0.0
        _require(not told, "optim.nuisance condition tells the head of views, not of patches: set optim.ibot to 0")
        weighed = all(math.isfinite(weight) and weight >= 0.0 for weight in self.vicreg)
        _require(weighed, f"optim.vicreg must be three weights of at least 0, got {self.vicreg}")
        several = bool(self.clusters) and min(self.clusters) > 1
        _require(several, f"optim.clusters must be numbers of at least 2, got {self.clusters}")
        _require(0.0 < self.sigreg < 1.0, f"optim.sigreg must be in (0, 1), got {self.sigreg}")
        momentum, of_centre = self.momentum_teacher, self.centre_momentum
        _require(0.0 <= momentum <= 1.0, f"optim.momentum_teacher must be in [0, 1], got {momentum}")
        _require(0.0 <= of_centre < 1.0, f"optim.centre_momentum must be in [0, 1), got {of_centre}")

    @property
    def has_teacher(self) -> bool:
        """Whether a second network, the moving average of the first, gives answers to learn from."""
        return self.objective in _WITH_TEACHER


@dataclass(frozen=True)
class HostsConfig:
    """The processes that train together, one for each host; srun and mpirun tell them without this."""

    coordinator: str | None = None
    """Address of the first process (host:port), for processes that are started by hand."""
    count: int = 1
    """Processes in all."""
    index: int = 0
    """Which of them this is, from 0."""

    def __post_init__(self) -> None:
        last = self.count - 1
        _require(0 <= self.index <= last, f"hosts.index = {self.index} must be from 0 to hosts.count - 1 = {last}")
        together = (self.coordinator is not None) == (self.count > 1)
        _require(together, "hosts.coordinator (host:port of the first process) and hosts.count go together")
