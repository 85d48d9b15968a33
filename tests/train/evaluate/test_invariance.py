"""Distances within a patch against those between patches: known values for what is invariant and what is not."""

import numpy as np
import pytest

from vis2img.errors import ParameterError
from vis2img.train.evaluate.invariance import Invariance


def values(pairs):
    return {(name.setting, name.metric): value for name, value in pairs}


@pytest.fixture
def reference():
    return np.random.default_rng(0).normal(size=(150, 16)) + 5.0


def test_the_same_embeddings_have_no_distance_and_find_themselves(reference):
    pairs = list(Invariance().run(reference, {"robustness": reference, "brighter": reference}, seeds=[4]))
    found = values(pairs)
    assert found["robustness", "distance ratio"] == pytest.approx(0, abs=1e-6)
    assert found["brighter", "retrieval at 1"] == 1.0
    assert {(name.task, name.seed) for name, _ in pairs} == {("invariance", 4)}
    assert all(np.isnan(name.x) for name, _ in pairs)


def test_embeddings_of_other_patches_are_as_far_as_patches_are(reference):
    found = values(Invariance().run(reference, {"shuffled": np.roll(reference, 1, axis=0)}))
    assert found["shuffled", "distance ratio"] == pytest.approx(1, abs=0.1)
    assert found["shuffled", "retrieval at 1"] == 0.0


def test_the_ratio_is_that_of_all_pairs_by_brute_force(reference):
    moved = reference + np.random.default_rng(1).normal(size=reference.shape)
    a, b = (x - reference.mean(axis=0) for x in (reference, moved))
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    within = np.mean([1 - a[i] @ b[i] for i in range(150)])
    between = np.mean([1 - a[i] @ a[j] for i in range(150) for j in range(150) if i != j])
    retrieved = np.mean([(a @ b[i]).argmax() == i for i in range(150)])
    found = values(Invariance().run(reference, {"noise": moved}))
    assert found["noise", "distance ratio"] == pytest.approx(within / between, rel=1e-4)
    assert found["noise", "retrieval at 1"] == pytest.approx(retrieved)
    assert 0.1 < found["noise", "distance ratio"] < 0.9


def test_what_all_patches_have_in_common_hides_no_change(reference):
    # Far from the origin every cosine is near 1; centring keeps the ratio as it was.
    moved = reference + np.random.default_rng(2).normal(size=reference.shape)
    near, far = (values(Invariance().run(reference + s, {"noise": moved + s})) for s in (0, 1000))
    assert far["noise", "distance ratio"] == pytest.approx(near["noise", "distance ratio"], rel=1e-4)


def test_what_cannot_be_compared_is_refused(reference):
    with pytest.raises(ParameterError, match="'taper' have the shape"):
        list(Invariance().run(reference, {"taper": reference[1:]}))
    with pytest.raises(ParameterError, match="collapsed"):
        list(Invariance().run(np.ones((10, 4)), {"taper": np.ones((10, 4))}))
    with pytest.raises(ParameterError, match="two patches"):
        list(Invariance().run(np.ones((1, 4)), {"taper": np.ones((1, 4))}))
