"""What ``vis2img evaluate`` scores, on what and how often; its fields are the options of the command."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vis2img.errors import ParameterError

TASKS = ("classification", "similarity", "anomaly", "regression", "transfer", "invariance")
LABELLED_TASKS = ("classification", "similarity", "anomaly", "regression")
ALL, MIRABEST = "all", "mirabest"


@dataclass(frozen=True)
class EvaluateConfig:
    """Which runs are scored, by which tasks, on which fields or labelled pictures."""

    runs: tuple[Path, ...] = ()
    """Run folders of ``vis2img train``; several are seeds."""
    task: tuple[str, ...] = (ALL,)
    """classification, similarity, anomaly, regression, transfer, invariance; all; or mirabest: all that labelled
    pictures allow, of FRI and FRII."""
    ms: tuple[str, ...] = ()
    """Measurement sets with a catalogue; default: those of the run."""
    catalogue: tuple[Path, ...] = ()
    """Catalogues, one for each measurement set; default: NAME.ms.truth.fits."""
    other_ms: tuple[str, ...] = ()
    """Fields of another telescope or band, with catalogues: transfer trains on --ms and tests on these. A patch has as
    many pixels on both, and each its own suggested pixel."""
    train: Path | None = None
    """Labelled pictures: .npz, a folder or table of FITS images, or MiraBest's published batches."""
    test: Path | None = None
    """Others to test on; default: cross-validation."""
    label: str = "fr"
    """Column of the labels; fr: FRI or FRII, hybrids left out."""
    uncertain: bool = False
    """Use uncertain labels, too."""
    crop: int | None = None
    """Pixels of a picture that are used, a side; default: all."""
    seeds: int = 5
    """Seeds of labels, folds and random networks."""
    folds: int = 5
    """Parts of the cross-validation."""
    shares: tuple[float, ...] = (0.01, 0.05, 0.1, 0.3, 0.5, 1.0)
    """Shares of the labels that are trained on."""
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

    def check(self) -> None:
        """Refuse settings that are out of range, or do not go together."""
        check_tasks(self.tasks, f", {MIRABEST} and {ALL}")
        if self.seeds < 1 or self.folds < 2 or self.fine_tune < 0:
            raise ParameterError("seeds must be at least 1, folds at least 2, fine_tune at least 0")
        if not self.shares or not all(0 < share <= 1 for share in self.shares):
            raise ParameterError("shares of labels must be above 0 and at most 1")
        if not self.runs:
            raise ParameterError("give a run folder, such as runs/first")
        if self.train is None and (self.test or MIRABEST in self.task):
            raise ParameterError("labelled pictures are learnt from --train FILE; give it (vis2img evaluate --help)")
        if self.train is not None and (self.ms or self.catalogue or self.other_ms or self.classes):
            raise ParameterError(
                "--ms, --other-ms, --classes and --catalogue are for fields, --train is for pictures; "
                "give one of the two"
            )

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that are meant."""
        return TASKS if {ALL, MIRABEST} & {*self.task} else self.task


def check_tasks(tasks: Iterable[str], more: str = "") -> None:
    """Refuse a task that there is none of; ``more`` ends the list of what there is."""
    for task in tasks:
        if task not in TASKS:
            raise ParameterError(f"unknown task {task!r}; choose from {', '.join(TASKS)}{more}")
