"""What turns images into vectors: trained networks, the same networks with random weights, and the pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from sklearn.decomposition import PCA

from vis2img.models.dino_head import DINOModel
from vis2img.train.embed.patches import Variables, embed_images
from vis2img.train.evaluate.check import check_seeds
from vis2img.train.run.config import TrainConfig
from vis2img.train.run.run import load_run
from vis2img.train.state import backbone_variables, build_model, create_state

TRAINED, RANDOM, PIXELS = "trained", "random weights", "PCA of pixels"
_COMPONENTS = 64


@dataclass(frozen=True, eq=False)
class Encoder:
    """A representation: its name in tables, its seed, and images [n, y, x, channel] to vectors [n, dim]."""

    name: str
    seed: int
    encode: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class NetworkEncoder(Encoder):
    """The representation of a network."""

    model: DINOModel
    variables: Variables


def network_encoder(name: str, seed: int, model: DINOModel, variables: Variables) -> NetworkEncoder:
    """Return the representation of a network; the vectors are those of `vis2img.train.embed.patches.embed_images`."""
    return NetworkEncoder(name, seed, lambda images: embed_images(model, variables, images), model, variables)


def run_encoders(
    folders: Sequence[str | Path], role: str = "teacher", step: int | None = None
) -> tuple[TrainConfig, list[NetworkEncoder]]:
    """Return the configuration of the first of ``folders``, and the representations of all, which are its seeds.

    Raises
    ------
    ParameterError
        If the runs differ in more than their seeds, or do not differ in them; the message names both folders.
    Vis2imgError
        If a folder holds no run.
    """
    configs, encoders = [], []
    for seed, folder in enumerate(folders):
        config, state, model = load_run(folder, step)
        configs.append(config)
        encoders.append(network_encoder(TRAINED, seed, model, backbone_variables(state, role)))
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


def pixel_encoder(images: np.ndarray, seed: int = 0) -> Encoder:
    """Return the principal components of the pixels of ``images`` [n, y, x, channel], at most 64 of them.

    They are fitted without labels, on images that are scored: a help that the networks do not have.
    """
    count = min(_COMPONENTS, len(images), int(np.prod(images.shape[1:])))
    pca = PCA(count, random_state=0).fit(images.reshape(len(images), -1))
    return Encoder(PIXELS, seed, lambda others: pca.transform(others.reshape(len(others), -1)).astype(np.float32))
