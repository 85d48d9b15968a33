"""Network, objective, optimiser and whole runs against PyTorch forms, in float64 where PyTorch does the work alone.

Nothing here shares code with ours: the transformer is written with PyTorch's convolution, layer norm, attention and
GELU, the loss as pairs in a loop, the optimiser is `torch.optim.AdamW`. The last tests run the step of
benchmarks/torch_dino.py, so that what the benchmark times is the same work.
"""

import importlib.util
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.dino_head import DINOHead, DINOModel
from models.vit import ViT, resize_positions
from train.augment import turn_views
from train.config import OptimConfig
from train.dino import dino_loss, ema_update
from train.optim import make_optimizer
from train.state import create_state
from train.step import schedule_values, train_step

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
    """Resize (side, side, D) with weights from `resize_positions`, which has tests of its own below."""
    down, right = (torch.tensor(resize_weights(len(grid), size)) for size in (rows, columns))
    return torch.einsum("ip,jq,pqd->ijd", down.to(grid), right.to(grid), grid)


def resize_weights(side, size):
    """Matrix (size, side) that our resizing multiplies a column of positions with."""
    eye = np.eye(side, dtype=np.float32)[:, None, :].repeat(side, axis=1)  # (side, side, D = side)
    return np.asarray(resize_positions(eye, size, side))[:, 0]


def torch_vit(p, images):
    """Tokens (B, T, D) of images (B, y, x, C)."""
    kernel = p["patch_embed"]["kernel"]
    kernel = kernel.reshape(PATCH, PATCH, images.shape[-1], -1).permute(3, 2, 0, 1)
    x = F.conv2d(images.permute(0, 3, 1, 2), kernel, p["patch_embed"]["bias"], stride=PATCH)  # (B, D, rows, columns)
    batch, dim, rows, columns = x.shape
    positions, side = p["pos_embed"][0], SIDE // PATCH
    grid = torch_resize(positions[1:].reshape(side, side, dim), rows, columns)
    x = x.flatten(2).transpose(1, 2) + grid.reshape(-1, dim)
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


class TorchRun:
    """Training as algorithm 1 of the paper has it, with `torch.optim.AdamW`."""

    def __init__(self, state, optim):
        self.optim, self.count = optim, 0
        self.student, self.teacher = tensors(state.params, grad=True), tensors(state.teacher)
        self.centre = tensors(state.centre)
        leaves = jax.tree.leaves(self.student)
        groups = [
            {"params": [p for p in leaves if p.ndim > 1]},
            {"params": [p for p in leaves if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.999), eps=1e-8)

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
        values = schedule_values(self.count, self.optim, batch=size, total_steps=TOTAL_STEPS)
        values = {name: float(value) for name, value in values.items()}
        views = [torch.tensor(view, dtype=torch.float64) for name in ("global", "local") for view in batch[name]]
        with torch.no_grad():
            teacher = torch_logits(self.teacher, views[:2])
        loss = torch_loss(torch_logits(self.student, views), teacher, self.centre, values["teacher_temp"])
        loss.backward()
        self.update(values["lr"], values["wd"])
        with torch.no_grad():
            self.centre = 0.9 * self.centre + 0.1 * teacher.mean((0, 1))
            for old, new in zip(*map(jax.tree.leaves, (self.teacher, self.student)), strict=True):
                old.mul_(values["momentum"]).add_(new, alpha=1.0 - values["momentum"])
        return loss.item()


# --- position embeddings -------------------------------------------------------------------------------------------


def grids():
    rng = np.random.default_rng(0)
    return rng.normal(size=(14, 14, 8)).astype(np.float32)


@pytest.mark.parametrize("size", [(16, 16), (28, 14), (15, 40), (6, 6), (12, 7)])
def test_positions_are_resized_as_published(size):
    """With the scale that the published code asks for, which is a tenth of a patch more than the size."""
    scale = tuple((n + 0.1) / 14 for n in size)
    x = torch.tensor(grids()).permute(2, 0, 1)[None]
    theirs = F.interpolate(x, scale_factor=scale, mode="bicubic")[0].permute(1, 2, 0)
    assert theirs.shape[:2] == size
    np.testing.assert_allclose(resize_positions(grids(), *size), theirs, atol=1e-5)


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


@pytest.fixture(scope="module")
def torch_dino():
    """The module of the benchmark."""
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed: the step of the benchmark cannot be checked")
    path = Path(__file__).parents[2] / "benchmarks" / "torch_dino.py"
    spec = importlib.util.spec_from_file_location("torch_dino", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_benchmark_does_the_same_work(torch_dino, start, our_run):
    given, losses, _ = our_run
    size = (24, DEPTH, HEADS)
    head = {"hidden": 32, "bottleneck": 8, "norm_last_layer": False}
    theirs = torch_dino.TorchDino(size, PATCH, SIDE, 2, 16, 0.0, OPTIM, TOTAL_STEPS, **head)
    theirs.load_from_jax(start.params, start.teacher)

    def resize(grid, rows, columns):
        return torch_resize(grid[0].permute(1, 2, 0), rows, columns).permute(2, 0, 1)[None]

    theirs.student.backbone.resize = theirs.teacher.backbone.resize = resize
    got = [theirs.step(theirs.put(batch)) for batch in given]
    np.testing.assert_allclose([float(m["loss"]) for m in got], losses, rtol=1e-4)


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
