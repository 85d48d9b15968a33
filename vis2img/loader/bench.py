"""Measure a loader: what it makes, delivers and reads, what memory it takes, and how long a consumer waits for it."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from vis2img.errors import ParameterError
from vis2img.files import atomic_output
from vis2img.loader.config import LoaderConfig
from vis2img.loader.draw_source import DrawSource, cut_batch
from vis2img.loader.loader import Loader
from vis2img.progress import Progress, no_progress

_CUT_SECONDS = 2.0


@dataclass
class Series:
    """What was seen once a second: time [s], memory [bytes] of the loader and of its workers, draws taken in, wait."""

    time: list[float] = field(default_factory=list)
    loader_bytes: list[int] = field(default_factory=list)
    worker_bytes: list[int] = field(default_factory=list)
    fresh_draws: list[float] = field(default_factory=list)
    input_wait: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Figures:
    """The figures of a run; rates are per second of the time after the pool was full."""

    seconds: float
    fill_seconds: float
    """From the start of the first draw until the pool was full."""
    pool_draws: int
    pool_bytes: int
    fields: int
    workers: int
    views_per_draw: float
    """Patches that lie beside each other in what a draw shows, within the primary beam."""
    fresh_draws: float
    """Draws per second."""
    fresh_views: float
    """Views per second that show a patch under parameters that no view had before: draws times patches."""
    delivered_views: float
    """Views per second that the consumer took."""
    cut_views: float
    """Views per second of processor time of one cutting thread, from the full pool."""
    read_bytes: float
    """Bytes per second that workers read, from disk or the page cache."""
    input_wait: float
    """Share of the time that the consumer waited."""
    draw_age: float
    """Seconds that a draw is in the pool."""
    draw_reuse: float
    """Views that are cut from a draw before it is replaced."""
    repeated_draws: int
    """Draws whose worker died."""
    most_bytes: int
    """Most memory of loader and workers of this machine together; shared memory counts once."""
    unused: dict[str, str]
    dashboard: str | None
    series: Series


def measure(
    config: LoaderConfig,
    *,
    seconds: float = 60.0,
    rate: float = 300.0,
    seed: int = 0,
    progress: Progress = no_progress,
    on_open: Callable[[Loader], None] | None = None,
) -> Figures:
    """Run a loader of fields before a consumer that sleeps as long as a training step would take.

    Parameters
    ----------
    config : LoaderConfig
    seconds : float
        How long, after the pool is full.
    rate : float
        Samples per second that the consumer takes; 0: as fast as they come.
    seed : int
    progress : callable, optional
        Called with (stage, done, total, note).
    on_open : callable, optional
        Called with the loader when it is open.

    Raises
    ------
    Vis2imgError
        As :class:`vis2img.loader.loader.Loader`.
    """
    if config.cutouts:
        raise ParameterError("cutouts need no workers: there is nothing to image, and nothing to measure")
    start = time.perf_counter()
    with Loader(config, seed, progress=progress) as loader:
        if on_open:
            on_open(loader)
        with _watch(loader, start) as series:
            figures = _figures(loader, seconds, rate, progress)
    series_bytes = map(sum, zip(series.loader_bytes, series.worker_bytes, strict=True))
    return Figures(**figures, most_bytes=max(series_bytes, default=0), series=series)


def _figures(loader: Loader, seconds: float, rate: float, progress: Progress) -> dict[str, Any]:
    """Fill the pool, run the consumer, and return the figures by their names."""
    start = time.perf_counter()
    loader.next_batch()
    full = time.perf_counter()
    before = loader.report()
    batches = _consume(loader, seconds, rate, progress)
    elapsed, after = time.perf_counter() - full, loader.report()
    change = {name: (after[name] - before[name]) / elapsed for name in after}

    source, config = loader.source, loader.config
    assert isinstance(source, DrawSource)
    cut_views = _cutting(source)
    draws = [entry.draw for entry in source.pool.entries]
    per_draw = sum(_patches(source, draw.field) for draw in draws) / len(draws)
    return {
        "seconds": elapsed,
        "fill_seconds": full - start,
        "pool_draws": len(draws),
        "pool_bytes": sum(draw.data.nbytes for draw in draws),
        "fields": len(source.fields),
        "workers": len(source.pool.requests.client.nthreads()),
        "views_per_draw": per_draw,
        "fresh_draws": change["fresh_draws"],
        "fresh_views": change["fresh_draws"] * per_draw,
        "delivered_views": batches * config.batch_size * config.views.n_views / elapsed,
        "cut_views": cut_views,
        "read_bytes": change["bytes_read"],
        "input_wait": change["input_wait"],
        "draw_age": after["draw_age"],
        "draw_reuse": after["draw_reuse"],
        "repeated_draws": int(after["repeated_draws"]),
        "unused": loader.unused(),
        "dashboard": source.dashboard_link,
    }


def _consume(loader: Loader, seconds: float, rate: float, progress: Progress) -> int:
    """Take batches for some time, sleeping a step after each; return how many."""
    step = loader.config.batch_size / rate if rate else 0.0
    start, batches = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds:
        loader.next_batch()
        batches += 1
        time.sleep(step)
        note = f"{batches * loader.config.batch_size / passed:.0f} samples/s" if passed > 1 else ""
        progress("consuming", int(passed), math.ceil(seconds), note)
    progress("consuming", math.ceil(seconds), math.ceil(seconds))
    return batches


def _cutting(source: DrawSource) -> float:
    """Return how many views one thread cuts in a second of processor time."""
    config, number = source.config, 0
    start, began = time.thread_time(), time.perf_counter()
    while time.perf_counter() - began < _CUT_SECONDS:
        cut_batch(source.choose(number), config.views, config.channels)
        number += 1
    return number * config.batch_size * config.views.n_views / (time.thread_time() - start)


def _patches(source: DrawSource, field: int) -> float:
    """Return how many patches lie beside each other where patches may be."""
    side = source.located.patches[field]
    return (math.sqrt(source.located.maps[field].area) + side) ** 2 / side**2


@contextlib.contextmanager
def _watch(loader: Loader, start: float) -> Iterator[Series]:
    """Note once a second what loader and workers hold."""
    series, stop, own = Series(), threading.Event(), psutil.Process()

    def look() -> None:
        while not stop.wait(1.0):
            children = sum(_memory(child) for child in own.children(recursive=True))
            report = loader.report()
            series.time.append(time.perf_counter() - start)
            series.loader_bytes.append(_memory(own))
            series.worker_bytes.append(children)
            series.fresh_draws.append(report["fresh_draws"])
            series.input_wait.append(report["input_wait"])

    watcher = threading.Thread(target=look, name="vis2img-watch", daemon=True)
    watcher.start()
    try:
        yield series
    finally:
        stop.set()
        watcher.join()


def _memory(process: psutil.Process) -> int:
    """Return the memory of a process, its share of what it shares; 0 if it is no more."""
    with contextlib.suppress(psutil.Error):
        full = process.memory_full_info()
        return int(getattr(full, "pss", 0) or full.rss)
    return 0


def draw_plot(series: Series, path: Path, overwrite: bool = False) -> None:
    """Write a picture of memory, draws and waiting over time.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6), layout="constrained")
    memory, work = figure.subplots(2, 1, sharex=True)
    loader, workers = ([value / 1e9 for value in values] for values in (series.loader_bytes, series.worker_bytes))
    memory.stackplot(series.time, loader, workers, labels=["loader", "workers"], alpha=0.8)
    memory.set(ylabel="memory (GB)", ylim=(0, None))
    memory.legend(loc="lower right")
    work.plot(series.time, series.fresh_draws, label="draws made")
    work.set(xlabel="time (s)", ylabel="draws made")
    waited = work.twinx()
    waited.plot(series.time, series.input_wait, color="tab:red")
    waited.set_ylabel("consumer waited (s)", color="tab:red")
    with atomic_output(path, overwrite) as partial:
        figure.savefig(partial, format=path.suffix.lstrip(".") or "png", dpi=120)
