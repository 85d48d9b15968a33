"""Fields that show one source are one group, whatever they are called."""

import pytest

from vis2img.simulate.sky.source import SkyComponent, single_component_source
from vis2img.simulate.truth.truth import Truth
from vis2img.train.evaluate.simulated import linked_fields

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
