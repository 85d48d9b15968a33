"""Residual networks: ResNet-18 and ResNet-50, and a ResNet-10 for small pictures.

He et al. 2016 (arXiv:1512.03385) in the layout of torchvision ("v1.5": the stride of a bottleneck is on its 3 x 3
convolution), which is also that of the weights published with DINO. The small one has one block at each stage, a stem
of 5 x 5 pixels, as most sources are a few pixels wide, and group normalisation, which does not depend on the batch.
Images are channels-last, ``(batch, y, x, channel)``, with any number of channels. Calls and results are like those of
:class:`vis2img.models.vit.ViT`.
"""

from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from vis2img.models.convolution import Conv
from vis2img.models.layers import Array, GroupNorm, batch_norm
from vis2img.models.pooling import Part, Pooling, embedding_dim, max_pool

Norm = Literal["batch", "group"]
EXPANSION = 4  # output over inner channels of a bottleneck block
WIDTH = 64  # inner channels of the first stage; each further stage has twice as many


class Variant(NamedTuple):
    """Blocks of the four stages, whether they are bottlenecks, side of the stem's kernel, normalisation."""

    depths: tuple[int, ...]
    bottleneck: bool = False
    stem: int = 7
    norm: Norm = "batch"


VARIANTS: dict[str, Variant] = {
    "resnet10": Variant((1, 1, 1, 1), stem=5, norm="group"),
    "resnet18": Variant((2, 2, 2, 2)),
    "resnet50": Variant((3, 4, 6, 3), bottleneck=True),
}


def _norm(x: Array, norm: Norm, train: bool, axis_name: str | None, dtype: Any, name: str) -> Array:
    # Both under one name, as timm has them.
    if norm == "group":
        return GroupNorm(dtype, name=name)(x)
    return batch_norm(x, train=train, axis_name=axis_name, dtype=dtype, name=name)


class ResidualBlock(nn.Module):
    """``relu(branch(x) + shortcut(x))`` with two 3 x 3 convolutions, or 1 x 1, 3 x 3, 1 x 1 in a bottleneck.

    Attributes
    ----------
    width
        Inner channels; a bottleneck has ``EXPANSION`` times as many outside.
    stride
        Of the first 3 x 3 convolution.
    bottleneck, norm, dtype, axis_name
        As in `ResNet`.
    """

    width: int
    stride: int
    bottleneck: bool
    norm: Norm = "batch"
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "batch y x channel"], *, train: bool) -> Float[Array, "batch y_out x_out out"]:
        """Map to (batch, y / stride, x / stride, channels outside)."""
        out_width = self.width * (EXPANSION if self.bottleneck else 1)
        # (kernel, stride, channels) of each convolution
        if self.bottleneck:
            layers = [(1, 1, self.width), (3, self.stride, self.width), (1, 1, out_width)]
        else:
            layers = [(3, self.stride, self.width), (3, 1, out_width)]
        y = x
        for i, (kernel, stride, features) in enumerate(layers, start=1):
            y = Conv(features, kernel, stride, self.dtype, name=f"conv{i}")(y)
            y = self._norm(y, train, f"bn{i}")
            if i < len(layers):
                y = nn.relu(y)
        if self.stride != 1 or x.shape[-1] != out_width:
            x = Conv(out_width, 1, self.stride, self.dtype, name="downsample_conv")(x)
            x = self._norm(x, train, "downsample_bn")
        return nn.relu(y + x)

    def _norm(self, x: Array, train: bool, name: str) -> Array:
        return _norm(x, self.norm, train, self.axis_name, self.dtype, name)


