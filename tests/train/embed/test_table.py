"""Tables of embeddings: what is written comes back, other tools read it, and what is wrong is told by file and row."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vis2img.errors import OutputError, ParameterError, Vis2imgError
from vis2img.train.embed.table import EmbeddingTable, merge_embeddings, read_embeddings, thumbnail, write_embeddings


def make_table(n: int = 5, dim: int = 4, seed: int = 0) -> EmbeddingTable:
    rng = np.random.default_rng(seed)
    columns: dict[str, np.ndarray] = {
        "ra_deg": rng.uniform(0, 360, n),
        "dec_deg": rng.uniform(-90, 90, n),
        "field": np.array([f"field {seed}"] * n, object),
        "index": np.arange(n),
        "thumbnail": np.array([bytes([i, 0, 255]) for i in range(n)], object),
    }
    return EmbeddingTable(rng.normal(size=(n, dim)).astype(np.float32), columns, {"run": "runs/é", "step": "7"})


def same(one: EmbeddingTable, other: EmbeddingTable) -> bool:
    return np.array_equal(one.vector, other.vector) and all(
        np.array_equal(values, other.columns[name]) for name, values in one.columns.items()
    )


def test_a_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    table, path = make_table(), tmp_path / "a.parquet"
    write_embeddings(table, path)
    found = read_embeddings(path)
    assert same(table, found) and found.vector.dtype == np.float32
    assert found.metadata == {"run": "runs/é", "step": "7"} and list(found.columns) == list(table.columns)
    np.testing.assert_allclose(np.degrees(found.position[:, 1]), table.columns["dec_deg"])
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]
    assert list(read_embeddings(path, ["index"]).columns) == ["index"]
    assert same(found.take(np.array([3, 1])), table.take(np.array([3, 1])))


def test_other_tools_see_lists_of_fixed_length_and_the_metadata(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_embeddings(make_table(dim=3), path)
    schema = pq.read_schema(path)
    assert schema.field("vector").type == pa.list_(pa.float32(), 3)
    assert schema.field("thumbnail").type == pa.binary() and schema.field("field").type == pa.string()
    assert pq.ParquetFile(path).metadata.metadata[b"step"] == b"7"
    merge_embeddings([path, path], tmp_path / "two.parquet", {})
    for file in (path, tmp_path / "two.parquet"):
        assert pq.read_schema(file).field("ra_deg").metadata[b"unit"] == b"deg"


def test_a_folder_is_read_as_one_table_in_order_of_names(tmp_path: Path) -> None:
    parts = [make_table(seed=i, n=2 + i) for i in range(3)]
    for i in (2, 0, 1):
        write_embeddings(parts[i], tmp_path / f"{i}.parquet")
    (tmp_path / ".3.parquet").write_text("hidden")
    found = read_embeddings(tmp_path)
    assert np.array_equal(found.vector, np.concatenate([part.vector for part in parts]))
    assert found.columns["field"].tolist() == ["field 0"] * 2 + ["field 1"] * 3 + ["field 2"] * 4


def test_parts_become_one_file_with_metadata_of_its_own(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.parquet" for i in range(2)]
    for i, path in enumerate(paths):
        write_embeddings(make_table(seed=i), path)
    assert merge_embeddings(paths, tmp_path / "all.parquet", {"role": "student"}) == 10
    found = read_embeddings(tmp_path / "all.parquet")
    assert found.metadata == {"role": "student"}
    assert np.array_equal(found.vector, np.concatenate([make_table(seed=i).vector for i in range(2)]))
    write_embeddings(make_table(dim=5), paths[1], overwrite=True)
    with pytest.raises(Vis2imgError, match=r"1\.parquet does not go with .*0\.parquet"):
        merge_embeddings(paths, tmp_path / "other.parquet", {})
    assert not (tmp_path / "other.parquet").exists()


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_embeddings(make_table(), path)
    before = path.read_bytes()
    with pytest.raises(OutputError, match="overwrite"):
        write_embeddings(make_table(seed=1), path)
    assert path.read_bytes() == before
    write_embeddings(make_table(seed=1), path, overwrite=True)
    assert same(read_embeddings(path), make_table(seed=1))
    with pytest.raises(OutputError, match=r"a\.npz: embeddings are written as Parquet; use -o .*a\.parquet"):
        write_embeddings(make_table(), tmp_path / "a.npz")


def test_lists_of_other_libraries_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"vector": [[1.0, 2.0], [3.0, 4.0]], "ra_deg": [1.0, 2.0]}), path)  # lists of float64
    assert read_embeddings(path).vector.tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"x": [1.0]}, "has no column vector; it has x"),
        ({"vector": ["a"]}, "vector must be lists of numbers"),
        ({"vector": [[1.0, 2.0], [3.0]]}, "row 1: vector has 1 numbers, and row 0 has 2"),
        ({"vector": [[1.0], [np.nan]]}, "row 1: vector holds a number that is not finite"),
        ({"vector": [[1.0], None]}, "vector has rows without a value"),
    ],
)
def test_what_is_no_table_of_embeddings_is_told(tmp_path: Path, columns: dict[str, Any], words: str) -> None:
    path = tmp_path / "bad.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(Vis2imgError, match=words) as error:
        read_embeddings(path)
    assert "bad.parquet" in str(error.value) and "\n" not in str(error.value)


def test_files_that_are_damaged_missing_or_at_odds_are_named(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(Vis2imgError, match=r"cannot read the embeddings .*bad\.parquet"):
        read_embeddings(tmp_path / "bad.parquet")
    with pytest.raises(Vis2imgError, match="does not exist"):
        read_embeddings(tmp_path / "gone.parquet")
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(Vis2imgError, match=r"holds no \.parquet file"):
        read_embeddings(folder)
    for dim in (4, 5):
        write_embeddings(make_table(dim=dim), folder / f"{dim}.parquet")
    with pytest.raises(Vis2imgError, match=r"5\.parquet: vectors of 5 numbers, and .*4\.parquet has 4"):
        read_embeddings(folder)
    with pytest.raises(ParameterError, match="column a has 1 rows for 2 vectors"):
        EmbeddingTable(np.zeros((2, 2), np.float32), {"a": np.zeros(1)}, {})


def test_thumbnails_have_north_up_and_show_the_source_white() -> None:
    image = np.zeros((96, 96, 2), np.float32)
    image[80:90, 10:20, 0] = 4.0  # y to the north, x to the right
    picture = Image.open(io.BytesIO(thumbnail(image)))
    assert picture.size == (48, 48) and picture.mode == "L"
    seen = np.asarray(picture)
    row, column = np.unravel_index(seen.argmax(), seen.shape)
    assert row < 8 and 4 <= column <= 10 and seen.max() > 240
    assert 20 < seen[30, 30] < 60  # the sky is dark and not black
    assert Image.open(io.BytesIO(thumbnail(image[:16, :16]))).size == (16, 16)


VECTORS: list[pa.DataType] = [
    *(make(kind) for kind in (pa.float16(), pa.float32(), pa.float64()) for make in (pa.list_, pa.large_list)),
    *(pa.list_(kind, 3) for kind in (pa.float32(), pa.float64())),
]
TEXTS: list[pa.DataType] = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.dictionary(pa.uint32(), pa.large_string()),
]


@pytest.mark.parametrize("kind", VECTORS, ids=str)
@pytest.mark.parametrize("text", TEXTS, ids=str)
def test_tables_as_other_libraries_write_them(tmp_path: Path, kind: pa.DataType, text: pa.DataType) -> None:
    """polars writes large lists or arrays, large text and categories, in chunks; numbers are float64, or null."""
    path, rows = tmp_path / "a.parquet", [[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [[7.0, 8.0, 9.0]]]
    categories = pa.types.is_dictionary(text)
    texts = pa.array(["a", "b"]), pa.array(["c"])
    names = [each.dictionary_encode() if categories else each.cast(text) for each in texts]
    columns = {
        "vector": pa.chunked_array([pa.array(part, kind) for part in rows]),
        "ra_deg": pa.chunked_array([pa.array([10, None]), pa.array([30])]),
        "dec_deg": pa.chunked_array([pa.array([1.5, 2.5, None], pa.float32())]),
        "name": pa.chunked_array(names),
    }
    pq.write_table(pa.table(columns), path)
    found = read_embeddings(path)
    np.testing.assert_array_equal(found.vector, np.concatenate(rows))
    assert found.vector.dtype == np.float32 and found.columns["name"].tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(found.columns["ra_deg"], [10.0, np.nan, 30.0])
    again = tmp_path / "again.parquet"
    write_embeddings(found, again)
    assert same(found.take(np.array([0])), read_embeddings(again).take(np.array([0])))


def test_columns_of_the_other_byte_order_are_written(tmp_path: Path) -> None:
    """As FITS tables have them."""
    columns = {
        "ra_deg": np.array([1.0, 2.0], ">f8"),
        "index": np.array([5, 6], ">i4"),
        "name": np.array(["a", "b"], ">U4"),
    }
    write_embeddings(EmbeddingTable(np.ones((2, 3), ">f4"), columns, {}), tmp_path / "a.parquet")
    found = read_embeddings(tmp_path / "a.parquet")
    assert found.columns["index"].tolist() == [5, 6] and found.columns["name"].tolist() == ["a", "b"]
    assert found.columns["ra_deg"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"vector": pa.array([[], []], pa.list_(pa.float32()))}, "vector holds no numbers"),
        ({"vector": pa.array([[1e300]], pa.list_(pa.float64()))}, "row 0: vector holds a number that is not"),
        (
            {"vector": pa.array([[1.0, None]], pa.list_(pa.float32()))},
            "row 0: vector holds a number that is not finite",
        ),
        ({"vector": pa.array([["a"]], pa.list_(pa.string()))}, "vector must be lists of numbers"),
        ({"vector": pa.array([[1.0]]), "ra_deg": pa.array(["x"])}, "ra_deg cannot be string"),
        ({"vector": pa.array([[1.0]]), "name": pa.array([[1.0]])}, "name cannot be list"),
    ],
    ids=["empty", "beyond-float32", "null", "text", "position-of-text", "name-of-numbers"],
)
def test_columns_of_other_types_are_told(tmp_path: Path, columns: dict[str, pa.Array], words: str) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(Vis2imgError, match=words) as caught:
        read_embeddings(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_more_rows_than_a_file_can_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vis2img.train.embed.table._MOST_GROWTH", 10)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"vector": pa.repeat(pa.scalar([1.0], pa.list_(pa.float32())), 90_000)}), path)
    with pytest.raises(Vis2imgError, match="is damaged: 90,000 rows in"):
        read_embeddings(path)
    with pytest.raises(ParameterError, match="no column ra_deg"):
        _ = EmbeddingTable(np.ones((1, 2), np.float32), {}, {}).position


RUN = {"run": "/a/first", "step": "7", "role": "teacher"}


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (RUN, {**RUN, "run": "/a/second"}, r"teacher of /a/second step 7, not teacher of /a/first step 7"),
        (RUN, {**RUN, "step": "9"}, "step 9, not .* step 7"),
        (RUN, {**RUN, "role": "student"}, "student of /a/first step 7, not teacher"),
        ({**RUN, "network": "ab"}, {**RUN, "network": "cd"}, "other weights or other views"),
        ({**RUN, "network": "ab"}, {**RUN, "run": "/moved", "network": "ab"}, None),
        (RUN, RUN, None),
        (RUN, {}, None),
    ],
)
def test_vectors_of_two_networks_are_not_one_table(tmp_path: Path, one: dict, other: dict, words: str | None) -> None:
    for name, told in (("one", one), ("two", other)):
        table = make_table()
        write_embeddings(EmbeddingTable(table.vector, table.columns, told), tmp_path / f"{name}.parquet")
    if words is None:
        assert len(read_embeddings(tmp_path)) == 2 * len(make_table())
        return
    with pytest.raises(
        Vis2imgError, match=rf"two\.parquet is of another network than .*one\.parquet.*{words}"
    ) as error:
        read_embeddings(tmp_path)
    assert "\n" not in str(error.value)


def test_how_many_vectors_are_not_finite_is_told(tmp_path: Path) -> None:
    path = tmp_path / "bad.parquet"
    pq.write_table(pa.table({"vector": [[1.0], [np.nan], [np.inf], [2.0]]}), path)
    with pytest.raises(Vis2imgError, match=r"row 1: .*not finite \(and 1 rows more, of 4\); leave them out"):
        read_embeddings(path)
