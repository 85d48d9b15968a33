"""A run that stops and goes on must equal one that never stopped; damage is reported in one line."""

import shutil
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vis2img.train.run import checkpoints
from vis2img.train.run.checkpoints import CheckpointError, CheckpointStore
from vis2img.train.state import create_state


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.fixture(scope="module")
def trained(initial, step, make_batch):
    state = initial
    for i in range(3):
        state, _ = step(state, make_batch(i))
    return state


@pytest.fixture(scope="module")
def saved(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    with CheckpointStore(folder) as store:
        store.save(trained, 3, {"loader": {"seed": 7, "draws": [1, 2]}})
    return folder


def restore_error(folder, template, step=None):
    with CheckpointStore(folder) as store, pytest.raises(CheckpointError) as caught:
        store.restore(template, step)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_restored_run_continues_as_if_uninterrupted(saved, trained, model, optim, step, make_batch):
    template = create_state(jax.random.key(99), model, optim, (8, 8, 1))
    with CheckpointStore(saved) as store:
        restored, extra = store.restore(template)
    assert extra == {"loader": {"seed": 7, "draws": [1, 2]}}
    assert jax.tree.structure(restored) == jax.tree.structure(trained)
    assert_same(restored, trained)
    for i in (3, 4):
        trained, _ = step(trained, make_batch(i))
        restored, _ = step(restored, make_batch(i))
    assert_same(restored, trained)


def test_retention_and_choice_of_step(tmp_path, initial):
    with CheckpointStore(tmp_path / "x", max_to_keep=2) as store:
        for i in (1, 5, 10):
            store.save(initial.replace(step=jnp.asarray(i, jnp.int32)), i, {"i": i})
        assert store.steps() == [5, 10]
        assert store.restore(initial)[1] == {"i": 10}
        state, extra = store.restore(initial, 5)
        assert (int(state.step), extra) == (5, {"i": 5})
        with pytest.raises(CheckpointError, match=r"step 1 .*\[5, 10\]"):
            store.restore(initial, 1)
        with pytest.raises(CheckpointError, match="already"):
            store.save(initial, 10)


def test_extra_must_be_json(tmp_path, initial):
    with CheckpointStore(tmp_path / "x") as store, pytest.raises(CheckpointError, match="not JSON"):
        store.save(initial, 1, {"array": np.zeros(2)})


def test_missing_and_empty_folders(tmp_path, initial):
    missing = tmp_path / "missing"
    assert "no checkpoint folder" in restore_error(missing, initial)
    assert not missing.exists()
    assert CheckpointStore(missing).steps() == []
    (tmp_path / "empty").mkdir()
    assert "no checkpoint in" in restore_error(tmp_path / "empty", initial)


def test_an_interrupted_save_is_not_seen(tmp_path, saved, initial):
    """Orbax writes under a temporary name; what a killed process leaves must not count."""
    shutil.copytree(saved, tmp_path / "x")
    (tmp_path / "x" / "9.orbax-checkpoint-tmp-1" / "state").mkdir(parents=True)
    with CheckpointStore(tmp_path / "x") as store:
        assert store.steps() == [3]


def test_a_checkpoint_of_an_earlier_version_lacks_what_came_later(tmp_path, initial, monkeypatch):
    whole = checkpoints._flatten

    def of_then(state):
        return {name: x for name, x in whole(state).items() if name != "usage"}

    with CheckpointStore(tmp_path / "old") as store:
        with monkeypatch.context() as before:
            before.setattr(checkpoints, "_flatten", of_then)
            store.save(initial, 3)
        state, _ = store.restore(initial.replace(usage=initial.usage + 1.0))
    assert not state.usage.any() and state.usage.shape == initial.usage.shape
    assert whole(state).keys() == whole(initial).keys()


def test_another_model_is_refused_by_name(saved, initial):
    message = restore_error(saved, initial.replace(centre=jnp.zeros(5)))
    assert "centre is float32[16] there and float32[5] here" in message
    params = {**initial.params, "extra": jnp.zeros(2)}
    assert "params/extra is absent there" in restore_error(saved, initial.replace(params=params))


def largest_file(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def damage(checkpoint, how):
    victim = largest_file(checkpoint / "state")
    content = bytearray(victim.read_bytes())
    if how == "truncated":
        victim.write_bytes(content[: len(content) // 2])
    elif how == "flipped":
        content[len(content) // 2] ^= 0xFF
        victim.write_bytes(content)
    elif how == "note":
        (checkpoint / "note" / "metadata").write_text("{}")
    else:
        shutil.rmtree(checkpoint / "state")


DAMAGES = ["truncated", "flipped", "note", "gone"]


@pytest.mark.parametrize("how", DAMAGES)
def test_damage_is_reported(tmp_path, saved, initial, how):
    shutil.copytree(saved, tmp_path / "x")
    damage(tmp_path / "x" / "3", how)
    assert "checkpoint 3 in" in restore_error(tmp_path / "x", initial)


@pytest.fixture(scope="module")
def several(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("several") / "checkpoints"
    with CheckpointStore(folder) as store:
        for i in (3, 4, 5):
            store.save(trained.replace(step=jnp.asarray(i, jnp.int32)), i, {"i": i})
    return folder


@pytest.mark.parametrize("how", DAMAGES)
def test_a_run_goes_on_from_the_last_checkpoint_that_is_whole(tmp_path, several, trained, initial, how):
    folder = tmp_path / "x"
    shutil.copytree(several, folder)
    damage(folder / "5", how)
    assert "there are others, of step 3, 4" in restore_error(folder, initial)
    told = []
    with CheckpointStore(folder, max_to_keep=2) as store:
        state, extra = store.restore_last_good(initial, told.append)
        assert (int(state.step), extra) == (4, {"i": 4})
        assert_same(state.params, trained.params)
        (line,) = told
        aside = folder / "damaged-5"
        assert "checkpoint 5 in" in line and "going on from step 4" in line and f"rm -r {aside} deletes it" in line
        assert "\n" not in line and aside.is_dir()
        # The step is taken again, and neither its name nor its place among the last two is lost.
        store.save(trained, 5, {"i": "again"})
        assert store.steps() == [4, 5]
    with CheckpointStore(folder) as store:
        assert store.restore_last_good(initial, told.append)[1] == {"i": "again"}
    assert len(told) == 1


def test_only_one_of_several_hosts_sets_a_checkpoint_aside(tmp_path, several, initial):
    folder = tmp_path / "x"
    shutil.copytree(several, folder)
    damage(folder / "5", "flipped")
    with CheckpointStore(folder) as store:
        assert int(store.restore_last_good(initial, repair=False)[0].step) == 4
    assert (folder / "5").is_dir()


def test_what_is_no_damage_loses_no_checkpoint(tmp_path, several, initial, monkeypatch):
    """Another model, or a file that may not be read just now: going back would throw good steps away."""
    with CheckpointStore(several) as store:
        with pytest.raises(CheckpointError, match=r"checkpoint 5 in .* is of another model"):
            store.restore_last_good(initial.replace(centre=jnp.zeros(5)))
        for error in (PermissionError(13, "Permission denied"), ValueError("PERMISSION_DENIED: Error reading x")):
            monkeypatch.setattr(store, "_open", partial(_manager_that_raises, store.steps(), error))
            with pytest.raises(CheckpointError, match=r"checkpoint 5 in .* cannot be read: .*(?i:permission)"):
                store.restore_last_good(initial)
    assert (several / "5").is_dir()


def _manager_that_raises(steps, error):
    def restore(*_, **__):
        raise error

    return SimpleNamespace(all_steps=lambda: steps, restore=restore)


def test_without_a_whole_checkpoint_nothing_is_renamed(tmp_path, several, initial):
    folder = tmp_path / "x"
    shutil.copytree(several, folder)
    for step in (3, 4, 5):
        damage(folder / str(step), "gone")
    with CheckpointStore(folder) as store, pytest.raises(CheckpointError) as caught:
        store.restore_last_good(initial)
    assert "checkpoint 5 in" in str(caught.value) and f"delete {tmp_path} to start anew" in str(caught.value)
    assert sorted(path.name for path in folder.iterdir() if path.name.isdigit()) == ["3", "4", "5"]
