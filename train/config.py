"""Settings of the network and of the optimiser, as frozen, validated values.

Only the standard library is imported, so that ``--help`` costs nothing. The docstring below a field is its
help text. Defaults are those of Caron et al. 2021 (arXiv:2104.14294) unless the text says otherwise; step
counts keep the paper's share of a run (10, 1 and 30 of 100 epochs) for a run of 10,000 steps.
"""

from dataclasses import dataclass


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True)
class ModelConfig:
    """Backbone and projection head."""

    variant: str = "tiny"
    """Size of the transformer: micro, tiny, small or base (1, 5, 21 or 85 million parameters)."""
    patch: int = 8
    """Patch side [pixel]: 4, 8 or 16. 8 rather than 16, because most radio sources are a few pixels wide."""
    drop_path: float = 0.1
    """Drop-path probability of the last block, in [0, 1); the paper's regularisation of the student."""
    out_dim: int = 4096
    """Prototypes K. The paper's 65536 suits ImageNet; fewer suit fewer samples, and save memory."""
    hidden: int = 2048
    """Hidden width of the projection head."""
    bottleneck: int = 256
    """Width of the L2-normalised bottleneck."""
    norm_last_layer: bool = True
    """Keep the prototypes at length 1 (steadier); False learns their lengths (for large models)."""

    def __post_init__(self) -> None:
        for name in ("patch", "hidden", "bottleneck"):
            _require(getattr(self, name) > 0, f"{name} must be positive, got {getattr(self, name)}")
        _require(self.out_dim > 1, f"out_dim must be at least 2, got {self.out_dim}")
        _require(0.0 <= self.drop_path < 1.0, f"drop_path must be in [0, 1), got {self.drop_path}")


@dataclass(frozen=True)
class OptimConfig:
    """AdamW, its schedules, and the teacher."""

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
    """Teacher momentum at the start, rising to 1; raise it (0.9995) for batches below 128."""
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
        for name in ("base_lr", "student_temp", "teacher_temp", "warmup_teacher_temp"):
            _require(getattr(self, name) > 0.0, f"{name} must be positive, got {getattr(self, name)}")
        for name in (
            *("min_lr", "weight_decay", "weight_decay_end", "clip_grad"),
            *("warmup_steps", "freeze_last_layer_steps", "warmup_teacher_temp_steps"),
        ):
            _require(getattr(self, name) >= 0, f"{name} must not be negative, got {getattr(self, name)}")
        _require(
            0.0 <= self.momentum_teacher <= 1.0,
            f"momentum_teacher must be in [0, 1], got {self.momentum_teacher}",
        )
        _require(
            0.0 <= self.centre_momentum < 1.0,
            f"centre_momentum must be in [0, 1), got {self.centre_momentum}",
        )
