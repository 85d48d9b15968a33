"""Steps that JAX has started: how many at a time, and what becomes of them when the run is to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from vis2img.train.run import under_way
from vis2img.train.run.stopping import ABANDONED, Stopped, StopRequest
from vis2img.train.run.under_way import Taken, UnderWay


class Leaf:
    """An array that is ready when it is told; of JAX's, a callback that waits would lock the test."""

    def __init__(self) -> None:
        self.told = threading.Event()

    def is_ready(self) -> bool:
        return self.told.is_set()

    def block_until_ready(self) -> Leaf:
        self.told.wait(60)
        return self


class Device:
    """Steps, each under way until it is let go."""

    def __init__(self) -> None:
        self.leaves = [Leaf() for _ in range(4)]

    def let_go(self, number: int) -> None:
        self.leaves[number].told.set()

    def take(self, before: Taken) -> Taken:
        step = before.step + 1
        state: Any = before.state + 1
        metrics: Any = {"loss": self.leaves[step - 1]}
        return Taken(step, state, metrics, {"batches": step})


@pytest.fixture
def device() -> Iterator[Device]:
    made = Device()
    yield made
    for number in range(4):
        made.let_go(number)
    _until(lambda: not any(thread.name == ABANDONED for thread in threading.enumerate()))


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _steps(stop: StopRequest, **changes: bool) -> UnderWay:
    state: Any = 0
    start = Taken(0, state, {}, {"batches": 0})
    return UnderWay(start, stop, **{"together": False, "keeps_states": True, **changes})


def test_short_steps_are_few_at_a_time(device: Device, monkeypatch) -> None:
    monkeypatch.setattr(under_way, "_MOST", 1)
    steps, begun = _steps(StopRequest()), []
    device.let_go(0)
    steps.begin(device.take)
    steps.finish()  # at once, so steps are short

    def run() -> None:
        for _ in range(3):
            begun.append(steps.begin(device.take).step)

    thread = threading.Thread(target=run)
    thread.start()
    _until(lambda: begun == [2, 3])
    time.sleep(0.1)
    assert begun == [2, 3] and steps.last.step == 1
    device.let_go(1)
    _until(lambda: begun == [2, 3, 4])
    for number in (2, 3):
        device.let_go(number)
    thread.join()
    steps.finish()
    assert steps.last.step == 4 and steps.last.loader == {"batches": 4} and steps.last.state == 4


def test_long_steps_are_one_at_a_time(device: Device, monkeypatch) -> None:
    monkeypatch.setattr(under_way, "_LONG", 0.0)
    steps, begun = _steps(StopRequest()), []

    def run() -> None:
        for _ in range(2):
            begun.append(steps.begin(device.take).step)

    thread = threading.Thread(target=run)
    thread.start()
    _until(lambda: begun == [1])
    time.sleep(0.1)
    assert begun == [1]
    device.let_go(0)
    thread.join()
    assert begun == [1, 2]


@pytest.mark.parametrize("ends_in_time", [True, False])
def test_a_step_under_way_has_a_moment_to_finish(device: Device, monkeypatch, ends_in_time: bool) -> None:
    monkeypatch.setattr(under_way, "_GRACE", 30.0 if ends_in_time else 0.1)
    stop = StopRequest()
    steps = _steps(stop)
    device.let_go(0)
    steps.begin(device.take)
    steps.finish()
    steps.begin(device.take)
    threading.Timer(0.2, lambda: setattr(stop, "pending", True)).start()
    with pytest.raises(Stopped):
        steps.finish()
    if ends_in_time:
        device.let_go(1)
    steps.settle()
    reached = 2 if ends_in_time else 1
    assert steps.last.step == reached and steps.last.state == reached
    left = any(thread.name == ABANDONED for thread in threading.enumerate())
    assert left == (not ends_in_time)


def test_where_states_are_given_away_the_step_under_way_is_waited_for(device: Device, monkeypatch) -> None:
    monkeypatch.setattr(under_way, "_GRACE", 0.0)
    steps = _steps(StopRequest(), keeps_states=False)
    steps.begin(device.take)
    threading.Timer(0.3, lambda: device.let_go(0)).start()
    steps.settle()
    assert steps.last.step == 1
