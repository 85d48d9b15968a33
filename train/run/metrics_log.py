"""What a run reports about itself: ``metrics.jsonl``, a line a step, and the same curves for TensorBoard.

The lines are the record: they are written first, and read back by `read_metrics`. The event files under
``tensorboard/`` are for watching; if they cannot be written the run goes on without them.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vis2img.errors import OutputError, Vis2imgError
from vis2img.files import write_text

if TYPE_CHECKING:
    from vis2img.train.run.event_file import EventFile

LINES, EVENTS = "metrics.jsonl", "tensorboard"
GROUPS = {
    "loss": (
        *("loss", "accuracy", "same_sky", "kl", "koleo", "ibot", "nuisance", "grad_norm"),
        *("invariance", "variance", "covariance", "coding_rate", "sigreg"),
    ),
    "collapse": ("entropy", "usage", "prototypes", "feature_std", "rankme", "finite"),
    "schedule": ("lr", "wd", "momentum", "teacher_temp"),
    "speed": ("samples_per_s", "mfu", "input_wait", "fresh_draws", "draw_age", "draw_reuse"),
}
_GROUP = {name: group for group, names in GROUPS.items() for name in names}
_FULL = (errno.ENOSPC, errno.EDQUOT)

Row = Mapping[str, Any]

# Of a training step, in this order.
_SHOWN = {
    "loss": "loss {:.3f}",
    "accuracy": "accuracy {:.2f}",
    "entropy": "entropy {:.2f}",
    "rankme": "rank {:.1f}",
    "samples_per_s": "{:.3g} samples/s",
    "mfu": "MFU {:.0%}",
    "input_wait": "wait {:.0%}",
    "draw_age": "draws {:.0f} s old",
}


class MetricsLog:
    """Writes the metrics of a run; a context manager.

    Parameters
    ----------
    folder : Path
        Of the run; it must exist.
    start_step : int
        Step that the run goes on from. Lines of later steps, of which its checkpoint knows nothing, are dropped, and
        so are lines that are not whole.

    Attributes
    ----------
    problem : str or None
        Why there are no curves for TensorBoard, in one line; none: there are.

    Raises
    ------
    OutputError
        If the lines cannot be written; the message names the file and the remedy.
    """

    def __init__(self, folder: Path, *, start_step: int) -> None:
        self._path, self._folder = folder / LINES, folder / EVENTS
        self._start_step = start_step
        self._events: EventFile | None = None
        self.problem: str | None = None
        self._cut()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, rows: Sequence[Row]) -> None:
        """Append rows, each with its "step"; values that are not finite become null.

        Raises
        ------
        OutputError
            If the lines cannot be written.
        """
        text = "".join(json.dumps({name: _plain(value) for name, value in row.items()}) + "\n" for row in rows)
        try:
            with self._path.open("a") as file:
                file.write(text)
        except OSError as error:
            raise _refused(self._path, error) from error

        def show(events: EventFile) -> None:
            for row in rows:
                events.scalars(int(row["step"]), _tagged(row))

        self._watch(show)

    def image(self, tag: str, array: np.ndarray, step: int) -> None:
        """Show a picture (y, x, 1, 3 or 4) in TensorBoard: uint8, or floats from 0 to 1."""
        self._watch(lambda events: events.image(step, tag, array))

    def close(self) -> None:
        """Write what is left; nothing can be written afterwards."""
        events, self._events = self._events, None
        if events:
            try:
                events.close()
            except OSError as error:
                self._give_up(error)

    def _cut(self) -> None:
        """Drop lines of steps after the start, so that a resumed run has each step once."""
        if not self._path.exists():
            return
        try:
            lines = self._path.read_text(errors="replace").splitlines(keepends=True)
            earlier = [text for text in lines if text.endswith("\n") and self._is_before(_parsed(text))]
            if earlier != lines:
                write_text(self._path, "".join(earlier))
        except (OSError, OutputError) as error:
            raise _refused(self._path, error) from error

    def _is_before(self, row: dict[str, Any] | None) -> bool:
        return row is not None and row["step"] <= self._start_step

    def _watch(self, action: Callable[[EventFile], None]) -> None:
        """Do something with the event file, unless it has failed before; a failure is noted and not passed on."""
        if self.problem is not None:
            return
        try:
            if self._events is None:
                from vis2img.train.run.event_file import EventFile  # loads tensorboardX

                # From here on TensorBoard hides steps that an earlier part of the run wrote and lost.
                self._events = EventFile(self._folder, purge_step=self._start_step + 1)
            action(self._events)
        except (OSError, ImportError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        events, self._events = self._events, None
        if events:
            # Half a record may be on the disk, and what came after it could not be read.
            with contextlib.suppress(OSError):
                events.close()
        self.problem = f"{_reason(self._folder, error)}; the run goes on without TensorBoard, {LINES} has everything"


def read_metrics(folder: str | Path) -> dict[str, np.ndarray]:
    """Return the metrics of a run by name, one value a step; NaN where a step has none.

    Lines that are not whole, as of a run that was killed or is being written, are left out.

    Raises
    ------
    Vis2imgError
        If there are no metrics.
    """
    path = Path(folder) / LINES
    try:
        lines = path.read_text(errors="replace").splitlines()
    except FileNotFoundError as error:
        raise Vis2imgError(f"{folder} holds no metrics: {LINES} is missing") from error
    rows = [row for row in map(_parsed, lines) if row is not None]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([_number(row.get(name)) for row in rows]) for name in names}


def _parsed(line: str) -> dict[str, Any] | None:
    """Row of a line, or None if the line is not whole."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and "step" in row else None


def _number(value: Any) -> Any:
    return math.nan if value is None else value


def _plain(value: Any) -> Any:
    """Value as JSON knows it, which has no NaN."""
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, np.integer):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None


def _tagged(row: Row) -> dict[str, float]:
    """Values that there are, under the tags of their groups."""
    named = {name: float(value) for name, value in row.items() if name != "step" and value is not None}
    return {f"{_GROUP.get(name, 'other')}/{name}": value for name, value in named.items()}


def _reason(path: Path, error: Exception) -> str:
    return f"{path} cannot be written: {getattr(error, 'strerror', None) or error}"


def _refused(path: Path, error: OSError | OutputError) -> OutputError:
    reason = str(error) if isinstance(error, OutputError) else _reason(path, error)
    if getattr(error.__cause__ or error, "errno", None) in _FULL:
        remedy = "free some space and give the same command again, which goes on from the last checkpoint"
    else:
        remedy = "check that the folder is there and may be written to, then give the same command again"
    return OutputError(f"{reason}; {remedy}")


def metrics_note(metrics: Mapping[str, float]) -> str:
    """Return what a line of progress shows of the metrics of a step; an objective, or a step, need not have all."""
    there = {name: metrics.get(name, math.nan) for name in _SHOWN}
    return "  ".join(_SHOWN[name].format(value) for name, value in there.items() if not math.isnan(value))
