"""Damaged stores of averages: each is refused in one line that names it, before zarr looks at it; none runs code."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import time
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest

from tests.averaging.test_store import SOURCES, in_blocks
from tests.helpers.measurement_sets import build_ms
from vis2img.averaging.run import average
from vis2img.dataset import open_ms
from vis2img.errors import MeasurementSetError, StoreError
from vis2img.ms.metadata import read_metadata


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of three time blocks and two channel blocks."""
    folder = tmp_path_factory.mktemp("checks")
    meta = read_metadata(build_ms(folder / "small.ms", antennas=5, times=6, channels=4, sources=SOURCES).path)
    return average(meta, folder / "a.zarr", in_blocks(meta, 3, channel_blocks=2, npix=(64, 64))).path


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "a.zarr"))


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the metadata of a folder, and what its block says of their size."""
    path = folder / "zarr.json"
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))
    if folder.parent.name.startswith("block-"):
        name = f"{folder.name}/zarr.json"
        edit(folder.parent, lambda own: own["attributes"]["files"].update({name: path.stat().st_size}))


def put(store: Path, array: str, value: Any) -> None:
    """Set the first numbers of an array, with the right checksum."""
    path = store / "block-0001" / array / "c" / ("0/0" if array == "uvw" else "0")
    raw = bytearray(path.read_bytes()[:-4])
    kind = {"vis": np.complex64, "channel_block": np.int32}.get(array, np.float32)
    number = np.array([value], kind).tobytes()
    raw[: len(number)] = number
    path.write_bytes(bytes(raw) + google_crc32c.value(bytes(raw)).to_bytes(4, "little"))


def refusal(store: Path) -> str:
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(StoreError) as caught:
        open_ms(store).image()
    assert time.process_time() - start < 3 and tracemalloc.get_traced_memory()[1] < 2**27
    tracemalloc.stop()
    message = str(caught.value)
    assert str(store) in message and "\n" not in message
    assert isinstance(caught.value, MeasurementSetError)  # which a training skips
    return message


def setting(name: str, value: Any) -> Callable[[dict[str, Any]], object]:
    """Set an attribute, ``meta.spw`` in a group of them."""

    def change(found: dict[str, Any]) -> None:
        group, *rest = name.split(".")
        if rest:
            found["attributes"][group][rest[0]] = value
        else:
            found["attributes"][group] = value

    return change


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("parameters.npix", value) for value in ([64], [64, "a"], [1e9, 1e9], [-4, 64], None)),
        *(("parameters.pixsize", value) for value in (0, -1, "x", float("nan"), float("inf"), 1e300)),
        *(("parameters.phase_centre", value) for value in ([1], [0, 2], [float("nan"), 0], ["a", "b"])),
        *(("parameters.channel_blocks", value) for value in (0, 5, 1.5, True)),
        ("parameters.tolerance", 7),
        ("parameters.time_block", -1),
        ("parameters.other", 1),
        ("parameters", []),
        *(("chan_freq", value) for value in ([], [1e9], [2e9, 1e9, 3e9, 4e9], [0, 1, 2, 3], "x")),
        ("chan_freq", [1e9, None, 2e9, 3e9]),
        *(("chan_freq", [-1e9, 1e9, 2e9, value]) for value in (3e9, float("nan"), [3e9])),
        *(("edges", value) for value in ([], [1.0], [3.0, 2.0, 1.0, 0.0], 7, [1.0, "x", 2.0, 3.0])),
        *(("meta", value) for value in ({}, [], "x")),
        *(("meta.spw", value) for value in (-1, "a", None, 1.5)),
        *((f"meta.{key}", value) for key in ("pointing_dec", "band_low", "chan_width") for value in (None, "x", 1e999)),
        *(("meta.telescope", value) for value in (None, 7, ["a"])),
        ("meta.dish_diameter", -5),
        ("meta.pointing_dec", 2.0),
        *(("selection.stokes", value) for value in ("", "IQ", None, 3)),
        ("source.nrow", "many"),
        ("source", None),
        ("date", 3),
    ],
)  # fmt: skip
def test_root_attributes(store: Path, name: str, value: Any) -> None:
    edit(store, setting(name, value))
    assert "is damaged: its " in refusal(store)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("time", value) for value in ("x", None, float("nan"))),
        *(("nrow", value) for value in (-1, 1, 10**12, 2**70, "x", True)),
        *(("times", value) for value in ([], [2.0, 1.0], "x", 5, [None])),
        *(("time_weight", value) for value in ([], [-1.0], ["x"])),
        *(("chan_weight", value) for value in ([], [1.0, 2.0], [1.0, 1.0, 1.0, -1.0], None, {"a": 1})),
        ("node_weight", [float("nan")] * 4),
        ("files", []),
        ("files", {"uvw/c/0/0": "large"}),
        ("nvis", None),
    ],
)
def test_attributes_of_blocks(store: Path, name: str, value: Any) -> None:
    edit(store / "block-0001", setting(name, value))
    assert "block-0001" in refusal(store)


BLOSC = {"name": "blosc", "configuration": {"cname": "zstd", "clevel": 5, "shuffle": "noshuffle", "typesize": 4}}


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [10**12, 3]},
        {"shape": [-1, 3]},
        {"shape": "x"},
        {"shape": [2**62, 2**62]},
        {"data_type": "float64"},
        {"data_type": {"name": "struct", "configuration": {}}},
        {"codecs": [{"name": "bytes", "configuration": {"endian": "big"}}, {"name": "crc32c"}]},
        {"codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, BLOSC]},
        {"codecs": [{"name": "numcodecs.pickle"}]},
        {"codecs": []},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [10**12, 3]}}},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 3]}}},
        {"chunk_grid": {"name": "rectilinear"}},
        {"chunk_grid": None},
        {"chunk_key_encoding": {"name": "v2"}},
        {"chunk_key_encoding": {"name": "default", "configuration": {"separator": "/../"}}},
        {"storage_transformers": [{"name": "sharding"}]},
        {"fill_value": "NaN"},
        {"zarr_format": 2},
        {"node_type": "group"},
        {"attributes": {"scale": 2}},
    ],
)
def test_metadata_of_arrays(store: Path, change: dict[str, Any]) -> None:
    edit(store / "block-0001" / "uvw", lambda found: found.update(change))
    assert "block-0001/uvw" in refusal(store)


@pytest.mark.parametrize(
    ("array", "value"),
    [
        *((array, np.nan) for array in ("uvw", "vis", "weight", "chan")),
        *((array, np.inf) for array in ("uvw", "vis", "weight", "chan")),
        ("uvw", 1e30),
        ("vis", 3e38),
        ("vis", -3e38),
        ("weight", 3e38),
        ("uvw", -1e12),
        ("weight", -1.0),
        ("chan", 4.0),
        ("chan", -0.5),
        ("channel_block", -1),
        ("channel_block", 2),
        ("channel_block", 2**31 - 1),
    ],
)
def test_numbers_that_no_average_has(store: Path, array: str, value: float) -> None:
    put(store, array, value)
    assert f"block-0001 is damaged ({array} holds numbers that no average has)" in refusal(store)


def test_no_code_of_a_store_is_run(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block of zarr format 2 whose filter unpickles: opened by zarr, it makes a folder."""
    import numcodecs.pickles
    import zarr

    # Newer releases of numcodecs ask for this; earlier ones unpickle whatever they are given.
    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "run"),)

    block = store / "block-0001"
    attributes = json.loads((block / "zarr.json").read_text())["attributes"]
    shutil.rmtree(block)
    group = zarr.open_group(block, mode="w", zarr_format=2)
    group.attrs.update({**attributes, "files": {}})
    about = {"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "order": "C", "fill_value": None}
    codecs = {"filters": [{"id": "vlen-utf8"}, {"id": "pickle", "protocol": 5}], "compressor": None}
    for name in ("uvw", "vis", "weight", "chan", "channel_block"):
        (block / name).mkdir()
        (block / name / ".zarray").write_text(json.dumps({**about, **codecs}))
        (block / name / "0").write_bytes(pickle.dumps(Payload()))
    with contextlib.suppress(Exception), warnings.catch_warnings(action="ignore"):
        zarr.open_group(block, mode="r")["uvw"][:]  # type: ignore[index]
    (tmp_path / "run").rmdir()  # it is there: the fault is real

    refusal(store)
    (block / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}))
    edit(block, setting("files", {}))
    refusal(store)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["", "block-0001", "block-0001/vis"])
