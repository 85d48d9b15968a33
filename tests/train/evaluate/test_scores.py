"""Tables of scores: means and intervals by hand, files that come back as they went, differences seed by seed."""

import dataclasses
import json
import math

import pytest

from vis2img.errors import ParameterError
from vis2img.train.evaluate.scores import Score, differences, from_csv, summaries, to_csv, to_json


def score(value, seed=0, representation="ours", x=math.nan, setting="k-NN"):
    return Score("classification", representation, setting, "accuracy", x, seed, value)


def test_shares_have_student_s_t_on_the_scale_of_logits_and_differences_the_plain_one():
    values = (0.97, 0.99, 1.0, 0.95, 0.99)
    # Mean 0.98, standard deviation 0.02, t(0.975, 4) = 2.776445: half 0.024833, which would reach beyond 1.
    (row,) = summaries(score(value, seed) for seed, value in enumerate(values))
    step = 0.024833 / (0.98 * 0.02)
    expected = [1 / (1 + math.exp(-(math.log(0.98 / 0.02) + sign * step))) for sign in (-1, 1)]
    assert (row.n, row.mean) == (5, pytest.approx(0.98))
    assert (row.low, row.high) == (pytest.approx(expected[0], abs=1e-5), pytest.approx(expected[1], abs=1e-5))
    assert (row.interval, row.values) == ("Student's t, 5 seeds", values)
    assert str(row) == "0.980 +0.014 -0.048"

    (row,) = summaries(score(value, seed, "a minus b") for seed, value in enumerate(values))
    assert (row.low, row.high) == (pytest.approx(0.955167, abs=1e-5), pytest.approx(1.004833, abs=1e-5))


@pytest.mark.parametrize("values", [(0.5,), (0.5, 0.6), (0.5, 0.6, 0.7, 0.7)])
def test_few_seeds_have_no_interval_and_are_shown_themselves(values):
    (row,) = summaries(score(value, seed) for seed, value in enumerate(values))
    assert math.isnan(row.low) and math.isnan(row.high) and row.interval == ""
    assert row.shown_singly == (len(values) > 1)
    shown = {1: "0.500", 2: "0.550 (0.500, 0.600)", 4: "0.625 (0.500, 0.600, 0.700, 0.700)"}
    assert str(row) == shown[len(values)]
    assert f"{' '.join(map(str, values))}\n" in to_csv([row])
    assert json.loads(to_json([row]))[0]["values"] == list(values)


def test_one_seed_twice_is_refused():
    with pytest.raises(ParameterError, match=r"one seed twice \(classification, ours, k-NN, accuracy\)"):
        summaries([score(0.5), score(0.6, 1), score(0.6, 1)])


def test_settings_positions_and_representations_stay_apart_in_their_order():
    rows = summaries([score(0.1, x=1.0), score(0.2, x=0.1), score(0.3, 1, x=1.0), score(0.4, representation="theirs")])
    assert [(row.representation, row.n, row.mean) for row in rows] == [
        ("ours", 2, pytest.approx(0.2)), ("ours", 1, 0.2), ("theirs", 1, 0.4),
    ]  # fmt: skip


def test_scores_come_back_from_their_file_as_they_went():
    scores = [score(0.1 + 0.2, seed=3), score(1 / 3, x=0.05, setting='a "b", c')]
    again = from_csv(to_csv(scores))
    assert [repr(one) for one in again] == [repr(one) for one in scores]


def test_differences_go_seed_by_seed_and_need_both():
    scores = [score(0.5), score(0.8, 1), score(0.9, 2), score(0.4, representation="base"),
              score(0.9, 1, representation="base"), score(0.1, setting="probe")]  # fmt: skip
    found = differences(scores, "ours", "base")
    assert [(one.representation, one.seed, one.value) for one in found] == [
        ("ours minus base", 0, pytest.approx(0.1)), ("ours minus base", 1, pytest.approx(-0.1)),
    ]  # fmt: skip


def test_a_single_share_of_sources_has_wilson_s_interval():
    # Newcombe 1998, Stat. Med. 17, 857, table I: 81 of 263, 0.2553 to 0.3662 by Wilson's method without correction.
    row = Score("classification", "x", "k-NN", "accuracy", 1.0, 0, 81 / 263, 263)
    (found,) = summaries([row])
    assert (found.low, found.high) == (pytest.approx(0.2553, abs=1e-4), pytest.approx(0.3662, abs=1e-4))
    (unknown,) = summaries([dataclasses.replace(row, count=0)])
    assert math.isnan(unknown.low)
    assert from_csv(to_csv([row])) == [row]


def test_values_that_nothing_drawn_has_changed_have_no_interval():
    rows = [Score("similarity", "x", "cosine", "precision", 1.0, seed, 0.75) for seed in range(5)]
    (found,) = summaries(rows)
    assert found.mean == 0.75 and math.isnan(found.low) and str(found) == "0.750"
