"""The folder of a run: its resolved configuration, the imaging prior behind it, and the versions that made it.

config.yaml    every setting
prior.yaml     the imaging prior, where it came from a file: that may change, the run must not
versions.json  of the libraries
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from train.run_config import TrainConfig, from_record, to_record
from vis2img.errors import OutputError, Vis2imgError
from vis2img.loader_config import ENGINE_KEYS
from vis2img.prior_presets import PRESETS, load_prior

_SAME_RUN = ("data", "model", "optim", "seed", "steps")  # what a resumed run must agree in


def open_folder(folder: Path, config: TrainConfig) -> None:
    """Make the run folder, or check that it holds this very run.

    Which workers make the draws may change; in synchronous mode it changes nothing else.

    Raises
    ------
    OutputError
        If it holds another run or something else, or cannot be written.
    """
    if (folder / "config.yaml").exists():
        _check_same(folder, config)
        return
    if folder.exists() and any(folder.iterdir()):
        raise OutputError(f"{folder} is not empty and holds no run of vis2img; choose another out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "versions.json", json.dumps(_versions(), indent=1))
        if config.data.imaging not in PRESETS:
            prior = load_prior(config.data.imaging).to_dict()
            write_text(folder / "prior.yaml", yaml.safe_dump(prior, sort_keys=False))
        write_text(folder / "config.yaml", yaml.safe_dump(to_record(config), sort_keys=False))
    except OSError as error:
        raise OutputError(f"cannot write the run folder {folder}: {error.strerror}") from error


def _check_same(folder: Path, config: TrainConfig) -> None:
    old, new = yaml.safe_load((folder / "config.yaml").read_text()), to_record(config)
    for record in (old, new):
        record["data"] = {key: value for key, value in record["data"].items() if key not in ENGINE_KEYS}
    advice = "choose another out, or delete that folder to start anew"
    for key in _SAME_RUN:
        if old.get(key) != new[key]:
            difference = _difference(key, old.get(key), new[key])
            raise OutputError(f"{folder} holds a run with another {difference}; {advice}")
    kept = folder / "prior.yaml"
    if kept.exists() and load_prior(str(kept)) != load_prior(config.data.imaging):
        raise OutputError(f"{folder} holds a run with another prior than {config.data.imaging} has now; {advice}")


def read_config_of(folder: Path) -> TrainConfig:
    """Return the configuration of a run folder.

    Raises
    ------
    Vis2imgError
        If the folder holds no run, or one of another version.
    """
    saved = folder / "config.yaml"
    if not saved.is_file():
        raise Vis2imgError(f"{folder} holds no run of vis2img: config.yaml is missing")
    record = yaml.safe_load(saved.read_text())
    if (folder / "prior.yaml").is_file():
        record["data"]["imaging"] = str(folder / "prior.yaml")
    return replace(from_record(record), out=str(folder))


def write_text(path: Path, text: str) -> None:
    """Write a file beside its place, and move it there when whole."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)


def _difference(key: str, old: Any, new: Any) -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in new:
            if old.get(name) != new[name]:
                return _difference(f"{key}.{name}", old.get(name), new[name])
    return f"{key} ({old} there, {new} here)"


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("vis2img", "jax", "flax", "optax", "ducc0", "python-casacore", "dask", "numpy")
    return {name: version(name) for name in names}
