"""Progress of long work on stderr: rich bars on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

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
        console = Console(stderr=True)
        self._live = not quiet and console.is_terminal
        self._plain = not quiet and not brief and not console.is_terminal
        self._tasks: dict[str, TaskID] = {}
        self._printed: dict[str, float] = {}
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not self._live,
            transient=brief,
        )

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Show ``done`` of ``total`` on the bar of a stage."""
        if self._live:
            if stage not in self._tasks:
                self._tasks[stage] = self._progress.add_task(stage, total=total, note=note)
            self._progress.update(self._tasks[stage], completed=done, total=total, note=note)
        elif self._plain:
            now = time.monotonic()
            if done >= total or now - self._printed.get(stage, 0.0) > _LINE_EVERY:
                self._printed[stage] = now
                print(f"{stage}: {done}/{total} {note}".rstrip(), file=sys.stderr, flush=True)
