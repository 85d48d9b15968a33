"""A transformer of plain PyTorch, with the names of the published files, which resizes positions as their codes do."""

import pytest

NO_TORCH = "PyTorch, the reference, is not installed"


def numpy_state(network):
    return {name: value.numpy() for name, value in network.state_dict().items()}


def shaken(network):
    """Random weights, so that none is negligible; they keep the activations of order one."""
    import torch

    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.normal_(0.3, 0.3)
            else:
                parameter.normal_(0.0, 0.5 if parameter.shape[0] == 1 else parameter[0].numel() ** -0.5)
    return network.eval()


def torch_tokens(network, images):
    import torch

    with torch.no_grad():
        return network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()


def resized(grid, size, resizing):
    """Positions (1, D, y, x) at another size, by the arguments that the published codes give PyTorch.

    "dino": DINO, iBOT, DINOv2 without registers; "plain": MAE, DeiT, transformers; "antialias": DINOv2 with registers,
    timm.
    """
    import torch.nn.functional as F

    if resizing == "dino":
        scale = tuple((n + 0.1) / side for n, side in zip(size, grid.shape[-2:], strict=True))
        return F.interpolate(grid, scale_factor=scale, mode="bicubic")
    return F.interpolate(grid, size=size, mode="bicubic", align_corners=False, antialias=resizing == "antialias")


def plain_vit(patch, dim, depth, heads, img_size, channels, registers=0, layer_scale=False, resizing="dino"):
    """A transformer with the names of DINO, or with registers or LayerScale of DINOv2; gives all tokens."""
    torch = pytest.importorskip("torch", reason=NO_TORCH)
    nn, F = torch.nn, torch.nn.functional

    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.gamma = nn.Parameter(torch.ones(dim))

        def forward(self, x):
            return x * self.gamma

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

        def forward(self, x):
            q, k, v = (
                part.unflatten(-1, (heads, dim // heads)).transpose(1, 2) for part in self.qkv(x).split(dim, dim=-1)
            )
            return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    class Mlp(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

        def forward(self, x):
            return self.fc2(F.gelu(self.fc1(x)))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
            self.attn, self.mlp = Attention(), Mlp()
            self.ls1, self.ls2 = (Scale(), Scale()) if layer_scale else (nn.Identity(), nn.Identity())

        def forward(self, x):
            x = x + self.ls1(self.attn(self.norm1(x)))
            return x + self.ls2(self.mlp(self.norm2(x)))

    class Patches(nn.Module):
        def __init__(self):
            super().__init__()
            self.proj = nn.Conv2d(channels, dim, patch, patch)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
            self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (img_size // patch) ** 2, dim))
            if registers:
                self.register_tokens = nn.Parameter(torch.zeros(1, registers, dim))
                self.mask_token = nn.Parameter(torch.zeros(1, dim))
            self.patch_embed = Patches()
            self.blocks = nn.ModuleList(Block() for _ in range(depth))
            self.norm = nn.LayerNorm(dim, eps=1e-6)

        def positions(self, height, width):
            side, size = img_size // patch, (height // patch, width // patch)
            if size == (side, side):
                return self.pos_embed
            grid = self.pos_embed[:, 1:].transpose(1, 2).reshape(1, dim, side, side)
            grid = resized(grid, size, resizing).flatten(2).transpose(1, 2)
            return torch.cat([self.pos_embed[:, :1], grid], 1)

        def forward(self, images):
            x = self.patch_embed.proj(images).flatten(2).transpose(1, 2)
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.positions(*images.shape[2:])
            if registers:
                x = torch.cat([x[:, :1], self.register_tokens.expand(len(x), -1, -1), x[:, 1:]], 1)
            for block in self.blocks:
                x = block(x)
            return self.norm(x)

    return shaken(Network())
