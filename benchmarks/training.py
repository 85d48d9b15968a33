"""Measure a training step beside one of plain PyTorch, with timm's transformer or a residual network, and what the real
loader costs it.

    python benchmarks/training.py step                                   # ViT-S/16, 2 of 224 and 8 of 96 px, float32
    python benchmarks/training.py step --variant tiny --patch 8 --global-size 64 --local-size 32 --n-local 4
    python benchmarks/training.py step --precision bfloat16 --batch 64   # on an accelerator: ours and torch.compile
    python benchmarks/training.py step --variant resnet10 --batch 256 --global-size 64   # SimCLR of two views
    python benchmarks/training.py loader REF2.ms                         # the loader, beside a batch of noise

Both sides (benchmarks/torch_dino.py and, of residual networks, torch_simclr.py are the other) take the same step, to
rounding, on the same batch, precision and device, from the same initial weights. Of transformers ours comes to it with
less arithmetic: it works out the last block for the class token alone, timm for all tokens, so that each side has a
count of its own for its share of the peak. They are processes of their own that take steps by turns, so that what else
the machine does hits both. PyTorch and timm must be installed beside vis2img; nothing else here needs them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vis2img.train.config import RESNETS, ModelConfig, OptimConfig
from vis2img.views.crops import ViewConfig

TOTAL_STEPS = 10_000


def noise(options: argparse.Namespace) -> dict[str, np.ndarray]:
    """Return a batch of noise."""
    rng = np.random.default_rng(0)
    sizes = {"global": (2, options.global_size), "local": (options.n_local, options.local_size)}
    return {
        name: rng.normal(size=(views, options.batch, side, side, 1)).astype(np.float32)
        for name, (views, side) in sizes.items()
    }


def model_config(options: argparse.Namespace) -> ModelConfig:
    """Return the network that both sides train."""
    if options.variant in RESNETS:
        return ModelConfig(
            variant=options.variant, norm=options.norm, width=options.width, precision=options.precision, hidden=1024
        )
    return ModelConfig(
        variant=options.variant,
        patch=options.patch,
        out_dim=options.out_dim,
        precision=options.precision,
        remat=options.remat,
    )


def objective(options: argparse.Namespace) -> str:
    """Return what both sides are trained for: residual networks on two views alone."""
    return "simclr" if options.variant in RESNETS else "dino"


def our_side(options: argparse.Namespace) -> tuple[Callable[[], float], Callable[[], float | None]]:
    """Return a function that takes a step and waits for its loss, and one that tells the device's peak memory."""
    import jax

    from vis2img.train.parallel import make_parallel_step, replicate, shard, unreplicate
    from vis2img.train.state import build_model, create_state

    optim = OptimConfig(objective=objective(options), accumulate=options.accumulate)
    model = build_model(model_config(options), options.global_size, optim)
    shape = (options.global_size, options.global_size, 1)
    state = replicate(create_state(jax.random.key(0), model, optim, shape), 1)
    step = make_parallel_step(model, optim, total_steps=TOTAL_STEPS, n_devices=1)
    # On the device, as on the other side: moving a batch is timed by the command `loader`.
    batch = jax.device_put(shard(noise(options), 1), jax.local_devices()[0])

    def take() -> float:
        nonlocal state
        state, metrics = step(state, batch)
        return float(unreplicate(metrics)["loss"])

    def memory() -> float | None:
        stats = jax.local_devices()[0].memory_stats()
        return stats["peak_bytes_in_use"] if stats else None

    return take, memory


def their_side(options: argparse.Namespace) -> tuple[Callable[[], float], Callable[[], float | None]]:
    """Return the same of PyTorch."""
    import jax
    import torch
    from torch_dino import TorchDino
    from torch_simclr import TorchSimclr

    from vis2img.train.state import backbone_variables, build_model, create_state

    device = "cuda" if torch.cuda.is_available() else "cpu"
    optim = OptimConfig(objective=objective(options))
    model = build_model(replace(model_config(options), precision="float32"), options.global_size, optim)
    state = create_state(jax.random.key(0), model, optim, (options.global_size, options.global_size, 1))
    if options.variant in RESNETS:
        simclr = TorchSimclr(model_config(options), optim, TOTAL_STEPS, device, options.compile)
        simclr.load_from_jax(backbone_variables(state, "student"), state.params["head"])
        views = simclr.put(noise(options))
        return lambda: float(simclr.step(views)["loss"]), simclr.peak_memory

    dino = TorchDino(
        *(options.variant, options.patch, options.global_size, 1, options.out_dim, ModelConfig().drop_path, optim),
        TOTAL_STEPS,
        device,
        options.precision,
        options.compile,
    )
    dino.load_from_jax(state.params, state.teacher)
    batch = dino.put(noise(options))

    def take() -> float:
        return float(dino.step(batch)["loss"])

    return take, dino.peak_memory


