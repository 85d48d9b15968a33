"""The configuration of a run: one typed value, written as YAML or on the command line.

A YAML file stands for the command line ``--data.batch-size 32 --optim.base-lr 1e-3 ...``: both go through one
parser, so units (``2arcsec``), ranges and error messages are the same, and an unknown key is an error.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from train.config import ModelConfig, OptimConfig
from train.hosts import HostsConfig
from vis2img.config_file import config_arguments, read_config
from vis2img.errors import ParameterError
from vis2img.loader_config import LoaderConfig


@dataclass(frozen=True)
class TrainConfig:
    """A training run: data, network, optimiser and where the results go."""

    out: str
    """Run folder; the same command goes on from its last checkpoint."""
    data: LoaderConfig
    """Measurement sets, images or pictures, and how views are made of them."""
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
    keep_every: int = 0
    """Checkpoints of steps that are multiples of this are kept for good; 0: none."""
    views_every: int = 1000
    """Steps between pictures of what the network sees."""
    log_every: int = 10
    """Steps between reads of the metrics from the accelerator."""
    devices: int | None = None
    """Local devices to use; default: all."""
    hosts: HostsConfig = field(default_factory=HostsConfig)
    """Processes that train together, for launchers other than srun and mpirun."""

    def __post_init__(self) -> None:
        for name in ("steps", "checkpoint_every", "keep_checkpoints", "log_every", "views_every"):
            if getattr(self, name) < 1:
                raise ParameterError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.optim.warmup_steps >= self.steps:
            raise ParameterError(
                f"optim.warmup_steps = {self.optim.warmup_steps} must be less than steps = {self.steps}"
            )
        if self.keep_every < 0 or self.keep_every % self.checkpoint_every:
            raise ParameterError(
                f"keep_every = {self.keep_every} must be a multiple of checkpoint_every = {self.checkpoint_every}"
            )
        views, patch = self.data.views, self.model.patch
        if self.model.is_resnet:
            if self.optim.ibot:
                raise ParameterError(f"optim.ibot hides patches, and model.variant {self.model.variant} has none")
            return
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
        args = config_arguments(read_config(path), TrainConfig, path)
        return tyro.cli(TrainConfig, args=args, prog=str(path), config=(tyro.conf.FlagCreatePairsOff,))
    except ValueError as error:
        raise ParameterError(f"{path}: {error}") from error


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
