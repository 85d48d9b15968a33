"""The folder of a store while it is written: beside its place, under a lock, moved there when it is whole.

    locked(out) -> prepare -> OUT.partial, block by block -> publish -> OUT

OUT.partial is what a run has so far, and the same command goes on with it; the rest is :mod:`vis2img.files`. So OUT is
whole whenever it is there, and one that is being replaced stays until its successor is complete.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vis2img.averaging.store import FORMAT, STAGE, attributes_of, block_trouble, blocks_of, new_group, partial_path
from vis2img.errors import OutputError
from vis2img.files import discard, recover, remove_left_over, staging

# What must be the same for a run to go on with the blocks of another.
_SAME = ("format", "version", "source", "selection", "parameters", "chan_freq", "edges", "meta")


def prepare(out: Path, record: dict[str, Any], overwrite: bool) -> Path:
    """Return the folder to write blocks into, or ``out`` itself if it is there, whole, and the same.

    Call this under :func:`vis2img.files.locked`. Nothing of ``out`` is lost, whatever happens next.

    Parameters
    ----------
    out : Path
    record : dict
        Root attributes of the store.
    overwrite : bool
        Whether stores of other data or parameters may be replaced, and what killed runs left of them deleted.

    Raises
    ------
    OutputError
        If something else is in the place of ``out``, or a store of other data or parameters without ``overwrite``.
    """
    recover([out])
    remove_left_over(out, alone=True)
    partial = partial_path(out)
    for path in (out, partial):
        _check_ours(path)
    if out.exists():
        differs = _differences(attributes_of(out), record)
        if differs and not overwrite:
            raise OutputError(f"{out} was made with another {', '.join(differs)}; use --overwrite or another name")
        if not differs:
            if not any(block_trouble(path) for path in blocks_of(out, record)):
                return out
            discard(partial, out)
            out.rename(partial)
    if partial.exists():
        differs = _differences(attributes_of(partial), record)
        if differs and not overwrite:
            raise OutputError(
                f"{partial} is left from a run with another {', '.join(differs)}; "
                "use --overwrite to delete it, or another name"
            )
        if differs:
            discard(partial, out)
    if partial.exists():
        bad = [path for path in blocks_of(partial, record) if path.exists() and block_trouble(path)]
        for path in [*partial.glob(f"{STAGE}*"), *bad]:
            discard(path, out)
    else:
        _create(partial, out, record)
    return partial


def _create(partial: Path, out: Path, record: dict[str, Any]) -> None:
    try:
        with staging(out, alone=True) as aside:
            new_group(aside / partial.name, attributes=record)
            (aside / partial.name).rename(partial)
    except OSError as error:
        raise OutputError(f"cannot write {partial}: {error.strerror}") from error


def _check_ours(path: Path) -> None:
    """Refuse to touch what is not a store of averages."""
    ours = not path.exists() or ((path / "zarr.json").is_file() and attributes_of(path).get("format") == FORMAT)
    if path.is_symlink() or not ours:
        raise OutputError(f"{path} is not a store of averaged visibilities; choose another name")


def _differences(there: dict[str, Any], record: dict[str, Any]) -> list[str]:
    """Return the names of what is not the same in two root attributes."""
    found = []
    for name in _SAME:
        old, new = there.get(name), record[name]
        if name == "meta" and isinstance(old, dict):  # stores of earlier versions tell less of where they come from
            new = {key: value for key, value in new.items() if key in old}
        if _text(old) != _text(new):
            parts = [name]
            if isinstance(old, dict) and isinstance(new, dict):
                parts = [f"{name} {key}" for key in new if _text(old.get(key)) != _text(new[key])] or parts
            found += parts
    return found


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)  # NaN is the same as NaN
