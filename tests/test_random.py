"""Random streams: pinned, as runs replay only while they stay, and apart from each other."""

import numpy as np

from vis2img.random import (
    askap_rng,
    batch_rng,
    changes_rng,
    draw_rng,
    epoch_rng,
    pointing_rng,
    sample_rng,
    simulation_streams,
    visits_rng,
)


def test_streams_are_those_of_earlier_runs_and_differ() -> None:
    made = {
        draw_rng: ((5, 2, 3), (5, 2, 3)),
        visits_rng: ((5,), (5, 8589934592)),
        batch_rng: ((5, 2, 3), (5, 4294967296, 2, 3)),
        changes_rng: ((5, 2, 3, 4), (5, 4294967296, 2, 3, 1, 4)),
        epoch_rng: ((5, 2), (5, 12884901888, 2)),
        sample_rng: ((5, 2), (5, 17179869184, 2)),
        pointing_rng: ((5,), (7, 5)),
        askap_rng: ((), 36),
    }
    seen = set()
    for function, (arguments, entropy) in made.items():
        number = function(*arguments).integers(1 << 60)
        assert number == np.random.default_rng(entropy).integers(1 << 60), function
        seen.add(number)
    assert len(seen) == len(made)


def test_what_happens_to_a_simulation_does_not_change_its_sky() -> None:
    sky, seeds = simulation_streams(5)
    first, *others = np.random.SeedSequence(5).spawn(4)
    assert sky.random() == np.random.default_rng(first).random()
    assert seeds == [int(other.generate_state(1)[0]) for other in others] and len(set(seeds)) == 3
