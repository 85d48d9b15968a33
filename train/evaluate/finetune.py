"""A network trained further with labels: fine-tuning, and from random weights the supervised baseline.

The classifier is one linear layer on the vector that `vis2img.train.embed.patches` gives; everything is trained.
Pictures are turned, mirrored and moved by a few pixels at random, labels are smoothed (Szegedy et al. 2016,
arXiv:1512.00567), and the prediction of a picture is the mean over the eight symmetries of the square.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vis2img.errors import ParameterError
from vis2img.models.dino_head import DINOModel
from vis2img.train.embed.patches import Variables, joined_tokens
from vis2img.train.evaluate.classification import accuracies
from vis2img.train.evaluate.folds import Samples, few_labels, share_or_count, validation_folds
from vis2img.train.evaluate.scores import Pairs
from vis2img.views.crops import TURNS, turned

Head = dict[str, jax.Array]
Params = dict[str, Any]  # of backbone and head


@dataclass(frozen=True)
class FineTuneConfig:
    """How a network is trained with labels."""

    steps: int = 300
    """Steps, whatever the number of labels: with few, each picture comes often."""
    batch_size: int = 32
    """Pictures a step."""
    lr: float = 5e-4
    """Peak learning rate; it rises for a tenth of the steps and falls as half a cosine."""
    weight_decay: float = 0.05
    """Of AdamW, matrices alone."""
    smoothing: float = 0.1
    """Of the labels, in [0, 1)."""
    shift: int = 4
    """Largest shift of a picture along each axis [pixel]; what leaves at one side is lost, zeros come in."""

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size) < 1 or self.shift < 0:
            raise ParameterError("fine-tuning needs steps and batch_size of at least 1 and shift of at least 0")
        if not (self.lr > 0 and self.weight_decay >= 0 and 0 <= self.smoothing < 1):
            raise ParameterError("fine-tuning needs lr above 0, weight_decay of at least 0, smoothing in [0, 1)")


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
        batch = _augmented(images[rows], config.shift, rng), label[rows]
        params, state = _step(model, config, params, state, stats, *batch)

    tuned = {"params": params["backbone"], "batch_stats": stats}
    return lambda others: _probabilities(model, tuned, params["head"], others, config.batch_size)


def _optimizer(config: FineTuneConfig) -> optax.GradientTransformation:
    warm = max(1, config.steps // 10)
    rate = optax.warmup_cosine_decay_schedule(0.0, config.lr, warm, max(config.steps, warm + 1))
    matrices = partial(jax.tree.map, lambda x: x.ndim > 1)
    adamw = optax.adamw(rate, weight_decay=config.weight_decay, mask=matrices)
    return optax.chain(optax.clip_by_global_norm(3.0), adamw)


def _batches(rng: np.random.Generator, count: int, config: FineTuneConfig) -> list[np.ndarray]:
    """Return rows [steps] of [batch_size]: every picture once before any comes again."""
    total = config.steps * config.batch_size
    order = np.concatenate([rng.permutation(count) for _ in range(-(-total // count))])
    return list(order[:total].reshape(config.steps, config.batch_size))


def _augmented(images: np.ndarray, shift: int, rng: np.random.Generator) -> np.ndarray:
    """Return pictures turned, mirrored and moved at random."""
    size = images.shape[1]
    padded = np.pad(images, [(0, 0), (shift, shift), (shift, shift), (0, 0)])
    corners = rng.integers(0, 2 * shift + 1, size=(len(images), 2))
    turns = rng.integers(TURNS, size=len(images))
    cut = [turned(p[y : y + size, x : x + size], int(t)) for p, (y, x), t in zip(padded, corners, turns, strict=True)]
    return np.stack(cut)


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
    """

    model: DINOModel
    starts: Sequence[Variables]
    shares: Sequence[float] = (1.0,)
    folds: int = 5
    config: FineTuneConfig = field(default_factory=FineTuneConfig)

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
                predict = fine_tune(self.model, start, train.inputs[few], number[few], len(names), self.config, seed)
                predicted = names[predict(queries.inputs).argmax(axis=1)]
                for name, value in accuracies("fine-tuned", share, seed, queries.label, predicted):
                    yield replace(name, count=0), value
