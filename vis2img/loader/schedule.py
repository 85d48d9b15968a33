"""Which draw comes when: an order that depends on the seed alone, not on the speed or number of workers.

A pool holds the last so many draws of the order. With few fields they take turns, so that all are always in the pool.
With many, fields are visited: one field after another gets all its draws, and is left when its turn is over.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice

import numpy as np

from vis2img.loader.batches import Share
from vis2img.random import rounds_rng, visits_rng


class _Rounds:
    """The draws of a field, all of them in each round: the same one is not held twice at a time.

    Those that came at the end of a round do not come at the start of the next one.
    """

    def __init__(self, seed: int, field: int, total: int, held: int) -> None:
        self._rng, self._held = rounds_rng(seed, field), held
        self._number, self._round = 0, np.arange(total)

    def draw(self, place: int) -> int:
        """Return which draw comes at a place, which never lies in a round before the last one asked for."""
        number, within = divmod(place, len(self._round))
        while self._number < number:
            self._round, self._number = self._next(), self._number + 1
        return int(self._round[within])

    def _next(self) -> np.ndarray:
        late = self._held - 1
        if len(self._round) < 2 * late + 1:
            return self._round  # too few to be mixed
        early = self._rng.permutation(self._round[: len(self._round) - late])
        rest = self._rng.permutation(np.concatenate([early[late:], self._round[len(self._round) - late :]]))
        return np.concatenate([early[:late], rest])


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
    total : int
        Different draws of a field, after which they come again in another order; 0: without end.

    Attributes
    ----------
    capacity : int
        Draws held.
    visits : bool
        Whether fields are visited, as there are more than are held at a time.
    """

    def __init__(self, weights: list[float], per_field: int, at_once: int, share: Share, total: int = 0) -> None:
        self._weights = np.array(weights, dtype=np.float64) / sum(weights)
        self._per_field, self._share, self._total = per_field, share, total
        self.visits = len(weights) > at_once
        self.capacity = per_field * min(len(weights), at_once)

    def draws(self, first: int = 0) -> Iterator[tuple[int, int]]:
        """Yield (field, index) of draw ``first`` of this host and all that follow.

        No index comes twice, unless a total is given, and then not within as many as are held.
        """
        order = self._visited() if self.visits else self._in_turns()
        return islice(self._again(order) if self._total else order, first, None)

    def _again(self, order: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Yield draws of which there are so many of a field, in place of those without end."""
        held = self._per_field * self._share.hosts
        rounds = [_Rounds(self._share.seed, field, self._total, held) for field in range(len(self._weights))]
        return ((field, rounds[field].draw(place)) for field, place in order)

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
