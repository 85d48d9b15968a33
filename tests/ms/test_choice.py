"""What of a measurement set becomes one image, and what is said of the rest. Truth: an explicit transform."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import makearrcoldesc, maketabdesc, table

from tests.helpers.measurement_sets import START_MJD_S, add_rows, build_ms, put, second_window
from vis2img import open_ms
from vis2img.errors import MeasurementSetError, ParameterError, Vis2imgWarning
from vis2img.ms.problems import problems_of
from vis2img.ms.selection import Selection, choice_of


def two_fields(tmp_path: Path, names=("A", "B"), apart: float = 0.1) -> tuple[Path, int]:
    """Return a set whose second half of rows is of a second field, and its number of rows."""
    made = build_ms(tmp_path / "a.ms", field=names[0])
    nrow = len(made.uvw)
    with table(f"{made.path}/FIELD", ack=False) as t:
        centre = t.getcell("PHASE_DIR", 0)
    places = {name: [np.add(centre, [0, apart])] for name in ("PHASE_DIR", "DELAY_DIR", "REFERENCE_DIR")}
    add_rows(made.path, "FIELD", NAME=[names[1]], **places)
    put(made.path, "", FIELD_ID=(np.arange(nrow) >= nrow // 2).astype(np.int32))
    return made.path, nrow


def set_intents(path: Path, modes: list[str], of_row: np.ndarray) -> None:
    with table(f"{path}/STATE", readonly=False, ack=False) as t:
        t.addrows(len(modes))
        t.putcol("OBS_MODE", modes)
    put(path, "", STATE_ID=of_row.astype(np.int32))


@pytest.mark.parametrize(
    ("modes", "taken", "why"),
    [
        (["CALIBRATE_BANDPASS", "TARGET"], "B", "target"),
        (["CALIBRATE_PHASE#ON_SOURCE", "OBSERVE_TARGET#ON_SOURCE"], "B", "target"),
        (["CALIBRATE_FLUX", "UNKNOWN"], "B", "no calibrator|not a calibrator"),
        (["UNKNOWN", "UNKNOWN"], "A", "first with data"),
        (["CALIBRATE_FLUX", "CALIBRATE_PHASE"], "A", "first with data"),
    ],
)
def test_a_target_comes_before_calibrators(tmp_path, modes, taken, why):
    path, nrow = two_fields(tmp_path)
    set_intents(path, modes, np.arange(nrow) >= nrow // 2)
    ms = open_ms(path)
    outline = ms.outline()
    assert outline.field == taken
    assert outline.taken.startswith("1 of 2 fields: --field")
    assert re.search(why, outline.taken)
    assert ms.outline(Selection(field="A")).field == "A"
    assert "first" not in ms.outline(Selection(field="A")).taken


def test_rows_of_one_name_are_one_field(tmp_path):
    path, nrow = two_fields(tmp_path, names=("A", "A"), apart=0.0)
    ms = open_ms(path)
    for field in (None, "A"):
        assert sum(part.nrow for part in ms.read_parts(Selection(field=field))) == nrow
    assert sum(part.nrow for part in ms.read_parts(Selection(field="1"))) == nrow - nrow // 2
    assert ms.outline().taken == ""


def test_pointings_of_one_name_far_apart_are_not_one_field(tmp_path):
    path, nrow = two_fields(tmp_path, names=("A", "A"), apart=0.2)
    ms = open_ms(path)
    assert sum(part.nrow for part in ms.read_parts()) == nrow // 2
    assert "FIELD rows 1 have the name 'A' too" in ms.outline().taken


def test_antennas_of_one_name_are_all_chosen(tmp_path):
    made = build_ms(tmp_path / "a.ms")
    with table(f"{made.path}/ANTENNA", readonly=False, ack=False) as t:
        names = t.getcol("NAME")
        t.putcol("NAME", [names[0], names[0], *names[2:]])
    part = open_ms(made.path).read(Selection(antennas=(names[0], names[2])))
    assert {*part.antenna1.tolist(), *part.antenna2.tolist()} == {0, 1, 2}


def test_all_windows_of_one_receiver_are_imaged(tmp_path):
    made = build_ms(tmp_path / "a.ms")
    nrow = len(made.uvw)
    second_window(made.path, made.freq + 1e8, np.arange(nrow) % 2 == 1)
    ms = open_ms(made.path)
    assert [part.origin.spw for part in ms.read_parts()] == [(0,), (1,)]
    assert ms.outline().taken == ""
    assert ms.outline(Selection(spw=1)).taken.startswith("1 of 2 windows: --spw")


def test_another_receiver_is_left_out_and_said(tmp_path):
    made = build_ms(tmp_path / "a.ms")
    nrow = len(made.uvw)
    second_window(made.path, made.freq + 5e9, np.arange(nrow) % 3 == 1)
    ms = open_ms(made.path)
    assert [part.origin.spw for part in ms.read_parts()] == [(0,)]
    assert "window 1 of another receiver" in ms.outline().taken
    assert len(ms.read_parts(Selection(spw="all"))) == 2


def test_channel_averages_of_another_window_are_left_out_but_not_baseline_dependent_ones(tmp_path):
    made = build_ms(tmp_path / "a.ms", channels=4)
    nrow = len(made.uvw)
    averaged = np.arange(nrow) % 2 == 1
    second_window(made.path, made.freq.reshape(2, 2).mean(axis=1), averaged, width=1e7)
    meta = open_ms(made.path).meta
    assert {p.spw for p in choice_of(meta, Selection()).partitions} == {0, 1}  # no baseline is in both at one time

    first, second, time = (np.array(meta.rows[name]) for name in ("ANTENNA1", "ANTENNA2", "TIME"))
    for column, values in (("ANTENNA1", first), ("ANTENNA2", second), ("TIME", time)):
        values[1::2] = values[::2][: len(values[1::2])]
        put(made.path, "", **{column: values})
    choice = choice_of(open_ms(made.path).meta, Selection())
    assert {p.spw for p in choice.partitions} == {0}
    assert "window 1 has the data of window 0" in choice.text


def test_windows_of_autocorrelations_are_left_out(tmp_path):
    made = build_ms(tmp_path / "a.ms")
    nrow = len(made.uvw)
    own = np.arange(nrow) % 2 == 1
    second_window(made.path, made.freq + 1e8, own)
    with table(str(made.path), readonly=False, ack=False) as t:
        t.putcol("ANTENNA2", np.where(own, t.getcol("ANTENNA1"), t.getcol("ANTENNA2")))
    ms = open_ms(made.path)
    assert [part.origin.spw for part in ms.read_parts()] == [(0,)]
    assert "autocorrelations only in window 1" in ms.outline().taken


def test_times_are_counted_over_all_windows(tmp_path):
    made = build_ms(tmp_path / "a.ms", times=6)
    with table(str(made.path), ack=False) as t:
        time = t.getcol("TIME")
    second_window(made.path, made.freq + 1e8, time >= START_MJD_S + 8.0 * 3)  # the second half of the time
    parts = open_ms(made.path).read_parts(Selection(times=(2, 4)))
    assert [sorted({round(t - START_MJD_S) for t in part.time}) for part in parts] == [[16], [24]]


def hands_apart(tmp_path: Path, shift: float = 0.0) -> Path:
    """Return a set of RR in one spectral window and LL in another."""
    made = build_ms(tmp_path / "a.ms", corrs=("RR",))
    nrow = len(made.uvw)
    second_window(made.path, made.freq + shift, np.arange(nrow) % 2 == 1)
    with table(f"{made.path}/POLARIZATION", readonly=False, ack=False) as t:
        t.addrows(1)
        t.putcell("NUM_CORR", 1, 1)
        t.putcell("CORR_TYPE", 1, np.array([8], np.int32))
        t.putcell("CORR_PRODUCT", 1, np.array([[1], [1]], np.int32))
    put(made.path, "DATA_DESCRIPTION", POLARIZATION_ID=np.array([0, 1], np.int32))
    return made.path


def test_one_hand_alone_is_said_where_the_other_is_there(tmp_path):
    ms = open_ms(hands_apart(tmp_path))
    with pytest.warns(Vis2imgWarning, match="mean of hands in windows of their own"):
        assert len(ms.read_parts()) == 2
    with pytest.warns(Vis2imgWarning, match="made of LL alone.*RR is in spectral window 0"):
        ms.read_parts(Selection(spw=1))


def column_in_part(path: Path, name: str, rows: range, values: np.ndarray) -> None:
    """Add a column that has a value in some rows only."""
    with table(str(path), readonly=False, ack=False) as t:
        kind = "complex" if np.iscomplexobj(values) else "float"
        t.addcols(maketabdesc(makearrcoldesc(name, values.flat[0], ndim=2, valuetype=kind)))
        for row in rows:
            t.putcell(name, row, values[row])


@pytest.mark.parametrize("first", [True, False])
def test_rows_without_weight_spectrum_are_weighed_by_weight(tmp_path, first):
    made = build_ms(tmp_path / "a.ms", weights=2.0)
    nrow = len(made.uvw)
    rows = range(nrow // 2) if first else range(nrow // 2, nrow)
    column_in_part(made.path, "WEIGHT_SPECTRUM", rows, np.full((nrow, 4, 2), 7.0, np.float32))
    with pytest.warns(Vis2imgWarning, match=f"WEIGHT_SPECTRUM has no value in {nrow - len(rows)} of the {nrow} rows"):
        part = open_ms(made.path).read()
    expected = np.full((nrow, 4), 4.0)
    expected[rows.start : rows.stop] = 14.0
    np.testing.assert_array_equal(part.weight, expected)


@pytest.mark.parametrize("first", [True, False])
def test_visibilities_in_some_rows_only_are_refused_by_count(tmp_path, first):
    made = build_ms(tmp_path / "a.ms")
    nrow = len(made.uvw)
    rows = range(nrow // 2) if first else range(nrow // 2, nrow)
    column_in_part(made.path, "CORRECTED_DATA", rows, np.ones((nrow, 4, 2), np.complex64))
    ms = open_ms(made.path)
    with pytest.raises(MeasurementSetError, match=f"CORRECTED_DATA has no value in {nrow - len(rows)} of the {nrow}"):
        ms.read()
    assert any("CORRECTED_DATA has no value" in text for text in problems_of(ms.meta)[0])
    assert ms.read(Selection(column="DATA")).nrow == nrow


def test_a_healthy_set_has_no_problem_and_no_warning(tmp_path):
    made = build_ms(tmp_path / "a.ms")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ms = open_ms(made.path)
        ms.read()
    assert problems_of(ms.meta) == ((), "")


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda made: made.edit("FLAG", np.ones_like), "100% flagged"),
        (lambda made: made.edit("DATA", np.zeros_like), "zeros only"),
        (lambda made: made.edit("WEIGHT", np.zeros_like), "without a positive finite WEIGHT"),
        (lambda made: made.edit("UVW", np.zeros_like), "UVW are"),
        (lambda made: made.edit("DATA", lambda d: d * np.nan), "NaN or infinite in DATA"),
    ],
)
def test_what_image_refuses_is_a_problem(tmp_path, edit, problem):
    made = build_ms(tmp_path / "a.ms")
    edit(made)
    ms = open_ms(made.path)
    assert any(problem in text for text in problems_of(ms.meta)[0])
    with pytest.raises(MeasurementSetError):
        ms.image(ms.imaging_params(npix=64, pixsize=1e-5))


@pytest.mark.parametrize("unit", ["km", "GHz"])
def test_data_in_other_units_are_a_problem_and_suggest_no_pixels(tmp_path, unit):
    made = build_ms(tmp_path / "a.ms")
    if unit == "km":
        made.edit("UVW", lambda uvw: uvw / 1e3)
    else:
        put(made.path, "SPECTRAL_WINDOW", CHAN_FREQ=made.freq[np.newaxis] / 1e9)
    ms = open_ms(made.path)
    assert any(f"were {unit}" in text for text in problems_of(ms.meta)[0])
    with pytest.raises(MeasurementSetError, match=f"were {unit}"):
        ms.imaging_params()
    assert ms.imaging_params(npix=64, pixsize=1e-5).npix == (64, 64)


@pytest.mark.parametrize("number", [-1, -(2**31), 2**31 - 1])
def test_numbers_of_no_antenna_are_refused(tmp_path, number):
    made = build_ms(tmp_path / "a.ms")
    with table(str(made.path), readonly=False, ack=False) as t:
        t.putcell("ANTENNA2", 5, np.int32(number))
    with pytest.raises(MeasurementSetError, match=f"ANTENNA2 has {number} in its row 5"):
        open_ms(made.path).read()


def test_cross_hands_alone_are_a_problem(tmp_path):
    ms = open_ms(build_ms(tmp_path / "a.ms", corrs=("XY",)).path)
    assert any("Stokes I needs XX and YY" in text for text in problems_of(ms.meta)[0])


def test_flagged_rows_of_sub_tables_are_said(tmp_path):
    made = build_ms(tmp_path / "a.ms")
    put(made.path, "DATA_DESCRIPTION", FLAG_ROW=np.array([True]))
    with pytest.warns(Vis2imgWarning, match="DATA_DESCRIPTION row 0 has FLAG_ROW set"):
        open_ms(made.path).read()


def test_beams_away_from_the_pointing_are_said(tmp_path):
    made = build_ms(tmp_path / "a.ms")
    with table(f"{made.path}/FEED", readonly=False, ack=False) as t:
        t.addrows(1)
        t.putcell("BEAM_OFFSET", 0, np.full((2, 2), np.radians(0.5)))
    ms = open_ms(made.path)
    with pytest.warns(Vis2imgWarning, match="BEAM_OFFSET of 30arcmin"):
        ms.read()
    assert any("BEAM_OFFSET" in text for text in problems_of(ms.meta)[0])


def test_several_feeds_of_an_antenna_are_said_but_not_feeds_numbered_as_antennas(tmp_path):
    made = build_ms(tmp_path / "a.ms")
    nrow = len(made.uvw)
    with table(str(made.path), ack=False) as t:
        antenna = t.getcol("ANTENNA1")
    put(made.path, "", FEED1=antenna)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_ms(made.path).read()
    put(made.path, "", FEED1=(np.arange(nrow) % 2).astype(np.int32))
    with pytest.warns(Vis2imgWarning, match="2 feeds"):
        open_ms(made.path).read()


def test_a_field_that_is_not_there_is_refused_by_name(tmp_path):
    path, _ = two_fields(tmp_path)
    with pytest.raises(ParameterError, match=r"no data for field 'C'.*0 \(A\), 1 \(B\)"):
        open_ms(path).outline(Selection(field="C"))
