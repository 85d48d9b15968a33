"""Random streams: every number that tells one from another, and what makes their generators.

What is random in a run follows from its seed; the numbers here keep draws, batches and so on apart. They are part of
the interface: only while they stay as they are does a run replay.
"""

from __future__ import annotations

import math

import numpy as np

EVALUATION_SEED = 2**31 - 1  # of draws to evaluate on: no training run has it by default
# Folded into the key of a sample by the training step: for drop path, for hidden patches, for how its views vary.
DROPS, MASKS, JITTER = 0, 1, 2

# Beyond any number of fields and hosts, which stand in the same place.
_BATCHES, _VISITS, _EPOCHS, _SAMPLES, _ROUNDS = (number << 32 for number in (1, 2, 3, 4, 5))
_CHANGES = 1  # behind the number of a batch
_POINTINGS = 7  # in front of the seed of a simulation
_ASKAP = 36


def draw_rng(seed: int, field: int, index: int) -> np.random.Generator:
    """Return the generator of draw ``index`` of ``field`` in a run with ``seed``."""
    return _generator(seed, field, index)


def visits_rng(seed: int) -> np.random.Generator:
    """Return the generator of the order in which fields are visited."""
    return _generator(seed, _VISITS)


def rounds_rng(seed: int, field: int) -> np.random.Generator:
    """Return the generator of the order in which the draws of a field come again."""
    return _generator(seed, _ROUNDS, field)


def batch_rng(seed: int, host: int, number: int) -> np.random.Generator:
    """Return the generator of what batch ``number`` of a host shows of fields."""
    return _generator(seed, _BATCHES, host, number)


def changes_rng(seed: int, host: int, number: int, sample: int) -> np.random.Generator:
    """Return the generator of how the pixels of a sample of that batch are changed."""
    return _generator(seed, _BATCHES, host, number, _CHANGES, sample)


def epoch_rng(seed: int, epoch: int) -> np.random.Generator:
    """Return the generator of the order of pictures in an epoch."""
    return _generator(seed, _EPOCHS, epoch)


def sample_rng(seed: int, sample: int) -> np.random.Generator:
    """Return the generator of the views of a picture: sample number ``sample`` of the run."""
    return _generator(seed, _SAMPLES, sample)


def pointing_rng(seed: int) -> np.random.Generator:
    """Return the generator of where a simulated observation points."""
    return _generator(_POINTINGS, seed)


def askap_rng() -> np.random.Generator:
    """Return the generator of the places of the antennas of ASKAP, which are the same in every run."""
    return _generator(_ASKAP)


def log_uniform(rng: np.random.Generator, ends: tuple[float, float]) -> float:
    """Return a number between two positive ones, of which each factor comes alike."""
    return math.exp(rng.uniform(math.log(ends[0]), math.log(ends[1])))


def simulation_streams(seed: int) -> tuple[np.random.Generator, list[int]]:
    """Return the generator of the sky of a simulation, and the seeds of its noise, flags and gains.

    One each, so that noise does not change the sky.
    """
    sky, *others = np.random.SeedSequence(seed).spawn(4)
    return np.random.default_rng(sky), [int(other.generate_state(1)[0]) for other in others]


def _generator(*numbers: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(numbers))
