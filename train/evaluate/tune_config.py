"""How a network is trained further with labels; its fields are options of ``vis2img evaluate``."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vis2img.errors import ParameterError


@dataclass(frozen=True)
class FineTuneConfig:
    """How a network is trained with labels."""

    steps: int = 300
    """Steps, whatever the number of labels: with few, each picture comes often."""
    batch_size: int = 32
    """Pictures a step."""
    lr: float = 5e-4
    """Peak learning rate of the last stage; it rises for a tenth of the steps and falls as half a cosine."""
    head_rate: float = 10.0
    """Learning rate of the new classifier, times that of the last stage."""
    layer_decay: float = 0.65
    """Learning rate of each block (of a residual network each block of a stage), times that of the one behind it."""
    weight_decay: float = 0.05
    """Of AdamW, matrices alone."""
    smoothing: float = 0.1
    """Of the labels, in [0, 1)."""
    shift: int = 4
    """Largest shift of a picture along each axis [pixel]; zeros come in."""
    rotate: bool = True
    """Turn pictures by any angle, not by quarters alone; zeros come in at the corners."""
    zoom: float = 1.15
    """Largest factor by which a picture is enlarged or made smaller; at least 1."""

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size) < 1 or self.shift < 0:
            raise ParameterError("fine-tuning needs steps and batch_size of at least 1 and shift of at least 0")
        if not (self.lr > 0 and self.weight_decay >= 0 and 0 <= self.smoothing < 1):
            raise ParameterError("fine-tuning needs lr above 0, weight_decay of at least 0, smoothing in [0, 1)")
        if not (self.head_rate > 0 and 0 < self.layer_decay <= 1 and self.zoom >= 1):
            raise ParameterError("fine-tuning needs head_rate above 0, layer_decay in (0, 1], zoom of at least 1")

    def from_scratch(self) -> FineTuneConfig:
        """Return the same for a network of random weights: all of it learns at one rate."""
        return replace(self, head_rate=1.0, layer_decay=1.0)
