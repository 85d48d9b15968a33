"""The loader: an iterator of batches of views, fed by Dask workers that image fields.

    workers: field -> draw -> shared memory        loader: pool -> plan -> cut -> queue -> batch

>>> with Loader(LoaderConfig(ms=("a.ms", "b.ms")), seed=1) as loader:     # doctest: +SKIP
...     batch = next(iter(loader))
...     batch.global_views.shape
(2, 32, 64, 64, 1)
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

from vis2img.cluster.engine import Connection, connect
from vis2img.errors import ParameterError, Vis2imgError
from vis2img.loader.batches import Batch, Planner, cut_batch
from vis2img.loader.config import LoaderConfig
from vis2img.loader.fields import open_fields
from vis2img.loader.handover import SharedFolder
from vis2img.loader.pool import DrawPool
from vis2img.loader.schedule import Schedule
from vis2img.machine import cores
from vis2img.progress import Progress, no_progress

_MOST_CUTTERS = 8
_SPARE_DRAWS = 4  # that batches in the queue still use when they have left the pool
_LOOK = 0.2  # s between looks at whether the loader was closed


class Loader:
    """Iterates over batches without end; a context manager that owns its Dask workers.

    Parameters
    ----------
    config : LoaderConfig
        What to load.
    seed : int
        Every random choice follows from it.
    connection : Connection, optional
        Workers to use, from :func:`vis2img.cluster.engine.connect`; default: those that ``config`` names.
    state : dict, optional
        From :meth:`state`, to go on where a loader stopped: with the same batches in synchronous mode.
    host, hosts : int
        Which host this is, and of how many. Each takes its share of the draws and of each batch: none comes twice.
    progress : callable, optional
        Called with (draws made, draws wanted) while the pool fills.

    Attributes
    ----------
    batches : int
        Batches delivered so far, those before ``state`` included.
    wait_seconds : float
        Time that :meth:`next_batch` waited for batches, once the pool was full.
    dashboard_link : str or None
        Dask's dashboard.

    Raises
    ------
    MeasurementSetError, ParameterError
        If no measurement set can be used.
    """

    def __init__(
        self,
        config: LoaderConfig,
        seed: int = 0,
        *,
        connection: Connection | None = None,
        state: dict[str, Any] | None = None,
        host: int = 0,
        hosts: int = 1,
        progress: Progress = no_progress,
    ) -> None:
        if config.cutouts:
            raise ParameterError("cutouts need vis2img.loader.picture_loader.CutoutLoader: there is nothing to image")
        if config.batch_size % hosts:
            raise ParameterError(f"batch_size = {config.batch_size} is not a multiple of the {hosts} hosts")
        self.config, self.seed = config, seed
        self.located = open_fields(config)
        self.sources = self.located.fields
        # Draws that are all alike need not be made twice.
        varies = any(source.prior.varies for source in self.sources)
        per_field = config.draws_per_field if varies else 1
        schedule = Schedule(self.located.weights, per_field, config.fields_at_once, seed, share=(host, hosts))
        self._refreshes = (varies or schedule.visits) and (config.mode == "async" or config.refresh_every > 0)
        self._size = config.batch_size // hosts
        self._planner = Planner(self.located, config.views, config.near_peaks, seed, host, weighted=not schedule.visits)
        self._state = dict(state or {"batches": 0})
        self.batches = self._planned = int(self._state["batches"])
        self.wait_seconds = 0.0
        self._progress = progress
        self._queue: queue.Queue[Future[tuple[Batch, dict[str, Any]]]] = queue.Queue(config.prefetch)
        self._failure: BaseException | None = None
        self._stopped, self._closed = threading.Event(), False
        self._thread: threading.Thread | None = None
        self._cutters = ThreadPoolExecutor(config.cutters or min(_MOST_CUTTERS, cores()), "vis2img-cut")
        self._connection, self._owns = connection or connect(config.engine), connection is None
        self.dashboard_link = self._connection.dashboard_link
        try:
            workers = len(self._connection.client.nthreads())
            self._shared = SharedFolder(self._pool_bytes(schedule.capacity + 2 * workers + _SPARE_DRAWS), config.shared)
        except BaseException:
            self._disconnect()
            raise
        self._lost_before = self._connection.lost_tasks
        self.pool = DrawPool(
            self._connection.client,
            self.sources,
            seed,
            schedule,
            self._shared,
            state=state,
            in_order=config.mode == "sync",
            refreshes=self._refreshes,
            nthreads=config.threads,
        )

    def _pool_bytes(self, draws: int) -> int:
        """Return the memory that so many draws may take."""
        return int(max(4 * s.channels * (s.prior.fov / s.prior.pixsize[0] + 2) ** 2 for s in self.sources)) * draws

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield self.next_batch()

    def next_batch(self) -> Batch:
        """Return the next batch; in synchronous mode it depends on the seed, the host and its number alone.

        Raises
        ------
        MeasurementSetError
            If no field can be imaged.
        Vis2imgError
            If the workers are lost.
        """
        first = self._thread is None
        if first:
            self._check_open()
            self.pool.fill(self._progress)
            # Started first: a signal between the two lines must not leave a thread that cannot be joined.
            thread = threading.Thread(target=self._produce, name="vis2img-plan", daemon=True)
            thread.start()
            self._thread = thread
        start = time.perf_counter()
        batch, self._state = self._next()
        if not first:
            self.wait_seconds += time.perf_counter() - start
        self.batches = self._state["batches"]
        return batch

    def _next(self) -> tuple[Batch, dict[str, Any]]:
        """Wait for the next batch. What stopped one batch stops all that follow: none is left out."""
        while True:
            self._check_open()
            if self._failure is not None and self._queue.empty():
                raise self._failure
            with contextlib.suppress(queue.Empty):
                future = self._queue.get(timeout=_LOOK)
                try:
                    return future.result()
                except CancelledError:
                    continue  # closed meanwhile
                except BaseException as error:
                    self._failure = error
                    self._stopped.set()
                    raise

    def _check_open(self) -> None:
        if self._stopped.is_set():
            raise self._failure or Vis2imgError("this loader is closed")

    def _produce(self) -> None:
        """Plan batches and have them cut, as far ahead as the queue is long."""
        try:
            while not self._stopped.is_set():
                self._refresh()
                self._planned += 1
                state = {"batches": self._planned, **self.pool.state()}
                plan = self._planner.plan(self.pool, self._planned - 1, self._size, state)
                self._put(self._cutters.submit(self._cut, plan))
        except BaseException as error:
            self._failure = error

    def _cut(self, plan: Any) -> tuple[Batch, dict[str, int]]:
        augment = self.config.augment if self.config.augment_fields else None
        return cut_batch(plan, self.config.views, self.config.channels, augment), plan.state

    def _put(self, item: Future[Any]) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=_LOOK)
                return
            if self.config.mode == "async":  # a slow consumer is no reason to keep workers waiting
                self._refresh()

    def _refresh(self) -> None:
        if not self._refreshes:
            return
        if self.config.mode == "async":
            # Not more than the pool holds, or many fast workers would keep batches from being planned.
            for _ in range(self.pool.capacity):
                if not self.pool.take(block=False):
                    return
        elif self._planned and self._planned % self.config.refresh_every == 0:
            self.pool.take(block=True)
            while not self.pool.held:
                self.pool.take(block=True)

    def state(self) -> dict[str, Any]:
        """Return what a new loader needs to go on behind the batch delivered last: exact in synchronous mode."""
        return dict(self._state)

    def report(self) -> dict[str, float]:
        """Return what can be told of the run so far.

        Returns
        -------
        dict
            ``fresh_draws``; ``repeated_draws`` (their workers died or had no memory); ``draw_age`` [s] and
            ``draw_reuse`` [views], means of the draws replaced last; ``bytes_read`` and ``draw_seconds`` of the
            workers; ``input_wait`` [s].
        """
        tally = self.pool.tally
        age, uses = self.pool.reuse()
        return {
            "fresh_draws": float(tally.fresh),
            "repeated_draws": float(tally.repeated + self._connection.lost_tasks - self._lost_before),
            "draw_age": age,
            "draw_reuse": uses,
            "bytes_read": float(tally.bytes_read),
            "draw_seconds": tally.seconds,
            "input_wait": self.wait_seconds,
        }

    def unused(self) -> dict[str, str]:
        """Return the measurement sets and fields that gave nothing, and why."""
        return {**self.located.skipped, **{str(self.sources[field]): why for field, why in self.pool.failed.items()}}

    def draw_records(self) -> list[dict[str, Any]]:
        """Return field, index and imaging parameters of the draws in the pool."""
        return [held.draw.record() for held in self.pool.held]

    def close(self) -> None:
        """Stop the threads, and the workers that this loader started."""
        if self._closed:
            return
        self._closed = True
        self._stopped.set()
        self.pool.stop()
        if self._thread is not None:
            self._thread.join()
        self._cutters.shutdown(wait=True, cancel_futures=True)
        self.pool.cancel()
        self._disconnect()
        self._shared.close()

    def _disconnect(self) -> None:
        if self._owns:
            self._connection.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        c = self.config
        return (
            f"Loader({len(self.sources)} fields, batches of {self._size} with {c.views.n_global} x "
            f"{c.views.global_size} and {c.views.n_local} x {c.views.local_size} px, {c.mode}, "
            f"{self.batches} batches delivered)"
        )
