"""DINO in PyTorch, as one would write it today: what `vis2img.train.step.train_step` is timed and checked against.

benchmarks/training.py times it. The recipe is that of Caron et al. 2021 (arXiv:2104.14294), section 3 and
"Implementation details"; the backbone is timm's. A step has the parts of ours: one backbone pass per resolution, one
head pass over all views, loss and centre, clipping by tensor, AdamW with the prototypes held at first, moving average.
The work differs in three things. The last block is worked out for all tokens, as timm does, where ours does it for the
class token alone: 6 to 7% more arithmetic for twelve blocks, for the same result. And it does not look whether loss and
gradients are finite, nor monitor more than these. PyTorch and timm are no dependencies of vis2img: ``pip install torch
timm``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from vis2img.models.vit import VARIANTS
from vis2img.train.config import OptimConfig

_TORCHVISION: list[Any] = []


def make_backbone(
    size: tuple[int, int, int], patch: int, img_size: int, in_chans: int, drop_path: float = 0.0
) -> nn.Module:
    """Return timm's transformer without a classifier: (N, C, y, x) to the class token (N, D) after the final norm."""
    try:
        import torchvision  # noqa: F401  (timm needs it)
    except RuntimeError:
        # A torchvision that was built for another PyTorch (the wheel of PyPI next to a CPU build) lacks these two
        # operators and stops at the first. Nothing here calls them, but the library must stay alive.
        _TORCHVISION.append(torch.library.Library("torchvision", "DEF"))
        for name in ("nms", "qnms"):
            _TORCHVISION[0].define(f"{name}(Tensor x) -> Tensor")
    from timm.models.vision_transformer import VisionTransformer

    class Backbone(VisionTransformer):
        """With positions resized as the published model resizes them: timm's own filter before they shrink."""

        def _pos_embed(self, x: Tensor) -> Tensor:
            n, rows, columns, dim = x.shape
            side = self.patch_embed.grid_size[0]
            grid = self.pos_embed[:, 1:]
            if (rows, columns) != (side, side):
                grid = resize_positions(grid.float().reshape(1, side, side, dim).permute(0, 3, 1, 2), rows, columns)
                grid = grid.permute(0, 2, 3, 1).reshape(1, rows * columns, dim)
            token = (self.cls_token + self.pos_embed[:, :1]).expand(n, -1, -1)
            return torch.cat([token, x.reshape(n, rows * columns, dim) + grid], dim=1)

    dim, depth, heads = size
    return Backbone(
        img_size,
        patch,
        in_chans,
        num_classes=0,
        embed_dim=dim,
        depth=depth,
        num_heads=heads,
        drop_path_rate=drop_path,
        dynamic_img_size=True,
    )


def resize_positions(grid: Tensor, rows: int, columns: int) -> Tensor:
    """Resize (1, D, side, side) bicubically, without a filter, at the scale of the published model."""
    scale = ((rows + 0.1) / grid.shape[-2], (columns + 0.1) / grid.shape[-1])
    return F.interpolate(grid, scale_factor=scale, mode="bicubic")


class Head(nn.Module):
    """Three-layer MLP, bottleneck of length 1, and prototypes of length 1 (or of a learned one)."""

    def __init__(self, dim: int, out_dim: int, hidden: int, bottleneck: int, norm_last_layer: bool) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        for layer in self.mlp[::2]:
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.last_layer = weight_norm(nn.Linear(bottleneck, out_dim, bias=False))
        length = self.last_layer.parametrizations.weight.original0
        nn.init.ones_(length)
        length.requires_grad_(not norm_last_layer)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, D) to (N, K)."""
        return self.last_layer(F.normalize(self.mlp(x), dim=-1))


class Network(nn.Module):
    """Backbone and head."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, crops: list[Tensor]) -> Tensor:
        """Map crops (N_i, C, y_i, x_i) of several resolutions to logits (sum N_i, K)."""
        return self.head(torch.cat([self.backbone(crop) for crop in crops]))


def dino_loss(student: Tensor, teacher: Tensor, centre: Tensor, student_temp: float, teacher_temp: Tensor) -> Tensor:
    """Cross-entropy over all pairs of different views; student (V, B, K), teacher (n_global, B, K)."""
    target = F.softmax((teacher - centre) / teacher_temp, dim=-1)
    pairs = torch.einsum("qbk,vbk->qv", target, F.log_softmax(student / student_temp, dim=-1))
    n_pairs = len(teacher) * (len(student) - 1)
    return (pairs.diagonal().sum() - pairs.sum()) / (n_pairs * student.shape[1])


