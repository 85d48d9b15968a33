"""Transfer: what is learnt under one imaging and tested under another, a source never on both sides."""

import dataclasses

import numpy as np
import pytest

from vis2img.errors import ParameterError
from vis2img.train.evaluate.classifiers import knn_classifier
from vis2img.train.evaluate.folds import Samples
from vis2img.train.evaluate.transfer import Transfer, TransferToOthers


@pytest.fixture
def sources():
    rng = np.random.default_rng(0)
    label, group = np.tile(["a", "b", "c"], 30), np.repeat(np.arange(9), 10)
    direction = {"a": [1, 0, 0, 0], "b": [0, 1, 0, 0], "c": [0, 0, 1, 0]}
    return Samples(np.array([direction[x] for x in label]) + 0.05 * rng.normal(size=(90, 4)), label, group)


def values(pairs):
    return {name.setting: value for name, value in pairs}


def test_classes_that_look_alike_in_both_are_known_and_swapped_ones_are_mistaken(sources):
    vectors = sources.inputs
    assert set(values(Transfer().run(sources, {"to other": vectors}, seeds=[0])).values()) == {1.0}
    swapped = vectors[:, [1, 0, 2, 3]]  # a looks like b and b like a; c stays
    found = values(Transfer().run(sources, {"to other": swapped, "as learnt": vectors}, seeds=[0]))
    assert found == {
        "to other, k-NN": pytest.approx(1 / 3), "to other, linear probe": pytest.approx(1 / 3),
        "as learnt, k-NN": 1.0, "as learnt, linear probe": 1.0,
    }  # fmt: skip


def test_a_source_is_not_tested_by_what_learnt_it(sources):
    # Every source has a direction of its own and shares it with nothing: only itself could give its label away.
    own = np.eye(90)
    train = Samples(own, sources.label, np.arange(90))
    found = values(Transfer(fits={"k-NN": knn_classifier}).run(train, {"n": own}, seeds=[0]))
    assert found["n, k-NN"] < 0.6


def test_other_sources_are_refused(sources):
    with pytest.raises(ParameterError, match="one shape"):
        list(Transfer().run(sources, {"n": sources.inputs[:-1]}))


def test_what_was_learnt_on_some_fields_is_tested_on_others(sources):
    test = sources.take(np.array([3, 1, 0, 40, 2]))
    with pytest.raises(ParameterError, match="all 5 test samples are copies of training samples"):
        values(TransferToOthers().run(sources, test, seeds=[0]))
    test = dataclasses.replace(test, inputs=test.inputs + np.float32(0.001))
    found = values(TransferToOthers().run(sources, test, seeds=[0]))
    assert found == {"to other fields, k-NN": 1.0, "to other fields, linear probe": 1.0}
    # All but those of c look like something else.
    swapped = dataclasses.replace(test, inputs=test.inputs[:, [1, 0, 2, 3]])
    found = values(TransferToOthers().run(sources, swapped, seeds=[0]))
    assert list(found.values()) == pytest.approx([1 / 3] * 2)
    with pytest.raises(ParameterError, match="class 'd'"):
        list(TransferToOthers().run(sources, Samples(sources.inputs[:1], np.array(["d"]), np.arange(1))))


def test_seeds_draw_other_labels_of_the_training_fields():
    rng = np.random.default_rng(1)
    label = np.array(["a", "b"] * 40)
    train = Samples(rng.normal(size=(80, 3)) + (label == "a")[:, None] * 0.7, label, np.arange(80))
    test = Samples(rng.normal(size=(200, 3)) + 0.35, np.array(["a", "b"] * 100), np.arange(200))
    pairs = TransferToOthers().run(train, test, seeds=range(6))
    of_probe = {value for name, value in pairs if name.setting.endswith("probe")}
    assert len(of_probe) > 1
