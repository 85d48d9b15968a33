"""Train on simulated observations for half an hour on two cores, and see what the representation learns on the way.

    python benchmarks/pretraining.py curves --work DIR       # the half hour: loss, entropy, RankMe, k-NN; a plot
    python benchmarks/pretraining.py objectives --work DIR   # shorter runs, one for each objective and seed: a table

Eight MeerKAT fields of the demonstration (`vis2img demo`), 48 labelled sources each. k-NN as there: each field is
classified by the others, balanced accuracy, four classes. What is in the folder already is used again, runs included.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vis2img.train.demo import QUERIES
from vis2img.train.demo_config import DemoConfig, observation, train_config
from vis2img.train.evaluate.encoders import Encoder, network_encoder, pixel_encoder, random_encoders
from vis2img.train.evaluate.field_tasks import QueryWays
from vis2img.train.evaluate.intervals import mean_interval, mean_text
from vis2img.train.evaluate.simulated import ALIKE, SourcePatches, field_patches, read_truths
from vis2img.train.run.checkpoints import CheckpointStore
from vis2img.train.run.config import TrainConfig
from vis2img.train.run.run import load_run, read_metrics, train
from vis2img.train.state import backbone_variables

# What stands for DINO in the table, and what each of the others changes.
OBJECTIVES: dict[str, dict[str, Any]] = {
    "DINO": {},
    "with Sinkhorn centring": {"centring": "sinkhorn"},
    "with KoLeo 0.1": {"koleo": 0.1},
    "with iBOT 1": {"ibot": 1.0},
    "BYOL": {"objective": "byol"},
}


def run_config(work: Path, name: str, steps: int, seed: int, **optim: Any) -> TrainConfig:
    """Return the demonstration's run on all fields, longer and with another objective."""
    base = train_config(DemoConfig(out=work, fields=8, steps=steps, seed=0))
    every = max(1, steps // 12)
    return replace(
        base,
        out=str(work / f"{name}-{seed}"),
        optim=replace(base.optim, base_lr=4e-3, warmup_steps=steps // 20, momentum_teacher=0.996, **optim),
        seed=seed,
        checkpoint_every=every,
        keep_every=every,
        views_every=every,
    )


def patches_of(config: TrainConfig) -> SourcePatches:
    """Return the labelled sources of all fields."""
    return field_patches(config, read_truths(config), tuple(QUERIES))[0]


def accuracies(encoder: Encoder, patches: SourcePatches) -> list[float]:
    """Return k-NN accuracy of queries imaged alike, imaged otherwise and off centre."""
    return [value for _, value in QueryWays(patches, tuple(QUERIES)).run(encoder)]


def simulate_fields(work: Path) -> None:
    """Simulate what is not there yet."""
    from vis2img.simulate.run import simulate

    (work / "data").mkdir(parents=True, exist_ok=True)
    for i in range(8):
        wanted = observation(DemoConfig(out=work, fields=8), i)
        if not wanted.out.exists():
            simulate(wanted)


def train_to_the_end(config: TrainConfig, **callbacks: Any) -> None:
    """Train; leave the benchmark where the run is asked to stop."""
    if not train(config, **callbacks).finished:
        raise SystemExit(f"{config.out}: stopped; the same command goes on")


def curves(options: argparse.Namespace) -> None:
    """Train, score every checkpoint, and plot."""
    config = run_config(options.work, "curves", options.steps, 0)
    train_to_the_end(config, progress=lambda *told: print(*told, flush=True))
    patches = patches_of(config)
    rows = [(0, *accuracies(random_encoders(config, [0])[0], patches))]
    with CheckpointStore(Path(config.out) / "checkpoints", keep_every=config.keep_every) as store:
        steps = store.steps()
    for step in steps:
        _, state, model = load_run(config.out, step)
        rows.append((step, *accuracies(network_encoder("", 0, model, backbone_variables(state)), patches)))
    of_pixels = accuracies(pixel_encoder(patches.seen[ALIKE]), patches)
    metrics = read_metrics(config.out)
    # Of all parts of a run that was stopped and went on.
    minutes = np.sum(config.data.batch_size / metrics["samples_per_s"]) / 60
    done, size = len(metrics["step"]), config.data.batch_size
    print(f"{done} of {config.steps} steps of {size} samples in {minutes:.1f} minutes")
    for row in rows:
        print("step {:6d}: k-NN imaged alike {:.3f}, otherwise {:.3f}, off centre {:.3f}".format(*row))
    print("pixels:      k-NN imaged alike {:.3f}, otherwise {:.3f}, off centre {:.3f}".format(*of_pixels))
    plot(metrics, np.array(rows), of_pixels, config, options.plot)


def plot(
    metrics: dict[str, np.ndarray], rows: np.ndarray, of_pixels: list[float], config: TrainConfig, path: Path
) -> None:
    """Draw loss, entropy, rank and accuracy over the steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.2), layout="constrained")
    loss, entropy, rank, accuracy = figure.subplots(1, 4)
    smooth = 50
    step = metrics["step"][smooth - 1 :]

    def mean(name: str) -> np.ndarray:
        return np.convolve(metrics[name], np.ones(smooth) / smooth, mode="valid")

    loss.plot(step, mean("loss"))
    loss.axhline(np.log(config.model.out_dim), color="grey", ls=":", lw=1)
    loss.set(title="loss (dotted: ln K)", xlabel="step", ylabel="nat")
    entropy.plot(step, mean("entropy"), label="teacher entropy")
    entropy.plot(step, mean("kl"), label="KL(teacher || student)")
    entropy.legend(fontsize=8)
    entropy.set(title="entropy", xlabel="step", ylabel="nat")
    known = np.isfinite(metrics["rankme"])
    rank.plot(metrics["step"][known], metrics["rankme"][known])
    rank.set(title="RankMe of the teacher", xlabel="step", ylim=(0, None))
    for column, name in enumerate(QUERIES.values()):
        line = accuracy.plot(rows[:, 0], rows[:, 1 + column], marker=".", label=name)[0]
        accuracy.axhline(of_pixels[column], color=line.get_color(), ls=":", lw=1)
    accuracy.legend(fontsize=8)
    accuracy.set(title="k-NN (dotted: pixels)", xlabel="step", ylim=(0.2, 0.9))
    figure.savefig(path, dpi=100)


def objectives(options: argparse.Namespace) -> None:
    """Train one short run for each objective and seed, and print the table."""
    patches = None
    for name, changes in OBJECTIVES.items():
        found = []
        for seed in range(options.seeds):
            word = name.replace(" ", "-").lower()
            config = run_config(options.work, word, options.steps, seed, **changes)
            train_to_the_end(config)
            patches = patches or patches_of(config)
            _, state, model = load_run(config.out)
            rank = read_metrics(config.out)["rankme"]
            encoder = network_encoder(name, seed, model, backbone_variables(state))
            found.append((*accuracies(encoder, patches), rank[np.isfinite(rank)][-1]))
        mean = np.mean(found, axis=0)
        cells = [
            mean_text(m, *mean_interval(v, 0, 1), v) for m, v in zip(mean[:3], np.transpose(found)[:3], strict=True)
        ]
        print(f"| {name} | {' | '.join(cells)} | {mean[3]:.1f} |", flush=True)
        print(json.dumps({name: found}), flush=True)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["curves", "objectives"])
    parser.add_argument("--work", type=Path, required=True, help="folder for observations and runs (100 MB)")
    parser.add_argument("--steps", type=int, default=None, help="default: 12000 for curves, 1500 for objectives")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--plot", type=Path, default=Path("pretraining.png"))
    options = parser.parse_args()
    options.steps = options.steps or {"curves": 12_000, "objectives": 1_500}[options.command]
    simulate_fields(options.work)
    {"curves": curves, "objectives": objectives}[options.command](options)


if __name__ == "__main__":
    main()
