"""The channels and times that an image was made of; of averages, those of the samples in them.

A part made of averages has one channel, and one time for each time block. :class:`vis2img.visibilities.Contents` tells
what these stand for, so that primary beams, mean frequencies and dates are those of the samples under any imaging
weights. Other visibilities stand for themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vis2img.imaging.weighting_kernels import spread
from vis2img.shapes import Float32, Float64
from vis2img.visibilities import Visibilities


def channels_of(
    part: Visibilities, weight: Float32[np.ndarray, "row chan"], by_chan: Float64[np.ndarray, " chan"]
) -> tuple[Float64[np.ndarray, " channel"], Float64[np.ndarray, " channel"]]:
    """Return the frequencies of the samples of ``part`` and the sums of the imaging weights of each.

    Parameters
    ----------
    part : Visibilities
    weight : float32 [row, chan]
        Imaging weights.
    by_chan : float64 [chan]
        Their sums for each of ``part.chan_freq``.

    Returns
    -------
    (float64 [chan], float64 [chan])
        Of averages, the channels of the measurement set; of other visibilities, ``part.chan_freq`` and ``by_chan``.
    """
    if part.averages is None or part.chan is None or not by_chan.any():
        return part.chan_freq, by_chan
    there = np.unique(part.time)
    blocks = [block for block in part.averages.contents if block.middle in there]
    imaged = np.zeros(len(blocks[0].chan_freq))
    spread(part.chan, weight[:, 0], imaged)
    nodes, samples = (np.sum([getattr(b, name) for b in blocks], axis=0) for name in ("node_weight", "chan_weight"))
    # Imaging over data weights as the averages have them, times the data weights of the samples.
    sums = samples * np.divide(imaged, nodes, out=np.zeros_like(imaged), where=nodes > 0)
    return blocks[0].chan_freq, sums * (by_chan.sum() / sums.sum())


def times_of(
    parts: Sequence[Visibilities], weights: Sequence[Float32[np.ndarray, "_ _"]]
) -> tuple[Float64[np.ndarray, " time"], Float64[np.ndarray, " time"]]:
    """Return the distinct times with weight, s (MJD), and the sums of the imaging ``weights`` [row, chan] of each."""
    times, sums = [], []
    for part, weight in zip(parts, weights, strict=True):
        if not part.nrow:
            continue
        # Rows come by time, mostly: runs of one time are many times fewer than rows.
        starts = np.flatnonzero(np.diff(part.time, prepend=-np.inf))
        own, total = part.time[starts], np.add.reduceat(weight.sum(axis=1, dtype=np.float32), starts, dtype=np.float64)
        blocks = [block for block in part.averages.contents if len(block.time)] if part.averages else []
        for block in blocks:
            times.append(block.time)
            sums.append(total[own == block.middle].sum() * block.time_weight / block.time_weight.sum())
        if not blocks:
            times.append(own)
            sums.append(total)
    distinct, index = np.unique(np.concatenate(times), return_inverse=True)
    total = np.bincount(index, np.concatenate(sums))
    return distinct[total > 0], total[total > 0]
