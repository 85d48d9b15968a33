"""Measurement sets in every way that casacore keeps tables: read as it reads them, refused where a part is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import msconcat, table, taql

from tests.helpers.command_line import fingerprint
from tests.helpers.measurement_sets import build_ms
from vis2img.dataset import open_ms
from vis2img.errors import MeasurementSetError


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return build_ms(tmp_path / "whole.ms", columns=("DATA",), weight_spectrum=True).path


def selected(whole: Path) -> Path:
    path = whole.with_name("selected.ms")
    taql(f"select from '{whole}' where ANTENNA1 == 0 giving '{path}'").close()
    return path


def selected_twice(whole: Path) -> Path:
    path = whole.with_name("selected_twice.ms")
    taql(f"select from '{selected(whole)}' where ANTENNA2 > 2 giving '{path}'").close()
    return path


def in_order(whole: Path) -> Path:
    path = whole.with_name("sorted.ms")
    taql(f"select from '{whole}' orderby desc TIME giving '{path}'").close()
    return path


def joined(whole: Path, *, in_time: bool = True) -> Path:
    path, other = whole.with_name("joined.ms"), build_ms(whole.with_name("other.ms"), weight_spectrum=True, seed=2).path
    with redirect_stdout(None):
        msconcat([str(whole), str(other)], str(path), concatTime=in_time)
    return path


def joined_by_forward_columns(whole: Path) -> Path:
    return joined(whole, in_time=False)


def one_file(whole: Path) -> Path:
    """Copy a set to MultiFile storage, which casacore does by an option that it reads once."""
    path, options = whole.with_name("one_file.ms"), whole.with_name("options")
    options.write_text("table.storage.option: multifile\n")
    copy = f"table({str(whole)!r}, ack=False).copy({str(path)!r}, deep=True, valuecopy=True)"
    code = f"from casacore.tables import table; {copy}"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "CASARCFILES": str(options)}, check=True)
    assert (path / "table.mf").is_file()
    return path


def linked(whole: Path) -> Path:
    path = whole.with_name("linked.ms")
    path.symlink_to(whole.name)
    return path


WAYS = (selected, selected_twice, in_order, joined, joined_by_forward_columns, one_file, linked)


@pytest.mark.parametrize("way", WAYS)
def test_rows_are_those_that_casacore_reads(whole: Path, tmp_path: Path, way) -> None:
    path = way(whole)
    with table(str(path), ack=False) as t:
        uvw, data = t.getcol("UVW"), t.getcol("DATA").mean(axis=-1)
    for lock in tmp_path.rglob("table.lock"):
        lock.unlink()
    before = fingerprint(tmp_path)
    ms = open_ms(path)
    parts = [ms.read(ms_selection(spw)) for spw in sorted({p.spw for p in ms.partitions})]
    assert np.concatenate([part.uvw for part in parts]).tolist() == uvw.tolist()
    np.testing.assert_allclose(np.concatenate([part.vis for part in parts]), data, rtol=1e-6)
    assert ms.meta.telescope == "MeerKAT" and len(ms.meta.antennas) == 7
    assert fingerprint(tmp_path) == before  # no lock file beside any of the tables either


def ms_selection(spw: int):
    from vis2img import Selection

    return Selection(spw=(spw,))


@pytest.mark.parametrize("way", [selected, selected_twice, in_order, joined, joined_by_forward_columns])
def test_a_table_that_is_referred_to_and_not_there(whole: Path, way) -> None:
    path = way(whole)
    shutil.rmtree(whole)
    with pytest.raises(MeasurementSetError, match=r"refers to the table \S*whole.ms, which is not there") as caught:
        open_ms(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [0, 0.6])
def test_truncated_tiles_behind_a_table(whole: Path, way, size: float) -> None:
    path = way(whole)
    owner = path if way is one_file else whole
    victims = [owner / "table.mf"] if way is one_file else [f for f in owner.glob("table.f*_TSM*") if f.stat().st_size]
    with victims[0].open("rb+") as file:
        file.truncate(int(victims[0].stat().st_size * size))
    with pytest.raises(MeasurementSetError, match=r"truncated|damaged"):
        open_ms(path).read(ms_selection(0))


@pytest.mark.parametrize("way", [selected, joined, joined_by_forward_columns, linked])
@pytest.mark.parametrize("file", ["table.lock", "table.dat", "table.f0", "ANTENNA/table.f0"])
def test_a_named_pipe_behind_a_table(whole: Path, way, file: str) -> None:
    path = way(whole)
    victim = (path if way is joined_by_forward_columns and "/" in file else whole) / file
    victim.unlink(missing_ok=True)
    os.mkfifo(victim)
    with pytest.raises(MeasurementSetError, match=r"a named pipe|which is not there|not a measurement set|is missing"):
        open_ms(path)


def test_tables_that_refer_to_each_other(whole: Path) -> None:
    path = selected(whole)
    shutil.rmtree(whole)
    shutil.copytree(path, whole)
    other = (whole / "table.dat").read_bytes().replace(b"./whole.ms", b"./selec.ms")
    (whole / "table.dat").write_bytes(other)
    path.rename(path.with_name("selec.ms"))
    with pytest.raises(MeasurementSetError, match="which refers to it"):
        open_ms(whole)


def test_a_subtable_elsewhere(whole: Path) -> None:
    with table(str(whole), readonly=False, ack=False) as t:
        shutil.move(whole / "FIELD", whole.with_name("FIELD"))
        t.putkeyword("FIELD", f"Table: {whole.with_name('FIELD')}")
    assert [field.name for field in open_ms(whole).meta.fields] == ["SKY"]


def test_a_missing_observation(whole: Path) -> None:
    shutil.rmtree(whole / "OBSERVATION")
    assert open_ms(whole).meta.telescope == "unknown"


@pytest.mark.parametrize("name", ["~", "~root", "a~", "$NOBODY.ms", "x/~/y.ms"])
def test_names_that_shells_expand(whole: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(whole.parent)
    monkeypatch.delenv("NOBODY", raising=False)
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    whole.rename(name)
    assert open_ms(Path(name)).read().nrow == 126


@pytest.mark.parametrize("name", ["$HOME.ms", "${HOME}", "a$HOME"])
def test_names_that_casacore_expands(whole: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/root")
    path = whole.rename(whole.with_name(name))
    with pytest.raises(MeasurementSetError, match=r"casacore reads \$\{?HOME\}? in a name as the variable"):
        open_ms(path)


def test_a_storage_manager_that_is_not_there(whole: Path) -> None:
    content = (whole / "table.dat").read_bytes()
    assert b"TiledColumnStMan" in content
    (whole / "table.dat").write_bytes(content.replace(b"TiledColumnStMan", b"UnheardOfStorage"))
    with pytest.raises(
        MeasurementSetError, match="is stored by unheardofstorage, a library that casacore does not find"
    ):
        open_ms(whole)
