"""A trained network that embeds: read from the folder of its run, or from the weights that were exported of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vis2img import __version__
from vis2img.configs.records import to_record
from vis2img.errors import ParameterError
from vis2img.models.dino_head import DINOModel
from vis2img.pictures.labels import array_images
from vis2img.train.embed.check import read_export
from vis2img.train.patches import Variables, embed_images, joined_tokens
from vis2img.train.run.config import TrainConfig
from vis2img.train.run.folder import patch_angles
from vis2img.train.run.run import load_run
from vis2img.train.state import backbone_variables, build_model, create_state
from vis2img.train.weights.pretrained import load_pretrained
from vis2img.train.weights.released import resolve, shown
from vis2img.views.crops import TURNS, ViewConfig, turned

# Settings that have always been part of the hash of a network.
_FIRST_OF_VIEWS = {
    *("patch_npix", "global_size", "local_size", "n_global", "n_local", "global_scale", "local_scale", "rotate"),
    "stretch",
}
_FIRST_OF_STRETCH = {"kind", "softening", "power"}


@dataclass(frozen=True, eq=False)
class Embedder:
    """A trained network that embeds: from :func:`pretrained`, :meth:`of`, :meth:`of_run` or :meth:`of_export`.

    Parameters
    ----------
    config : TrainConfig
    model : DINOModel
    variables : dict
        Of the backbone.
    metadata : dict
        Text that goes with the table: run, step, role, network (a hash of weights and views) and version.
    angles : tuple of float
        Sides of the patches that it was trained on, rad; none where they were not written down.
    """

    config: TrainConfig
    model: DINOModel = field(repr=False)
    variables: Variables = field(repr=False)
    metadata: dict[str, str]
    angles: tuple[float, ...] = ()

    @classmethod
    def of(cls, path: Path, role: str = "teacher", step: int | None = None) -> Embedder:
        """Read a run folder, a file of ``vis2img export``, which holds one network of one step, or released weights."""
        path = resolve(path)
        return cls.of_export(path) if path.is_file() else cls.of_run(path, role, step)

    @classmethod
    def of_export(cls, path: Path) -> Embedder:
        """Read a file of ``vis2img export``; neither the run nor its data need be there.

        Raises
        ------
        Vis2imgError
            If it is none, or one of an earlier version, which does not tell how images were made.
        """
        config, header = read_export(path)
        size = config.data.views.global_size
        model = build_model(config.model, size, config.optim)
        shape = (size, size, config.data.channels)
        blank = jax.eval_shape(lambda: backbone_variables(create_state(jax.random.key(0), model, config.optim, shape)))
        variables = load_pretrained(blank, path, patch=None if config.model.is_resnet else config.model.patch)
        metadata = {"run": shown(path.resolve()), "step": header["step"], "role": header["network"]}
        metadata["network"] = _hash(config, variables)
        angles = tuple(map(float, json.loads(header["patch_angle_rad"])))
        return cls(config, model, variables, {**metadata, "vis2img": __version__}, angles)

    @classmethod
    def of_run(cls, folder: str | Path, role: str = "teacher", step: int | None = None) -> Embedder:
        """Read the checkpoint of ``step``, or the last, of a run folder; ``role`` is "teacher" or "student".

        Raises
        ------
        Vis2imgError
            If the folder holds no run, or no checkpoint that can be read.
        """
        config, state, model = load_run(folder, step)
        run, at_step = str(Path(folder).resolve()), str(int(state.step))
        variables = backbone_variables(state, role)
        metadata = {"run": run, "step": at_step, "role": role, "network": _hash(config, variables)}
        return cls(config, model, variables, {**metadata, "vis2img": __version__}, patch_angles(Path(folder)))

    def apply(self, images: jax.Array) -> jax.Array:
        """Return the vectors of images, to be compiled and differentiated as part of other JAX code.

        Parameters
        ----------
        images : float32 [image, y, x, channel]
            Of :meth:`preprocess`; y and x are ``config.data.views.global_size``, or what the network takes besides.

        Returns
        -------
        float32 [image, dim]
            Those of ``vis2img embed``.
        """
        if self.model.turns == 1:
            return joined_tokens(self.model, self.variables, images)
        upright = jnp.moveaxis(images, 0, 2)  # (y, x, image, channel)
        views = [jnp.moveaxis(turned(upright, turn), 2, 0) for turn in range(TURNS)]
        return jnp.mean(jnp.stack([joined_tokens(self.model, self.variables, view) for view in views]), axis=0)

    def embed(self, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Return the vectors of any number of images, float32 [image, dim]: :meth:`apply`, in batches of one shape."""
        return embed_images(self.model, self.variables, images, batch_size)

    def preprocess(self, images: np.ndarray, noise: float | None = None) -> np.ndarray:
        """Return what the network is to be shown of images of the sky.

        Parameters
        ----------
        images : array [image, y, x]
            In Jy/beam, or any unit without ``noise``; NaN where blank. The largest square in the middle of each is
            used, and should be a patch as the network was trained on: ``angles`` tells its side.
        noise : float, optional
            Of the images, in their unit; nothing is subtracted then, as from patches of a field. Default: the robust
            noise of each by itself, above its median, as with cutouts.

        Returns
        -------
        float32 [image, size, size, channel]
            Resampled to the size of a global view, and stretched as in training; one image stands for all channels.

        Raises
        ------
        ParameterError
            If ``images`` has another number of axes, or the noise is not positive.
        Vis2imgError
            If an image is too small, or holds no finite pixel.
        """
        if np.ndim(images) != 3:
            raise ParameterError(f"images must be [image, y, x], got {list(np.shape(images))}; of one: images[None]")
        if noise is not None and not noise > 0:
            raise ParameterError(f"noise must be positive, in the unit of the images, got {noise}")
        data = self.config.data
        return array_images(np.asarray(images), data.views, noise, data.planes)


