"""VICReg, SimDINO and LeJEPA: losses and gradients against written-out forms in float64, on any number of devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from tests.helpers.objectives import on_devices
from vis2img.errors import ParameterError
from vis2img.models.dino_head import DINOModel
from vis2img.models.projector import Projector
from vis2img.models.vit import ViT
from vis2img.train.config import OptimConfig
from vis2img.train.objectives.lejepa import SLICES, lejepa_terms
from vis2img.train.objectives.simdino import coding_rate, simdino_terms
from vis2img.train.objectives.vicreg import vicreg_terms
from vis2img.train.parallel import make_parallel_step, replicate, shard, unreplicate
from vis2img.train.state import create_state

VIEWS, GLOBAL, BATCH, WIDTH = 3, 2, 8, 5
KEY = jax.random.key(3)
TEACHER = np.random.default_rng(9).normal(size=(GLOBAL, BATCH, WIDTH))


def pairs():
    return [(v, q) for v in range(VIEWS) for q in range(GLOBAL) if v != q]


def slow_vicreg(z):
    invariance = torch.stack([((z[v] - z[q]) ** 2).mean() for v, q in pairs()]).mean()
    variance = covariance = 0.0
    for view in z[:GLOBAL]:
        variance = variance + torch.relu(1.0 - torch.sqrt(view.var(dim=0) + 1e-4)).mean()
        matrix = torch.cov(view.T)
        covariance = covariance + (matrix[~torch.eye(WIDTH, dtype=torch.bool)] ** 2).sum() / WIDTH
    return 25.0 * invariance + 10.0 * variance + 2.0 * covariance


def vicreg(z):
    terms = vicreg_terms(z, n_global=GLOBAL, axis_name="device")
    return 25.0 * terms.invariance + 10.0 * terms.variance + 2.0 * terms.covariance, terms


def slow_simdino(z):
    unit = z / z.norm(dim=-1, keepdim=True)
    teacher = torch.tensor(TEACHER / np.linalg.norm(TEACHER, axis=-1, keepdims=True))
    distance = torch.stack([0.5 * ((unit[v] - teacher[q]) ** 2).sum(-1).mean() for v, q in pairs()]).mean()
    grams = [view.T @ view for view in unit[:GLOBAL]]
    rates = [torch.logdet(torch.eye(WIDTH, dtype=z.dtype) + WIDTH / (BATCH * 0.5) * gram) for gram in grams]
    return distance - (WIDTH + BATCH) / (WIDTH * BATCH) * torch.stack(rates).mean()


def simdino(z):
    # The share of this device of what the teacher says, too.
    first, size = jax.lax.axis_index("device") * z.shape[1], z.shape[1]
    teacher = jax.lax.dynamic_slice_in_dim(jnp.asarray(TEACHER, jnp.float32), first, size, axis=1)
    distance, rate = simdino_terms(z, teacher, axis_name="device")
    return distance - rate, rate


def slow_lejepa(z):
    middle = z[:GLOBAL].mean(dim=0)
    normal = np.asarray(jax.random.normal(KEY, (WIDTH, SLICES)), np.float64)
    directions = torch.tensor(normal / np.linalg.norm(normal, axis=0))
    t = torch.linspace(-5.0, 5.0, 17, dtype=z.dtype)
    gaussian = torch.exp(-0.5 * t**2)
    statistics = []
    for view in z:
        empirical = torch.exp(1j * (view @ directions)[..., None] * t).mean(dim=0)
        statistics.append(BATCH * torch.trapezoid((empirical - gaussian).abs() ** 2 * gaussian, t, dim=1))
    return 0.8 * ((z - middle) ** 2).mean() + 0.2 * torch.stack(statistics).mean()


def lejepa(z):
    distance, gaussian = lejepa_terms(z, KEY, n_global=GLOBAL, axis_name="device")
    return 0.8 * distance + 0.2 * gaussian, gaussian


@pytest.mark.parametrize(
    ("ours", "slow"), [(vicreg, slow_vicreg), (simdino, slow_simdino), (lejepa, slow_lejepa)], ids=lambda f: f.__name__
)
def test_loss_and_gradient_are_those_of_the_paper_on_any_number_of_devices(ours, slow, quick_jit):
    z = np.random.default_rng(0).normal(size=(VIEWS, BATCH, WIDTH)) * np.array([0.3, 0.6, 1.0, 1.5, 2.0]) + 0.1
    there = torch.tensor(z, requires_grad=True)
    expected = slow(there)
    expected.backward()
    for devices in (1, 2, 8):
        value, _, gradient = on_devices(ours, z, devices, quick_jit)
        np.testing.assert_allclose(value, expected.item(), rtol=1e-5)
        np.testing.assert_allclose(gradient, there.grad, rtol=2e-4, atol=2e-6)


def test_the_coding_rate_takes_the_smaller_of_two_matrices(quick_jit):
    few = np.random.default_rng(1).normal(size=(1, 3, 6)).astype(np.float32)
    matrix = np.eye(6) + 6 / (3 * 0.5) * few[0].T.astype(np.float64) @ few[0]
    assert float(quick_jit(coding_rate)(few)) == pytest.approx(9 / 18 * np.linalg.slogdet(matrix)[1], rel=1e-5)


@pytest.mark.parametrize("objective", ["vicreg", "simdino", "lejepa"])
def test_a_real_step_on_two_devices(objective):
    """The settings arrive, terms are told, and parameters move."""
    settings = {"vicreg": (5.0, 3.0, 2.0), "coding_rate": 0.5, "sigreg": 0.25}
    optim = OptimConfig(objective=objective, base_lr=0.064, warmup_steps=0, momentum_teacher=0.9, **settings)
    model = DINOModel(ViT(patch=4, dim=24, depth=1, heads=2, img_size=8), Projector(8, 16))
    batch = {"global": np.random.default_rng(0).normal(size=(2, 4, 8, 8, 1)).astype(np.float32)}
    state = create_state(jax.random.key(0), model, optim, (8, 8, 1))
    step = make_parallel_step(model, optim, total_steps=10, n_devices=2)
    after, metrics = step(replicate(state, 2), shard(batch, 2))
    row = {name: float(x) for name, x in unreplicate(metrics).items()}
    assert row["finite"] == 1.0 and row["momentum"] == pytest.approx(0.9 if objective == "simdino" else 0.1)
    expected = {
        "vicreg": lambda: 5.0 * row["invariance"] + 3.0 * row["variance"] + 2.0 * row["covariance"],
        "simdino": lambda: row["invariance"] - 0.5 * row["coding_rate"],
        "lejepa": lambda: 0.75 * row["invariance"] + 0.25 * row["sigreg"],
    }
    assert row["loss"] == pytest.approx(expected[objective](), rel=1e-5)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), unreplicate(after).params, state.params)
    assert min(jax.tree.leaves(moved)) > 1e-4


def test_weights_and_parts_that_make_no_sense_are_refused():
    with pytest.raises(ParameterError, match=r"optim\.vicreg must be three weights"):
        OptimConfig(vicreg=(25.0, -1.0, 1.0))
    with pytest.raises(ParameterError, match=r"optim\.sigreg must be in \(0, 1\), got 1"):
        OptimConfig(sigreg=1.0)
    for objective in ("simclr", "vicreg", "simdino", "lejepa"):
        with pytest.raises(ParameterError, match=rf"optim\.accumulate = 2 .* {objective}.*set it to 1"):
            OptimConfig(objective=objective, accumulate=2)
    with pytest.raises(ValueError, match="at least two views"):
        partial(vicreg_terms, n_global=1)(jnp.ones((1, 3, 5)))
