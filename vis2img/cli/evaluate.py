"""``vis2img evaluate``: what a representation is worth, by several tasks, beside random weights and pixels."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import arg

from vis2img.configs.command_line import parse

if TYPE_CHECKING:
    from vis2img.progress import Progress
    from vis2img.train.evaluate.job import Evaluation

MIRABEST = "mirabest"


@dataclass(frozen=True)
class EvaluateCommand:
    """Score runs: classification, similarity, anomalies, regression, transfer, invariance.

    examples:
      vis2img evaluate runs/first --ms c.ms d.ms -o report
      vis2img evaluate runs/first --task transfer --ms meerkat1.ms meerkat2.ms --other-ms vla1.ms vla2.ms
      vis2img evaluate runs/seed0 runs/seed1 runs/seed2 --task classification transfer
      vis2img evaluate runs/first --task mirabest --train mirabest_train.npz
      vis2img evaluate runs/first --task mirabest --train A.npz --test B.npz --fine-tune 300

    On fields: labels come from the catalogue beside each measurement set (c.ms.truth.fits), as
    'vis2img simulate' writes it; each field is asked about by what was learnt on others.
    On labelled pictures (--train): cross-validation, sources within an arcminute kept together; with --test
    everything is learnt on the one file and asked of the other. Vectors are those of all eight turns of a picture.
    Several runs are the seeds of one representation. Random weights and principal components of the
    pixels are scored beside them.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders of ``vis2img train``; several are seeds."""
    task: tuple[str, ...] = ("all",)
    """classification, similarity, anomaly, regression, transfer, invariance; all; or mirabest: all that labelled
    pictures allow, of FRI and FRII."""
    ms: tuple[str, ...] = ()
    """Measurement sets with a catalogue; default: those of the run."""
    catalogue: tuple[Path, ...] = ()
    """Catalogues, one for each measurement set; default: NAME.ms.truth.fits."""
    other_ms: tuple[str, ...] = ()
    """Fields of another telescope or band, with catalogues: transfer learns on --ms and is asked of these."""
    train: Path | None = None
    """Labelled pictures: .npz, a folder or table of FITS images, or MiraBest's published batches."""
    test: Path | None = None
    """Others to test on; default: cross-validation."""
    label: str = "fr"
    """Column of the labels; fr: FRI or FRII, hybrids left out."""
    uncertain: bool = False
    """Use uncertain labels, too."""
    crop: int | None = None
    """Pixels of a picture that are kept, a side; default: all."""
    seeds: int = 5
    """Seeds of labels, folds and random networks."""
    folds: int = 5
    """Parts of the cross-validation."""
    shares: tuple[float, ...] = (0.01, 0.05, 0.1, 0.3, 0.5, 1.0)
    """Shares of the labels that are learnt."""
    rare: tuple[str, ...] = ()
    """Classes that are the anomalies; default: each in turn, thinned out to a twentieth of the whole."""
    classes: tuple[str, ...] = ()
    """Classes of the sources of fields that are scored, such as fri frii; default: all."""
    fine_tune: int = 0
    """Steps of fine-tuning the whole network, and of the same from random weights; 0: none."""
    step: int | None = None
    """Checkpoint to score; default: the last."""
    student: bool = False
    """Score the student instead of the teacher."""
    output: Annotated[Path | None, arg(aliases=["-o"])] = None
    """Folder for report.html, scores.csv, summary.csv and pictures."""
    overwrite: bool = False
    """Replace a report that is there."""
    json: bool = False
    """Print means and intervals as JSON."""
    quiet: bool = False
    """No progress bar."""


def run(argv: list[str], prog: str) -> int:
    """Run the command; return the exit code."""
    command = parse(EvaluateCommand, argv, prog)
    from rich.console import Console

    from vis2img.cli.progress import Bars
    from vis2img.train.evaluate.scores import summaries
    from vis2img.train.report.scores_page import check_report_folder, print_table, to_json, write_report

    _check(command)
    if command.output:
        check_report_folder(command.output, command.overwrite)
    with Bars(command.quiet or command.json) as bars:
        found = _evaluate(command, bars)
    for name, text in found.facts.items():
        if name.startswith("left out") and not text.startswith("0 "):
            print(f"{name}: {text}", file=sys.stderr)
    rows = summaries(found.scores)
    if command.json:
        print(to_json(rows))
    else:
        print_table(rows, Console())
    if command.output:
        facts = {**found.facts, "command": " ".join([*prog.split(), *argv])}
        path = write_report(
            command.output,
            found.scores,
            title="What the representation is worth",
            facts=facts,
            pictures=found.pictures,
            overwrite=command.overwrite,
        )
        print(f"report: {path}", file=sys.stderr if command.json else sys.stdout)
    return 0


def _check(command: EvaluateCommand) -> None:
    from vis2img.errors import ParameterError

    if not command.runs:
        raise ParameterError("give a run folder, such as runs/first")
    if command.train is None and (command.test or MIRABEST in command.task):
        raise ParameterError("labelled pictures are learnt from --train FILE; give it (vis2img evaluate --help)")
    if command.train is not None and (command.ms or command.catalogue or command.other_ms or command.classes):
        raise ParameterError(
            "--ms, --other-ms, --classes and --catalogue are for fields, --train is for pictures; give one of the two"
        )


def _evaluate(command: EvaluateCommand, progress: Progress) -> Evaluation:
    from vis2img.train.evaluate.field_tasks import TASKS
    from vis2img.train.evaluate.job import EvaluateConfig, evaluate_fields, evaluate_labelled

    tasks = TASKS if {"all", MIRABEST} & set(command.task) else command.task
    config = EvaluateConfig(
        tasks=tuple(tasks),
        seeds=command.seeds,
        folds=command.folds,
        shares=command.shares,
        fine_tune=command.fine_tune,
        rare=command.rare,
        classes=command.classes,
        pictures=command.output is not None,
        step=command.step,
        role="student" if command.student else "teacher",
    )
    if command.train is None:
        return evaluate_fields(command.runs, config, command.ms, command.catalogue, command.other_ms, progress)
    return evaluate_labelled(
        command.runs,
        config,
        command.train,
        command.test,
        label=command.label,
        confident=None if command.uncertain else True,
        crop=command.crop,
        progress=progress,
    )
