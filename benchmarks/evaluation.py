"""Measure how long the tasks take on an embedding of many patches.

    python benchmarks/evaluation.py                         # 20,000 made-up vectors of 384 numbers, six classes
    python benchmarks/evaluation.py --patches 100000 --dim 768

The vectors are classes with a correlated spread, so that solvers have the work that real embeddings give them.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import time
from collections.abc import Callable

import numpy as np

from vis2img.train.evaluate.active import ActiveLearning
from vis2img.train.evaluate.anomaly import METHODS, outlier_scores
from vis2img.train.evaluate.classification import Classification
from vis2img.train.evaluate.classifiers import FITS
from vis2img.train.evaluate.folds import Samples
from vis2img.train.evaluate.similarity import Similarity

CLASSES = 6


def made_up(patches: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors float32 [patch, dim] and classes [patch]."""
    rng = np.random.default_rng(0)
    label = rng.integers(CLASSES, size=patches)
    mixing = rng.normal(size=(dim, dim)) / np.sqrt(dim)
    vectors = 0.15 * rng.normal(size=(CLASSES, dim))[label] + rng.normal(size=(patches, dim)) @ mixing
    return vectors.astype(np.float32), label


def main() -> None:
    """Run each task once and print its time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=384)
    options = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    print(f"{platform.machine()}, {os.cpu_count()} cores, commit {commit.stdout.strip() or 'unknown'}")
    vectors, label = made_up(options.patches, options.dim)
    samples = Samples(vectors, label, np.arange(len(label)))
    planted = np.random.default_rng(1).random(len(label)) < 0.02
    work: dict[str, Callable[[], object]] = {
        f"{' and '.join(FITS)}, 5 folds": lambda: list(Classification([1.0]).run(samples, seeds=[0])),
        "similarity, precision at 1 to 10": lambda: list(Similarity().run(samples)),
        **{method: (lambda method=method: outlier_scores(method, vectors, 0)) for method in METHODS},
        "active learning, two methods, 100 scores": lambda: list(ActiveLearning().run(vectors, planted, [0])),
    }
    total = 0.0
    for name, function in work.items():
        start = time.perf_counter()
        function()
        seconds = time.perf_counter() - start
        total += seconds
        print(f"{name:45s} {seconds:6.1f} s", flush=True)
    print(f"{'all':45s} {total:6.1f} s")


if __name__ == "__main__":
    main()
