"""The folder of a run: its resolved configuration, the imaging prior behind it, and the versions that made it.

config.yaml    every setting, the seed among them
prior.yaml     the imaging prior, where it came from a file: that may change, the run must not
patches.json   the fields that it trains on and the angle of a patch in each, for when the data are gone
starts.jsonl   a line for each time that training began: when, from which step, with which versions on which devices
compiled/      what JAX compiled
.run.lock      held by the process that trains
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from vis2img.configs.load import build, draft, read_config
from vis2img.configs.records import differences, to_record
from vis2img.draws.presets import PRESETS, load_prior
from vis2img.errors import MeasurementSetError, OutputError, Vis2imgError
from vis2img.files import sweep, write_text
from vis2img.loader.config import ENGINE_KEYS
from vis2img.locks import locked
from vis2img.train.run.config import TrainConfig
from vis2img.train.weights.released import find, resolve

_PATIENCE = 60.0  # s that a host waits for another's folder
# What may differ between a run and the same run resumed.
FREE = (
    *("out", "checkpoint_every", "keep_checkpoints", "keep_every", "views_every", "log_every", "devices", "hosts"),
    *(f"data.{key}" for key in ENGINE_KEYS),
)
# In what `open_folder` wrote, ever.
_ALWAYS = {"out", "data", "model", "optim", "seed", "steps", "checkpoint_every", "keep_checkpoints", "log_every"}
_LOCK = ".run.lock"
_PATCHES = "patches.json"
_COMPILED = "JAX_COMPILATION_CACHE_DIR"
_ANEW = "choose another out, or delete that folder to start anew"
_PLACES = ("ms", "cutouts")  # keys of data that are paths
_STEPS = (
    "the schedules of a run follow from its steps; to train on, choose another out, and for model.weights what "
    "`vis2img export` writes of this run"
)


def absolute(config: TrainConfig) -> TrainConfig:
    """Return the configuration with paths of data and weights that hold in any folder."""

    def whole(paths: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(Path(path).absolute()) for path in paths)

    data = replace(config.data, ms=whole(config.data.ms), cutouts=whole(config.data.cutouts))
    if data.draw_cache is not None:
        data = replace(data, draw_cache=str(Path(data.draw_cache).absolute()))
    weights = config.model.weights and str(find(config.model.weights).absolute())
    return replace(config, data=data, model=replace(config.model, weights=weights))


def check_inputs(config: TrainConfig) -> None:
    """Refuse a run whose files are not there, before anything is started or written.

    Raises
    ------
    MeasurementSetError
        If a measurement set, an image or pictures are missing.
    Vis2imgError
        If the weights to start from are missing, and the run still has to start.
    """
    moved = "; if data of this run have moved, give their new place" if saved_steps(Path(config.out)) else ""
    for name in _PLACES:
        for path in getattr(config.data, name):
            if not Path(path).exists():
                raise MeasurementSetError(f"data.{name}: {path} does not exist{moved}")
    weights = config.model.weights
    if weights is not None and not saved_steps(Path(config.out)) and not resolve(weights).is_file():
        raise Vis2imgError(f"model.weights: there is no file {weights}")


def saved_steps(folder: Path) -> list[int]:
    """Return the steps of a run's checkpoints, whole or damaged, in order."""
    there = folder / "checkpoints"
    return sorted(int(path.name) for path in there.iterdir() if path.name.isdigit()) if there.is_dir() else []


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other processes from training in a folder, which is made, for as long as the block lasts.

    What a killed one left half-written goes.

    Raises
    ------
    BusyError
        If another process trains there; the message names host, process and since when.
    OutputError
        If the folder is a file, or cannot be written.
    """
    _make_folder(folder)
    with locked(folder, "being trained", at=folder / _LOCK):
        _tidy(folder)
        yield


def leave_tidy(folder: Path) -> None:
    """Remove what a killed process left in the folder of a run that has ended, where that is allowed."""
    with contextlib.suppress(OutputError), held(folder):
        pass


def _make_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; name a folder in out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write the run folder {folder}: {error.strerror}") from error


def _tidy(folder: Path) -> None:
    """Remove what a killed process, or a disk that was full, left half-written."""
    for place in (folder, folder / "views"):
        sweep(place)
    # JAX neither reads entries that were cut short nor writes them anew.
    for entry in (folder / "compiled").glob("*-cache"):
        with contextlib.suppress(OSError):
            if _is_cut_short(entry.read_bytes()):
                entry.unlink()


def _is_cut_short(packed: bytes) -> bool:
    """Whether data are the beginning of what zlib wrote; of other packings this is not known."""
    if packed[:1] not in (b"", b"\x78"):
        return False
    unpacking = zlib.decompressobj()
    try:
        unpacking.decompress(packed)
    except zlib.error:
        return True
    return not unpacking.eof


def keep_compiled(folder: Path) -> None:
    """Keep what JAX compiles in the folder of a run, so that a run that goes on need not wait for it.

    Where the user has set such a folder, or that there be none, this changes nothing. It is for the whole process.
    """
    import jax

    if _COMPILED not in os.environ and not getattr(jax.config, _COMPILED.lower()):
        jax.config.update(_COMPILED.lower(), str(folder.resolve() / "compiled"))


def open_folder(folder: Path, config: TrainConfig, *, first: bool = True) -> None:
    """Write into the run folder which run it holds, or check that it holds this very run.

    The first process must hold the folder: :func:`held`.

    Which workers make the draws may change; in synchronous mode it changes nothing else. A run that left no checkpoint
    has trained nothing that would have to agree: its configuration is replaced.

    Parameters
    ----------
    folder : Path
    config : TrainConfig
    first : bool
        Whether this process writes; others wait until the configuration is there.

    Raises
    ------
    OutputError
        If it holds another run or something else, or cannot be written.
    """
    if saved_steps(folder):
        _check_same(folder, config)
        if first:
            _note_places(folder, config)
    elif first:
        _make(folder, config)
    else:
        _wait_for(folder, config)


def _make(folder: Path, config: TrainConfig) -> None:
    _make_folder(folder)
    record, kept = to_record(config), folder / "prior.yaml"
    imaging = config.data.imaging
    if (folder / "config.yaml").exists():
        old = _read_record(folder)
        if not old.keys() >= _ALWAYS:
            raise OutputError(f"{folder / 'config.yaml'} was not written by a run of vis2img; choose another out")
        if imaging == str(kept):  # the run's own copy, as of a configuration that was read back
            record["data"]["imaging"] = old["data"].get("imaging", imaging)
    elif any(path.name != _LOCK for path in folder.iterdir()):
        raise OutputError(f"{folder} is not empty and holds no run of vis2img; choose another out")
    try:
        # In an order in which a kill leaves neither a folder that nobody knows nor the prior of an earlier try.
        if imaging != str(kept):
            kept.unlink(missing_ok=True)
        (folder / _PATCHES).unlink(missing_ok=True)
        write_text(folder / "config.yaml", yaml.safe_dump(record, sort_keys=False))
        if imaging != str(kept) and imaging not in PRESETS:
            write_text(kept, yaml.safe_dump(load_prior(imaging).to_dict(), sort_keys=False))
    except OSError as error:
        raise OutputError(f"cannot write the run folder {folder}: {error.strerror}") from error


def _wait_for(folder: Path, config: TrainConfig) -> None:
    """Wait until the first host has written the folder; one of an earlier try may still be there."""
    path, deadline = folder / "config.yaml", time.monotonic() + _PATIENCE
    while True:
        late = time.monotonic() > deadline
        if path.exists():
            try:
                return _check_same(folder, config)
            except OutputError:
                if late:
                    raise
        elif late:
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
    path = folder / "starts.jsonl"
    try:
        earlier = path.read_text(errors="replace").splitlines(keepends=True) if path.exists() else []
        # A disk that was full may have cut the last one short.
        write_text(path, "".join(text for text in earlier if text.endswith("\n")) + json.dumps(line) + "\n")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


def note_patches(folder: Path, names: Sequence[str], angles: Sequence[float]) -> None:
    """Write into a run folder how large the patches are, rad, in each of its fields."""
    path = folder / _PATCHES
    if not path.exists():
        write_text(path, json.dumps({"fields": list(names), "patch_angle_rad": list(angles)}, indent=1) + "\n")


def patch_angles(folder: Path) -> tuple[float, ...]:
    """Return the angle of a patch in each field that a run was trained on, rad; none where it was not written down.

    Raises
    ------
    OutputError
        If the file is there and damaged.
    """
    path = folder / _PATCHES
    if not path.exists():
        return ()
    try:
        return tuple(float(angle) for angle in json.loads(path.read_text())["patch_angle_rad"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path} is not as a run wrote it; delete it, and the data of the run are asked") from error


def _check_same(folder: Path, config: TrainConfig) -> None:
    there, kept = draft(TrainConfig, _read_record(folder), folder / "config.yaml", saved=True), folder / "prior.yaml"
    alike = [f"data.{name}" for name in _PLACES if _same_files(getattr(there.data, name), getattr(config.data, name))]
    if there.model.weights and config.model.weights and _same_files([there.model.weights], [config.model.weights]):
        alike.append("model.weights")
    if kept.exists():  # what the prior is called, and where it lies, does not matter then
        alike.append("data.imaging")
    for difference in differences(there, config, (*FREE, *alike)):
        advice = _STEPS if difference.key == "steps" else _ANEW
        raise OutputError(f"{folder} holds a run with another {difference}; {advice}")
    if kept.exists() and load_prior(str(kept)) != load_prior(config.data.imaging):
        raise OutputError(f"{folder} holds a run with another prior than {config.data.imaging} has now; {_ANEW}")


def _same_files(there: Sequence[str], here: Sequence[str]) -> bool:
    """Whether two lists name the same files in the same order; a file that is gone may have moved under its name."""
    return len(there) == len(here) and all(
        os.path.realpath(old) == os.path.realpath(new) or (not Path(old).exists() and Path(old).name == Path(new).name)
        for old, new in zip(there, here, strict=True)
    )


def _note_places(folder: Path, config: TrainConfig) -> None:
    """Write down where the data of a run are now, if they have moved."""
    record = _read_record(folder)
    now = {name: list(getattr(config.data, name)) for name in _PLACES}
    if {name: record["data"].get(name, []) for name in _PLACES} != now:
        record["data"] |= now
        write_text(folder / "config.yaml", yaml.safe_dump(record, sort_keys=False))


def _read_record(folder: Path) -> dict[str, Any]:
    """Return what the folder's ``config.yaml`` holds, some of whose keys may be missing."""
    saved = folder / "config.yaml"
    if not saved.is_file():
        raise OutputError(f"{folder} holds no run of vis2img: config.yaml is missing")
    try:
        record = read_config(saved)
    except Vis2imgError as error:
        raise OutputError(f"{error}; it is not as a run wrote it: restore it, or choose another out") from error
    if not isinstance(record.get("data"), dict):
        raise OutputError(f"{saved} has no data: it is not as a run wrote it; restore it, or choose another out")
    return record


