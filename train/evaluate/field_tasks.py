"""All tasks on patches of fields with a truth, for one representation at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from vis2img.errors import ParameterError
from vis2img.train.evaluate.active import simulated_session
from vis2img.train.evaluate.anomaly import anomaly
from vis2img.train.evaluate.classification import classify, knn_classifier
from vis2img.train.evaluate.invariance import invariance
from vis2img.train.evaluate.regression import regress
from vis2img.train.evaluate.scores import Score
from vis2img.train.evaluate.similarity import precision_at
from vis2img.train.evaluate.simulated import ALIKE, ENDS, PARAMETERS, SHIFTED, SourcePatches, TilePatches
from vis2img.train.evaluate.transfer import transfer, transfer_to_others

Encode = Callable[[np.ndarray], np.ndarray]
TASKS = ("classification", "similarity", "anomaly", "regression", "transfer", "invariance")
AS_LEARNT = "as learnt"  # asked of what was learnt on, but of other sources: what a transfer is compared with
PLANTED_SHARE = 0.05
# What a person would say of a patch on Astronomaly's scale: 5 of what is sought, 0 of all else.
SOUGHT, DULL = 5.0, 0.0


def wanted_ways(tasks: Iterable[str]) -> tuple[str, ...]:
    """Return the ways of imaging that the tasks need."""
    ways = [ALIKE]
    if "transfer" in tasks:
        ways += [SHIFTED, "full", *ENDS]
    if "invariance" in tasks:
        ways += [*PARAMETERS, "full"]
    return tuple(dict.fromkeys(ways))


def score_fields(
    representation: str,
    encode: Encode,
    sources: SourcePatches,
    tiles: TilePatches | None,
    tasks: Sequence[str] = TASKS,
    *,
    shares: Sequence[float] = (0.05, 0.1, 0.3, 1.0),
    folds: int = 5,
    rare: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    others: SourcePatches | None = None,
) -> list[Score]:
    """Score one representation by several tasks, once for each seed where it draws something.

    Parameters
    ----------
    representation : str
        Name in the table.
    encode : callable
        Images float32 [n, size, size, channel] to vectors [n, dim].
    sources : SourcePatches
        With the ways of :func:`wanted_ways`; what needs a way that is not there is left out.
    tiles : TilePatches or None
        For "regression".
    tasks : sequence of str
        Of :data:`TASKS`.
    shares : sequence of float
        Of the labels, for "classification".
    folds : int
        Parts of the fields; fewer where there are fewer fields.
    rare : sequence of str
        Classes that are the anomalies; default: each in turn, see :func:`rare_classes`.
    seeds : sequence of int
        Of folds, labels and what is planted; of the representation, if it has one.
    others : SourcePatches, optional
        Of other fields, seen alike: "transfer" learns on ``sources`` and is asked of these.

    Returns
    -------
    list of Score

    Raises
    ------
    ParameterError
        If a task is unknown, or the data do not suit it.
    """
    unknown = [task for task in tasks if task not in TASKS]
    if unknown:
        raise ParameterError(f"unknown task {unknown[0]!r}; choose from {', '.join(TASKS)}")
    vectors = {name: encode(images) for name, images in sources.seen.items()}
    of_tiles = encode(tiles.images) if tiles is not None and "regression" in tasks else None
    parts = min(folds, len(np.unique(sources.field)))
    asked = encode(others.seen[ALIKE]) if others is not None and "transfer" in tasks else None
    scores = _of_sources(representation, vectors, sources, tasks, shares, parts, rare, seeds)
    if tiles is not None and of_tiles is not None:
        scores += _of_tiles(representation, of_tiles, tiles, parts, seeds)
    if others is not None and asked is not None:
        scores += transfer_to_others(
            representation, vectors[ALIKE], sources.label, sources.field, asked, others.label, seeds=seeds
        )
    return scores


def _of_sources(
    representation: str,
    vectors: Mapping[str, np.ndarray],
    sources: SourcePatches,
    tasks: Sequence[str],
    shares: Sequence[float],
    folds: int,
    rare: Sequence[str],
    seeds: Sequence[int],
) -> list[Score]:
    alike, label, field = vectors[ALIKE], sources.label, sources.field
    scores: list[Score] = []
    if "classification" in tasks:
        scores += classify(representation, alike, label, field, shares=shares, folds=folds, seeds=seeds)
    if "similarity" in tasks:
        scores += precision_at(representation, alike, label, field, seed=seeds[0])
    if "anomaly" in tasks:
        for seed in seeds:
            scores += rare_classes(representation, alike, label, rare, seed)
    if "transfer" in tasks:
        pairs = [(alike, {f"to {name}": vectors[name] for name in (SHIFTED, "full") if name in vectors})]
        for name in ENDS:
            ends = [vectors.get(f"{name} [{i}]") for i in (0, 1)]
            if ends[0] is not None and ends[1] is not None:
                pairs.append((ends[0], {name: ends[1], f"{name}, {AS_LEARNT}": ends[0]}))
        for learnt, asked in pairs:
            scores += transfer(representation, learnt, asked, label, field, folds=folds, seeds=seeds)
    if "invariance" in tasks:
        otherwise = {name: vectors[name] for name in (*PARAMETERS, "full") if name in vectors}
        scores += invariance(representation, alike, otherwise, seeds[0])
    return scores


def _of_tiles(
    representation: str, vectors: np.ndarray, tiles: TilePatches, folds: int, seeds: Sequence[int]
) -> list[Score]:
    scores: list[Score] = []
    for name, target in (("compact sources", tiles.compact), ("flux", np.where(tiles.flux > 0, tiles.flux, np.nan))):
        scores += regress(
            representation, vectors, target, tiles.field, target_name=name, folds=folds, seeds=seeds,
            log=name == "flux",
        )  # fmt: skip
    return scores


def score_queries(
    representation: str, encode: Encode, sources: SourcePatches, ways: Sequence[str], seed: int = 0
) -> list[Score]:
    """Score k-NN alone, each field asked about by all others, for queries seen in several ways.

    Parameters
    ----------
    representation, encode, sources
        As for :func:`score_fields`.
    ways : sequence of str
        How the queries are seen; the gallery is always centred and imaged in the fixed way.
    seed : int
        Of the representation.

    Returns
    -------
    list of Score
        Task "transfer", settings "WAY, k-NN", "balanced accuracy".
    """
    vectors = {way: encode(sources.seen[way]) for way in dict.fromkeys((ALIKE, *ways))}
    return transfer(
        representation, vectors[ALIKE], {way: vectors[way] for way in ways}, sources.label, sources.field,
        folds=len(np.unique(sources.field)), seeds=[seed], fits={"k-NN": knn_classifier},
    )  # fmt: skip


def rare_classes(
    representation: str, vectors: np.ndarray, label: np.ndarray, rare: Sequence[str], seed: int
) -> list[Score]:
    """Look for the sources of rare classes among all others, without help and with a person's scores.

    The person says 5 of what is sought and 0 of all else. What is rare is thinned out to a twentieth of the whole;
    without ``rare`` each class is so in turn.

    Raises
    ------
    ParameterError
        If no source is of a rare class, or there is nothing else.
    """
    if len(np.unique(label)) < 2:
        raise ParameterError("a search for rare sources needs sources of at least two classes")
    unknown = [name for name in rare if name not in label]
    if unknown:
        known = ", ".join(np.unique(label))
        raise ParameterError(f"no source is of the rare class {unknown[0]!r}; there are {known}")
    rng = np.random.default_rng([seed, len(label)])
    scores = []
    for names in [tuple(rare)] if rare else [(name,) for name in np.unique(label)]:
        wanted = np.isin(label, names)
        others, members = np.flatnonzero(~wanted), np.flatnonzero(wanted)
        count = max(2, round(len(others) * PLANTED_SHARE / (1 - PLANTED_SHARE)))
        rows = np.concatenate([others, rng.choice(members, min(count, len(members)), replace=False)])
        scores += _planted(representation, vectors[rows], wanted[rows], ", ".join(names), seed)
    return scores


def _planted(representation: str, vectors: np.ndarray, planted: np.ndarray, name: str, seed: int) -> list[Score]:
    found = anomaly(representation, vectors, planted, seeds=[seed])
    found += simulated_session(representation, vectors, planted, np.where(planted, SOUGHT, DULL), seeds=[seed])
    return [replace(score, setting=f"{score.setting}: {name}") for score in found]
