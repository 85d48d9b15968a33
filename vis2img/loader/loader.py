"""The loader: an iterator of batches of views, planned by one thread and cut by many, as far ahead as is asked for.

    source: draws of fields, or pictures -> plan -> cut -> queue -> batch

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
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

from vis2img.cluster.engine import Connection
from vis2img.errors import Vis2imgError
from vis2img.loader.batches import Batch, Share, Source
from vis2img.loader.config import LoaderConfig
from vis2img.loader.draw_source import DrawSource
from vis2img.loader.picture_source import PictureSource
from vis2img.loader.places import Places
from vis2img.machine import cores
from vis2img.progress import Progress, no_progress

_MOST_CUTTERS = 8
_LOOK = 0.2  # s between looks at whether the loader was closed


class Loader:
    """Iterates over batches without end; a context manager that owns its threads and workers.

    Parameters
    ----------
    config : LoaderConfig
        What to load.
    seed : int
        Every random choice follows from it.
    connection : Connection, optional
        Workers to use, from :func:`vis2img.cluster.engine.connect`; default: those that ``config`` names. Pictures
        need none.
    state : dict, optional
        From :meth:`state`, to go on where a loader stopped: with the same batches, of fields in synchronous mode.
    host, hosts : int
        Which host this is, and of how many. Each takes its share of the draws and of each batch: none comes twice.
    places : Places, optional
        Where patches lie in fields, up to ``peak_offset`` away, whatever ``near_peaks`` and ``peaks`` say; batches have
        the codes. Fields without any give no samples.
    progress : callable, optional
        Told the draws made while the pool fills, or the pictures looked at.

    Attributes
    ----------
    source : Source
        What batches are cut from.
    wait_seconds : float
        Time that :meth:`next_batch` waited for batches, after the first.

    Raises
    ------
    Vis2imgError
        If no measurement set or picture can be used, or ``state`` is of other pictures.
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
        places: Places | None = None,
        progress: Progress = no_progress,
    ) -> None:
        share = Share(config.batch_size, seed, host, hosts)
        self.config = config
        self.source: Source = (
            PictureSource(config, share, state=state, progress=progress)
            if config.cutouts
            else DrawSource(config, share, connection=connection, state=state, places=places, progress=progress)
        )
        self._state = dict(state) if state else {"batches": 0, **self.source.state()}
        self.wait_seconds = 0.0
        self._queue: queue.Queue[Future[tuple[Batch, dict[str, Any]]]] = queue.Queue(config.prefetch)
        self._next: Future[tuple[Batch, dict[str, Any]]] | None = None
        self._failure: BaseException | None = None
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._cutters = ThreadPoolExecutor(config.cutters or min(_MOST_CUTTERS, cores()), "vis2img-cut")

    @property
    def batches(self) -> int:
        """Batches delivered so far, those before ``state`` included."""
        return int(self._state["batches"])

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield self.next_batch()

    def next_batch(self) -> Batch:
        """Return the next batch; of fields in asynchronous mode it depends on the draws that are there.

        Raises
        ------
        MeasurementSetError
            If no field can be imaged.
        Vis2imgError
            If the workers are lost.
        """
        self._check_open()
        first = self._thread is None
        if first:
            self.source.prepare()
            # Started first: a signal between the two lines must not leave a thread that cannot be joined.
            thread = threading.Thread(target=self._produce, name="vis2img-plan", daemon=True)
            thread.start()
            self._thread = thread

        start = time.perf_counter()
        batch, self._state = self._wait()
        if not first:
            self.wait_seconds += time.perf_counter() - start
        return batch

    def _wait(self) -> tuple[Batch, dict[str, Any]]:
        """Wait for the next batch. It stays the next one until it is there, as a signal may end the wait."""
        while True:
            self._check_open()
            if self._next is None:
                if self._failure is not None and self._queue.empty():
                    raise self._failure
                with contextlib.suppress(queue.Empty):
                    self._next = self._queue.get(timeout=_LOOK)
            if self._next is not None:
                with contextlib.suppress(CancelledError):  # closed meanwhile
                    result = self._next.result()
                    self._next = None
                    return result

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise Vis2imgError("this loader is closed")

    def _produce(self) -> None:
        """Plan batches and have them cut, as far ahead as the queue is long."""
        number = self.batches
        try:
            while not self._closed.is_set():
                cut = self.source.plan(number)
                number += 1
                state = {"batches": number, **self.source.state()}
                self._put(self._cutters.submit(_with_state, cut, state))
        except BaseException as error:
            self._failure = error

    def _put(self, item: Future[Any]) -> None:
        while not self._closed.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=_LOOK)
                return
            self.source.idle()

    def state(self) -> dict[str, Any]:
        """Return what a new loader needs to go on behind the batch delivered last: exact but in asynchronous mode."""
        return dict(self._state)

    def report(self) -> dict[str, float]:
        """Return what can be told of the run so far: of :meth:`Source.report`, and ``input_wait`` [s]."""
        return {**self.source.report(self.batches), "input_wait": self.wait_seconds}

    def unused(self) -> dict[str, str]:
        """Return the measurement sets, fields and pictures that give nothing, and why."""
        return self.source.unused()

    def close(self) -> None:
        """Stop the threads, and the workers that this loader started."""
        if self._closed.is_set():
            return
        self._closed.set()
        self.source.stop()
        if self._thread is not None:
            self._thread.join()
        self._cutters.shutdown(wait=True, cancel_futures=True)
        self.source.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        c = self.config.views
        views = f"{c.n_global} x {c.global_size} and {c.n_local} x {c.local_size} px"
        return f"Loader({self.source}, batches of {self.config.batch_size} with {views}, {self.batches} delivered)"


def _with_state(cut: Callable[[], Batch], state: dict[str, Any]) -> tuple[Batch, dict[str, Any]]:
    return cut(), state
