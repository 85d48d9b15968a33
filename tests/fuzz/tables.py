"""Damaged tables: embeddings, names and positions, catalogues, labels beside images."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits

from tests.fuzz.damage import damaged_bytes, replace_file
from tests.fuzz.frame import Case, kind

_CELLS = (
    "",
    "x",
    "nan",
    "inf",
    "1e400",
    "-1e9",
    "91",
    "361",
    '"',
    '"a\nb"',
    "\x00",
    "\u00e9",
    "x" * 60_000,
    "../../x",
    "1,2",
)
_TYPES: tuple[pa.DataType, ...] = (
    *(pa.float16(), pa.float64(), pa.int64(), pa.string(), pa.large_string(), pa.bool_(), pa.binary(), pa.null()),
    *(pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.timestamp("s"), pa.dictionary(pa.int32(), pa.string())),
)  # fmt: skip


def _parquet(columns: dict[str, Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, **options)
    return buffer.getvalue()


def _columns() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "vector": pa.array(rng.normal(size=(50, 8)).tolist(), pa.list_(pa.float32(), 8)),
        "ra_deg": pa.array(rng.uniform(0, 360, 50)),
        "dec_deg": pa.array(rng.uniform(-90, 90, 50)),
        "name": pa.array([f"s{i}" for i in range(50)]),
        "index": pa.array(range(50)),
    }


def _case(folder: Path, what: str, name: str, content: bytes, how: str) -> Case:
    path = folder / name
    path.write_bytes(content)
    return Case(("read", what, path), (path,), how)


@functools.cache
def _embeddings() -> tuple[bytes, ...]:
    packings: tuple[Any, ...] = ("zstd", "snappy", "none", "gzip")
    return tuple(_parquet(_columns(), compression=packing) for packing in packings)


@kind()
def bytes_of_embeddings(rng: np.random.Generator, folder: Path) -> Case:
    """Damage bytes of a Parquet file, most of them in its footer."""
    content = _embeddings()[rng.integers(len(_embeddings()))]
    cut = max(0, len(content) - 2500) if rng.random() < 0.6 else 0
    damaged, what = damaged_bytes(rng, content[cut:])
    return _case(folder, "table", "a.parquet", content[:cut] + damaged, what)


@kind()
def columns_of_embeddings(rng: np.random.Generator, folder: Path) -> Case:
    """Put a column of another type, length of lists, or with unknown values in the place of one."""
    columns = _columns()
    name, what = str(rng.choice([*columns])), str(rng.choice(["gone", "type", "nulls", "odd", "chunks"]))
    if what == "gone":
        del columns[name]
    elif what == "type":
        kind_of = _TYPES[rng.integers(len(_TYPES))]
        columns[name], what = pa.nulls(50, kind_of), f"unknown {kind_of}"
    elif what == "nulls":
        columns[name] = pa.array([None if i % 7 == 0 else each for i, each in enumerate(columns[name].to_pylist())])
    elif what == "odd":
        odd: list[Any] = [[], [1.0], [1e300] * 8, [None] * 8, [float("nan")] * 8]
        rows = columns["vector"].to_pylist()
        rows[int(rng.integers(50))] = odd[rng.integers(len(odd))]
        columns["vector"] = pa.array(rows, pa.large_list(pa.float64()))
    else:
        columns[name] = pa.chunked_array([columns[name].slice(0, 20), columns[name].slice(20)])
    return _case(folder, "table", "a.parquet", _parquet(columns), f"{name}: {what}")


@kind()
def texts(rng: np.random.Generator, folder: Path) -> Case:
    """Damage bytes or cells of tables of positions and catalogues."""
    what = str(rng.choice(["positions", "catalogue"]))
    header = "ra_deg,dec_deg,name" if what == "positions" else "ra_deg,dec_deg,flux_jy,major_arcsec,class"
    rows = [["150.0", "-30.0", "a"] if what == "positions" else ["150.0", "-30.0", "0.1", "3", "fri"] for _ in range(9)]
    if rng.random() < 0.5:
        rows[int(rng.integers(9))][int(rng.integers(len(rows[0])))] = str(rng.choice(_CELLS))
        how = "an odd cell"
    else:
        how = ""
    content = "\n".join([header, *map(",".join, rows)]).encode()
    if not how:
        content, how = damaged_bytes(rng, content)
    return _case(folder, what, "a.csv", content, how)


@kind()
def fits_tables(rng: np.random.Generator, folder: Path) -> Case:
    """Damage bytes of a catalogue, which is in the byte order of FITS."""
    path = folder / "a.fits"
    columns = [
        fits.Column(name, "D", array=np.full(9, value)) for name, value in (("ra_deg", 150.0), ("dec_deg", -30.0))
    ]
    columns += [fits.Column("flux_jy", "E", array=np.ones(9)), fits.Column("class", "8A", array=np.full(9, "fri"))]
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)]).writeto(path)
    content = path.read_bytes()
    cut = 2880 if rng.random() < 0.7 else 0
    damaged, how = damaged_bytes(rng, content[cut:])
    return _case(folder, str(rng.choice(["catalogue", "positions"])), path.name, content[:cut] + damaged, how)


@kind(share=0.5)
def labels_beside_images(rng: np.random.Generator, folder: Path) -> Case:
    """Damage the table of a folder of images, or one of the images."""
    images = folder / "images"
    images.mkdir()
    for i in range(3):
        fits.writeto(images / f"{i}.fits", np.random.default_rng(i).normal(size=(32, 32)).astype(">f4"))
    table, victim = images / "labels.csv", images / f"{rng.integers(3)}.fits"
    table.write_text("filename,label,redshift\n0.fits,fri,0.1\n1.fits,frii,0.2\n2.fits,fri,\n")
    if rng.random() < 0.5:
        content, how = damaged_bytes(rng, table.read_bytes())
        table.write_bytes(content)
        return Case(("read", "labelled", images), (images,), f"table {how}")
    if rng.random() < 0.4:
        return Case(("read", "labelled", images), (), replace_file(rng, images, victim))
    content, how = damaged_bytes(rng, victim.read_bytes())
    victim.write_bytes(content)
    return Case(("read", str(rng.choice(["labelled", "pictures"])), images), (images,), f"image {how}")
