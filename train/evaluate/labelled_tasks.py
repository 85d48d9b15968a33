"""Tasks on labelled pictures: by cross-validation, or trained on one file and tested on another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from vis2img.errors import ParameterError
from vis2img.pictures.groups import shared_sources, source_groups
from vis2img.pictures.labels import LabelledImages, read_labelled
from vis2img.train.evaluate.classification import SHARES, Classification
from vis2img.train.evaluate.classifiers import fits_of
from vis2img.train.evaluate.config import LABELLED_TASKS, EvaluateConfig
from vis2img.train.evaluate.encoders import Encoder, Turns
from vis2img.train.evaluate.folds import Samples, mean_view
from vis2img.train.evaluate.neighbours import VOTING, Voting
from vis2img.train.evaluate.rare import RareClasses
from vis2img.train.evaluate.regression import Regression
from vis2img.train.evaluate.scores import Pairs
from vis2img.train.evaluate.similarity import Similarity
from vis2img.train.run.config import TrainConfig

SAME_SOURCE = np.radians(1 / 60)  # two positions less than this apart may be parts of one radio source
_POSITIVE = ("redshift", "size")  # numbers that are above 0 where they are known
_LEAST_TARGETS = 50  # values of a number, for it to be regressed
_MOST_PIXELS = 1024  # of a vector, for a probe of them


@dataclass(frozen=True, eq=False)
class LabelledTasks:
    """Several tasks on labelled pictures.

    Folds keep together what lies within an arcminute, or is one picture, so that no source is on both sides.

    Parameters
    ----------
    train_images : LabelledImages
    test_images : LabelledImages, optional
        By default all tasks are cross-validated.
    tasks : sequence of str
        Those of :data:`vis2img.train.evaluate.config.LABELLED_TASKS` among them are done.
    shares, folds, rare, voting
        As for :class:`vis2img.train.evaluate.field_tasks.FieldTasks`.
    turns : str
        Which turns of a picture a vector is of, where the representation does not say.
    """

    train_images: LabelledImages
    test_images: LabelledImages | None = None
    tasks: Sequence[str] = LABELLED_TASKS
    shares: Sequence[float] = SHARES
    folds: int = 5
    rare: Sequence[str] = ()
    voting: Voting = VOTING
    turns: Turns = "mean"

    @cached_property
    def train(self) -> Samples:
        """Images to train on; a group is what may be one source."""
        return _samples(self.train_images, source_groups(self.train_images, SAME_SOURCE))

    @cached_property
    def test(self) -> Samples | None:
        """Images to test on, if they are others."""
        images = self.test_images
        return None if images is None else _samples(images, np.arange(len(images)))

    @property
    def pixels(self) -> np.ndarray:
        """Images to train on [n, y, x, channel]."""
        return self.train.inputs

    def run(self, encoder: Encoder, seeds: Sequence[int] = (0,)) -> Pairs:
        """Yield what all tasks yield of a representation; see :meth:`FieldTasks.run`.

        Where vectors are of all turns, "classification" learns and asks each, and the other tasks take their mean.
        """
        turns = encoder.turns or self.turns
        train = replace(self.train, inputs=encoder.vectors(self.train.inputs, turns))
        test = None if self.test is None else replace(self.test, inputs=encoder.vectors(self.test.inputs, turns))
        if "classification" in self.tasks:
            # A probe of thousands of pixels takes minutes and says little; their components have one.
            linear = not encoder.pixels or train.inputs.shape[-1] <= _MOST_PIXELS
            fits = fits_of(self.voting, linear=linear, turned=encoder.turned)
            yield from Classification(self.shares, self.folds, fits).run(train, test, seeds)
        train, test = mean_view(train), None if test is None else mean_view(test)
        if "similarity" in self.tasks:
            yield from Similarity().run(train, test, seeds)
        if "anomaly" in self.tasks:
            yield from RareClasses(self.rare).run(train if test is None else test, seeds)
        if "regression" in self.tasks:
            for target in self.train_images.targets:
                yield from self._regression(target, train, test, seeds)

    def _regression(self, target: str, train: Samples, test: Samples | None, seeds: Sequence[int]) -> Pairs:
        train = replace(train, label=_values(self.train_images, target))
        if test is not None:
            if self.test_images is None or target not in self.test_images.targets:
                return
            test = replace(test, label=_values(self.test_images, target))
        if all(np.isfinite(each.label).sum() >= _LEAST_TARGETS for each in (train, test) if each is not None):
            yield from Regression(target, self.folds).run(train, test, seeds)


def _samples(images: LabelledImages, group: np.ndarray) -> Samples:
    return Samples(images.images, np.array(images.label_names)[images.label], group)


def _values(images: LabelledImages, target: str) -> np.ndarray:
    """Return a number of each picture, NaN where it is not known: redshifts and sizes tell that as 0 or less."""
    values = images.targets[target]
    return np.where(values > 0, values, np.nan) if target.startswith(_POSITIVE) else values


def read_pictures(path: Path, config: EvaluateConfig, settings: TrainConfig) -> tuple[LabelledTasks, dict[str, str]]:
    """Read labelled pictures, and those to test on, as a run sees them; return their tasks, and what they are.

    Raises
    ------
    ParameterError
        If no task is left, or the two files have other classes, or share sources.
    Vis2imgError
        If a file cannot be read.
    """
    if not {*config.tasks} & {*LABELLED_TASKS}:
        raise ParameterError(
            f"labelled pictures allow {', '.join(LABELLED_TASKS)}; {', '.join(config.tasks)} need fields (--ms)"
        )

    def read(path: Path) -> LabelledImages:
        images = read_labelled(
            path,
            views=settings.data.views,
            crop=config.crop,
            label=config.label,
            confident=None if config.uncertain else True,
            planes=settings.data.planes,
        )
        return images.take(np.flatnonzero(images.label >= 0))

    train = read(path)
    facts = {"training data": f"{path.name}: {_counts(train)}"}
    test = None
    if config.test is not None:
        test = read(config.test)
        _check_split(train, test)
        facts["test data"] = f"{config.test.name}: {_counts(test)}"
    voting = Voting(config.neighbours or VOTING.neighbours, config.votes or VOTING.votes)
    shares, folds = config.shares, config.folds
    return LabelledTasks(train, test, config.tasks, shares, folds, config.rare, voting, config.turns), facts


def _check_split(train: LabelledImages, test: LabelledImages) -> None:
    if train.label_names != test.label_names:
        raise ParameterError(f"{train.path} and {test.path} have other classes; give files of one layout")
    shared = shared_sources(train, test, SAME_SOURCE)
    if shared.any():
        first = test.name[int(np.flatnonzero(shared)[0])]
        raise ParameterError(
            f"{int(shared.sum())} sources of {test.path} are in {train.path} too, or lie within an arcminute of one "
            f"that is, such as {first}; leave them out of one"
        )


def _counts(images: LabelledImages) -> str:
    return ", ".join(f"{int((images.label == i).sum())} {name}" for i, name in enumerate(images.label_names))
