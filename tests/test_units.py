"""Units and their text forms."""

from __future__ import annotations

import math
from datetime import datetime

import pytest

from vis2img.units import format_duration, mjd_seconds, parse_duration, utc_text


def test_a_time_goes_to_a_measurement_set_and_back() -> None:
    moment = datetime(2026, 3, 1, 23, 59, 59, 875_000)
    assert mjd_seconds(moment) == 61100 * 86400 + 86399.875
    assert utc_text(mjd_seconds(moment)) == "2026-03-01T23:59:59.875"


@pytest.mark.parametrize("mjd_s", [math.nan, math.inf, 1e300])
def test_no_date(mjd_s: float) -> None:
    assert utc_text(mjd_s) is None


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10min", 600), ("1.5 h", 5400), ("2d", 172800), ("0", 0)])
def test_a_duration_has_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds == parse_duration(format_duration(seconds))


@pytest.mark.parametrize("text", ["10", "10 minutes", "-1s", "", "1e999s", "nan s"])
def test_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)
