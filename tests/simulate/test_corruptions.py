"""Gains, noise and missing antennas have the statistics that are asked for, and replay."""

import math
from pathlib import Path

import numpy as np
import pytest

from vis2img.simulate.config import SimulateConfig
from vis2img.simulate.corruptions import add_noise, draw_gains, draw_missing


def gains(seed=0, **changes):
    values = {
        "ntimes": 4000, "dtime": 10.0, "start_freq": 1e9, "chan_width": 10e6, "nchan": 32, "gain_amplitude": 0.05,
        "gain_phase": math.radians(4), "gain_timescale": 200.0, "bandpass_ripple": 0.02, "ripple_period": 80e6,
    }  # fmt: skip
    return draw_gains(np.random.default_rng(seed), SimulateConfig(out=Path("x.ms"), **{**values, **changes}), 6)


def test_gains_have_their_spread_and_timescale():
    g = gains().by_time
    assert g.shape == (4000, 6, 2)
    amplitude, phase = np.abs(g) - 1, np.angle(g)
    # About 4000 x 10 / 200 / 2 independent values of each of 12: the estimate is good to 4%.
    assert amplitude.std() == pytest.approx(0.05, rel=0.1)
    assert phase.std() == pytest.approx(math.radians(4), rel=0.1)
    lag = 20  # one timescale: the correlation falls to 1 / e
    for values in (amplitude, phase):
        together = np.mean(values[lag:] * values[:-lag]) / np.mean(values**2)
        assert together == pytest.approx(math.exp(-1), abs=0.1)
    one, other = phase[:, 0, 0], phase[:, 1, 0]
    assert abs(np.mean(one * other)) < 0.35 * one.std() * other.std()


def test_ripple_has_its_period_and_no_two_antennas_alike():
    b = gains().by_chan
    assert np.abs(b - 1).max() == pytest.approx(0.02, rel=0.02)
    spectrum = np.abs(np.fft.rfft(b.real - 1, axis=1))
    assert np.all(spectrum.argmax(axis=1) == 32 * 10e6 / 80e6)
    assert len({complex(x) for x in b[:, 0]}) == 6


def test_baselines_take_the_gain_of_one_and_the_conjugate_of_the_other():
    g = gains()
    factor = g.of_baselines(7, np.array([[0, 2], [1, 5]]), 1)
    expected = g.by_time[7, 2, 1] * np.conj(g.by_time[7, 5, 1]) * g.by_chan[2, 3] * np.conj(g.by_chan[5, 3])
    assert factor.shape == (2, 32)
    assert factor[1, 3] == pytest.approx(expected, rel=1e-6)


def test_no_errors_are_no_change():
    g = gains(gain_amplitude=0.0, gain_phase=0.0, bandpass_ripple=0.0)
    np.testing.assert_array_equal(g.of_baselines(3, np.array([[0], [4]]), 0), 1)


def test_noise_follows_sigma_by_channel_and_replays():
    sigma = np.array([0.1, 1.0, 5.0])
    one, two, other = (np.ones((20_000, 3, 2), np.complex64) for _ in range(3))
    for data, seed in ((one, [3, 1]), (two, [3, 1]), (other, [3, 2])):
        add_noise(data, sigma, seed)
    np.testing.assert_array_equal(one, two)
    assert np.mean(one == other) < 1e-3
    for part in ((one - 1).real, (one - 1).imag):
        np.testing.assert_allclose(part.std(axis=(0, 2)), sigma, rtol=0.02)
    assert abs(np.corrcoef((one - 1).real[..., 0].ravel(), (one - 1).real[..., 1].ravel())[0, 1]) < 0.02


def test_missing_antennas_are_distinct():
    away = draw_missing(np.random.default_rng(1), 10, 4)
    assert len(set(away.tolist())) == 4 and away.min() >= 0 and away.max() < 10
