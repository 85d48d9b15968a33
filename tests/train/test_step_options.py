"""Options of a step: parts, half precision, recomputation, residual networks, and what a compiled step may contain."""

import argparse
import dataclasses
import importlib.util
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from tests.helpers.places import ROOT
from vis2img.errors import Vis2imgError
from vis2img.loader.config import LoaderConfig
from vis2img.models.dino_head import DINOHead, DINOModel
from vis2img.models.resnet import ResNet
from vis2img.models.vit import ViT
from vis2img.train import parallel
from vis2img.train.config import ModelConfig, OptimConfig
from vis2img.train.run.config import TrainConfig
from vis2img.train.run.export import write_safetensors
from vis2img.train.run.run import _check_batch, _initial
from vis2img.train.state import backbone_variables, build_model, create_state
from vis2img.train.step import train_step
from vis2img.train.weights.names import to_timm
from vis2img.views.crops import ViewConfig

STEPS, BATCH, OUT_DIM = 20, 8, 16
# SGD and not AdamW, whose first step is the sign of the gradient, rounding noise included; the rate is 0.1.
SGD = OptimConfig(optimizer="sgd", base_lr=3.2, warmup_steps=0, freeze_last_layer_steps=0, clip_grad=0.5, ibot=1.0)
DINO_METRICS = {"loss", "entropy", "kl", "usage", "prototypes", "feature_std", "grad_norm", "finite"}
SCHEDULES = {"lr", "wd", "momentum", "teacher_temp"}


def vit(**options):
    """A small network that drops paths and can be asked to fill in patches."""
    dtype = options.get("dtype", jnp.float32)
    backbone = ViT(patch=4, dim=24, depth=2, heads=2, img_size=8, drop_path=0.3, mask_token=True, **options)
    return DINOModel(backbone, DINOHead(OUT_DIM, hidden=32, bottleneck=8, dtype=dtype))


def make_views(seed, n_global=2, n_local=2):
    rng = np.random.default_rng(seed)
    shapes = {"global": (n_global, BATCH, 8, 8, 1), "local": (n_local, BATCH, 4, 4, 1)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def bind(model, optim):
    return partial(train_step, model=model, optim=optim, total_steps=STEPS)


def make_state(model, optim):
    """A state at step 0, drawn with NumPy, as to compile the initialisation takes as long as a test."""
    make = partial(create_state, model=model, optim=optim, image_shape=(8, 8, 1))
    shapes, rng = jax.eval_shape(make, jax.random.key(0)), np.random.default_rng(0)

    def fill(path, s):
        if path[-1].key in ("scale", "var"):
            return jnp.ones(s.shape)
        # Vectors start at 0, matrices and kernels with the spread of He et al.
        return jnp.asarray((s.ndim > 1) * rng.normal(size=s.shape) * np.sqrt(2.0 / np.prod(s.shape[:-1])), jnp.float32)

    def draw():
        # Twice alike, as the teacher starts as the student.
        nonlocal rng
        rng = np.random.default_rng(0)
        return jax.tree_util.tree_map_with_path(fill, shapes.params)

    stats = {role: jax.tree_util.tree_map_with_path(fill, tree) for role, tree in shapes.stats.items()}
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return zeros.replace(params=draw(), teacher=draw(), stats=stats)


@pytest.fixture(scope="module")
def start():
    return make_state(vit(), SGD)


BARE = dataclasses.replace(SGD, ibot=0.0)


def bare():
    """Less to compile, where the network does not matter."""
    return DINOModel(ViT(patch=4, dim=24, depth=1, heads=2, img_size=8), DINOHead(OUT_DIM, hidden=32, bottleneck=8))


@pytest.fixture(scope="module")
def start_bare():
    return make_state(bare(), BARE)


@pytest.fixture(scope="module")
def compiled(start, quick_jit):
    """The step with no option, and what it was compiled from."""
    lowered = quick_jit(bind(vit(), SGD)).lower(start, make_views(0))
    return lowered.compile(), lowered.as_text()


@pytest.fixture(scope="module")
def plain(start, compiled):
    """State and metrics after one step with no option."""
    state, metrics = compiled[0](start, make_views(0))
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), start.params, state.params)
    assert min(jax.tree.leaves(moved)) > 1e-4, "the step was too small to show a difference"
    assert float(metrics["ibot"]) > 0.1, "no patch was hidden"
    return state, metrics


