"""A network trained further with labels: fine-tuning, and from random weights the supervised baseline.

The classifier is one linear layer on the vector that `vis2img.train.embed.patches` gives;
everything is trained. Pictures are turned,
mirrored and moved by a few pixels at random, labels are smoothed (Szegedy et al. 2016, arXiv:1512.00567), and what is
told of a picture is the mean over the eight symmetries of the square.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vis2img.errors import ParameterError
from vis2img.train.embed.patches import joined_tokens
from vis2img.train.evaluate.folds import few_labels, validation_folds
from vis2img.train.evaluate.scores import Score
from vis2img.views.crops import TURNS, turned

Variables = Any


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
    model: Any,
    variables: Variables,
    images: np.ndarray,
    label: np.ndarray,
    classes: int,
    config: FineTuneConfig,
    seed: int,
) -> Callable[[np.ndarray], np.ndarray]:
    """Train a classifier with its backbone, and return what it makes of other pictures.

    Parameters
    ----------
    model : DINOModel
    variables : dict
        Of the backbone to start from; it is left alone.
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
    wanted = config.steps * config.batch_size
    order = np.concatenate([rng.permutation(count) for _ in range(-(-wanted // count))])
    return list(order[:wanted].reshape(config.steps, config.batch_size))


def _augmented(images: np.ndarray, shift: int, rng: np.random.Generator) -> np.ndarray:
    """Return pictures turned, mirrored and moved at random."""
    size = images.shape[1]
    padded = np.pad(images, [(0, 0), (shift, shift), (shift, shift), (0, 0)])
    corners = rng.integers(0, 2 * shift + 1, size=(len(images), 2))
    turns = rng.integers(TURNS, size=len(images))
    cut = [turned(p[y : y + size, x : x + size], t) for p, (y, x), t in zip(padded, corners, turns, strict=True)]
    return np.stack(cut)


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=(2, 3))
def _step(
    model: Any, config: FineTuneConfig, params: Any, state: Any, stats: Any, images: jax.Array, label: jax.Array
) -> tuple[Any, Any]:
    def loss(params: Any) -> jax.Array:
        logits = _logits(model, {"params": params["backbone"], "batch_stats": stats}, params["head"], images)
        wanted = optax.smooth_labels(jax.nn.one_hot(label, logits.shape[1]), config.smoothing)
        return jnp.mean(optax.softmax_cross_entropy(logits, wanted))

    updates, state = _optimizer(config).update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state


def _logits(model: Any, variables: Variables, head: Any, images: jax.Array) -> jax.Array:
    return joined_tokens(model, variables, images) @ head["kernel"] + head["bias"]


_compiled_logits = partial(jax.jit, static_argnums=0)(_logits)


def _probabilities(model: Any, variables: Variables, head: Any, images: np.ndarray, batch_size: int) -> np.ndarray:
    """Return the mean probabilities [n, classes] over the eight symmetries of the square."""
    found = np.zeros((len(images), head["bias"].shape[0]), np.float32)
    for start in range(0, len(images), batch_size):
        part = images[start : start + batch_size]
        padded = np.pad(part, [(0, batch_size - len(part))] + [(0, 0)] * 3)  # one shape is compiled
        for turn in range(TURNS):
            views = np.stack([turned(image, turn) for image in padded])
            logits = np.asarray(_compiled_logits(model, variables, head, views))[: len(part)]
            found[start : start + len(part)] += np.asarray(jax.nn.softmax(logits)) / TURNS
    return found


def fine_tuned(
    representation: str,
    model: Any,
    variables: Mapping[int, Variables],
    images: np.ndarray,
    label: np.ndarray,
    group: np.ndarray,
    test: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    shares: Sequence[float] = (1.0,),
    folds: int = 5,
    config: FineTuneConfig | None = None,
    progress: Callable[[], None] | None = None,
) -> list[Score]:
    """Score fine-tuning from each of ``variables``, by their seeds.

    Parameters
    ----------
    representation : str
        Name in the table.
    model : DINOModel
    variables : dict of int to dict
        Of the backbone, for each seed.
    images : float32 [n, y, x, channel]
    label : [n]
        Class.
    group : int [n]
        What must not be in training and test at once.
    test : (images, label), optional
        What to test on; by default seed i tests on fold i of its own folds, and trains on the others.
    shares : sequence of float
        Of the training labels.
    folds : int
    config : FineTuneConfig, optional
    progress : callable, optional
        Called after each training.

    Returns
    -------
    list of Score
        Setting "fine-tuned"; "accuracy" and "balanced accuracy", x is the share of labels.
    """
    from sklearn.metrics import accuracy_score, balanced_accuracy_score

    names, number = np.unique(label, return_inverse=True)
    scores = []
    for seed, start in variables.items():
        train = np.arange(len(label))
        asked = test
        if asked is None:
            fold = validation_folds(label, group, folds, seed)
            train, held_out = np.flatnonzero(fold != seed % folds), fold == seed % folds
            asked = images[held_out], label[held_out]
        for share in shares:
            few = train[few_labels(label[train], share, seed)]
            tuned = fine_tune(model, start, images[few], number[few], len(names), config or FineTuneConfig(), seed)
            guess = names[tuned(asked[0]).argmax(axis=1)]
            for metric, score in (("accuracy", accuracy_score), ("balanced accuracy", balanced_accuracy_score)):
                value = float(score(asked[1], guess))
                scores.append(Score("classification", representation, "fine-tuned", metric, share, seed, value))
            if progress:
                progress()
    return scores
