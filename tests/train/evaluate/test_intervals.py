"""Intervals of means over seeds: within what a metric can be, as often right as they say, and none of a few values."""

import math

import numpy as np
import pytest
from scipy.stats import t

from vis2img.train.evaluate.intervals import half_width, mean_interval, mean_text, metric_range


def test_half_a_width_is_student_s_t_for_every_number_of_seeds():
    # Tables of Student's t at 97.5%: 12.706, 4.303, 3.182, 2.776, 2.262 for 1, 2, 3, 4, 9 degrees of freedom.
    for count, quantile in ((2, 12.706), (3, 4.303), (4, 3.182), (5, 2.776), (10, 2.262)):
        values = np.random.default_rng(count).normal(size=count)
        expected = quantile * values.std(ddof=1) / math.sqrt(count)
        assert half_width(values) == pytest.approx(expected, rel=2e-4)
    assert math.isnan(half_width([0.5]))


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("accuracy", (0, 1)),
        ("balanced precision", (0, 1)),
        ("recall in the first 5%", (0, 1)),
        ("outlier share", (0, 1)),
        ("retrieval at 1", (0, 1)),
        ("recall over random", (0, math.inf)),
        ("distance ratio", (0, math.inf)),
        ("mean absolute error", (0, math.inf)),
        ("RMSE", (0, math.inf)),
        ("R2", (-math.inf, 1)),
        ("m", (-math.inf, math.inf)),
    ],
)
def test_names_of_metrics_tell_their_range(metric, expected):
    assert metric_range(metric) == expected


@pytest.mark.parametrize("limits", [(0, 1), (0, math.inf), (-math.inf, 1)])
def test_intervals_stay_within_what_the_metric_can_be(limits):
    rng = np.random.default_rng(0)
    for _ in range(300):
        share = rng.beta(0.3, 0.3, 5)
        values = share if limits[0] == 0 else 1 - 3 * share
        low, high = mean_interval(values, *limits)
        assert limits[0] <= low < values.mean() < high <= limits[1]


def test_in_the_middle_they_are_the_plain_ones():
    values = np.array([0.50, 0.51, 0.49, 0.505, 0.495])
    low, high = mean_interval(values, 0, 1)
    assert (low, high) == (
        pytest.approx(0.5 - half_width(values), abs=1e-5),
        pytest.approx(0.5 + half_width(values), abs=1e-5),
    )


def test_they_hold_the_mean_about_as_often_as_they_say():
    """Near an end the plain interval does so in 81% of the cases, and reaches beyond it in 88%."""
    draws = np.random.default_rng(0).beta(0.02 * 20, 0.98 * 20, (4000, 5))
    found = np.array([mean_interval(values, 0, 1) for values in draws])
    held = ((found[:, 0] <= 0.02) & (found[:, 1] >= 0.02)).mean()
    plain = t.ppf(0.975, 4) * draws.std(1, ddof=1) / math.sqrt(5)
    assert held > 0.88 > ((draws.mean(1) - plain <= 0.02) & (draws.mean(1) + plain >= 0.02)).mean()


@pytest.mark.parametrize(
    "values", [[], [0.5], [0.1, 0.9], [0.1, 0.5, 0.9], [0.1, 0.2, 0.3, 0.4], [0.5] * 9, [0.5, math.nan] * 3]
)
def test_few_values_and_equal_ones_have_none(values):
    assert np.isnan(mean_interval(values, 0, 1)).all()


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((0.552, 0.518, 0.586), "0.552 ± 0.034"),
        ((0.552, 0.519, 0.587), "0.552 ± 0.034"),
        ((0.013, 0.004, 0.038), "0.013 +0.025 -0.009"),
        ((0.6, math.nan, math.nan, (0.5, 0.7)), "0.600 (0.500, 0.700)"),
        ((0.6, math.nan, math.nan, (0.6, 0.6)), "0.600"),
        ((0.6, math.nan, math.nan), "0.600"),
    ],
)
def test_means_in_tables(numbers, expected):
    assert mean_text(*numbers) == expected
