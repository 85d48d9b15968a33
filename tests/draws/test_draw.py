"""Draws: they replay, are the images of their parameters, whole or read in part, of several channels."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vis2img.dataset import open_ms
from vis2img.draws import observed_field
from vis2img.draws.field import make_draw
from vis2img.draws.observed_field import FieldData, ObservedField
from vis2img.draws.peaks import find_peaks, middles_of_emission, usable_cells
from vis2img.draws.prior import ImagingPrior
from vis2img.errors import EmptyImageError, MeasurementSetError
from vis2img.imaging.params import ImagingParams
from vis2img.ms.selection import Selection
from vis2img.random import draw_rng

ARCSEC = math.pi / 180 / 3600


def source_of(path: Path, selection: Selection | None = None, **changes: object) -> ObservedField:
    selection = selection or Selection()
    return ObservedField(str(path), selection, ImagingPrior.for_ms(open_ms(path), selection, npix=64), **changes)


def varied(source: ObservedField, **changes: tuple[float, float]) -> ObservedField:
    """Return the field with other ranges of its prior."""
    return replace(source, prior=replace(source.prior, ranges=replace(source.prior.ranges, **changes)))


def test_a_draw_replays_and_equals_the_image_of_its_parameters(make_ms) -> None:
    path = make_ms(antennas=9, sources=((1.0, 0.001, -0.002),)).path
    source, ms = source_of(path), open_ms(path)
    first, again = make_draw(source, 5, 2, 3), make_draw(source, 5, 2, 3)
    assert np.array_equal(first.data, again.data) and first.params == again.params
    assert first.data.shape[0] == 1 and first.record()["index"] == 3
    params = source.prior.draw(draw_rng(5, 2, 3))
    assert np.array_equal(ms.image(params, nthreads=1).data, source.draw(params).data[0])
    assert make_draw(source, 5, 2, 4).params != params


def test_the_noise_of_a_field_is_one_for_all_of_its_draws(make_ms) -> None:
    path = make_ms(antennas=9, sources=((1.0, 0.001, -0.002),)).path
    by_image, by_field = source_of(path, subbands=2), source_of(path, subbands=2, noise="field")
    pairs = [(make_draw(by_image, 5, 2, i), make_draw(by_field, 5, 2, i)) for i in range(2)]
    standard = by_image.draw(by_image.prior.fixed().draw(np.random.default_rng(7)))  # nothing of it is drawn
    for one, other in pairs:
        np.testing.assert_array_equal(one.data, other.data)
        np.testing.assert_array_equal(one.peaks, other.peaks)
        np.testing.assert_array_equal(other.noise, standard.noise)
        assert 0 < one.beam_area == other.beam_area
    assert not np.array_equal(pairs[0][0].noise, pairs[1][0].noise)


def test_data_read_in_part_are_those_read_whole(make_ms) -> None:
    path = make_ms(antennas=9, times=12, channels=8, sources=((1.0, 0.001, -0.002),)).path
    prior = source_of(path).prior
    whole, parts = FieldData(str(path), Selection(), 1e9), FieldData(str(path), Selection(), 1e9)
    parts._keeps = False  # as if there were too many to keep
    for index in range(6):
        params = prior.draw(draw_rng(0, 0, index))
        (a,), (b,) = whole.select(params), parts.select(params)
        for name in ("uvw", "chan_freq", "vis", "weight", "time", "antenna1", "antenna2"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert parts.nbytes < whole.nbytes


def test_a_draw_of_more_than_its_memory_is_thinned_out_by_timesteps(make_ms) -> None:
    made = make_ms(antennas=9, times=40, channels=8)
    memory = 36 * 40 * (8 * 16 + 40) / 4  # of 8 channels in 36 x 40 rows, and of the rows themselves
    data = FieldData(str(made.path), Selection(), memory)
    params = ImagingParams((64, 64), 5 * ARCSEC)
    thin = data.thinned(params)
    assert thin == replace(params, keep_times=0.25)
    (part,) = data.select(thin)
    assert part.nbytes - part.chan_freq.nbytes + 4 * part.vis.size <= memory and len(np.unique(part.time)) == 10
    assert data.thinned(replace(params, keep_baselines=0.2)) == replace(params, keep_baselines=0.2)
    # What is thinned out is what the record says: the image of its parameters.
    source = source_of(made.path, memory=memory)
    draw = make_draw(source, 0, 0, 0)
    again = open_ms(made.path).image(draw.params, nthreads=1)
    np.testing.assert_array_equal(draw.data[0], again.data)


def test_sub_bands_and_stokes_parameters_are_channels(make_ms) -> None:
    made = make_ms(antennas=9, channels=12, corrs=("XX", "XY", "YX", "YY"), sources=((1.0, 0.001, -0.002),))
    made.edit("DATA", lambda data: data[..., :1] * np.array([1.0, 0.0, 0.0, 0.4]))
    path = made.path
    source = source_of(path, Selection(stokes="IQ"), subbands=3)
    draw = make_draw(source, 1, 0, 2)
    assert source.channels == len(draw.data) == len(draw.noise) == len(draw.channels) == 6
    assert [c.stokes for c in draw.channels] == ["I"] * 3 + ["Q"] * 3
    freqs = [c.freq for c in draw.channels[:3]]
    assert freqs == sorted(set(freqs))
    ms = open_ms(path)
    for image, channel in zip(draw.data, draw.channels, strict=True):
        params = replace(draw.params, band=channel.band)
        alone = ms.image(params, Selection(stokes=channel.stokes), nthreads=1)
        np.testing.assert_array_equal(image, alone.data)
        assert alone.freq[0] == channel.freq
    with pytest.raises(EmptyImageError, match="sub-bands"):
        make_draw(source_of(path, subbands=13), 0, 0, 0)


def test_parameters_that_leave_nothing_are_drawn_again(make_ms) -> None:
    made = make_ms(antennas=9, channels=8)
    made.edit("FLAG", lambda flag: np.concatenate([np.ones_like(flag[:, :6]), flag[:, 6:]], axis=1))
    source = source_of(made.path)
    narrow = varied(source, band_fraction=(0.2, 0.3))
    drawn = [make_draw(narrow, 0, 0, index) for index in range(6)]
    assert all(np.isfinite(draw.noise).all() and draw.params.band[1] > 0.75 for draw in drawn)
    made.edit("FLAG", np.ones_like)
    for memory, error in ((2e6, MeasurementSetError), (1e3, EmptyImageError)):  # opened anew: whole, and in part
        with pytest.raises(error, match="flagged"):
            make_draw(replace(narrow, memory=memory), 0, 0, 0)


def test_a_draw_of_zeros_is_drawn_again_whatever_was_read_before(make_ms) -> None:
    """Channels of zeros: a draw must not depend on whether its worker has seen others."""
    made = make_ms(antennas=9, channels=8, sources=((1.0, 0.001, -0.002),))
    made.edit("DATA", lambda data: data * (np.arange(8) > 3)[:, None])
    drawn = []
    for memory in (1e9, 2e3):
        source = source_of(made.path, memory=memory)
        source = varied(source, band_fraction=(0.2, 0.4), keep_times=(1.0, 1.0))
        alone = [params_of_draw(source, index) for index in range(6)]
        assert len({params.band for params in alone}) == 6 and all(params.band[1] > 0.5 for params in alone)
        drawn.append([replace(params, keep_times=1.0) for params in alone])
    assert drawn[0] == drawn[1]


def params_of_draw(source: ObservedField, index: int) -> ImagingParams:
    """Return the parameters of a draw of a field that was not opened before."""
    observed_field._opened.clear()
    return make_draw(source, 0, 0, index).params


def test_peaks_are_found_where_the_sources_are() -> None:
    params = ImagingParams((128, 96), ARCSEC)
    data = np.random.default_rng(0).normal(scale=0.01, size=(96, 128)).astype(np.float32)
    data[70, 20], data[10, 100], data[73, 25] = 1.0, 0.5, 0.9  # the last is too near the first
    peaks = find_peaks(data, 0.01, params) / ARCSEC
    assert sorted(map(tuple, np.rint(peaks).astype(int))) == [(-36, -38), (44, 22)]


def test_patches_may_lie_in_the_middle_of_what_shines() -> None:
    """Lobes of a double source share one middle, what is alone is its own; noise moves them by less than a pixel."""
    params = ImagingParams((160, 96), ARCSEC)
    y, x = np.mgrid[:96, :160]
    data = np.random.default_rng(0).normal(scale=0.01, size=(96, 160)).astype(np.float32)
    for flux, column, row in ((1.0, 30, 40), (0.6, 54, 50), (0.8, 130, 60)):
        data += np.float32(flux) * np.exp(-0.5 * ((x - column) ** 2 + (y - row) ** 2) / 2.0**2).astype(np.float32)
    data[:, 158:] = np.nan
    peaks = find_peaks(data, 0.01, params)
    assert len(peaks) == 3
    middles = middles_of_emission(data, 0.01, params, peaks, 80 * ARCSEC)
    l, m = (middles[np.argsort(middles[:, 0])] / ARCSEC).T
    np.testing.assert_allclose([l[0], m[0]], [80 - 130, 60 - 48], atol=0.5)
    # Near the middle of 30 and 54, 40 and 50, towards the brighter lobe.
    assert len(middles) == 2 and 34 < 80 - l[1] < 46 and 41 < m[1] + 48 < 47
    assert middles_of_emission(data, 0.01, params, peaks[:0], 80 * ARCSEC).shape == (0, 2)


@pytest.mark.filterwarnings("ignore::vis2img.errors.Vis2imgWarning")  # of baselines shorter than dishes
def test_a_draw_of_the_whole_sky_has_zeros_beyond_the_horizon(make_ms) -> None:
    made = make_ms(size_m=6.0, sources=((1.0, 0.3, -0.4),))
    params = ImagingParams((64, 64), math.radians(1.7), "natural")
    draw = source_of(made.path).draw(params)
    image = open_ms(made.path).image(params, nthreads=1)
    beyond = np.isnan(image.data)
    assert 500 < beyond.sum() < 700 and not draw.data[0, beyond].any()
    np.testing.assert_array_equal(draw.data[0, ~beyond], image.data[~beyond])
    assert draw.noise[0] == image.noise() and np.isfinite(image.noise())
    assert "nan" not in repr(image)
    assert not draw.usable[beyond].any() and draw.usable[~beyond].all()


def test_blank_parts_are_marked() -> None:
    data = np.ones((2, 128, 256), np.float32)
    assert usable_cells(data, ARCSEC).all() and usable_cells(data, ARCSEC).shape == (64, 64)
    data[0, 10, 100] = np.nan
    data[1, 64:, :128] = 0
    usable = usable_cells(data, ARCSEC)
    assert not usable[5, 25] and not usable[32:, :32].any() and usable.sum() == 64 * 64 - 32 * 32 - 1
    wide = usable_cells(np.ones((1, 64, 64), np.float32), 1.9 / 64)
    assert wide[32, 32] and wide[32, 2] and not wide[0, 0] and not wide[63, 63]
