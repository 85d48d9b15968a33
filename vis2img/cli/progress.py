"""Progress of long work on stderr: rich bars on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from vis2img.errors import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_LINE_EVERY = 20.0  # s between plain lines where there is no terminal


class Bars:
    """A bar for each stage of the work, which appears when it begins: a :class:`vis2img.progress.Progress`.

    Parameters
    ----------
    quiet : bool
        Show nothing.
    brief : bool
        Whether the work takes seconds: bars go away at its end, and there are no plain lines.
    """

    def __init__(self, quiet: bool = False, *, brief: bool = False) -> None:
        self._plain = not quiet and not brief and not sys.stderr.isatty()
        self._tasks: dict[str, TaskID] = {}
        self._printed: dict[str, float] = {}
        self._bars = None if quiet or not sys.stderr.isatty() else _rich_bars(transient=brief)

    def __enter__(self) -> Bars:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Show ``done`` of ``total`` on the bar of a stage."""
        if self._bars:
            if stage not in self._tasks:
                self._tasks[stage] = self._bars.add_task(stage, total=total, note=note)
            self._bars.update(self._tasks[stage], completed=done, total=total, note=note)
        elif self._plain:
            now = time.monotonic()
            if done >= total or now - self._printed.get(stage, 0.0) > _LINE_EVERY:
                self._printed[stage] = now
                print(printable(f"{stage}: {done}/{total} {note}".rstrip()), file=sys.stderr, flush=True)


def _rich_bars(transient: bool) -> Progress:
    from rich import console, progress

    return progress.Progress(
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[note]}", markup=False),
        console=console.Console(stderr=True),
        transient=transient,
    )
