"""SimCLR of a residual network in PyTorch, which benchmarks/training.py times `vis2img.train.step.train_step` against.

The same step, to rounding: backbone (channels last in memory, which is PyTorch's faster layout on CPUs), projector,
NT-Xent over all views of the batch (Chen et al. 2020, arXiv:2002.05709, equation 1), clipping by tensor, AdamW, and the
moving average of the weights. It does not look whether loss and gradients are finite, nor monitor more than these.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_dino import clip_per_tensor, schedule_values

from vis2img.models.resnet import VARIANTS, make_resnet
from vis2img.train.config import ModelConfig, OptimConfig
from vis2img.train.weights.names import to_timm


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut, with the names of torchvision."""

    def __init__(self, inside: int, outside: int, stride: int, norm: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = _norm(outside, norm)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = _norm(outside, norm)
        self.downsample = None
        if stride > 1 or inside != outside:
            shortcut = nn.Conv2d(inside, outside, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, _norm(outside, norm))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, y, x) to (N, C', y / stride, x / stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


def _norm(width: int, norm: str) -> nn.Module:
    return nn.GroupNorm(8, width) if norm == "group" else nn.BatchNorm2d(width)


class Network(nn.Module):
    """Residual network of plain blocks, its embedding and the projector."""

    def __init__(self, config: ModelConfig, in_chans: int) -> None:
        super().__init__()
        variant = VARIANTS[config.variant]
        norm, self.parts = config.norm or variant.norm, config.parts or ("mean",)
        inside, widths = config.width, make_resnet(config.variant, width=config.width).widths
        self.conv1 = nn.Conv2d(in_chans, inside, variant.stem, 2, variant.stem // 2, bias=False)
        self.bn1 = _norm(inside, norm)
        for stage, (width, depth) in enumerate(zip(widths, variant.depths, strict=True), start=1):
            blocks = []
            for i in range(depth):
                blocks.append(Block(inside, width, 2 if stage > 1 and i == 0 else 1, norm))
                inside = width
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.mlp0 = nn.Linear(len(self.parts) * inside, config.hidden)
        self.mlp1 = nn.Linear(config.hidden, config.bottleneck)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, y, x) to projections (N, W)."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x)), inplace=True), 3, 2, 1)
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        pooled = [x.mean((2, 3)) if part == "mean" else x.amax((2, 3)) for part in self.parts]
        return self.mlp1(F.relu(self.mlp0(torch.cat(pooled, dim=1))))


def nt_xent(projections: Tensor, samples: int, temperature: float) -> Tensor:
    """NT-Xent of two views (2 * samples, W), the first views first."""
    unit = F.normalize(projections, dim=1)
    logits = (unit @ unit.T / temperature).fill_diagonal_(-torch.inf)
    other = torch.arange(2 * samples, device=logits.device).roll(samples)
    return F.cross_entropy(logits, other)


class TorchSimclr:
    """Network, its moving average and the optimiser.

    Parameters
    ----------
    config : ModelConfig
        With resnet10 or resnet18.
    optim : OptimConfig
    total_steps : int
    device : str
        "cpu" or "cuda".
    compile : bool
        Compile the network with `torch.compile`.
    """

    def __init__(
        self, config: ModelConfig, optim: OptimConfig, total_steps: int, device: str = "cpu", compile: bool = False
    ) -> None:
        self.optim, self.total_steps, self.device, self.count = optim, total_steps, torch.device(device), 0
        self._autocast = config.precision == "bfloat16"
        self.student = Network(config, 1).to(self.device, memory_format=torch.channels_last)
        self.teacher = deepcopy(self.student).requires_grad_(False)
        self._student = torch.compile(self.student, dynamic=False) if compile else self.student
        self._trained = list(self.student.parameters())
        groups = [
            {"params": [p for p in self._trained if p.ndim > 1]},
            {"params": [p for p in self._trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, fused=True)

    def load_from_jax(self, variables: Mapping[str, Any], head: Any) -> None:
        """Take over a backbone's variables and the parameters of the projector."""
        state = to_timm(variables)
        for name, p in head.items():
            state[f"{name}.weight"], state[f"{name}.bias"] = np.asarray(p["kernel"]).T, np.asarray(p["bias"])
        tensors = {name: torch.tensor(np.asarray(value)) for name, value in state.items()}
        for network in (self.student, self.teacher):
            missing, extra = network.load_state_dict(tensors, strict=False)
            assert not extra and all(name.endswith("num_batches_tracked") for name in missing)

    def put(self, batch: Mapping[str, np.ndarray]) -> Tensor:
        """Move the two views (2, B, y, x, C) of a batch to the device, as (2 B, C, y, x) in channels-last memory."""
        views = torch.from_numpy(np.ascontiguousarray(batch["global"])).to(self.device)
        return views.flatten(0, 1).permute(0, 3, 1, 2)

    def step(self, views: Tensor) -> dict[str, Tensor]:
        """Take one step; return "loss" and "grad_norm" (before clipping)."""
        samples = len(views) // 2
        values = schedule_values(self.count, self.optim, samples, self.total_steps)
        for group, decay in zip(self.optimizer.param_groups, (values["wd"], 0.0), strict=True):
            group["lr"], group["weight_decay"] = values["lr"], decay

        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast):
            projections = self._student(views)
        loss = nt_xent(projections.float(), samples, self.optim.temperature)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = clip_per_tensor([p.grad for p in self._trained if p.grad is not None], self.optim.clip_grad)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(self.teacher.parameters()), self._trained, 1.0 - values["momentum"])
        self.count += 1
        return {"loss": loss.detach(), "grad_norm": norm}

    def peak_memory(self) -> int | None:
        """Return the most bytes that tensors took on the device so far; None on a CPU."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None
