"""Imaging parameters: what is legal, and how they are written down."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vis2img.errors import ParameterError
from vis2img.imaging.params import ImagingParams

NPIX, PIXSIZE = (64, 48), math.radians(0.25)


def params(**changes) -> ImagingParams:
    return ImagingParams(**{"npix": NPIX, "pixsize": PIXSIZE, "weighting": "natural", "rank_filter": 0, **changes})


ANGLES = st.floats(1e-9, 1e-3)


def pairs_of(limit: float) -> st.SearchStrategy:
    return st.tuples(st.floats(0, limit), st.floats(0, limit)).filter(lambda v: v[0] < v[1])


@st.composite
def any_params(draw) -> ImagingParams:
    return ImagingParams(
        npix=(2 * draw(st.integers(16, 900)), 2 * draw(st.integers(16, 900))),
        pixsize=draw(ANGLES),
        weighting=draw(st.sampled_from(["natural", "uniform", "briggs"])),
        robust=draw(st.floats(-5, 5)),
        taper=draw(st.just(0.0) | ANGLES),
        uvrange=draw(pairs_of(1e6) | st.tuples(st.floats(0, 1e6), st.just(math.inf))),
        phase_centre=draw(st.none() | st.tuples(st.floats(0, 6.28), st.floats(-1.57, 1.57))),
        band=draw(pairs_of(1)),
        time_span=draw(pairs_of(1)),
        keep_times=draw(st.floats(0.01, 1)),
        keep_antennas=draw(st.floats(0.01, 1)),
        keep_baselines=draw(st.floats(0.01, 1)),
        sampling_seed=draw(st.integers(0, 2**63)),
    )


@given(how=any_params())
def test_parameters_survive_a_dictionary_and_json(how):
    assert ImagingParams.from_dict(how.to_dict()) == how
    again = ImagingParams.from_dict(json.loads(json.dumps(how.to_dict(), allow_nan=False)))
    assert again == how
    assert hash(again) == hash(how)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"npix": (30, 64)}, "npix_x = 30.*use 32"),
        ({"npix": (64, 47)}, "npix_y = 47.*use 46 or 48"),
        ({"pixsize": 0.0}, "pixsize"),
        ({"pixsize": -1e-5}, "pixsize"),
        ({"pixsize": math.nan}, "pixsize"),
        ({"pixsize": 0.05}, "hemisphere"),
        ({"weighting": "robust"}, "natural, uniform or briggs"),
        ({"robust": 5.5}, "robust"),
        ({"robust": math.nan}, "robust"),
        ({"taper": -1e-6}, "taper"),
        ({"taper": math.inf}, "taper"),
        ({"uvrange": (10.0, 10.0)}, "uvrange"),
        ({"uvrange": (-1.0, 10.0)}, "uvrange"),
        ({"uvrange": (0.0, math.nan)}, "uvrange"),
        ({"phase_centre": (math.nan, 0.1)}, "phase_centre"),
        ({"phase_centre": (0.1, 1.6)}, "phase_centre"),
        ({"band": (0.5, 0.5)}, "band"),
        ({"band": (0.0, 1.1)}, "band"),
        ({"time_span": (-0.1, 1.0)}, "time_span"),
        ({"keep_times": 0.0}, "keep_times"),
        ({"keep_antennas": 1.01}, "keep_antennas"),
        ({"keep_baselines": math.nan}, "keep_baselines"),
        ({"sampling_seed": -1}, "sampling_seed"),
    ],
)
def test_illegal_parameters_are_refused(changes, message):
    with pytest.raises(ParameterError, match=message):
        params(**changes)


def test_an_unknown_key_is_refused():
    with pytest.raises(ParameterError, match="cell_size"):
        ImagingParams.from_dict({"npix": (64, 64), "pixsize": 1e-5, "cell_size": 3})