def read_config_of(folder: Path) -> TrainConfig:
    """Return the configuration of a run folder.

    Raises
    ------
    Vis2imgError
        If the folder holds no run, or one of another version.
    """
    record = _read_record(folder)
    if (folder / "prior.yaml").is_file():
        record["data"]["imaging"] = str(folder / "prior.yaml")
    return replace(build(TrainConfig, record, folder / "config.yaml", saved=True), out=str(folder))


def check_run(folder: Path, step: int | None = None) -> TrainConfig:
    """Return the configuration of a run that has the checkpoint of ``step``, or one at all: before JAX is loaded.

    Raises
    ------
    Vis2imgError
        If the folder holds no run, or no such checkpoint.
    """
    config, steps = read_config_of(folder), saved_steps(folder)
    if not steps:
        raise OutputError(f"no checkpoint in {folder / 'checkpoints'}: train the run first")
    if step is not None and step not in steps:
        raise OutputError(f"no checkpoint of step {step} in {folder / 'checkpoints'}; there are {steps}")
    return config


def recorded_model(folder: Path) -> dict[str, Any]:
    """Return the settings of the network in a run folder, as they are written there; some may be missing."""
    record = _read_record(folder).get("model")
    return record if isinstance(record, dict) else {}


def _versions() -> dict[str, str]:
    names = ("vis2img", "jax", "jaxlib", "flax", "optax", "ducc0", "python-casacore", "dask", "numpy")
    return {name: version(name) for name in names}
