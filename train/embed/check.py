"""What can be told of a command line of ``vis2img embed`` before a network is loaded: names that are not there."""

from __future__ import annotations

import json
from pathlib import Path

from vis2img.configs.load import build
from vis2img.draws.presets import load_prior
from vis2img.errors import MeasurementSetError, ParameterError, Vis2imgError
from vis2img.train.embed.config import EmbedConfig
from vis2img.train.run.config import TrainConfig
from vis2img.train.run.folder import check_run
from vis2img.train.weights.files import read_header

_HEADER = ("config", "patch_angle_rad", "network", "step")


def check_files(settings: EmbedConfig) -> None:
    """Refuse a run, a step, weights, inputs or positions that are not there, or cannot be read.

    Raises
    ------
    Vis2imgError
        One line that names the file or the option.
    """
    config = check_network(settings.run, settings.student, settings.step)
    if settings.run.is_file() and not settings.inputs:
        raise ParameterError(f"name what to embed: {settings.run} does not hold the data that it was trained on")
    for path in settings.inputs or config.data.ms or config.data.cutouts:
        if not Path(path).exists():
            of_run = "" if settings.inputs else f", which {settings.run} was trained on; name what to embed"
            raise MeasurementSetError(f"{path} does not exist{of_run}")
    _ = settings.places


def check_network(path: Path, student: bool, step: int | None) -> TrainConfig:
    """Return the configuration of a run folder, or of weights that were exported of one, before JAX is loaded.

    Raises
    ------
    Vis2imgError
        If it is neither, holds no checkpoint of ``step``, or not the choice that is asked for.
    """
    if not path.is_file():
        return check_run(path, step)
    if student or step is not None:
        raise ParameterError(f"{path} holds one network of one step; leave out --student and --step")
    return read_export(path)[0]


def read_export(path: Path) -> tuple[TrainConfig, dict[str, str]]:
    """Return the settings of the run in a file of ``vis2img export``, and all that its header tells.

    Raises
    ------
    Vis2imgError
        If it is none, or one of an earlier version.
    """
    try:
        header = read_header(path)
    except ValueError as error:
        raise Vis2imgError(str(error)) from error
    except OSError as error:
        raise Vis2imgError(f"{path} cannot be read: {error.strerror or error}") from error
    if header is None or not header.keys() >= {*_HEADER}:
        raise Vis2imgError(
            f"{path} does not tell how images are made for it: give a run folder, or what vis2img export writes of one "
            "(not that of an earlier version)"
        )
    try:
        record = json.loads(header["config"])
        list(map(float, json.loads(header["patch_angle_rad"])))
        int(header["step"])
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise Vis2imgError(f"{path}: its header is damaged; export the run again") from error
    if not isinstance(record, dict):
        raise Vis2imgError(f"{path}: its header is damaged; export the run again")
    config = build(TrainConfig, record, path, saved=True)
    load_prior(config.data.imaging)
    return config, header
