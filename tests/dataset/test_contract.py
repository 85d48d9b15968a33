"""The contract of datasets, held against the explicit transform by every class that stands behind it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.measurement_sets import CENTRE, Synthetic, build_ms
from tests.helpers.oracles import dft
from vis2img import Selection, open_ms
from vis2img.averaging.params import AveragingParams
from vis2img.averaging.run import average
from vis2img.coordinates import lm_to_pixel
from vis2img.dataset import AveragedSet, Dataset, MeasurementSet
from vis2img.errors import ParameterError, Vis2imgError
from vis2img.imaging.sampling import select_parts
from vis2img.ms.metadata import read_metadata
from vis2img.visibilities import Visibilities

PIXSIZE = math.radians(4 / 3600)
SOURCES = ((1.0, 0.0009, -0.0004), (0.4, -0.0006, 0.0007))  # to the east and south, to the west and north


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Synthetic:
    """Channels stored downwards; NaN, flags, weights of zero, and an antenna with itself among the rows."""
    ms = build_ms(
        tmp_path_factory.mktemp("contract") / "obs.ms", antennas=8, times=6, channels=6, sources=SOURCES,
        descending=True, weight_spectrum=True,
    )  # fmt: skip

    def spoil(data: np.ndarray) -> np.ndarray:
        data[1, 2] = np.nan
        return data

    def flags(flag: np.ndarray) -> np.ndarray:
        flag[::5, 1] = True
        return flag

    def weights(weight: np.ndarray) -> np.ndarray:
        weight[2, 3] = 0
        return weight * np.linspace(1, 3, len(weight))[:, None, None].astype(np.float32)

    def own(antenna2: np.ndarray) -> np.ndarray:
        antenna2[0] = 0
        return antenna2

    for column, change in (("DATA", spoil), ("FLAG", flags), ("WEIGHT_SPECTRUM", weights), ("ANTENNA2", own)):
        ms.edit(column, change)
    return ms


@pytest.fixture(scope="module", params=["measurement set", "averaged data"])
def dataset(observed: Synthetic, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    if request.param == "measurement set":
        return open_ms(observed.path)
    meta, out = read_metadata(observed.path), tmp_path_factory.mktemp("averaged") / "a.zarr"
    length = (meta.time_range[1] - meta.time_range[0]) / 1.5
    average(meta, out, AveragingParams((128, 128), PIXSIZE, CENTRE, time_block=length, channel_blocks=2))
    return open_ms(out)


def good_samples(observed: Synthetic) -> tuple[np.ndarray, np.ndarray]:
    """Return which samples [row, chan] can be used, by increasing frequency, and their weights (two hands)."""
    nrow = len(observed.uvw)
    good = np.ones((nrow, len(observed.freq)), bool)
    good[1, -1 - 2] = good[::5, -1 - 1] = good[2, -1 - 3] = False
    good[0] = False
    return good, np.where(good, 2 * np.linspace(1, 3, nrow)[:, None].astype(np.float32), 0)


def test_the_class_follows_from_the_path(dataset: Dataset) -> None:
    expected = AveragedSet if dataset.path.suffix == ".zarr" else MeasurementSet
    assert type(dataset) is expected and dataset.has_baselines == (expected is MeasurementSet)
    assert repr(dataset).startswith(f"{expected.__name__}(")


def test_axes(dataset: Dataset) -> None:
    for part in dataset.read_parts():
        assert part.vis.shape == part.weight.shape == (part.nrow, len(part.chan_freq)) and part.uvw.shape[1] == 3
        assert part.phase_centre == pytest.approx(CENTRE) and part.stokes == "I"
        assert (part.antenna1 is not None) == dataset.has_baselines == (part.averages is None) == (part.chan is None)
        assert part.chan is None or len(part.chan) == part.nrow


def test_signs_are_those_of_the_explicit_transform(dataset: Dataset) -> None:
    """Baselines and visibilities go together; u, v or the phase with the other sign is far off."""
    exact = 1e-5 if dataset.has_baselines else 0.03
    for part in dataset.read_parts():
        weight = part.weight / part.weight.sum()

        def off(expected: np.ndarray, part: Visibilities = part, weight: np.ndarray = weight) -> float:
            return math.sqrt(float((weight * abs(part.vis - expected) ** 2).sum()))

        expected = dft(part.uvw, part.chan_freq, SOURCES)
        assert off(expected) < exact
        assert min(off(expected.conj()), off(dft(part.uvw * [-1, 1, 1], part.chan_freq, SOURCES))) > 0.5


def test_a_source_to_the_east_is_on_the_left(dataset: Dataset) -> None:
    params = dataset.imaging_params(npix=128, pixsize=PIXSIZE)
    image = dataset.image(params)
    y, x = np.unravel_index(image.data.argmax(), image.data.shape)
    assert (x, y) == pytest.approx(lm_to_pixel(*SOURCES[0][1:], (128, 128), PIXSIZE), abs=1.5)
    assert x < 64 and y < 64


def test_flagged_samples_have_neither_value_nor_weight(dataset: Dataset, observed: Synthetic) -> None:
    good, weight = good_samples(observed)
    parts = dataset.read_parts()
    for part in parts:
        assert np.isfinite(part.vis).all() and np.isfinite(part.weight).all() and (part.weight >= 0).all()
        assert not part.vis[part.weight == 0].any()
    total = sum(float(part.weight.sum(dtype=float)) for part in parts)
    assert total == pytest.approx(float(weight.sum(dtype=float)), rel=1e-6)
    if dataset.has_baselines:
        (part,) = parts
        np.testing.assert_array_equal(part.weight > 0, good[1:])  # without the antenna with itself


def test_order_of_channels_and_rows_is_that_of_the_contract(dataset: Dataset, observed: Synthetic) -> None:
    parts = dataset.read_parts()
    freqs = np.concatenate([part.chan_freq for part in parts])
    assert (np.diff(freqs) > 0).all()
    again = dataset.read_parts(nthreads=1)
    for one, other in zip(parts, again, strict=True):
        for name in ("uvw", "chan_freq", "vis", "weight", "time"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for part in parts:
        assert (np.diff(part.time) >= 0).all()  # as they are stored
    if dataset.has_baselines:
        np.testing.assert_array_equal(parts[0].uvw, observed.uvw[1:])


def test_what_the_metadata_tell_is_what_is_read(dataset: Dataset) -> None:
    for selection in (Selection(), Selection(channels=(1, None))):
        outline, parts = dataset.outline(selection), dataset.read_parts(selection)
        assert len(outline.bands) == len(parts)
        for (freqs, width), part in zip(outline.bands, parts, strict=True):
            np.testing.assert_allclose(freqs, part.chan_freq, rtol=1e-12)
            assert width == part.origin.chan_width
        assert outline.phase_centre == pytest.approx(parts[0].phase_centre)
        assert (outline.telescope, outline.receiver) == (parts[0].origin.telescope, parts[0].origin.band)
        assert 0 < outline.beam < 0.1


def test_the_origin_is_what_was_opened_and_selected(dataset: Dataset) -> None:
    selection = Selection(times=(0, 1))
    (part, *_) = dataset.read_parts(selection)
    assert part.origin.paths == (str(dataset.path.resolve()),)
    assert part.origin.selection is not None and json.loads(part.origin.selection) == json.loads(
        json.dumps(asdict(selection))
    )


def test_times_and_channels_are_counted_in_order(dataset: Dataset) -> None:
    whole = dataset.read_parts()
    first = dataset.read_parts(Selection(times=(0, 1)))
    assert {float(part.time.max()) for part in first} == {float(whole[0].time[0])}
    for beyond in (Selection(channels=(6, None)), Selection(times=(6, None))):
        with pytest.raises(ParameterError, match=r"outside|none is chosen"):
            dataset.read_parts(beyond)


def test_one_part_is_read_where_there_is_one(dataset: Dataset) -> None:
    if dataset.has_baselines:
        assert dataset.read().nrow == dataset.read_parts()[0].nrow
        with pytest.raises(ParameterError, match="one Stokes parameter of one band"):
            dataset.read(Selection(stokes="IQ"))
    else:
        assert dataset.read(Selection(channels=(1, 2))).nrow == dataset.read_parts()[1].nrow
        with pytest.raises(ParameterError, match=r"one Stokes parameter of one band .* of 2; choose"):
            dataset.read()


def test_pieces_are_what_is_read_whole(dataset: Dataset) -> None:
    """Where parts open for reading in pieces, these join to the whole; where none does, the whole is read."""
    readers = dataset.open_parts(Selection())
    assert bool(readers) == dataset.has_baselines
    for reader, whole in zip(readers, dataset.read_parts(), strict=bool(readers)):
        halves = np.array_split(np.arange(reader.nrow), 2)
        for rows in halves:
            (piece,) = reader.read(rows, chans=slice(1, 4))
            np.testing.assert_array_equal(piece.vis, whole.vis[rows, 1:4])
            np.testing.assert_array_equal(piece.uvw, whole.uvw[rows])


def test_grids_fit(dataset: Dataset) -> None:
    suggested = dataset.imaging_params()
    assert dataset.imaging_params(npix=None, robust=0.5).npix == suggested.npix
    assert dataset.imaging_params(npix=64).npix == (64, 64)
    fine = dataset.imaging_params(pixsize=suggested.pixsize / 2)
    assert fine.pixsize == suggested.pixsize / 2
    if not dataset.has_baselines:  # the facet that they were averaged for
        assert (suggested.npix, suggested.pixsize, fine.npix) == ((128, 128), PIXSIZE, (256, 256))


def test_thinning_out_is_refused_where_baselines_are_gone(dataset: Dataset) -> None:
    params = dataset.imaging_params(npix=64, keep_antennas=0.5)
    if dataset.has_baselines:
        (part,) = select_parts(dataset.read_parts(), params)
        assert part.antenna1 is not None and len(np.unique(part.antenna1)) < 5
    else:
        with pytest.raises(ParameterError, match="no longer know their antennas"):
            select_parts(dataset.read_parts(), params)


def test_errors_name_the_path(dataset: Dataset, tmp_path: Path) -> None:
    for selection in (Selection(stokes="V"), Selection(column="NOT_THERE")):
        with pytest.raises(Vis2imgError, match=str(dataset.path)) as error:
            dataset.read_parts(selection)
        assert "\n" not in str(error.value)
    with pytest.raises(Vis2imgError, match="does not exist"):
        open_ms(tmp_path / "nothing.ms")


def test_averages_of_another_stokes_parameter_read_without_naming_it(tmp_path: Path) -> None:
    ms = build_ms(tmp_path / "obs.ms", corrs=("XX", "XY", "YX", "YY"), sources=SOURCES)
    ms.edit("DATA", lambda data: data * np.array([1.5, 0, 0, 0.5], np.complex64))
    params = AveragingParams((64, 64), PIXSIZE, CENTRE)
    average(read_metadata(ms.path), tmp_path / "q.zarr", params, Selection(stokes="Q"))
    assert open_ms(tmp_path / "q.zarr").image().stokes == "Q"
