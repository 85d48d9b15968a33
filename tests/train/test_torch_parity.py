"""Network, objective, optimiser and whole runs against PyTorch forms, in float64 where PyTorch does the work alone.

The transformer is written with PyTorch's convolution, interpolation, layer norm, attention and GELU, the losses as
pairs and patches in loops, the schedules as the published arrays; the optimisers are those of `torch.optim`. Shared
with ours are names and shapes of parameters, the settings, and which patches iBOT hides
(`vis2img.train.objectives.dinov2.draw_masks`, which has tests of its own), as random numbers differ between the
libraries. The last tests run the step of
benchmarks/torch_dino.py, so that what the benchmark times comes to the same result.
"""

import argparse
import importlib.util
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.places import ROOT
from vis2img.models.dino_head import DINOHead, DINOModel
from vis2img.models.vit import ViT
from vis2img.train.config import OptimConfig
from vis2img.train.objectives.augment import turn_views
from vis2img.train.objectives.dino import dino_loss, ema_update
from vis2img.train.objectives.dinov2 import draw_masks
from vis2img.train.optim import make_optimizer
from vis2img.train.state import create_state
from vis2img.train.step import train_step

torch = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")
F = torch.nn.functional

PATCH, SIDE, HEADS, DEPTH = 4, 16, 2, 2
TOTAL_STEPS = 20
# Warm-up, freeze and thaw within five steps, and gradients that are clipped.
OPTIM = OptimConfig(base_lr=0.064, warmup_steps=2, freeze_last_layer_steps=2, clip_grad=0.3, teacher_temp=0.06)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads of PyTorch cost more than they save on arrays this small, above all beside those of JAX."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def plain():
    """Network without drop path, whose random numbers differ between the libraries, and with all parameters."""
    backbone = ViT(patch=PATCH, dim=24, depth=DEPTH, heads=HEADS, img_size=SIDE)
    return DINOModel(backbone, DINOHead(out_dim=16, hidden=32, bottleneck=8, norm_last_layer=False))


@pytest.fixture(scope="module")
def start(plain):
    """State with a teacher other than the student, and every bias and scale off its initial value."""
    state = create_state(jax.random.key(1), plain, OPTIM, (SIDE, SIDE, 2))
    return state.replace(params=shaken(state.params, 1), teacher=shaken(state.teacher, 2))


def shaken(tree, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + rng.normal(0.0, 0.1, x.shape).astype(np.float32), tree)


def batches(count, n_local=2):
    rng = np.random.default_rng(5)
    shapes = {"global": (2, 4, SIDE, SIDE, 2), "local": (n_local, 4, 8, 8, 2)}
    return [{name: rng.normal(size=s).astype(np.float32) for name, s in shapes.items()} for _ in range(count)]


def tensors(tree, grad=False):
    return jax.tree.map(lambda x: torch.tensor(np.asarray(x, np.float64), requires_grad=grad), tree)


# --- the same in PyTorch -------------------------------------------------------------------------------------------


def torch_resize(grid, rows, columns):
    """Resize (side, side, D) as published, with the scale of a tenth of a patch more."""
    if (rows, columns) == tuple(grid.shape[:2]):
        return grid
    scale = ((rows + 0.1) / grid.shape[0], (columns + 0.1) / grid.shape[1])
    return F.interpolate(grid.permute(2, 0, 1)[None], scale_factor=scale, mode="bicubic")[0].permute(1, 2, 0)


