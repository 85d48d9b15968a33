"""Tables of embeddings as Parquet files: a vector for each patch, with where it is, what it is of and how it was made.

Columns: ``vector`` (fixed_size_list<float32>[dim]), ``ra_deg``, ``dec_deg``, ``field``, ``source``, ``index``,
``peak``, ``flux`` and ``snr`` (:mod:`vis2img.views.brightness`; units in the metadata of the columns), ``params``
(JSON), ``thumbnail`` (PNG, may be absent) and ``name``; run, step, role, network (a hash of weights and
views) and version are in the key-value metadata of the file. pandas, polars, DuckDB and TOPCAT read it as it is.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vis2img.errors import ParameterError, Vis2imgError
from vis2img.files import atomic_output
from vis2img.inputs import check_file
from vis2img.pictures.cutouts import native
from vis2img.train.embed.config import SUFFIX, check_suffix
from vis2img.views.stretch import Stretch

THUMBNAIL_SIZE = 48  # pixels
UNITS = {"ra_deg": "deg", "dec_deg": "deg", "peak": "Jy/beam", "flux": "Jy", "snr": ""}
_NO_METADATA = ("ARROW:schema", "pandas")  # what libraries keep for themselves
_ROW_GROUP = 8192  # rows
_DEGREES, _TEXTS = ("ra_deg", "dec_deg"), ("field", "source", "params", "name")
# polars writes large lists, and arrays of one length.
_LISTS = (pa.types.is_fixed_size_list, pa.types.is_list, pa.types.is_large_list)
_MOST_GROWTH = 1000  # rows to a byte of the file: repeated ones take next to nothing


@dataclass(frozen=True, eq=False)
class EmbeddingTable:
    """Embeddings and what is known of each.

    Parameters
    ----------
    vector : float32 [n, dim]
    columns : dict
        Arrays [n] of numbers, text or bytes.
    metadata : dict
        Text: ``run``, ``step``, ``role``, ``vis2img`` (version) and whatever else the writer knew.

    Raises
    ------
    ParameterError
        If the columns disagree in length.
    """

    vector: np.ndarray = field(repr=False)
    columns: dict[str, np.ndarray] = field(repr=False)
    metadata: dict[str, str]

    def __post_init__(self) -> None:
        if self.vector.ndim != 2:
            raise ParameterError(f"vector has the shape {list(self.vector.shape)}; it must be [n, dim]")
        for name, values in self.columns.items():
            if len(values) != len(self.vector):
                raise ParameterError(f"column {name} has {len(values)} rows for {len(self.vector)} vectors")

    def __len__(self) -> int:
        return len(self.vector)

    @property
    def position(self) -> np.ndarray:
        """RA and Dec float64 [n, 2] in rad; NaN where unknown.

        Raises
        ------
        ParameterError
            If the table does not tell.
        """
        lacking = [name for name in _DEGREES if name not in self.columns]
        if lacking:
            raise ParameterError(f"the table has no column {lacking[0]}: it does not tell where its patches are")
        return np.radians(np.stack([self.columns["ra_deg"], self.columns["dec_deg"]], axis=-1))

    def take(self, index: np.ndarray) -> EmbeddingTable:
        """Return the rows at ``index`` (numbers or booleans)."""
        columns = {name: values[index] for name, values in self.columns.items()}
        return EmbeddingTable(self.vector[index], columns, self.metadata)


def write_embeddings(table: EmbeddingTable, path: Path, overwrite: bool = False) -> None:
    """Write a table of embeddings in one move.

    Raises
    ------
    OutputError
        If ``path`` does not end in ``.parquet``, exists and ``overwrite`` is not set, or cannot be written.
    """
    check_suffix(path)
    with atomic_output(path, overwrite) as temporary:
        pq.write_table(_to_arrow(table), temporary, compression="zstd", row_group_size=_ROW_GROUP)


def merge_embeddings(parts: Sequence[Path], path: Path, metadata: dict[str, str], overwrite: bool = False) -> int:
    """Join files of embeddings into one, a part at a time in memory, in one move; return the number of rows.

    Raises
    ------
    OutputError
        As :func:`write_embeddings`.
    Vis2imgError
        If a part cannot be read, or has other columns than the first.
    """
    check_suffix(path)
    rows = 0
    with atomic_output(path, overwrite) as temporary:
        schema = _read(parts[0]).schema.with_metadata(metadata)
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for part in parts:
                try:
                    table = _read(part).cast(schema)
                except (pa.ArrowException, ValueError) as error:
                    raise Vis2imgError(f"{part} does not go with {parts[0]}: {_line(error)}") from error
                writer.write_table(table, row_group_size=_ROW_GROUP)
                rows += len(table)
    return rows


def read_embeddings(path: str | Path, columns: Sequence[str] | None = None) -> EmbeddingTable:
    """Read a table of embeddings, or all those of a folder (by name) as one.

    Parameters
    ----------
    path : path
        A Parquet file, or a folder of them.
    columns : sequence of str, optional
        Columns to read beside ``vector``; default: all that the first file has. Without ``thumbnail`` it is faster.

    Returns
    -------
    EmbeddingTable
        With the metadata of the first file.

    Raises
    ------
    Vis2imgError
        If a file cannot be read, is no table of embeddings, is of another network than the first, or holds vectors of
        another length or a number that is not finite; the message names file, column and row.
    """
    files = _files(Path(path))
    tables = [_read(files[0], None if columns is None else ["vector", *columns])]
    names = [name for name in tables[0].column_names if name != "vector"]
    tables += [_read(file, ["vector", *names]) for file in files[1:]]
    vectors = [_vectors(file, table["vector"]) for file, table in zip(files, tables, strict=True)]
    for file, vector in zip(files, vectors, strict=True):
        if vector.shape[1] != vectors[0].shape[1]:
            raise Vis2imgError(
                f"{file}: vectors of {vector.shape[1]} numbers, and {files[0]} has {vectors[0].shape[1]}; they are of "
                "two networks: read each by itself"
            )
    told = [_metadata(table) for table in tables]
    for file, other in zip(files, told, strict=True):
        _check_one_network(files[0], told[0], file, other)
    metadata = told[0]
    return EmbeddingTable(
        vector=vectors[0] if len(vectors) == 1 else np.concatenate(vectors),
        columns={
            name: np.concatenate([_column(file, name, table[name]) for file, table in zip(files, tables, strict=True)])
            for name in names
        },
        metadata={key: value for key, value in metadata.items() if key not in _NO_METADATA},
    )


def read_columns(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return columns of numbers or text of a table of embeddings, without its vectors."""
    table = _read(path, names)
    return {name: _column(path, name, table[name]) for name in names}


