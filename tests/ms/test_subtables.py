"""Sub-tables as others write them: in other units, with rows that no data refer to, without widths."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from casacore.quanta import quantity
from casacore.tables import makearrcoldesc, maketabdesc, table

from tests.helpers.measurement_sets import add_rows, build_ms, put
from vis2img import open_ms
from vis2img.errors import MeasurementSetError
from vis2img.imaging.fits import image_header
from vis2img.imaging.params import ImagingParams
from vis2img.ms.metadata import read_metadata


def in_other_unit(path: Path, name: str, column: str, unit: str) -> None:
    """Write a column anew in another unit, and say so in its keywords, as casacore's quantum columns do."""
    with table(f"{path}/{name}" if name else str(path), readonly=False, ack=False) as t:
        units = np.atleast_1d(t.getcolkeyword(column, "QuantumUnits"))
        t.putcolkeyword(column, "QuantumUnits", [unit] * len(units))
        t.putcol(column, t.getcol(column) * quantity(1.0, str(units[0])).get_value(unit))


@pytest.mark.parametrize(
    ("name", "column", "unit"),
    [
        ("SPECTRAL_WINDOW", "CHAN_FREQ", "MHz"),
        ("SPECTRAL_WINDOW", "CHAN_WIDTH", "kHz"),
        ("", "UVW", "km"),
        ("", "TIME", "d"),
        ("", "INTERVAL", "min"),
        ("ANTENNA", "DISH_DIAMETER", "cm"),
        ("ANTENNA", "POSITION", "km"),
    ],
)
def test_columns_are_in_the_unit_that_their_keywords_tell(tmp_path: Path, name: str, column: str, unit: str) -> None:
    paths = [build_ms(tmp_path / each, frame="AZELGEO" if column == "POSITION" else "J2000").path for each in "ab"]
    in_other_unit(paths[1], name, column, unit)
    plain, other = map(read_metadata, paths)

    np.testing.assert_allclose(other.spws[0].chan_freq, plain.spws[0].chan_freq, rtol=1e-12)
    numbers = [
        (m.spws[0].chan_width, m.interval, m.dish_diameter, *m.time_range, *m.uv_range_m, *m.fields[0].phase_centre)
        for m in (plain, other)
    ]
    np.testing.assert_allclose(numbers[1], numbers[0], rtol=1e-12)
    if column == "POSITION":
        return
    read = [open_ms(path).read() for path in paths]
    np.testing.assert_allclose(read[1].uvw, read[0].uvw, rtol=1e-12)
    np.testing.assert_allclose(read[1].chan_freq, read[0].chan_freq, rtol=1e-12)


@pytest.mark.parametrize("unit", ["kg", "wavelengths"])
def test_units_that_are_none_of_the_column_are_refused(tmp_path: Path, unit: str) -> None:
    path = build_ms(tmp_path / "a.ms").path
    with table(str(path), readonly=False, ack=False) as t:
        t.putcolkeyword("UVW", "QuantumUnits", [unit] * 3)
    with pytest.raises(MeasurementSetError, match=f"UVW is said to be in {unit}.*write it anew in m"):
        read_metadata(path)


@pytest.mark.parametrize("widths", [np.full(4, np.nan), np.zeros(4), np.array([np.inf, 5e6, np.nan, 5e6])])
def test_channels_without_a_width_are_as_wide_as_they_are_apart(tmp_path: Path, widths: np.ndarray) -> None:
    path = build_ms(tmp_path / "a.ms", descending=True).path
    put(path, "SPECTRAL_WINDOW", CHAN_WIDTH=widths[np.newaxis])
    meta = read_metadata(path)
    assert meta.spws[0].chan_width == 5e6
    image = open_ms(path).image(ImagingParams(npix=(32, 32), pixsize=math.radians(10 / 3600)))
    assert image_header(image)["CDELT3"] == 20e6


def test_rows_of_sub_tables_that_no_data_refer_to_may_be_empty_or_point_nowhere(tmp_path: Path) -> None:
    path = build_ms(tmp_path / "a.ms").path
    plain = open_ms(path).read()
    for name in ("SPECTRAL_WINDOW", "POLARIZATION", "ANTENNA", "FIELD", "OBSERVATION"):
        with table(f"{path}/{name}", readonly=False, ack=False) as t:
            t.addrows(1)
    add_rows(path, "DATA_DESCRIPTION", SPECTRAL_WINDOW_ID=[7], POLARIZATION_ID=[0])

    read = open_ms(path).read()
    np.testing.assert_array_equal(read.vis, plain.vis)
    np.testing.assert_array_equal(read.chan_freq, plain.chan_freq)

    ids = np.zeros(plain.nrow, np.int32)
    ids[-1] = 1
    put(path, "", DATA_DESC_ID=ids)
    with pytest.raises(MeasurementSetError, match="DATA_DESCRIPTION row 1 points to a spectral window"):
        read_metadata(path)


@pytest.mark.parametrize("late", [0.0, 0.75])
def test_the_telescope_is_that_of_the_observation_that_the_data_refer_to(tmp_path: Path, late: float) -> None:
    ms = build_ms(tmp_path / "a.ms", telescope="VLA")
    add_rows(ms.path, "OBSERVATION", TELESCOPE_NAME=["MeerKAT"])
    nrow = len(ms.uvw)
    put(ms.path, "", OBSERVATION_ID=(np.arange(nrow) >= nrow * late).astype(np.int32))
    meta = read_metadata(ms.path)
    assert meta.telescope == ("VLA" if late else "MeerKAT")
    assert ("MeerKAT" in " ".join(meta.cautions)) == bool(late)


def test_cells_of_several_shapes_in_one_window_are_no_damage(tmp_path: Path) -> None:
    path = build_ms(tmp_path / "a.ms").path
    with table(str(path), readonly=False, ack=False) as t:
        values = t.getcol("DATA")
        t.removecols("DATA")
        t.addcols(maketabdesc(makearrcoldesc("DATA", 0j, ndim=2, valuetype="complex")))
        for row, value in enumerate(values):
            t.putcell("DATA", row, value if row else value[:2])
        for row in range(1, 3):
            t.putcell("DATA", row, values[row])
    with pytest.raises(MeasurementSetError, match="DATA") as refused:
        open_ms(path).read()
    assert "damaged" not in str(refused.value)
    with table(str(path), readonly=False, ack=False) as t:
        t.putcell("DATA", 0, values[0])
        t.putcell("DATA", 5, values[0][:2])
    with pytest.raises(MeasurementSetError, match="cells of DATA are of several shapes"):
        open_ms(path).read()


def test_data_of_a_window_without_channels_are_refused(tmp_path: Path) -> None:
    path = build_ms(tmp_path / "a.ms").path
    with table(f"{path}/SPECTRAL_WINDOW", readonly=False, ack=False) as t:
        t.addrows(1)
    put(path, "DATA_DESCRIPTION", SPECTRAL_WINDOW_ID=np.array([1], np.int32))
    with pytest.raises(MeasurementSetError, match="SPECTRAL_WINDOW row 1, which has no channel"):
        read_metadata(path)
