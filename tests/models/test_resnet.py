"""Residual networks against plain PyTorch, where that is installed, and what they share with the transformer."""

import math

import jax
import numpy as np
import pytest

from vis2img.models.resnet import ResNet, make_resnet
from vis2img.train.weights.names import from_torch, to_timm


def torch_resnet(depths, bottleneck, channels, stem=7, norm="batch", first=64):
    """A ResNet with the names of torchvision, written from the paper's table 1 and torchvision's documentation."""
    torch = pytest.importorskip("torch", reason="PyTorch, the reference, is not installed")
    nn = torch.nn

    def normalise(width):
        return nn.BatchNorm2d(width) if norm == "batch" else nn.GroupNorm(8, width)

    class Block(nn.Module):
        def __init__(self, inside, width, stride):
            super().__init__()
            outside = width * 4 if bottleneck else width
            if bottleneck:
                self.conv1 = nn.Conv2d(inside, width, 1, bias=False)
                self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
                self.conv3 = nn.Conv2d(width, outside, 1, bias=False)
                self.bn3 = normalise(outside)
            else:
                self.conv1 = nn.Conv2d(inside, width, 3, stride, 1, bias=False)
                self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.bn1, self.bn2 = normalise(width), normalise(width)
            self.downsample = None
            if stride > 1 or inside != outside:
                self.downsample = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), normalise(outside))

        def forward(self, x):
            y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            y = self.bn3(self.conv3(torch.relu(y))) if bottleneck else y
            return torch.relu(y + (x if self.downsample is None else self.downsample(x)))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(channels, first, stem, 2, stem // 2, bias=False)
            self.bn1 = normalise(first)
            inside = first
            for stage, depth in enumerate(depths):
                width, blocks = first * 2**stage, []
                for i in range(depth):
                    blocks.append(Block(inside, width, 2 if stage and i == 0 else 1))
                    inside = width * 4 if bottleneck else width
                setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            self.fc = nn.Linear(inside, 10)

        def forward(self, x):
            x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
            maps = [x]
            for stage in range(1, 5):
                maps.append(getattr(self, f"layer{stage}")(maps[-1]))
            return maps[-1].mean((2, 3)), maps

    torch.manual_seed(1)
    network = Network()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, 0.0, 0.2)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0.0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network


def shapes_of(model, channels=1, size=32):
    return jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, size, size, channels), np.float32))


def variables_of(model, channels=1):
    """Random kernels, ones for the rest: initialising takes JAX ten seconds to compile."""
    rng = np.random.default_rng(5)

    def leaf(x):
        scale = math.sqrt(2 / math.prod(x.shape[:3]))
        return (rng.normal(0, scale, x.shape) if x.ndim == 4 else np.ones(x.shape)).astype(np.float32)

    return jax.tree.map(leaf, shapes_of(model, channels))


def images_of(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def close(ours, theirs):
    """1e-4 of the largest value, as the features of deep layers are of any size."""
    theirs = theirs.detach().numpy()
    theirs = theirs.transpose(0, 2, 3, 1) if theirs.ndim == 4 else theirs
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * max(1.0, np.abs(theirs).max()))


@pytest.mark.parametrize(
    ("variant", "width", "shape"),
    [
        ("resnet10", 64, (3, 64, 48, 2)),
        ("resnet10", 24, (3, 64, 48, 1)),
        ("resnet18", 64, (2, 45, 64, 1)),
        ("resnet50", 64, (1, 64, 33, 3)),
    ],
)
def test_outputs_are_those_of_pytorch(variant, width, shape):
    """Odd sizes tell symmetric padding from "SAME"."""
    model = make_resnet(variant, width=width)
    reference = torch_resnet(model.depths, model.bottleneck, shape[3], model.stem, model.norm, first=width).eval()
    state = {name: value.numpy() for name, value in reference.state_dict().items()}
    variables = from_torch(state, shapes_of(model, shape[3]))
    images = images_of(shape)
    import torch

    with torch.no_grad():
        embedding, maps = reference(torch.from_numpy(images.transpose(0, 3, 1, 2)))
    ours, out = jax.jit(model.apply)(variables, images)
    close(ours, embedding)
    for name, expected in zip(("stem", "stage1", "stage2", "stage3", "stage4"), maps, strict=True):
        close(out[name], expected)
    exported = to_timm(variables)
    assert exported.keys() == {n for n in state if not n.startswith("fc.") and not n.endswith("num_batches_tracked")}
    for name, value in exported.items():
        np.testing.assert_array_equal(value, state[name])


