"""BYOL: the loss against loops, the head against NumPy, and a few real steps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vis2img.models.byol_head import BYOLHead
from vis2img.models.dino_head import DINOModel
from vis2img.models.vit import ViT
from vis2img.train.config import OptimConfig
from vis2img.train.objectives.byol import byol_loss
from vis2img.train.state import create_state
from vis2img.train.step import train_step

STEPS = 12


def np_loss(predictions, projections):
    pairs = []
    for q in range(len(projections)):
        for v in range(len(predictions)):
            if v == q:
                continue
            for b in range(predictions.shape[1]):
                p, z = predictions[v, b], projections[q, b]
                p, z = p / np.sqrt((p**2).sum()), z / np.sqrt((z**2).sum())
                pairs.append(((p - z) ** 2).sum())
    return np.mean(pairs)


def vectors(n_views, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_views, 3, 5)), rng.normal(size=(2, 3, 5)) * 7.0


@pytest.mark.parametrize("n_views", [2, 5])
def test_loss_is_the_mean_over_pairs(n_views):
    predictions, projections = vectors(n_views)
    loss = byol_loss(jnp.asarray(predictions, jnp.float32), jnp.asarray(projections, jnp.float32), n_global=2)
    np.testing.assert_allclose(loss, np_loss(predictions, projections), rtol=1e-5)


def test_loss_is_0_in_agreement_and_4_in_contradiction():
    same = jnp.broadcast_to(jnp.asarray(vectors(2)[0][0], jnp.float32), (2, 3, 5))
    assert float(byol_loss(3.0 * same, same, n_global=2)) == pytest.approx(0.0, abs=1e-6)
    assert float(byol_loss(-same, same, n_global=2)) == pytest.approx(4.0)


def test_no_gradient_flows_into_the_teacher():
    both = (jnp.asarray(x, jnp.float32) for x in vectors(3))
    by_student, by_teacher = jax.grad(partial(byol_loss, n_global=2), argnums=(0, 1))(*both)
    assert np.abs(by_student).min() > 0.0 and not np.any(by_teacher)


def test_views_that_cannot_be_paired_are_refused():
    predictions, projections = vectors(2)
    with pytest.raises(ValueError, match="do not match"):
        byol_loss(predictions, projections[:1], n_global=2)
    with pytest.raises(ValueError, match="at least two views"):
        byol_loss(predictions[:1], projections[:1], n_global=1)


def np_mlp(x, params, name, mean=None, var=None):
    """Linear, batch normalisation, ReLU, linear; returns the batch's mean and variance beside the result."""
    first, norm, second = (params[f"{name}{part}"] for part in ("0", "_bn", "1"))
    y = x @ first["kernel"] + first["bias"]
    found = y.mean(0), ((y - y.mean(0)) ** 2).mean(0)
    mean, var = found if mean is None else (mean, var)
    y = np.maximum((y - mean) / np.sqrt(var + 1e-5) * norm["scale"] + norm["bias"], 0.0)
    return y @ second["kernel"] + second["bias"], found


@pytest.fixture(scope="module")
def head():
    module, rng = BYOLHead(out_dim=4, hidden=8), np.random.default_rng(1)
    x = rng.normal(1.0, 2.0, (6, 5))
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((6, 5)))
    # Positive numbers, as some are variances.
    variables = jax.tree.map(lambda s: rng.uniform(0.2, 1.2, s.shape), shapes)
    # Kernels of either sign, so that the ReLU cuts.
    variables["params"] = jax.tree.map(lambda p: p - 0.7 if p.ndim > 1 else p, variables["params"])
    return module, variables, x