@torch.no_grad()
def clip_per_tensor(grads: list[Tensor], max_norm: float) -> Tensor:
    """Scale each gradient down to ``max_norm`` (0: leave it), in place; return the norm of all before."""
    norms = torch.stack(torch._foreach_norm(grads))
    if max_norm > 0.0:
        torch._foreach_mul_(grads, list((max_norm / (norms + 1e-6)).clamp(max=1.0).unbind()))
    return torch.linalg.vector_norm(norms)


def schedule_values(step: int, optim: OptimConfig, batch: int, total_steps: int) -> dict[str, float]:
    """Learning rate, weight decay, momentum and teacher temperature of a step."""

    def cosine(start: float, final: float, at: float) -> float:
        return final + 0.5 * (start - final) * (1.0 + math.cos(math.pi * min(at, 1.0)))

    peak, warmup = optim.base_lr * batch / 256.0, optim.warmup_steps
    warm = min(step / optim.warmup_teacher_temp_steps, 1.0) if optim.warmup_teacher_temp_steps else 1.0
    return {
        "lr": peak * step / max(warmup - 1, 1)
        if step < warmup
        else cosine(peak, optim.min_lr, (step - warmup) / (total_steps - warmup)),
        "wd": cosine(optim.weight_decay, optim.weight_decay_end, step / total_steps),
        "momentum": cosine(optim.momentum_teacher, 1.0, step / total_steps),
        "teacher_temp": optim.warmup_teacher_temp + (optim.teacher_temp - optim.warmup_teacher_temp) * warm,
    }


