"""Fields that show one source are one group, whatever they are called."""

import numpy as np
import pytest

from vis2img.errors import ParameterError, Vis2imgWarning
from vis2img.simulate.sky.source import SkyComponent, single_component_source
from vis2img.simulate.truth.truth import Truth
from vis2img.train.evaluate.field_tasks import _not_learnt
from vis2img.train.evaluate.simulated import ALIKE, SourcePatches, linked_fields

ARCSEC = 4.84813681109536e-06


def sky(*places, name="compact"):
    """A truth with sources at places in arcsec, near the equator."""
    parts = [SkyComponent(x * ARCSEC, y * ARCSEC, 1.0, 1.4e9, 0.0, 0.0, 0.0, 0.0) for x, y in places]
    return Truth([single_component_source(i, name, part) for i, part in enumerate(parts)])


@pytest.mark.parametrize(
    ("truths", "expected"),
    [
        ([sky((0, 0), (90, 0)), sky((500, 0)), sky((90.5, 0.5))], [0, 1, 0]),
        ([sky((0, 0)), sky((3, 0))], [0, 1]),  # near each other, and two
        ([sky((0, 0)), sky((0, 0), name="ring")], [0, 1]),
        ([sky((0, 0)), sky((0, 0), name="")], [0, 1]),  # without a label nothing is learnt
        ([sky((0, 0), (50, 0)), sky((50, 0), (100, 0)), sky((100, 0))], [0, 0, 0]),
        ([sky(), sky()], [0, 1]),
    ],
)
def test_fields_that_show_one_source_are_one_group(truths, expected):
    assert linked_fields(truths).tolist() == expected


def patches(places, label):
    position = np.array(places) * ARCSEC
    count = len(label)
    images = np.arange(count, dtype=np.float32)[:, None, None, None] * np.ones((1, 2, 2, 1), np.float32)
    return SourcePatches({ALIKE: images}, np.array(label), np.zeros(count, int), position, np.ones(count))


def test_sources_that_another_telescope_saw_too_are_not_asked_for():
    """One sky observed by two telescopes: what is learnt on one would be known on the other."""
    learnt = patches([(0, 0), (50, 0), (100, 0)], ["fri", "frii", "fri"])
    others = patches([(0.3, 0), (50, 0), (500, 0), (100, 60)], ["fri", "fri", "frii", "fri"])
    with pytest.warns(Vis2imgWarning, match="1 of 4 sources of the other fields are learnt from, too"):
        left = _not_learnt(others, learnt)
    np.testing.assert_array_equal(left.seen[ALIKE][:, 0, 0, 0], [1, 2, 3])
    with pytest.raises(ParameterError, match="all sources of the other fields are learnt from"):
        _not_learnt(learnt, learnt)
    assert _not_learnt(patches([(9, 9)], ["fri"]), learnt).label.tolist() == ["fri"]
