"""Vision transformer with the conventions of DINO.

Dosovitskiy et al. 2021 (arXiv:2010.11929) with the choices of Caron et al. 2021 (arXiv:2104.14294): pre-norm
blocks, a class token, learned positions that are resized (`vis2img.models.positions`) so that one set of weights reads
global and local crops alike; and, on request, what DINOv2 (Oquab et al. 2024, arXiv:2304.07193) and its successors
added: registers, LayerScale and a mask token. Images are channels-last, ``(batch, y, x, channel)``, with any number of
channels.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Float32

from vis2img.models.layers import Array, LayerNorm, Linear, gelu
from vis2img.models.pooling import Part, Pooling, embedding_dim
from vis2img.models.positions import Resizing, resize_positions

# name -> (dim, depth, heads). "micro" is ours, for laptops and demos; the others are DINO's (head width 64).
VARIANTS: dict[str, tuple[int, int, int]] = {
    "micro": (96, 4, 3),
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
}
PATCHES = (4, 8, 14, 16)

_TOKEN_INIT = nn.initializers.normal(stddev=0.02)
# A patch embedding is a strided convolution; the published model leaves it at U(-1/sqrt(fan_in),
# 1/sqrt(fan_in)).
_PATCH_INIT = nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")


def drop_path(
    branch: Float[Array, "batch token dim"], uniform: Float[Array, " batch"] | None, rate: float
) -> Float[Array, "batch token dim"]:
    """Drop a residual branch for whole samples (stochastic depth, Huang et al. 2016, arXiv:1603.09382).

    Survivors are divided by the survival probability, so the expectation is unchanged.

    Parameters
    ----------
    branch
    uniform
        A number from [0, 1) for each sample, which is dropped if it lies below ``rate``; none: nothing is dropped.
    rate
        Drop probability.
    """
    if uniform is None or rate == 0.0:
        return branch
    survival = (uniform >= rate).astype(jnp.float32) / (1.0 - rate)
    return branch * survival[:, None, None].astype(branch.dtype)


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, arXiv:1706.03762), biases on q, k and v."""

    heads: int
    dtype: Any = jnp.float32
    class_only: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch token dim"]
    ) -> tuple[Float[Array, "batch query dim"], Float32[Array, "batch {self.heads} query token"]]:
        """Return the mixed tokens and the attention weights; of one query, the class token, if ``class_only``."""
        batch, length, dim = x.shape
        width = dim // self.heads
        qkv = jnp.split(Linear(3 * dim, self.dtype, name="qkv")(x), 3, axis=-1)
        # Heads before tokens: XLA's CPU products would make slower copies otherwise.
        query, key, value = (y.reshape(batch, length, self.heads, width).swapaxes(1, 2) for y in qkv)  # (B, H, T, D/H)
        if self.class_only:
            query = query[:, :, :1]
        # Plain einsum: as fast as jax.nn.dot_product_attention on CPU, and it can hand out the weights.
        scores = jnp.einsum("bhqd,bhkd->bhqk", query * width**-0.5, key)  # (B, H, Q, T)
        weights = jax.nn.softmax(scores.astype(jnp.float32), axis=-1)
        mixed = jnp.einsum("bhqk,bhkd->bhqd", weights.astype(self.dtype), value)  # (B, H, Q, D/H)
        mixed = mixed.transpose(0, 2, 1, 3).reshape(batch, -1, dim)
        return Linear(dim, self.dtype, name="proj")(mixed), weights


