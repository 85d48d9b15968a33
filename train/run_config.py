"""The configuration of a run: one typed value, written as YAML or on the command line.

A YAML file stands for the command line ``--data.batch-size 32 --optim.base-lr 1e-3 ...``: both go through one
parser, so units (``2arcsec``), ranges and error messages are the same, and an unknown key is an error.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from train.config import ModelConfig, OptimConfig
from vis2img.errors import ParameterError, Vis2imgError
from vis2img.loader import LoaderConfig


@dataclass(frozen=True)
class TrainConfig:
    """A training run: data, network, optimiser and where the results go."""

    out: str
    """Run folder; the same command goes on from its last checkpoint."""
    data: LoaderConfig
    """Measurement sets and how views are made of them."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Network."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser, schedules and teacher."""
    steps: int = 10_000
    """Training steps (batches)."""
    seed: int = 0
    """Seed of network, draws and views."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    keep_checkpoints: int = 3
    """Checkpoints kept; older ones are deleted."""
    log_every: int = 10
    """Steps between reads of the metrics from the accelerator."""
    devices: int | None = None
    """Local devices to use; default: all."""

    def __post_init__(self) -> None:
        for name in ("steps", "checkpoint_every", "keep_checkpoints", "log_every"):
            if getattr(self, name) < 1:
                raise ParameterError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.optim.warmup_steps >= self.steps:
            raise ParameterError(
                f"optim.warmup_steps = {self.optim.warmup_steps} must be less than steps = {self.steps}"
            )
        views, patch = self.data.views, self.model.patch
        for name in ("global_size", "local_size"):
            if getattr(views, name) % patch:
                raise ParameterError(
                    f"data.views.{name} = {getattr(views, name)} must be a multiple of model.patch = {patch}"
                )


def load_config(path: Path) -> TrainConfig:
    """Read the configuration in a YAML file.

    Paths in it are relative to the current directory, as on the command line.

    Raises
    ------
    Vis2imgError
        If the file cannot be read, a key is unknown or a value illegal; the message names file and key.
    SystemExit
        From the parser, for a value of the wrong type.
    """
    import tyro

    try:
        return tyro.cli(
            TrainConfig, args=config_arguments(path), prog=str(path), config=(tyro.conf.FlagCreatePairsOff,)
        )
    except ValueError as error:
        raise ParameterError(f"{path}: {error}") from error


def config_arguments(path: Path) -> list[str]:
    """Return the command line that a YAML file stands for.

    Raises
    ------
    Vis2imgError
        If the file cannot be read, or a key is unknown; the message names file and key.
    """
    try:
        record = yaml.safe_load(path.read_text())
    except OSError as error:
        raise Vis2imgError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParameterError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(record, dict):
        raise ParameterError(f"{path} must hold keys and values, such as 'steps: 1000'")
    return list(_arguments(record, TrainConfig, path))


def _arguments(record: dict[str, Any], cls: Any, path: Path, prefix: str = "") -> Iterator[str]:
    hints = typing.get_type_hints(cls)
    defaults = {f.name: f.default for f in dataclasses.fields(cls)}
    for key, value in record.items():
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, 1)
            advice = f"; did you mean {prefix}{near[0]}?" if near else f"; known: {', '.join(hints)}"
            raise ParameterError(f"{path}: unknown key {prefix}{key}{advice}")
        nested = dataclasses.is_dataclass(hints[key])
        if nested != isinstance(value, dict):
            raise ParameterError(f"{path}: {prefix}{key} takes {'keys of its own' if nested else 'a value, not keys'}")
        leaf = key.replace("_", "-")
        if isinstance(value, dict):
            yield from _arguments(value, hints[key], path, f"{prefix}{key}.")
        elif isinstance(value, bool):
            # A flag is spelled only to change it: --x where it is off, --no-x where it is on.
            if value != defaults[key]:
                yield f"--{prefix}{leaf if value else 'no-' + leaf}".replace("_", "-")
        elif isinstance(value, list):
            yield from (f"--{prefix}{leaf}".replace("_", "-"), *map(str, value))
        elif value is not None:
            yield f"--{prefix}{leaf}".replace("_", "-")
            yield str(value)


def to_record(config: Any) -> Any:
    """Return a configuration as plain values (nested dictionaries), as compared and saved with a run."""
    return yaml.safe_load(yaml.safe_dump(_plain(dataclasses.asdict(config))))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def from_record(record: dict[str, Any]) -> TrainConfig:
    """Rebuild a configuration from :func:`to_record`.

    Raises
    ------
    ParameterError
        If a key is unknown or missing, as when the run is of another version.
    """
    return _build(TrainConfig, record)


def _build(cls: type, record: dict[str, Any]) -> Any:
    hints = typing.get_type_hints(cls)
    unknown = set(record) - set(hints)
    if unknown:
        raise ParameterError(f"the saved configuration has unknown keys: {', '.join(sorted(unknown))}")
    values = {}
    for key, value in record.items():
        if dataclasses.is_dataclass(hints[key]):
            value = _build(typing.cast(type, hints[key]), value)
        values[key] = tuple(value) if isinstance(value, list) else value
    return cls(**values)
