"""What turns images into vectors: trained networks, the same networks with random weights, and the pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from sklearn.decomposition import PCA

from vis2img.models.dino_head import DINOModel
from vis2img.pictures.labels import symmetric_views
from vis2img.train.embed.embedder import Embedder
from vis2img.train.evaluate.check import check_seeds
from vis2img.train.patches import Variables, embed_images
from vis2img.train.run.config import TrainConfig
from vis2img.train.state import backbone_variables, build_model, create_state

TRAINED, RANDOM, PIXELS = "trained", "random weights", "PCA of pixels"
RAW, TURNED = "pixels", ", turned"
_COMPONENTS = 64

# Of the eight turns and reflections of a picture: the mean of their vectors, all of them, or the picture as it is.
Turns = Literal["mean", "all", "one"]


@dataclass(frozen=True, eq=False)
class Encoder:
    """A representation: its name in tables, its seed, and images [n, y, x, channel] to vectors [n, dim].

    ``turns`` says which turns of a picture its vector is of; by default what the tasks are asked for. Vectors of
    ``pixels`` turn with the picture.
    """

    name: str
    seed: int
    encode: Callable[[np.ndarray], np.ndarray]
    turns: Turns | None = None
    pixels: bool = False

    @property
    def turned(self) -> bool:
        """Whether vectors turn with the picture, and are of all its turns."""
        return self.pixels and self.turns == "all"

    def vectors(self, images: np.ndarray, turns: Turns) -> np.ndarray:
        """Return the vectors of images: [view, n, dim] of all turns, else [n, dim].

        ``turns`` is what counts where the representation does not say.
        """
        turns = self.turns or turns
        if turns == "one":
            return self.encode(images)
        views = [self.encode(view) for view in symmetric_views(images)]
        return np.stack(views) if turns == "all" else np.mean(views, axis=0)


@dataclass(frozen=True, eq=False)
class NetworkEncoder(Encoder):
    """The representation of a network."""

    model: DINOModel = field(kw_only=True)
    variables: Variables = field(kw_only=True)


def network_encoder(name: str, seed: int, model: DINOModel, variables: Variables) -> NetworkEncoder:
    """Return the representation of a network; the vectors are those of `vis2img.train.patches.embed_images`."""
    return NetworkEncoder(
        name,
        seed,
        lambda images: embed_images(model, variables, images),
        "one" if model.turns > 1 else None,  # a network that averages over turns itself is not turned once more
        model=model,
        variables=variables,
    )


def run_encoders(
    folders: Sequence[str | Path], role: str = "teacher", step: int | None = None
) -> tuple[TrainConfig, list[NetworkEncoder]]:
    """Return the configuration of the first of ``folders``, and the representations of all, which are its seeds.

    Raises
    ------
    ParameterError
        If the runs differ in more than their seeds, or do not differ in them; the message names both folders.
    Vis2imgError
        If a folder holds no run, or a file no export of one.
    """
    configs, encoders = [], []
    for seed, folder in enumerate(folders):
        network = Embedder.of(Path(folder), role, step)
        configs.append(network.config)
        encoders.append(network_encoder(TRAINED, seed, network.model, network.variables))
    check_seeds(folders, configs)
    return configs[0], encoders


def random_encoders(config: TrainConfig, seeds: Iterable[int]) -> list[NetworkEncoder]:
    """Return the networks of ``config`` as they are before training: ``seeds`` count from its own."""
    size = config.data.views.global_size
    model = build_model(config.model, size, config.optim)
    encoders = []
    for seed in seeds:
        key = jax.random.key(config.seed + seed)
        state = create_state(key, model, config.optim, (size, size, config.data.channels))
        encoders.append(network_encoder(RANDOM, seed, model, backbone_variables(state)))
    return encoders


def pixel_encoders(images: np.ndarray) -> list[Encoder]:
    """Return the pixels of ``images`` [n, y, x, channel] and their principal components, upright and over all turns."""
    raw = Encoder(RAW, 0, lambda others: others.reshape(len(others), -1), "one", True)
    return [raw, turned(raw), *component_encoders(images)]


def component_encoders(images: np.ndarray) -> list[Encoder]:
    """Return the principal components of pixels as :func:`pixel_encoder` does, and those over all turns."""
    components = pixel_encoder(images)
    return [components, turned(components)]


def turned(plain: Encoder) -> Encoder:
    """Return a representation of which all turns of a picture are learnt, and the nearest counts."""
    return replace(plain, name=f"{plain.name}{TURNED}", turns="all")


def pixel_encoder(images: np.ndarray, seed: int = 0) -> Encoder:
    """Return the principal components of the pixels of ``images`` [n, y, x, channel], at most 64 of them.

    They are fitted without labels, on images that are scored: a help that the networks do not have.
    """
    count = min(_COMPONENTS, len(images), int(np.prod(images.shape[1:])))
    pca = PCA(count, random_state=0).fit(images.reshape(len(images), -1))
    return Encoder(
        PIXELS, seed, lambda others: pca.transform(others.reshape(len(others), -1)).astype(np.float32), "one", True
    )