class Block(nn.Module):
    """Pre-norm transformer block: ``x + attention(norm(x))``, then ``x + mlp(norm(x))``.

    With ``layer_scale`` each branch is multiplied by a learned vector that starts there (Touvron et al. 2021,
    arXiv:2103.17239). With ``class_only`` the block gives the class token alone, from the keys and values of all.

    The tokens are float32 whatever ``dtype`` the branches have, as under PyTorch's autocast: three digits of bfloat16
    would lose what a branch of 1e-5 adds, and with it the image.
    """

    heads: int
    mlp_ratio: float
    drop_path: float
    layer_scale: float = 0.0
    dtype: Any = jnp.float32
    class_only: bool = False

    @nn.compact
    def __call__(
        self, x: Float32[Array, "batch token dim"], drop: Float[Array, "batch 2"] | None = None
    ) -> tuple[Float32[Array, "batch query dim"], Float32[Array, "batch {self.heads} query token"]]:
        """Return the tokens and the attention; ``drop`` is for `drop_path` of either branch."""
        dim = x.shape[-1]
        drops = (None, None) if drop is None else (drop[:, 0], drop[:, 1])

        y = LayerNorm(self.dtype, name="norm1")(x)
        mixed, weights = Attention(self.heads, self.dtype, self.class_only, name="attn")(y)
        if self.class_only:
            x = x[:, :1]
        x = x + self._branch(mixed, "ls1", drops[0])  # (B, Q, D)

        y = Linear(int(dim * self.mlp_ratio), self.dtype, name="fc1")(LayerNorm(self.dtype, name="norm2")(x))
        y = Linear(dim, self.dtype, name="fc2")(gelu(y))
        return x + self._branch(y, "ls2", drops[1]), weights

    def _branch(
        self, branch: Float[Array, "batch query dim"], name: str, uniform: Float[Array, " batch"] | None
    ) -> Float32[Array, "batch query dim"]:
        """What a branch adds to the tokens, in their precision."""
        branch = branch.astype(jnp.float32)
        if self.layer_scale:
            scale = self.param(name, nn.initializers.constant(self.layer_scale), (branch.shape[-1],))
            branch = branch * scale[None, None]
        return drop_path(branch, uniform, self.drop_path)


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
    positions : str, optional
        How: one of `vis2img.models.positions.Resizing`; default: as the published network with or without registers,
        which is DINOv2's "antialias" or DINO's "dino".
    registers : int
        Learned tokens that see and are seen, without a position (Darcet et al. 2024, arXiv:2309.16588).
    layer_scale : float
        Initial LayerScale; 0 for none.
    mask_token : bool
        Have a learned token that stands for masked patches.
    pooling : tuple of str
        What the embedding is made of (`vis2img.models.pooling`): "class", "mean", "max", "attention"; none: the class
        token.
    remat : bool
        Compute activations of blocks again in the backward pass instead of keeping them: a third more time, a
        fraction of the memory.
    dtype : dtype
        Of the computation in the branches and of the result; parameters, and the tokens between blocks, stay float32.
    """

    patch: int
    dim: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    drop_path: float = 0.0
    img_size: int = 224
    positions: Resizing | None = None
    registers: int = 0
    layer_scale: float = 0.0
    mask_token: bool = False
    pooling: tuple[Part, ...] = ()
    remat: bool = False
    dtype: Any = jnp.float32

    @property
    def embedding_dim(self) -> int:
        """Length of an embedding."""
        return embedding_dim(self.pooling, self.dim)

    @property
    def resizing(self) -> Resizing:
        """How positions are resized."""
        return self.positions or ("antialias" if self.registers else "dino")

    @property
    def n_drops(self) -> int:
        """Random numbers that drop path takes for each image."""
        return 2 * self.depth if self.drop_path else 0

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "..."],
        *,
        train: bool = False,
        drop: Float[Array, "batch drop"] | None = None,
        masks: Bool[Array, "batch patch"] | None = None,
        patches: bool = True,
        return_attention: bool = False,
    ) -> tuple[Float[Array, "batch {self.embedding_dim}"], dict[str, Array]]:
        """Embed images.

        Parameters
        ----------
        images : (batch, y, x, channel)
            y and x are multiples of ``patch``, not necessarily equal.
        train
            Changes nothing here; networks with batch statistics take it.
        drop
            ``n_drops`` numbers from [0, 1) that decide which branches are dropped (`drop_path`); none: nothing is.
        masks
            Patches to replace by the mask token.
        patches
            Whether patch tokens are wanted after the last block, which else is worked out for the class token alone.
        return_attention
            Also return the attention of the last block.

        Returns
        -------
        embedding
            Class token after the final norm, or what ``pooling`` makes of it and of the patches.
        out : dict
            "stem" (B, T, D) tokens with positions, "block00"... (B, T, D) after each block, "tokens" (B, T, D) after
            the final norm, which are the class token, the registers and the patches, row-major in y, x; "patches" (B,
            N, D), the last of these; "attention" (B, heads, T, T) on request. Without ``patches``, and if the
            embedding needs none, the last block and "tokens" hold the class token only.

        Raises
        ------
        ValueError
            If sizes do not divide: image by patch, img_size by patch, dim by heads; if drop_path is out of range; or if
            there are masks but no mask token.
        """
        self._check(images.shape)

        x = self._stem(images, masks)  # (B, T, D)
        out = {"stem": x}
        patches = patches or not {*self.pooling} <= {"class"}
        for i in range(self.depth):
            class_only = not patches and i == self.depth - 1
            x, weights = self._block(i, class_only)(x, None if drop is None else drop[:, 2 * i : 2 * i + 2])
            out[f"block{i:02d}"] = x  # (B, T, D)

        out["tokens"] = LayerNorm(self.dtype, name="norm")(x)  # (B, T, D)
        out["patches"] = out["tokens"][:, 1 + self.registers :]  # (B, N, D)
        if return_attention and self.depth:
            out["attention"] = weights  # (B, H, T, T)
        if not self.pooling:
            return out["tokens"][:, 0], out
        return Pooling(self.pooling, name="pool")(out["tokens"][:, 0], out["patches"]), out

    def _block(self, index: int, class_only: bool) -> nn.Module:
        block = nn.remat(Block) if self.remat else Block
        rate = self.drop_path * index / max(self.depth - 1, 1)
        return block(
            self.heads, self.mlp_ratio, rate, self.layer_scale, self.dtype, class_only, name=f"block{index:02d}"
        )

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

    def _stem(
        self, images: Float[Array, "batch y x channel"], masks: Bool[Array, "batch patch"] | None
    ) -> Float32[Array, "batch token {self.dim}"]:
        """Cut into patches, project, add positions, and prepend the class token and the registers."""
        batch, height, width, channels = images.shape
        p, rows, columns = self.patch, height // self.patch, width // self.patch

        # A matrix product instead of a strided convolution: the same numbers, and faster on CPU.
        x = images.reshape(batch, rows, p, columns, p, channels).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(batch, rows * columns, p * p * channels)  # (B, N, P * P * C)
        x = Linear(self.dim, self.dtype, _PATCH_INIT, name="patch_embed")(x).astype(jnp.float32)  # (B, N, D)
        if self.mask_token:
            token = self.param("mask_token", nn.initializers.zeros, (1, 1, self.dim))
            if masks is not None:
                x = jnp.where(masks[:, :, None], token, x)
        elif masks is not None:
            raise ValueError("masks were given to a network without a mask token; make it with mask_token=True")

        side = self.img_size // p
        cls = self.param("cls_token", _TOKEN_INIT, (1, 1, self.dim))
        positions = self.param("pos_embed", _TOKEN_INIT, (1, 1 + side * side, self.dim))
        grid = resize_positions(positions[0, 1:].reshape(side, side, self.dim), rows, columns, self.resizing)
        patches = x + grid.reshape(1, rows * columns, self.dim)  # (B, N, D)

        first = cls + positions[:, :1]  # (1, 1, D)
        if self.registers:
            extra = self.param("registers", nn.initializers.normal(1e-6), (1, self.registers, self.dim))
            first = jnp.concatenate([first, extra], axis=1)
        first = jnp.broadcast_to(first, (batch, 1 + self.registers, self.dim))
        return jnp.concatenate([first, patches], axis=1)  # (B, T, D)


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
        names = ", ".join(f"{s}/{p}" for s in VARIANTS for p in PATCHES)
        raise ValueError(f"unknown ViT variant {variant!r}; known: {names}")
    dim, depth, heads = VARIANTS[size]
    return ViT(**{"patch": int(patch), "dim": dim, "depth": depth, "heads": heads, **kwargs})
