"""Planted outliers come first, recall is counted rightly, and random order is the yardstick."""

import numpy as np
import pytest

from vis2img.errors import ParameterError
from vis2img.train.evaluate.anomaly import Anomaly, components, outlier_scores, recall_curve


@pytest.fixture
def planted():
    return np.arange(400) % 40 == 7


@pytest.fixture
def vectors(planted):
    rng = np.random.default_rng(0)
    return (rng.normal(size=(400, 10)) * np.where(planted, 8.0, 1.0)[:, None]).astype(np.float32)


@pytest.mark.parametrize("method", ["isolation forest", "local outlier factor"])
def test_planted_outliers_have_the_highest_scores_and_scores_replay(vectors, planted, method):
    score = outlier_scores(method, vectors, seed=1)
    assert score[planted].min() > np.median(score[~planted])
    assert set(np.argsort(-score)[:8]) <= set(np.flatnonzero(planted))
    np.testing.assert_array_equal(score, outlier_scores(method, vectors, seed=1))


def test_recall_is_counted_by_hand():
    curve = recall_curve(np.array([3, 0, 1, 2]), np.array([False, False, True, True]))
    np.testing.assert_allclose(curve, [0, 0.5, 0.5, 0.5, 1])


def test_components_keep_95_percent_of_the_variance_of_standardised_features():
    rng = np.random.default_rng(2)
    base = rng.normal(size=(500, 3))
    # Six columns of three directions of which each pair is one, at very different scales, and a faint rest.
    vectors = np.repeat(base, 2, axis=1) * [1, 1000, 1, 1000, 1, 1000] + 1e-3 * rng.normal(size=(500, 6))
    kept = components(vectors)
    assert kept.shape == (500, 3)
    assert kept.var(axis=0).sum() == pytest.approx(6, rel=0.05)


def test_recall_is_scored_against_the_share_looked_at_and_against_random_order(vectors, planted):
    pairs = Anomaly((0.01, 0.05, 0.5)).run(vectors, planted, (0, 1))
    found = {(name.setting, name.metric, name.x, name.seed): value for name, value in pairs}
    # 10 planted of 400: the first 4 hold at most 0.4, the first 20 all of them.
    for method, seeds in (("isolation forest", (0, 1)), ("local outlier factor", (0,))):
        for seed in seeds:
            assert found[method, "recall", 0.01, seed] == pytest.approx(0.4)
            assert found[method, "recall", 0.05, seed] == pytest.approx(1.0)
            assert found[method, "recall over random", 0.05, seed] == pytest.approx(20.0)
    assert ("local outlier factor", "recall", 0.05, 1) not in found
    assert [found["random order", "recall", x, 0] for x in (0.01, 0.05, 0.5)] == pytest.approx([0.01, 0.05, 0.5])


def test_noise_is_found_no_better_than_at_random():
    rng = np.random.default_rng(3)
    pairs = Anomaly([0.5]).run(rng.normal(size=(400, 5)), np.arange(400) < 100, [0])
    recall = [value for name, value in pairs if name.metric == "recall" and name.setting != "random order"]
    assert all(abs(value - 0.5) < 0.15 for value in recall)


def test_what_cannot_be_scored_is_refused(vectors):
    with pytest.raises(ParameterError, match="planted"):
        list(Anomaly().run(vectors, np.zeros(400, bool), [0]))
    with pytest.raises(ParameterError, match="unknown anomaly method 'magic'"):
        outlier_scores("magic", vectors, 0)
    with pytest.raises(ParameterError, match="all 30 embeddings are the same"):
        outlier_scores("isolation forest", np.ones((30, 4)), 0)
    with pytest.raises(ParameterError, match="NaN"):
        outlier_scores("isolation forest", np.full((30, 4), np.nan), 0)


def test_equal_vectors_make_nothing_around_them_an_outlier(vectors, planted):
    """A blank patch that is in the table a hundred times; its density is not infinite, nor its neighbours strange."""
    blank = np.zeros((100, 10), np.float32)
    table = np.concatenate([vectors, blank, vectors[:150]])
    alone = outlier_scores("local outlier factor", np.concatenate([vectors, blank[:1]]), 0)
    score = outlier_scores("local outlier factor", table, 0)
    assert np.isfinite(score).all() and score.max() < 100
    np.testing.assert_array_equal(score[400:500], score[400])
    np.testing.assert_array_equal(score[500:], score[:150])
    # Columns are standardised by all rows, so that scores differ a little; the order of the strangest does not.
    assert set(np.argsort(-score[:400])[:8]) == set(np.argsort(-alone[:400])[:8]) <= set(np.flatnonzero(planted))


@pytest.mark.parametrize("shape", [(0, 4), (5, 0)])
def test_tables_of_nothing_are_refused(shape):
    with pytest.raises(ParameterError, match="holds no embeddings"):
        outlier_scores("isolation forest", np.zeros(shape), 0)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_tables_of_few_different_vectors(count):
    table = np.repeat(np.random.default_rng(3).normal(size=(count, 4)), 50, axis=0)
    if count == 1:
        with pytest.raises(ParameterError, match="all 50 embeddings are the same"):
            outlier_scores("local outlier factor", table, 0)
    else:
        assert np.isfinite(outlier_scores("local outlier factor", table, 0)).all()
