"""The objectives that a run can choose from, in one form: what the networks gave in, the loss and its company out."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Float32, Key

from vis2img.models.layers import Array
from vis2img.train.config import OptimConfig
from vis2img.train.objectives.byol import byol_loss
from vis2img.train.objectives.clusters import cluster_loss
from vis2img.train.objectives.dino import dino_loss
from vis2img.train.objectives.forward import Views
from vis2img.train.objectives.lejepa import lejepa_terms
from vis2img.train.objectives.same_sky import same_sky
from vis2img.train.objectives.simclr import simclr_loss
from vis2img.train.objectives.simdino import simdino_terms
from vis2img.train.objectives.vicreg import vicreg_terms

Metrics = dict[str, Float32[Array, ""]]


class Given(NamedTuple):
    """What an objective is worked out from; all of this device and of this part of the batch.

    Attributes
    ----------
    student
        Of all views, the ``n_global`` global ones first.
    teacher
        Of the global views; none: `vis2img.train.config.OptimConfig.has_teacher`.
    n_global
        Number of global views.
    batch
        What travels with the samples besides their views.
    centre
        Moving average of the teacher's logits before this batch.
    key
        Random key of this step, the same on all devices.
    optim, teacher_temp, axis_name
        As in `vis2img.train.step.train_step`.
    """

    student: Views
    teacher: Views | None
    n_global: int
    batch: Mapping[str, Array]
    centre: Float32[Array, " out"]
    key: Key[Array, ""]
    optim: OptimConfig
    teacher_temp: Float32[Array, ""]
    axis_name: str | None


class Value(NamedTuple):
    """What an objective gives.

    Attributes
    ----------
    loss
        Mean over the samples of this device.
    means
        Other metrics to average over devices and parts.
    centre
        As it is after the batch.
    winners
        1 for the prototypes in use.
    """

    loss: Float32[Array, ""]
    means: Metrics
    centre: Float32[Array, " out"]
    winners: Float32[Array, " out"]


Objective = Callable[[Given], Value]


def settings_of_answers(given: Given) -> dict[str, Any]:
    """Settings that DINO's loss of views and iBOT's of patches share."""
    return {
        "student_temp": given.optim.student_temp,
        "teacher_temp": given.teacher_temp,
        "centre_momentum": given.optim.centre_momentum,
        "centring": given.optim.centring,
        "axis_name": given.axis_name,
    }


def _dino(given: Given) -> Value:
    settings = settings_of_answers(given)
    logits = given.student.logits, _teacher(given).logits
    loss, centre, stats = dino_loss(*logits, given.centre, n_global=given.n_global, **settings)
    winners = stats.pop("winners")
    return Value(loss, stats, centre, winners)


def _byol(given: Given) -> Value:
    return _value(given, byol_loss(given.student.logits, _teacher(given).logits, n_global=given.n_global))


def _simclr(given: Given) -> Value:
    same = same_sky(given.batch, given.optim.same_sky, given.axis_name)
    loss, accuracy = simclr_loss(
        given.student.logits,
        n_global=given.n_global,
        temperature=given.optim.temperature,
        same=same,
        axis_name=given.axis_name,
    )
    # Each sample shows the same sky as itself.
    left_out = (jnp.sum(same, axis=1).astype(jnp.float32) - 1.0) / max(same.shape[1] - 1, 1)
    return _value(given, loss, accuracy=accuracy, same_sky=jnp.mean(left_out))


def _vicreg(given: Given) -> Value:
    terms = vicreg_terms(given.student.logits, n_global=given.n_global, axis_name=given.axis_name)
    weights = given.optim.vicreg
    loss = sum((weight * term for weight, term in zip(weights, terms, strict=True)), jnp.float32(0.0))
    return _value(given, loss, **terms._asdict())


def _simdino(given: Given) -> Value:
    distance, rate = simdino_terms(given.student.logits, _teacher(given).logits, axis_name=given.axis_name)
    return _value(given, distance - given.optim.coding_rate * rate, invariance=distance, coding_rate=rate)


def _lejepa(given: Given) -> Value:
    distance, gaussian = lejepa_terms(
        given.student.logits, given.key, n_global=given.n_global, axis_name=given.axis_name
    )
    weight = given.optim.sigreg
    return _value(given, (1.0 - weight) * distance + weight * gaussian, invariance=distance, sigreg=gaussian)


def _clusters(given: Given) -> Value:
    loss, accuracy = cluster_loss(given.student.logits, given.batch["codes"], given.optim.clusters)
    return _value(given, loss, accuracy=accuracy)


def _teacher(given: Given) -> Views:
    assert given.teacher is not None
    return given.teacher


def _value(given: Given, loss: Float32[Array, ""], **means: Float32[Array, ""]) -> Value:
    """Value of an objective without prototypes."""
    return Value(loss, means, given.centre, jnp.zeros_like(given.centre))


OBJECTIVES: dict[str, Objective] = {
    "dino": _dino,
    "byol": _byol,
    "simclr": _simclr,
    "vicreg": _vicreg,
    "simdino": _simdino,
    "lejepa": _lejepa,
    "clusters": _clusters,
}