class TorchDino:
    """Student, teacher, optimiser and centre.

    Parameters
    ----------
    variant : str or (dim, depth, heads)
        A name of `vis2img.models.vit.VARIANTS`, or another size.
    patch, img_size, in_chans : int
        Patch side and side of the global views [pixel]; channels.
    out_dim : int
        Prototypes K.
    drop_path : float
        Of the student's last block.
    optim : OptimConfig
    total_steps : int
    device : str
        "cpu" or "cuda".
    precision : {"float32", "bfloat16"}
        bfloat16 is automatic: parameters, normalisations and loss stay float32. float32 products run as TF32 on a
        GPU, which is what JAX does when nothing is said.
    compile : bool
        Compile networks and loss with `torch.compile`.
    hidden, bottleneck, norm_last_layer
        Of the head, as `vis2img.train.config.ModelConfig` has them.
    seed : int
        Of the initial weights, until `load_from_jax`, and of drop path.
    """

    def __init__(
        self,
        variant: str | tuple[int, int, int],
        patch: int,
        img_size: int,
        in_chans: int,
        out_dim: int,
        drop_path: float,
        optim: OptimConfig,
        total_steps: int,
        device: str = "cpu",
        precision: str = "float32",
        compile: bool = False,
        *,
        hidden: int = 2048,
        bottleneck: int = 256,
        norm_last_layer: bool = True,
        seed: int = 0,
    ) -> None:
        if precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision must be float32 or bfloat16, got {precision!r}")
        torch.manual_seed(seed)
        if device != "cpu":
            torch.set_float32_matmul_precision("high")
        size = VARIANTS[variant] if isinstance(variant, str) else variant
        self.optim, self.total_steps, self.device, self.count = optim, total_steps, torch.device(device), 0
        self._patch, self._autocast = patch, precision == "bfloat16"

        def make(rate: float) -> Network:
            head = Head(size[0], out_dim, hidden, bottleneck, norm_last_layer)
            return Network(make_backbone(size, patch, img_size, in_chans, rate), head).to(self.device)

        self.student, self.teacher = make(drop_path), make(0.0)
        self.teacher.load_state_dict(deepcopy(self.student.state_dict()))
        self.teacher.requires_grad_(False).eval()
        self.centre = torch.zeros(out_dim, device=self.device)
        self._teacher_temp = torch.zeros((), device=self.device)
        compiled = (lambda f: torch.compile(f, dynamic=False)) if compile else (lambda f: f)
        self._student, self._teacher, self._loss = compiled(self.student), compiled(self.teacher), compiled(dino_loss)

        named = [(name, p) for name, p in self.student.named_parameters() if p.requires_grad]
        self._trained = [p for _, p in named]
        self._prototypes = [p for name, p in named if "last_layer" in name]
        groups = [
            {"params": [p for p in self._trained if p.ndim > 1]},
            {"params": [p for p in self._trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, fused=True)

    def put(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Move a batch to the device, "global" (V, B, y, x, C) and so on; tensors that are there stay there."""

        def move(x: Any) -> Tensor:
            if isinstance(x, Tensor):
                return x.to(self.device, non_blocking=True)
            x = torch.from_numpy(np.ascontiguousarray(x))
            return x if self.device.type == "cpu" else x.pin_memory().to(self.device, non_blocking=True)

        return {name: move(x) for name, x in batch.items()}

    def step(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Take one step; return "loss" and "grad_norm" (before clipping) on the device, without waiting for them."""
        batch = turn_views(self.put(batch))
        n_global, size = batch["global"].shape[:2]
        # Channels last in memory, as the loader lays them out: no copy.
        crops = [x.flatten(0, 1).permute(0, 3, 1, 2) for x in (batch["global"], batch.get("local")) if x is not None]
        crops = [crop for crop in crops if len(crop)]
        values = schedule_values(self.count, self.optim, size, self.total_steps)
        for group, decay in zip(self.optimizer.param_groups, (values["wd"], 0.0), strict=True):
            group["lr"], group["weight_decay"] = values["lr"], decay
        self._teacher_temp.fill_(values["teacher_temp"])

        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast):
            with torch.no_grad():
                teacher = self._teacher(crops[:1])
            student = self._student(crops)
        teacher = teacher.float().unflatten(0, (n_global, size))
        student = student.float().unflatten(0, (-1, size))
        loss = self._loss(student, teacher, self.centre, self.optim.student_temp, self._teacher_temp)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = clip_per_tensor([p.grad for p in self._trained if p.grad is not None], self.optim.clip_grad)
        if self.count < self.optim.freeze_last_layer_steps:
            # AdamW passes over a parameter without a gradient: no decay, and its own count of steps stands still.
            for p in self._prototypes:
                p.grad = None
        self.optimizer.step()
        with torch.no_grad():
            self.centre.lerp_(teacher.mean((0, 1)), 1.0 - self.optim.centre_momentum)
            torch._foreach_lerp_(
                list(self.teacher.parameters()), list(self.student.parameters()), 1.0 - values["momentum"]
            )
        self.count += 1
        return {"loss": loss.detach(), "grad_norm": norm}

    def load_from_jax(self, params: Any, teacher: Any) -> None:
        """Take over the parameters of student and teacher of a `vis2img.train.state.TrainState`."""
        self.student.load_state_dict(from_flax(params, self._patch))
        self.teacher.load_state_dict(from_flax(teacher, self._patch))

    def synchronise(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def peak_memory(self) -> int | None:
        """Return the most bytes that tensors took on the device so far; None on a CPU."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None


def turn_views(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Flip and turn each view as "turns" says, see `vis2img.train.objectives.augment.turn_views`."""
    if "turns" not in batch:
        return batch
    turned, first = {}, 0
    for name in ("global", "local"):
        if name in batch:
            views = batch[name]
            turns = batch["turns"][first : first + len(views), :, None, None, None]
            first += len(views)
            for bit, change in ((1, lambda x: x.transpose(2, 3)), (2, lambda x: x.flip(3)), (4, lambda x: x.flip(2))):
                views = torch.where((turns & bit) > 0, change(views), views)
            turned[name] = views
    return turned


def from_flax(params: Any, patch: int) -> dict[str, Tensor]:
    """Return the state of a `Network` from Flax parameters ``{"backbone": ..., "head": ...}``."""
    state: dict[str, np.ndarray] = {}

    def norm(name: str, p: Any) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = p["scale"], p["bias"]

    def linear(name: str, p: Any) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = np.asarray(p["kernel"]).T, p["bias"]

    backbone, head = params["backbone"], params["head"]
    kernel = np.asarray(backbone["patch_embed"]["kernel"])  # (y * x * C, D)
    kernel = kernel.reshape(patch, patch, -1, kernel.shape[1])
    for name in ("cls_token", "pos_embed"):
        state[f"backbone.{name}"] = backbone[name]
    state["backbone.patch_embed.proj.weight"] = kernel.transpose(3, 2, 0, 1)  # (D, C, y, x)
    state["backbone.patch_embed.proj.bias"] = backbone["patch_embed"]["bias"]
    norm("backbone.norm", backbone["norm"])
    for i, block in enumerate(backbone[name] for name in sorted(backbone) if name.startswith("block")):
        for part in ("norm1", "norm2"):
            norm(f"backbone.blocks.{i}.{part}", block[part])
        for part in ("qkv", "proj"):
            linear(f"backbone.blocks.{i}.attn.{part}", block["attn"][part])
        for part in ("fc1", "fc2"):
            linear(f"backbone.blocks.{i}.mlp.{part}", block[part])
    for i in range(3):
        linear(f"head.mlp.{2 * i}", head[f"mlp{i}"])
    v = np.asarray(head["last_layer"]["v"]).T  # (K, bottleneck)
    weight = "head.last_layer.parametrizations.weight"
    state[f"{weight}.original0"] = np.reshape(head["last_layer"].get("g", np.ones(len(v))), (-1, 1))
    state[f"{weight}.original1"] = v
    return {name: torch.tensor(np.asarray(value, np.float32)) for name, value in state.items()}
