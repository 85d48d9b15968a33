"""What an input consists of changes with every byte that is read of it, wherever that lies, and with nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

from tests.helpers.measurement_sets import CENTRE, Synthetic, build_ms
from vis2img.averaging.params import AveragingParams
from vis2img.averaging.run import average
from vis2img.dataset.contents import contents
from vis2img.errors import MeasurementSetError
from vis2img.ms.metadata import read_metadata


@pytest.fixture
def ms(tmp_path: Path) -> Synthetic:
    return build_ms(tmp_path / "a.ms")


def test_data_that_change_in_place_are_others(ms: Synthetic) -> None:
    """Whatever the folder itself says: its time of modification stays when a column is written."""
    seen = [contents(ms.path)]
    ms.edit("DATA", lambda data: 2 * data)
    seen.append(contents(ms.path))
    with table(f"{ms.path}/FIELD", readonly=False, ack=False) as field:
        field.putcol("PHASE_DIR", field.getcol("PHASE_DIR") + 1e-3)
    seen.append(contents(ms.path))
    assert seen[0] != seen[1] != seen[2]
    (ms.path / "table.lock").write_bytes(b"whoever opens it in CASA")
    with table(f"{ms.path}/HISTORY", readonly=False, ack=False) as history:
        history.addrows(1)
    read_metadata(ms.path)
    assert contents(ms.path) == seen[2]


def test_what_lies_behind_a_reference_table_counts(ms: Synthetic, tmp_path: Path) -> None:
    with table(str(ms.path), ack=False) as main:
        main.query("ANTENNA1 < 3", name=str(tmp_path / "some.ms")).close()
    before = contents(tmp_path / "some.ms")
    assert any(name.startswith(str(ms.path)) for name, *_ in before)
    ms.edit("DATA", lambda data: 2 * data)
    assert contents(tmp_path / "some.ms") != before


def test_averages_and_files(ms: Synthetic, tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    average(read_metadata(ms.path), store, AveragingParams((128, 128), 3e-5, CENTRE))
    before = contents(store)
    chunk = max((path for path in store.rglob("c/*") if path.is_file()), key=lambda path: path.stat().st_size)
    chunk.write_bytes(chunk.read_bytes()[::-1])
    assert [name for name, *_ in contents(store)] == [name for name, *_ in before] and contents(store) != before
    file = tmp_path / "a.npz"
    np.savez(file, images=np.zeros((1, 8, 8)))
    (tmp_path / "link.npz").symlink_to(file)
    assert (
        contents(tmp_path / "link.npz") == contents(file) == [(str(file), file.stat().st_size, file.stat().st_mtime_ns)]
    )
    with pytest.raises(MeasurementSetError, match=r"gone\.ms does not exist"):
        contents(tmp_path / "gone.ms")
