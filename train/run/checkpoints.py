"""Checkpoints: the whole `TrainState` plus a JSON note, written atomically by Orbax.

A checkpoint is a flat set of named arrays, "params/backbone/norm/scale" and so on, with their shapes in the
note. So a checkpoint of another model is refused by name before anything is read, and can be opened without
this code.
"""

import contextlib
import json
import logging
import shutil
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from vis2img.errors import Vis2imgError, first_line
from vis2img.train.state import TrainState

_REMEDY = "free some space and give the same command again, which goes on from the last checkpoint"
_FULL = ("No space left", "Disk quota exceeded", "quota exceeded")
_NOT_READ = ("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "Permission denied", "Too many open files")
_PARTIAL = "*.orbax-checkpoint-tmp*"
_SETTLE_SECONDS = 10.0
_MARGIN = 1 << 20  # bytes, for what Orbax writes beside the arrays
_LATER = ("usage",)  # of a state: checkpoints of earlier versions do not have them, and they start at 0


class CheckpointError(Vis2imgError):
    """A checkpoint cannot be written or read; the message is one line that says why."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint of which files are missing, or are not as they were written."""


class CheckpointStore:
    """The checkpoints of one run, in one folder.

    Parameters
    ----------
    folder : path
        Created by the first `save`, never by a read.
    max_to_keep : int
        Older checkpoints are deleted.
    keep_every : int
        But those of steps that are multiples of it never are; 0: none is spared.
    """

    def __init__(self, folder: str | Path, *, max_to_keep: int = 3, keep_every: int = 0) -> None:
        if max_to_keep < 1:
            raise ValueError(f"max_to_keep must be positive, got {max_to_keep}")
        self.folder = Path(folder).resolve()
        self._max_to_keep, self._keep_every = max_to_keep, keep_every
        self._manager: ocp.CheckpointManager | None = None

    def __enter__(self) -> "CheckpointStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release Orbax's threads."""
        if self._manager is not None:
            self._manager.close()
            self._manager = None

    def steps(self) -> list[int]:
        """Steps that have a complete checkpoint, in order."""
        return sorted(self._open().all_steps()) if self.folder.is_dir() else []

    def save(self, state: TrainState, step: int, extra: Mapping[str, Any] | None = None) -> None:
        """Write a checkpoint under the name of its step; it appears only once complete.

        Parameters
        ----------
        state : TrainState
            Unreplicated.
        step : int
        extra : dict, optional
            JSON values to keep beside it, such as the loader's state or the configuration.

        Raises
        ------
        CheckpointError
            If the step exists already, ``extra`` is not JSON, or the disk refuses.
        """
        arrays = _flatten(jax.device_get(state))
        note = {"shapes": _shapes(arrays), "crc32": _checksums(arrays), "extra": dict(extra or {})}
        try:
            json.dumps(note)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"cannot save step {step}: extra is not JSON: {first_line(error)[:200]}") from error
        if step in self.steps():
            raise CheckpointError(f"cannot save step {step}: {self.folder} has it already")
        args = ocp.args.Composite(state=ocp.args.StandardSave(arrays), note=ocp.args.JsonSave(note))
        self._tidy()
        self._check_room(step, sum(np.asarray(x).nbytes for x in arrays.values()) + _MARGIN)
        try:
            with _quiet():
                try:
                    saved = self._open().save(step, args=args, force=True)
                except Exception:
                    self._settle()
                    raise
        except Exception as error:  # Orbax and tensorstore raise many types
            full = any(word in str(error) for word in _FULL)
            why = f"the disk is full; {_REMEDY}" if full else first_line(error)[:200]
            raise CheckpointError(f"cannot save step {step} to {self.folder}: {why}") from error
        if not saved:
            raise CheckpointError(f"cannot save step {step} to {self.folder}: Orbax skipped it")

    def restore(self, template: TrainState, step: int | None = None) -> tuple[TrainState, dict[str, Any]]:
        """Return the state of a checkpoint, and ``extra`` as given to `save`.

        Parameters
        ----------
        template : TrainState
            Unreplicated state of the same model and optimiser, such as that of `create_state`; only its
            structure, shapes and dtypes are used.
        step : int, optional
            The latest by default.

        Raises
        ------
        CheckpointError
            If there is no such checkpoint, it is damaged, or it is of another model; if it is damaged, the message
            names others.
        """
        step = self._choose(step)
        try:
            return self._restore(template, step)
        except DamagedCheckpointError as error:
            others = [str(other) for other in self.steps() if other != step]
            there = f"; there are others, of step {', '.join(others)}" if others else ""
            raise DamagedCheckpointError(f"{error}{there}") from error

    def restore_last_good(
        self, template: TrainState, on_warning: Callable[[str], None] | None = None, *, repair: bool = True
    ) -> tuple[TrainState, dict[str, Any]]:
        """Read the last checkpoint that is whole; those after it are set aside, as their steps will be taken again.

        Parameters
        ----------
        template : TrainState
            As for `restore`.
        on_warning : callable, optional
            Called with a line for each damaged checkpoint.
        repair : bool
            Whether this process sets them aside; of several hosts one does.

        Raises
        ------
        CheckpointError
            If none is whole, or the last that is whole is of another model.
        """
        damaged: dict[int, DamagedCheckpointError] = {}
        for step in reversed(self.steps()):
            try:
                restored = self._restore(template, step)
            except DamagedCheckpointError as error:
                damaged[step] = error
                continue
            for wrong, why in damaged.items():
                where = self._set_aside(wrong) if repair else None
                if on_warning and where:
                    on_warning(f"{why}; going on from step {step}. It is now {where}: rm -r {where} deletes it")
            return restored
        if not damaged:
            self._choose(None)  # says what is missing
        last = next(iter(damaged.values()))
        raise CheckpointError(f"{last}; no checkpoint is whole: delete {self.folder.parent} to start anew") from last

    def _set_aside(self, step: int) -> Path:
        """Rename a checkpoint so that Orbax does not take it for one; nobody knows what can be saved from it."""
        self.close()  # Orbax keeps a list
        for number in range(1, 1000):
            there = self.folder / f"damaged-{step}{f'-{number}' if number > 1 else ''}"
            if not there.exists():
                break
        try:
            (self.folder / str(step)).replace(there)
        except OSError as error:
            raise CheckpointError(f"{self.folder / str(step)} cannot be renamed: {error.strerror}") from error
        return there

    def _restore(self, template: TrainState, step: int) -> tuple[TrainState, dict[str, Any]]:
        blank = _flatten(template)
        note = self._read(step, "note", ocp.args.JsonRestore())
        if not isinstance(note, dict) or not {"shapes", "crc32", "extra"} <= note.keys():
            raise DamagedCheckpointError(f"checkpoint {step} in {self.folder} is damaged: its note is incomplete")
        zeros = {name: np.zeros(x.shape, x.dtype) for name, x in blank.items()}
        later = {name: zeros.pop(name) for name in _LATER if name in zeros and name not in note["shapes"]}
        self._compare(step, note["shapes"], _shapes(zeros))
        arrays = self._read(step, "state", ocp.args.StandardRestore(zeros))
        # Orbax reads flipped bits without complaint.
        wrong = [name for name, crc in _checksums(arrays).items() if crc != note["crc32"].get(name)]
        if wrong:
            raise DamagedCheckpointError(f"checkpoint {step} in {self.folder} is damaged: wrong checksum of {wrong[0]}")
        leaves = [jax.numpy.asarray({**arrays, **later}[name]) for name in blank]
        return jax.tree.unflatten(jax.tree.structure(template), leaves), note["extra"]

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            # Each process by itself: with several hosts one writes and all read, whenever they like.
            here = jax.process_index()
            alone = ocp.options.MultiprocessingOptions(
                primary_host=here, active_processes={here}, barrier_sync_key_prefix=f"process{here}"
            )
            # Orbax makes no folder itself for a part of the processes.
            self.folder.mkdir(parents=True, exist_ok=True)
            options = ocp.CheckpointManagerOptions(
                max_to_keep=self._max_to_keep,
                keep_period=self._keep_every or None,
                create=False,
                # The arrays may be donated to the next step, and a state takes about a second to write.
                enable_async_checkpointing=False,
                multiprocessing_options=alone,
            )
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        return self._manager

    def _tidy(self) -> None:
        """Remove what saves left that did not end; only one process of a run saves."""
        for path in self.folder.glob(_PARTIAL):
            shutil.rmtree(path, ignore_errors=True)

    def _settle(self) -> None:
        """Remove what a save left that failed, until the threads of tensorstore add nothing to it any more."""
        end = time.monotonic() + _SETTLE_SECONDS
        while time.monotonic() < end:
            self._tidy()
            time.sleep(0.5)
            if not any(self.folder.glob(_PARTIAL)):
                return

    def _check_room(self, step: int, need: int) -> None:
        """Refuse before anything is written, as Orbax does so in a hundred lines; a quota it only sees then."""
        there = next(path for path in (self.folder, *self.folder.parents) if path.is_dir())
        free = shutil.disk_usage(there).free
        if free < need:
            what = f"it takes {need / 1e6:.1f} MB and the disk has {free / 1e6:.1f} MB left"
            raise CheckpointError(f"cannot save step {step} to {self.folder}: {what}; {_REMEDY}")

    def _choose(self, step: int | None) -> int:
        if not self.folder.is_dir():
            raise CheckpointError(f"no checkpoint folder at {self.folder}")
        steps = self.steps()
        if not steps:
            raise CheckpointError(f"no checkpoint in {self.folder}")
        if step is not None and step not in steps:
            raise CheckpointError(f"no checkpoint of step {step} in {self.folder}; there are {steps}")
        return steps[-1] if step is None else step

    def _read(self, step: int, item: str, args: Any) -> Any:
        try:
            with _quiet():
                return self._open().restore(step, args=ocp.args.Composite(**{item: args}))[item]
        except Exception as error:  # Orbax and tensorstore raise many types
            where = f"checkpoint {step} in {self.folder}"
            if _refused(error):
                raise CheckpointError(f"{where} cannot be read: {first_line(error)[:200]}") from error
            raise DamagedCheckpointError(f"{where} is damaged: {first_line(error)[:200]}") from error

    def _compare(self, step: int, there: Mapping[str, str], here: Mapping[str, str]) -> None:
        for name in sorted(there.keys() | here.keys()):
            if there.get(name) != here.get(name):
                difference = f"{name} is {there.get(name, 'absent')} there and {here.get(name, 'absent')} here"
                raise CheckpointError(f"checkpoint {step} in {self.folder} is of another model: {difference}")


def _flatten(state: TrainState) -> dict[str, Any]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _shapes(arrays: Mapping[str, Any]) -> dict[str, str]:
    return {name: f"{x.dtype}{list(x.shape)}" for name, x in arrays.items()}


def _checksums(arrays: Mapping[str, Any]) -> dict[str, int]:
    return {name: zlib.crc32(np.ascontiguousarray(x)) for name, x in arrays.items()}


def _refused(error: BaseException) -> bool:
    """Whether the system did not let a file be read, which says nothing about the file."""
    missing = isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError)
    refused = isinstance(error, OSError | MemoryError) and not missing
    return refused or any(word in str(error) for word in _NOT_READ)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep from the terminal what Orbax and the threads of tensorstore write about an error that is raised as well."""
    logger, hook = logging.getLogger("absl"), sys.unraisablehook
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    sys.unraisablehook = lambda *_: None
    try:
        yield
    finally:
        logger.setLevel(level)
        sys.unraisablehook = hook
