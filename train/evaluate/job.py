"""Evaluation from run folders and data to scores, facts and pictures: what ``vis2img evaluate`` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vis2img.errors import ParameterError
from vis2img.pictures.groups import shared_sources, source_groups
from vis2img.pictures.labels import LabelledImages, read_labelled, symmetric_views
from vis2img.progress import Progress, no_progress, renamed
from vis2img.simulate.truth.truth import Truth
from vis2img.train.evaluate.classification import classify, classify_split
from vis2img.train.evaluate.encoders import Encoder, pixel_encoder, random_encoders, run_encoders
from vis2img.train.evaluate.field_tasks import TASKS, rare_classes, score_fields, wanted_ways
from vis2img.train.evaluate.finetune import FineTuneConfig, fine_tuned
from vis2img.train.evaluate.regression import regress, regress_split
from vis2img.train.evaluate.scores import Score
from vis2img.train.evaluate.similarity import precision_at
from vis2img.train.evaluate.simulated import ALIKE, field_patches, labelled_sources, read_truths, source_patches
from vis2img.train.run.config import TrainConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELLED_TASKS = ("classification", "similarity", "anomaly", "regression")
SAME_SOURCE = np.radians(1 / 60)  # two positions less than this apart may be parts of one radio source
_SHOWN = 8  # pictures of a figure
_POSITIVE = ("redshift", "size")  # numbers that are above 0 where they are known
_LEAST_TARGETS = 50  # values of a number, for it to be regressed


@dataclass(frozen=True)
class EvaluateConfig:
    """What is scored, and how often."""

    tasks: tuple[str, ...] = TASKS
    seeds: int = 5
    folds: int = 5
    shares: tuple[float, ...] = (0.01, 0.05, 0.1, 0.3, 0.5, 1.0)
    fine_tune: int = 0
    """Steps of fine-tuning; 0: none."""
    role: str = "teacher"
    rare: tuple[str, ...] = ()
    """Classes that are the anomalies; default: each in turn, thinned out to a twentieth."""
    classes: tuple[str, ...] = ()
    """Classes of the sources of fields that are scored; default: all."""
    step: int | None = None
    """Checkpoint of the runs; default: the last of each."""
    pictures: bool = True
    """Whether to make pictures; a map of embeddings takes half a minute."""

    def __post_init__(self) -> None:
        wrong = [task for task in self.tasks if task not in TASKS]
        if wrong:
            raise ParameterError(f"unknown task {wrong[0]!r}; choose from {', '.join(TASKS)}, mirabest and all")
        if self.seeds < 1 or self.folds < 2 or self.fine_tune < 0:
            raise ParameterError("seeds must be at least 1, folds at least 2, fine_tune at least 0")
        if not self.shares or not all(0 < share <= 1 for share in self.shares):
            raise ParameterError("shares of labels must be above 0 and at most 1")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was found: rows, facts for the reader, and pictures."""

    scores: list[Score]
    facts: dict[str, str]
    pictures: list[tuple[str, Figure]] = field(default_factory=list)