def as_float32(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def test_head_in_training_normalises_by_the_batch(head):
    module, variables, x = head
    result, changed = module.apply(as_float32(variables), as_float32(x), train=True, mutable=["batch_stats"])
    params, before = variables["params"], variables["batch_stats"]
    projection, of_projector = np_mlp(x, params, "projector")
    prediction, of_predictor = np_mlp(projection, params, "predictor")
    np.testing.assert_allclose(result, prediction, rtol=1e-3, atol=1e-4)
    for name, (mean, var) in (("projector_bn", of_projector), ("predictor_bn", of_predictor)):
        after = changed["batch_stats"][name]
        np.testing.assert_allclose(after["mean"], 0.9 * before[name]["mean"] + 0.1 * mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(after["var"], 0.9 * before[name]["var"] + 0.1 * var, rtol=1e-4, atol=1e-5)


def test_head_in_evaluation_normalises_by_its_statistics(head):
    module, variables, x = head
    params, stats = variables["params"], variables["batch_stats"]
    result = module.apply(as_float32(variables), as_float32(x))
    projection, _ = np_mlp(x, params, "projector", **stats["projector_bn"])
    prediction, _ = np_mlp(projection, params, "predictor", **stats["predictor_bn"])
    np.testing.assert_allclose(result, prediction, rtol=1e-3, atol=1e-4)
    teacher = module.apply(as_float32(variables), as_float32(x), student=False)
    np.testing.assert_allclose(teacher, projection, rtol=1e-3, atol=1e-4)


# Dropped paths would hide a falling loss behind their noise.
BACKBONE = ViT(patch=4, dim=24, depth=2, heads=2, img_size=8)


@pytest.fixture(scope="module")
def run(quick_jit, make_batch):
    """Step, batches, and the states and metrics of some steps on two batches in turn."""
    model = DINOModel(BACKBONE, BYOLHead(out_dim=8, hidden=32))
    optim = OptimConfig(
        objective="byol", base_lr=0.032, warmup_steps=0, clip_grad=0.0, momentum_teacher=0.95, weight_decay_end=0.04
    )
    step = quick_jit(partial(train_step, model=model, optim=optim, total_steps=10 * STEPS))
    initial = create_state(jax.random.key(0), model, optim, (8, 8, 1))
    batches = [make_batch(0), make_batch(1)]
    states, rows = [initial], []
    for i in range(STEPS):
        state, metrics = step(states[-1], batches[i % 2])
        states.append(state)
        rows.append({name: float(x) for name, x in metrics.items()})
    return step, batches, states, rows


def test_training_lowers_the_loss_without_collapse(run):
    rows = run[3]
    assert all(row["finite"] == 1.0 for row in rows)

    def ends(name):
        return (np.mean([row[name] for row in some]) for some in (rows[:2], rows[-2:]))

    first, last = ends("loss")
    assert last < 0.7 * first
    first, last = ends("feature_std")
    assert last > 0.8 * first > 0.1
    assert set(rows[0]) == {"loss", "feature_std", "grad_norm", "lr", "wd", "momentum", "teacher_temp", "finite"}


def shifted(tree, name):
    """A copy of a network's parameters with another ``name`` in the head."""
    part = jax.tree.map(lambda x: x[::-1] + 0.1, tree["head"][name])
    return {**tree, "head": {**tree["head"], name: part}}


def test_the_predictor_is_the_students_alone(run):
    step, (batch, _), states, rows = run
    state = states[0]

    def loss(**changes):
        return float(step(state.replace(**changes), batch)[1]["loss"])

    assert loss(teacher=shifted(state.teacher, "predictor1")) == rows[0]["loss"]
    assert loss(teacher=shifted(state.teacher, "projector1")) != rows[0]["loss"]
    assert loss(params=shifted(state.params, "predictor1")) != rows[0]["loss"]


def test_batch_statistics_move_where_they_are_used(run):
    states = run[2]

    def moved(role, name):
        before, after = (state.stats[role]["head"][name] for state in (states[0], states[1]))
        return all(np.abs(after[key] - before[key]).min() > 0.0 for key in ("mean", "var"))

    assert moved("student", "projector_bn") and moved("student", "predictor_bn") and moved("teacher", "projector_bn")
    assert not moved("teacher", "predictor_bn")
    student, teacher = (states[-1].stats[role]["head"]["projector_bn"]["mean"] for role in ("student", "teacher"))
    assert np.abs(student - teacher).max() > 1e-4


def test_each_role_has_the_running_statistics_of_what_it_saw(run, quick_jit):
    """Over two steps: the teacher's of the global views under its own weights, the student's of all views."""
    _, batches, states, _ = run
    embed = quick_jit(lambda params, x: BACKBONE.apply({"params": params}, x)[0])
    for role, names in (("teacher", ("global",)), ("student", ("global", "local"))):
        mean, var = np.zeros(32), np.ones(32)
        for i in range(2):
            params = states[i].teacher if role == "teacher" else states[i].params
            tokens = [embed(params["backbone"], x.reshape(-1, *x.shape[2:])) for x in (batches[i][n] for n in names)]
            first = params["head"]["projector0"]
            y = np.concatenate(tokens).astype(np.float64) @ np.asarray(first["kernel"]) + np.asarray(first["bias"])
            mean, var = 0.9 * mean + 0.1 * y.mean(0), 0.9 * var + 0.1 * ((y - y.mean(0)) ** 2).mean(0)
            found = states[i + 1].stats[role]["head"]["projector_bn"]
            np.testing.assert_allclose(found["mean"], mean, rtol=1e-3, atol=1e-6)
            np.testing.assert_allclose(found["var"], var, rtol=1e-4)


def test_the_teacher_follows_the_student(run):
    before, after = run[2][:2]
    for old, student, new in zip(
        *(jax.tree.leaves(t) for t in (before.teacher, after.params, after.teacher)), strict=True
    ):
        np.testing.assert_allclose(new, 0.95 * np.asarray(old) + 0.05 * np.asarray(student), atol=1e-6)
