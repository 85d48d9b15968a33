"""``vis2img average``: a measurement set to averaged visibilities that image fast."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from vis2img.averaging.params import AveragingParams
from vis2img.cli.other_words import refuse_other_words
from vis2img.cli.progress import Bars
from vis2img.configs.command_line import parse
from vis2img.dataset import Dataset, MeasurementSet, open_ms
from vis2img.errors import OutputError, ParameterError, printable
from vis2img.imaging.params import MIN_NPIX
from vis2img.machine import cores
from vis2img.ms.selection import Selection
from vis2img.units import Angle, Direction, Memory, Npix, format_angle, format_bytes

_SAMPLE_BYTES = 8 + 4  # visibility and weight, as the data are imaged without averaging


@dataclass(frozen=True)
class Facet(AveragingParams):
    """What the averaged visibilities are for, and how far they may be off."""

    npix: Npix | None = None  # type: ignore[assignment]
    """Facet size in pixels, x[,y]. Default: up to the primary beam, or --fov."""
    pixsize: Angle | None = None  # type: ignore[assignment]
    """Pixel size at the facet centre. Default: a third of the finest fringe."""
    phase_centre: Direction | None = None  # type: ignore[assignment]
    """Facet centre as RA,DEC. Default: the phase centre of the field."""
    fov: Angle | None = None
    """Facet size as an angle, in place of --npix."""

    def __post_init__(self) -> None:
        if self.fov is not None and (self.npix is not None or not self.fov > 0):
            raise ParameterError("--fov must be positive, and cannot be given with --npix")
        # Illegal values are told before the measurement set is opened; the stand-ins are legal with any value.
        stand_in = {"npix": (MIN_NPIX, MIN_NPIX), "pixsize": 1e-12, "phase_centre": (0.0, 0.0)}
        AveragingParams(**{**stand_in, **self.given()})

    def given(self) -> dict[str, Any]:
        """Return what was given of the averaging parameters."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(AveragingParams)}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class AverageCommand:
    """Average the visibilities of a measurement set for a facet, so that it images many times faster.

    Visibilities that fall into one fine uv cell become one. The facet's image stays the same within the
    tolerance; sources outside the facet are lost gradually. A killed run goes on when the same command is given again.

    For example:
      vis2img average obs.ms --npix 1024 --pixsize 2arcsec -o facet.zarr
      vis2img average obs.ms --fov 0.5deg --phase-centre 12h30m49.4s,12d23m28s --tolerance 0.005 -o m87.zarr
      vis2img average deep.ms --time-block 1800 --channel-blocks 8 --memory 4GB -o deep.zarr
    """

    ms: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MS")]
    """Measurement set."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """Store to write. Default: the name of the measurement set with .avg.zarr, in the current folder."""
    overwrite: bool = False
    """Replace a store that was made from other data or with other parameters."""
    memory: Memory = 2e9
    """Memory that this command may take, all in all: the most that it is resident with, Python included."""
    threads: int | None = None
    """Threads: time blocks averaged side by side, as far as the memory goes. Default: all cores."""
    json: bool = False
    """Print the summary as JSON."""
    quiet: bool = False
    """Print nothing but errors."""
    selection: tyro.conf.OmitArgPrefixes[Selection] = field(default_factory=Selection)
    facet: tyro.conf.OmitArgPrefixes[Facet] = field(default_factory=Facet)

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise ParameterError(f"--threads {self.threads}: at least one thread is needed")
        if self.memory < 1e7:
            raise ParameterError(f"--memory {format_bytes(self.memory)} is too little; give at least 10MB")

    @property
    def store(self) -> Path:
        """Where the averages go."""
        return self.output or Path(f"{self.ms.resolve().stem}.avg.zarr")


def run(argv: list[str], prog: str) -> int:
    """Run ``vis2img average``."""
    refuse_other_words(argv, prog, AverageCommand)
    command = parse(AverageCommand, argv, prog)

    from vis2img.averaging.run import average  # which loads numba and zarr

    ms = open_ms(command.ms)
    if not isinstance(ms, MeasurementSet):
        raise ParameterError(f"{command.ms} holds averaged data already; average the measurement set itself")
    if command.store.resolve().is_relative_to(ms.path.resolve()):
        raise OutputError(f"{command.store} is inside the measurement set, which is never written to")
    params = facet_params(ms, command)
    threads = command.threads or cores()
    with Bars(command.quiet or command.json, brief=True) as bars:
        result = average(
            ms.meta,
            command.store,
            params,
            command.selection,
            memory=command.memory,
            nthreads=threads,
            overwrite=command.overwrite,
            progress=bars,
        )
    taken = ms.outline(command.selection).taken
    if command.json:
        record = {**dataclasses.asdict(result), "path": str(result.path), "compression": _compression(result)}
        record["taken"] = taken
        print(json.dumps({**record, "parameters": dataclasses.asdict(params)}, indent=2))
    elif not command.quiet:
        print(printable(_report(result, params, taken)))
    return 0


def facet_params(ms: Dataset, command: AverageCommand) -> AveragingParams:
    """Return the averaging parameters with what was left out taken from the measurement set."""
    given = command.facet.given()
    changes = {name: given[name] for name in ("npix", "pixsize") if name in given}
    suggested = ms.imaging_params(command.selection, **changes)
    npix = suggested.npix
    if command.facet.fov is not None:
        side = max(MIN_NPIX, math.ceil(command.facet.fov / suggested.pixsize))
        npix = (side + side % 2,) * 2
    if "phase_centre" not in given:
        given["phase_centre"] = ms.outline(command.selection).phase_centre
    return AveragingParams(**{**given, "npix": npix, "pixsize": suggested.pixsize})


def _compression(result: Any) -> float:
    return result.nvis / max(1, result.nrow)


def _report(result: Any, params: AveragingParams, taken: str) -> str:
    size = " x ".join(str(n) for n in params.npix)
    speed = f"{result.binned / result.bin_seconds / 1e6:.0f} million/s/core" if result.bin_seconds > 0 else "none"
    return "\n".join(
        [
            *([f"taken {taken}"] if taken else []),
            f"facet {size} pixels of {format_angle(params.pixsize, 4)}, "
            f"cells 1/{params.divisions} of the density grid, {result.blocks} time blocks"
            + (f" ({result.resumed} were there)" if result.resumed else ""),
            f"{result.nvis:,} visibilities to {result.nrow:,} in {result.ncells:,} cells: "
            f"{_compression(result):.3g} to 1; "
            f"{format_bytes(_SAMPLE_BYTES * result.nvis)} to {format_bytes(result.nbytes)}",
            f"expected error {100 * result.expected_error:.2g}% (relative L2 over the facet, of sources within it)",
            f"averaged in {result.seconds:.1f} s ({speed} without reading)",
            f"wrote {result.path}",
        ]
    )
