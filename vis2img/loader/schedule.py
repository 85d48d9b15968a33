"""Which draw comes when: an order that depends on the seed alone, not on the speed or number of workers.

A pool holds the last so many draws of the order. With few fields they take turns, so that all are always in the pool.
With many, fields are visited: one field after another gets all its draws, and is left when its turn is over.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice

import numpy as np

from vis2img.loader.batches import Share
from vis2img.random import visits_rng


class Schedule:
    """The order of draws.

    Parameters
    ----------
    weights : sequence of float
        Of each field; fields that are visited come in proportion, those that are always there come alike.
    per_field : int
        Draws held of a field.
    at_once : int
        Fields held at a time.
    share : Share
        Hosts take visits, or draws of the same field, in turns.

    Attributes
    ----------
    capacity : int
        Draws held.
    visits : bool
        Whether fields are visited, as there are more than are held at a time.
    """

    def __init__(self, weights: list[float], per_field: int, at_once: int, share: Share) -> None:
        self._weights = np.array(weights, dtype=np.float64) / sum(weights)
        self._per_field, self._share = per_field, share
        self.visits = len(weights) > at_once
        self.capacity = per_field * min(len(weights), at_once)

    def draws(self, first: int = 0) -> Iterator[tuple[int, int]]:
        """Yield (field, index) of draw ``first`` of this host and all that follow; no index comes twice."""
        return islice(self._visited() if self.visits else self._in_turns(), first, None)

    def _in_turns(self) -> Iterator[tuple[int, int]]:
        host, hosts = self._share.host, self._share.hosts
        for number in count():
            index, field = divmod(number, len(self._weights))
            yield field, index * hosts + host

    def _visited(self) -> Iterator[tuple[int, int]]:
        host, hosts = self._share.host, self._share.hosts
        made = np.zeros(len(self._weights), int)
        for number, field in enumerate(self._fields()):
            if number % hosts == host:
                yield from ((field, int(made[field]) * self._per_field + i) for i in range(self._per_field))
            made[field] += 1

    def _fields(self) -> Iterator[int]:
        """Yield fields in proportion to their weights, evenly spread: the one that lags furthest behind is next."""
        rng = visits_rng(self._share.seed)
        due = rng.random(len(self._weights)) * self._weights
        while True:
            due += self._weights
            field = int(np.argmax(due))
            due[field] -= 1
            yield field