class ResNet(nn.Module):
    """Residual network; see the module docstring.

    Variables are ``{"params": ..., "batch_stats": ...}``, the latter with batch normalisation alone; in training they
    must be mutable.

    Attributes
    ----------
    depths : tuple of 4 int
        Blocks of the stages.
    bottleneck : bool
        Bottleneck blocks (ResNet-50) instead of pairs of 3 x 3 convolutions (ResNet-18).
    stem : int
        Side of the kernel of the first convolution, odd.
    norm : str
        "batch", as published, or "group" (`vis2img.models.layers.GroupNorm`).
    width : int
        Inner channels of the first stage, and channels of the stem; each further stage has twice as many.
    pooling : tuple of str
        What the embedding is made of (`vis2img.models.pooling`): "mean", "max", "attention"; none: the mean.
    dtype : dtype
        Of the computation; parameters and running statistics stay float32.
    axis_name : str, optional
        Name of the mapped axis over which the statistics of a batch are averaged in training, so that they are
        those of the whole batch on several devices, as in the published DINO code.
    """

    depths: tuple[int, ...]
    bottleneck: bool
    stem: int = 7
    norm: Norm = "batch"
    width: int = WIDTH
    pooling: tuple[Part, ...] = ()
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @property
    def dim(self) -> int:
        """Channels of the last stage."""
        return self.stage_dims[-1]

    @property
    def stage_dims(self) -> tuple[int, ...]:
        """Channels of the four stages."""
        return tuple(width * (EXPANSION if self.bottleneck else 1) for width in self.widths)

    @property
    def widths(self) -> tuple[int, ...]:
        """Inner channels of the four stages."""
        return tuple(self.width << stage for stage in range(len(self.depths)))

    @property
    def embedding_dim(self) -> int:
        """Length of an embedding."""
        return embedding_dim(self.pooling, self.dim)

    @property
    def n_drops(self) -> int:
        """Random numbers that drop path takes for each image: there is none."""
        return 0

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "..."],
        *,
        train: bool = False,
        drop: Any = None,
        masks: Any = None,
        patches: bool = True,
        return_attention: bool = False,
    ) -> tuple[Float[Array, "batch {self.embedding_dim}"], dict[str, Array]]:
        """Embed images.

        Parameters
        ----------
        images : (batch, y, x, channel)
            Of any size; rows and columns below are those of the image over 32, rounded up.
        train : bool
            Normalise by the statistics of the batch and update the running ones.
        drop
            Ignored: a ViT takes it, and here is nothing to drop.
        patches : bool
            Whether "tokens" and "patches" hold the feature map; the work is the same.
        masks, return_attention
            Refused: there are no tokens to mask and no attention.

        Returns
        -------
        embedding
            Average of the last feature map, or what ``pooling`` makes of it.
        out : dict
            "stem" and "stage1" ... "stage4" (B, rows, columns, channels) feature maps; "tokens" (B, 1 + rows *
            columns, D): the average, then the last map row-major in y, x, as a ViT orders its tokens; "patches"
            (B, rows * columns, D), the latter alone.

        Raises
        ------
        ValueError
            If the images are not four-dimensional, or masks or attention are asked for.
        """
        self._check(images.shape, masks, return_attention)
        x, out = self._features(images, train)
        pixels = x.reshape(x.shape[0], -1, x.shape[-1])  # (B, N, D)
        # In float32, as bfloat16 would lose the sum over many pixels.
        average = pixels.astype(jnp.float32).mean(axis=1, keepdims=True).astype(x.dtype)
        out["tokens"] = jnp.concatenate([average, pixels], axis=1) if patches else average
        out["patches"] = out["tokens"][:, 1:]
        if not self.pooling:
            return average[:, 0], out
        return Pooling(self.pooling, name="pool")(average[:, 0], pixels), out

    def _features(
        self, images: Float[Array, "batch y x channel"], train: bool
    ) -> tuple[Float[Array, "batch row column {self.dim}"], dict[str, Array]]:
        """Return the last feature map, and all of them by name."""
        x = Conv(self.width, self.stem, 2, self.dtype, name="conv1")(images)
        x = nn.relu(_norm(x, self.norm, train, self.axis_name, self.dtype, "bn1"))
        x = max_pool(x)
        out = {"stem": x}
        for stage, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True), start=1):
            for i in range(depth):
                stride = 2 if stage > 1 and i == 0 else 1
                block = ResidualBlock(
                    width, stride, self.bottleneck, self.norm, self.dtype, self.axis_name, name=f"layer{stage}_{i}"
                )
                x = block(x, train=train)
            out[f"stage{stage}"] = x
        return x, out

    def _check(self, shape: tuple[int, ...], masks: Any, return_attention: bool) -> None:
        if masks is not None:
            raise ValueError("a ResNet cannot mask patches; use a ViT for masked-image modelling")
        if return_attention:
            raise ValueError("a ResNet has no attention; use a ViT for attention maps")
        if len(shape) != 4 or not all(shape[1:]):
            raise ValueError(f"images must be (batch, y, x, channel) and not empty, got shape {shape}")


def make_resnet(variant: str, **kwargs: Any) -> ResNet:
    """Build a ResNet from its name.

    Parameters
    ----------
    variant : str
        A key of ``VARIANTS``.
    **kwargs
        Other fields of `ResNet`; they override those of the variant.

    Raises
    ------
    ValueError
        If the variant is unknown.
    """
    if variant not in VARIANTS:
        raise ValueError(f"unknown ResNet variant {variant!r}; known: {', '.join(VARIANTS)}")
    return ResNet(**{**VARIANTS[variant]._asdict(), **kwargs})
