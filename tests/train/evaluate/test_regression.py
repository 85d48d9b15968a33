"""Regression finds what is linear, errors are those of hand-computed numbers, and no group is in two folds."""

import numpy as np
import pytest

from vis2img.errors import ParameterError
from vis2img.train.evaluate.folds import Samples
from vis2img.train.evaluate.neighbours import Voting
from vis2img.train.evaluate.regression import Regression, errors, knn_regressor, redshift_errors, ridge


def values(pairs):
    return {(name.setting, name.metric, name.seed): value for name, value in pairs}


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(200, 5))


def test_errors_are_those_computed_by_hand():
    found = errors(np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.0, 1.0, 2.0, 5.0]))
    assert found == pytest.approx({"R2": 1 - 4 / 5, "mean absolute error": 0.5, "RMSE": 1.0})
    assert np.isnan(errors(np.ones(3), np.zeros(3))["R2"])


def test_redshift_errors_are_those_computed_by_hand():
    # d = 0, 0.1, -0.1, 0.2, 1: median 0.1, deviations 0.1, 0, 0.2, 0.1, 0.9; two lie beyond 0.15.
    true = np.array([0.0, 1.0, 1.0, 0.5, 0.0])
    found = redshift_errors(true, true + np.array([0.0, 0.1, -0.1, 0.2, 1.0]) * (1 + true))
    assert found == pytest.approx({"NMAD": 1.4826 * 0.1, "outlier share": 2 / 5})


def test_a_linear_target_is_predicted_and_noise_is_not(vectors):
    linear = 3 + vectors @ [1.0, -2.0, 0.5, 0.0, 0.0]
    found = values(Regression("flux", folds=4).run(Samples(vectors, linear, np.arange(200)), seeds=(0, 1)))
    assert set(found) == {
        (f"flux, {m}", e, s) for m in ("ridge", "k-NN") for e in ("R2", "mean absolute error", "RMSE") for s in (0, 1)
    }
    assert min(found["flux, ridge", "R2", seed] for seed in (0, 1)) > 0.999
    assert min(found["flux, k-NN", "R2", seed] for seed in (0, 1)) > 0.5
    noise = np.random.default_rng(1).normal(size=200)
    found = values(Regression("flux").run(Samples(vectors, noise, np.arange(200)), seeds=(0,)))
    assert max(found["flux, ridge", "R2", 0], found["flux, k-NN", "R2", 0]) < 0.1


