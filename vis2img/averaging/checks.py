"""What is checked of a store of averages before anything in it is used.

zarr runs whatever codecs the metadata of an array name: in format 2, one that unpickles, and so runs code of whoever
wrote the store. So the metadata are read here first, as JSON, and must be those of what ``vis2img average`` writes:
format 3, numbers as they are with a checksum, files of the sizes that follow from the shapes, no links. What is
compressed could be gigabytes in a few bytes; nothing is.
"""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

from vis2img.averaging.params import AveragingParams
from vis2img.errors import StoreError, Vis2imgError, first_line
from vis2img.inputs import check_file

# Type and length of the second axis, if there is one, of each array.
ARRAYS: dict[str, tuple[str, tuple[int, ...]]] = {
    "uvw": ("float32", (3,)),
    "vis": ("complex64", ()),
    "weight": ("float32", ()),
    "chan": ("float32", ()),
    "channel_block": ("int32", ()),
}
_ITEM_BYTES = {"float32": 4, "complex64": 8, "int32": 4}
_CHECKSUM_BYTES = 4
_MOST_JSON = 1 << 26  # bytes
_CODECS = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
_KEYS = {"name": "default", "configuration": {"separator": "/"}}
_ZEROS: tuple[Any, ...] = (0, [0, 0])  # equal to 0.0 and [0.0, 0.0]
_TEXTS = ("ms", "path", "selection", "telescope", "field", "column", "frame", "freq_frame", "stokes_from")
_NUMBERS = ("pointing_ra", "pointing_dec", "band_low", "band_high", "time_start", "chan_width", "dish_diameter")
_POSITIVE = ("band_low", "band_high")
_NOT_NEGATIVE = ("chan_width", "dish_diameter")


def metadata_of(path: Path, kind: str) -> dict[str, Any]:
    """Return what the ``zarr.json`` of a folder holds; ``kind`` is "group" or "array".

    Raises
    ------
    StoreError
        If it is not there, a link, no JSON, or of another format of zarr.
    """
    file = path / "zarr.json"
    _check_plain(path, file)
    check_file(file, _MOST_JSON, StoreError)
    try:
        found = json.loads(file.read_bytes())
    except OSError as error:
        raise StoreError(f"{path} does not hold averaged visibilities: no {file.name} ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{file} is damaged: it is no JSON ({first_line(error)[:100]})") from error
    if not isinstance(found, dict) or found.get("zarr_format") != 3 or found.get("node_type") != kind:
        raise StoreError(f"{file} is not of a zarr {kind} of format 3, which alone is read")
    if found.get("consolidated_metadata") is not None:
        raise StoreError(f"{file} holds metadata of other folders (consolidated), which vis2img average never writes")
    return found


def _check_plain(folder: Path, file: Path) -> None:
    """Refuse a link in a store, which could lead anywhere."""
    for path in (folder, file):
        if path.is_symlink() and (path == file or path.name.startswith("block-") or path.name in ARRAYS):
            raise StoreError(f"{path} is a link, and a store of averages has none; copy what it leads to")


def check_record(path: Path, record: dict[str, Any]) -> None:
    """Refuse root attributes that are not those of a store.

    Raises
    ------
    StoreError
        One line that names the store and the attribute.
    """
    look = _Look(path)
    look.parameters(record["parameters"])
    source, selection, meta = (look.group(name, record[name]) for name in ("source", "selection", "meta"))
    look.need(isinstance(source.get("path"), str), "source.path", source.get("path"))
    look.need(_is_count(source.get("nrow")), "source.nrow", source.get("nrow"))
    look.need(selection.get("stokes") in ("I", "Q", "U", "V"), "selection.stokes", selection.get("stokes"))
    look.need(isinstance(record["date"], str), "date", record["date"])

    freq, edges = (look.numbers(name, record[name]) for name in ("chan_freq", "edges"))
    look.need(len(freq) >= record["parameters"]["channel_blocks"], "chan_freq", freq)
    look.need(freq[:1] > [0] and _increases(freq), "chan_freq", freq)
    look.need(len(edges) > 1 and _increases(edges), "edges", edges)

    spw = meta.get("spw")
    spws = spw if isinstance(spw, list) else [spw]
    look.need(bool(spws) and all(map(_is_count, spws)), "meta.spw", spw)
    for name, value in meta.items():
        if name in _TEXTS:
            look.need(isinstance(value, str), f"meta.{name}", value)
        if name in _NUMBERS:
            look.need(_is_number(value), f"meta.{name}", value)
            look.need(value > 0 or name not in _POSITIVE, f"meta.{name}", value)
            look.need(value >= 0 or name not in _NOT_NEGATIVE, f"meta.{name}", value)
    look.need(abs(meta.get("pointing_dec", 0.0)) <= math.pi / 2, "meta.pointing_dec", meta.get("pointing_dec"))
    for pair in (("pointing_ra", "pointing_dec"), ("band_low", "band_high")):
        look.need(len(meta.keys() & {*pair}) != 1, f"meta.{pair[0]}", "without its other half")


