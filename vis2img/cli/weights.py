"""``vis2img weights``: the trained networks that come with vis2img."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import rich
import tyro
from rich.table import Table

from vis2img.configs.command_line import parse
from vis2img.train.weights.released import Released, names, released


@dataclass(frozen=True)
class WeightsCommand:
    """List the trained networks that come with vis2img, or show the card of one.

    examples:
      vis2img weights
      vis2img weights first-v1
      vis2img embed first-v1 cutouts.npz -o pictures.parquet
      vis2img train run.yaml --model.weights first-v1

    A name stands for its weights wherever a run folder or exported weights may stand, and in Python:
    vis2img.pretrained("first-v1"). A file or folder of that name in the current folder comes first.
    """

    name: tyro.conf.Positional[str | None] = None
    """Whose card to show; default: a list of all."""
    json: bool = False
    """Print as JSON."""


def run(argv: list[str], prog: str) -> int:
    """Run the command; return the exit code."""
    command = parse(WeightsCommand, argv, prog)
    if command.name is not None:
        found = released(command.name)
        print(json.dumps(_record(found), indent=1) if command.json else found.text.rstrip())
        return 0
    rows = [released(name) for name in names()]
    if command.json:
        print(json.dumps([_record(row) for row in rows], indent=1))
    elif rows:
        rich.print(_table(rows))
    else:
        print("this version comes with no weights")
    return 0


def _record(row: Released) -> dict[str, object]:
    told = {"name": row.name, "network": row.network, "megabytes": round(row.megabytes, 2)}
    return {**told, **asdict(row.card), "path": str(row.path)}


def _table(rows: list[Released]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("name", "MB", "network", "trained on", "scores", "licence"):
        table.add_column(title, overflow="fold")
    for row in rows:
        card = row.card
        table.add_row(row.name, f"{row.megabytes:.1f}", row.network, card.trained_on, card.scores, card.licence)
    return table
