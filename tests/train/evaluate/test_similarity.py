"""The share of the nearest that are of the query's class, by hand, and without the query's own views."""

import dataclasses

import numpy as np
import pytest

from vis2img.errors import ParameterError, Vis2imgWarning
from vis2img.train.evaluate.folds import Samples
from vis2img.train.evaluate.similarity import Similarity


def test_precision_is_the_share_of_neighbours_of_the_class_counted_by_hand():
    # Directions in degrees about the mean: each query's nearest two are read off the circle.
    angle = np.radians([0.0, 10.0, 25.0, 180.0, 190.0, 205.0])
    label = np.array(["a", "a", "b", "b", "b", "b"])
    vectors = np.stack([5.0 + np.cos(angle), 3.0 + np.sin(angle)], axis=1)  # in common, and told apart by nothing
    scores = dict(Similarity((1, 2)).run(Samples(vectors, label, np.arange(6)), seeds=[7]))
    found = {(name.metric, name.x): value for name, value in scores.items()}
    # Nearest: 0 -> 10; 10 -> 0; 25 -> 10; 180 -> 190; 190 -> 180; 205 -> 190. Second: 25; 25; 0; 205; 205; 180.
    assert found["precision", 1.0] == pytest.approx(5 / 6)
    assert found["balanced precision", 1.0] == pytest.approx((1 + 3 / 4) / 2)
    assert found["precision", 2.0] == pytest.approx((0.5 + 0.5 + 0 + 1 + 1 + 1) / 6)
    assert found["balanced precision", 2.0] == pytest.approx((0.5 + 3 / 4) / 2)
    assert {(name.task, name.setting, name.seed) for name in scores} == {("similarity", "cosine", 7)}


def test_views_of_the_query_itself_are_no_hit():
    rng = np.random.default_rng(4)
    vectors, label = np.repeat(rng.normal(size=(100, 8)), 3, axis=0), np.repeat(np.arange(100) % 2, 3)
    with pytest.warns(Vis2imgWarning, match="200 of 300 samples are copies"):
        (_, alone), _ = Similarity([1]).run(Samples(vectors, label, np.arange(300)))
    (_, grouped), _ = Similarity([1]).run(Samples(vectors, label, np.arange(300) // 3))
    assert abs(alone - 0.5) < 0.15 and abs(grouped - 0.5) < 0.15


def test_a_class_whose_like_is_not_searched_is_told():
    vectors, label = np.random.default_rng(1).normal(size=(40, 3)), np.repeat(["a", "b"], 20)
    with pytest.warns(Vis2imgWarning, match="the class b is in one group only"):
        list(Similarity([1]).run(Samples(vectors, label, np.where(label == "b", 99, np.arange(40)))))


def test_other_sources_are_queries_to_the_whole_gallery():
    rng = np.random.default_rng(5)
    label = np.repeat(["a", "b"], 20)
    gallery = Samples(np.where(label == "a", 1.0, -1.0)[:, None] + 0.1 * rng.normal(size=(40, 4)), label, np.arange(40))
    other = np.array(["b", "a", "a"])
    queries = Samples(np.where(other == "a", 1.0, -1.0)[:, None] * np.ones(4), other, np.arange(3))
    right = {name.metric: value for name, value in Similarity([10]).run(gallery, queries)}
    wrong = Similarity([10]).run(gallery, dataclasses.replace(queries, label=other[[1, 0, 0]]))
    assert right == {"precision": 1.0, "balanced precision": 1.0} and {value for _, value in wrong} == {0.0}


def test_more_neighbours_than_there_are_left_out_and_one_class_is_refused():
    vectors = np.random.default_rng(6).normal(size=(8, 3))
    label, group = np.array(["a", "b"] * 4), np.array([0, 0, 0, 1, 2, 3, 4, 5])
    assert {name.x for name, _ in Similarity().run(Samples(vectors, label, group))} == {1.0, 3.0, 5.0}
    with pytest.raises(ParameterError, match="two classes"):
        list(Similarity().run(Samples(vectors, np.full(8, "a"), group)))