@pytest.mark.parametrize("bottleneck", [False, True])
def test_training_takes_the_statistics_of_the_batch(bottleneck):
    model = ResNet((1, 1, 1, 1), bottleneck)
    reference = torch_resnet(model.depths, bottleneck, 2).train()
    state = {name: value.numpy().copy() for name, value in reference.state_dict().items()}
    variables = from_torch(state, shapes_of(model, 2))
    images = images_of((4, 64, 64, 2))
    import torch

    with torch.no_grad():
        embedding, _ = reference(torch.from_numpy(images.transpose(0, 3, 1, 2)))
    run = jax.jit(lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]))
    (ours, _), updated = run(variables, images)
    close(ours, embedding)
    stats, before = updated["batch_stats"]["bn1"], variables["batch_stats"]["bn1"]
    close(stats["mean"], reference.bn1.running_mean)
    # PyTorch's running variance takes n / (n - 1) times that of the batch.
    count = 4 * 32 * 32
    batch = (reference.bn1.running_var.numpy() - 0.9 * before["var"]) / 0.1 * (count - 1) / count
    np.testing.assert_allclose(stats["var"], 0.9 * before["var"] + 0.1 * batch, rtol=1e-4)


def test_statistics_of_a_batch_are_shared_over_an_axis():
    model = ResNet((1, 1, 1, 1), False)
    variables = variables_of(model)
    images = images_of((4, 32, 32, 1)) + np.arange(4, dtype=np.float32)[:, None, None, None]

    def run(model, images):
        return model.apply(variables, images, train=True, mutable=["batch_stats"])

    (whole, _), stats = jax.jit(lambda x: run(model, x))(images)
    parts = jax.jit(jax.vmap(lambda x: run(model.clone(axis_name="devices"), x), axis_name="devices"))
    (split, _), split_stats = parts(images.reshape(2, 2, 32, 32, 1))
    np.testing.assert_allclose(split.reshape(whole.shape), whole, rtol=1e-3, atol=1e-3)
    for ours, theirs in zip(jax.tree.leaves(split_stats), jax.tree.leaves(stats), strict=True):
        np.testing.assert_allclose(ours[0], ours[1])
        np.testing.assert_allclose(ours[0], theirs, rtol=1e-3, atol=1e-3)


def test_tokens_are_the_average_and_the_last_map_by_rows():
    model = ResNet((1, 1, 1, 1), False)
    images = images_of((2, 64, 96, 1))
    embedding, out = jax.jit(model.apply)(variables_of(model), images)
    last = np.asarray(out["stage4"])
    assert last.shape == (2, 2, 3, 512) and embedding.shape == (2, model.dim) and model.n_drops == 0
    np.testing.assert_array_equal(out["tokens"][:, 0], embedding)
    np.testing.assert_allclose(embedding, last.mean((1, 2)), rtol=1e-5)
    np.testing.assert_array_equal(out["tokens"][:, 1:], last.reshape(2, 6, 512))
    np.testing.assert_array_equal(out["patches"], last.reshape(2, 6, 512))


def test_bfloat16_keeps_parameters_and_statistics_in_float32():
    import jax.numpy as jnp

    model = ResNet((1, 1, 1, 1), True, dtype=jnp.bfloat16)
    (embedding, _), variables = jax.eval_shape(
        model.init_with_output, jax.random.key(0), np.zeros((1, 32, 32, 1), np.float32)
    )
    assert embedding.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float32)}


@pytest.mark.parametrize(("variant", "dim", "count"), [("resnet18", 512, 11_176_512), ("resnet50", 2048, 23_508_032)])
def test_variants_have_the_published_size(variant, dim, count):
    """Parameters of torchvision's models (11,689,512 and 25,557,032) less their classifiers."""
    model = make_resnet(variant)
    params = shapes_of(model, 3)["params"]
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == count
    assert model.dim == dim


@pytest.mark.parametrize(
    ("shape", "kwargs", "words"),
    [
        ((32, 32, 1), {}, "must be"),
        ((1, 0, 32, 1), {}, "not empty"),
        ((1, 32, 32, 1), {"masks": np.zeros((1, 1), bool)}, "cannot mask"),
        ((1, 32, 32, 1), {"return_attention": True}, "no attention"),
    ],
)
def test_what_a_resnet_cannot_do_is_refused(shape, kwargs, words):
    model = make_resnet("resnet18")
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(lambda x: model.init(jax.random.key(0), x, **kwargs), np.zeros(shape, np.float32))


def test_unknown_variants_list_the_known_ones():
    with pytest.raises(ValueError, match=r"resnet10, resnet18, resnet50"):
        make_resnet("resnet101")
