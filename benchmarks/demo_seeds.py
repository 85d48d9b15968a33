"""Run the demonstration with several seeds and print the table of docs/results.md: means and 95% intervals.

python benchmarks/demo_seeds.py --seeds 3 --out demo-seeds
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import time
from pathlib import Path

import numpy as np

from vis2img.train.demo import QUERIES, run_demo
from vis2img.train.demo_config import DemoConfig
from vis2img.train.evaluate.intervals import mean_interval, mean_text
from vis2img.train.evaluate.scores import summaries


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="number of skies, networks and draws")
    parser.add_argument("--steps", type=int, default=DemoConfig.steps)
    parser.add_argument("--out", type=Path, default=Path("demo-seeds"))
    options = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    print(f"{platform.machine()}, {os.cpu_count()} cores, commit {commit.stdout.strip() or 'unknown'}")
    table: dict[tuple[str, str], list[float]] = {}
    for seed in range(options.seeds):
        start = time.perf_counter()
        config = DemoConfig(out=options.out / f"seed{seed}", steps=options.steps, seed=seed)
        _, scores = run_demo(config, lambda *_: None)
        rows = {(row.representation, row.setting.partition(",")[0]): row.mean for row in summaries(scores)}
        for key, mean in rows.items():
            table.setdefault(key, []).append(mean)
        shown = {", ".join(key): round(mean, 3) for key, mean in rows.items()}
        print(f"seed {seed}: {time.perf_counter() - start:.0f} s", shown, flush=True)
    print("| representation | " + " | ".join(QUERIES.values()) + " |")
    print("|---" * (1 + len(QUERIES)) + "|")
    for name in dict.fromkeys(name for name, _ in table):
        cells = (table[name, how] for how in QUERIES)
        print(
            f"| {name} | " + " | ".join(mean_text(float(np.mean(v)), *mean_interval(v, 0, 1), v) for v in cells) + " |"
        )


if __name__ == "__main__":
    main()
