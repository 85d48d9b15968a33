"""What turns images into vectors: trained networks, the same networks with random weights, and the pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from train.embed import embed_images
from train.run import load_run
from train.run_config import TrainConfig
from train.state import backbone_variables, build_model, create_state
from vis2img.errors import ParameterError

TRAINED, RANDOM, PIXELS = "trained", "random weights", "PCA of pixels"
_COMPONENTS = 64


@dataclass(frozen=True, eq=False)
class Encoder:
    """A representation: its name in tables, its seed, and images [n, y, x, channel] to vectors [n, dim].

    ``model`` and ``variables`` are those of a network, None of pixels.
    """

    name: str
    seed: int
    encode: Callable[[np.ndarray], np.ndarray]
    model: Any = None
    variables: Any = None


def network_encoder(name: str, seed: int, model: Any, variables: Any) -> Encoder:
    """Return the representation of a network; the vectors are those of `train.embed.embed_images`."""
    return Encoder(name, seed, lambda images: embed_images(model, variables, images), model, variables)


def run_encoders(
    folders: Sequence[str | Path], name: str = TRAINED, role: str = "teacher", step: int | None = None
) -> tuple[TrainConfig, list[Encoder]]:
    """Return the configuration of the first of ``folders``, and the representations of all, which are its seeds.

    Raises
    ------
    ParameterError
        If the runs have different networks or cut their views otherwise; the message names both folders.
    Vis2imgError
        If a folder holds no run.
    """
    configs, found = [], []
    for seed, folder in enumerate(folders):
        config, state, model = load_run(folder, step)
        configs.append(config)
        found.append(network_encoder(name, seed, model, backbone_variables(state, role)))
        if (config.model, config.data.views) != (configs[0].model, configs[0].data.views):
            raise ParameterError(
                f"{folders[0]} and {folder} have different networks or views, so they are no seeds of one thing; "
                "evaluate them one by one"
            )
    return configs[0], found


def random_encoders(config: TrainConfig, seeds: Iterable[int]) -> list[Encoder]:
    """Return the networks of ``config`` as they are before training: ``seeds`` count from its own."""
    size = config.data.views.global_size
    model = build_model(config.model, size, config.optim)
    found = []
    for seed in seeds:
        key = jax.random.key(config.seed + seed)
        state = create_state(key, model, config.optim, (size, size, config.data.channels))
        found.append(network_encoder(RANDOM, seed, model, backbone_variables(state)))
    return found


def pixel_encoder(images: np.ndarray, seed: int = 0) -> Encoder:
    """Return the principal components of the pixels of ``images`` [n, y, x, channel], at most 64 of them.

    They are fitted without labels, on all images that are scored: a help that the networks do not have.
    """
    from sklearn.decomposition import PCA

    count = min(_COMPONENTS, len(images), int(np.prod(images.shape[1:])))
    pca = PCA(count, random_state=0).fit(images.reshape(len(images), -1))
    return Encoder(PIXELS, seed, lambda others: pca.transform(others.reshape(len(others), -1)).astype(np.float32))