def serve(options: argparse.Namespace) -> None:
    """Take steps when asked to on standard input; tell seconds and loss of each."""
    take, memory = our_side(options) if options.side == "vis2img" else their_side(options)
    for line in sys.stdin:
        rows = []
        for _ in range(int(line)):
            start, cpu = time.perf_counter(), time.process_time()
            loss = take()
            rows.append((time.perf_counter() - start, time.process_time() - cpu, loss))
        host = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"rows": rows, "device_bytes": memory(), "host_bytes": host}), flush=True)


class Side:
    """A process that takes steps of one side."""

    def __init__(self, name: str, arguments: list[str], large_pages: bool) -> None:
        self.name, self.seconds, self.cpu_seconds = name, list[float](), list[float]()
        self.told: dict[str, Any] = {}
        command = [sys.executable, __file__, *arguments, "--side", name]
        here = Path(__file__).parent
        paths = os.pathsep.join([str(here.parent), str(here), os.environ.get("PYTHONPATH", "")])
        # So that two sides fit on one accelerator.
        env = {**os.environ, "PYTHONPATH": paths, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        if large_pages:
            env["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def steps(self, count: int) -> list[tuple[float, float, float]]:
        """Take steps; return (seconds, CPU seconds, loss) of each."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the side of {self.name} failed, see above")
        self.told = json.loads(line)
        return [(s, c, loss) for s, c, loss in self.told["rows"]]

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def flops_per_sample(options: argparse.Namespace) -> dict[str, float]:
    """Return the arithmetic of a step for one sample [FLOP], by side."""
    import jax

    from vis2img.train.run.flops import count_flops, model_flops_per_sample
    from vis2img.train.state import build_model

    optim = OptimConfig(objective=objective(options))
    model = build_model(model_config(options), options.global_size, optim)
    views = ViewConfig(global_size=options.global_size, local_size=options.local_size, n_local=options.n_local)
    ours = model_flops_per_sample(model, views, 1, teacher=optim.has_teacher)
    if options.variant in RESNETS:
        return {"vis2img": ours, "PyTorch": ours}

    def of_other_tokens(count: int, size: int) -> float:
        """Count what the last block takes for the tokens that we leave out."""
        images = jax.ShapeDtypeStruct((count, size, size, 1), np.float32)
        variables = jax.eval_shape(model.backbone.init, jax.random.key(0), images)

        def forward(patches: bool) -> float:
            return count_flops(lambda v, x: model.backbone.apply(v, x, patches=patches), variables, images)

        return forward(True) - forward(False)

    large = of_other_tokens(2, options.global_size)
    small = of_other_tokens(options.n_local, options.local_size) if options.n_local else 0.0
    # Forward and backward of the student, forward of the teacher.
    return {"vis2img": ours, "PyTorch": ours + 3.0 * (large + small) + large}


def compare(options: argparse.Namespace, arguments: list[str]) -> None:
    """Time both sides by turns."""
    import jax

    from vis2img.train.run.flops import peak_flops

    tell_machine()
    with_pages = {"ours": ("vis2img",), "both": ("vis2img", "PyTorch"), "none": ()}[options.large_pages]
    sides = [Side(name, arguments, name in with_pages) for name in ("vis2img", "PyTorch")]
    first = {side.name: side.steps(1)[0] for side in sides}
    for side in sides:
        side.steps(options.untimed)
    for _ in range(options.rounds):
        for side in sides:
            rows = side.steps(options.steps)
            side.seconds += [seconds for seconds, _, _ in rows]
            side.cpu_seconds += [seconds for _, seconds, _ in rows]
    flops = flops_per_sample(options)
    for side in sides:
        side.close()
    peak, source = peak_flops(jax.local_devices()[0], options.precision)
    sizes = f"2 of {options.global_size} and {options.n_local} of {options.local_size} px"
    print(
        f"{_network(options)}, batch {options.batch}, {sizes}, "
        f"{options.precision}; peak {peak / 1e9:.0f} GFLOP/s ({source})"
    )
    for side in sides:
        took = statistics.median(side.seconds)
        memory = side.told["device_bytes"] or side.told["host_bytes"]
        print(
            f"{side.name:8s} {1e3 * took:7.0f} ms a step (best {1e3 * min(side.seconds):.0f}), "
            f"{options.batch / took:.3g} samples/s of {flops[side.name] / 1e9:.2f} GFLOP, "
            f"{flops[side.name] * options.batch / took / peak:.0%} of the peak, "
            f"{memory / 1e9:.2f} GB, first step {first[side.name][0]:.0f} s, first loss {first[side.name][2]:.5f}"
        )
    cpu = [statistics.median(side.cpu_seconds) for side in sides]
    print(f"CPU seconds a step, which others on the machine change less: {cpu[0]:.2f} and {cpu[1]:.2f}")
    ours, theirs = (side.seconds for side in sides)
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    print(
        f"vis2img is {statistics.median(theirs) / statistics.median(ours):.2f} times as fast (medians; best steps "
        f"{min(theirs) / min(ours):.2f}; pairs from {min(ratios):.2f} to {max(ratios):.2f})"
    )


def _network(options: argparse.Namespace) -> str:
    if options.variant in RESNETS:
        return f"{options.variant}, SimCLR"
    return f"ViT-{options.variant}/{options.patch}, DINO, K {options.out_dim}"


def with_loader(options: argparse.Namespace) -> None:
    """Train on a measurement set with the real loader, and on a batch of noise."""
    from vis2img.loader.config import LoaderConfig
    from vis2img.train.run.config import TrainConfig
    from vis2img.train.run.run import read_metrics, train

    tell_machine()
    take, _ = our_side(options)
    for _ in range(3):
        take()
    seconds = []
    for _ in range(options.rounds * options.steps):
        start = time.perf_counter()
        take()
        seconds.append(time.perf_counter() - start)
    noise_rate = options.batch / statistics.median(seconds)
    views = ViewConfig(
        patch_npix=options.global_size,
        global_size=options.global_size,
        local_size=options.local_size,
        n_local=options.n_local,
    )
    with tempfile.TemporaryDirectory() as folder:
        data = LoaderConfig(ms=(str(options.ms),), batch_size=options.batch, field_npix=options.field_npix, views=views)
        config = TrainConfig(
            out=f"{folder}/run",
            data=data,
            model=model_config(options),
            optim=OptimConfig(objective=objective(options), warmup_steps=1, accumulate=options.accumulate),
            steps=options.loader_steps,
            checkpoint_every=options.loader_steps,
            log_every=5,
            views_every=10 * options.loader_steps,
        )
        train(config)
        metrics = read_metrics(config.out)
    later = slice(len(metrics["step"]) // 3, None)  # behind the compilation and the first batches
    rate, wait = (float(np.median(metrics[name][later])) for name in ("samples_per_s", "input_wait"))
    print(
        f"batch of noise: {noise_rate:.3g} samples/s; real loader, workers on the same machine: {rate:.3g} samples/s "
        f"({rate / noise_rate:.0%}); {wait:.2%} of the time spent waiting for input; "
        f"{float(metrics['mfu'][later].mean()):.0%} of the peak"
    )


def tell_machine() -> None:
    """Print the machine and the commit."""
    import jax

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {jax.devices()[0].device_kind}, JAX {jax.__version__}, "
        f"commit {commit.stdout.strip() or 'unknown'}",
        flush=True,
    )


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["step", "loader"])
    parser.add_argument("ms", type=Path, nargs="?", help="measurement set of the command loader")
    parser.add_argument("--variant", default="small", choices=["micro", "tiny", "small", "base", *RESNETS])
    parser.add_argument("--norm", choices=["batch", "group"], help="of a residual network; default: its own")
    parser.add_argument("--width", type=int, default=64, help="of the first stage of a residual network")
    parser.add_argument("--patch", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--global-size", type=int, default=224)
    parser.add_argument("--local-size", type=int, default=96)
    parser.add_argument("--n-local", type=int, default=8)
    parser.add_argument("--out-dim", type=int, default=4096)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--accumulate", type=int, default=1, help="parts of a batch, ours alone")
    parser.add_argument("--remat", action="store_true", help="ours alone")
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    parser.add_argument(
        "--large-pages",
        default="ours",
        choices=["ours", "both", "none"],
        help="sides that have glibc's large pages; `vis2img train` gives them to itself",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="of each side in a round")
    parser.add_argument("--untimed", type=int, default=1, help="steps of each side before them, behind the first")
    parser.add_argument("--field-npix", type=int, default=2048)
    parser.add_argument("--loader-steps", type=int, default=60)
    parser.add_argument("--side", choices=["vis2img", "PyTorch"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.variant in RESNETS:
        options.n_local = 0
    if options.side:
        serve(options)
    elif options.command == "step":
        compare(options, sys.argv[1:])
    elif options.ms is None:
        parser.error("loader needs a measurement set")
    else:
        with_loader(options)


if __name__ == "__main__":
    main()
