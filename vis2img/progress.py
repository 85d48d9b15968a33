"""How long work tells how far it has come."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """What is called with the stage of the work, how much of that is done, of how much in all, and perhaps a remark."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None: ...


def no_progress(stage: str, done: int, total: int, note: str = "") -> None:
    """Show nothing."""


def renamed(progress: Progress, name: str) -> Progress:
    """Return progress whose stages are called ``name``, in which ``{}`` stands for what they are called otherwise."""
    return lambda stage, done, total, note="": progress(name.format(stage), done, total, note)
