"""The configuration of a run: one typed value, written as YAML or on the command line.

Keys of the file are options too, ``--data.batch-size 32 --optim.base-lr 1e-3 ...``: :mod:`vis2img.configs.load`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from vis2img.errors import ParameterError
from vis2img.loader.config import LoaderConfig
from vis2img.train.config import HostsConfig, ModelConfig, OptimConfig

_LARGEST_SEED = 2**32 - 1  # JAX takes no more of a number


@dataclass(frozen=True)
class TrainConfig:
    """A training run: data, network, optimiser and where the results go."""

    COMMON: ClassVar = (
        "out", "steps", "seed", "devices", "data.ms", "data.cutouts", "data.imaging", "data.field-npix",
        "data.batch-size", "data.workers", "data.scheduler", "data.selection.field", "data.selection.spw",
        "data.views.patch-npix", "data.views.global-size", "model.variant", "model.patch", "model.weights",
        "optim.objective", "optim.base-lr", "optim.warmup-steps",
    )  # fmt: skip
    """Options that --help describes; --help-all describes all."""

    out: str
    """Run folder; the same command goes on from its last checkpoint."""
    data: LoaderConfig
    """Measurement sets, images or pictures, and how views are made of them."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Network."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser, schedules and teacher."""
    steps: int = 10_000
    """Training steps (batches)."""
    seed: int = 0
    """Seed of network, draws and views."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    keep_checkpoints: int = 3
    """Checkpoints kept; older ones are deleted."""
    keep_every: int = 0
    """Checkpoints of steps that are multiples of this are kept for good; 0: none."""
    views_every: int = 1000
    """Steps between pictures of what the network sees."""
    log_every: int = 10
    """Steps between reads of the metrics from the accelerator."""
    devices: int | None = None
    """Local devices to use; default: all."""
    hosts: HostsConfig = field(default_factory=HostsConfig)
    """Processes that train together, for launchers other than srun and mpirun."""

    def __post_init__(self) -> None:
        if not self.out.strip():
            raise ParameterError("out is empty: name a folder for the run, e.g. runs/first")
        for name in ("steps", "checkpoint_every", "keep_checkpoints", "log_every", "views_every"):
            if getattr(self, name) < 1:
                raise ParameterError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.devices is not None and self.devices < 1:
            raise ParameterError(f"devices must be at least 1, got {self.devices}; leave it out to use all")
        if not 0 <= self.seed <= _LARGEST_SEED:
            raise ParameterError(f"seed must be from 0 to {_LARGEST_SEED}, got {self.seed}")
        if self.optim.warmup_steps >= self.steps:
            raise ParameterError(
                f"optim.warmup_steps = {self.optim.warmup_steps} must be less than steps = {self.steps}"
            )
        if self.keep_every < 0 or self.keep_every % self.checkpoint_every:
            raise ParameterError(
                f"keep_every = {self.keep_every} must be a multiple of checkpoint_every = {self.checkpoint_every}"
            )
        if self.optim.objective == "clusters" and self.data.cutouts:
            raise ParameterError("optim.objective clusters images fields in the fixed way: it needs data.ms")
        if self.optim.objective == "clusters" and self.hosts.count > 1:
            raise ParameterError("optim.objective clusters trains on one host so far: use its devices, or simclr")
        views, patch = self.data.views, self.model.patch
        if self.model.is_resnet:
            if self.optim.ibot:
                raise ParameterError(f"optim.ibot hides patches, and model.variant {self.model.variant} has none")
            return
        if self.optim.ibot and len(self.model.pooling) > 1:
            raise ParameterError("optim.ibot has one head for vectors and patches: model.pooling must have one part")
        for name in ("global_size", "local_size"):
            if getattr(views, name) % patch:
                raise ParameterError(
                    f"data.views.{name} = {getattr(views, name)} must be a multiple of model.patch = {patch}"
                )