def test_metadata_that_are_no_metadata(store: Path, place: str) -> None:
    path = store / place / "zarr.json"
    for text in (b"", b"{", b"[]", b"\xff" * 50, b'{"a":' * 100_000, b"9" * 5000, b'{"zarr_format": 2}'):
        path.write_bytes(text)
        assert str(store) in refusal(store)
    good = {"zarr_format": 3, "node_type": "group", "attributes": {}, "consolidated_metadata": {"metadata": {}}}
    path.write_text(json.dumps(good))
    refusal(store)


def test_links_and_pipes_are_not_followed(store: Path, whole: Path, tmp_path: Path) -> None:
    for place in ("block-0001", "block-0001/vis", "block-0001/vis/c", "block-0001/vis/c/0", "block-0001/uvw/zarr.json"):
        path, aside = store / place, tmp_path / "aside"
        path.rename(aside)
        path.symlink_to(aside)
        assert "link" in refusal(store) or "bytes for chunks" in refusal(store)
        path.unlink()
        aside.rename(path)
    pipe = store / "block-0001" / "vis" / "zarr.json"
    pipe.unlink()
    os.mkfifo(pipe)
    refusal(store)
    (tmp_path / "link.zarr").symlink_to(whole)  # of the store itself, that is the user's own
    assert open_ms(tmp_path / "link.zarr").image().data.max() > 0