def assert_same_step(found, expected, atol=1e-5):
    (state, metrics), (other, others) = found, expected
    assert set(metrics) == set(others)
    for name in metrics:
        np.testing.assert_allclose(metrics[name], others[name], rtol=1e-5, atol=atol, err_msg=name)
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(x, y, atol=atol, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize(("parts", "remat"), [(2, True), (4, False)])
def test_parts_and_recomputation_give_the_same_step(start, plain, quick_jit, parts, remat):
    step = quick_jit(bind(vit(remat=remat), dataclasses.replace(SGD, accumulate=parts)))
    assert_same_step(step(start, make_views(0)), plain)


@pytest.mark.parametrize(
    ("batch", "devices", "accumulate", "words"),
    [(6, 1, 4, r"batch_size = 6 .* optim\.accumulate = 4; use 8"), (7, 1, 2, "use 8"), (0, 1, 1, None)],
)
def test_a_batch_that_cannot_be_cut_is_refused(batch, devices, accumulate, words):
    data = LoaderConfig(ms=("a.ms",), batch_size=batch or 8)
    config = TrainConfig("run", data, optim=OptimConfig(accumulate=accumulate), devices=devices)
    if words is None:
        _check_batch(config)
        return
    with pytest.raises(Vis2imgError, match=words):
        _check_batch(config)


def equations(jaxpr):
    """All equations of a jaxpr and of those inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner)


def traced(model, optim, state):
    return list(equations(jax.make_jaxpr(bind(model, optim))(state, make_views(0)).jaxpr))


def products(found):
    """Types of operands and shapes of results of all matrix products."""
    dots = [e for e in found if e.primitive.name == "dot_general"]
    return [({v.aval.dtype.name for v in e.invars}, e.outvars[0].aval) for e in dots]


def test_half_precision_is_of_the_activations_alone(start, plain, quick_jit):
    model = vit(dtype=jnp.bfloat16)
    step = quick_jit(bind(model, SGD))
    state, metrics = step(start, make_views(0))
    for old, new in zip(jax.tree.leaves(start), jax.tree.leaves(state), strict=True):
        assert new.dtype == old.dtype
    floating = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert {x.dtype.name for x in floating} == {"float32"}
    for name in ("loss", "ibot"):
        assert float(metrics[name]) == pytest.approx(float(plain[1][name]), rel=0.02)
        assert float(metrics[name]) != float(plain[1][name])
    losses = [float(metrics["kl"])]
    for _ in range(5):
        state, metrics = step(state, make_views(0))
        losses.append(float(metrics["kl"]))
    assert losses[-1] < losses[0] and float(metrics["finite"]) == 1.0


def test_half_precision_reaches_every_large_product(start):
    single, half = (products(traced(vit(dtype=dtype), SGD, start)) for dtype in (jnp.float32, jnp.bfloat16))
    assert {frozenset(types) for types, _ in single} == {frozenset({"float32"})}
    # Logits leave the last layer as float32, though what comes in is half as wide.
    of_last_layer = [(types, out.dtype.name) for types, out in half if out.ndim == 2 and out.shape[1] == OUT_DIM]
    assert ({"bfloat16"}, "float32") in of_last_layer
    # The second moment of the embeddings, and positions of local views: small, and their digits matter.
    wide = {out.shape for types, out in half if types == {"float32"}}
    assert wide == {(24, 24), (1, 2, 1, 2), (1, 1, 24), (24, 2, 2)}
    assert all(len(types) == 1 for types, _ in half)
    assert sum(types == {"bfloat16"} for types, _ in half) > 0.85 * len(half)


def test_recomputation_computes_again(start):
    def gelus(model):
        return sum(e.primitive.name == "erf" for e in traced(model, SGD, start))

    # Once more in each of 2 blocks, for the global and for the local views of the student.
    assert gelus(vit(remat=True)) == gelus(vit()) + 4


def test_metrics_have_the_documented_names(plain):
    assert set(plain[1]) == DINO_METRICS | SCHEDULES | {"ibot"}


AXIS = "device"
RESNET_OPTIM = dataclasses.replace(SGD, ibot=0.0, base_lr=0.32)


def resnet(axis_name=None):
    head = DINOHead(OUT_DIM, hidden=32, bottleneck=8, use_bn=True, axis_name=axis_name)
    return DINOModel(ResNet((1, 1, 1, 1), False, axis_name=axis_name), head)


@pytest.fixture(scope="module")
def of_resnet(quick_jit):
    """State at the start and after a step, and its metrics."""
    state = make_state(resnet(), RESNET_OPTIM)
    after, metrics = quick_jit(bind(resnet(), RESNET_OPTIM))(state, make_views(0, n_local=0))
    return state, after, metrics


def test_a_residual_network_takes_a_step(of_resnet):
    before, after, metrics = of_resnet
    assert float(metrics["finite"]) == 1.0
    for role in ("student", "teacher"):
        assert set(after.stats[role]) == {"backbone", "head"}
        for old, new in zip(jax.tree.leaves(before.stats[role]), jax.tree.leaves(after.stats[role]), strict=True):
            assert np.abs(old - new).max() > 1e-6
    # The same weights saw the same views.
    one, two = (jax.tree.leaves(after.stats[role]) for role in ("student", "teacher"))
    np.testing.assert_allclose(one[0], two[0], rtol=1e-5)


def test_evaluation_takes_the_statistics_and_not_the_batch(of_resnet, quick_jit):
    model, (before, after, _) = resnet(), of_resnet
    images = make_views(1)["global"][0]
    embed = quick_jit(lambda variables, x: model.backbone.apply(variables, x)[0])
    of_batch = embed(backbone_variables(after), images)
    others = np.concatenate([images[:1], 5.0 * images[1:]])
    np.testing.assert_allclose(embed(backbone_variables(after), others)[0], of_batch[0], rtol=1e-4, atol=1e-5)
    assert np.abs(embed(backbone_variables(after), others)[1] - of_batch[1]).max() > 0.1
    old = {**backbone_variables(after), "batch_stats": before.stats["teacher"]["backbone"]}
    assert np.abs(embed(old, images) - of_batch).max() > 1e-3


def test_two_devices_share_their_batch_statistics(of_resnet, quick_jit):
    before, after, metrics = of_resnet
    step = partial(bind(resnet(AXIS), RESNET_OPTIM), axis_name=AXIS)
    halves = {name: np.stack(np.split(x, 2, axis=1)) for name, x in make_views(0, n_local=0).items()}
    # One copy of the result, as both are the same.
    on_two = quick_jit(jax.vmap(step, in_axes=(None, 0), out_axes=0, axis_name=AXIS))
    state, others = on_two(before, halves)
    for name in ("loss", "entropy", "feature_std", "usage"):
        np.testing.assert_allclose(others[name], metrics[name] * np.ones(2), rtol=1e-4, err_msg=name)
    for name in ("stats", "params", "centre"):
        pairs = zip(*(jax.tree.leaves(getattr(s, name)) for s in (state, after)), strict=True)
        for x, y in pairs:
            np.testing.assert_allclose(x, np.stack([y, y]), rtol=1e-3, atol=2e-4, err_msg=name)


EXTRAS = dataclasses.replace(SGD, base_lr=0.32, centring="sinkhorn", koleo=0.1)


def extras(axis_name=None):
    """A network with all that makes samples of a batch depend on each other, on settings to match."""
    backbone = ViT(patch=4, dim=24, depth=1, heads=2, img_size=8, mask_token=True)
    return DINOModel(backbone, DINOHead(OUT_DIM, hidden=32, bottleneck=8, use_bn=True, axis_name=axis_name))


@pytest.fixture(scope="module")
def of_extras(quick_jit):
    """The step, the state before it and after, and its metrics."""
    step, state = quick_jit(bind(extras(), EXTRAS)), make_state(extras(), EXTRAS)
    after, metrics = step(state, make_views(0, n_local=0))
    assert float(metrics["ibot"]) > 0.1, "no patch was hidden"
    return step, state, after, metrics


def test_sinkhorn_leaves_out_both_centres(of_extras):
    step, before, after, metrics = of_extras
    assert set(metrics) == DINO_METRICS | SCHEDULES | {"koleo", "ibot"}
    assert all(np.isfinite(x) and x.shape == () for x in metrics.values())
    assert float(metrics["finite"]) == 1.0
    # They are remembered, and mean nothing here.
    ramp = jnp.arange(OUT_DIM, dtype=jnp.float32)
    again, others = step(before.replace(centre=ramp, patch_centre=-ramp), make_views(0, n_local=0))
    assert all(float(others[name]) == float(metrics[name]) for name in ("loss", "ibot"))
    for x, y in zip(jax.tree.leaves(again.params), jax.tree.leaves(after.params), strict=True):
        np.testing.assert_array_equal(x, y)


def test_hidden_patches_are_normalised_by_the_batch_too(of_extras):
    """Of a head with batch normalisation; its running statistics are for evaluation, and move with the patches."""
    step, before, after, metrics = of_extras
    stats = jax.tree.map(lambda x: 3.0 * x + 1.0, before.stats)
    again, others = step(before.replace(stats=stats), make_views(0, n_local=0))
    assert all(float(others[name]) == float(metrics[name]) for name in ("loss", "ibot"))
    for x, y in zip(jax.tree.leaves(again.params), jax.tree.leaves(after.params), strict=True):
        np.testing.assert_array_equal(x, y)
    # Two batches in turn, class tokens and patches: 0.9 twice of what was there.
    for role in ("student", "teacher"):
        for x, y, old in zip(*(jax.tree.leaves(s.stats[role]) for s in (again, after, before)), strict=True):
            np.testing.assert_allclose(x - y, 0.81 * (2.0 * old + 1.0), atol=1e-5)


def test_two_devices_balance_and_spread_the_whole_batch(of_extras, quick_jit):
    """Sinkhorn of views and of hidden patches, KoLeo and batch statistics look across devices."""
    _, before, after, metrics = of_extras
    step = partial(bind(extras(AXIS), EXTRAS), axis_name=AXIS)
    halves = {name: np.stack(np.split(x, 2, axis=1)) for name, x in make_views(0, n_local=0).items()}
    state, others = quick_jit(jax.vmap(step, in_axes=(None, 0), out_axes=0, axis_name=AXIS))(before, halves)
    for name in ("loss", "ibot", "koleo", "entropy", "kl", "usage", "feature_std", "grad_norm"):
        np.testing.assert_allclose(others[name], metrics[name] * np.ones(2), rtol=1e-4, err_msg=name)
    for name in ("params", "stats", "centre", "patch_centre", "moment"):
        for x, y in zip(*(jax.tree.leaves(getattr(s, name)) for s in (state, after)), strict=True):
            np.testing.assert_allclose(x, np.stack([y, y]), rtol=1e-3, atol=2e-4, err_msg=name)


def weights_config(path, variant):
    data = LoaderConfig(ms=("a.ms",), batch_size=4, views=ViewConfig(global_size=16, local_size=8))
    return TrainConfig("run", data, ModelConfig(variant=variant, patch=8, out_dim=8, weights=str(path)))


@pytest.mark.parametrize("variant", ["micro", "resnet18"])
def test_initial_weights_are_those_of_the_file(tmp_path, variant):
    config = weights_config(tmp_path / "weights.safetensors", variant)
    model = build_model(config.model, 16)
    # Shapes alone, so that what is not filled in stays an empty shape.
    make = partial(create_state, model=model, optim=config.optim, image_shape=(16, 16, 1))
    shapes, rng = jax.eval_shape(make, jax.random.key(0)), np.random.default_rng(0)
    source = jax.tree.map(lambda s: rng.uniform(0.1, 1.0, s.shape).astype(np.float32), backbone_variables(shapes))
    patch = None if variant == "resnet18" else 8
    write_safetensors(to_timm(source, patch), tmp_path / "weights.safetensors", {})
    state = _initial(shapes, config)
    for role in ("student", "teacher"):
        found = backbone_variables(state, role)
        for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(source), strict=True):
            np.testing.assert_array_equal(x, y)
    # The step donates its state: no array may be in it twice.
    arrays = [x for x in jax.tree.leaves(state) if isinstance(x, jax.Array)]
    assert len({x.unsafe_buffer_pointer() for x in arrays}) == len(arrays) == 2 * len(jax.tree.leaves(source))
    assert state.params["head"] is shapes.params["head"] and state.opt_state is shapes.opt_state


def test_without_weights_the_state_stays_as_it_is(start):
    config = dataclasses.replace(weights_config("", "micro"), model=ModelConfig(patch=8))
    assert _initial(start, config) is start


@pytest.fixture
def unoptimised():
    """As `quick_jit`, for what is compiled out of sight."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


HOST = ("callback", "infeed", "outfeed", "send", "recv", "MoveToHost", "pinned_host")


def mentions(text):
    return [word for word in HOST if word in text]


def test_a_parallel_step_stays_on_the_device(start_bare, monkeypatch, unoptimised):
    traces = []
    monkeypatch.setattr(parallel, "train_step", lambda *a, **k: (traces.append(1), train_step(*a, **k))[1])
    step = parallel.make_parallel_step(bare(), BARE, total_steps=STEPS, n_devices=1)
    state = parallel.replicate(start_bare, 1)
    batches = [jax.device_put(parallel.shard(make_views(i, n_local=0), 1)) for i in range(2)]
    given = jax.tree.leaves(state)
    state, _ = step(state, batches[0])
    assert all(x.is_deleted() for x in given), "the state was not donated"
    # Nothing waits for the host or asks it, from now on.
    with jax.transfer_guard("disallow"):
        state, metrics = step(state, batches[1])
    assert len(traces) == 1, "the step was compiled more than once"
    assert not any(x.is_deleted() for x in jax.tree.leaves((state, metrics)))
    assert int(parallel.unreplicate(state).step) == 2


def test_the_benchmark_takes_its_steps_on_one_device(unoptimised, monkeypatch):
    """On whatever device there is; what it moves there before the first step stays there."""
    path = ROOT / "benchmarks" / "training.py"
    spec = importlib.util.spec_from_file_location("training_benchmark", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    options = argparse.Namespace(
        **{"variant": "micro", "patch": 4, "out_dim": OUT_DIM, "precision": "float32", "remat": False},
        **{"accumulate": 1, "batch": 2, "global_size": 8, "local_size": 4, "n_local": 0},
    )
    placed = []
    monkeypatch.setattr("vis2img.train.state.build_model", lambda *_: bare())
    monkeypatch.setattr(jax, "device_put", lambda x, to, put=jax.device_put: placed.append((x, to)) or put(x, to))
    take, memory = benchmark.our_side(options)
    losses = [take(), take()]
    assert np.isfinite(losses).all() and losses[0] != losses[1], "the state stood still"
    assert memory() is None or memory() > 0
    batch, device = placed[-1]
    assert {name: x.shape for name, x in batch.items()} == {"global": (1, 2, 2, 8, 8, 1), "local": (1, 0, 2, 4, 4, 1)}
    assert device == jax.local_devices()[0]


def test_a_compiled_step_asks_nothing_of_the_host(compiled, quick_jit):
    step, source = compiled
    assert "dot" in step.as_text() and mentions(source) == mentions(step.as_text()) == []
    # What the line above rests on.
    asks = quick_jit(lambda x: jax.pure_callback(np.sin, x, x)).lower(jnp.ones(3))
    assert mentions(asks.as_text()) and mentions(asks.compile().as_text())
