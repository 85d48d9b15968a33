"""Equal rows are found whatever their order and rounding, and rows that only lie near each other are not."""

import numpy as np
import pytest

from vis2img.train.evaluate.equal import equal_rows


@pytest.mark.parametrize("noise", [0.0, 1e-7])
@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_copies_are_found_up_to_rounding(noise, offset):
    rng = np.random.default_rng(0)
    different = (rng.normal(size=(200, 24)) + offset).astype(np.float32)
    source = np.concatenate([np.arange(200), rng.integers(0, 200, 800)])
    rng.shuffle(source)
    table = different[source] * (1 + noise * rng.normal(size=(1000, 24))).astype(np.float32)
    expected = np.unique(source, return_index=True)[1][source]
    np.testing.assert_array_equal(equal_rows(table), expected)


def test_a_near_collapse_is_none():
    """Vectors that differ little by their length, and by their spread as others do."""
    vectors = 1 + 1e-4 * np.random.default_rng(1).normal(size=(300, 16))
    np.testing.assert_array_equal(equal_rows(vectors), np.arange(300))


def test_a_ramp_is_not_one_group():
    """Neighbours nearer than the tolerance do not link what lies far apart."""
    ramp = np.linspace(0, 1, 200_000)[:, None] * np.ones(3)
    first = equal_rows(ramp)
    assert np.abs(ramp - ramp[first]).max() < 1e-4


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (np.zeros((4, 3)), [0, 0, 0, 0]),
        (np.full((3, 2), 7.0), [0, 0, 0]),
        (np.zeros((0, 3)), []),
        (np.zeros((2, 0)), [0, 1]),
        ([[1.0, 2.0], [np.nan, 1.0], [1.0, 2.0], [np.nan, 1.0], [np.inf, 0.0]], [0, 1, 0, 3, 4]),
        (np.array([1.0, 2.0, 1.0])[:, None, None] * np.ones((3, 2, 2)), [0, 1, 0]),
    ],
)
def test_tables_at_the_edge(rows, expected):
    assert equal_rows(np.asarray(rows)).tolist() == expected