def check_contents(block: Path, attributes: dict[str, Any], nchan: int) -> None:
    """Refuse attributes that are not those of a time block of ``nchan`` channels.

    Raises
    ------
    StoreError
        One line that names the block and the attribute.
    """
    look = _Look(block)
    look.need(_is_number(attributes.get("time")), "time", attributes.get("time"))
    for name in ("nvis", "ncells", "nrow"):
        look.need(_is_count(attributes.get(name)), name, attributes.get(name))
    for name in ("chan_weight", "node_weight"):
        weight = look.numbers(name, attributes.get(name), negative=False)
        look.need(len(weight) == nchan, name, f"{len(weight)} numbers for {nchan} channels")
    times = look.numbers("times", attributes.get("times"))
    weight = look.numbers("time_weight", attributes.get("time_weight"), negative=False)
    look.need(_increases(times), "times", times)
    look.need(len(weight) == len(times), "time_weight", f"{len(weight)} numbers for {len(times)} times")


def check_array(block: Path, name: str, nrow: int) -> None:
    """Refuse an array whose metadata or files are not those of ``nrow`` rows.

    Raises
    ------
    StoreError
        One line that names the array and what is wrong.
    """
    path, (kind, rest) = block / name, ARRAYS[name]
    found, look = metadata_of(path, "array"), _Look(path)
    look.need(found.get("shape") == [nrow, *rest], "shape", f"{found.get('shape')} for {nrow} rows")
    look.need(found.get("data_type") == kind, "data_type", found.get("data_type"))
    look.need(found.get("codecs") == _CODECS, "codecs", found.get("codecs"))
    look.need(found.get("chunk_key_encoding") == _KEYS, "chunk_key_encoding", found.get("chunk_key_encoding"))
    look.need(not found.get("storage_transformers"), "storage_transformers", found.get("storage_transformers"))
    look.need(found.get("fill_value") in _ZEROS, "fill_value", found.get("fill_value"))
    look.need(not found.get("attributes"), "attributes", found.get("attributes"))
    grid = look.group("chunk_grid", found.get("chunk_grid"))
    chunk: Any = look.group("chunk_grid.configuration", grid.get("configuration")).get("chunk_shape")
    regular = grid.get("name") == "regular" and isinstance(chunk, list) and len(chunk) == 1 + len(rest)
    look.need(regular and _is_count(chunk[0]) and chunk[0] > 0 and chunk[1:] == [*rest], "chunk_grid", grid)

    nbytes = chunk[0] * math.prod(rest) * _ITEM_BYTES[kind] + _CHECKSUM_BYTES
    folder = path / "c"
    look.need(not folder.is_symlink(), "c", "a link")
    for number in range(-(-nrow // chunk[0])):
        file = folder.joinpath(str(number), *("0" for _ in rest))
        there = file.stat().st_size if file.is_file() and not any(p.is_symlink() for p in (file, file.parent)) else None
        look.need(there == nbytes, str(file.relative_to(path)), f"{there} bytes for chunks of {nbytes}")


class _Look:
    """Refuses what is not as it must be, by the path of the file and the name of the attribute."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def need(self, right: object, name: str, value: Any) -> None:
        if not right:
            text = " ".join(repr(value).split())
            raise StoreError(f"{self.path} is damaged: its {name} cannot be {text[:80]}")

    def group(self, name: str, value: Any) -> dict[str, Any]:
        self.need(isinstance(value, dict), name, value)
        return dict(value)

    def numbers(self, name: str, value: Any, negative: bool = True) -> list[float]:
        self.need(isinstance(value, list), name, value)
        wrong = [each for each in value if not _is_number(each) or (each < 0 and not negative)]
        self.need(not wrong, name, wrong[:1])
        return list(value)

    def parameters(self, values: Any) -> None:
        given = self.group("parameters", values)
        whole = {"npix": 2, "channel_blocks": 0}
        real = {"pixsize": 0, "phase_centre": 2, "tolerance": 0, "time_block": 0}
        for name, length in {**whole, **real}.items():
            items = given.get(name) if length else [given.get(name)]
            right = _is_count if name in whole else _is_number
            good = isinstance(items, list) and len(items) == max(1, length) and all(map(right, items))
            self.need(good, f"parameters.{name}", given.get(name))
        values = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
        try:
            AveragingParams(**values)
        except (TypeError, Vis2imgError) as error:
            raise StoreError(f"{self.path} is damaged: its parameters cannot be read ({error})") from error
        self.need(abs(given["phase_centre"][1]) <= math.pi / 2, "parameters.phase_centre", given["phase_centre"])


def _is_number(value: Any) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < 2**64
    return isinstance(value, float) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62


def _increases(values: list[float]) -> bool:
    return all(low < high for low, high in pairwise(values))