def _metadata(table: pa.Table) -> dict[str, str]:
    return {
        key.decode(errors="replace"): value.decode(errors="replace")
        for key, value in (table.schema.metadata or {}).items()
    }


def _check_one_network(first: Path, told: Mapping[str, str], second: Path, other: Mapping[str, str]) -> None:
    """Refuse vectors of two networks, or of images stretched otherwise: their distances mean nothing."""
    # A run may have been moved; what its weights are has not changed by that.
    keys = ("network",) if "network" in told and "network" in other else ("run", "step", "role")
    for key in keys:
        if key in told and key in other and told[key] != other[key]:
            first_made, second_made = _network(told), _network(other)
            how = f"{second_made}, not {first_made}" if first_made != second_made else "other weights or other views"
            raise Vis2imgError(f"{second} is of another network than {first} ({how}): read them apart")


def _network(told: Mapping[str, str]) -> str:
    """Say what made a table."""
    step = f" step {told['step']}" if "step" in told else ""
    return f"{told.get('role', 'network')} of {told.get('run', 'a run')}{step}"


def thumbnail(image: np.ndarray, shown: tuple[float, float] = Stretch().shown) -> bytes:
    """Return a PNG (8 bit, grey) of a stretched patch [y, x, channel]: its first channel, north up, at most 48 pixels.

    ``shown`` are the values that are black (-3 sigma), and white where no pixel is brighter (10 sigma or so).
    """
    plane = image[::-1, :, 0]
    black, white = shown[0], max(float(plane.max()), shown[1])
    grey = np.clip((plane - black) / (white - black), 0, 1)
    picture = Image.fromarray(np.rint(255 * grey).astype(np.uint8))
    picture.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _to_arrow(table: EmbeddingTable) -> pa.Table:
    dim = table.vector.shape[1]
    flat = pa.array(np.ascontiguousarray(table.vector, np.float32).ravel())
    arrays = {"vector": pa.FixedSizeListArray.from_arrays(flat, dim)}
    for name, values in table.columns.items():
        # An empty column of objects has no type to be inferred.
        kind = pa.binary() if name == "thumbnail" else pa.string() if values.dtype.kind in "UO" else None
        arrays[name] = pa.array(native(values), kind)
    fields = [pa.field(name, array.type, metadata=_unit(name)) for name, array in arrays.items()]
    return pa.table(list(arrays.values()), pa.schema(fields, metadata=table.metadata))


