"""What stands between the sky and the data: gains, bandpass, noise, flags. Pure functions of seeded generators.

    data = g_p(t) b_p(nu) conj(g_q(t) b_q(nu)) sky + noise

(Smirnov 2011, A&A 527, A106: gains by antenna and feed, without leakage.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_RFI_SHARE = 2 / 3  # of the flags; the rest are antennas that drop out


@dataclass(frozen=True, eq=False)
class Gains:
    """Residual calibration errors.

    Parameters
    ----------
    by_time : complex64 [time, antenna, feed]
    by_chan : complex64 [antenna, chan]
    """

    by_time: np.ndarray
    by_chan: np.ndarray

    def of_baselines(self, time: int, antennas: np.ndarray, feed: int) -> np.ndarray:
        """Return the factor [baseline, chan] of a time for ``antennas`` int [2, baseline]."""
        first, second = antennas
        gain = self.by_time[time, first, feed] * self.by_time[time, second, feed].conj()
        return gain[:, np.newaxis] * (self.by_chan[first] * self.by_chan[second].conj())


def draw_gains(
    rng: np.random.Generator,
    ntimes: int,
    nant: int,
    chan_freq: np.ndarray,
    *,
    dtime: float,
    amplitude: float,
    phase: float,
    timescale: float,
    ripple: float,
    ripple_period: float,
) -> Gains:
    """Draw gains ``(1 + a) exp(i p)`` and a bandpass ``1 + ripple cos(2 pi nu / period + phase)``.

    Parameters
    ----------
    chan_freq : float64 [chan]
        Hz.
    dtime, timescale : float
        Integration time and the time over which gains stay alike, s: ``a`` and ``p`` are stationary first-order
        autoregressive (Ornstein-Uhlenbeck) processes.
    amplitude : float
        Standard deviation of ``a``.
    phase : float
        Standard deviation of ``p`` in rad.
    ripple : float
        Amplitude of the standing wave in the bandpass of each antenna, at a phase of its own.
    ripple_period : float
        Hz.
    """
    steps = rng.standard_normal((ntimes, nant, 2, 2))
    memory = math.exp(-dtime / timescale)
    for i in range(1, ntimes):
        steps[i] = memory * steps[i - 1] + math.sqrt(1 - memory**2) * steps[i]
    by_time = (1 + amplitude * steps[..., 0]) * np.exp(1j * phase * steps[..., 1])
    turns = chan_freq / ripple_period + rng.uniform(0, 1, (nant, 1))
    by_chan = 1 + ripple * np.cos(2 * math.pi * turns)
    return Gains(by_time.astype(np.complex64), by_chan.astype(np.complex64))


def add_noise(data: np.ndarray, sigma: np.ndarray, seed: list[int]) -> None:
    """Add Gaussian noise of ``sigma`` [chan] Jy to the real and the imaginary part of ``data`` [row, chan, corr]."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((*data.shape, 2), dtype=np.float32)
    noise *= sigma.astype(np.float32)[:, np.newaxis, np.newaxis]
    data += noise.view(np.complex64)[..., 0]


def draw_missing(rng: np.random.Generator, nant: int, count: int) -> np.ndarray:
    """Return the numbers of ``count`` antennas that are away throughout."""
    return np.sort(rng.choice(nant, size=count, replace=False))


def draw_flags(
    rng: np.random.Generator, fraction: float, ntimes: int, nchan: int, antennas: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Flag a ``fraction`` of the data: RFI [time, chan] and lost antennas [time, baseline].

    About a third of the flags are antennas missing for up to a quarter of the observation; the rest are
    blocks of up to an eighth of the band and a quarter of the time on all baselines, the last of which is
    cut so that the fraction is met to one channel at one time.

    Parameters
    ----------
    antennas : int [2, baseline]
    """
    rfi = np.zeros((ntimes, nchan), dtype=bool)
    dropped = np.zeros((ntimes, antennas.shape[1]), dtype=bool)
    numbers = np.unique(antennas)
    while True:
        start, length = rng.integers(ntimes), rng.integers(1, ntimes // 4 + 2)
        trial = dropped.copy()
        trial[start : start + length] |= np.any(antennas == rng.choice(numbers), axis=0)
        if trial.mean() > fraction * (1 - _RFI_SHARE):
            break
        dropped = trial
    # What one channel at one time adds, beyond the baselines that are flagged there already.
    gain = np.repeat(1 - dropped.mean(axis=1), nchan) / rfi.size
    missing = fraction - dropped.mean()
    while missing > gain.max() / 2:
        t, c = rng.integers(ntimes), rng.integers(nchan)
        span, width = rng.integers(1, ntimes // 4 + 2), rng.integers(1, nchan // 8 + 2)
        block = np.zeros_like(rfi)
        block[t : t + span, c : c + width] = True
        new = np.flatnonzero(block & ~rfi)
        new = new[np.cumsum(gain[new]) - gain[new] / 2 < missing]
        rfi.flat[new] = True
        missing -= gain[new].sum()
    return rfi, dropped
