"""Damaged inputs through the real command line: what a kind of input is, how one is run, and what is a fault.

To add a kind, write a function that damages an input in an empty folder and says what to run on it, and name its
module in ``MODULES``::

    @kind(share=2)
    def cut_short(rng: np.random.Generator, folder: Path) -> Case:
        path = folder / "table.parquet"
        path.write_bytes(good_table()[: rng.integers(1000)])
        return Case(("evaluate", path, "-o", folder / "out" / "scores"), (path,), "cut short")

``good_table`` is made once for each process: ``functools.cache``, in a folder from :func:`scratch`. All that is random
comes from ``rng``, so that a number of the run tells the input. What the command writes goes below ``folder / "out"``,
which is there and must be empty after an error. The first word of ``argv`` is a command of ``vis2img``; modules that
are slow to import go to ``server.WARM``.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.fuzz.server import Run, Server
from tests.helpers.command_line import fingerprint

MODULES = ("measurement_sets", "averaged_stores", "configurations", "weights", "pickles", "tables", "images")
LIMIT_BYTES = 1 << 30  # more than the process had before it opened the input
LIMIT_S = 30.0  # healthy runs take a second, with other work on the machine


@dataclass(frozen=True)
class Case:
    """A damaged input: the command line (after ``vis2img``), what must stay as it is, and what was done to it."""

    argv: tuple[object, ...]
    inputs: tuple[Path, ...]
    what: str
    judge: Callable[[Path], str | None] | None = None
    """Called with the folder of outputs after success: the fault of them, or None."""


_Make = Callable[[np.random.Generator, Path], Case]


@dataclass(frozen=True)
class Kind:
    """A way to damage an input; ``share`` says how often it is drawn, against the others."""

    name: str
    make: _Make
    share: float = 1.0


@dataclass(frozen=True)
class Verdict:
    """What became of an input: ``outcome`` is done, refused, or the name of a fault."""

    number: int
    kind: str
    what: str
    outcome: str
    words: str
    seconds: float

    @property
    def faulty(self) -> bool:
        """Whether anything went wrong in a way that is not told in one line."""
        return self.outcome not in ("done", "refused")


_KINDS: list[Kind] = []


def kind(share: float = 1.0) -> Callable[[_Make], _Make]:
    """Register a function as the kind ``name of the module: name of the function``."""

    def register(make: _Make) -> _Make:
        room = make.__module__.rpartition(".")[2]
        _KINDS.append(Kind(f"{room}: {make.__name__}".replace("_", " "), make, share))
        return make

    return register


@functools.cache
def kinds() -> tuple[Kind, ...]:
    """Return all kinds, in the order of ``MODULES``."""
    for name in MODULES:
        importlib.import_module(f"tests.fuzz.{name}")
    return tuple(_KINDS)


def scratch() -> Path:
    """Return a new folder that goes when the process ends, for inputs that are made once."""
    folder = Path(tempfile.mkdtemp(prefix="vis2img-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def try_one(server: Server, seed: int, number: int, folder: Path, only: str = "") -> Verdict:
    """Make input ``number`` of the run ``seed`` in ``folder``, run it, and judge.

    Parameters
    ----------
    only : str
        Draw among the kinds whose name begins so.
    """
    rng = np.random.default_rng([seed, number])
    choice = [each for each in kinds() if each.name.startswith(only)]
    shares = np.array([each.share for each in choice])
    chosen = choice[rng.choice(len(choice), p=shares / shares.sum())]
    out = folder / "out"
    out.mkdir(parents=True)
    case = chosen.make(rng, folder)
    before = [fingerprint(path) for path in case.inputs]
    run = server.run([str(arg) for arg in case.argv], folder, LIMIT_BYTES, LIMIT_S)
    outcome = judge(run, out)
    if outcome == "done" and case.judge is not None:
        outcome = case.judge(out) or outcome
    if [fingerprint(path) for path in case.inputs] != before:
        outcome = "input changed"
    argv = " ".join(str(arg).replace(f"{folder}/", "") for arg in case.argv)
    words = (run.err.strip().splitlines() or [""])[-1]
    return Verdict(number, chosen.name, f"{case.what}: {argv}", outcome, words, run.seconds)


def judge(run: Run, out: Path) -> str:
    """Return what became of a run: done, refused, or a fault."""
    lines = run.err.splitlines()
    errors = [line for line in lines if not line.startswith("vis2img: warning: ")]
    left = sorted(path.name for path in out.rglob("*"))
    if run.stopped:
        return run.stopped
    if run.code < 0:
        return f"killed by signal {-run.code}"
    if "Traceback (most recent call last)" in run.err:
        return "traceback"
    if "this is a bug" in run.err:
        return "called a bug"
    if "not enough memory; choose" in run.err:
        return "asks for all memory"
    if any(name.startswith(".") or "partial" in name for name in left):
        return "half an output"
    if run.code == 0:
        return "done" if not errors else "words of libraries"
    if len(errors) != 1 or not errors[0].startswith("vis2img: error: "):
        return "not one line"
    return "half an output" if left else "refused"
