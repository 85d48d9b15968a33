"""``vis2img loader-bench``: how fast a loader feeds a consumer from your data, on your machine."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import tyro

from vis2img.cli.progress import Bars
from vis2img.configs.command_line import parse, value_of
from vis2img.configs.load import draft, override, read_config
from vis2img.errors import ParameterError, printable
from vis2img.files import check_outputs
from vis2img.loader.bench import Figures, draw_plot, measure
from vis2img.loader.config import LoaderConfig
from vis2img.loader.loader import Loader
from vis2img.units import format_bytes


@dataclass(frozen=True)
class LoaderBenchCommand(LoaderConfig):
    """Measure the loader: views per second, megabytes read, memory, and how long a training step would wait.

    Workers image fields into a pool; a consumer takes batches of views and sleeps as long as a training step takes.
    Options are those of 'data' in a training configuration.

    For example:
      vis2img loader-bench obs.ms
      vis2img loader-bench a.ms b.ms --field-npix 4096 --views.global-size 224 --views.local-size 96 --rate 500
      vis2img loader-bench --config run.yaml --seconds 600 --plot loader.png
      vis2img loader-bench obs.ms --workers 2 --dashboard
    """

    COMMON: ClassVar = (
        "config", "seconds", "rate", "seed", "plot", "overwrite", "json", "field-npix", "fov", "imaging", "batch-size",
        "workers", "draws-per-field", "views.global-size", "views.local-size",
    )  # fmt: skip
    """Options that --help describes; --help-all describes all."""

    ms: tyro.conf.Positional[tuple[str, ...]] = ()
    """Measurement sets, or averaged data; default: those of --config."""
    config: Path | None = None
    """Training configuration (YAML) whose 'data' gives the options that are not given here."""
    seconds: float = 60.0
    """How long to run after the pool is full."""
    rate: float = 300.0
    """Samples per second that the consumer takes; 0: as fast as they come."""
    seed: int = 0
    """Seed of draws and views."""
    plot: Path | None = None
    """Picture of memory, draws and waiting over time to write (.png or .pdf)."""
    overwrite: bool = False
    """Replace the picture if it exists."""
    json: bool = False
    """Print everything as JSON, with what was seen each second."""
    quiet: bool = False
    """Show no progress."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.seconds > 0 or self.rate < 0:
            raise ParameterError("seconds must be positive, and rate not negative")


def run(argv: list[str], prog: str) -> int:
    """Run ``vis2img loader-bench``."""
    command = _parse(argv, prog)
    if command.plot:
        check_outputs([command.plot], command.overwrite)
    with Bars(quiet=command.quiet or command.json) as bars:

        def tell_dashboard(loader: Loader) -> None:
            if loader.source.dashboard_link and not command.json:
                print(f"dashboard: {loader.source.dashboard_link}", file=sys.stderr)

        figures = measure(
            command,
            seconds=command.seconds,
            rate=command.rate,
            seed=command.seed,
            progress=bars,
            on_open=tell_dashboard,
        )
    if command.plot:
        draw_plot(figures.series, command.plot, command.overwrite)
    print(json.dumps(dataclasses.asdict(figures), indent=1) if command.json else report(figures, command))
    for why in figures.unused.values():
        print(printable(f"{prog}: not used: {why}"), file=sys.stderr)
    return 0


def _parse(argv: list[str], prog: str) -> LoaderBenchCommand:
    """Return the command, with the file of --config in front of the options."""
    file = value_of(argv, "--config")
    if not file:
        return parse(LoaderBenchCommand, argv, prog)
    record = read_config(Path(file))
    data = draft(LoaderConfig, record.get("data", record), Path(file))
    return override(draft(LoaderBenchCommand, {}, Path(file), vars(data)), argv, prog)


def report(figures: Figures, command: LoaderBenchCommand) -> str:
    """Return the figures as a table for people."""
    fresh = (
        f"{figures.fresh_draws:.3g} draws/s of {figures.views_per_draw:.0f} views: {figures.fresh_views:.0f} views/s"
    )
    samples = figures.delivered_views / command.views.n_views
    repeated = f"; {figures.repeated_draws} repeated" if figures.repeated_draws else ""
    pool = f"{figures.pool_draws} draws of {figures.fields} fields, {format_bytes(figures.pool_bytes)}"
    rows = {
        "pool": f"{pool}; full after {figures.fill_seconds:.1f} s, {figures.workers} workers",
        "fresh": fresh,
        "delivered": f"{figures.delivered_views:.0f} views/s ({samples:.0f} samples/s)",
        "cutting": f"{figures.cut_views:.0f} views/s and core",
        "draws": f"{figures.draw_age:.1f} s old when replaced, after {figures.draw_reuse:.0f} views{repeated}",
        "read": f"{figures.read_bytes / 1e6:.1f} MB/s"
        if figures.read_bytes > 1e5
        else "nothing: workers keep the fields in memory",
        "memory": f"{format_bytes(figures.most_bytes)} at most, loader and workers of this machine",
        "wait": f"{100 * figures.input_wait:.1f}% of the consumer's time",
    }
    return "\n".join(f"{name:<10} {text}" for name, text in rows.items())
