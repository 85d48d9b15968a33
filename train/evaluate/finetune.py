"""A network trained further with labels: fine-tuning, and from random weights the supervised baseline.

The classifier is one linear layer on the vector that `vis2img.train.patches` gives; everything is trained.
Learning rates fall towards the input (Clark et al. 2020, arXiv:2003.10555, as BEiT and MAE do). Pictures are turned,
mirrored, zoomed and moved at random, labels are smoothed (Szegedy et al. 2016, arXiv:1512.00567), and the prediction of
a picture is the mean over the eight symmetries of the square.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.ndimage import affine_transform

from vis2img.errors import ParameterError
from vis2img.models.dino_head import DINOModel
from vis2img.train.evaluate.classification import accuracies
from vis2img.train.evaluate.folds import Samples, few_labels, share_or_count, validation_folds
from vis2img.train.evaluate.kept import kept
from vis2img.train.evaluate.scores import Pairs
from vis2img.train.evaluate.tune_config import FineTuneConfig
from vis2img.train.patches import Variables, joined_tokens
from vis2img.views.crops import TURNS, turned

Head = dict[str, jax.Array]
Params = dict[str, Any]  # of backbone and head
_BLOCK = re.compile(r"(block|layer|stage)_?\d")
_LAST = ("norm", "pool")


def fine_tune(
    model: DINOModel,
    variables: Variables,
    images: np.ndarray,
    label: np.ndarray,
    classes: int,
    config: FineTuneConfig,
    seed: int,
) -> Callable[[np.ndarray], np.ndarray]:
    """Train a classifier with its backbone, and return its prediction of other pictures.

    Parameters
    ----------
    model : DINOModel
    variables : dict
        Of the backbone to start from; they are left alone.
    images : float32 [n, y, x, channel]
        Stretched.
    label : int [n]
        From 0 to ``classes`` - 1.
    classes : int
    config : FineTuneConfig
    seed : int
        Of the order of the pictures, how they are turned, and drop path.

    Returns
    -------
    callable
        float32 [m, y, x, channel] to probabilities float32 [m, classes].

    Raises
    ------
    ParameterError
        If there is no picture, or a label is out of range.
    """
    if not len(images) or label.min() < 0 or label.max() >= classes:
        raise ParameterError(f"fine-tuning needs pictures with labels from 0 to {classes - 1}")

    width = jax.eval_shape(partial(joined_tokens, model), variables, images[:1]).shape[1]
    params = {
        "backbone": jax.tree.map(jnp.array, variables["params"]),
        "head": {"kernel": jnp.zeros((width, classes)), "bias": jnp.zeros(classes)},
    }
    stats = variables.get("batch_stats", {})
    state = _optimizer(config).init(params)
    rng = np.random.default_rng([seed, len(images)])
    for rows in _batches(rng, len(images), config):
        batch = _augmented(images[rows], config, rng), label[rows]
        params, state = _step(model, config, params, state, stats, *batch)

    tuned = {"params": params["backbone"], "batch_stats": stats}
    return lambda others: _probabilities(model, tuned, params["head"], others, config.batch_size)


def _optimizer(config: FineTuneConfig) -> optax.GradientTransformation:
    warm = max(1, config.steps // 10)
    rate = optax.warmup_cosine_decay_schedule(0.0, config.lr, warm, max(config.steps, warm + 1))
    matrices = partial(jax.tree.map, lambda x: x.ndim > 1)
    adamw = optax.adamw(rate, weight_decay=config.weight_decay, mask=matrices)
    scaled = optax.stateless(lambda updates, params: _scaled(updates, learning_rates(params, config)))
    return optax.chain(optax.clip_by_global_norm(3.0), adamw, scaled)


def _scaled(updates: Params, rates: Params) -> Params:
    return jax.tree.map(lambda update, rate: update * rate, updates, rates)


def _batches(rng: np.random.Generator, count: int, config: FineTuneConfig) -> list[np.ndarray]:
    """Return rows [steps] of [batch_size]: every picture once before any comes again."""
    total = config.steps * config.batch_size
    order = np.concatenate([rng.permutation(count) for _ in range(-(-total // count))])
    return list(order[:total].reshape(config.steps, config.batch_size))


def _augmented(images: np.ndarray, config: FineTuneConfig, rng: np.random.Generator) -> np.ndarray:
    """Return pictures turned, mirrored, zoomed and moved at random."""
    middle = (np.array(images.shape[1:3]) - 1) / 2
    out = np.empty_like(images)
    for image, view in zip(images, out, strict=True):
        shift = rng.uniform(-config.shift, config.shift, 2)
        angle = rng.uniform(0, 2 * np.pi) if config.rotate else np.pi / 2 * rng.integers(4)
        scale = np.exp(rng.uniform(-1, 1) * np.log(config.zoom))
        cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
        mirrored = np.array([[cos, -sin], [sin, cos]]) * (1, rng.choice([-1, 1]))
        for channel in range(images.shape[3]):
            offset = middle - mirrored @ (middle + shift)
            # With this mode rounding at the edge loses no pixel.
            options = {"output": view[..., channel], "order": 1, "mode": "grid-constant"}
            affine_transform(image[..., channel], mirrored, offset, **options)
    return out


def learning_rates(params: Params, config: FineTuneConfig) -> Params:
    """Return the learning rate of each leaf over that of the last stage: lower towards the input, higher in the head.

    Blocks are the parts of the backbone that are numbered; what lies before them is one step further down, the last
    norm and pooling are as the last block.
    """
    backbone = params["backbone"]
    blocks = sorted((name for name in backbone if _BLOCK.match(name)), key=_numbers)

    def rate(name: str) -> float:
        behind = len(blocks) - 1 - blocks.index(name) if name in blocks else 0 if name in _LAST else len(blocks)
        return config.layer_decay**behind

    own = {name: jax.tree.map(lambda _, name=name: rate(name), part) for name, part in backbone.items()}
    return {"backbone": own, "head": jax.tree.map(lambda _: config.head_rate, params["head"])}


def _numbers(name: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", name)]


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=(2, 3))
def _step(
    model: DINOModel,
    config: FineTuneConfig,
    params: Params,
    state: optax.OptState,
    stats: Variables,
    images: jax.Array,
    label: jax.Array,
) -> tuple[Params, optax.OptState]:
    def loss(params: Params) -> jax.Array:
        logits = _logits(model, {"params": params["backbone"], "batch_stats": stats}, params["head"], images)
        target = optax.smooth_labels(jax.nn.one_hot(label, logits.shape[1]), config.smoothing)
        return jnp.mean(optax.softmax_cross_entropy(logits, target))

    grads = jax.grad(loss)(params)
    # optax raises a float to the power of its step count, which strict promotion of dtypes refuses.
    with jax.numpy_dtype_promotion("standard"):
        updates, state = _optimizer(config).update(grads, state, params)
    return optax.apply_updates(params, updates), state


def _logits(model: DINOModel, variables: Variables, head: Head, images: jax.Array) -> jax.Array:
    return joined_tokens(model, variables, images) @ head["kernel"] + head["bias"][None]


_compiled_logits = partial(jax.jit, static_argnums=0)(_logits)


def _probabilities(
    model: DINOModel, variables: Variables, head: Head, images: np.ndarray, batch_size: int
) -> np.ndarray:
    """Return the mean probabilities [n, classes] over the eight symmetries of the square."""
    mean = np.zeros((len(images), head["bias"].shape[0]), np.float32)
    for start in range(0, len(images), batch_size):
        part = images[start : start + batch_size]
        padded = np.pad(part, [(0, batch_size - len(part))] + [(0, 0)] * 3)  # one shape is compiled
        for turn in range(TURNS):
            views = np.stack([turned(image, turn) for image in padded])
            logits = np.asarray(_compiled_logits(model, variables, head, views))[: len(part)]
            mean[start : start + len(part)] += np.asarray(jax.nn.softmax(logits)) / TURNS
    return mean


@dataclass(frozen=True, eq=False)
class FineTuning:
    """Accuracy of a network that is trained further with labels, from each of several weights.

    Parameters
    ----------
    model : DINOModel
    starts : sequence of dict
        Variables of the backbone to start from: seed i starts from number i, and from the first again after the last.
    shares : sequence of float
        Of the training labels.
    folds : int
    config : FineTuneConfig
    folder : Path, optional
        Where finished trainings are kept, which are not done again.
    """

    model: DINOModel
    starts: Sequence[Variables]
    shares: Sequence[float] = (1.0,)
    folds: int = 5
    config: FineTuneConfig = field(default_factory=FineTuneConfig)
    folder: Path | None = None

    def run(self, train: Samples, test: Samples | None = None, seeds: Sequence[int] = range(5)) -> Pairs:
        """Yield "accuracy" and "balanced accuracy" after each training, setting "fine-tuned"; x is the share of labels.

        Inputs are images [n, y, x, channel]. Without a test set seed i tests on fold i of its own folds alone.
        """
        names, number = np.unique(train.label, return_inverse=True)
        for seed in seeds:
            rows, queries = np.arange(len(train)), test
            if queries is None:
                fold = validation_folds(train.label, train.group, self.folds, seed)
                rows, queries = np.flatnonzero(fold != seed % self.folds), train.take(fold == seed % self.folds)
            start = self.starts[seed % len(self.starts)]
            for share in self.shares:
                few = rows[few_labels(train.label[rows], share_or_count(share), seed)]
                training = train.inputs[few], number[few], len(names), self.config, seed
                inputs = (start, training, queries.inputs, repr(self.model))
                chance = kept(self.folder, inputs, lambda: self._tuned(start, training, queries.inputs))  # noqa: B023
                predicted = names[chance.argmax(axis=1)]
                for name, value in accuracies("fine-tuned", share, seed, queries.label, predicted):
                    yield replace(name, count=0), value

    def _tuned(
        self, start: Variables, training: tuple[np.ndarray, np.ndarray, int, FineTuneConfig, int], pictures: np.ndarray
    ) -> np.ndarray:
        return fine_tune(self.model, start, *training)(pictures)
