"""Thinning out: what the sampling fields keep, in any mixture."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vis2img.errors import ParameterError
from vis2img.imaging.params import ImagingParams
from vis2img.imaging.sampling import select_samples
from vis2img.visibilities import Visibilities

CENTRE = (math.radians(53.1), math.radians(-27.8))
NPIX, PIXSIZE = (64, 48), math.radians(0.25)


def params(**changes) -> ImagingParams:
    return ImagingParams(**{"npix": NPIX, "pixsize": PIXSIZE, "weighting": "natural", "rank_filter": 0, **changes})


def labelled(nant=10, ntime=20, nchan=16) -> Visibilities:
    """Visibilities whose value tells their row and channel, in shuffled rows."""
    first, second = np.triu_indices(nant, 1)
    nrow = ntime * len(first)
    order = np.random.default_rng(5).permutation(nrow)
    row, chan = np.mgrid[0:nrow, 0:nchan]
    return Visibilities(
        uvw=np.stack([np.arange(nrow) + 1.0, -np.arange(nrow), np.ones(nrow)], axis=1),
        chan_freq=1e9 + 1e6 * np.arange(nchan),
        vis=(row + 1j * chan).astype(np.complex64),
        weight=(1 + row + chan / 64).astype(np.float32),
        time=np.repeat(5e9 + 8.0 * np.arange(ntime), len(first))[order],
        antenna1=np.tile(first, ntime)[order].astype(np.int32),
        antenna2=np.tile(second, ntime)[order].astype(np.int32),
        phase_centre=CENTRE,
    )


def assert_samples_match(part: Visibilities, whole: Visibilities) -> None:
    """Every array of ``part`` must tell of the same rows and channels."""
    rows, chans = part.vis[:, 0].real.astype(int), part.vis[0].imag.astype(int)
    np.testing.assert_array_equal(part.vis, whole.vis[np.ix_(rows, chans)])
    np.testing.assert_array_equal(part.weight, whole.weight[np.ix_(rows, chans)])
    np.testing.assert_array_equal(part.chan_freq, whole.chan_freq[chans])
    for name in ("uvw", "time", "antenna1", "antenna2"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[rows])


def baselines(vis: Visibilities) -> set[tuple[int, int]]:
    return set(zip(vis.antenna1.tolist(), vis.antenna2.tolist(), strict=True))


def test_defaults_keep_everything():
    vis = labelled()
    assert select_samples(vis, params()) is vis


@pytest.mark.parametrize(
    ("band", "chans"), [((0.25, 0.75), range(4, 12)), ((0.5, 1.0), range(8, 16)), ((0.0, 0.01), range(0, 1)),
                        ((0.99, 1.0), range(15, 16))]
)  # fmt: skip
def test_band_keeps_that_part_of_the_channels(band, chans):
    vis = labelled()
    part = select_samples(vis, params(band=band))
    assert_samples_match(part, vis)
    np.testing.assert_array_equal(part.chan_freq, vis.chan_freq[list(chans)])
    assert part.nrow == vis.nrow


@pytest.mark.parametrize(
    ("span", "steps"), [((0.25, 0.5), range(5, 10)), ((0.9, 1.0), range(18, 20)), ((0.0, 0.001), range(0, 1))]
)
def test_time_span_keeps_that_part_of_the_timesteps(span, steps):
    vis = labelled()
    part = select_samples(vis, params(time_span=span))
    assert_samples_match(part, vis)
    np.testing.assert_array_equal(np.unique(part.time), 5e9 + 8.0 * np.array(steps))
    assert part.nrow == 45 * len(steps)


def test_keep_times_keeps_a_fraction_of_whole_timesteps():
    vis = labelled()
    part = select_samples(vis, params(keep_times=0.35))
    assert_samples_match(part, vis)
    assert len(np.unique(part.time)) == 7 and part.nrow == 7 * 45
    both = select_samples(vis, params(keep_times=0.5, time_span=(0.5, 1.0)))
    times = np.unique(both.time)
    assert len(times) == 5 and times.min() >= 5e9 + 80


def test_keep_antennas_keeps_every_baseline_between_a_fraction_of_the_antennas():
    vis = labelled()
    part = select_samples(vis, params(keep_antennas=0.6))
    assert_samples_match(part, vis)
    kept = {a for pair in baselines(part) for a in pair}
    assert len(kept) == 6
    assert baselines(part) == {(a, b) for a in kept for b in kept if a < b}
    assert part.nrow == 15 * 20
    assert len(baselines(select_samples(vis, params(keep_antennas=0.01)))) == 1  # two antennas at least


def test_keep_baselines_keeps_a_fraction_of_whole_baselines():
    vis = labelled()
    part = select_samples(vis, params(keep_baselines=0.4))
    assert_samples_match(part, vis)
    assert len(baselines(part)) == 18 and part.nrow == 18 * 20


def test_antennas_without_data_are_not_counted():
    vis = labelled()
    vis = replace(vis, antenna1=(vis.antenna1 * 3).astype(np.int32), antenna2=(vis.antenna2 * 3).astype(np.int32))
    kept = {a for pair in baselines(select_samples(vis, params(keep_antennas=0.6))) for a in pair}
    assert len(kept) == 6 and all(a % 3 == 0 for a in kept)


@pytest.mark.parametrize("name", ["keep_times", "keep_antennas", "keep_baselines"])
def test_sampling_replays_from_its_seed_and_differs_between_seeds(name):
    vis = labelled()
    rows = {
        seed: [select_samples(vis, params(**{name: 0.5}, sampling_seed=seed)).vis[:, 0].real for _ in range(2)]
        for seed in range(4)
    }
    for first, again in rows.values():
        np.testing.assert_array_equal(first, again)
    assert len({tuple(first) for first, _ in rows.values()}) == 4


@settings(deadline=None, max_examples=40)
@given(
    low=st.floats(0, 0.9), width=st.floats(0.01, 1), times=st.floats(0.01, 1), antennas=st.floats(0.01, 1),
    pairs=st.floats(0.01, 1), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_any_sampling_leaves_matching_samples(low, width, times, antennas, pairs, seed):
    vis = labelled(nant=6, ntime=5, nchan=7)
    span = (low, min(1.0, low + width))
    how = params(
        band=span, time_span=span, keep_times=times, keep_antennas=antennas, keep_baselines=pairs,
        sampling_seed=seed,
    )  # fmt: skip
    try:
        part = select_samples(vis, how)
    except ParameterError:  # the baselines kept may all join dropped antennas
        assert antennas < 1 and pairs < 1
        return
    assert_samples_match(part, vis)
    assert part.nrow >= 1 and len(part.chan_freq) >= 1
