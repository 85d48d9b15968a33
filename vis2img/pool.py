"""The pool: some draws of every field, made by Dask workers and replaced as new ones arrive.

Draw ``i`` of the whole run is draw ``i // nfields`` of field ``i % nfields``, so the order is fixed. In the
synchronous mode draw ``i`` enters at a fixed batch, whatever the speed or number of the workers, and a run
replays; in the asynchronous mode it enters as soon as it is ready.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

from vis2img.draws import Draw, FieldSource, make_draw
from vis2img.errors import MeasurementSetError, Vis2imgError

log = logging.getLogger(__name__)
Mode = Literal["sync", "async"]


class DrawPool:
    """Keeps ``per_field`` draws of each source, oldest first, and asks a Dask client for new ones.

    Parameters
    ----------
    client : distributed.Client
        Where draws are made.
    sources : list of FieldSource
        The fields.
    seed : int
        Seed of the run.
    per_field : int
        Draws held of each field; at least 2, as a sample takes its views from different draws.
    first : int
        Number of the oldest draw to hold: 0 at the start of a run, later when a run resumes.
    """

    def __init__(self, client: Any, sources: list[FieldSource], seed: int, per_field: int, first: int = 0) -> None:
        self.client, self.sources, self.seed, self.per_field = client, sources, seed, per_field
        self.draws: list[deque[Draw]] = [deque(maxlen=per_field) for _ in sources]
        self.failed: dict[int, str] = {}
        self.fresh = 0
        """Draws taken in so far."""
        self.next_in = first
        self._next_out = first
        self._ahead = max(2, 2 * len(client.scheduler_info()["workers"]))
        self._pending: deque[Any] = deque()

    @property
    def size(self) -> int:
        """Number of draws that a full pool holds."""
        return self.per_field * len(self.sources)

    @property
    def fields(self) -> list[int]:
        """Fields that have draws to cut from."""
        return [i for i, draws in enumerate(self.draws) if draws]

    def fill(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Wait until every field that can be read has all its draws.

        Raises
        ------
        MeasurementSetError
            If no field at all can be imaged; the message gives the reason of the first.
        """
        for done in range(self.size):
            self.take(block=True)
            if progress:
                progress(done + 1, self.size)
        if not self.fields:
            raise MeasurementSetError(f"no field can be imaged: {next(iter(self.failed.values()))}")

    def take(self, *, block: bool) -> bool:
        """Take the next draw in, if it is ready or ``block`` says to wait; return whether one came in."""
        self._request()
        if not block and not self._pending[0].done():
            return False
        field, future = self.next_in % len(self.sources), self._pending.popleft()
        self.next_in += 1
        self._request()
        try:
            draw = future.result()
        except Vis2imgError as error:
            draw = None
            if field not in self.failed:
                self.failed[field] = str(error)
                log.warning("skipped: %s", error)
        if draw is not None:
            self.draws[field].append(draw)
            self.fresh += 1
        return True

    def _request(self) -> None:
        while len(self._pending) < self._ahead:
            field, index = self._next_out % len(self.sources), self._next_out // len(self.sources)
            self._next_out += 1
            # A field that failed is not asked for again, but keeps its place, so that the order holds.
            self._pending.append(_Done() if self._skip(field) else self._submit(field, index))

    def _skip(self, field: int) -> bool:
        return field in self.failed and not self.draws[field]

    def _submit(self, field: int, index: int) -> Any:
        return self.client.submit(make_draw, self.sources[field], self.seed, field, index, pure=False)

    def cancel(self) -> None:
        """Drop what was asked for and is not there yet."""
        for future in self._pending:
            if not isinstance(future, _Done):
                future.cancel()
        self._pending.clear()


class _Done:
    """Stands for the draw of a field that was given up."""

    def done(self) -> bool:
        return True

    def result(self) -> None:
        return None
