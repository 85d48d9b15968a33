"""``vis2img embed``: one vector for each sky patch of measurement sets, FITS images and cutouts."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import arg

from vis2img.cli.progress import Bars
from vis2img.configs.command_line import parse
from vis2img.errors import printable
from vis2img.files import check_outputs
from vis2img.locks import locked
from vis2img.train.embed.config import EmbedConfig, check_suffix
from vis2img.train.weights.released import resolve


@dataclass(frozen=True)
class EmbedCommand(EmbedConfig):
    """Embed sky patches with a trained network, as a Parquet table.

    examples:
      vis2img embed runs/first new.ms -o patches.parquet
      vis2img embed runs/first mosaic.fits images/ --overlap 0.5 -o survey.parquet
      vis2img embed runs/first cutouts.npz --crop 64 -o cutouts.parquet
      vis2img embed runs/first a.ms b.ms --positions sources.csv --student -o sources.parquet
      vis2img embed weights.safetensors new.ms -o patches.parquet

    Inputs are measurement sets, averaged data (vis2img average), FITS images or folders of them, which are
    tiled, and .npz files of cutouts (images [n, y, x]), a patch each. Columns: vector (float32 [dim]),
    ra_deg, dec_deg, field, source, index, peak (Jy/beam), flux (Jy, above 3 sigma), snr (peak over noise),
    params (JSON), thumbnail (PNG), name. A command that was interrupted goes on with the fields that are missing.
    """

    run: tyro.conf.Positional[Path]
    """Run folder of ``vis2img train``, weights of ``vis2img export``, or a name that ``vis2img weights`` lists."""
    weights: Path | None = None
    """Weights of ``vis2img export`` in place of RUN; all names are inputs then."""
    inputs: Annotated[tyro.conf.Positional[tuple[str, ...]], arg(metavar="[INPUT ...]")] = ()
    """What to embed; default: the data of the run."""
    output: Annotated[Path, arg(aliases=["-o"])] = Path("embeddings.parquet")
    """Output file (.parquet)."""
    quiet: bool = False
    """No progress bar, no summary."""


def run(argv: list[str], prog: str) -> int:
    """Run the command; return the exit code."""
    command = parse(EmbedCommand, argv, prog)
    if command.weights is not None:
        command = replace(command, run=command.weights, inputs=(str(command.run), *command.inputs))
    command.check()
    check_suffix(command.output)
    check_outputs([command.output], command.overwrite)
    command = replace(command, run=resolve(command.run))
    from vis2img.train.embed.check import check_files

    check_files(command)
    with locked(command.output):  # who else writes it is told before the network is loaded
        pass
    # It loads JAX, which --help and a wrong command line do not wait for.
    from vis2img.train.embed.embedder import Embedder
    from vis2img.train.embed.job import embed_inputs

    embedder = Embedder.of(command.run, "student" if command.student else "teacher", command.step)
    with Bars(command.quiet) as bars:
        result = embed_inputs(embedder, command, bars)
    for reason in result.skipped.values():
        print(printable(f"vis2img: skipped: {reason}"), file=sys.stderr)
    if not command.quiet:
        told = [f"{name}: {text}" for name, text in result.told.items() if text]
        print(printable("\n".join(told)), file=sys.stderr, end="\n" * bool(told))
        again = f" ({result.resumed} of an earlier start)" if result.resumed else ""
        inputs = result.fields + len(result.skipped)
        bad = f"; {len(result.skipped)} of {inputs} inputs left out" if result.skipped else ""
        patches = f"{result.patches} patches of {result.fields} fields{again}, {result.dim} numbers each"
        print(f"{command.output}: {patches}{bad}")
    return 0
