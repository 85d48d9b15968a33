"""Transfer: what is learnt under one imaging and asked under another, a source never on both sides."""

import numpy as np
import pytest

from vis2img.errors import ParameterError
from vis2img.train.evaluate.classification import knn_classifier
from vis2img.train.evaluate.transfer import transfer, transfer_to_others


@pytest.fixture
def sources():
    rng = np.random.default_rng(0)
    label, group = np.tile(["a", "b", "c"], 30), np.repeat(np.arange(9), 10)
    direction = {"a": [1, 0, 0, 0], "b": [0, 1, 0, 0], "c": [0, 0, 1, 0]}
    return np.array([direction[x] for x in label]) + 0.05 * rng.normal(size=(90, 4)), label, group


def values(found):
    return {score.setting: score.value for score in found}


def test_classes_that_look_alike_in_both_are_known_and_swapped_ones_are_mistaken(sources):
    vectors, label, group = sources
    assert set(values(transfer("x", vectors, {"to other": vectors}, label, group, seeds=[0])).values()) == {1.0}
    swapped = vectors[:, [1, 0, 2, 3]]  # a looks like b and b like a; c stays
    found = values(transfer("x", vectors, {"to other": swapped, "as learnt": vectors}, label, group, seeds=[0]))
    assert found == {
        "to other, k-NN": pytest.approx(1 / 3), "to other, linear probe": pytest.approx(1 / 3),
        "as learnt, k-NN": 1.0, "as learnt, linear probe": 1.0,
    }  # fmt: skip


def test_a_source_is_not_asked_about_by_what_learnt_it(sources):
    _, label, _ = sources
    # Every source has a direction of its own and shares it with nothing: only itself could give its label away.
    own = np.eye(90)
    found = values(transfer("x", own, {"n": own}, label, np.arange(90), seeds=[0], fits={"k-NN": knn_classifier}))
    assert found["n, k-NN"] < 0.6


def test_other_sources_are_refused(sources):
    vectors, label, group = sources
    with pytest.raises(ParameterError, match="one shape"):
        transfer("x", vectors, {"n": vectors[:-1]}, label, group)


def test_what_was_learnt_on_some_fields_is_asked_of_others(sources):
    vectors, label, group = sources
    other = np.array([3, 1, 0, 40, 2])
    found = values(transfer_to_others("x", vectors, label, group, vectors[other], label[other], seeds=[0]))
    assert found == {"to other fields, k-NN": 1.0, "to other fields, linear probe": 1.0}
    swapped = vectors[other][:, [1, 0, 2, 3]]  # all but those of c look like something else
    found = values(transfer_to_others("x", vectors, label, group, swapped, label[other], seeds=[0]))
    assert list(found.values()) == pytest.approx([1 / 3] * 2)
    with pytest.raises(ParameterError, match="class 'd'"):
        transfer_to_others("x", vectors, label, group, vectors[:1], np.array(["d"]))


def test_seeds_draw_other_labels_of_the_known_fields():
    rng = np.random.default_rng(1)
    label = np.array(["a", "b"] * 40)
    vectors = rng.normal(size=(80, 3)) + (label == "a")[:, None] * 0.7
    asked, wanted = rng.normal(size=(200, 3)) + 0.35, np.array(["a", "b"] * 100)
    found = transfer_to_others("x", vectors, label, np.arange(80), asked, wanted, seeds=range(6))
    of_probe = {s.value for s in found if s.setting.endswith("probe")}
    assert len(of_probe) > 1
