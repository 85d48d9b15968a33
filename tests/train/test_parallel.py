"""Any number of devices and hosts must do what one does. They are simulated, which takes a fresh process each."""

import json
import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vis2img.train.parallel import shard

STEPS, BATCH = 20, 8
RUN = f"""
import json, sys
import jax, numpy as np
from vis2img.models.dino_head import DINOHead, DINOModel
from vis2img.models.vit import ViT
from vis2img.train import parallel
from vis2img.train.config import HostsConfig, OptimConfig
from vis2img.train.hosts import any_host, gather, start_hosts
from vis2img.train.parallel import make_parallel_step, replicate, shard, unreplicate
from vis2img.train.state import create_state

index, hosts, port, devices = (int(word) for word in sys.argv[1:5])
start_hosts(HostsConfig(f"localhost:{{port}}", hosts, index) if hosts > 1 else HostsConfig())
assert jax.device_count() == devices and jax.process_count() == hosts
# Drop path and masks, whose random numbers must not depend on where a sample is.
backbone = ViT(patch=4, dim=24, depth=2, heads=2, img_size=8, drop_path=0.2, mask_token=True)
model = DINOModel(backbone, DINOHead(16, hidden=32, bottleneck=8))
optim = OptimConfig(
    base_lr=0.016, warmup_steps=2, freeze_last_layer_steps=1, ibot=0.5, koleo=0.1
)
traces, original = [], parallel.train_step
parallel.train_step = lambda *args, **kwargs: (traces.append(1), original(*args, **kwargs))[1]
initial = create_state(jax.random.key(0), model, optim, (8, 8, 1))
state = replicate(initial)
before = unreplicate(state)
step = make_parallel_step(model, optim, total_steps={STEPS})
rng, rows, share = np.random.default_rng(0), [], {BATCH} // hosts
for i in range({STEPS} + 1):
    batch = {{"global": rng.normal(size=(2, {BATCH}, 8, 8, 1)), "local": rng.normal(size=(2, {BATCH}, 4, 4, 1))}}
    if i == {STEPS}:
        batch["global"][0, 0, 0, 0, 0] = np.nan  # reaches one device of all
    mine = {{name: x[:, index * share : (index + 1) * share].astype(np.float32) for name, x in batch.items()}}
    state, metrics = step(state, shard(mine))
    metrics = {{name: np.stack([np.asarray(s.data) for s in x.addressable_shards]) for name, x in metrics.items()}}
    for name, x in metrics.items():
        np.testing.assert_array_equal(x, x[0] * np.ones_like(x), err_msg=name)
    rows.append({{name: float(x.ravel()[0]) for name, x in metrics.items()}})
for one, two in zip(jax.tree.leaves(before), jax.tree.leaves(initial)):
    np.testing.assert_array_equal(one, two, err_msg="the step donates its state; what was taken out must survive")
for leaf in jax.tree.leaves(state):
    copies = [np.asarray(s.data) for s in leaf.addressable_shards]
    assert all(np.array_equal(copies[0], copy) for copy in copies), "the devices have drifted apart"
assert len(traces) == 1, "the step was compiled more than once"
assert gather({{"host": index}}) == [{{"host": i}} for i in range(hosts)] and any_host(index == hosts - 1)
end = unreplicate(state)
moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), end.params, initial.params)
trees = {{"params": end.params, "teacher": end.teacher}}
ends = {{name: float(sum(np.abs(x).sum() for x in jax.tree.leaves(tree))) for name, tree in trees.items()}}
print("RESULT" + json.dumps({{"rows": rows, "moved": min(jax.tree.leaves(moved)), "ends": ends}}), flush=True)
"""


def train_on(devices, hosts=1):
    """Metrics of every step of the same 20 batches of 8 samples, on so many simulated devices of so many hosts."""
    # Unoptimised code compiles twice as fast.
    flags = f"--xla_force_host_platform_device_count={devices // hosts} --xla_backend_optimization_level=0"
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    words = [str(word) for word in (hosts, port, devices)]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", RUN, str(index), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )
        for index in range(hosts)
    ]
    results = []
    for process in running:
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err[-3000:]
        results.append(json.loads(out.rpartition("RESULT")[2]))
    assert all(result == results[0] for result in results)
    return results[0]


@pytest.fixture(scope="module")
def alone():
    result = train_on(1)
    assert result["moved"] > 5e-4, "the steps were too small to show a difference"
    finite = [row["finite"] for row in result["rows"]]
    assert finite == [1.0] * STEPS + [0.0]
    return result


@pytest.mark.parametrize(("devices", "hosts"), [(2, 1), (8, 1), (2, 2)])
def test_any_devices_of_any_hosts_train_alike(alone, devices, hosts):
    result = train_on(devices, hosts)
    for name in ("loss", "entropy", "usage", "ibot", "koleo", "lr", "finite"):
        curves = [[row[name] for row in run["rows"]] for run in (result, alone)]
        np.testing.assert_allclose(*curves, atol=1e-5, rtol=0, err_msg=name)
    assert result["ends"] == pytest.approx(alone["ends"], rel=1e-5)


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


def test_tests_have_two_devices_and_cast_and_broadcast_nothing_unsaid():
    assert jax.local_device_count() == 2
    with pytest.raises(jax.dtypes.TypePromotionError):
        jnp.ones(2, jnp.float32) + jnp.ones(2, jnp.int32)
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.ones((2, 2)) + jnp.ones(2)
