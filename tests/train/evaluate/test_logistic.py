"""Logistic regression of many penalties and subsets at once, against scikit-learn's one by one."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from vis2img.errors import ParameterError
from vis2img.train.evaluate.logistic import fit_logistic


def made_up(n, dim, classes, seed=0):
    """Return rows of unlike spread and not centred, and classes that overlap."""
    rng = np.random.default_rng(seed)
    code = np.arange(n) % classes
    rows = rng.normal(size=(n, dim)) * rng.uniform(0.2, 3, dim) + 1.5
    rows[:, :classes] += 0.8 * np.eye(classes)[code]
    return rows.astype(np.float32), code


@pytest.mark.parametrize(("n", "dim", "classes"), [(90, 12, 2), (40, 60, 2), (120, 7, 4), (30, 45, 3)])
def test_probabilities_are_those_of_scikit_learn_for_each_penalty_and_subset(n, dim, classes):
    rows, code = made_up(n, dim, classes)
    strengths = (1e-4, 1e-2, 1.0)
    used = np.random.default_rng(1).random((n, len(strengths))) < 0.7
    fitted = fit_logistic(rows, code, strengths, used).probabilities(rows)
    for strength, some, chance in zip(strengths, used.T, fitted, strict=True):
        reference = LogisticRegression(C=strength, max_iter=10_000, tol=1e-8).fit(rows[some].astype(float), code[some])
        np.testing.assert_allclose(chance, reference.predict_proba(rows), atol=3e-3)
    np.testing.assert_allclose(fitted.sum(axis=2), 1, rtol=1e-12)


def test_rows_that_are_all_alike_give_the_shares_of_the_classes():
    chance = fit_logistic(np.ones((100, 3)), np.repeat([0, 1], [80, 20]), [1.0]).probabilities(np.ones((1, 3)))
    np.testing.assert_allclose(chance[0, 0], [0.8, 0.2], atol=1e-4)


def test_one_class_is_refused():
    with pytest.raises(ParameterError, match="two classes"):
        fit_logistic(np.ones((5, 2)), np.zeros(5, int), [1.0])
