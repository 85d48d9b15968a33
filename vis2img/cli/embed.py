"""``vis2img embed``: one vector for each sky patch of measurement sets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import arg

from vis2img.cli.app import parse


@dataclass(frozen=True)
class EmbedCommand:
    """Embed sky patches with a trained network.

    examples:
      vis2img embed runs/first new.ms -o patches.npz
      vis2img embed runs/first a.ms b.ms --student -o patches.npz

    The output holds plain arrays: vector [patch, dim], ra_deg, dec_deg, ms, params (JSON), index.
    """

    run: tyro.conf.Positional[Path]
    """Run folder of ``vis2img train``."""
    ms: tyro.conf.Positional[tuple[str, ...]] = ()
    """Measurement sets; default: those of the run."""
    output: Annotated[Path, arg(aliases=["-o"])] = Path("embeddings.npz")
    """Output file (.npz)."""
    student: bool = False
    """Use the student instead of the teacher."""
    overwrite: bool = False
    """Replace an existing output."""
    quiet: bool = False
    """No progress bar."""


def run(argv: list[str], prog: str) -> int:
    """Run the command; return the exit code."""
    command = parse(EmbedCommand, argv, prog)
    from dataclasses import replace

    from vis2img.errors import OutputError

    if command.output.exists() and not command.overwrite:
        raise OutputError(f"{command.output} exists; choose another with -o or use --overwrite")
    from train.embed import embed_sources, write_embeddings
    from train.run import load_run
    from train.state import backbone_variables
    from vis2img.cli.progress import Bars
    from vis2img.sources import field_sources

    config, state, model = load_run(command.run)
    if command.ms:
        config = replace(config, data=replace(config.data, ms=command.ms, weights=()))
    variables = backbone_variables(state, "student" if command.student else "teacher")
    with Bars(command.quiet) as bars:
        table = embed_sources(
            config,
            model,
            variables,
            field_sources(config.data),
            progress=lambda done, total: bars.update("embedding", done, total),
        )
    write_embeddings(table, command.output, command.overwrite)
    count, dim = table["vector"].shape
    print(f"{command.output}: {count} patches of {len(config.data.ms)} fields, {dim} numbers each")
    return 0
