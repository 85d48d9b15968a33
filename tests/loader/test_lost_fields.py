"""One damaged set among good ones: skipped and named, at the start, while running, and when a run goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loader.test_loader import config, same
from vis2img.cluster.engine import Connection, Engine, connect
from vis2img.errors import MeasurementSetError
from vis2img.loader.loader import Loader


@pytest.fixture(scope="module")
def workers() -> Iterator[Connection]:
    with connect(Engine(workers=1)) as connection:
        yield connection


@pytest.fixture
def three(make_ms) -> list[Path]:
    return [make_ms(name=f"f{i}", antennas=8, times=4, seed=i, sources=((1.0, 1e-3 * i, 1e-3),)).path for i in range(3)]


def damage(path: Path) -> None:
    shutil.move(path / "SPECTRAL_WINDOW" / "table.f0", path.parent / f"{path.name}.f0")


def mend(path: Path) -> None:
    shutil.move(path.parent / f"{path.name}.f0", path / "SPECTRAL_WINDOW" / "table.f0")


def test_a_set_that_is_damaged_when_a_run_goes_on_keeps_its_place(three, workers, caplog) -> None:
    wanted = config(tuple(map(str, three)), refresh_every=1)
    with Loader(wanted, seed=1, connection=workers) as loader:
        for _ in range(4):
            loader.next_batch()
        state = json.loads(json.dumps(loader.state()))
        made = {(r["field"], r["index"]): r for r in loader.source.records()}
        later = [loader.next_batch() for _ in range(3)]
    assert state["fields"] == list(map(str, three))

    damage(three[1])
    with Loader(wanted, seed=1, state=state, connection=workers) as loader:
        batches = [loader.next_batch() for _ in range(3)]
        again = {(r["field"], r["index"]): r for r in loader.source.records()}
        assert {int(item) for batch in batches for item in batch.item} <= {0, 2}
        assert any(int(item) == 2 for batch in batches for item in batch.item)
        assert {"f1.ms" in name for name in loader.unused()} == {True}
        # Draws of the others are those that an undamaged run has.
        shared = again.keys() & made.keys()
        assert shared and all(again[key] == made[key] for key in shared)
        behind = json.loads(json.dumps(loader.state()))
    assert sum("f1.ms" in record.getMessage() for record in caplog.records) == 1

    # Mended, it stays out of a run that went on without it, and is in one that did not.
    mend(three[1])
    with Loader(wanted, seed=1, state=behind, connection=workers) as loader:
        assert 1 not in loader.next_batch().item
    with Loader(wanted, seed=1, state=state, connection=workers) as loader:
        assert all(same(loader.next_batch(), batch) for batch in later)


def test_a_set_that_was_damaged_at_the_start_changes_nothing_when_mended(three, workers) -> None:
    damage(three[0])
    wanted = config(tuple(map(str, three)), refresh_every=1)
    with Loader(wanted, seed=1, connection=workers) as loader:
        assert len(loader.source.fields) == 2 and len(loader.unused()) == 1
        loader.next_batch()
        state = json.loads(json.dumps(loader.state()))
        later = [loader.next_batch() for _ in range(2)]
    mend(three[0])
    with Loader(wanted, seed=1, state=state, connection=workers) as loader:
        assert [str(field) for field in loader.source.fields] == list(map(str, three[1:]))
        assert all(same(loader.next_batch(), batch) for batch in later)


def test_a_set_that_is_damaged_behind_the_start_is_named_once(three, workers, caplog) -> None:
    wanted = config(tuple(map(str, three[:2])), refresh_every=1)
    with Loader(wanted, seed=1, connection=workers) as loader:
        shutil.rmtree(three[0])
        batches = [loader.next_batch() for _ in range(4)]
        assert list(loader.unused()) == [str(three[0])]
    assert {int(item) for batch in batches for item in batch.item} == {1}
    assert sum(str(three[0]) in record.getMessage() for record in caplog.records) == 1


def test_no_set_that_is_left_is_an_error(three, workers) -> None:
    wanted = config(tuple(map(str, three[:2])))
    with Loader(wanted, seed=1, connection=workers) as loader:
        loader.next_batch()
        state = loader.state()
    for path in three[:2]:
        damage(path)
    with pytest.raises(MeasurementSetError, match="no field can be imaged"):
        Loader(wanted, seed=1, state=state, connection=workers)
    other = config((str(three[2]),))
    with pytest.raises(MeasurementSetError, match="none of the fields that this run was started with"):
        Loader(other, seed=1, state=state, connection=workers)
