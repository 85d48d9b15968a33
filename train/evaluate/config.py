"""What ``vis2img evaluate`` scores, on what and how often; its fields are the options of the command."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from vis2img.errors import ParameterError
from vis2img.train.evaluate.tune_config import FineTuneConfig

TASKS = ("classification", "similarity", "anomaly", "regression", "transfer", "invariance")
LABELLED_TASKS = ("classification", "similarity", "anomaly", "regression")
ALL, MIRABEST = "all", "mirabest"
_OF_MIRABEST = ("classification", "similarity")


@dataclass(frozen=True)
class EvaluateConfig:
    """Which runs are scored, by which tasks, on which fields or labelled pictures."""

    runs: tuple[Path, ...] = ()
    """Run folders of ``vis2img train``, or exported or released weights; several are seeds."""
    task: tuple[str, ...] = (ALL,)
    """classification, similarity, anomaly, regression, transfer, invariance; all; or mirabest: classification and
    similarity of FRI and FRII, with 145 labels, too, in less than a minute."""
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
    turns: Literal["mean", "all", "one"] = "mean"
    """Of labelled pictures, vectors are the mean over the eight turns and reflections; all: each is learnt and asked
    by itself; one: the picture as it is."""
    seeds: int = 5
    """Seeds of labels and folds."""
    untrained: int | None = None
    """Networks with random weights that stand beside; default: as many as seeds."""
    folds: int = 5
    """Parts of the cross-validation."""
    shares: tuple[float, ...] = ()
    """Labels that are trained on: shares, above 1 their number. Default: 0.01 0.05 0.1 0.3 0.5 1; of mirabest 145 0.1
    0.3 0.5 1."""
    protocol: Literal["own", "stradavit"] = "own"
    """stradavit: 3 folds, 10, 30, 50 and 100% of the labels and ten seeds, as DeMarco et al. 2026 (arXiv:2603.29660)
    split MiraBest, whatever --folds, --shares and --seeds say."""
    neighbours: int | None = None
    """Neighbours that vote in k-NN; default: 20 of pictures, 10 of fields, which have fewer sources."""
    votes: Literal["cosine", "exponential"] | None = None
    """What the vote of a neighbour weighs: its cosine (default of pictures), or exp(cosine / 0.07) (of fields)."""
    rare: tuple[str, ...] = ()
    """Classes that are the anomalies; default: each in turn, thinned out to a twentieth of the whole."""
    classes: tuple[str, ...] = ()
    """Classes of the sources of fields that are scored, such as fri frii; default: all."""
    fine_tune: int = 0
    """Steps of fine-tuning the whole network, and of the same from random weights; 0: none. With the --shares that are
    given, else with all labels."""
    tuning: FineTuneConfig = field(default_factory=FineTuneConfig)
    """How: rates, and how pictures vary; ``steps`` are those of --fine-tune."""
    keep: Path | None = None
    """Folder where finished fine-tunings are kept: the same command goes on with what is missing."""
    step: int | None = None
    """Checkpoint to score; default: the last."""
    student: bool = False
    """Score the student instead of the teacher."""

    def check(self) -> None:
        """Refuse settings that are out of range, or do not go together."""
        check_tasks({*self.task} - {ALL, MIRABEST}, f", {MIRABEST} and {ALL}")
        if (
            min(self.seeds, 1 if self.neighbours is None else self.neighbours) < 1
            or self.folds < 2
            or min(self.fine_tune, self.untrained or 0) < 0
        ):
            raise ParameterError(
                "seeds and neighbours must be at least 1, folds at least 2, fine_tune and untrained at least 0"
            )
        if not all(0 < share <= 1 or share == round(share) > 1 for share in self.shares):
            raise ParameterError("shares of labels must be above 0 and at most 1, or whole numbers of labels")
        if not self.runs:
            raise ParameterError("give a run folder, such as runs/first")
        if self.train is None and (self.test or MIRABEST in self.task):
            raise ParameterError("labelled pictures are learnt from --train FILE; give it (vis2img evaluate --help)")
        if self.train is not None and (self.ms or self.catalogue or self.other_ms or self.classes):
            raise ParameterError(
                "--ms, --other-ms, --classes and --catalogue are for fields, --train is for pictures; "
                "give one of the two"
            )

    def resolved(self) -> EvaluateConfig:
        """Return the configuration with what the protocol and the task say of folds, shares and seeds."""
        if self.protocol == "stradavit":
            return replace(self, folds=3, shares=(0.1, 0.3, 0.5, 1.0), seeds=10)
        few = (145.0, 0.1, 0.3, 0.5, 1.0) if MIRABEST in self.task else (0.01, 0.05, 0.1, 0.3, 0.5, 1.0)
        return replace(self, shares=self.shares or few)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that are meant."""
        if ALL in self.task:
            return TASKS
        own = {name for name in self.task if name != MIRABEST} | {*(_OF_MIRABEST if MIRABEST in self.task else ())}
        return tuple(task for task in TASKS if task in own)


def check_tasks(tasks: Iterable[str], more: str = "") -> None:
    """Refuse a task that there is none of; ``more`` ends the list of what there is."""
    for task in tasks:
        if task not in TASKS:
            raise ParameterError(f"unknown task {task!r}; choose from {', '.join(TASKS)}{more}")
