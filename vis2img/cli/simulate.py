"""``vis2img simulate``: a labelled sky, observed into a real measurement set."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vis2img.cli.app import parse
from vis2img.simulate import SimulateConfig, simulate


@dataclass(frozen=True)
class SimulateCommand(SimulateConfig):
    """Simulate an observation of a labelled sky and write it as a measurement set, with the truth beside it.

    Needs simms (pip install 'vis2img[simulate]').

    For example:
      vis2img simulate -o field.ms
      vis2img simulate -o field.ms --n-sources 100 --ntimes 120 --nchan 32 --seed 7
      vis2img simulate -o deep.ms --phase-centre 53.1,-27.8 --fov 1.5deg --sefd 0 --overwrite
    """

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Measurement set to write; OUT.truth.fits and OUT.truth.json are written beside it."""
    json: bool = False
    """Print what was written as JSON."""
    quiet: bool = False
    """Print nothing but errors."""

    def config(self) -> SimulateConfig:
        """Return the simulation without what concerns the terminal."""
        names = [f.name for f in dataclasses.fields(SimulateConfig)]
        return SimulateConfig(**{name: getattr(self, name) for name in names})


def run(argv: list[str], prog: str) -> int:
    """Run ``vis2img simulate``."""
    command = parse(SimulateCommand, argv, prog)
    silent = command.json or command.quiet or not sys.stderr.isatty()
    with contextlib.nullcontext() if silent else _progress() as report:
        result = simulate(command.config(), progress=report)
    written = {
        "measurement_set": str(result.ms_path),
        "catalogue": str(result.catalogue_path),
        "parameters": str(result.parameters_path),
    }
    if command.json:
        print(json.dumps(written, indent=2))
    elif not command.quiet:
        print("\n".join(f"wrote {path}" for path in written.values()))
    return 0


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, float], None]]:
    """Show on stderr which step runs and how far it is; gone when done."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda step, fraction: bar.update(task, description=step, completed=fraction)
