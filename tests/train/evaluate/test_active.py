"""Human scores steer what is shown next, both methods learn, and a session survives its file."""

import json
import math

import numpy as np
import pytest

from vis2img.errors import OutputError, ParameterError, Vis2imgError
from vis2img.train.evaluate.active import ActiveLearning, ActiveSession, damped, expected_improvement
from vis2img.train.evaluate.anomaly import outlier_scores

METHODS = ["astronomaly", "protege"]


@pytest.fixture(scope="module")
def sky():
    """600 patches: 20 wanted ones in one corner, 40 artefacts that are stranger in another, and the usual."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(600, 4)).astype(np.float32)
    kind = np.zeros(600, int)
    kind[rng.permutation(600)[:60]] = np.repeat([1, 2], [20, 40])
    vectors[kind == 1] = 0.4 * vectors[kind == 1] + [5, 0, 0, 0]
    vectors[kind == 2] = 0.4 * vectors[kind == 2] + [0, 7, 0, 0]
    return vectors, kind, np.linalg.norm(vectors, axis=1)


def test_astronomaly_damps_by_the_formula_of_lochner_and_bassett():
    # Distances of mean 1; U = 5, 0 and 2.5.
    found = damped(np.array([2.0, 2.0, 1.0]), np.array([5.0, 0.0, 2.5]), np.array([0.0, 2.0, 1.0]))
    expected = [
        2 * math.tanh(math.exp(0) - 1 + math.atanh(0.95)),
        2 * math.tanh(math.exp(2) - 1 + math.atanh(0.1)),
        1 * math.tanh(math.exp(1) - 1 + math.atanh(0.525)),
    ]
    np.testing.assert_allclose(found, expected)
    # On a scored patch only the human counts; where every patch is scored too.
    np.testing.assert_allclose(damped(np.array([2.0]), np.array([0.0]), np.array([0.0])), [0.2])


def test_expected_improvement_is_that_of_a_million_draws():
    draws = np.random.default_rng(1).normal(2.0, 1.5, 1_000_000)
    expected = np.maximum(draws - 2.2 - 0.5, 0).mean()
    assert expected_improvement(np.array([2.0]), np.array([1.5]), 2.2)[0] == pytest.approx(expected, rel=0.01)
    np.testing.assert_allclose(expected_improvement(np.array([1.0, 4.0]), np.zeros(2), 2.0), [0.0, 1.5], atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_before_any_score_patches_are_shown_by_their_raw_score(sky, method):
    vectors, _, raw = sky
    session = ActiveSession(vectors, raw, method)
    np.testing.assert_array_equal(session.next(5), np.argsort(-raw)[:5])
    np.testing.assert_array_equal(session.ranking(), np.argsort(-raw))


@pytest.mark.parametrize("method", METHODS)
def test_what_a_human_calls_dull_sinks_and_what_is_interesting_rises(sky, method):
    vectors, kind, raw = sky
    session = ActiveSession(vectors, raw, method)
    before = session.ranking()
    for _ in range(4):
        shown = session.next(10)
        assert not set(shown) & set(session.human)
        session.score(shown, np.where(kind[shown] == 1, 5, 0))
    after = session.ranking()
    assert sorted(after) == list(range(600))
    wanted, artefact = np.flatnonzero(kind == 1), np.flatnonzero(kind == 2)
    assert np.isin(before[:40], wanted).sum() < 5
    assert np.isin(after[:40], wanted).sum() >= 15
    assert np.median(np.flatnonzero(np.isin(after, artefact))) > np.median(np.flatnonzero(np.isin(before, artefact)))


def test_no_patch_is_shown_twice_and_the_last_batch_is_short(sky):
    vectors, _, raw = sky
    session = ActiveSession(vectors[:25], raw[:25])
    seen = []
    for _ in range(4):
        shown = session.next(10)
        session.score(shown, np.zeros(len(shown)))
        seen.append(list(shown))
    assert [len(shown) for shown in seen] == [10, 10, 5, 0]
    assert sorted(sum(seen, [])) == list(range(25))


@pytest.mark.parametrize("method", METHODS)
def test_a_session_goes_on_from_its_file(sky, tmp_path, method):
    vectors, kind, raw = sky
    session = ActiveSession(vectors, raw, method, seed=3)
    shown = session.next(10)
    session.score(shown, np.where(kind[shown] == 1, 4.5, 0.5))
    session.save(tmp_path / "scores.json")
    again = ActiveSession.load(tmp_path / "scores.json", vectors, raw)
    assert again.human == session.human
    np.testing.assert_array_equal(again.next(20), session.next(20))
    np.testing.assert_array_equal(again.ranking(), session.ranking())
    assert [path.name for path in tmp_path.iterdir()] == ["scores.json"]


def test_files_that_are_no_scores_or_of_other_embeddings_are_refused(sky, tmp_path):
    vectors, _, raw = sky
    path = tmp_path / "scores.json"
    session = ActiveSession(vectors, raw)
    session.save(path)
    with pytest.raises(Vis2imgError, match="other embeddings"):
        ActiveSession.load(path, vectors + 1, raw)
    for text in ("not json", "[]", json.dumps({"method": "astronomaly"})):
        path.write_text(text)
        with pytest.raises(Vis2imgError, match=r"scores\.json"):
            ActiveSession.load(path, vectors, raw)
    with pytest.raises(OutputError, match="absent"):
        session.save(tmp_path / "absent" / "scores.json")


def test_scores_out_of_range_leave_the_session_as_it_was(sky):
    vectors, _, raw = sky
    session = ActiveSession(vectors, raw)
    for indices, scores, message in (([0, 1], [3, 6], "human score 6"), ([0], [np.nan], "nan"), ([600], [1], "600")):
        with pytest.raises(ParameterError, match=message):
            session.score(indices, scores)
    assert session.human == {}
    session.score([4, 4], [1, 2])
    assert session.human == {4: 2.0}


def test_unknown_methods_and_raw_scores_that_do_not_fit_are_refused(sky):
    vectors, _, raw = sky
    with pytest.raises(ParameterError, match="magic"):
        ActiveSession(vectors, raw, "magic")
    with pytest.raises(ParameterError, match="600 finite numbers"):
        ActiveSession(vectors, raw[:5])


def test_twenty_scores_raise_the_recall_in_the_first_5_percent(sky):
    vectors, kind, _ = sky
    more = np.concatenate([vectors, vectors + 1e-3])  # 60 of 1,200 are looked at, and 80 artefacts are stranger
    wanted = np.tile(kind == 1, 2)
    pairs = ActiveLearning(rounds=2).run(more, wanted, (0, 1))
    found = {(name.setting, name.x, name.seed): v for name, v in pairs if name.metric == "recall in the first 5%"}
    assert set(found) == {(m, x, s) for m in METHODS for x in (0, 20) for s in (0, 1)}
    # Astronomaly's formula damps what is dull and raises nothing: it need not gain by so few scores.
    assert all(found["protege", 20, seed] > found["protege", 0, seed] for seed in (0, 1))


def test_what_was_shown_is_what_was_looked_at_beside_the_raw_order(sky):
    vectors, kind, _ = sky
    pairs = ActiveLearning(rounds=10).run(vectors, kind == 1, [3])
    found = {(name.setting, name.x): value for name, value in pairs if name.metric == "recall"}
    assert set(found) == {(setting, x) for setting in (*METHODS, "no scores") for x in (20, 50, 100)}
    raw = outlier_scores("isolation forest", vectors, 3)
    first = np.argsort(-raw, kind="stable")[:50]
    assert found["no scores", 50] == pytest.approx((kind[first] == 1).sum() / (kind == 1).sum())
    # The same session, step by step: what it shows, batch by batch, is what counts.
    session = ActiveSession(vectors, raw, "protege", 3)
    for _ in range(5):
        shown = session.next(10)
        session.score(shown, np.where(kind[shown] == 1, 5.0, 0.0))
    assert found["protege", 50] == pytest.approx((kind[list(session.human)] == 1).sum() / (kind == 1).sum())
    assert found["protege", 50] > found["no scores", 50]


def test_a_first_5_percent_that_was_mostly_scored_is_not_told(sky):
    vectors, kind, _ = sky
    pairs = ActiveLearning(rounds=2).run(vectors, kind == 2, [0])
    told = {name.x for name, _ in pairs if name.metric == "recall in the first 5%"}
    assert told == {0}  # 20 scores of 30 looked at
    with pytest.raises(ParameterError, match="batch of 0"):
        ActiveLearning(batch=0)
