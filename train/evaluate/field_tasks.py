"""All tasks on patches of fields with a truth."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vis2img.errors import ParameterError, Vis2imgWarning
from vis2img.pictures.groups import position_groups
from vis2img.progress import Progress, renamed
from vis2img.simulate.truth.truth import Truth
from vis2img.train.evaluate.classification import SHARES, Classification
from vis2img.train.evaluate.classifiers import KNN, fits_of
from vis2img.train.evaluate.config import TASKS, EvaluateConfig, check_tasks
from vis2img.train.evaluate.encoders import Encoder
from vis2img.train.evaluate.folds import Samples, mean_vectors, mean_view
from vis2img.train.evaluate.invariance import Invariance
from vis2img.train.evaluate.neighbours import NEAR, Voting
from vis2img.train.evaluate.rare import RareClasses
from vis2img.train.evaluate.regression import Regression
from vis2img.train.evaluate.scores import Pairs
from vis2img.train.evaluate.similarity import Similarity
from vis2img.train.evaluate.simulated import (
    ALIKE,
    ENDS,
    PARAMETERS,
    SAME_POSITION,
    SHIFTED,
    SourcePatches,
    TilePatches,
    field_patches,
    labelled_sources,
    read_truths,
)
from vis2img.train.evaluate.transfer import Transfer, TransferToOthers
from vis2img.train.run.config import TrainConfig
from vis2img.views.brightness import log_brightness

AS_LEARNT = "as learnt"  # tested on other sources, imaged as the training ones: what a transfer is compared with


def wanted_ways(tasks: Iterable[str]) -> tuple[str, ...]:
    """Return the ways of imaging that the tasks need."""
    ways = [ALIKE]
    if "transfer" in tasks:
        ways += [SHIFTED, "full", *ENDS]
    if "invariance" in tasks:
        ways += [*PARAMETERS, "full"]
    return tuple(dict.fromkeys(ways))


@dataclass(frozen=True, eq=False)
class FieldTasks:
    """Several tasks on the sources and tiles of fields.

    Parameters
    ----------
    sources : SourcePatches
        With the ways of :func:`wanted_ways`; what needs a way that is not there is left out.
    tiles : TilePatches, optional
        For "regression".
    others : SourcePatches, optional
        Of other fields, seen alike: "transfer" trains on ``sources`` and tests on these, too.
    tasks : sequence of str
        Of :data:`vis2img.train.evaluate.config.TASKS`.
    shares : sequence of float
        Of the labels, for "classification".
    folds : int
        Parts of the fields; fewer where there are fewer fields.
    rare : sequence of str
        Classes that are the anomalies: see :class:`vis2img.train.evaluate.rare.RareClasses`.
    voting : Voting
        Of the neighbours.
    """

    sources: SourcePatches
    tiles: TilePatches | None = None
    others: SourcePatches | None = None
    tasks: Sequence[str] = TASKS
    shares: Sequence[float] = SHARES
    folds: int = 5
    rare: Sequence[str] = ()
    voting: Voting = NEAR

    def __post_init__(self) -> None:
        check_tasks(self.tasks)

    @property
    def train(self) -> Samples:
        """Images of the sources in the fixed way."""
        return Samples(self.sources.seen[ALIKE], self.sources.label, self.sources.field)

    @property
    def test(self) -> None:
        """None: each field is tested by what was learnt on others."""

    @property
    def pixels(self) -> np.ndarray:
        """Images of sources and tiles [n, y, x, channel]."""
        return np.concatenate([self.train.inputs, *([self.tiles.images] if self.tiles else [])])

    def run(self, encoder: Encoder, seeds: Sequence[int] = (0,)) -> Pairs:
        """Yield what all tasks yield of a representation.

        ``seeds`` are of folds, labels and what is planted; of the representation, if it has one. Where vectors are of
        all turns of a patch, classifiers learn and ask each, and the other tasks take their mean.
        """
        vectors = {way: encoder.vectors(images, "one") for way, images in self.sources.seen.items()}
        fits = fits_of(self.voting, turned=encoder.turned)
        turned = replace(self.train, inputs=vectors[ALIKE])
        train = mean_view(turned)
        folds = min(self.folds, len(np.unique(train.group)))
        if "classification" in self.tasks:
            yield from Classification(self.shares, folds, fits).run(turned, seeds=seeds)
        if "similarity" in self.tasks:
            yield from Similarity().run(train, seeds=seeds)
        if "anomaly" in self.tasks:
            yield from RareClasses(self.rare).run(train, seeds)
        if "transfer" in self.tasks:
            yield from self._transfer(vectors, turned, Transfer(folds, fits), seeds)
        if "invariance" in self.tasks:
            seen = {way: vectors[way] for way in (*PARAMETERS, "full") if way in vectors}
            otherwise = {way: mean_vectors(each) for way, each in seen.items()}
            yield from Invariance().run(train.inputs, otherwise, seeds)
        if "regression" in self.tasks and self.tiles is not None:
            yield from self._regression(self.tiles, encoder, folds, seeds)
        if "transfer" in self.tasks and self.others is not None:
            asked = encoder.vectors(self.others.seen[ALIKE], "one")
            test = Samples(asked, self.others.label, self.others.field)
            yield from TransferToOthers(fits=fits).run(turned, test, seeds)

    def _transfer(
        self, vectors: dict[str, np.ndarray], train: Samples, transfer: Transfer, seeds: Sequence[int]
    ) -> Pairs:
        tests = {f"to {way}": vectors[way] for way in (SHIFTED, "full") if way in vectors}
        yield from transfer.run(train, tests, seeds)
        for name in ENDS:
            if f"{name} [0]" in vectors:
                first, second = vectors[f"{name} [0]"], vectors[f"{name} [1]"]
                tests = {name: second, f"{name}, {AS_LEARNT}": first}
                yield from transfer.run(replace(train, inputs=first), tests, seeds)

    def _regression(self, tiles: TilePatches, encoder: Encoder, folds: int, seeds: Sequence[int]) -> Pairs:
        """Yield errors of two numbers from vectors, from brightness beside them, and from brightness alone."""
        vectors, numbers = mean_vectors(encoder.vectors(tiles.images, "one")), log_brightness(tiles.brightness)
        flux = np.where(tiles.flux > 0, tiles.flux, np.nan)
        targets = (("compact sources", tiles.compact, False), ("flux", flux, True))
        for target, values, log in targets:
            yield from Regression(target, folds, log=log).run(Samples(vectors, values, tiles.field), seeds=seeds)
            # k-NN would not see three numbers among hundreds.
            for name, inputs in (("with", np.hstack([vectors, numbers])), ("from", numbers)):
                task = Regression(f"{target} {name} brightness", folds, log=log, methods=("ridge",))
                yield from task.run(Samples(inputs, values, tiles.field), seeds=seeds)


@dataclass(frozen=True, eq=False)
class QueryWays:
    """k-NN alone, each field tested by all others, for queries seen in several ways.

    Parameters
    ----------
    sources : SourcePatches
    ways : sequence of str
        How the queries are seen; the gallery is always centred and imaged in the fixed way.
    """

    sources: SourcePatches
    ways: Sequence[str]
    voting: Voting = NEAR

    def run(self, encoder: Encoder, seeds: Sequence[int] = (0,)) -> Pairs:
        """Yield "balanced accuracy" of the task "transfer", settings "WAY, k-NN"."""
        vectors = {way: encoder.vectors(self.sources.seen[way], "one") for way in dict.fromkeys((ALIKE, *self.ways))}
        gallery = Samples(vectors[ALIKE], self.sources.label, self.sources.field)
        transfer = Transfer(
            len(np.unique(gallery.group)),
            {KNN: fits_of(self.voting, turned=encoder.turned)[KNN]},
        )
        yield from transfer.run(gallery, {way: vectors[way] for way in self.ways}, seeds)


@dataclass(frozen=True)
class LeftOut:
    """Labelled sources of the catalogues that are not scored, as their patches do not lie within the imaged fields."""

    name: str
    count: int
    total: int

    def __str__(self) -> str:
        where = "whose patches do not lie within the imaged fields"
        return f"{self.count} of {self.total} labelled sources of the catalogues, {where}"


def read_fields(
    config: EvaluateConfig, settings: TrainConfig, progress: Progress
) -> tuple[FieldTasks, dict[str, str], list[LeftOut]]:
    """Image the fields of an evaluation, by default those that the run was trained on, and cut their patches.

    Returns
    -------
    tasks : FieldTasks
    facts : dict
        What is scored, for the reader of the scores.
    left_out : list of LeftOut
        What is not.

    Raises
    ------
    Vis2imgError
        If a measurement set or a catalogue cannot be used.
    """
    settings = _on_fields(settings, config.ms or settings.data.ms)
    truths = read_truths(settings, config.catalogue)
    ways, tiled = wanted_ways(config.tasks), "regression" in config.tasks
    sources, tiles = field_patches(settings, truths, ways, progress, tiles=tiled)
    sources, left_out = _of_classes(sources, truths, config.classes, "left out")
    classes = len(np.unique(sources.label))
    facts = {
        "data": f"{len(truths)} fields, {len(sources.label)} labelled sources of {classes} classes",
        left_out.name: str(left_out),
        "fields": _names(settings.data.ms),
    }
    others, missing = None, [left_out]
    if config.other_ms:
        settings = _on_fields(settings, config.other_ms)
        truths = read_truths(settings)
        others, _ = field_patches(settings, truths, (ALIKE,), renamed(progress, "imaging others"))
        others, left_out = _of_classes(others, truths, config.classes, "left out of the others")
        others = _not_learnt(others, sources)
        facts["other fields"] = f"{_names(config.other_ms)}: {len(others.label)} sources"
        facts[left_out.name] = str(left_out)
        missing.append(left_out)
    voting = Voting(config.neighbours or NEAR.neighbours, config.votes or NEAR.votes)
    tasks = FieldTasks(sources, tiles, others, config.tasks, config.shares, config.folds, config.rare, voting)
    return tasks, facts, missing


def _not_learnt(others: SourcePatches, sources: SourcePatches) -> SourcePatches:
    """Return the sources of other fields that are not learnt: of one class within an arcsecond, they are the same."""
    position = np.concatenate([sources.position, others.position])
    place = position_groups(position[:, 0], position[:, 1], SAME_POSITION)
    names = [f"{at} {name}" for at, name in zip(place, [*sources.label, *others.label], strict=True)]
    known = np.isin(names[len(sources.label) :], names[: len(sources.label)])
    if known.all():
        raise ParameterError("all sources of the other fields are learnt from, too; give fields of another sky")
    if known.any():
        warnings.warn(
            f"{int(known.sum())} of {len(known)} sources of the other fields are learnt from, too, and are left out",
            Vis2imgWarning,
            stacklevel=2,
        )
    return others.take(~known) if known.any() else others


def _on_fields(settings: TrainConfig, ms: Sequence[str]) -> TrainConfig:
    """Return the configuration with other data. A catalogue goes with each measurement set, so with one field of it."""
    return replace(settings, data=replace(settings.data, ms=tuple(ms), weights=(), fields="one", bands="one"))


def _of_classes(
    sources: SourcePatches, truths: Sequence[Truth], classes: Sequence[str], name: str
) -> tuple[SourcePatches, LeftOut]:
    sources = sources.of_classes(classes) if classes else sources
    total = labelled_sources(truths, classes)
    return sources, LeftOut(name, total - len(sources.label), total)


def _names(ms: Sequence[str]) -> str:
    return ", ".join(Path(path).name for path in ms)
