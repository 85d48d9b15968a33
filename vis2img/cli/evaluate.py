"""``vis2img evaluate``: what a representation is worth, by several tasks, beside random weights and pixels."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import rich
import tyro
from tyro.conf import arg

from vis2img.cli.progress import Bars
from vis2img.configs.command_line import parse
from vis2img.errors import printable
from vis2img.train.evaluate.config import EvaluateConfig
from vis2img.train.weights.released import resolve


@dataclass(frozen=True)
class EvaluateCommand(EvaluateConfig):
    """Score runs: classification, similarity, anomalies, regression, transfer, invariance.

    examples:
      vis2img evaluate runs/first --ms c.ms d.ms -o report
      vis2img evaluate runs/first --task transfer --ms meerkat1.ms meerkat2.ms --other-ms vla1.ms vla2.ms
      vis2img evaluate runs/seed0 runs/seed1 runs/seed2 --task classification transfer
      vis2img evaluate runs/first --task mirabest --train mirabest_train.npz
      vis2img evaluate weights.safetensors --ms c.ms d.ms
      vis2img evaluate runs/first --task mirabest --train A.npz --test B.npz --fine-tune 300

    On fields: labels come from the catalogue beside each measurement set (c.ms.truth.fits), as
    'vis2img simulate' writes it; each field is tested by what was learnt on others.
    On labelled pictures (--train): cross-validation, sources within an arcminute kept together; with --test
    everything is learnt on the one file and tested on the other. Vectors are means over eight turns of a picture.
    Several runs are the seeds of one representation. Random weights and principal components of the
    pixels are scored beside them.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Run folders of ``vis2img train``, weights of ``vis2img export``, or names that ``vis2img weights`` lists; several
    are seeds."""
    output: Annotated[Path | None, arg(aliases=["-o"])] = None
    """Folder for report.html, headlines.csv, scores.csv, summary.csv and pictures."""
    full: bool = False
    """Print every number instead of the summary and one short table a task."""
    overwrite: bool = False
    """Replace a report that is there."""
    json: bool = False
    """Print means and intervals as JSON."""
    quiet: bool = False
    """No progress bar."""


def run(argv: list[str], prog: str) -> int:
    """Run the command; return the exit code."""
    command = parse(EvaluateCommand, argv, prog)
    command = replace(command, runs=tuple(resolve(run) for run in command.runs))
    command.check()
    from vis2img.train.evaluate.check import check_files
    from vis2img.train.report.folder import check_report_folder, reporting

    if command.output:
        check_report_folder(command.output, command.overwrite)
    check_files(command)
    with reporting(command.output) if command.output else contextlib.nullcontext():
        return _evaluate(command, " ".join([*prog.split(), *argv]))


def _evaluate(command: EvaluateCommand, words: str) -> int:
    # JAX, scikit-learn and matplotlib, which --help and a wrong command line do not wait for.
    from vis2img.train.evaluate.job import evaluate
    from vis2img.train.evaluate.scores import summaries, to_json
    from vis2img.train.report.encoder_pictures import encoder_pictures
    from vis2img.train.report.headlines import FIELDS, PICTURES, headline_table, print_headlines, short
    from vis2img.train.report.scores_page import print_table, write_report

    with Bars(command.quiet or command.json) as bars:
        evaluation = evaluate(command, bars)
    for part in evaluation.left_out:
        if part.count:
            print(printable(f"{part.name}: {part}"), file=sys.stderr)

    rows, columns = summaries(evaluation.scores), PICTURES if command.train else FIELDS
    if command.json:
        print(to_json(rows))
    else:
        console = rich.get_console()
        print_headlines(headline_table(rows, columns), console)
        print_table(rows if command.full else short(rows), console)
    if command.output:
        path = write_report(
            command.output,
            evaluation.scores,
            title="What the representation is worth",
            facts={**evaluation.facts, "command": words},
            pictures=encoder_pictures(evaluation.encoder, evaluation.shown),
            columns=columns,
            overwrite=command.overwrite,
        )
        print(f"report: {path}", file=sys.stderr if command.json else sys.stdout)
    return 0
