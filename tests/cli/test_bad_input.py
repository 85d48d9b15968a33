"""Whatever is wrong with the input: one line that tells, the right exit status, nothing written, no hang."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits


@pytest.fixture
def refused(cli, tmp_path: Path):
    """Image PATH with options, expect a refusal, and return its message; nothing may be left behind."""

    def run(path: Path, *options: object, code: int = 1) -> str:
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        message = cli("image", path, "-o", out / "a.fits", *options).error(code)
        assert list(out.iterdir()) == []
        return message

    return run


@pytest.fixture
def imaged(cli, tmp_path: Path):
    """Image PATH with options and return the pixels [y, x]."""

    def run(path: Path, *options: object) -> np.ndarray:
        out = tmp_path / "image.fits"
        done = cli(
            "image",
            path,
            "-o",
            out,
            "--npix",
            64,
            "--pixsize",
            "4arcsec",
            "--no-png",
            "--overwrite",
            *options,
        )
        assert done.code == 0, done.err
        return fits.getdata(out)[0, 0]

    return run


def test_no_measurement_set(cli, refused, tmp_path: Path) -> None:
    (tmp_path / "file.ms").write_bytes(b"hello")
    (tmp_path / "folder.ms").mkdir()
    for name, words in {
        "file.ms": "is not a measurement set: it is a file",
        "folder.ms": "is not a measurement set: it is a folder without table.dat",
        "missing.ms": "does not exist",
    }.items():
        assert words in refused(tmp_path / name)
        assert words in cli("info", tmp_path / name).error()


def test_a_subtable_is_no_measurement_set(cli, make_ms) -> None:
    assert "lacks the column" in cli("info", make_ms().path / "ANTENNA").error()


@pytest.mark.parametrize(
    "table",
    ["", "SPECTRAL_WINDOW", "FIELD", "ANTENNA", "POLARIZATION", "DATA_DESCRIPTION", "OBSERVATION"],
)
@pytest.mark.parametrize("file", ["table.dat", "table.f0"])
@pytest.mark.parametrize("size", [0, 0.5])
def test_truncated_table_files(cli, refused, make_ms, table: str, file: str, size: float) -> None:
    path = make_ms().path
    victim = path / table / file
    with victim.open("rb+") as f:
        f.truncate(int(victim.stat().st_size * size))
    for message in (cli("info", path).error(), refused(path)):
        assert str(path) in message


@pytest.mark.parametrize("size", [0, 0.5, 0.99])
@pytest.mark.parametrize("column", ["DATA", "WEIGHT_SPECTRUM"])
def test_truncated_tiles(refused, make_ms, column: str, size: float) -> None:
    from casacore.tables import table

    path = make_ms(weight_spectrum=True, times=30).path
    with table(str(path), ack=False) as t:
        number = next(m["SEQNR"] for m in t.getdminfo().values() if column in m["COLUMNS"])
    victims = [f for f in path.glob(f"table.f{number}_TSM*") if f.stat().st_size]
    assert len(victims) == 1
    with victims[0].open("rb+") as f:
        f.truncate(int(victims[0].stat().st_size * size))
    message = refused(path)
    assert "truncated" in message and column in message


@pytest.mark.parametrize("file", ["table.f0", "table.dat", "SPECTRAL_WINDOW/table.dat", "FIELD"])
def test_missing_table_files(cli, make_ms, file: str) -> None:
    path = make_ms().path
    victim = path / file
    shutil.rmtree(victim) if victim.is_dir() else victim.unlink()
    assert str(path) in cli("info", path).error()


@pytest.mark.parametrize("column", ["FLAG", "UVW", "TIME"])
def test_a_missing_required_column(cli, refused, make_ms, column: str) -> None:
    made = make_ms()
    made.drop(column)
    assert f"lacks the column {column}" in refused(made.path)
    assert f"lacks the column {column}" in cli("info", made.path).error()


def test_missing_data_columns(cli, refused, make_ms) -> None:
    made = make_ms(columns=("DATA", "MODEL_DATA"))
    message = refused(made.path, "--column", "CORRECTED_DATA")
    assert "has no CORRECTED_DATA; it has DATA, MODEL_DATA" in message and "--column" in message
    made.drop("DATA")
    assert "has no DATA; it has MODEL_DATA" in refused(made.path, "--column", "DATA")
    made.drop("MODEL_DATA")
    assert refused(made.path).endswith("has no column with visibilities")
    assert refused(made.path, "--column", "DATA").endswith("has no DATA, and no column with visibilities")
    assert cli("info", made.path).code == 0


@pytest.mark.parametrize("column", ["TIME", "FLAG", "UVW", "WEIGHT", "ANTENNA1"])
def test_a_column_that_holds_no_visibilities(refused, make_ms, column: str) -> None:
    assert column in refused(make_ms().path, "--column", column)


def test_everything_flagged(refused, make_ms) -> None:
    made = make_ms()
    made.edit("FLAG", np.ones_like)
    assert "100% flagged" in refused(made.path)
    made.edit("FLAG", np.zeros_like)
    made.edit("FLAG_ROW", np.ones_like)
    assert "100% flagged" in refused(made.path)


def test_no_rows(cli, refused, make_ms, tmp_path: Path) -> None:
    from casacore.tables import table

    path = tmp_path / "empty.ms"
    with table(str(make_ms().path), ack=False) as t, t.query("FIELD_ID < 0") as none:
        none.copy(str(path), deep=True).close()
    assert "no row" in refused(path)
    assert "the main table has no row" in cli("info", path).out


@pytest.mark.parametrize("poison", [np.nan, np.inf, complex(0, np.nan), complex(-np.inf, np.nan)])
def test_not_finite_data_count_as_flagged(imaged, make_ms, poison: complex) -> None:
    """The image equals the one with those samples flagged instead, and differs from the one with all."""
    bad = np.random.default_rng(3).random((126, 4, 2)) < 0.2
    sources = [(1.0, 2e-4, 1e-4), (0.5, -3e-4, 2e-4)]
    clean, poisoned, flagged = (make_ms(name, sources=sources) for name in ("clean", "poisoned", "flagged"))
    poisoned.edit("DATA", lambda data: np.where(bad, np.complex64(poison), data))
    flagged.edit("FLAG", lambda flag: bad)
    np.testing.assert_allclose(imaged(poisoned.path), imaged(flagged.path), atol=1e-5)
    assert np.abs(imaged(clean.path) - imaged(flagged.path)).max() > 1e-3


@pytest.mark.parametrize("weight", [0.0, -1.0, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("column", ["WEIGHT", "WEIGHT_SPECTRUM"])
def test_useless_weights_count_as_flagged(imaged, refused, make_ms, column: str, weight: float) -> None:
    rows = np.random.default_rng(4).random(126) < 0.3
    sources = [(1.0, 2e-4, 1e-4), (0.5, -3e-4, 2e-4)]
    with_spectrum = column == "WEIGHT_SPECTRUM"
    strange, flagged = (make_ms(n, sources=sources, weight_spectrum=with_spectrum) for n in ("strange", "flagged"))
    strange.edit(column, lambda w: np.where(rows.reshape(-1, *[1] * (w.ndim - 1)), np.float32(weight), w))
    flagged.edit("FLAG", lambda flag: flag | rows[:, None, None])
    np.testing.assert_allclose(imaged(strange.path), imaged(flagged.path), atol=1e-5)
    strange.edit(column, lambda w: np.full_like(w, weight))
    message = refused(strange.path)
    assert f"without a positive finite {column}" in message and "--weight-column none" in message
    assert imaged(strange.path, "--weight-column", "none").max() > 0.5


def test_all_zero_data_and_uvw(cli, refused, make_ms) -> None:
    made = make_ms(columns=("CORRECTED_DATA", "DATA"))
    made.edit("CORRECTED_DATA", np.zeros_like)
    assert "CORRECTED_DATA holds zeros only; choose another with --column (DATA)" in refused(made.path)
    made.edit("UVW", np.zeros_like)
    assert "UVW" in refused(made.path)
    assert "UVW" in refused(made.path, "--npix", 64, "--pixsize", "1arcsec", "--column", "DATA")


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e300])
def test_strange_uvw_rows_are_dropped(imaged, make_ms, poison: float) -> None:
    strange, flagged = make_ms("strange"), make_ms("flagged")
    rows = np.arange(126) % 5 == 0
    strange.edit("UVW", lambda uvw: np.where(rows[:, None], poison, uvw))
    flagged.edit("FLAG", lambda flag: flag | rows[:, None, None])
    np.testing.assert_allclose(imaged(strange.path), imaged(flagged.path), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--channels", "0:5"], "channels 0:5 is outside spectral window 0, which has 4 (0:4)"),
        (["--channels", "4"], "channels 4:5 is outside"),
        (["--times", "0:7"], "times 0:7 is outside the observation, which has 6 (0:6)"),
        (["--times", "6:"], "outside the observation"),
        (["--field", "NGC1"], "no data for field 'NGC1'; fields with data: 0 (SKY)"),
        (["--field", "1"], "no data for field '1'"),
        (["--field", ""], "no data for field ''"),
        (["--spw", "1"], "spectral window 1 has no data here; choose from 0"),
        (["--spw", "-1"], "spectral window -1"),
        (["--antennas", "m000,m099"], "has no antenna 'm099'; it has m000, m001"),
        (["--antennas", "7,0"], "has no antenna '7'"),
        (["--antennas", "m000"], "no baseline between the antennas m000"),
        (["--antennas", "²,0"], "has no antenna '²'"),
        (["--uvrange", "1000k:"], "keeps no visibility; the longest baseline is"),
        (["--npix", "200000", "--pixsize", "0.1arcsec"], "GB of memory"),
        (["--npix", "100000000", "--pixsize", "0.1mas"], "GB of memory"),
        (["--pixsize", "1deg", "--npix", "32"], "too coarse"),
        (["--weight-column", "WEIGHT_SPECTRUM"], "has no column WEIGHT_SPECTRUM"),
    ],
)  # fmt: skip
def test_selections_that_are_not_there(refused, make_ms, options: list[str], words: str) -> None:
    assert words in refused(make_ms().path, *options)


def test_missing_output_folder(cli, make_ms, tmp_path: Path) -> None:
    message = cli("image", make_ms().path, "-o", tmp_path / "no" / "a.fits").error()
    assert message == f"{tmp_path}/no/a.fits cannot be written: the folder {tmp_path}/no does not exist"


@pytest.mark.parametrize("name", ["a.fits", "a.png", "a-psf.fits"])
def test_existing_outputs_stay_byte_for_byte(cli, make_ms, tmp_path: Path, name: str) -> None:
    made = make_ms()
    (tmp_path / name).write_bytes(b"precious")
    stamp = (tmp_path / name).stat().st_mtime_ns
    message = cli("image", made.path, "--psf", "-o", tmp_path / "a.fits").error()
    assert message == f"{tmp_path / name} exists already; use --overwrite to replace it"
    assert (tmp_path / name).read_bytes() == b"precious" and (tmp_path / name).stat().st_mtime_ns == stamp
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["ms", name])
    done = cli("image", made.path, "--npix", 64, "--psf", "-o", tmp_path / "a.fits", "--overwrite")
    assert done.code == 0 and (tmp_path / name).stat().st_size > 1000


def test_outputs_are_checked_before_the_data_are_read(cli, make_ms, tmp_path: Path) -> None:
    made = make_ms()
    made.edit("FLAG", np.ones_like)
    (tmp_path / "a.fits").write_bytes(b"precious")
    assert "exists already" in cli("image", made.path, "-o", tmp_path / "a.fits").error()


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_output_that_is_a_folder(cli, make_ms, tmp_path: Path, overwrite: list[str]) -> None:
    (tmp_path / "d.fits").mkdir()
    for name in (".", "d.fits"):
        assert "is a folder" in cli("image", make_ms(f"o{len(name)}").path, "-o", tmp_path / name, *overwrite).error()


@pytest.mark.parametrize("name", ["a", "a.png", "a.ms", "a.fits.gz"])
def test_output_with_a_strange_name(refused, cli, make_ms, tmp_path: Path, name: str) -> None:
    assert "must end with .fits" in cli("image", make_ms().path, "-o", tmp_path / name).error()
    assert [p.name for p in tmp_path.iterdir()] == ["ms"]


@pytest.mark.parametrize(
    ("column", "shape", "words", "remedy"),
    [
        ("FLAG", (4, 1), "a cell of FLAG is [4, 1], not [4, 2]", "write FLAG anew"),
        ("FLAG", (3, 2), "a cell of FLAG is [3, 2], not [4, 2]", "write FLAG anew"),
        ("WEIGHT", (1,), "a cell of WEIGHT is [1], not [2]", "--weight-column none"),
        ("WEIGHT", (4,), "a cell of WEIGHT is [4], not [2]", "--weight-column none"),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_cells_of_other_shapes_than_the_sub_tables_say(refused, make_ms, column, shape, words, remedy, late) -> None:
    """All cells, or only those of the later rows, which a first look does not see."""
    from casacore.tables import table

    made = make_ms()
    with table(str(made.path), readonly=False, ack=False) as t:
        for row in range(100 if late else 0, t.nrows()):
            t.putcell(column, row, np.ones(shape, t.getcell(column, row).dtype))
    message = refused(made.path)
    assert str(made.path) in message and column in message
    if not late:
        assert words in message and remedy in message


def test_correlations_that_the_data_do_not_have(refused, make_ms) -> None:
    """DATA of 2 correlations under a POLARIZATION of 4, as tables pieced together have it, and of 1."""
    from casacore.tables import table

    for types, remedy in (([9, 10, 11, 12], "split the set anew"), ([9], "split the set anew")):
        made = make_ms(f"of{len(types)}")
        with table(f"{made.path}/POLARIZATION", readonly=False, ack=False) as t:
            t.putcell("CORR_TYPE", 0, np.array(types, np.int32))
        message = refused(made.path)
        assert f"a cell of DATA is [4, 2], not [4, {len(types)}]" in message and remedy in message
        assert f"POLARIZATION {len(types)} correlations" in message


def test_a_weight_spectrum_of_another_shape(refused, imaged, make_ms) -> None:
    """Another number of channels is refused, with advice that helps; one channel for all is taken."""
    from casacore.tables import makearrcoldesc, maketabdesc, table

    for nchan in (1, 3):
        made = make_ms(f"of{nchan}")
        with table(str(made.path), readonly=False, ack=False) as t:
            t.addcols(maketabdesc(makearrcoldesc("WEIGHT_SPECTRUM", 0.0, ndim=2, valuetype="float")))
            for row in range(t.nrows()):
                t.putcell("WEIGHT_SPECTRUM", row, np.full((nchan, 2), 1.0, np.float32))
        if nchan == 1:
            assert imaged(made.path).max() > 0.9
            continue
        assert "a cell of WEIGHT_SPECTRUM is [3, 2], not [4, 2]" in refused(made.path)
        assert imaged(made.path, "--weight-column", "WEIGHT").max() > 0.9