def evaluate_fields(
    runs: Sequence[Path],
    config: EvaluateConfig,
    ms: Sequence[str] = (),
    catalogues: Sequence[Path] = (),
    other_ms: Sequence[str] = (),
    progress: Progress = no_progress,
) -> Evaluation:
    """Score runs on fields with a truth, by default those that they were trained on.

    Parameters
    ----------
    runs : list of Path
        Seeds of one thing.
    config : EvaluateConfig
    ms : sequence of str
        Measurement sets; default: those of the first run.
    catalogues : sequence of Path
        Their truth, one for each; default: beside each measurement set.
    other_ms : sequence of str
        Of another telescope or band: "transfer" learns on ``ms`` and is asked of these. A patch has as many pixels on
        both, and each its own suggested pixel.
    progress : callable, optional
        Called with (stage, done, total).

    Raises
    ------
    Vis2imgError
        If a run, a measurement set or a catalogue cannot be used.
    """
    settings, trained = run_encoders(runs, role=config.role, step=config.step)
    settings = _on_fields(settings, ms or settings.data.ms)
    truths = read_truths(settings, catalogues)
    sources, tiles = field_patches(
        settings, truths, wanted_ways(config.tasks), progress,
        tiles="regression" in config.tasks,
    )  # fmt: skip
    others, other_truths = None, list[Truth]()
    if other_ms:
        there = _on_fields(settings, other_ms)
        other_truths = read_truths(there)
        others = source_patches(there, other_truths, (ALIKE,), renamed(progress, "imaging others"))
    if config.classes:
        sources = sources.of_classes(config.classes)
        others = others.of_classes(config.classes) if others else None
    pixels = [sources.seen[ALIKE], *([tiles.images] if tiles else [])]
    encoders = _encoders(trained, settings, config.seeds, np.concatenate(pixels))
    scores: list[Score] = []
    for i, encoder in enumerate(encoders):
        seeds = _seeds_of(encoder, encoders, config.seeds)
        scores += score_fields(
            encoder.name, encoder.encode, sources, tiles, config.tasks, shares=config.shares, folds=config.folds,
            rare=config.rare, seeds=seeds, others=others,
        )  # fmt: skip
        progress("scoring", i + 1, len(encoders))
    images, label = sources.seen[ALIKE], sources.label
    if config.fine_tune and "classification" in config.tasks:
        scores += _fine_tune(encoders, config, images, label, sources.field, None, progress)
    known = labelled_sources(truths, config.classes)
    facts = {
        "data": f"{len(truths)} fields, {len(label)} labelled sources of {len(np.unique(label))} classes",
        "left out": _left_out(known - len(label), known),
        "fields": ", ".join(Path(path).name for path in settings.data.ms),
    }
    if others:
        there_are = labelled_sources(other_truths, config.classes)
        facts["other fields"] = ", ".join(Path(path).name for path in other_ms) + f": {len(others.label)} sources"
        facts["left out of the others"] = _left_out(there_are - len(others.label), there_are)
    return Evaluation(scores, _facts(runs, settings, facts), _pictures(config, trained[0], images, label))


def _left_out(count: int, known: int) -> str:
    return f"{count} of {known} labelled sources of the catalogues, whose patches do not lie within the imaged fields"


def _on_fields(settings: TrainConfig, ms: Sequence[str]) -> TrainConfig:
    """Return the configuration with other data. A catalogue goes with each measurement set, so with one field of it."""
    return replace(settings, data=replace(settings.data, ms=tuple(ms), weights=(), fields="one", bands="one"))


