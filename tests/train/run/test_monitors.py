"""Collapse is called when it has happened and not before; RankMe of matrices with a known answer.

The numbers of the histories are those of real runs of a micro transformer on simulated sources.
"""

import math

import numpy as np
import pytest

from vis2img.train.run.monitors import findings, rankme, rankme_of_moment

K = 1024


def record(loss=4.0, entropy=2.0, usage=0.2, finite=1.0):
    return {"loss": loss, "entropy": entropy, "usage": usage, "finite": finite}


def diagnose(history, **kwargs):
    """The most serious finding, or None."""
    return next(iter(findings(history, **kwargs)), None)


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


def run(steps=400, warmup=40, out_dim=128, every=10, **last):
    """Metrics of a healthy run; ``last`` overrides the values that it ends with."""
    end = {"loss": 1.6, "entropy": 1.5, "usage": 3 / out_dim, "feature_std": 0.66, "rankme": 8.0} | last
    start = {"loss": math.log(out_dim), "entropy": math.log(out_dim), "usage": 6 / out_dim, "feature_std": 0.25}
    start["rankme"] = 25.0
    noise = np.random.default_rng(0).normal(size=(steps, 5))
    history = []
    for step in range(steps):
        share = max(0.0, step - warmup) / (steps - warmup)
        row = {
            k: start[k] * (end[k] / start[k]) ** share * (1 + 0.02 * n) for k, n in zip(end, noise[step], strict=True)
        }
        if step < 10:  # the centre has yet to arrive
            row |= {"loss": 1.6 + 0.3 * step, "entropy": 0.3 + 0.4 * step, "usage": 1 / out_dim}
        if step % every:
            del row["rankme"]
        row["lr"] = 1e-3 * min(step / warmup, 0.5 + 0.5 * math.cos(math.pi * share))
        history.append({"finite": 1.0, **row})
    return history


def kinds(history, out_dim=128, **kwargs):
    """Kinds found by a caller that looks every ten steps at the last 200, in order of appearance."""
    found = {}
    for end in range(10, len(history) + 1, 10):
        found |= {f.kind: end for f in findings(history[max(0, end - 200) : end], out_dim=out_dim, **kwargs)}
    return list(found)


def test_no_false_alarm_in_a_healthy_run():
    assert kinds(run()) == []
    assert kinds(run(steps=2000, warmup=600, out_dim=4096), out_dim=4096) == []
    assert kinds(run(usage=0.9, feature_std=0.9, rankme=60.0)) == []


def test_no_false_alarm_while_the_learning_rate_still_rises():
    """A long warm-up is spent at the uniform answer, with features that are alike."""
    history = run(steps=2000, warmup=500)[:500]
    assert all(abs(row["loss"] / math.log(128) - 1) < 0.1 for row in history[20:])
    flat = [row | {"loss": math.log(128), "entropy": math.log(128), "feature_std": 0.01} for row in history]
    assert kinds(flat) == []
    assert "uniform collapse" in kinds([row | {"lr": 1e-3} for row in flat])


def test_a_rate_that_is_much_too_high():
    """What happened at 15 times the highest rate that worked: all features alike, then the uniform answer."""
    history = run(loss=4.852, entropy=4.852, usage=1 / 128, feature_std=0.016, rankme=3.1)
    history = [row | {"feature_std": min(row["feature_std"], 0.025)} for row in history[:100]] + [
        row | {"feature_std": 0.016, "usage": 1 / 128, "loss": 4.85, "entropy": 4.85} for row in history[100:]
    ]
    assert set(kinds(history)) == {"uniform collapse", "feature collapse"}
    found = findings(history, out_dim=128)
    assert [f.kind for f in found] == ["uniform collapse", "feature collapse"]
    assert "lower base_lr to a tenth" in found[0].message and not any(f.stop for f in found)
    assert diagnose(history, out_dim=128) == found[0]


def test_two_outputs_left_are_few_and_three_are_not():
    assert kinds([record(loss=1.0, entropy=0.6, usage=2 / 128)] * 100) == ["few outputs"]
    assert kinds([record(loss=1.0, entropy=0.6, usage=3 / 128)] * 100) == []
    assert "sinkhorn" in diagnose([record(usage=2 / 128)] * 100, out_dim=128).message


