"""The order of draws: fair, the same for the same seed, and shared out among hosts without a draw twice."""

from __future__ import annotations

from itertools import islice

import numpy as np

from vis2img.loader.batches import Share
from vis2img.loader.schedule import Schedule


def first(schedule: Schedule, count: int, start: int = 0) -> list[tuple[int, int]]:
    return list(islice(schedule.draws(start), count))


def test_few_fields_take_turns() -> None:
    schedule = Schedule([1.0, 5.0, 1.0], 4, 16, Share(1, seed=0))
    assert schedule.capacity == 12 and not schedule.visits
    assert first(schedule, 7) == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (0, 2)]
    assert first(schedule, 5, start=4) == first(schedule, 9)[4:]


def test_many_fields_are_visited_by_their_weights_with_all_their_draws() -> None:
    schedule = Schedule([1.0, 2.0, 1.0, 4.0], 3, 2, Share(1, seed=1))
    assert schedule.capacity == 6 and schedule.visits
    draws = first(schedule, 3 * 800)
    visited = np.array([field for field, _ in draws[::3]])
    assert all(draws[i][0] == draws[i + 2][0] for i in range(0, len(draws), 3))
    assert np.abs(np.bincount(visited) / 800 - np.array([1, 2, 1, 4]) / 8).max() < 0.01
    assert len(set(draws)) == len(draws)
    assert first(schedule, 20, start=100) == draws[100:120]
    assert first(Schedule([1.0, 2.0, 1.0, 4.0], 3, 2, Share(1, seed=2)), 60) != draws[:60]


def test_hosts_take_every_draw_between_them_and_none_twice() -> None:
    for at_once in (8, 2):
        whole = Schedule([1.0] * 5, 2, at_once, Share(1, seed=3))
        shares = [first(Schedule([1.0] * 5, 2, at_once, Share(3, 3, host, 3)), 100) for host in range(3)]
        together = [draw for share in shares for draw in share]
        assert len(set(together)) == 300
        assert set(first(whole, 250)) <= set(together)


def test_a_total_of_draws_comes_round_and_round_in_other_orders_and_none_is_held_twice() -> None:
    for weights, at_once, total, hosts in (([1.0, 2.0], 4, 9, 1), ([1.0, 2.0, 1.0], 2, 9, 1), ([1.0], 4, 12, 2)):
        schedules = [Schedule(weights, 3, at_once, Share(2, 4, host, hosts), total) for host in range(hosts)]
        shares = [first(schedule, 400) for schedule in schedules]
        for share, schedule in zip(shares, schedules, strict=True):
            assert first(schedule, 50, start=77) == share[77:127]
            of_field = [index for field, index in share if field == 0]
            assert all(len(set(of_field[i : i + 3])) == 3 for i in range(len(of_field) - 3))
        together = [draw for draws in zip(*shares, strict=True) for draw in draws]
        of_field = [index for field, index in together if field == 0]
        rounds = [tuple(of_field[i : i + total]) for i in range(0, len(of_field) - total, total)]
        assert all(sorted(each) == list(range(total)) for each in rounds)
        assert rounds[0] == tuple(range(total)) and len(set(rounds)) == len(rounds)
    few = first(Schedule([1.0], 3, 4, Share(1, 0), 4), 12)  # too few to be mixed
    assert [index for _, index in few] == [0, 1, 2, 3] * 3
