"""The loader: fixed shapes, batches that replay on any number of workers, exact resume, shares, failures named."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

from vis2img.cluster.engine import Connection, Engine, connect
from vis2img.coordinates import direction_cosines, sky_position
from vis2img.draws.field import make_draw
from vis2img.errors import MeasurementSetError, OutputError, ParameterError, Vis2imgError
from vis2img.loader.batches import Batch
from vis2img.loader.config import LoaderConfig
from vis2img.loader.fields import fields_of
from vis2img.loader.handover import SharedFolder
from vis2img.loader.loader import Loader
from vis2img.loader.places import Places
from vis2img.loader.requests import DrawRequests
from vis2img.random import draw_rng
from vis2img.views.crops import ViewConfig
from vis2img.views.stretch import Stretch

VIEWS = ViewConfig(patch_npix=24, global_size=16, local_size=8, n_local=2)


@pytest.fixture(scope="module")
def workers() -> Iterator[Connection]:
    """Two workers that the tests of this module share, as processes take seconds to start."""
    with connect(Engine(workers=2)) as connection:
        yield connection


@pytest.fixture
def sets(make_ms) -> tuple[str, ...]:
    """Two measurement sets of different skies."""
    return tuple(
        str(make_ms(name=f"f{i}", antennas=8, times=4, seed=i, sources=((1.0, 1e-3 * i, 1e-3),)).path) for i in range(2)
    )


def config(ms: tuple[str, ...], **changes: object) -> LoaderConfig:
    values = {
        "batch_size": 6,
        "field_npix": 64,
        "views": VIEWS,
        "mode": "sync",
        "refresh_every": 2,
        "draws_per_field": 2,
        "engine": Engine(workers=1),
    }
    return LoaderConfig(ms=ms, **{**values, **changes})


def same(a: Batch, b: Batch) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in vars(a))


def wait_for(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait until something is so, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def test_batches_have_fixed_shapes_and_patches_lie_in_the_field(sets, workers) -> None:
    with Loader(config(sets), seed=1, connection=workers) as loader:
        iterator = iter(loader)
        batches = [next(iterator) for _ in range(5)]
        centre = loader.source.pool.entries[0].draw.phase_centre
        fov = loader.source.fields[0].prior.fov
        records, report = loader.source.records(), loader.report()
    for batch in batches:
        assert batch.global_views.shape == (2, 6, 16, 16, 1) and batch.global_views.dtype == np.float32
        assert batch.local_views.shape == (2, 6, 8, 8, 1) and len(batch) == 6
        assert np.isfinite(batch.global_views).all() and batch.global_views.std() > 0.05
        assert not batch.angle.any() and np.isfinite(batch.position).all()
        assert batch.draw_index.shape == (6, 4) and batch.turns.shape == (4, 6) and batch.box.shape == (6, 4, 3)
        offsets = direction_cosines(batch.position[:, 0], batch.position[:, 1], centre)[:, :2]
        assert np.abs(offsets).max() < fov / 2
    assert {int(f) for batch in batches for f in batch.item} == {0, 1}
    # Two draws of each of two fields fill the pool; batches 2 and 4 take one more each.
    assert max(batch.draw_index.max() for batch in batches) == 2
    assert len(records) == 4 and {"weighting", "pixsize", "field", "index", "channels"} <= set(records[0])
    assert report["fresh_draws"] >= 6 and report["bytes_read"] > 0 and report["draw_reuse"] > 6
    with pytest.raises(Vis2imgError, match="closed"):
        loader.next_batch()


def test_a_synchronous_run_replays_on_any_number_of_workers_and_resumes_exactly(sets, workers) -> None:
    with Loader(config(sets), seed=1, connection=workers) as loader:
        first = [loader.next_batch() for _ in range(6)]
    # Its own single worker, and other threads that cut.
    with Loader(config(sets, prefetch=1, cutters=1), seed=1) as loader:
        again = [loader.next_batch() for _ in range(3)]
        time.sleep(0.5)  # batches made ahead must not count as delivered
        state = loader.state()
    assert state["batches"] == 3
    assert all(same(a, b) for a, b in zip(first, again, strict=False))
    with Loader(config(sets), seed=1, state=state, connection=workers) as loader:
        rest = [loader.next_batch() for _ in range(3)]
    assert all(same(a, b) for a, b in zip(first[3:], rest, strict=True))
    with Loader(config(sets), seed=2, connection=workers) as loader:
        assert not same(first[0], loader.next_batch())


def test_a_run_goes_on_exactly_though_draws_fail(make_ms, workers) -> None:
    """Three antennas: parameters often leave no baseline. Twelve draws of them in a row may not."""
    made = make_ms(antennas=8, times=4, channels=8)
    made.edit("FLAG", lambda flag: np.concatenate([np.ones_like(flag[:, :7]), flag[:, 7:]], axis=1))
    prior = made.path.parent / "narrow.yaml"
    prior.write_text("preset: image-only\nband_fraction: [0.05, 0.12]\n")  # mostly parts that are all flagged
    wanted = config((str(made.path),), refresh_every=1, imaging=str(prior))
    states, batches, failed = [], [], []
    with Loader(wanted, seed=2, connection=workers) as loader:
        for _ in range(14):
            batches.append(loader.next_batch())
            states.append(loader.state())
        failed = [loader.source.pool.tally.empty]
    assert failed[0] >= 1  # else this tests nothing
    for start in range(0, 13, 2):
        with Loader(wanted, seed=2, state=json.loads(json.dumps(states[start])), connection=workers) as loader:
            assert same(loader.next_batch(), batches[start + 1])
            assert same(loader.next_batch(), batches[start + 2]) if start + 2 < 14 else True


def test_a_killed_worker_is_replaced_and_no_sample_is_lost_or_doubled(sets) -> None:
    wanted = config(sets, refresh_every=1, engine=Engine(workers=2))
    with Loader(wanted, seed=3) as loader:
        undisturbed = [loader.next_batch() for _ in range(12)]
    disturbed, killed = [], []
    with Loader(wanted, seed=3) as loader:
        client = loader.source.pool.requests.client
        for number in range(12):
            disturbed.append(loader.next_batch())
            if number in (1, 4, 7):
                wait_for(lambda: any(client.processing().values()))
                # None answers while both are on their way back from an earlier death.
                killed.append(wait_for(lambda: list(client.run(os.getpid, on_error="ignore").values()))[0])
                os.kill(killed[-1], signal.SIGKILL)
        assert loader.report()["repeated_draws"] >= 1  # at least one was at work when it died
    assert len(set(killed)) == 3
    assert all(same(a, b) for a, b in zip(undisturbed, disturbed, strict=True))


def test_the_asynchronous_pool_is_refreshed_and_tells_its_age(sets, workers) -> None:
    with Loader(config(sets, mode="async"), seed=1, connection=workers) as loader:
        loader.next_batch()
        deadline = time.monotonic() + 60
        # Draws come in any order: one may count in the state while an earlier one is still to come.
        while (
            min(loader.state()["next_draw"], loader.report()["fresh_draws"]) <= 3 * loader.source.pool.capacity
            and time.monotonic() < deadline
        ):
            loader.next_batch()
            time.sleep(0.02)
        report = loader.report()
        state = loader.state()
    # Closed, as the pool goes on by itself while it is open.
    capacity, indices = loader.source.pool.capacity, [entry.draw.index for entry in loader.source.pool.entries]
    assert report["fresh_draws"] > 3 * capacity and state["next_draw"] > 3 * capacity
    assert 0 < report["draw_age"] < 60 and report["draw_reuse"] > 0
    assert min(indices) > 0 and len(indices) == capacity
    with Loader(config(sets, mode="async"), seed=1, state=state, connection=workers) as loader:
        loader.next_batch()
        assert loader.batches == state["batches"] + 1
        # Draws of the two fields take turns; the pool goes on where that of the batch delivered last was.
        assert min(entry.draw.index for entry in loader.source.pool.entries) >= (state["next_draw"] - capacity) // 2 > 0
        assert max(entry.draw.index for entry in loader.source.pool.entries) >= (state["next_draw"] - 1) // 2


def test_hosts_share_a_run_without_a_sample_twice(sets, workers) -> None:
    seen: list[set[tuple[object, ...]]] = []
    for host in range(2):
        with Loader(config(sets), seed=1, connection=workers, host=host, hosts=2) as loader:
            batches = [loader.next_batch() for _ in range(4)]
        assert all(len(batch) == 3 for batch in batches)
        seen.append({tuple(p) for batch in batches for p in batch.position.tolist()})
        draws = {(int(f), int(i)) for b in batches for f, d in zip(b.item, b.draw_index, strict=True) for i in d}
        assert {index % 2 for _, index in draws} == {host}
    assert len(seen[0]) == len(seen[1]) == 12 and not seen[0] & seen[1]
    with pytest.raises(ParameterError, match="multiple"):
        Loader(config(sets), connection=workers, hosts=4)


def test_samples_come_by_weight(sets, workers) -> None:
    with Loader(config(sets, weights=(1.0, 4.0), batch_size=200), seed=1, connection=workers) as loader:
        field = loader.next_batch().item
    assert 0.7 < field.mean() < 0.9
    with pytest.raises(ParameterError, match="weights"):
        config(sets, weights=(1.0,))


def test_more_fields_than_the_pool_holds_are_visited_in_turns(make_ms, workers) -> None:
    ms = tuple(str(make_ms(name=f"m{i}", antennas=6, times=3, seed=i).path) for i in range(5))
    with Loader(config(ms, fields_at_once=2, refresh_every=1), seed=1, connection=workers) as loader:
        batches = [loader.next_batch() for _ in range(12)]
        assert len(loader.source.pool.entries) == 4
    assert all(1 <= len(set(batch.item.tolist())) <= 3 for batch in batches)
    assert {int(f) for batch in batches for f in batch.item} == set(range(5))


def test_a_set_that_cannot_be_imaged_is_skipped_and_named_once(make_ms, sets, tmp_path, workers, caplog) -> None:
    bad = make_ms(name="bad", antennas=8)
    bad.edit("FLAG", np.ones_like)
    broken = tmp_path / "broken.ms"
    broken.mkdir()
    with Loader(config((str(bad.path), sets[0], str(broken))), seed=1, connection=workers) as loader:
        batches = [loader.next_batch() for _ in range(4)]
        unused = loader.unused()
    assert {int(f) for batch in batches for f in batch.item} == {1}
    assert set(unused) == {str(bad.path), str(broken)} and "flagged" in unused[str(bad.path)]
    for name in ("bad.ms", "broken.ms"):
        assert len([r for r in caplog.records if name in r.message]) == 1
    # Without an order there are no empty places that would push draws out.
    with Loader(config((str(bad.path), sets[0]), mode="async"), seed=1, connection=workers) as loader:
        for _ in range(10):
            assert set(loader.next_batch().item.tolist()) == {1}
            time.sleep(0.02)
        assert len(loader.source.pool.entries) >= 3
    with Loader(config((str(bad.path),)), seed=1, connection=workers) as loader:
        for _ in range(2):
            with pytest.raises(MeasurementSetError, match="flagged"):
                loader.next_batch()


def test_a_loader_that_waits_for_a_draw_can_be_closed(sets, workers) -> None:
    loader = Loader(config(sets, refresh_every=1), seed=1, connection=workers)
    loader.next_batch()
    blockers = [workers.client.submit(time.sleep, 20, pure=False, priority=10) for _ in range(2)]
    time.sleep(1.0)  # by now the thread that plans waits for workers that sleep
    start = time.monotonic()
    loader.close()
    assert time.monotonic() - start < 5
    workers.client.cancel(blockers, force=True)
    workers.client.restart()


def test_images_that_do_not_vary_are_made_once(sets, workers) -> None:
    with Loader(config(sets, imaging="image-only", mode="async"), seed=1, connection=workers) as loader:
        batches = [loader.next_batch() for _ in range(20)]
        assert loader.report()["fresh_draws"] == 2
    assert {int(i) for batch in batches for i in batch.draw_index.ravel()} == {0}
    assert not np.array_equal(batches[0].global_views, batches[1].global_views)


def test_every_field_and_band_can_be_a_source(real_ms, workers) -> None:
    """EVLA, two spectral windows of unequal size."""
    path = str(real_ms("casaformats_simple"))
    views = replace(VIEWS, patch_npix=16)
    with Loader(config((path,), bands="each", views=views), seed=0, connection=workers) as loader:
        assert [field.selection.spw for field in loader.source.fields] == [0, 1]
        assert loader.source.fields[0].name.endswith("spw 0")


def test_a_view_is_the_crop_of_the_image_that_the_command_line_makes(sets, workers, cli, tmp_path) -> None:
    from astropy.io import fits
    from astropy.wcs import WCS

    views = replace(VIEWS, stretch=Stretch("linear"), global_scale=(0.5, 1.0))
    with Loader(config(sets[1:], views=views), seed=4, connection=workers) as loader:
        batch = loader.next_batch()
        source = loader.source.fields[0]
        noise = {entry.draw.index: float(entry.draw.noise[0]) for entry in loader.source.pool.entries}
    sample, view = 2, 1
    index = int(batch.draw_index[sample, view])
    p = source.prior.draw(draw_rng(4, 0, index))
    out = tmp_path / "image.fits"
    options = {
        "npix": f"{p.npix[0]},{p.npix[1]}", "pixsize": f"{p.pixsize!r}rad", "weighting": p.weighting,
        "robust": p.robust, "taper": f"{p.taper!r}rad", "uvrange": f"{p.uvrange[0]!r}:{p.uvrange[1]!r}",
        "epsilon": p.epsilon, "keep-times": p.keep_times, "keep-antennas": p.keep_antennas,
        "keep-baselines": p.keep_baselines, "sampling-seed": p.sampling_seed,
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    spans = ["--band", *map(repr, p.band), "--time-span", *map(repr, p.time_span)]
    assert cli("image", sets[1], *words, *spans, "--no-png", "-o", out).code == 0
    with fits.open(out) as file:
        image, wcs = file[0].data.squeeze(), WCS(file[0].header).celestial
    l, m, side = batch.box[sample, view]
    # The centre of the view through the WCS of the image, its square through Pillow: neither is our code.
    x, y = wcs.wcs.crpix - 1 + np.degrees([l, m]) / wcs.wcs.cdelt
    half = side / p.pixsize / 2
    left, lower = int(x - half) - 8, int(y - half) - 8  # near 0, as Pillow's boxes are single precision
    piece = image[lower : lower + 48, left : left + 48].astype(np.float32)
    box = (x + 0.5 - half - left, y + 0.5 - half - lower, x + 0.5 + half - left, y + 0.5 + half - lower)
    crop = np.asarray(PillowImage.fromarray(piece).resize((16, 16), PillowImage.Resampling.BILINEAR, box=box))
    ours = batch.global_views[view, sample, :, :, 0] * 5 * noise[index]
    assert np.abs(ours - crop).max() < 1e-5 * np.abs(image).max()
    assert np.abs(crop).max() > 0.05 * np.abs(image).max()  # there is something to compare


def test_illegal_settings_are_refused(sets, tmp_path: Path, workers) -> None:
    for changes in (
        {"batch_size": 0}, {"draws_per_field": 1}, {"imaging": "some"}, {"near_peaks": 2.0}, {"pb_limit": -1.0},
        {"fields": "two"}, {"subbands": 0}, {"prefetch": 0}, {"draw_memory": 10.0},
    ):  # fmt: skip
        with pytest.raises(ParameterError):
            config(sets, **changes)
    with pytest.raises(ParameterError):
        LoaderConfig(ms=())
    with pytest.raises(ParameterError, match="does not fit"):
        Loader(config(sets, views=ViewConfig(patch_npix=80)), seed=0, connection=workers)
    with pytest.raises(MeasurementSetError, match="does not exist"):
        Loader(config((str(tmp_path / "none.ms"),)), seed=0, connection=workers)
    with pytest.raises(OutputError, match="cannot keep draws"):
        Loader(config(sets, shared=str(tmp_path / "none")), connection=workers)


def test_draws_from_disk_give_the_batches_of_those_imaged(sets, workers, tmp_path: Path) -> None:
    repeating = config(sets, draws_total=3, refresh_every=1)
    cached = replace(repeating, draw_cache=str(tmp_path / "draws"))
    with Loader(repeating, 1, connection=workers) as loader:
        wanted = [loader.next_batch() for _ in range(9)]
    for _ in range(2):  # cold, and warm
        with Loader(cached, 1, connection=workers) as loader:
            assert all(same(loader.next_batch(), batch) for batch in wanted)
    assert len(list((tmp_path / "draws").rglob("*.npz"))) == 6
    assert len(np.unique(np.concatenate([batch.draw_index for batch in wanted]))) == 3
    for total, words in ((1, "at least draws_per_field"), (3, "on each of 2 hosts")):
        with pytest.raises(ParameterError, match=words):
            Loader(config(sets, draws_total=total), 1, connection=workers, hosts=2)


def test_a_draw_that_is_asked_for_twice_at_a_time_comes_twice(sets, workers) -> None:
    shared = SharedFolder(10**8)
    requests = DrawRequests(workers.client, fields_of(config(sets)), 1, shared)
    for number in range(2):
        requests.add(number, 0, 0, make=True)
    ready = [requests.next_ready(block=True, in_order=True) for _ in range(2)]
    first, second = (requests.fetch(each).draw.data for each in ready)
    np.testing.assert_array_equal(first, second)
    shared.close()


def test_patches_of_several_sizes_lie_apart_and_within_the_field(sets, workers) -> None:
    scale = (0.6, 1.6)
    wanted = config(sets, field_npix=128, batch_size=16, patch_scale=scale, near_peaks=0.3)
    boxes, nearest = {}, {}
    for apart in (0.0, 0.5):
        with Loader(replace(wanted, apart=apart), 1, connection=workers) as loader:
            batches = [loader.next_batch() for _ in range(6)]
            nominal = np.array(loader.source.located.patches)[np.concatenate([batch.item for batch in batches])]
        boxes[apart] = np.concatenate([batch.box[:, 0] for batch in batches])
        nearest[apart] = np.median([distance for batch in batches for distance in least_distances(batch)])
    assert nearest[0.5] > 1.5 * nearest[0.0]
    side = boxes[0.5][:, 2] / nominal  # of global views, which show 0.7 to 1 of a patch
    assert 0.7 * 0.6 <= side.min() < 0.55 and 1.2 < side.max() <= 1.6
    assert all(np.isfinite(batch.global_views).all() for batch in batches)
    with pytest.raises(ParameterError, match="a patch of 192 pixels does not fit"):
        Loader(config(sets, field_npix=128, patch_scale=(1.0, 8.0)), 1, connection=workers)


def test_a_double_source_may_lie_in_the_middle_of_its_patch(make_ms, workers) -> None:
    """With peak_middles patches lie between the lobes; without, on one of them."""
    lobes = np.array([[-4.0, 3.0], [5.0, 3.0]])  # suggested pixels; a patch has 32, whose sixth is the Gaussian
    (seen, pixsize) = {}, fields_of(config((str(make_ms(name="one", antennas=16, times=8).path),)))[0].pixsize
    sources = tuple((1.0, *place) for place in lobes * pixsize)
    path = str(make_ms(name="double", antennas=16, times=8, sources=sources).path)
    for middles in (False, True):
        wanted = config(
            (path,), field_npix=128, imaging="image-only", near_peaks=1.0, peak_offset=0.0, peak_middles=middles
        )
        wanted = replace(wanted, views=replace(VIEWS, patch_npix=32, global_scale=(1.0, 1.0)))
        with Loader(wanted, 1, connection=workers) as loader:
            boxes = np.concatenate([loader.next_batch().box[:, 0, :2] for _ in range(2)]) / pixsize
        seen[middles] = np.linalg.norm(boxes[:, None] - lobes, axis=2).min(axis=1)  # from the nearer lobe
    assert np.median(seen[False]) < 1 and np.median(seen[True]) > 4


def test_patches_lie_at_places_and_bring_their_codes(sets, workers) -> None:
    """Of a field without places there are no samples; samples lie up to the offset away from theirs."""
    wanted = config(sets, field_npix=128, peak_offset=0.1, views=replace(VIEWS, global_scale=(1.0, 1.0)))
    fields = fields_of(wanted)
    draw = make_draw(fields[0], 1, 0, 0)
    rng = np.random.default_rng(0)
    l, m = rng.uniform(-20, 20, (2, 5)) * fields[0].pixsize
    position = np.stack(sky_position(l, m, draw.phase_centre, draw.turn), axis=-1)
    codes = np.arange(10, dtype=np.int32).reshape(5, 2)
    places = Places([str(fields[0]), "elsewhere"], np.zeros(5, np.int64), position, codes)
    with Loader(wanted, 1, connection=workers, places=places) as loader:
        batches = [loader.next_batch() for _ in range(4)]
        assert loader.unused() == {str(fields[1]): "none of the places that patches are to lie at is in it"}
    with Loader(wanted, 1, connection=workers) as loader:
        assert "codes" not in loader.next_batch().arrays()
    seen = np.concatenate([batch.codes for batch in batches])
    boxes = np.concatenate([batch.box[:, 0, :2] for batch in batches])
    which = seen[:, 0] // 2
    np.testing.assert_array_equal(seen, codes[which])
    assert len(set(which)) > 3 and all((batch.item == 0).all() for batch in batches)
    np.testing.assert_array_equal(batches[0].arrays()["codes"], batches[0].codes.T)
    off = np.abs(boxes - np.stack([l, m], axis=1)[which]).max(axis=1) / batches[0].patch[0]
    assert 0.02 < off.max() <= 0.1 + 1e-9
    with pytest.raises(ParameterError, match="no place that patches are to lie at"):
        Loader(wanted, 1, connection=workers, places=replace(places, names=["elsewhere", "nowhere"]))


def test_places_are_read_as_written_or_refused(tmp_path: Path) -> None:
    position, path = np.array([[1.0, -0.5], [2.0, 0.25]]), tmp_path / "places.npz"
    places = Places(["a.ms", "b.ms"], np.array([1, 0]), position, np.array([[3], [4]], np.int32))
    places.write(path)
    again = Places.read(path)
    assert again.names == places.names
    for name in ("field", "position", "codes"):
        np.testing.assert_array_equal(getattr(again, name), getattr(places, name))
    np.testing.assert_array_equal(again.of("b.ms"), [0])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(Vis2imgError, match=r"places\.npz holds no places or is damaged"):
        Places.read(path)
    replace(places, field=np.array([1, 7])).write(path)
    with pytest.raises(Vis2imgError, match="its arrays do not fit"):
        Places.read(path)


def least_distances(batch: Batch) -> Iterator[float]:
    """Yield how far each patch is from the next one of its field."""
    for i in range(len(batch)):
        others = np.flatnonzero(batch.item == batch.item[i])
        apart = np.linalg.norm(batch.position[others] - batch.position[i], axis=1)
        if len(others) > 1:
            yield float(np.sort(apart)[1])