def test_prototypes_that_nobody_chooses_for_long():
    few = [record(usage=4 / 128) | {"prototypes": 5.0}] * 100
    assert kinds(few) == ["starving prototypes"]
    assert "5 of 128" in (message := diagnose(few, out_dim=128).message) and "sinkhorn" in message
    assert "model.out_dim to 20" in message
    # Few in a batch are enough if others have their turn.
    assert kinds([row | {"prototypes": 13.0} for row in few]) == []
    assert kinds([*few[1:], record() | {"prototypes": 40.0}]) == []


def test_a_loss_that_stays_where_it_starts():
    stuck = [record(loss=math.log(K), entropy=4.0, usage=0.1)] * 10
    finding = judge(stuck)
    assert finding.kind == "no learning"
    assert "base_lr" in finding.message and "warmup_teacher_temp" in finding.message
    assert judge([record(loss=math.log(K) - 0.5, entropy=4.0)] * 10) is None


def test_dimensions_that_are_lost():
    assert kinds(run(rankme=1.5, steps=600)) == ["dimensional collapse"]
    healthy = [record() | {"rankme": 50.0}] * 20
    assert judge([*healthy, *([record() | {"rankme": 4.0}] * 5)]).kind == "dimensional collapse"
    assert judge([*healthy, *([record() | {"rankme": 6.0}] * 5)]) is None
    assert judge([*healthy, *([record() | {"rankme": 4.0}] * 4)]) is None
    # Neither a reading that failed nor a step without one counts.
    assert judge([*healthy, *([record() | {"rankme": math.nan}] * 9), *([record()] * 9)]) is None


def test_byol_has_no_outputs_to_judge():
    row = {"loss": 0.1, "finite": 1.0, "feature_std": 0.5, "lr": 1e-3, "rankme": 20.0}
    assert kinds([row] * 100, objective="byol") == []
    assert kinds([row | {"feature_std": 1e-3}] * 100, objective="byol") == ["feature collapse"]
    assert kinds([row | {"rankme": 1.2}] * 100, objective="byol") == ["dimensional collapse"]
    assert diagnose([row | {"finite": 0.0}] * 5, out_dim=K, objective="byol").stop


def test_every_message_is_one_line_with_advice():
    cases = (
        [UNIFORM] * 10,
        [ONE_DIMENSION] * 10,
        [record(usage=2 / K)] * 10,
        [record(loss=math.log(K), entropy=4.0)] * 10,
        [record() | {"feature_std": 0.0, "rankme": 1.0}] * 10,
    )
    found = [finding for case in cases for finding in findings(case, out_dim=K, window=10)]
    assert len({finding.kind for finding in found}) == 6
    for finding in found:
        assert "\n" not in finding.message and ";" in finding.message


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


def test_rankme_of_a_moment_is_that_of_its_features():
    features = np.random.default_rng(0).normal(size=(500, 12)) * np.geomspace(1.0, 0.02, 12)
    moment = (features.T @ features / 500).astype(np.float32)
    assert rankme_of_moment(moment) == pytest.approx(rankme(features), rel=1e-3)
    assert rankme_of_moment(1e-3 * moment) == pytest.approx(rankme_of_moment(moment), rel=1e-4)


def test_rounding_is_no_rank():
    """Of 200 dimensions 3 are used; in float32 the others are not quite zero."""
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(1000, 3)) @ rng.normal(size=(3, 200))).astype(np.float32)
    moment = features.T @ features / np.float32(1000)
    assert np.linalg.eigvalsh(moment.astype(np.float64))[:-3].max() > 0.0
    assert rankme_of_moment(moment) < 3.01
    assert rankme_of_moment(np.ones((4, 4))) == pytest.approx(1.0, abs=1e-4)


def test_rankme_of_a_moment_edge_cases():
    assert rankme_of_moment(np.zeros((3, 3))) == 0.0
    assert math.isnan(rankme_of_moment(np.full((2, 2), np.nan)))
    for bad in (np.zeros(3), np.zeros((2, 3)), np.zeros((0, 0))):
        with pytest.raises(ValueError, match="matrix"):
            rankme_of_moment(bad)
