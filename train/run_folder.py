"""The folder of a run: its resolved configuration, the imaging prior behind it, and the versions that made it.

config.yaml    every setting, the seed among them
prior.yaml     the imaging prior, where it came from a file: that may change, the run must not
starts.jsonl   a line for each time it was started: when, from which step, with which versions on which devices
"""

from __future__ import annotations

import json
import platform
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from train.run_config import TrainConfig, from_record, to_record
from vis2img.errors import OutputError, Vis2imgError
from vis2img.loader_config import ENGINE_KEYS
from vis2img.prior_presets import PRESETS, load_prior

_PATIENCE = 60.0  # s that a host waits for another's folder
_SAME_RUN = ("data", "model", "optim", "seed", "steps")  # what a resumed run must agree in


def open_folder(folder: Path, config: TrainConfig, *, first: bool = True) -> None:
    """Make the run folder, or check that it holds this very run.

    Which workers make the draws may change; in synchronous mode it changes nothing else.

    Parameters
    ----------
    folder : Path
    config : TrainConfig
    first : bool
        Whether this process makes the folder; others wait until it is there.

    Raises
    ------
    OutputError
        If it holds another run or something else, or cannot be written.
    """
    if not first:
        _wait_for(folder / "config.yaml")
    if (folder / "config.yaml").exists():
        _check_same(folder, config)
        return
    if folder.exists() and any(folder.iterdir()):
        raise OutputError(f"{folder} is not empty and holds no run of vis2img; choose another out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if config.data.imaging not in PRESETS:
            prior = load_prior(config.data.imaging).to_dict()
            write_text(folder / "prior.yaml", yaml.safe_dump(prior, sort_keys=False))
        write_text(folder / "config.yaml", yaml.safe_dump(to_record(config), sort_keys=False))
    except OSError as error:
        raise OutputError(f"cannot write the run folder {folder}: {error.strerror}") from error


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not path.exists():
        if time.monotonic() > deadline:
            raise OutputError(f"{path} does not appear: all hosts must see the run folder (a shared file system)")
        time.sleep(0.2)


def note_start(folder: Path, step: int) -> None:
    """Add a line to ``starts.jsonl``."""
    import jax

    line = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "step": step,
        "hosts": jax.process_count(),
        "devices": [str(device.device_kind) for device in jax.devices()],
        "python": platform.python_version(),
        **_versions(),
    }
    try:
        with (folder / "starts.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise OutputError(f"cannot write {folder / 'starts.jsonl'}: {error.strerror}") from error


def _check_same(folder: Path, config: TrainConfig) -> None:
    old, new = yaml.safe_load((folder / "config.yaml").read_text()), to_record(config)
    for record in (old, new):
        record["data"] = {key: value for key, value in record["data"].items() if key not in ENGINE_KEYS}
    kept = folder / "prior.yaml"
    if new["data"]["imaging"] == str(kept):  # the run's own copy, as of a configuration that was read back
        new["data"]["imaging"] = old["data"]["imaging"]
    advice = "choose another out, or delete that folder to start anew"
    for key in _SAME_RUN:
        if old.get(key) != new[key]:
            difference = _difference(key, old.get(key), new[key])
            raise OutputError(f"{folder} holds a run with another {difference}; {advice}")
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

    names = ("vis2img", "jax", "jaxlib", "flax", "optax", "ducc0", "python-casacore", "dask", "numpy")
    return {name: version(name) for name in names}
