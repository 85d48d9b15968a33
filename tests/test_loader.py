"""The loader: fixed shapes, batches that replay on any number of workers, exact resume, failures named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vis2img.errors import MeasurementSetError, ParameterError
from vis2img.loader import Batch, Loader, LoaderConfig
from vis2img.phase import direction_cosines
from vis2img.views import ViewConfig

VIEWS = ViewConfig(patch_npix=24, global_size=16, local_size=8, n_local=2)


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
        "workers": 1,
    }
    return LoaderConfig(ms=ms, **{**values, **changes})


def same(a: Batch, b: Batch) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in vars(a))


def test_batches_have_fixed_shapes_and_patches_lie_in_the_field(sets) -> None:
    with Loader(config(sets), seed=1) as loader:
        iterator = iter(loader)
        batches = [next(iterator) for _ in range(5)]
        centre = loader.pool.draws[0][0].phase_centre
        fov = loader.sources[0].prior.fov
        records = loader.draw_records()
    for batch in batches:
        assert batch.global_views.shape == (2, 6, 16, 16, 1) and batch.global_views.dtype == np.float32
        assert batch.local_views.shape == (2, 6, 8, 8, 1)
        assert np.isfinite(batch.global_views).all() and batch.global_views.std() > 0.05
        assert batch.draw_index.shape == (6, 4)
        offsets = direction_cosines(batch.position[:, 0], batch.position[:, 1], centre)[:, :2]
        assert np.abs(offsets).max() < fov / 2
    assert {int(f) for batch in batches for f in batch.field} == {0, 1}
    # Two draws of each of two fields fill the pool; batches 2 and 4 take one more each.
    assert max(batch.draw_index.max() for batch in batches) == 2
    assert len(records) == 4 and {"weighting", "pixsize", "field", "index"} <= set(records[0])


def test_a_synchronous_run_replays_on_any_number_of_workers_and_resumes_exactly(sets) -> None:
    with Loader(config(sets, workers=2), seed=1) as loader:
        first = [loader.next_batch() for _ in range(6)]
    with Loader(config(sets, workers=1), seed=1) as loader:
        again = [loader.next_batch() for _ in range(3)]
        state = loader.state()
    assert all(same(a, b) for a, b in zip(first, again, strict=False))
    with Loader(config(sets), seed=1, state=state) as loader:
        rest = [loader.next_batch() for _ in range(3)]
    assert all(same(a, b) for a, b in zip(first[3:], rest, strict=True))
    with Loader(config(sets), seed=2) as loader:
        assert not same(first[0], loader.next_batch())


def test_the_asynchronous_pool_is_refreshed(sets) -> None:
    import time

    with Loader(config(sets, mode="async"), seed=1) as loader:
        loader.next_batch()
        deadline = time.monotonic() + 60
        while loader.pool.fresh <= loader.pool.size and time.monotonic() < deadline:
            loader.next_batch()
            time.sleep(0.05)
        assert loader.pool.fresh > loader.pool.size


def test_a_set_that_cannot_be_imaged_is_skipped_and_named(make_ms, sets, caplog) -> None:
    bad = make_ms(name="bad", antennas=8)
    bad.edit("FLAG", np.ones_like)
    with Loader(config((str(bad.path), sets[0])), seed=1) as loader:
        batches = [loader.next_batch() for _ in range(4)]
        assert list(loader.pool.failed) == [0]
    assert {int(f) for batch in batches for f in batch.field} == {1}
    named = [r.message for r in caplog.records if "bad.ms" in r.message]
    assert len(named) == 1 and "flagged" in named[0]
    with Loader(config((str(bad.path),)), seed=1) as loader, pytest.raises(MeasurementSetError, match="flagged"):
        loader.next_batch()


def test_illegal_settings_are_refused(sets, tmp_path: Path) -> None:
    for changes in ({"batch_size": 0}, {"draws_per_field": 1}, {"imaging": "some"}, {"near_peaks": 2.0}):
        with pytest.raises(ParameterError):
            config(sets, **changes)
    with pytest.raises(ParameterError):
        LoaderConfig(ms=())
    with pytest.raises(ParameterError, match="does not fit"):
        Loader(config(sets, views=ViewConfig(patch_npix=80)), seed=0)
    with pytest.raises(MeasurementSetError, match="does not exist"):
        Loader(config((str(tmp_path / "none.ms"),)), seed=0)
