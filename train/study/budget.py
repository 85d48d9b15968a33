"""How many steps an arm gets in a budget of time: measured once by steps as those of its runs, and then the same for
all seeds and starts.

What is measured is the time of steps that follow each other: batches of the real loader, draws that are replaced,
metrics that are read. Starting, compiling and filling the pool are none of it, as they do not grow with a run.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from vis2img.configs.load import read_config
from vis2img.errors import OutputError
from vis2img.files import write_text
from vis2img.progress import Progress
from vis2img.train.run.config import TrainConfig
from vis2img.train.run.run import train
from vis2img.train.run.stopping import StopRequest

_SHARE = 0.05  # of the budget that measuring may take, if so many steps as it needs are not more
_ENDLESS = 10_000_000  # steps


@dataclass(frozen=True)
class Pace:
    """What was measured of an arm: the steps that its runs get, how long one took, and of how many that is the mean."""

    steps: int
    step_seconds: float
    of: int

    def write(self, path: Path) -> None:
        """Write it whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, yaml.safe_dump(vars(self), sort_keys=False))

    @classmethod
    def read(cls, path: Path) -> Pace:
        """Return what :meth:`write` wrote.

        Raises
        ------
        OutputError
            If the file holds something else.
        """
        record = read_config(path)
        try:
            return cls(int(record["steps"]), float(record["step_seconds"]), int(record["of"]))
        except (KeyError, TypeError, ValueError) as error:
            raise OutputError(f"{path} is not as a study wrote it; delete it, and it is measured again") from error


class _Clock:
    """Progress that times the steps behind the first few, and asks for an end when it has seen enough."""

    def __init__(self, tell: Progress, stop: StopRequest, seconds: float, steps: int) -> None:
        self.tell, self.stop, self.seconds, self.steps = tell, stop, seconds, steps
        self.first: tuple[float, int] | None = None
        self.timed: tuple[float, int] | None = None
        """Seconds, and the steps that they took."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        if stage != "training":
            return self.tell(stage, done, total, note)
        now = time.perf_counter()
        if self.first is None:  # compiled, and the batches cut in advance are used up
            self.first = now, done
            return None
        took, steps = now - self.first[0], done - self.first[1]
        self.tell("steps timed", min(steps, self.steps), self.steps, note)
        if took >= self.seconds and steps >= self.steps and self.timed is None:
            self.timed = took, steps
            self.stop.pending = True
        return None


def measure(config: TrainConfig, budget: float, tell: Progress) -> Pace | None:
    """Take some steps of a run, and return how many of them a budget has room for; None: asked to stop.

    Parameters
    ----------
    config : TrainConfig
        The run. Its folder is used, and is gone afterwards.
    budget : float
        Time of a run, s.
    tell : callable
        Told of the stages.
    """
    folder = Path(config.out)
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed here
    timed = replace(config, steps=_ENDLESS, checkpoint_every=_ENDLESS, views_every=_ENDLESS)
    # Long enough for draws to be replaced as often as they are later.
    least = max(config.log_every, config.data.refresh_every)
    with StopRequest().listening() as stop:
        clock = _Clock(tell, stop, _SHARE * budget, least)
        train(timed, progress=clock, stop=stop)
    shutil.rmtree(folder, ignore_errors=True)
    if clock.timed is None:
        return None
    seconds, steps = clock.timed
    pace = seconds / steps
    return Pace(max(2, int(budget / pace)), round(pace, 6), steps)
