"""The folder of a study: which study it holds, and where each part of it is."""

from __future__ import annotations

from pathlib import Path

import yaml

from vis2img import __version__
from vis2img.configs.load import draft, read_config
from vis2img.configs.records import differences, to_record
from vis2img.errors import OutputError
from vis2img.files import write_text
from vis2img.locks import claimed
from vis2img.train.study.config import StudyConfig

# What may change from one start to the next: it adds work, or leaves results as they are.
_FREE = ("out", "arms", "seeds", "workers")


def settle(config: StudyConfig) -> None:
    """Make the folder of a study, or check that it holds this one.

    Raises
    ------
    OutputError
        If it holds another study, whose scores these cannot stand beside, or cannot be written.
    """
    path = config.out / "study.yaml"
    # Scores that are there were made with CLEAN images to ask, or without.
    made = {"clean": config.has_clean, "vis2img": __version__}
    try:
        scores_path(config, "arm", 0).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{config.out} cannot be written: {error.strerror}") from error
    with claimed(path) as free:
        if free and not path.exists():
            record = {key: value for key, value in to_record(config).items() if key not in _FREE}
            write_text(path, yaml.safe_dump(record | made, sort_keys=False), overwrite=False)
    if path.exists():
        record = read_config(path)
        made_there = {key: record.pop(key, None) for key in made}
        there = to_record(draft(StudyConfig, record, path, saved=True))
        for difference in differences(there | made_there, to_record(config) | made, _FREE):
            raise OutputError(
                f"{config.out} holds a study with another {difference}; choose another out, or the settings of {path}"
            )


def scores_path(config: StudyConfig, arm: str, seed: int) -> Path:
    """Return where the scores of an arm and seed are kept."""
    return config.out / "scores" / f"{arm.lower().replace(' ', '-')}-{seed}.csv"