def _unit(name: str) -> dict[str, str] | None:
    return {"unit": UNITS[name]} if name in UNITS else None


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise Vis2imgError(f"{path} does not exist")
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.glob(f"*{SUFFIX}") if not file.name.startswith("."))
    if not files:
        raise Vis2imgError(f"the folder {path} holds no {SUFFIX} file")
    return files


def _read(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return columns of a file, "vector" among them; default: all."""
    check_file(path)
    try:
        file = pq.ParquetFile(path)
        for name in columns or ["vector"]:
            if name not in file.schema_arrow.names:
                raise Vis2imgError(f"{path} has no column {name}; it has {', '.join(file.schema_arrow.names)}")
        if file.metadata.num_rows > _MOST_GROWTH * path.stat().st_size:
            raise Vis2imgError(f"{path} is damaged: {file.metadata.num_rows:,} rows in {path.stat().st_size:,} bytes")
        return file.read(columns)
    except Vis2imgError:
        raise
    except Exception as error:  # pyarrow raises many types for a damaged file
        raise Vis2imgError(f"cannot read the embeddings {path}: {_line(error)}") from error


def _vectors(path: Path, column: pa.ChunkedArray) -> np.ndarray:
    kind = column.type
    if not any(is_list(kind) for is_list in _LISTS) or not pa.types.is_floating(kind.value_type):
        raise Vis2imgError(f"{path}: vector must be lists of numbers, not {kind}")
    if not len(column) or column.null_count:
        raise Vis2imgError(f"{path}: vector " + ("has rows without a value" if len(column) else "is empty"))
    with np.errstate(over="ignore"):  # told below
        flat = np.concatenate([np.asarray(chunk.flatten(), np.float32) for chunk in column.chunks])
    lengths = np.concatenate([np.asarray(chunk.value_lengths()) for chunk in column.chunks])
    if (lengths != lengths[0]).any():
        row = int(np.flatnonzero(lengths != lengths[0])[0])
        raise Vis2imgError(f"{path} row {row}: vector has {lengths[row]} numbers, and row 0 has {lengths[0]}")
    if not lengths[0]:
        raise Vis2imgError(f"{path}: vector holds no numbers")
    vector = flat.reshape(len(column), -1)
    wrong = np.flatnonzero(~np.isfinite(vector).all(axis=1))
    if len(wrong):
        more = f" (and {len(wrong) - 1} rows more, of {len(vector)})" if len(wrong) > 1 else ""
        raise Vis2imgError(f"{path} row {wrong[0]}: vector holds a number that is not finite{more}; leave them out")
    return vector


def _column(path: Path, name: str, column: pa.ChunkedArray) -> np.ndarray:
    """Return a column; positions are numbers, NaN where unknown, and names are text, however the writer keeps them."""
    kind = pa.float64() if name in _DEGREES else pa.large_string() if name in _TEXTS else None
    if kind is None and pa.types.is_dictionary(column.type):
        kind = column.type.value_type
    try:
        column = column if kind is None else column.cast(kind)
    except pa.ArrowException as error:
        raise Vis2imgError(f"{path}: {name} cannot be {column.type}: {_line(error)}") from error
    if name in _TEXTS:
        column = column.fill_null("")
    return np.asarray(column.combine_chunks().to_numpy(zero_copy_only=False))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
