"""SimCLR: the loss against loops, on any number of devices, and real steps of the student alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from vis2img.errors import ParameterError
from vis2img.models.dino_head import DINOModel
from vis2img.models.projector import Projector
from vis2img.models.vit import ViT
from vis2img.train.config import ModelConfig, OptimConfig
from vis2img.train.objectives.simclr import simclr_loss
from vis2img.train.parallel import make_parallel_step, replicate, shard, unreplicate
from vis2img.train.state import build_model, create_state
from vis2img.train.step import train_step

STEPS, BATCH, TEMPERATURE = 12, 8, 0.2


def slow_loss(z, n_global):
    """Equation 1 of the paper, a view at a time: mean over pairs, and how often the likest other view is a positive."""
    n_views, batch, _ = z.shape
    unit = (z / z.norm(dim=-1, keepdim=True)).reshape(n_views * batch, -1)  # view v of sample b at v * batch + b
    losses, hits = [], []
    for row in range(n_views * batch):
        others = [key for key in range(n_global * batch) if key != row]
        weights = torch.exp(unit[others] @ unit[row] / TEMPERATURE)
        positive = torch.tensor([key % batch == row % batch for key in others])
        losses.append(-torch.log(weights[positive] / weights.sum()))
        hits.append(bool(positive[int(weights.argmax())]))
    return torch.cat(losses).mean(), np.mean(hits)


@pytest.mark.parametrize(("n_views", "n_global", "counts"), [(2, 2, (1,)), (3, 2, (1, 2, 8)), (2, 1, (1,))])
def test_loss_and_gradient_are_those_of_the_paper_on_any_number_of_devices(n_views, n_global, counts, quick_jit):
    z = np.random.default_rng(n_views).normal(size=(n_views, BATCH, 5)) * 3.0
    slow = torch.tensor(z, requires_grad=True)
    expected, hits = slow_loss(slow, n_global)
    expected.backward()

    loss = partial(simclr_loss, n_global=n_global, temperature=TEMPERATURE, axis_name="device")
    run = quick_jit(jax.vmap(jax.value_and_grad(loss, has_aux=True), axis_name="device"))
    for devices in counts:
        shares = np.moveaxis(z.reshape(n_views, devices, -1, 5), 1, 0).astype(np.float32)
        (value, accuracy), gradient = run(shares)
        np.testing.assert_allclose(np.mean(value), expected.item(), rtol=1e-5)
        assert np.mean(accuracy) == pytest.approx(hits)
        # Averaged over devices, as a step does.
        found = np.moveaxis(np.asarray(gradient), 0, 1).reshape(z.shape) / devices
        np.testing.assert_allclose(found, slow.grad, rtol=1e-3, atol=1e-6)


def test_views_that_cannot_be_paired_are_refused():
    with pytest.raises(ValueError, match="at least two views"):
        simclr_loss(jnp.ones((1, 3, 5)), n_global=1, temperature=0.1)


def test_parts_of_a_batch_are_refused():
    with pytest.raises(ParameterError, match=r"optim\.accumulate = 2 with optim\.objective simclr.*set it to 1"):
        OptimConfig(objective="simclr", accumulate=2)


def test_projector_is_one_hidden_layer_with_relu():
    config = ModelConfig(variant="micro", hidden=16, bottleneck=8)
    head = build_model(config, 16, OptimConfig(objective="simclr")).head
    assert head == Projector(8, 16)
    x = np.random.default_rng(0).normal(size=(6, 5))
    params = head.init(jax.random.key(0), jnp.zeros((6, 5)))["params"]
    first, second = (jax.tree.map(lambda p: np.asarray(p, np.float64), params[name]) for name in ("mlp0", "mlp1"))
    first["bias"] += 0.01
    params = {"mlp0": {**params["mlp0"], "bias": params["mlp0"]["bias"] + 0.01}, "mlp1": params["mlp1"]}
    hidden = np.maximum(x @ first["kernel"] + first["bias"], 0.0)
    expected = hidden @ second["kernel"] + second["bias"]
    assert set(params) == {"mlp0", "mlp1"} and (hidden == 0.0).any()
    np.testing.assert_allclose(head.apply({"params": params}, jnp.asarray(x, jnp.float32)), expected, rtol=1e-4)


MODEL = DINOModel(ViT(patch=4, dim=24, depth=1, heads=2, img_size=8), Projector(8, 32))
OPTIM = OptimConfig(
    objective="simclr", base_lr=0.064, warmup_steps=0, momentum_teacher=0.9, weight_decay=0.05, weight_decay_end=0.05
)


@pytest.fixture(scope="module")
def run(quick_jit):
    """Step, batch, and the states and metrics of some steps."""
    step = quick_jit(partial(train_step, model=MODEL, optim=OPTIM, total_steps=10 * STEPS))
    # Two noisy pictures of each thing.
    rng = np.random.default_rng(0)
    batch = {"global": (rng.normal(size=(1, BATCH, 8, 8, 1)) + rng.normal(size=(2, BATCH, 8, 8, 1))).astype(np.float32)}
    states, rows = [create_state(jax.random.key(0), MODEL, OPTIM, (8, 8, 1))], []
    for _ in range(STEPS):
        state, metrics = step(states[-1], batch)
        states.append(state)
        rows.append({name: float(x) for name, x in metrics.items()})
    return step, batch, states, rows


def test_training_tells_samples_apart(run):
    rows = run[3]
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"] and rows[-1]["accuracy"] > max(0.8, rows[0]["accuracy"])
    assert rows[0]["loss"] == pytest.approx(np.log(2 * BATCH - 1), rel=0.3)
    assert set(rows[0]) == {
        *("loss", "accuracy", "same_sky", "feature_std", "grad_norm", "lr", "wd", "momentum", "teacher_temp", "finite")
    }


def test_the_student_is_alone_and_its_average_forgets_where_it_began(run):
    step, batch, states, _ = run
    # Without a teacher's pass, what is in its place cannot matter.
    spoiled = states[0].replace(teacher=jax.tree.map(lambda x: x * jnp.nan, states[0].teacher))
    after, metrics = step(spoiled, batch)
    assert float(metrics["finite"]) == 1.0
    jax.tree.map(np.testing.assert_array_equal, after.params, states[1].params)

    average = jax.tree.leaves(states[0].params)
    for i, state in enumerate(states[1:]):
        m = min(0.9, (1 + i) / (10 + i))
        pairs = zip(average, jax.tree.leaves(state.params), strict=True)
        average = [m * np.asarray(a) + (1 - m) * np.asarray(p) for a, p in pairs]
        for found, expected in zip(jax.tree.leaves(state.teacher), average, strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-6)


def test_two_devices_take_the_step_of_one(run):
    _, batch, states, rows = run
    step = make_parallel_step(MODEL, OPTIM, total_steps=10 * STEPS, n_devices=2)
    state, _ = step(replicate(states[0], 2), shard(batch, 2))
    _, metrics = step(state, shard(batch, 2))
    for name in ("loss", "accuracy", "feature_std"):
        assert float(unreplicate(metrics)[name]) == pytest.approx(rows[1][name], rel=1e-4)
