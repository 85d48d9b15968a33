"""What stands between the sky and the data: gains, bandpass, noise, flags. Pure functions of seeded generators.

    data = g_p(t) b_p(nu) conj(g_q(t) b_q(nu)) sky + noise

(Smirnov 2011, A&A 527, A106: gains by antenna and feed, without leakage.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vis2img.errors import ParameterError
from vis2img.simulate.config import SimulateConfig

_RFI_SHARE = 2 / 3  # of the flags; the rest are antennas that drop out


@dataclass(frozen=True, eq=False)
class Gains:
    """Residual calibration errors."""

    by_time: np.ndarray
    """complex64 [time, antenna, feed]."""
    by_chan: np.ndarray
    """complex64 [antenna, chan]."""

    def of_baselines(self, time: int, antennas: np.ndarray, feed: int) -> np.ndarray:
        """Return the factor [baseline, chan] of a time for ``antennas`` int [2, baseline]."""
        first, second = antennas
        gain = self.by_time[time, first, feed] * self.by_time[time, second, feed].conj()
        return gain[:, np.newaxis] * (self.by_chan[first] * self.by_chan[second].conj())


@dataclass(frozen=True, eq=False)
class Corruptions:
    """All that is put on the data of an observation."""

    rfi: np.ndarray
    """bool [time, chan]."""
    dropped: np.ndarray
    """bool [time, baseline]."""
    missing: np.ndarray
    """Antennas that are away throughout, int [k]; ``dropped`` holds them too."""
    gains: Gains | None
    sigma: np.ndarray
    """Noise in Jy, float64 [chan]."""
    noise_seed: int

    def data(self, time: int, vis: np.ndarray, antennas: np.ndarray, ncorr: int) -> np.ndarray:
        """Return the data [baseline, chan, corr] of one time; ``vis`` [baseline, chan] is the sky's."""
        data = np.zeros((*vis.shape, ncorr), np.complex64)
        for feed, corr in enumerate((0, ncorr - 1)):
            data[..., corr] = vis if self.gains is None else vis * self.gains.of_baselines(time, antennas, feed)
        if self.sigma.any():
            add_noise(data, self.sigma, [self.noise_seed, time])
        return data

    def flagged(self, time: int) -> np.ndarray:
        """Return the flags [baseline, chan] of one time."""
        return self.rfi[time] | self.dropped[time, :, np.newaxis]

    def images(self) -> dict[str, np.ndarray]:
        """Return what is told of them beside the catalogue.

        RFI uint8 [time, chan]; DROPPED uint8 [time, baseline]; if there are gains, GAINS float32 [time, antenna,
        feed, 2] (real and imaginary part) and BANDPASS float32 [antenna, chan].
        """
        images = {"RFI": self.rfi.astype(np.uint8), "DROPPED": self.dropped.astype(np.uint8)}
        if self.gains is not None:
            by_time = self.gains.by_time
            images["GAINS"] = np.stack([by_time.real, by_time.imag], axis=-1)
            images["BANDPASS"] = np.ascontiguousarray(self.gains.by_chan.real)
        return images


def draw_corruptions(config: SimulateConfig, antennas: np.ndarray, nant: int, seeds: list[int]) -> Corruptions:
    """Draw gains and flags for ``antennas`` int [2, baseline]; ``seeds`` are those of noise, flags and gains.

    Raises
    ------
    ParameterError
        If too few of the ``nant`` antennas would be left.
    """
    if config.missing_antennas > nant - 2:
        raise ParameterError(f"missing_antennas = {config.missing_antennas}: {config.telescope} has {nant}")
    noise_seed, flag_seed, gain_seed = seeds
    rng = np.random.default_rng(flag_seed)
    rfi, dropped = draw_flags(rng, config.flag_fraction, config.ntimes, config.nchan, antennas)
    missing = draw_missing(rng, nant, config.missing_antennas)
    dropped |= np.isin(antennas, missing).any(axis=0)
    off = config.gain_amplitude or config.gain_phase or config.bandpass_ripple
    gains = draw_gains(np.random.default_rng(gain_seed), config, nant) if off else None
    return Corruptions(rfi, dropped, missing, gains, config.sigma, noise_seed)


def draw_gains(rng: np.random.Generator, config: SimulateConfig, nant: int) -> Gains:
    """Draw gains ``(1 + a) exp(i p)`` and a bandpass ``1 + ripple cos(2 pi nu / period + phase)`` of ``nant`` antennas.

    ``a`` and ``p`` are stationary first-order autoregressive (Ornstein-Uhlenbeck) processes of the amplitude, phase and
    timescale of ``config``; the standing wave has a phase of its own for each antenna.
    """
    steps = rng.standard_normal((config.ntimes, nant, 2, 2))
    memory = math.exp(-config.dtime / config.gain_timescale)
    for i in range(1, config.ntimes):
        steps[i] = memory * steps[i - 1] + math.sqrt(1 - memory**2) * steps[i]
    by_time = (1 + config.gain_amplitude * steps[..., 0]) * np.exp(1j * config.gain_phase * steps[..., 1])
    turns = config.chan_freq / config.ripple_period + rng.uniform(0, 1, (nant, 1))
    by_chan = 1 + config.bandpass_ripple * np.cos(2 * math.pi * turns)
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
