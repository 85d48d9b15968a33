"""Evaluation from run folders and data to scores, facts and pictures: what ``vis2img evaluate`` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vis2img import __version__
from vis2img.progress import Progress, no_progress
from vis2img.train.evaluate.config import EvaluateConfig
from vis2img.train.evaluate.encoders import (
    RANDOM,
    Encoder,
    NetworkEncoder,
    component_encoders,
    pixel_encoders,
    random_encoders,
    run_encoders,
)
from vis2img.train.evaluate.field_tasks import FieldTasks, LeftOut, read_fields
from vis2img.train.evaluate.finetune import FineTuning
from vis2img.train.evaluate.folds import Samples
from vis2img.train.evaluate.labelled_tasks import LabelledTasks, read_pictures
from vis2img.train.evaluate.neighbours import Voting
from vis2img.train.evaluate.scores import Score, scores_of
from vis2img.train.run.config import TrainConfig
from vis2img.train.weights.released import shown


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores, facts of what they are of, what was left out, and an encoder with images to show it by."""

    scores: list[Score]
    facts: dict[str, str]
    left_out: list[LeftOut]
    encoder: NetworkEncoder
    shown: Samples


def evaluate(config: EvaluateConfig, progress: Progress = no_progress) -> Evaluation:
    """Score runs, random weights and pixels beside each other, on fields with a truth or on labelled pictures.

    Raises
    ------
    Vis2imgError
        If a run, a measurement set, a catalogue or a file cannot be used, or the data do not suit a task.
    """
    config.check()
    tuned_shares = config.shares or (1.0,)
    config = config.resolved()
    settings, trained = run_encoders(config.runs, "student" if config.student else "teacher", config.step)
    tasks: FieldTasks | LabelledTasks
    left_out: list[LeftOut] = []
    if config.train is None:
        tasks, facts, left_out = read_fields(config, settings, progress)
    else:
        tasks, facts = read_pictures(config.train, config, settings)

    pixels = pixel_encoders(tasks.pixels) if config.train else component_encoders(tasks.pixels)
    encoders = [*trained, *random_encoders(settings, range(_untrained(config))), *pixels]
    scores: list[Score] = []
    for i, encoder in enumerate(encoders):
        scores += scores_of(encoder.name, tasks.run(encoder, _seeds_of(encoder, encoders, config.seeds)))
        progress("scoring", i + 1, len(encoders))
    if config.fine_tune and "classification" in config.tasks:
        scores += _fine_tuned(encoders, tasks, replace(config, shares=tuned_shares), progress)

    return Evaluation(
        scores,
        _facts(config, settings) | {"k-NN": _voting_in_words(tasks.voting)} | facts | {"vis2img": __version__},
        left_out,
        trained[0],
        tasks.train if tasks.test is None else tasks.test,
    )


def _untrained(config: EvaluateConfig) -> int:
    """Return how many networks with random weights stand beside."""
    return config.seeds if config.untrained is None else config.untrained


def _seeds_of(encoder: Encoder, encoders: Sequence[Encoder], seeds: int) -> list[int]:
    """Return the seeds to score an encoder with: its own where there are several of its name, else all."""
    alike = sum(other.name == encoder.name for other in encoders)
    return [encoder.seed] if alike > 1 else list(range(seeds))


def _fine_tuned(
    encoders: Sequence[Encoder], tasks: FieldTasks | LabelledTasks, config: EvaluateConfig, progress: Progress
) -> list[Score]:
    """Score all networks once they are trained further with labels."""
    networks: dict[str, list[NetworkEncoder]] = {}
    for encoder in encoders:
        if isinstance(encoder, NetworkEncoder):
            networks.setdefault(encoder.name, []).append(encoder)
    # One run is fine-tuned with each seed of labels and folds; several are seeds themselves.
    seeds = {name: range(len(own) if len(own) > 1 else config.seeds) for name, own in networks.items()}
    total = sum(map(len, seeds.values())) * len(config.shares)

    scores: list[Score] = []
    for name, own in networks.items():
        starts = [encoder.variables for encoder in own]
        settings = replace(config.tuning, steps=config.fine_tune)
        settings = settings.from_scratch() if name == RANDOM else settings
        tuning = FineTuning(own[0].model, starts, config.shares, config.folds, settings, config.keep)
        for pair in tuning.run(tasks.train, tasks.test, seeds[name]):
            scores += scores_of(name, [pair])
            progress("fine-tuning", len(scores) // 3, total)  # three metrics of each training
    return scores


def _facts(config: EvaluateConfig, settings: TrainConfig) -> dict[str, str]:
    network = settings.model.variant + ("" if settings.model.is_resnet else f"/{settings.model.patch}")
    return {
        "runs": ", ".join(map(shown, config.runs)),
        "network": f"{network}, views of {settings.data.views.global_size} px, {settings.steps} steps of "
        f"{settings.data.batch_size} samples, objective {settings.optim.objective}",
        "seeds": f"trained: {_seeds_in_words(len(config.runs), config.seeds)}; "
        f"random weights: {_seeds_in_words(_untrained(config), config.seeds)}; "
        f"pixels: {config.seeds} of folds, labels and what is planted",
        **({"turns": f"vectors are of turns: {config.turns}"} if config.train else {}),
    }


def _voting_in_words(voting: Voting) -> str:
    return f"{voting.neighbours} neighbours by the cosine of centred vectors, votes: {voting.votes}"


def _seeds_in_words(networks: int, seeds: int) -> str:
    """Say what the seeds of a representation are, as its intervals are over them."""
    return f"{networks} networks" if networks > 1 else f"{seeds} of folds, labels and what is planted, one network"
