"""Collapse is called when it has happened and not before; RankMe of matrices with a known answer."""

import math

import numpy as np
import pytest

from train.monitors import diagnose, rankme

K = 1024


def record(loss=4.0, entropy=2.0, usage=0.2, finite=1.0):
    return {"loss": loss, "entropy": entropy, "usage": usage, "finite": finite}


def judge(history, **kwargs):
    return diagnose(history, **{"out_dim": K, "window": 10, **kwargs})


UNIFORM = record(loss=math.log(K), entropy=math.log(K) - 1e-3, usage=0.1)
ONE_DIMENSION = record(loss=1e-3, entropy=1e-4, usage=1 / K)


def test_a_healthy_run_is_left_alone():
    assert judge([record()] * 50) is None
    assert judge([]) is None


def test_uniform_collapse():
    finding = judge([record()] * 5 + [UNIFORM] * 10)
    assert finding.kind == "uniform collapse"
    assert "6.931" in finding.message
    assert "teacher_temp" in finding.message
    assert not finding.stop


def test_one_dimension_collapse():
    finding = judge([ONE_DIMENSION] * 10)
    assert finding.kind == "one-dimension collapse"
    assert "centre_momentum" in finding.message


@pytest.mark.parametrize("bad", [UNIFORM, ONE_DIMENSION])
def test_a_collapse_needs_the_whole_window(bad):
    assert judge([bad] * 9) is None
    assert judge([bad] * 4 + [record()] + [bad] * 5) is None


def test_high_entropy_with_a_falling_loss_is_no_collapse():
    assert judge([record(loss=math.log(K) - 1.0, entropy=math.log(K))] * 10) is None


def test_confident_answers_with_many_outputs_are_no_collapse():
    assert judge([record(loss=0.1, entropy=1e-4, usage=30 / K)] * 10) is None


def test_non_finite_steps_stop_the_run_after_several_in_a_row():
    bad = record(loss=float("nan"), entropy=float("nan"), usage=float("nan"), finite=0.0)
    four, five = judge([record()] + [bad] * 4), judge([record()] + [bad] * 5)
    assert (four.kind, four.stop) == ("non-finite", False)
    assert (five.kind, five.stop) == ("non-finite", True)
    assert "base_lr" in five.message
    assert judge([bad] * 4 + [record()] + [bad] * 4).stop is False
    assert judge([bad] * 9 + [record()]) is None


def test_rankme_of_orthogonal_columns_is_their_number():
    features, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(40, 6)))
    assert rankme(3.0 * features) == pytest.approx(6.0, rel=1e-4)


def test_rankme_of_one_direction_is_one():
    assert rankme(np.outer(np.arange(1.0, 20.0), np.ones(5))) == pytest.approx(1.0, abs=1e-4)


def test_rankme_of_given_singular_values():
    """sigma = (2, 1, 1): p = (1/2, 1/4, 1/4), entropy 1.5 ln 2."""
    assert rankme(np.diag([2.0, 1.0, 1.0])) == pytest.approx(2.0**1.5, rel=1e-4)


def test_rankme_edge_cases():
    assert rankme(np.zeros((4, 3))) == 0.0
    for bad in (np.zeros(3), np.zeros((0, 3)), np.array([[np.nan, 1.0]])):
        with pytest.raises(ValueError, match="finite"):
            rankme(bad)