def evaluate_labelled(
    runs: Sequence[Path],
    config: EvaluateConfig,
    train: Path,
    test: Path | None = None,
    *,
    label: str = "fr",
    confident: bool | None = True,
    crop: int | None = None,
    progress: Progress = no_progress,
) -> Evaluation:
    """Score runs on labelled pictures: by cross-validation, or trained on one file and tested on another.

    Folds keep together what lies within an arcminute, or is one picture, so that no source is learnt and asked about.

    Parameters
    ----------
    runs : list of Path
        Seeds of one thing.
    config : EvaluateConfig
    train, test : Path
        As :func:`vis2img.pictures.labels.read_labelled` takes them.
    label, confident, crop
        Likewise.
    progress : callable, optional
        Called with (stage, done, total).

    Raises
    ------
    ParameterError
        If the two files have other classes, or share sources.
    Vis2imgError
        If a run or a file cannot be used.
    """
    settings, trained = run_encoders(runs, role=config.role, step=config.step)

    def read(path: Path) -> LabelledImages:
        found = read_labelled(
            path,
            views=settings.data.views,
            crop=crop,
            label=label,
            confident=confident,
            channels=settings.data.channels,
        )
        return found.take(np.flatnonzero(found.label >= 0))

    tasks = [task for task in config.tasks if task in LABELLED_TASKS]
    if not tasks:
        raise ParameterError(
            f"labelled pictures allow {', '.join(LABELLED_TASKS)}; {', '.join(config.tasks)} need fields (--ms)"
        )
    known, asked = read(train), read(test) if test else None
    group = source_groups(known, SAME_SOURCE)
    if asked is not None:
        _check_split(known, asked)
    encoders = _encoders(trained, settings, config.seeds, known.images)
    scores: list[Score] = []
    for i, encoder in enumerate(encoders):
        views = np.stack([encoder.encode(view) for view in symmetric_views(known.images)])
        views_asked = None
        if asked is not None:
            views_asked = np.stack([encoder.encode(view) for view in symmetric_views(asked.images)])
        seeds = _seeds_of(encoder, encoders, config.seeds)
        scores += _score_labelled(encoder.name, views, views_asked, known, asked, group, tasks, config, seeds)
        progress("scoring", i + 1, len(encoders))
    names = np.array(known.label_names)
    if config.fine_tune and "classification" in tasks:
        other = (asked.images, names[asked.label]) if asked else None
        scores += _fine_tune(encoders, config, known.images, names[known.label], group, other, progress)
    facts = {"training data": f"{Path(train).name}: {_counts(known)}"}
    if asked is not None and test is not None:
        facts["test data"] = f"{Path(test).name}: {_counts(asked)}"
    shown = asked or known
    pictures = _pictures(config, trained[0], shown.images, names[shown.label])
    return Evaluation(scores, _facts(runs, settings, facts), pictures)


def _score_labelled(
    name: str,
    views: np.ndarray,
    views_asked: np.ndarray | None,
    known: LabelledImages,
    asked: LabelledImages | None,
    group: np.ndarray,
    tasks: Sequence[str],
    config: EvaluateConfig,
    seeds: Sequence[int],
) -> list[Score]:
    """Score vectors of all views; with other pictures, everything is learnt on the one set and asked of the other."""
    names, vectors, queries = np.array(known.label_names), views.mean(axis=0), None
    label, scores = names[known.label], list[Score]()
    if asked is not None and views_asked is not None:
        queries = views_asked.mean(axis=0), names[asked.label]
    if "classification" in tasks:
        shares = config.shares
        if queries is None or views_asked is None:
            scores += classify(name, views, label, group, shares=shares, folds=config.folds, seeds=seeds)
        else:
            scores += classify_split(name, views, label, group, views_asked, queries[1], shares=shares, seeds=seeds)
    if "similarity" in tasks:
        scores += precision_at(name, vectors, label, group, asked=queries, seed=seeds[0])
    if "anomaly" in tasks:
        for seed in seeds:
            scores += rare_classes(name, *(queries or (vectors, label)), config.rare, seed)
    if "regression" in tasks:
        for target in known.targets:
            values = _known_target(known, target)
            if asked is None or queries is None:
                if np.isfinite(values).sum() >= _LEAST_TARGETS:
                    scores += regress(name, vectors, values, group, target_name=target, folds=config.folds, seeds=seeds)
            elif target in asked.targets:
                true = _known_target(asked, target)
                if min(np.isfinite(values).sum(), np.isfinite(true).sum()) >= _LEAST_TARGETS:
                    scores += regress_split(
                        name, vectors, values, group, queries[0], true, target_name=target, seed=seeds[0]
                    )
    return scores


def _known_target(images: LabelledImages, target: str) -> np.ndarray:
    """Return a number of each picture, NaN where it is not known: redshifts and sizes tell that as 0 or less."""
    values = images.targets[target]
    return np.where(values > 0, values, np.nan) if target.startswith(_POSITIVE) else values