def torch_vit(p, images, hidden=None):
    """Tokens (B, T, D) of images (B, y, x, C), of which patches (B, P) may be hidden."""
    kernel = p["patch_embed"]["kernel"]
    kernel = kernel.reshape(PATCH, PATCH, images.shape[-1], -1).permute(3, 2, 0, 1)
    x = F.conv2d(images.permute(0, 3, 1, 2), kernel, p["patch_embed"]["bias"], stride=PATCH)  # (B, D, rows, columns)
    batch, dim, rows, columns = x.shape
    positions, side = p["pos_embed"][0], SIDE // PATCH
    grid = torch_resize(positions[1:].reshape(side, side, dim), rows, columns)
    x = x.flatten(2).transpose(1, 2)
    if hidden is not None:
        x = torch.where(hidden[:, :, None], p["mask_token"][0], x)
    x = x + grid.reshape(-1, dim)
    x = torch.cat([(p["cls_token"][0] + positions[:1]).expand(batch, 1, dim), x], dim=1)
    for i in range(DEPTH):
        block = p[f"block{i:02d}"]
        qkv = torch_dense(torch_norm(x, block["norm1"]), block["attn"]["qkv"])
        q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in qkv.chunk(3, dim=-1))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + torch_dense(mixed, block["attn"]["proj"])
        hidden = F.gelu(torch_dense(torch_norm(x, block["norm2"]), block["fc1"]))
        x = x + torch_dense(hidden, block["fc2"])
    return torch_norm(x, p["norm"])


def torch_dense(x, p):
    return F.linear(x, p["kernel"].T, p["bias"])


def torch_norm(x, p):
    return F.layer_norm(x, x.shape[-1:], p["scale"], p["bias"], eps=1e-6)


def torch_head(p, x):
    for i in range(3):
        x = torch_dense(x if i == 0 else F.gelu(x), p[f"mlp{i}"])
    v = p["last_layer"]["v"].T  # (K, bottleneck)
    gain = p["last_layer"].get("g", v.new_ones(len(v)))
    return F.linear(F.normalize(x, dim=-1), torch._weight_norm(v, gain.reshape(-1, 1), 0))


def torch_logits(p, views):
    """Logits (V, B, K), a view at a time."""
    return torch.stack([torch_head(p["head"], torch_vit(p["backbone"], view)[:, 0]) for view in views])


def torch_loss(student, teacher, centre, teacher_temp):
    targets = F.softmax((teacher - centre) / teacher_temp, dim=-1).detach()
    terms = [
        F.cross_entropy(student[v] / 0.1, targets[q])
        for q in range(len(teacher))
        for v in range(len(student))
        if v != q
    ]
    return sum(terms) / len(terms)


def torch_koleo(embeddings):
    """Minus the mean log distance to the nearest of the others; summed over the views of (V, B, D)."""
    total = 0.0
    for x in F.normalize(embeddings, dim=-1):
        apart = torch.cdist(x, x).detach() + 9.0 * torch.eye(len(x))
        total = total - torch.log((x - x[apart.argmin(1)]).norm(dim=1) + 1e-8).mean()
    return total


def torch_ibot(student, teacher, centre, hidden, teacher_temp):
    """A view at a time, of logits (V, B, P, K): the mean over its hidden patches; then over all views."""
    total = 0.0
    for at in np.ndindex(*hidden.shape[:2]):
        if hidden[at].any():
            targets = F.softmax((teacher[at][hidden[at]] - centre) / teacher_temp, dim=-1)
            total = total + F.cross_entropy(student[at][hidden[at]] / 0.1, targets)
    return total / (hidden.shape[0] * hidden.shape[1])


def torch_schedules(count, optim, batch):
    """Learning rate, weight decay, momentum and teacher temperature at a step, by the arrays of the published code."""

    def cosine(start, end, steps):
        return end + 0.5 * (start - end) * (1.0 + np.cos(np.pi * np.arange(steps) / steps))

    peak, warm = optim.base_lr * batch / 256.0, optim.warmup_steps
    rates = np.concatenate([np.linspace(0.0, peak, warm), cosine(peak, optim.min_lr, TOTAL_STEPS - warm)])
    # A line where the published code has a staircase of epochs.
    share = min(count / optim.warmup_teacher_temp_steps, 1.0)
    return {
        "lr": rates[count],
        "wd": cosine(optim.weight_decay, optim.weight_decay_end, TOTAL_STEPS)[count],
        "momentum": cosine(optim.momentum_teacher, 1.0, TOTAL_STEPS)[count],
        "teacher_temp": optim.warmup_teacher_temp + share * (optim.teacher_temp - optim.warmup_teacher_temp),
    }


