"""Draws that Dask workers are asked for: repeated where a worker died, fetched when they are there."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

from distributed import KilledWorker

from vis2img.draws.cache import DrawCache
from vis2img.draws.field import Field
from vis2img.errors import MeasurementSetError, NotEnoughMemoryError, ParameterError, Vis2imgError
from vis2img.loader.handover import Delivery, SharedFolder, deliver

log = logging.getLogger(__name__)
_REPEATS = 20  # times that a draw is asked for again after its worker died
_CLOSED = "this loader is closed"
_PAUSE = 0.2  # s before a draw is asked for again
_PATIENCE = 5.0  # s between looks at how many workers there are
_SILENCE = 60.0  # s without any worker after which a line is logged


@dataclass(eq=False)
class Request:
    """A draw that was asked for; without a future, the place of one of a field that was given up."""

    number: int
    field: int
    index: int
    ticket: int
    """Of its own, as the same draw may be asked for twice at a time."""
    future: Any
    repeats: int = 0


class DrawRequests:
    """The draws that a client was asked for and that have not been taken in, in order.

    Parameters
    ----------
    client : distributed.Client
        Where draws are made.
    fields : list of Field
    seed : int
        Seed of the run.
    shared : SharedFolder
        Where workers of this machine leave draws.
    nthreads : int
        Threads of a draw.
    cache : DrawCache, optional
        Where draws are kept on disk.

    Attributes
    ----------
    repeated : int
        Draws that were asked for again, as their worker died or had no memory, besides those that Dask repeats.
    """

    def __init__(
        self,
        client: Any,
        fields: list[Field],
        seed: int,
        shared: SharedFolder,
        nthreads: int = 1,
        cache: DrawCache | None = None,
    ) -> None:
        self.client, self.fields = client, fields
        self._seed, self._shared, self._nthreads, self._cache = seed, shared, nthreads, cache
        self.repeated, self._tickets = 0, 0
        self._pending: deque[Request] = deque()
        self._news, self._stopped = threading.Event(), False
        self._workers = (-math.inf, 0)

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, number: int, field: int, index: int, *, make: bool) -> None:
        """Ask for draw ``index`` of a field, number ``number`` of the schedule; or keep its place without making it."""
        self._tickets += 1
        future = self._submit(field, index, self._tickets) if make else None
        self._pending.append(Request(number, field, index, self._tickets, future))

    def _submit(self, field: int, index: int, ticket: int) -> Any:
        shared = self._shared
        arguments = (
            self.fields[field],
            self._seed,
            field,
            index,
            ticket,
            self._nthreads,
            str(shared.path),
            shared.key,
            self._cache,
        )
        future = self.client.submit(deliver, *arguments, pure=False)
        future.add_done_callback(lambda _: self._news.set())
        return future

    def workers(self) -> int:
        """Return the number of workers, as it was some seconds ago."""
        now = time.monotonic()
        if now - self._workers[0] > _PATIENCE:
            self._workers = now, len(self.client.nthreads())
        return self._workers[1]

    def next_ready(self, *, block: bool, in_order: bool) -> Request | None:
        """Remove and return what is ready; wait for it if ``block`` says so.

        Raises
        ------
        Vis2imgError
            If the workers are lost, or too many died of one draw.
        """
        silent = time.monotonic()
        while True:
            if self._stopped:
                raise Vis2imgError(_CLOSED)
            for request in list(self._pending)[: 1 if in_order else None]:
                if request.future is None or (request.future.done() and not self._repeats(request)):
                    self._pending.remove(request)
                    return request
            if not block:
                return None
            if self._news.wait(_PATIENCE):
                self._news.clear()
                continue
            self._check_client()
            if self.workers():
                silent = time.monotonic()
            elif time.monotonic() - silent > _SILENCE:
                log.warning("no Dask worker for %.0f s; waiting for one", _SILENCE)
                silent = time.monotonic()

    def _repeats(self, request: Request) -> bool:
        """Ask for a draw again if its worker died or had no memory, or it was lost; return whether."""
        if request.future.status == "finished":
            return False
        error = request.future.exception() if request.future.status == "error" else None
        if error is not None and not isinstance(error, KilledWorker | MemoryError | NotEnoughMemoryError):
            return False
        self._check_client()
        request.repeats += 1
        if request.repeats > _REPEATS:
            raise Vis2imgError(
                f"{self.fields[request.field]}: {_REPEATS} workers died of one draw or had no memory for it; they may "
                "need more (worker_memory, fewer workers), or less to do (a smaller field_npix or draw_memory)"
            )
        what = "had no memory for" if isinstance(error, MemoryError | NotEnoughMemoryError) else "died while it imaged"
        log.warning("a worker %s %s; the draw is repeated", what, self.fields[request.field])
        self.repeated += 1
        time.sleep(_PAUSE)
        request.future = self._submit(request.field, request.index, request.ticket)
        return True

    def _check_client(self) -> None:
        if self.client.status not in ("running", "connecting"):
            raise Vis2imgError("the Dask scheduler is gone; start it and give the same command again")

    def fetch(self, request: Request) -> Delivery:
        """Return what a worker has made, its pixels mapped or received.

        Raises
        ------
        ParameterError
            If the draw left nothing.
        MeasurementSetError
            If its field cannot be imaged, for whatever reason.
        Vis2imgError
            If the draw was lost.
        """
        delivery = self._wait(request)
        data = delivery.draw.data if delivery.name is None else self._shared.take(delivery.name)
        data.setflags(write=False)
        return replace(delivery, draw=replace(delivery.draw, data=data))

    def _wait(self, request: Request) -> Delivery:
        field = self.fields[request.field]
        while not self._stopped:
            try:
                delivery: Delivery = request.future.result(timeout=_PATIENCE)
                return delivery
            except TimeoutError:
                self._check_client()  # the worker that holds it does not answer just now
            except (ParameterError, MeasurementSetError):
                raise
            except Exception as error:
                if request.future.status in ("cancelled", "lost", "pending"):
                    raise Vis2imgError(f"a draw of {field} was lost: {error}") from error
                raise MeasurementSetError(f"{field}: {type(error).__name__}: {error}") from error
        raise Vis2imgError(_CLOSED)

    def stop(self) -> None:
        """Make whoever waits for a draw give up."""
        self._stopped = True
        self._news.set()

    def cancel(self) -> None:
        """Drop what was asked for and is not there yet."""
        with contextlib.suppress(Exception):  # workers or scheduler may be gone
            self.client.cancel([request.future for request in self._pending if request.future is not None])
        self._pending.clear()