def test_no_group_is_trained_on_and_tested():
    rng = np.random.default_rng(2)
    vectors, target = np.repeat(rng.normal(size=(60, 6)), 3, axis=0), np.repeat(rng.normal(size=60), 3)
    apart = values(Regression("flux").run(Samples(vectors, target, np.arange(180) // 3), seeds=(0,)))
    leaking = values(Regression("flux").run(Samples(vectors, target, np.arange(180)), seeds=(0,)))
    assert apart["flux, k-NN", "R2", 0] < 0.2
    assert leaking["flux, k-NN", "R2", 0] > 0.8


def test_ridge_with_one_penalty_is_the_solution_of_the_normal_equations(vectors, monkeypatch):
    monkeypatch.setattr("vis2img.train.evaluate.regression.PENALTIES", (30.0,))
    target = np.random.default_rng(3).normal(size=200) + vectors[:, 0]
    x = (vectors - vectors.mean(axis=0)) / vectors.std(axis=0)
    weight = np.linalg.solve(x.T @ x + 30 * np.eye(5), x.T @ (target - target.mean()))
    np.testing.assert_allclose(
        ridge(Samples(vectors, target, np.arange(200)))(vectors), x @ weight + target.mean(), rtol=1e-6
    )


def test_ridge_chooses_a_strong_penalty_for_many_features_of_noise():
    rng = np.random.default_rng(4)
    vectors, noise = rng.normal(size=(120, 90)), rng.normal(size=120)
    fitted = ridge(Samples(vectors, noise, np.arange(120)))(rng.normal(size=(500, 90)))
    # Least squares would predict with a spread above that of the noise.
    assert fitted.std() < 0.5


def test_the_neighbour_regressor_weighs_by_similarity():
    vectors = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    votes = np.exp(np.array([0.8, 0.6]) / 0.07)
    found = knn_regressor(Samples(vectors, np.array([1.0, 2.0, 9.0]), np.arange(3)), Voting(2, "exponential"))(
        np.array([[0.8, 0.6]])
    )
    assert found[0] == pytest.approx((votes @ [1.0, 2.0]) / votes.sum(), rel=1e-4)


def test_samples_without_a_target_are_left_out(vectors):
    target = vectors[:, 0] + 2
    gaps = target.copy()
    gaps[150:] = np.nan
    group = np.arange(200)
    found = values(Regression("z").run(Samples(vectors, gaps, group), seeds=(0,)))
    assert found == values(Regression("z").run(Samples(vectors[:150], target[:150], group[:150]), seeds=(0,)))
    assert np.isfinite(list(found.values())).all()


def test_the_log_of_a_target_is_predicted_in_dex_and_redshift_errors_stay_those_of_z(vectors):
    target = 10 ** (0.4 * vectors[:, 0])
    found = values(Regression("redshift", log=True).run(Samples(vectors, target, np.arange(200)), seeds=(0,)))
    assert found["redshift, ridge", "R2", 0] > 0.999
    assert found["redshift, ridge", "NMAD", 0] < 0.01
    assert found["redshift, ridge", "outlier share", 0] == 0
    plain = values(Regression("redshift").run(Samples(vectors, target, np.arange(200)), seeds=(0,)))
    assert plain["redshift, ridge", "R2", 0] < 0.95
    with pytest.raises(ParameterError, match="not positive"):
        list(Regression("flux", log=True).run(Samples(vectors, target - 1, np.arange(200)), seeds=(0,)))


def test_impossible_folds_and_broken_embeddings_are_refused(vectors):
    with pytest.raises(ParameterError, match="5 folds of 3 groups"):
        list(Regression("flux").run(Samples(vectors, vectors[:, 0], np.arange(200) % 3), seeds=(0,)))
    vectors[3, 1] = np.inf
    with pytest.raises(ParameterError, match="NaN or infinity"):
        list(Regression("flux").run(Samples(vectors, vectors[:, 0], np.arange(200)), seeds=(0,)))


def test_training_on_one_group_holds_out_samples_instead(vectors):
    found = Regression("flux", folds=2).run(Samples(vectors, vectors[:, 0], np.arange(200) % 2), seeds=(0,))
    assert next(value for name, value in found if name.metric == "R2" and "ridge" in name.setting) > 0.99


def test_one_set_is_predicted_from_another(vectors):
    target = vectors @ [1.0, -2.0, 0.5, 0.0, 0.0]
    found = values(
        list(
            Regression("z").run(
                Samples(vectors[:150], target[:150], np.arange(150)),
                Samples(vectors[150:], target[150:], np.arange(50)),
            )
        )
    )
    assert found["z, ridge", "R2", 0] > 0.999
    lied = values(
        list(
            Regression("z").run(
                Samples(vectors[:150], target[:150], np.arange(150)),
                Samples(vectors[150:], -target[150:], np.arange(50)),
            )
        )
    )
    assert lied["z, ridge", "R2", 0] < 0


def test_the_penalty_is_chosen_on_groups_that_were_held_out():
    # Samples of a group are much alike: of known groups weak penalties tell the target, of others nothing does.
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(30), 4)
    target = rng.normal(size=30)[group]
    x = rng.normal(size=(30, 25))[group] + 0.05 * rng.normal(size=(120, 25))
    spread = [np.std(ridge(Samples(x, target, g))(x)) for g in (group, np.arange(120))]
    assert spread[0] < 0.5 * spread[1]


def test_a_set_without_a_value_is_told():
    vectors, value = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20.0)
    some, none = (Samples(vectors, each, np.arange(20)) for each in (value, np.full(20, np.nan)))
    other = Samples(vectors + 1, np.full(20, np.nan), np.arange(20))
    with pytest.raises(ParameterError, match="no test sample has a value of flux"):
        list(Regression("flux").run(some, other))
    with pytest.raises(ParameterError, match="no training sample has a value of flux"):
        list(Regression("flux").run(none))
