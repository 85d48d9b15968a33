"""Two devices must do what one does. The devices are simulated, which JAX only allows in a fresh process."""

import os
import subprocess
import sys

import numpy as np
import pytest

from train.parallel import shard

COMPARE = """
import jax, numpy as np
from models.dino_head import DINOHead, DINOModel
from models.vit import ViT
from train.config import OptimConfig
from train import parallel
from train.parallel import make_parallel_step, replicate, shard, unreplicate
from train.state import create_state

assert jax.local_device_count() == 2
# No drop path: its masks are drawn per device.
model = DINOModel(ViT(patch=4, dim=24, depth=2, heads=2, img_size=8), DINOHead(16, hidden=32, bottleneck=8))
optim = OptimConfig(base_lr=0.064, warmup_steps=0, freeze_last_layer_steps=1)
initial = create_state(jax.random.key(0), model, optim, (8, 8, 1))
ends, histories, traces = [], [], []
original = parallel.train_step
parallel.train_step = lambda *args, **kwargs: (traces.append(1), original(*args, **kwargs))[1]
for n in (1, 2):
    state = replicate(initial, n)
    before = unreplicate(state)
    step = make_parallel_step(model, optim, total_steps=10, n_devices=n)
    rng, history = np.random.default_rng(0), []
    for i in range(3):
        batch = {"global": rng.normal(size=(2, 4, 8, 8, 1)), "local": rng.normal(size=(2, 4, 4, 4, 1))}
        if i == 2:
            batch["global"][0, 0, 0, 0, 0] = np.nan  # reaches one device of two
        state, metrics = step(state, shard({k: v.astype(np.float32) for k, v in batch.items()}, n))
        history.append({k: np.asarray(v) for k, v in metrics.items()})
    # The step donates its state; what was taken out of it earlier must survive.
    for one, two in zip(jax.tree.leaves(before), jax.tree.leaves(initial)):
        np.testing.assert_array_equal(one, two, err_msg="donated")
    if n == 2:
        for leaf in jax.tree.leaves(state):
            leaf = np.asarray(leaf)
            assert np.array_equal(leaf[0], leaf[1]), "the devices have drifted apart"
    ends.append(jax.tree.map(np.array, unreplicate(state)))
    histories.append(history)
assert len(traces) == 2, "a step was compiled more than once"
for one, two in zip(*histories):
    for name in one:
        assert two[name].shape == (2,)
        np.testing.assert_allclose(two[name][0], one[name][0], rtol=1e-4, atol=1e-5, err_msg=name)
        np.testing.assert_array_equal(two[name][0], two[name][1], err_msg=name)
assert histories[1][2]["finite"].tolist() == [0, 0] and histories[1][1]["finite"].tolist() == [1, 1]
for end in ends:  # the bias of the keys has no gradient but rounding noise, which Adam amplifies
    for tree in (end.params, end.teacher):
        for name in ("block00", "block01"):
            tree["backbone"][name]["attn"]["qkv"]["bias"][24:48] = 0.0
for name in ("params", "teacher", "centre"):
    pairs = zip(jax.tree.leaves(getattr(ends[0], name)), jax.tree.leaves(getattr(ends[1], name)))
    for one, two in pairs:
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-5, err_msg=name)
moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), ends[0].params, initial.params)
assert min(jax.tree.leaves(moved)) > 5e-4, "the steps were too small to show a difference"
print("same")
"""


def test_two_devices_equal_one():
    # Unoptimised code compiles twice as fast.
    flags = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", COMPARE], capture_output=True, text=True, env=env, check=False)
    assert done.stdout.split()[-1:] == ["same"], done.stderr[-3000:]


def test_shard_keeps_views_and_samples_together(monkeypatch):
    batch = {"global": np.arange(2 * 4 * 3).reshape(2, 4, 3), "local": np.zeros((0, 4, 2))}
    monkeypatch.setattr("jax.local_device_count", lambda: 2)
    shares = shard(batch)
    assert shares["global"].shape == (2, 2, 2, 3)
    assert shares["local"].shape == (2, 0, 2, 2)
    np.testing.assert_array_equal(shares["global"][1], batch["global"][:, 2:])
    with pytest.raises(ValueError, match="batch size 3 of 'global' is not divisible by 2 devices"):
        shard({"global": batch["global"][:, :3]})


def test_too_many_devices_are_refused():
    with pytest.raises(ValueError, match="available"):
        shard({}, 10_000)
