"""Runs of training: how they are stopped, and whether two ended alike."""

import signal

import jax
import numpy as np

from vis2img.train.run.run import load_run, read_metrics


def stop_at(number):
    """What ``train`` may call for its progress, and what asks the run to stop at step ``number``."""

    def interrupt(stage, step, *_):
        if (stage, step) == ("training", number):
            signal.raise_signal(signal.SIGTERM)

    return interrupt


def assert_same_end(first, second):
    """Two run folders hold the same state and the same losses, to the bit."""
    states = [jax.tree.leaves(load_run(folder)[1]) for folder in (first, second)]
    for ours, theirs in zip(*states, strict=True):
        assert np.array_equal(ours, theirs)
    assert np.array_equal(read_metrics(first)["loss"], read_metrics(second)["loss"])
