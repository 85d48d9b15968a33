"""``vis2img evaluate``: k-NN classification of labelled sources, beside random weights and pixels."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import tyro

from vis2img.cli.app import parse


@dataclass(frozen=True)
class EvaluateCommand:
    """Score a run: k-NN classification of labelled sources.

    examples:
      vis2img evaluate runs/first
      vis2img evaluate runs/first --ms c.ms d.ms --seeds 5 --json

    The classes come from the catalogue beside each measurement set (c.ms.truth.fits), as
    'vis2img simulate' writes it: a FITS table with ra_deg, dec_deg and class. Each field is
    classified by the sources of all others.
    """

    run: tyro.conf.Positional[Path]
    """Run folder of ``vis2img train``."""
    ms: tuple[str, ...] = ()
    """Measurement sets with a catalogue; default: those of the run."""
    catalogue: tuple[Path, ...] = ()
    """Catalogues, one for each measurement set; default: NAME.ms.truth.fits."""
    seeds: int = 3
    """Number of random networks to compare with."""
    json: bool = False
    """Print the scores as JSON."""
    quiet: bool = False
    """No progress bar."""


def run(argv: list[str], prog: str) -> int:
    """Run the command; return the exit code."""
    command = parse(EvaluateCommand, argv, prog)
    from train.evaluate import QUERIES, labelled_patches, random_variables, score_representations
    from train.run import load_run
    from train.state import backbone_variables
    from vis2img.cli.progress import Bars
    from vis2img.errors import ParameterError
    from vis2img.sources import field_sources

    config, state, model = load_run(command.run)
    # A catalogue goes with each measurement set, so with one field of it.
    data = replace(config.data, ms=command.ms or config.data.ms, weights=(), fields="one", bands="one")
    config = replace(config, data=data)
    catalogues = command.catalogue or tuple(Path(f"{ms}.truth.fits") for ms in config.data.ms)
    if len(catalogues) != len(config.data.ms):
        raise ParameterError(f"{len(catalogues)} catalogues for {len(config.data.ms)} measurement sets")
    patches = labelled_patches(config, field_sources(config.data), catalogues)
    untrained = [random_variables(config, config.seed + i) for i in range(command.seeds)]
    with Bars(command.quiet or command.json) as bars:
        scores = score_representations(
            patches,
            model,
            [backbone_variables(state)],
            untrained,
            progress=lambda done, total: bars.update("scoring", done, total),
        )
    if command.json:
        print(json.dumps([{**asdict(s), "mean": s.mean, "std": s.std} for s in scores], indent=1))
        return 0
    print(f"k-NN balanced accuracy, {len(patches.label)} sources of {len(set(patches.label))} classes")
    for score in scores:
        spread = f" ± {score.std:.3f} ({len(score.values)} seeds)" if len(score.values) > 1 else ""
        print(f"  {score.name:15s} {QUERIES[score.imaging]:17s} {score.mean:.3f}{spread}")
    return 0
