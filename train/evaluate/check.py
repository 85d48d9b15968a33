"""What can be told of a command line of ``vis2img evaluate`` before networks are loaded: names, columns, seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vis2img.configs.records import differences, to_record
from vis2img.draws.presets import load_prior
from vis2img.errors import MeasurementSetError, ParameterError, Vis2imgError
from vis2img.pictures.formats import read_raw
from vis2img.pictures.labels import labels_of
from vis2img.train.embed.check import check_network
from vis2img.train.evaluate.config import EvaluateConfig
from vis2img.train.run.config import TrainConfig
from vis2img.train.run.folder import FREE


def check_files(settings: EvaluateConfig) -> None:
    """Refuse runs, steps, measurement sets, catalogues and pictures that are not there, or lack their labels.

    Raises
    ------
    Vis2imgError
        One line that names the file or the option.
    """
    configs = [check_network(path, settings.student, settings.step) for path in settings.runs]
    check_seeds(settings.runs, configs)
    if settings.train is None:
        own = settings.ms or configs[0].data.ms
        if not settings.ms and settings.runs[0].is_file():
            raise ParameterError(
                f"name fields (--ms) or labelled pictures (--train): {settings.runs[0]} does not hold the data that it "
                "was trained on"
            )
        if settings.catalogue and len(settings.catalogue) != len(own):
            count = len(settings.catalogue)
            raise Vis2imgError(f"{count} catalogues for {len(own)} measurement sets; give one for each")
        for path in (*own, *settings.other_ms, *map(str, settings.catalogue)):
            if not Path(path).exists():
                raise MeasurementSetError(f"{path} does not exist (seen from {Path.cwd()})")
    for pictures in filter(None, (settings.train, settings.test)):
        if not pictures.exists():
            raise Vis2imgError(f"{pictures} does not exist")
        if pictures.suffix.lower() == ".npz":  # a folder of images would be read twice
            labels_of(read_raw(pictures), settings.label)


def check_seeds(folders: Sequence[str | Path], configs: Sequence[TrainConfig]) -> None:
    """Refuse runs that are no seeds of one thing: their mean and interval would mean nothing.

    Raises
    ------
    ParameterError
        The message names both folders.
    """
    records = [_what_counts(config) for config in configs]
    for i, (folder, record) in enumerate(zip(folders, records, strict=True)):
        for difference in differences(records[0], record, FREE):
            raise ParameterError(
                f"{folders[0]} and {folder} have another {difference.key}, so they are no seeds of one thing; "
                "evaluate them one by one"
            )
        for other, config in zip(folders[:i], configs[:i], strict=True):
            if config.seed == configs[i].seed:
                raise ParameterError(f"{other} and {folder} have the same seed, {config.seed}: they are one run, twice")


def _what_counts(config: TrainConfig) -> dict[str, Any]:
    """Return what makes a run what it is, but for its seed."""
    record = {name: value for name, value in to_record(config).items() if name != "seed"}
    # Runs keep the prior that they were trained with in their own folders.
    record["data"]["imaging"] = load_prior(config.data.imaging).to_dict()
    return record
