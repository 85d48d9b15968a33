"""Vision transformer with the conventions of DINO.

Dosovitskiy et al. 2021 (arXiv:2010.11929) with the choices of Caron et al. 2021 (arXiv:2104.14294): pre-norm
blocks, a class token, learned positions that are resized bicubically so that one set of weights reads global
and local crops alike. Images are channels-last, ``(batch, y, x, channel)``, with any number of channels.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# name -> (dim, depth, heads). "micro" is ours, for laptops and demos; the others are DINO's (head width 64).
VARIANTS: dict[str, tuple[int, int, int]] = {
    "micro": (96, 4, 3),
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
}
PATCHES = (4, 8, 16)

_LINEAR_INIT = nn.initializers.truncated_normal(stddev=0.02)
# A patch embedding is a strided convolution; the published model leaves it at U(-1/sqrt(fan_in),
# 1/sqrt(fan_in)).
_PATCH_INIT = nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")


def _dense(features: int, dtype: Any, name: str) -> nn.Dense:
    return nn.Dense(features, dtype=dtype, kernel_init=_LINEAR_INIT, name=name)


def _norm(dtype: Any, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-6, dtype=dtype, name=name)


def resize_positions(positions: jax.Array, rows: int, columns: int) -> jax.Array:
    """Resize a square grid of position embeddings bicubically.

    Parameters
    ----------
    positions : (side, side, D)
        Learned embeddings at the native size.
    rows, columns : int
        Wanted grid, in patches.

    Returns
    -------
    (rows, columns, D)
        The input itself when the size is the native one. Cubic kernel with a = -1/2 (Keys 1981), without
        antialiasing, as the embeddings are smooth and the published code does not filter them either.
    """
    if positions.shape[:2] == (rows, columns):
        return positions
    shape = (rows, columns, positions.shape[2])
    return jax.image.resize(positions, shape, method="cubic", antialias=False)


class DropPath(nn.Module):
    """Drop a residual branch for whole samples (stochastic depth, Huang et al. 2016, arXiv:1603.09382).

    Survivors are divided by the survival probability, so the expectation is unchanged.
    """

    rate: float

    @nn.compact
    def __call__(self, branch: jax.Array, *, train: bool) -> jax.Array:
        if not train or self.rate == 0.0:
            return branch
        keep = 1.0 - self.rate
        mask = jax.random.bernoulli(self.make_rng("drop_path"), keep, (branch.shape[0], 1, 1))
        return branch * (mask / keep).astype(branch.dtype)  # (B, T, D)


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, arXiv:1706.03762), biases on q, k and v."""

    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the mixed tokens (B, T, D) and the attention weights (B, heads, T, T)."""
        batch, length, dim = x.shape
        width = dim // self.heads
        qkv = _dense(3 * dim, self.dtype, "qkv")(x).reshape(batch, length, 3, self.heads, width)
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]  # (B, T, H, D/H) each
        # Plain einsum: as fast as jax.nn.dot_product_attention on CPU, and it can hand out the weights.
        scores = jnp.einsum("bqhd,bkhd->bhqk", query * width**-0.5, key)  # (B, H, T, T)
        weights = jax.nn.softmax(scores.astype(jnp.float32), axis=-1)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(self.dtype), value)  # (B, T, H, D/H)
        return _dense(dim, self.dtype, "proj")(mixed.reshape(batch, length, dim)), weights


class Block(nn.Module):
    """Pre-norm transformer block: ``x + attention(norm(x))``, then ``x + mlp(norm(x))``."""

    heads: int
    mlp_ratio: float
    drop_path: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        dim = x.shape[-1]
        mixed, weights = Attention(self.heads, self.dtype, name="attn")(_norm(self.dtype, "norm1")(x))
        x = x + DropPath(self.drop_path, name="drop_attn")(mixed, train=train)  # (B, T, D)
        y = _dense(int(dim * self.mlp_ratio), self.dtype, "fc1")(_norm(self.dtype, "norm2")(x))
        y = _dense(dim, self.dtype, "fc2")(nn.gelu(y, approximate=False))
        return x + DropPath(self.drop_path, name="drop_mlp")(y, train=train), weights


class ViT(nn.Module):
    """Vision transformer; see the module docstring.

    Attributes
    ----------
    patch : int
        Patch side [pixel].
    dim, depth, heads : int
        Token width, number of blocks, attention heads; ``heads`` must divide ``dim``.
    mlp_ratio : float
        Hidden width of the MLP over ``dim``.
    drop_path : float
        Drop-path probability of the last block, in [0, 1); it grows linearly from 0 at the first.
    img_size : int
        Side [pixel] at which the position embedding lives; other sizes are interpolated from it.
    dtype : dtype
        Of the computation; parameters stay float32.
    """

    patch: int
    dim: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    drop_path: float = 0.0
    img_size: int = 224
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, return_attention: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Embed images.

        Parameters
        ----------
        images : (B, y, x, C)
            y and x are multiples of ``patch``, not necessarily equal.
        train : bool
            Apply drop path; needs an rng named "drop_path" when ``drop_path`` > 0.
        return_attention : bool
            Also return the attention of the last block.

        Returns
        -------
        cls_embedding : (B, D)
            Class token after the final norm.
        out : dict
            "stem" (B, T, D) tokens with positions, "block00"... (B, T, D) after each block, "tokens" (B, T,
            D) after the final norm with T = 1 + patches, row-major in y, x; "attention" (B, heads, T, T) on
            request.

        Raises
        ------
        ValueError
            If sizes do not divide: image by patch, img_size by patch, dim by heads; or if drop_path is out of
            range.
        """
        self._check(images.shape)
        x = self._stem(images)  # (B, T, D)
        out = {"stem": x}
        weights = None
        for i in range(self.depth):
            rate = self.drop_path * i / max(self.depth - 1, 1)
            x, weights = Block(self.heads, self.mlp_ratio, rate, self.dtype, name=f"block{i:02d}")(x, train=train)
            out[f"block{i:02d}"] = x
        out["tokens"] = _norm(self.dtype, "norm")(x)  # (B, T, D)
        if return_attention and weights is not None:
            out["attention"] = weights  # (B, H, T, T)
        return out["tokens"][:, 0], out

    def _check(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 4:
            raise ValueError(f"images must be (batch, y, x, channel), got shape {shape}")
        if shape[1] % self.patch or shape[2] % self.patch or not shape[1] or not shape[2]:
            raise ValueError(f"image size {shape[1]} x {shape[2]} is not a multiple of the patch size {self.patch}")
        if self.img_size % self.patch:
            raise ValueError(f"img_size {self.img_size} is not a multiple of the patch size {self.patch}")
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}")
        if not 0.0 <= self.drop_path < 1.0:
            raise ValueError(f"drop_path must be in [0, 1), got {self.drop_path}")

    def _stem(self, images: jax.Array) -> jax.Array:
        """Cut into patches, project, prepend the class token and add positions."""
        batch, height, width, channels = images.shape
        p, rows, columns = self.patch, height // self.patch, width // self.patch
        # A matrix product instead of a strided convolution: the same numbers, and faster on CPU.
        x = images.reshape(batch, rows, p, columns, p, channels).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(batch, rows * columns, p * p * channels)
        x = nn.Dense(self.dim, dtype=self.dtype, kernel_init=_PATCH_INIT, name="patch_embed")(x)  # (B, N, D)
        side = self.img_size // p
        cls = self.param("cls_token", _LINEAR_INIT, (1, 1, self.dim))
        positions = self.param("pos_embed", _LINEAR_INIT, (1, 1 + side * side, self.dim))
        grid = resize_positions(positions[0, 1:].reshape(side, side, self.dim), rows, columns)
        patches = x + grid.reshape(1, rows * columns, self.dim).astype(self.dtype)
        token = jnp.broadcast_to((cls + positions[:, :1]).astype(self.dtype), (batch, 1, self.dim))
        return jnp.concatenate([token, patches], axis=1)  # (B, 1 + N, D)


def make_vit(variant: str, **kwargs: Any) -> ViT:
    """Build a ViT from a name such as "tiny/16".

    Parameters
    ----------
    variant : str
        "<size>/<patch>" with a size of ``VARIANTS`` and a patch [pixel] of ``PATCHES``.
    **kwargs
        Other fields of `ViT`; they override those of the variant.

    Raises
    ------
    ValueError
        If the variant is unknown.
    """
    size, _, patch = variant.partition("/")
    if size not in VARIANTS or patch not in {str(p) for p in PATCHES}:
        known = ", ".join(f"{s}/{p}" for s in VARIANTS for p in PATCHES)
        raise ValueError(f"unknown ViT variant {variant!r}; known: {known}")
    dim, depth, heads = VARIANTS[size]
    return ViT(**{"patch": int(patch), "dim": dim, "depth": depth, "heads": heads, **kwargs})