def pretrained(name: str | Path) -> Embedder:
    """Return a trained network with its parameters and its preprocessing, for any JAX code.

    Parameters
    ----------
    name : str or path
        Released weights (``vis2img weights`` lists them), a file of ``vis2img export``, or a run folder.

    Returns
    -------
    Embedder
        With ``apply`` (for JAX), ``embed`` (for arrays of any length), ``preprocess``, and ``model``, ``variables``,
        ``config`` and ``metadata``.

    Raises
    ------
    Vis2imgError
        If there are no such weights.

    Examples
    --------
    >>> network = vis2img.pretrained("first-v1")
    >>> images = network.preprocess(cutouts)  # [image, y, x], Jy/beam -> [image, size, size, channel]
    >>> vectors = jax.jit(network.apply)(images)  # [image, dim]
    """
    return Embedder.of(Path(name))


def _told(views: ViewConfig) -> dict[str, Any]:
    """Return the settings of views; those that came later where they are not their defaults, for tables of before."""
    record, default = to_record(views), to_record(ViewConfig())
    stretch, usual = record["stretch"], default["stretch"]
    record["stretch"] = {k: v for k, v in stretch.items() if k in _FIRST_OF_STRETCH or v != usual[k]}
    return {k: v for k, v in record.items() if k in _FIRST_OF_VIEWS or v != default[k]}


def _hash(config: TrainConfig, variables: Variables) -> str:
    """Return a name for what a network makes of pictures: its weights, and how it is shown them."""
    told: list[Any] = [_told(config.data.views), config.model.positions]
    if config.model.pooling or config.model.turns > 1:  # earlier names stay what they were
        told += [config.model.pooling, config.model.turns]
    if config.model.stages > 1:
        told.append(config.model.stages)
    if config.data.noise != "image":
        told.append(config.data.noise)
    digest = hashlib.sha256(json.dumps(told).encode())
    for leaf in jax.tree.leaves(variables):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]
