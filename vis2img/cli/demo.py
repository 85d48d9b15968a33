"""``vis2img demo``: the main job on simulated observations, with a report to look at."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

from vis2img.cli.progress import Bars
from vis2img.configs.command_line import parse
from vis2img.train.demo_config import DemoConfig


@dataclass(frozen=True)
class DemoCommand(DemoConfig):
    """Simulate observations, train on them, and write a report with pictures: DIR/report.html.

    examples:
      vis2img demo
      vis2img demo --out /tmp/demo --steps 1000 --seed 1
    """

    json: bool = False
    """Print the scores as JSON."""
    quiet: bool = False
    """No progress bars."""


def run(argv: list[str], prog: str) -> int:
    """Run the command; return the exit code."""
    command = parse(DemoCommand, argv, prog)
    # They load JAX, scikit-learn and matplotlib, which --help does not wait for.
    from vis2img.train.demo import QUERIES, run_demo
    from vis2img.train.evaluate.scores import summaries, to_json
    from vis2img.train.run.stopping import Stopped

    with Bars(command.quiet or command.json) as bars:
        try:
            path, scores = run_demo(command, bars)
        except Stopped:
            print("stopped; the same command goes on", file=sys.stderr)
            return 0
    rows = summaries(scores)
    if command.json:
        print(json.dumps({"report": str(path), "scores": json.loads(to_json(rows))}, indent=1))
        return 0
    for row in rows:
        way = QUERIES[row.setting.partition(",")[0]]
        print(f"{row.representation:15s} {way:17s} k-NN balanced accuracy {row.mean:.3f}")
    print(f"report: {path}")
    return 0
