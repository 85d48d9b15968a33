"""Draw the rooms of the code and what they import, from the code itself: the picture of docs/architecture.md.

    python docs/architecture.py            # writes docs/pictures/architecture.png

Rooms stand in the order of the layers in pyproject.toml, the first to see the data on top. An arc goes from a room
up to one that it imports; its width grows with the number of imports between their modules. Modules that everything
may import (errors, units, coordinates, files, ...) are named only.
"""

from __future__ import annotations

import ast
import math
import textwrap
import tomllib
from collections import Counter
from pathlib import Path

import grimp
import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

ROOT = Path(__file__).resolve().parents[1]


def layers() -> list[list[str]]:
    """Return the rooms of each layer, the highest first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    rooms = next(each["layers"] for each in contracts if each["type"] == "layers")
    return [[room.strip(" ()") for room in line.split("|")] for line in rooms]


def purpose(room: str) -> str:
    """Return the first sentence of the docstring of a room or module."""
    folder = ROOT / "vis2img" / room
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return text.split("\n\n")[0].replace("\n", " ").split(". ")[0].rstrip(".:")


def size(room: str) -> int:
    """Return the number of lines of a room."""
    folder = ROOT / "vis2img" / room
    paths = sorted(folder.resolve().rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    return sum(len(path.read_text().splitlines()) for path in paths)


def imports() -> Counter[tuple[str, str]]:
    """Return how many imports there are from one room to another."""
    graph = grimp.build_graph("vis2img", exclude_type_checking_imports=True)
    counts: Counter[tuple[str, str]] = Counter()
    for importer in graph.modules:
        for imported in graph.find_modules_directly_imported_by(importer):
            ends = tuple(name.split(".")[1] if "." in name else "" for name in (importer, imported))
            if "" not in ends and ends[0] != ends[1]:
                counts[ends[0], ends[1]] += 1
    return counts


def draw() -> Figure:
    """Return the picture: rooms in the order of the data, and arcs to what each of them imports."""
    order = [room for layer in reversed(layers()) for room in layer]
    first = order.index("visibilities")
    common, rooms = order[:first], order[first:]
    figure = Figure(figsize=(11.5, 0.62 * len(rooms) + 1.1), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(-4.2, 11.8), ylim=(len(rooms) + 0.2, -0.7))
    axes.axis("off")

    place = {room: y for y, room in enumerate(rooms)}
    for room, y in place.items():
        lines = size(room)
        axes.add_patch(FancyBboxPatch((0, y - 0.27), 2.6, 0.54, boxstyle="round,pad=0.02", fc="#dbe9f6", ec="#446688"))
        axes.text(0.12, y, room, va="center", fontsize=12, weight="bold")
        axes.text(2.52, y, f"{lines:,} lines", va="center", ha="right", fontsize=8, color="#446688")
        axes.text(2.85, y, textwrap.fill(purpose(room), 88), va="center", fontsize=9)

    for (importer, imported), number in sorted(imports().items()):
        if importer in place and imported in place:
            y0, y1 = place[importer], place[imported]
            wrong = y1 > y0  # up the stream: what the contract of layers forbids
            style = f"arc3,rad={-0.55 if not wrong else 0.55}"
            colour = "#c0392b" if wrong else matplotlib.colormaps["viridis"](0.85 * y0 / len(rooms))
            width = 0.4 + 0.45 * math.sqrt(number)
            ends = ((-0.08, y0 - 0.06), (-0.08, y1 + 0.06))
            axes.add_patch(
                FancyArrowPatch(
                    *ends, arrowstyle="-|>", mutation_scale=8, lw=width, color=colour, connectionstyle=style
                )
            )

    names = ", ".join(reversed(common))
    axes.text(0, len(rooms) - 0.1, f"used by all of them: {names}", va="center", fontsize=9, color="#446688")
    axes.text(0, -0.6, "from the telescope ...", fontsize=9, style="italic", color="#446688")
    return figure


if __name__ == "__main__":
    target = ROOT / "docs" / "pictures" / "architecture.png"
    draw().savefig(target, dpi=110)
    print(target.relative_to(ROOT))
