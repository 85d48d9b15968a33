"""Progress of long work on stderr: rich bars on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import math
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_LINE_EVERY = 20.0  # s between plain lines where there is no terminal


# Of a training step, in this order; an objective, or a step, need not have all.
_SHOWN = {
    "loss": "loss {:.3f}",
    "entropy": "entropy {:.2f}",
    "rankme": "rank {:.1f}",
    "samples_per_s": "{:.3g} samples/s",
    "mfu": "MFU {:.0%}",
    "input_wait": "wait {:.0%}",
    "draw_age": "draws {:.0f} s old",
}


class Bars:
    """Named bars that appear when first updated.

    Parameters
    ----------
    quiet : bool
        Show nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        console = Console(stderr=True)
        self._live = not quiet and console.is_terminal
        self._plain = not quiet and not console.is_terminal
        self._tasks: dict[str, TaskID] = {}
        self._printed: dict[str, float] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not self._live,
        )

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, name: str, done: int, total: int, note: str = "") -> None:
        """Show ``done`` of ``total`` on the bar ``name``."""
        if self._live:
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task(name, total=total, note=note)
            self._progress.update(self._tasks[name], completed=done, total=total, note=note)
        elif self._plain:
            now = time.monotonic()
            if done >= total or now - self._printed.get(name, 0.0) > _LINE_EVERY:
                self._printed[name] = now
                print(f"{name}: {done}/{total} {note}".rstrip(), file=sys.stderr, flush=True)


class TrainingProgress(Bars):
    """The bars of a training run."""

    def __enter__(self) -> TrainingProgress:
        super().__enter__()
        return self

    def fill(self, done: int, total: int) -> None:
        """Draws made while the pool fills."""
        self.update("imaging", done, total, "the first step compiles now, which takes a while" if done == total else "")

    def step(self, step: int, steps: int, metrics: dict[str, float]) -> None:
        """Steps taken, with what there is of loss, collapse, speed, use of the hardware, and age of the draws."""
        note = "  ".join(text.format(metrics[name]) for name, text in _SHOWN.items() if _known(metrics.get(name)))
        self.update("training", step, steps, note)


def _known(value: float | None) -> bool:
    return value is not None and not math.isnan(value)
