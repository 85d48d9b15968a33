"""Folds keep sources whole and classes mixed; few labels are a fair subset."""

from itertools import pairwise

import numpy as np
import pytest

from vis2img.errors import ParameterError
from vis2img.pictures.groups import position_groups
from vis2img.train.evaluate.folds import few_labels, validation_folds

ARCMIN = np.pi / 180 / 60


def test_positions_linked_by_short_steps_are_one_group_across_ra_zero_and_at_the_pole():
    ra = np.radians([359.99, 0.0, 0.01, 10.0, 0.0, 120.0])
    dec = np.radians([0.0, 0.0, 0.0, 0.0, 89.999, 89.999])
    found = position_groups(ra, dec, ARCMIN)
    # A chain of 0.6 arcmin steps over RA 0; two positions 2 arcsec from the pole at different RA; one alone.
    assert [len(set(found[[0, 1, 2]])), len(set(found[[4, 5]])), len(set(found))] == [1, 1, 3]


def test_separation_is_along_the_great_circle_not_in_coordinates():
    # At declination 60 deg a step of 1.9 arcmin in RA is 0.95 arcmin on the sky.
    dec = np.radians([60.0, 60.0])
    assert len(set(position_groups(np.array([1.0, 1.0 + 1.9 * ARCMIN]), dec, ARCMIN))) == 1
    assert len(set(position_groups(np.array([1.0, 1.0 + 2.1 * ARCMIN]), dec, ARCMIN))) == 2


def test_unknown_positions_are_groups_of_their_own():
    found = position_groups(np.array([np.nan, np.nan, 0.3, 0.3]), np.array([0.1, np.nan, 0.1, 0.1]), ARCMIN)
    assert len(set(found)) == 3
    assert found[2] == found[3]


def test_groups_are_those_of_all_pairs_by_brute_force():
    rng = np.random.default_rng(3)
    ra, dec, radius = rng.uniform(0, 0.1, 80), rng.uniform(-0.05, 0.05, 80), 0.008
    cosine = np.sin(dec) * np.sin(dec[:, None]) + np.cos(dec) * np.cos(dec[:, None]) * np.cos(ra - ra[:, None])
    reach = np.arccos(np.clip(cosine, -1, 1)) <= radius
    for _ in range(7):
        reach = reach @ reach
    found = position_groups(ra, dec, radius)
    np.testing.assert_array_equal(found == found[:, None], reach)
    assert 1 < len(set(found)) < 80


@pytest.mark.parametrize("radius", [-1.0, np.nan])
def test_an_illegal_radius_is_refused(radius):
    with pytest.raises(ParameterError, match="radius"):
        position_groups(np.zeros(2), np.zeros(2), radius)


@pytest.mark.parametrize("group_size", [1, 3])
def test_folds_keep_groups_whole_and_classes_in_proportion(group_size):
    group = np.repeat(np.arange(120), group_size)
    label = np.where(group % 4 == 0, "rare", "common")
    fold = validation_folds(label, group, 5, seed=1)
    assert all(len(set(fold[group == g])) == 1 for g in range(120))
    for i in range(5):
        assert (fold == i).sum() == 24 * group_size
        assert (label[fold == i] == "rare").mean() == pytest.approx(0.25)


def test_folds_replay_with_a_seed_and_change_with_another():
    label, group = np.arange(60) % 2, np.arange(60) // 2
    first = validation_folds(label, group, 3, seed=1)
    np.testing.assert_array_equal(first, validation_folds(label, group, 3, seed=1))
    assert (first != validation_folds(label, group, 3, seed=2)).any()


@pytest.mark.parametrize(
    ("label", "group", "folds", "message"),
    [
        ([0, 1, 0, 1], [0, 0, 1, 1], 3, "3 folds of 2 groups"),
        ([0, 1, 0, 1], [0, 1, 2, 3], 1, "1 folds"),
        ([0, 1, 0, 1], [0, 1, 2, 3], 3, "largest has 2"),
        ([0, 0, 0, 0, 7, 7], [0, 1, 2, 3, 4, 4], 2, "class 7 is in one fold only"),
    ],
)
def test_impossible_folds_are_refused(label, group, folds, message):
    with pytest.raises(ParameterError, match=message):
        validation_folds(np.array(label), np.array(group), folds, seed=0)


def test_few_labels_keep_the_share_of_each_class():
    label = np.repeat(["a", "b", "c"], [600, 300, 100])
    kept = few_labels(label, 0.1, seed=0)
    assert [int((label[kept] == name).sum()) for name in "abc"] == [60, 30, 10]
    assert len(set(kept)) == len(kept) == 100


def test_few_labels_keep_one_of_each_class_at_least():
    label = np.repeat(["a", "b", "c"], [990, 9, 1])
    for wanted in (0.002, 1, 5):
        assert set(label[few_labels(label, wanted, seed=4)]) == {"a", "b", "c"}
    assert len(few_labels(label, 5, seed=4)) == 5


def test_fewer_labels_lie_within_more_and_another_seed_draws_others():
    label = np.arange(200) % 3
    subsets = [set(few_labels(label, count, seed=5)) for count in (3, 10, 50, 199, 200)]
    assert all(small < large for small, large in pairwise(subsets))
    assert set(few_labels(label, 50, seed=6)) != subsets[2]
    np.testing.assert_array_equal(few_labels(label, 1.0, seed=5), np.arange(200))


@pytest.mark.parametrize("wanted", [0, 11, 0.0, 1.5])
def test_an_impossible_number_of_labels_is_refused(wanted):
    with pytest.raises(ParameterError, match="labels"):
        few_labels(np.zeros(10), wanted, seed=0)
