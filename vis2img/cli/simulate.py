"""``vis2img simulate``: labelled skies, observed into real measurement sets."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro

from vis2img.cli.progress import Bars
from vis2img.configs.command_line import parse, value_of
from vis2img.configs.load import draft, override, read_config
from vis2img.errors import ParameterError, UsageError, printable
from vis2img.simulate.config import PRESETS, SimulateConfig


@dataclass(frozen=True)
class SimulateCommand(SimulateConfig):
    """Simulate observations of labelled skies and write them as measurement sets, with the truth beside them.

    --preset and --config set values that options behind them change; the same command goes on where it was
    stopped. Needs simms (pip install 'vis2img[simulate]').

    For example:
      vis2img simulate -o field.ms
      vis2img simulate -o field.ms --n-sources 100 --ntimes 120 --nchan 32 --seed 7
      vis2img simulate -o deep.ms --phase-centre 53.1,-27.8 --fov 1.5deg --sefd 0 --overwrite
      vis2img simulate -o clusters --preset mgcls-like --observations 20 --scatter
      vis2img simulate -o vla.ms --telescope vla-b --band L --phase-centre 180,30
      vis2img simulate -o real.ms --cutouts mirabest.npz --n-cutouts 40 --n-sources 0
      vis2img simulate -o real --observations 12 --cutouts mirabest.npz --n-cutouts 60 --cutout-part 0 12 --n-sources 0
    """

    COMMON: ClassVar = (
        "out", "preset", "config", "observations", "seed", "overwrite", "telescope", "phase-centre", "ntimes", "nchan",
        "sefd", "n-sources", "classes", "fov", "cutouts",
    )  # fmt: skip
    """Options that --help describes; --help-all describes all."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Measurement set to write; OUT.truth.fits and OUT.truth.json are written beside it. Of several: a folder."""
    preset: str | None = None
    """Start from these values: quick, mgcls-like or mightee-like."""
    config: Path | None = None
    """YAML file of options, with _ or - in their names."""
    observations: int = 1
    """Number of observations, with the seeds from --seed on, as OUT/OUT-00000.ms and so on."""
    scatter: bool = False
    """Point each observation somewhere else on the sky."""
    workers: int = 0
    """Observations made at a time; default: one per core. For Slurm it must be given."""
    scheduler: str | None = None
    """Where they are made: a Dask scheduler (tcp://host:8786), slurm, or by default processes on this machine."""
    json: bool = False
    """Print what was written as JSON."""
    quiet: bool = False
    """Print nothing but errors."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.observations < 1 or self.workers < 0:
            raise ParameterError("observations must be at least 1, and workers not negative")
        if self.scatter and self.observations == 1:
            raise ParameterError("--scatter points several observations; give --observations")


def run(argv: list[str], prog: str) -> int:
    """Run ``vis2img simulate``."""
    command = _parse(argv, prog)
    return _many(command, prog) if command.observations > 1 else _one(command)


def _parse(argv: list[str], prog: str) -> SimulateCommand:
    """Return the command, with the preset as defaults and the file in front of the options."""
    file = value_of(argv, "--config")
    record = read_config(Path(file)) if file else {}
    preset = value_of(argv, "--preset") or record.get("preset")
    if preset is not None and preset not in PRESETS:
        raise UsageError(f"--preset {preset} is unknown; choose from {', '.join(PRESETS)} ({prog} --help)")
    if not file and not preset:
        return parse(SimulateCommand, argv, prog)
    given = draft(SimulateCommand, record, Path(file or ""), PRESETS[preset] if preset else None)
    try:
        return override(given, argv, prog)
    except UsageError as error:
        raise UsageError(f"{file} or an option: {error}" if file else str(error)) from None


def _one(command: SimulateCommand) -> int:
    from vis2img.simulate.run import simulate

    with Bars(command.json or command.quiet, brief=True) as bars:
        result = simulate(command, progress=bars)
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


def _many(command: SimulateCommand, prog: str) -> int:
    from vis2img.simulate.campaign import observations, simulate_many

    configs = observations(command, command.observations, scatter=command.scatter)
    with Bars(quiet=command.quiet or command.json) as bars:
        result = simulate_many(
            configs,
            workers=command.workers,
            scheduler=command.scheduler,
            progress=bars,
        )
    if command.json:
        paths = {"made": result.made, "kept": result.kept}
        record: dict[str, Any] = {name: [str(path) for path in found] for name, found in paths.items()}
        print(json.dumps({**record, "failed": {str(path): why for path, why in result.failed.items()}}, indent=2))
    elif not command.quiet:
        kept = f", {len(result.kept)} were there already" if result.kept else ""
        print(f"{command.out}: {len(result.made)} measurement sets made{kept}")
    for path, reason in result.failed.items():
        print(printable(f"{prog}: {path}: {reason}"), file=sys.stderr)
    return 1 if result.failed else 0
