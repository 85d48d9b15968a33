"""Cubes, means of their planes, and many draws: against single images of the same visibilities, and memory."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from vis2img.errors import ParameterError
from vis2img.imaging.cubes import make_cube, make_draws, mean_image, plane_axes
from vis2img.imaging.image import make_image
from vis2img.imaging.memory import check_memory, copied_bytes, image_bytes, planes_bytes
from vis2img.imaging.params import ImagingParams
from vis2img.visibilities import Origin, Visibilities

C = 2.99792458e8  # m/s
CENTRE = (0.93, -0.485)
NPIX, PIXSIZE = (64, 48), 1.5e-3
FREQ = np.array([9.0e8, 1.0e9, 1.15e9, 1.2e9])
TIMES = 8


def observed(freq=FREQ, nant=12, seed=1) -> Visibilities:
    """Baselines that turn with time, longer east than north, one source off centre, uneven weights."""
    rng = np.random.default_rng(seed)
    place = rng.normal(size=(nant, 2)) * np.array([25.0, 12.0])
    first, second = np.triu_indices(nant, 1)
    turns = np.linspace(0, 0.8, TIMES)
    turn = np.array([[np.cos(turns), -np.sin(turns)], [np.sin(turns), np.cos(turns)]])
    uv = np.einsum("ijt,bj->tbi", turn, place[second] - place[first]).reshape(-1, 2)
    uvw = np.concatenate([uv, np.zeros((len(uv), 1))], axis=1)
    l, m = 0.021, -0.012
    phase = 2 * np.pi / C * np.outer(uvw[:, 0] * l + uvw[:, 1] * m, freq)
    nrow = len(uvw)
    return Visibilities(
        uvw=uvw,
        chan_freq=freq,
        vis=np.exp(1j * phase).astype(np.complex64),
        weight=rng.uniform(0.1, 4, (nrow, len(freq))).astype(np.float32),
        time=np.repeat(5e9 + 10.0 * np.arange(TIMES), len(first)),
        antenna1=np.tile(first, TIMES).astype(np.int32),
        antenna2=np.tile(second, TIMES).astype(np.int32),
        phase_centre=CENTRE,
    )


def params(**changes) -> ImagingParams:
    return ImagingParams(**{"npix": NPIX, "pixsize": PIXSIZE, "weighting": "natural", "rank_filter": 0, **changes})


def relative(a, b) -> float:
    return float(np.linalg.norm(np.asarray(a) - b) / np.linalg.norm(b))


def free(monkeypatch, nbytes: float) -> None:
    monkeypatch.setattr("vis2img.imaging.memory.free_bytes", lambda: int(nbytes))


def test_memory_counts_planes_that_are_held_and_visibilities_that_are_copied(monkeypatch):
    how = params(npix=(1024, 1024), pixsize=1e-5)
    free(monkeypatch, 100 * 1024**2)
    check_memory(how)
    assert planes_bytes(how, 16) == 16 * 4 * 1024**2 and planes_bytes(how, 16, psf=True) == 32 * 4 * 1024**2
    with pytest.raises(ParameterError, match="planes that are held"):
        check_memory(how, held=planes_bytes(how, 64))
    with pytest.raises(ParameterError, match="copies of the visibilities"):
        check_memory(how, copied=2 * 10**8)
    vis = observed()
    plain, half = params(), params(keep_times=0.5)
    assert copied_bytes([vis], plain) == 4 * vis.vis.size and copied_bytes([vis], plain, reuse=True) == 0
    assert copied_bytes([vis], half) == 8 * vis.vis.size  # weights, and visibilities with their weights, of half
    assert copied_bytes([vis], params(phase_centre=(0.0, 0.0))) == 12 * vis.vis.size
    free(monkeypatch, 1e5)
    with pytest.raises(ParameterError, match="memory"):
        make_image(observed(), params())


def test_draws_at_once_are_those_that_fit(monkeypatch):
    """As many threads as asked for, or as the memory allows; never more in all for several Stokes parameters."""
    vis = observed()
    variants = [params(keep_times=0.5, sampling_seed=i) for i in range(6)]
    each = 2 * 4 * NPIX[0] * NPIX[1] + image_bytes(variants[0]) + copied_bytes([vis], variants[0])
    running, most, lock = [0], [0], threading.Lock()

    def counted(*args, **options):
        with lock:
            running[0] += 1
            most[0] = max(most)
            most.append(running[0])
        image = make_image(*args, **options)
        time.sleep(0.01)
        with lock:
            running[0] -= 1
        return image

    monkeypatch.setattr("vis2img.imaging.cubes.make_image", counted)
    for room, workers, expected in ((2.5, 8, 2), (0.5, 8, 1), (1000, 3, 3)):
        most[:] = [0]
        monkeypatch.setattr("vis2img.imaging.memory.free_bytes", lambda room=room: int(room * each))
        monkeypatch.setattr("vis2img.imaging.image.check_memory", lambda *args, **options: None)
        images = list(make_draws([[vis], [replace(vis, stokes="Q")]], variants, workers=workers))
        assert max(most) == expected
        assert [[image.stokes for image in row] for row in images] == [["I", "Q"]] * 6
        assert [row[1].params.sampling_seed for row in images] == list(range(6))


# Cubes.


def test_axes_of_planes_are_those_of_the_images():
    """Windows of other channels, one of them thinned out: known without the visibilities."""
    windows = ((FREQ, 4e7), (np.array([1.05e9, 1.3e9]), 9e7))
    parts = [replace(observed(freq), origin=Origin(chan_width=width)) for freq, width in windows]
    for how in (params(), params(band=(0.0, 0.5))):
        axes = plane_axes([(part.chan_freq, part.origin.chan_width) for part in parts], how, 2)
        (planes,) = make_cube(parts, how, channels_out=2)
        assert axes == [(plane.band_centre, plane.freq[1]) for plane in planes]
        alone = [make_image([part.subset(np.arange(part.nrow), chans) for part, chans in piece], how)
                 for piece in ([(parts[0], slice(0, 2)), (parts[1], slice(0, 1))],
                               [(parts[0], slice(2, 4)), (parts[1], slice(1, 2))])]  # fmt: skip
        assert axes == [(image.band_centre, pytest.approx(image.freq[1])) for image in alone]
    with pytest.raises(ParameterError, match="channels_out = 7, but there are 6 channels"):
        plane_axes([(part.chan_freq, 0.0) for part in parts], params(), 7)


def test_a_plane_without_data_is_blank():
    vis = observed()
    weight = vis.weight.copy()
    weight[:, 1] = 0
    (planes,) = make_cube(replace(vis, weight=weight), params(), channels_out=4, psf=True)
    assert [plane.nvis > 0 for plane in planes] == [True, False, True, True]
    assert np.isnan(planes[1].data).all() and np.isnan(planes[1].psf).all() and planes[1].beam is None
    assert [plane.band_centre for plane in planes] == pytest.approx(FREQ)
    np.testing.assert_array_equal(
        planes[2].data, make_image(vis.subset(np.arange(vis.nrow), slice(2, 3)), params()).data
    )
    mean, without = mean_image(planes), mean_image([planes[0], *planes[2:]])
    np.testing.assert_array_equal(mean.data, without.data)
    assert np.isfinite(mean.data).all() and mean.nvis == np.count_nonzero(weight)
    with pytest.raises(ParameterError, match=r"every plane is empty: .*longest baseline"):
        list(make_cube(vis, params(uvrange=(1e6, math.inf)), channels_out=2, intervals_out=2))


def test_an_interval_without_data_is_blank_wherever_it_is():
    vis = observed()
    times = np.unique(vis.time)
    for empty in ([0], [1], [3], [0, 1], [0, 3]):
        groups = times.reshape(4, 2)
        bad = np.isin(vis.time, np.concatenate([groups[i] for i in empty]))
        flagged = replace(vis, weight=np.where(bad[:, None], np.float32(0), vis.weight))
        cube = list(make_cube(flagged, params(), intervals_out=4))
        assert [row[0].nvis == 0 for row in cube] == [i in empty for i in range(4)]
        assert [row[0].split.interval for row in cube] == [0, 1, 2, 3]


def test_mean_of_planes_is_the_image_of_all_with_natural_weights():
    """What natural weighting makes of all channels at once: pixels, beam, channels, times, frequency."""
    vis = observed()
    late = vis.time > np.median(vis.time)
    weight = vis.weight.copy()
    weight[late, 0] = weight[~late, 3] = 0
    vis = replace(vis, weight=weight, origin=Origin(chan_width=5e7))
    whole = make_image(vis, params(), psf=True)
    (planes,) = make_cube(vis, params(), channels_out=4, psf=True)
    mean = mean_image(plane for plane in planes)  # one by one
    assert relative(mean.data, whole.data) < 1e-4 and relative(mean.psf, whole.psf) < 1e-4
    assert mean.beam == pytest.approx(whole.beam, rel=1e-2)  # of the planes' beams: the image is few beams wide
    assert planes[2].beam != pytest.approx(whole.beam, rel=1e-2)
    for ours, theirs in ((mean.channels, whole.channels), (mean.times, whole.times)):
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-5)
    assert mean.freq == pytest.approx(whole.freq) and mean.band_centre == pytest.approx(whole.band_centre)
    assert mean.time_start == vis.time.min()
    assert (mean.nvis, mean.weight_sum) == (whole.nvis, pytest.approx(whole.weight_sum))


@pytest.mark.parametrize("weighting", ["uniform", "briggs"])
def test_beam_of_a_mean_fits_its_point_spread_function(weighting):
    """Against scipy's least squares on the pixels of the mean PSF."""
    from scipy.ndimage import label
    from scipy.optimize import curve_fit

    vis = observed(np.linspace(0.6e9, 1.2e9, 6), nant=30)
    npix, pixsize = (256, 256), 4e-4
    how = params(npix=npix, pixsize=pixsize, weighting=weighting)
    (planes,) = make_cube(vis, how, channels_out=6, psf=True)
    mean = mean_image(planes)
    y, x = np.mgrid[:256, :256]
    l, m = (128 - x) * pixsize, (y - 128) * pixsize
    lobe = label(mean.psf > 0.35)[0]
    lobe = lobe == lobe[128, 128]

    def gaussian(at, a, b, c):
        return np.exp(-(a * at[0] ** 2 + 2 * b * at[0] * at[1] + c * at[1] ** 2) / 2)

    start = 8 * math.log(2) / mean.beam[0] ** 2
    (a, b, c), _ = curve_fit(gaussian, (l[lobe], m[lobe]), mean.psf[lobe], p0=(start, 0, start))
    widths = sorted(math.sqrt(8 * math.log(2) / value) for value in np.linalg.eigvalsh([[a, b], [b, c]]))
    assert np.count_nonzero(lobe) > 20
    assert sorted(mean.beam[:2]) == pytest.approx(widths, rel=0.02)
    assert sorted(planes[0].beam[:2]) != pytest.approx(widths, rel=0.1)