def _encoders(trained: list[Encoder], settings: TrainConfig, seeds: int, images: np.ndarray) -> list[Encoder]:
    return [*trained, *random_encoders(settings, range(seeds)), pixel_encoder(images)]


def _seeds_of(encoder: Encoder, encoders: Sequence[Encoder], seeds: int) -> list[int]:
    """Return the seeds to score an encoder with: its own where there are several of its name, else all."""
    alike = sum(other.name == encoder.name for other in encoders)
    return [encoder.seed] if alike > 1 else list(range(seeds))


def _fine_tune(
    encoders: Sequence[Encoder],
    config: EvaluateConfig,
    images: np.ndarray,
    label: np.ndarray,
    group: np.ndarray,
    test: tuple[np.ndarray, np.ndarray] | None,
    progress: Progress,
) -> list[Score]:
    names = dict.fromkeys(encoder.name for encoder in encoders if encoder.model is not None)
    scores: list[Score] = []
    done, total = 0, 0

    def count() -> None:
        nonlocal done
        done += 1
        progress("fine-tuning", done, total)

    for name in names:
        own = [encoder for encoder in encoders if encoder.name == name]
        # One run is fine-tuned with each seed of labels and folds; several are seeds themselves.
        seeds = range(len(own) if len(own) > 1 else config.seeds)
        starts = {seed: own[seed % len(own)].variables for seed in seeds}
        total += len(starts) * len(config.shares)
        scores += fine_tuned(
            name, own[0].model, starts, images, label, group, test, shares=config.shares, folds=config.folds,
            config=FineTuneConfig(steps=config.fine_tune), progress=count,
        )  # fmt: skip
    return scores


def _check_split(known: LabelledImages, asked: LabelledImages) -> None:
    if known.label_names != asked.label_names:
        raise ParameterError(f"{known.path} and {asked.path} have other classes; give files of one layout")
    shared = shared_sources(known, asked, SAME_SOURCE)
    if shared.any():
        first = asked.name[int(np.flatnonzero(shared)[0])]
        raise ParameterError(
            f"{int(shared.sum())} sources of {asked.path} are in {known.path} too, or lie within an arcminute of one "
            f"that is, such as {first}; leave them out of one"
        )


def _counts(images: LabelledImages) -> str:
    return ", ".join(f"{int((images.label == i).sum())} {name}" for i, name in enumerate(images.label_names))


def _facts(runs: Sequence[Path], settings: TrainConfig, facts: dict[str, str]) -> dict[str, str]:
    from vis2img import __version__

    network = settings.model.variant + ("" if settings.model.is_resnet else f"/{settings.model.patch}")
    return {
        "runs": ", ".join(map(str, runs)),
        "network": f"{network}, views of {settings.data.views.global_size} px, {settings.steps} steps of "
        f"{settings.data.batch_size} samples, objective {settings.optim.objective}",
        **facts,
        "vis2img": __version__,
    }


def _pictures(
    config: EvaluateConfig, encoder: Encoder, images: np.ndarray, label: np.ndarray
) -> list[tuple[str, Figure]]:
    """Return a map of the embeddings, and of a transformer the attention and the components of its tokens."""
    if not config.pictures:
        return []
    from vis2img.models.vit import ViT
    from vis2img.train.report.embedding_map import umap_figure
    from vis2img.train.report.token_pictures import attention_figure, token_pca_figure

    shown = np.concatenate([np.flatnonzero(label == name)[: _SHOWN // 2] for name in np.unique(label)])[:_SHOWN]
    pictures = []
    if len(images) > 16:
        pictures.append(("Map of the embeddings", umap_figure(encoder.encode(images), label, thumbnails=images)))
    if encoder.model is not None and isinstance(encoder.model.backbone, ViT):
        pictures.append(("Attention", attention_figure(encoder.model, encoder.variables, images[shown])))
        pictures.append(("Components of tokens", token_pca_figure(encoder.model, encoder.variables, images[shown])))
    return pictures
