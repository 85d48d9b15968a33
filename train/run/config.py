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

from vis2img.configs import config_arguments, read_config
from vis2img.errors import ParameterError
from vis2img.loader.config import LoaderConfig
from vis2img.train.config import ModelConfig, OptimConfig
from vis2img.train.hosts import HostsConfig

_LARGEST_SEED = 2**32 - 1  # JAX takes no more of a number


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
        if not self.out.strip():
            raise ParameterError("out is empty: name a folder for the run, e.g. runs/first")
        for name in ("steps", "checkpoint_every", "keep_checkpoints", "log_every", "views_every"):
            if getattr(self, name) < 1:
                raise ParameterError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.devices is not None and self.devices < 1:
            raise ParameterError(f"devices must be at least 1, got {self.devices}; leave it out to use all")
        if not 0 <= self.seed <= _LARGEST_SEED:
            raise ParameterError(f"seed must be from 0 to {_LARGEST_SEED}, got {self.seed}")
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
    if isinstance(value, Path):
        return str(value)
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def with_defaults(record: dict[str, Any], cls: type = TrainConfig) -> dict[str, Any]:
    """Return a saved configuration with the defaults of the keys that it lacks, as a run of an older version does."""
    hints = typing.get_type_hints(cls)
    full = {key: _plain(value) for key, value in _defaults(cls).items()} | record
    return {
        key: with_defaults(value, typing.cast(type, hints[key]))
        if isinstance(value, dict) and dataclasses.is_dataclass(hints.get(key))
        else value
        for key, value in full.items()
    }


def _defaults(cls: type) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in dataclasses.fields(cls):
        if each.default is not dataclasses.MISSING:
            found[each.name] = each.default
        elif each.default_factory is not dataclasses.MISSING:
            found[each.name] = dataclasses.asdict(each.default_factory())
    return found


def from_record(record: Any) -> TrainConfig:
    """Rebuild a configuration from :func:`to_record`; keys that it lacks have their defaults.

    Raises
    ------
    ParameterError
        If a key is unknown or missing, as when the run is of another version, or a value is none that it can have.
    """
    return _build(TrainConfig, record)


def _build(cls: type, record: Any, prefix: str = "") -> Any:
    hints = typing.get_type_hints(cls)
    if not isinstance(record, dict):
        raise ParameterError(f"the saved configuration has no keys{_below(prefix)}")
    unknown = ", ".join(sorted(f"{prefix}{key}" for key in set(record) - set(hints)))
    if unknown:
        raise ParameterError(f"the saved configuration has unknown keys: {unknown}")
    missing = ", ".join(f"{prefix}{key}" for key in hints if key not in record and key not in _defaults(cls))
    if missing:
        raise ParameterError(f"the saved configuration lacks {missing}")
    values = {}
    for key, value in record.items():
        if dataclasses.is_dataclass(hints[key]):
            value = _build(typing.cast(type, hints[key]), value, f"{prefix}{key}.")
        values[key] = tuple(value) if isinstance(value, list) else value
    try:
        return cls(**values)
    except (TypeError, AttributeError) as error:  # from the checks of a value of another type
        wrong = f"the saved configuration has a value of the wrong type{_below(prefix)}"
        raise ParameterError(f"{wrong}: {error}") from error


def _below(prefix: str) -> str:
    return f" below {prefix[:-1]}" if prefix else ""
