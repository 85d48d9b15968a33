"""What averages were made of: the channels and times behind one row, which images must still know.

A part that :func:`vis2img.averaging.store.read_averaged` gives has one channel and one time for each time block.
``meta["contents"]`` tells what these stand for, one :class:`Contents` for each time block, and ``antenna2`` has the
mean channel of each row, so that primary beams, mean frequencies and dates are those of the samples under any imaging
weights. Other visibilities have none of this and stand for themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vis2img.visibilities import Visibilities

KEY = "contents"
"""Name in ``Visibilities.meta``."""
_STEPS = 4096  # to a channel


@dataclass(frozen=True, eq=False)
class Contents:
    """What the averages of one time block and channel block were made of.

    Parameters
    ----------
    middle : float
        The time that stands for the block in ``Visibilities.time``, s (MJD).
    chan_freq : float64 [chan]
        Frequencies in Hz.
    chan_weight : float64 [chan]
        Sum of the data weights of each.
    node_weight : float64 [chan]
        The same, as the mean channels of the averages give it: without their spread within an average.
    time, time_weight : float64 [time]
        Distinct times with weight, s (MJD), increasing, and the sum of the data weights of each over all channels.
    """

    middle: float
    chan_freq: np.ndarray
    chan_weight: np.ndarray
    node_weight: np.ndarray
    time: np.ndarray
    time_weight: np.ndarray


def as_antenna(chan: np.ndarray) -> np.ndarray:
    """Return mean channels, float [row] from 0 on, as negative antenna numbers, int32 [row]."""
    return -1 - np.round(chan * _STEPS).astype(np.int32)


def channels_of(part: Visibilities, weight: np.ndarray, by_chan: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the frequencies behind ``part`` and the sums of the imaging weights of each.

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
    from vis2img.averaging.kernels import spread

    blocks = _blocks_in(part)
    if not blocks or not by_chan.any():
        return part.chan_freq, by_chan
    imaged = np.zeros(len(blocks[0].chan_freq))
    spread((-1 - part.antenna2) / np.float32(_STEPS), weight[:, 0], imaged)
    nodes, samples = (np.sum([getattr(b, name) for b in blocks], axis=0) for name in ("node_weight", "chan_weight"))
    # Imaging over data weights as the averages have them, times the data weights of the samples.
    sums = samples * np.divide(imaged, nodes, out=np.zeros_like(imaged), where=nodes > 0)
    return blocks[0].chan_freq, sums * (by_chan.sum() / sums.sum())


def _blocks_in(part: Visibilities) -> list[Contents]:
    contents: tuple[Contents, ...] = part.meta.get(KEY, ())  # type: ignore[assignment]
    if not contents:
        return []
    there = np.unique(part.time)
    return [block for block in contents if block.middle in there]