class TorchRun:
    """Training as algorithm 1 of the paper has it, with `torch.optim.AdamW`."""

    def __init__(self, state, optim):
        self.optim, self.count, self.metrics = optim, 0, {}
        self.student, self.teacher = tensors(state.params, grad=True), tensors(state.teacher)
        self.centre = tensors(state.centre)
        leaves = jax.tree.leaves(self.student)
        groups = [
            {"params": [p for p in leaves if p.ndim > 1]},
            {"params": [p for p in leaves if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = (
            torch.optim.SGD(groups, lr=0.0, momentum=0.9)
            if optim.optimizer == "sgd"
            else torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.999), eps=1e-8)
        )

    def update(self, lr, wd):
        """Clip the gradients that are there, freeze, and take one step of AdamW."""
        for p in jax.tree.leaves(self.student):
            if self.optim.clip_grad:
                torch.nn.utils.clip_grad_norm_([p], self.optim.clip_grad)
        if self.count < self.optim.freeze_last_layer_steps:
            for p in jax.tree.leaves(self.student["head"]["last_layer"]):
                p.grad = None
        self.optimizer.param_groups[0].update(lr=lr, weight_decay=wd)
        self.optimizer.param_groups[1].update(lr=lr)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.count += 1

    def step(self, batch):
        size = batch["global"].shape[1]
        values = torch_schedules(self.count, self.optim, size)
        views = [torch.tensor(view, dtype=torch.float64) for name in ("global", "local") for view in batch[name]]
        loss = self.loss(views, values["teacher_temp"])
        loss.backward()
        self.update(values["lr"], values["wd"])
        with torch.no_grad():
            for old, new in zip(*map(jax.tree.leaves, (self.teacher, self.student)), strict=True):
                old.mul_(values["momentum"]).add_(new, alpha=1.0 - values["momentum"])
        return loss.item()

    def loss(self, views, teacher_temp):
        """Value of the objective; moves the centre."""
        with torch.no_grad():
            teacher = torch_logits(self.teacher, views[:2])
        loss = torch_loss(torch_logits(self.student, views), teacher, self.centre, teacher_temp)
        self.centre = 0.9 * self.centre + 0.1 * teacher.mean((0, 1))
        return loss


class TorchExtras(TorchRun):
    """The same with iBOT and KoLeo."""

    def __init__(self, state, optim):
        super().__init__(state, optim)
        self.patch_centre, self.moment, self.rng = tensors(state.patch_centre), tensors(state.moment), state.rng

    def masks(self, n_patches):
        """Patches hidden (2, B, P) in this step, and candidates (2, B, M); keys belong to step, sample and view."""
        fold = jax.random.fold_in

        @jax.jit
        @partial(jax.vmap, in_axes=(0, None, None))
        @partial(jax.vmap, in_axes=(None, 0, None))
        def draw(view, sample, step):
            key = fold(fold(jax.random.wrap_key_data(self.rng), step), sample)
            return draw_masks(fold(fold(key, 1), view), n_patches)

        masks = draw(np.arange(2), np.arange(4), self.count)
        return torch.tensor(np.asarray(masks.mask)), torch.tensor(np.asarray(masks.candidates), dtype=torch.int64)

    def loss(self, views, teacher_temp):
        hidden, candidates = self.masks((SIDE // PATCH) ** 2)
        assert 0.05 < hidden.double().mean() < 0.5

        def run(p, views, masks):
            tokens = [torch_vit(p["backbone"], x, m) for x, m in zip(views, masks, strict=True)]
            embeddings, patches = torch.stack([x[:, 0] for x in tokens]), torch.stack([x[:, 1:] for x in tokens[:2]])
            return torch_head(p["head"], embeddings), embeddings, torch_head(p["head"], patches)

        student, embeddings, patches = run(self.student, views, [*hidden, *([None] * (len(views) - 2))])
        with torch.no_grad():
            teacher, z, targets = run(self.teacher, views[:2], [None, None])
        dino = torch_loss(student, teacher, self.centre, teacher_temp)
        ibot = torch_ibot(patches, targets, self.patch_centre, hidden, teacher_temp)
        koleo = torch_koleo(embeddings[:2])
        self.metrics = {"loss": dino.item(), "ibot": ibot.item(), "koleo": koleo.item()}
        self.centre = 0.9 * self.centre + 0.1 * teacher.mean((0, 1))
        seen = torch.stack([targets[at][candidates[at]] for at in np.ndindex(2, 4)])  # (8, M, K)
        self.patch_centre = 0.9 * self.patch_centre + 0.1 * seen.mean((0, 1))
        z = z.flatten(0, 1)
        self.moment = 0.98 * self.moment + 0.02 * (z.T @ z / len(z))
        return dino + self.optim.ibot * ibot + self.optim.koleo * koleo


# --- network -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(16, 16), (8, 8), (4, 4), (8, 24), (20, 12)])
def test_transformer(plain, start, quick_jit, size):
    images = np.random.default_rng(2).normal(size=(3, *size, 2)).astype(np.float32)
    cls, out = quick_jit(plain.backbone.apply)({"params": start.params["backbone"]}, images)
    expected = torch_vit(tensors(start.params["backbone"]), torch.tensor(images, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(out["tokens"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(cls, expected[:, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm_last_layer", [True, False])
def test_head(quick_jit, norm_last_layer):
    head = DINOHead(out_dim=16, hidden=32, bottleneck=8, norm_last_layer=norm_last_layer)
    x = np.random.default_rng(3).normal(size=(5, 24)).astype(np.float32)
    params = shaken(quick_jit(head.init)(jax.random.key(0), x)["params"], 4)
    expected = torch_head(tensors(params), torch.tensor(x, dtype=torch.float64))
    np.testing.assert_allclose(quick_jit(head.apply)({"params": params}, x), expected, rtol=1e-4, atol=1e-5)


# --- objective -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_views", "n_global"), [(2, 2), (6, 2), (4, 1), (5, 3)])
def test_loss_its_gradient_and_the_centre(n_views, n_global):
    rng = np.random.default_rng(7)
    student = rng.uniform(-1, 1, (n_views, 3, 32)).astype(np.float32)
    teacher = rng.uniform(-1, 1, (n_global, 3, 32)).astype(np.float32)
    centre = rng.normal(0.0, 0.3, 32).astype(np.float32)

    def ours(student):
        temps = {"student_temp": 0.1, "teacher_temp": 0.05}
        loss, new, _ = dino_loss(student, teacher, centre, **temps, n_global=n_global, centre_momentum=0.9)
        return loss, new

    (loss, new_centre), gradient = jax.value_and_grad(ours, has_aux=True)(student)
    student, teacher, centre = (torch.tensor(x, dtype=torch.float64) for x in (student, teacher, centre))
    student.requires_grad_()
    expected = torch_loss(student, teacher, centre, 0.05)
    expected.backward()
    assert float(loss) == pytest.approx(expected.item(), rel=1e-5)
    np.testing.assert_allclose(gradient, student.grad, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(new_centre, torch.lerp(centre, teacher.mean((0, 1)), 0.1), rtol=1e-5, atol=1e-6)


def test_gradient_of_every_parameter(plain, start, quick_jit):
    """Through last layer, head and every block, over views of two sizes."""
    batch = batches(1)[0]
    centre = np.random.default_rng(8).normal(0.0, 0.1, 16).astype(np.float32)

    def ours(params):
        crops = [batch[name].reshape(-1, *batch[name].shape[2:]) for name in ("global", "local")]
        student = plain.apply({"params": params}, crops)[0].reshape(4, 4, -1)
        teacher = plain.apply({"params": start.teacher}, crops[:1])[0].reshape(2, 4, -1)
        temps = {"student_temp": 0.1, "teacher_temp": 0.04}
        return dino_loss(student, teacher, centre, **temps, n_global=2, centre_momentum=0.9)[0]

    gradient = quick_jit(jax.grad(ours))(start.params)
    params = tensors(start.params, grad=True)
    views = [torch.tensor(view, dtype=torch.float64) for name in ("global", "local") for view in batch[name]]
    with torch.no_grad():
        teacher = torch_logits(tensors(start.teacher), views[:2])
    torch_loss(torch_logits(params, views), teacher, torch.tensor(centre).double(), 0.04).backward()
    for (path, got), p in zip(jax.tree_util.tree_leaves_with_path(gradient), jax.tree.leaves(params), strict=True):
        where = jax.tree_util.keystr(path)
        np.testing.assert_allclose(got, p.grad, rtol=1e-3, atol=1e-5 * float(p.grad.norm()) + 1e-7, err_msg=where)


# --- optimiser and teacher -----------------------------------------------------------------------------------------


def test_moving_average(start):
    ours = jax.tree.leaves(ema_update(start.teacher, start.params, 0.996))
    theirs = [x.float() for x in jax.tree.leaves(tensors(start.teacher))]
    torch._foreach_lerp_(theirs, [x.float() for x in jax.tree.leaves(tensors(start.params))], 1.0 - 0.996)
    for got, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("clip_grad", [0.0, 1.0])
def test_five_steps_of_adamw(start, clip_grad, quick_jit):
    """Groups, decay, clipping tensor by tensor, and prototypes that thaw after two steps."""
    optim = OptimConfig(clip_grad=clip_grad, freeze_last_layer_steps=2)
    theirs, optimizer = TorchRun(start, optim), make_optimizer(optim)
    params, opt_state = start.params, optimizer.init(start.params)
    update = quick_jit(optimizer.update)
    rng = np.random.default_rng(9)
    for i in range(5):
        rate, decay = 1e-2 * (i + 1), 0.04 * (i + 1)
        grads = jax.tree.map(lambda p: rng.normal(0.0, 0.2, p.shape).astype(np.float32), params)
        frozen = jnp.asarray(i < 2)
        updates, opt_state = update(grads, opt_state, params, lr=rate, weight_decay=decay, frozen=frozen)
        params = jax.tree.map(lambda p, u: p + u, params, updates)
        for p, grad in zip(jax.tree.leaves(theirs.student), jax.tree.leaves(grads), strict=True):
            p.grad = torch.tensor(grad, dtype=torch.float64)
        theirs.update(rate, decay)
    for got, expected in zip(jax.tree.leaves(params), jax.tree.leaves(theirs.student), strict=True):
        np.testing.assert_allclose(got, expected.detach(), rtol=1e-5, atol=2e-6)


# --- whole runs ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def our_run(plain, start, quick_jit):
    """Batches, the losses of five of our steps on them, and the state after these."""
    step = quick_jit(partial(train_step, model=plain, optim=OPTIM, total_steps=TOTAL_STEPS))
    state, losses, given = start, [], batches(5)
    for batch in given:
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    return given, losses, state


def test_five_steps_of_training(start, our_run):
    given, losses, state = our_run
    theirs = TorchRun(start, OPTIM)
    np.testing.assert_allclose(losses, [theirs.step(batch) for batch in given], rtol=1e-4)
    np.testing.assert_allclose(state.centre, theirs.centre, atol=1e-5)
    for got, expected in zip(jax.tree.leaves(state.teacher), jax.tree.leaves(theirs.teacher), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_two_steps_with_every_extra_term(quick_jit):
    """SGD, so that parameters tell gradients: by DINO, iBOT and KoLeo together, each with its weight."""
    backbone = ViT(patch=PATCH, dim=24, depth=DEPTH, heads=HEADS, img_size=SIDE, mask_token=True)
    model = DINOModel(backbone, DINOHead(out_dim=16, hidden=32, bottleneck=8))
    optim = OptimConfig(
        optimizer="sgd",
        base_lr=0.64,
        warmup_steps=0,
        freeze_last_layer_steps=0,
        clip_grad=0.0,
        warmup_teacher_temp=0.05,
        ibot=0.6,
        koleo=0.3,
    )
    state, rng = create_state(jax.random.key(2), model, optim, (SIDE, SIDE, 2)), np.random.default_rng(10)
    centres = {name: rng.normal(0.0, 0.2, 16).astype(np.float32) for name in ("centre", "patch_centre")}
    state = state.replace(params=shaken(state.params, 1), teacher=shaken(state.teacher, 2), **centres)
    step = quick_jit(partial(train_step, model=model, optim=optim, total_steps=TOTAL_STEPS))
    theirs = TorchExtras(state, optim)
    for batch in batches(2):
        before, expected = state.params, [p.detach().clone() for p in jax.tree.leaves(theirs.student)]
        state, metrics = step(state, batch)
        theirs.step(batch)
        for name, value in theirs.metrics.items():
            assert float(metrics[name]) == pytest.approx(value, rel=1e-4), name
        moves = zip(*map(jax.tree.leaves, (state.params, before, theirs.student)), expected, strict=True)
        for new, old, p, q in moves:
            move = (p - q).detach().numpy()
            np.testing.assert_allclose(new - old, move, rtol=1e-3, atol=1e-3 * np.abs(move).max() + 2e-7)
        for name in ("centre", "patch_centre", "moment"):
            np.testing.assert_allclose(getattr(state, name), getattr(theirs, name), rtol=1e-4, atol=1e-5, err_msg=name)


def load_benchmark(name):
    path = ROOT / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def torch_dino():
    """The module of the benchmark."""
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed: the step of the benchmark cannot be checked")
    return load_benchmark("torch_dino")


def test_the_benchmark_comes_to_the_same_result(torch_dino, start, our_run):
    given, losses, _ = our_run
    size = (24, DEPTH, HEADS)
    head = {"hidden": 32, "bottleneck": 8, "norm_last_layer": False}
    theirs = torch_dino.TorchDino(size, PATCH, SIDE, 2, 16, 0.0, OPTIM, TOTAL_STEPS, **head)
    theirs.load_from_jax(start.params, start.teacher)
    got = [theirs.step(theirs.put(batch)) for batch in given]
    np.testing.assert_allclose([float(m["loss"]) for m in got], losses, rtol=1e-4)


def test_the_benchmark_counts_the_arithmetic_of_either_side(torch_dino):
    """That of PyTorch's side against what PyTorch counts in it: more than ours, by a last block for all tokens."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    options = argparse.Namespace(
        **{"variant": "micro", "patch": 8, "out_dim": 64, "precision": "float32", "remat": False},
        **{"global_size": 32, "local_size": 16, "n_local": 3},
    )
    flops = load_benchmark("training").flops_per_sample(options)
    network = torch_dino.TorchDino("micro", 8, 32, 1, 64, 0.0, OPTIM, TOTAL_STEPS).student
    counts = []
    for crops in ([torch.zeros(2, 1, 32, 32), torch.zeros(3, 1, 16, 16)], [torch.zeros(2, 1, 32, 32)]):
        # The kernel whose products PyTorch sees one by one.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            network(crops)
        counts.append(counter.get_total_flops())
    # But for the resizing of positions, which is no product there.
    assert flops["PyTorch"] == pytest.approx(3 * counts[0] + counts[1], rel=1e-3)
    assert 1.01 * flops["vis2img"] < flops["PyTorch"] < 1.3 * flops["vis2img"]


def test_the_benchmark_turns_views_as_we_do(torch_dino):
    batch = {**batches(1, n_local=6)[0], "turns": np.arange(32).reshape(8, 4) % 8}
    got = torch_dino.turn_views({name: torch.tensor(x) for name, x in batch.items()})
    for name, expected in turn_views(batch).items():
        np.testing.assert_array_equal(got[name], expected)


def test_the_benchmark_drops_paths_and_keeps_its_teacher_still(torch_dino):
    """Drop path on the student alone, in bfloat16 as well."""
    make = partial(torch_dino.TorchDino, (24, DEPTH, HEADS), PATCH, SIDE, 2, 16, hidden=32, bottleneck=8)
    batch = batches(1)[0]
    losses = []
    for drop_path, precision in ((0.0, "float32"), (0.9, "float32"), (0.0, "bfloat16")):
        run = make(drop_path, OPTIM, TOTAL_STEPS, precision=precision)
        before = [p.clone() for p in run.teacher.parameters()]
        losses.append(float(run.step(batch)["loss"]))
        assert not run.teacher.training
        assert all(torch.equal(a, b) for a, b in zip(before, run.teacher.parameters(), strict=True))  # the rate is 0
        assert run.peak_memory() is None
    assert losses[0] != losses[1]
    assert losses[2] == pytest.approx(losses[0], rel=0.02)
