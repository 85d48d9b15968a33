"""Where a simulated observation is written: measurement set, catalogue and parameters appear together, or not at all.

All are made in a hidden folder beside the target. The parameters and the measurement set carry the same random name,
so that what is left of an interrupted move is told from what belongs together.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vis2img.errors import OutputError
from vis2img.files import publish, recover
from vis2img.locks import claimed
from vis2img.ms.tables import table
from vis2img.simulate.config import SimulateConfig

ID_KEYWORD = "VIS2IMG_ID"  # of the main table


@dataclass(frozen=True)
class SimulationResult:
    """What was written: the measurement set, the true sky and the parameters (JSON)."""

    ms_path: Path
    catalogue_path: Path
    parameters_path: Path

    @classmethod
    def at(cls, out: Path) -> SimulationResult:
        """Return the paths that belong to a target."""
        return cls(out, *(out.with_name(f"{out.name}.truth.{kind}") for kind in ("fits", "json")))

    @property
    def in_order(self) -> tuple[Path, ...]:
        """All of them, the measurement set last: when it is in its place, so are the others."""
        return (*self.truth, self.ms_path)

    @property
    def truth(self) -> tuple[Path, Path]:
        """The files beside the measurement set."""
        return self.catalogue_path, self.parameters_path


def is_done(config: SimulateConfig) -> bool:
    """Whether the measurement set with its truth is there, of one run and made with these values."""
    paths = SimulationResult.at(config.out)
    if not (is_measurement_set(paths.ms_path) and paths.catalogue_path.is_file()):
        return False
    values = _parameters(paths)
    there = values.get("config")
    # An older version knew fewer parameters: what it made has the defaults of the others.
    defaults, wanted = (json.loads(json.dumps(one.record())) for one in (SimulateConfig(out=config.out), config))
    if not isinstance(there, dict) or {**defaults, **there} != wanted:
        return False
    try:
        with table(str(paths.ms_path), ack=False) as main:
            return ID_KEYWORD in main.keywordnames() and main.getkeyword(ID_KEYWORD) == values.get("id")
    except RuntimeError:  # a damaged table
        return False


def _parameters(paths: SimulationResult) -> dict[str, Any]:
    try:
        values = json.loads(paths.parameters_path.read_text())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def check_targets(out: Path, overwrite: bool) -> SimulationResult:
    """Return the paths to write, after a look at what is there already and what a killed run left half moved.

    Truth without a measurement set, as an interrupted run leaves it, is replaced.

    Raises
    ------
    OutputError
        If something is there that is not to be replaced, or the folder is not there.
    """
    if not out.name:
        raise OutputError(f"{out} is no name for a measurement set; write for example {out / 'field.ms'}")
    result = SimulationResult.at(out)
    if not out.parent.is_dir():
        raise OutputError(f"the folder {out.parent} for {out.name} does not exist")
    with claimed(out) as free:
        if free:
            recover(result.in_order)
    there = [path for path in (out, *result.truth) if path.exists() or path.is_symlink()]
    left_over = out not in there and {"config", "id"} <= _parameters(result).keys()
    if there and not overwrite and not left_over:
        raise OutputError(f"{there[0]} exists already; use --overwrite to replace it")
    empty = out.is_dir() and not any(out.iterdir())
    if out.is_symlink() or (out.exists() and not empty and not is_measurement_set(out)):
        raise OutputError(f"{out} is not a measurement set, so it is not overwritten; choose another name")
    wrong = [path for path in result.truth if path.is_dir()]
    if wrong:
        raise OutputError(f"{wrong[0]} is a folder, so it is not overwritten; choose another name")
    return result


def is_measurement_set(path: Path) -> bool:
    """Whether ``path`` looks like a measurement set, and so may be removed on request."""
    info = path / "table.info"
    if not (info.is_file() and (path / "table.dat").is_file()):
        return False
    return "Measurement Set" in info.read_text(errors="replace").partition("\n")[0]


def put_in_place(new: SimulationResult, final: SimulationResult, overwrite: bool) -> None:
    """Move finished files to their places: the old measurement set away first, the new one last.

    Call this under :func:`vis2img.locks.locked`.

    Raises
    ------
    OutputError
        If something has appeared there since, or a file cannot be moved; what was there is put back.
    """
    check_targets(final.ms_path, overwrite)
    publish(list(zip(new.in_order, final.in_order, strict=True)), overwrite)
