"""Pickles of cutouts: arrays of numbers and text as NumPy and Python 2 write them, and nothing that was forged."""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vis2img.errors import Vis2imgError
from vis2img.pictures.array_pickles import read_pickle
from vis2img.pictures.formats import read_raw
from vis2img.pictures.published import batch_files, read_batches

PLAIN = (3, "|", None, None, None, -1, -1, 0)
READ = """
import sys
import time
import tracemalloc
from vis2img.pictures.formats import read_raw
from vis2img.errors import Vis2imgError
try:
    print("read", [list(map(str, c)) for c in read_raw(sys.argv[1]).columns.values()])
except Vis2imgError as error:
    print("refused", error)
"""


def word(value: Any) -> bytes:
    """A value as opcodes of protocol 2 without a memo; ``Code`` goes through as it is."""
    if isinstance(value, Code):
        return value.opcodes
    if isinstance(value, tuple):
        return b"(" + b"".join(map(word, value)) + b"t"
    if isinstance(value, dict):
        return b"}(" + b"".join(word(k) + word(v) for k, v in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(word, value)) + b"e"
    if isinstance(value, bytes):
        return b"B" + struct.pack("<I", len(value)) + value
    return pickle.dumps(value, 2)[2:-1].split(b"q\x00")[0]


class Code:
    def __init__(self, opcodes: bytes) -> None:
        self.opcodes = opcodes


def named(module: str, name: str) -> Code:
    return Code(f"c{module}\n{name}\n".encode())


def call(function: Code, *arguments: Any) -> Code:
    return Code(word(function) + word(arguments) + b"R")


def build(thing: Code, state: Any) -> Code:
    return Code(word(thing) + word(state) + b"b")


DTYPE, NDARRAY = named("numpy", "dtype"), named("numpy", "ndarray")
SCALAR = named("numpy.core.multiarray", "scalar")
BUFFER = named("numpy._core.numeric", "_frombuffer")


def dtype(code: str, state: tuple = PLAIN) -> Code:
    return build(call(DTYPE, code, 0, 1), state)


def array(shape: Any, kind: Any, raw: Any, *more: Any) -> Code:
    made = call(named("numpy.core.multiarray", "_reconstruct"), NDARRAY, (0,), "b")
    return build(made, (1, shape, kind, False, raw, *more))


def write(path: Path, value: Any) -> Path:
    path.write_bytes(b"\x80\x02" + word(value) + b".")
    return path


FIELDS = {"x": (dtype("O8"), 0)}
STRUCTURE = (3, "|", None, ("x",), FIELDS, 8, 1, 0)


def test_bytes_that_pose_as_objects_are_refused_before_they_are_looked_at(tmp_path: Path) -> None:
    forged = {
        "data": [np.zeros(256, np.uint8).tolist()],
        "labels": [0],
        "filenames": [call(SCALAR, dtype("V8", STRUCTURE), b"AAAAAAAA")],
    }
    path = write(tmp_path / "data_batch_1", forged)
    found = subprocess.run([sys.executable, "-c", READ, path], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith(f"refused {path} is refused: ") and found.stdout.count("\n") == 1
    fields = build(call(DTYPE, "u8", 0, 1), (3, "|", None, ("x",), {"x": (dtype("u1"), 0)}, 8, 1, 0))
    write(path, {**forged, "filenames": array((1,), fields, b"AAAAAAAA")})
    found = subprocess.run([sys.executable, "-c", READ, path], capture_output=True, text=True)
    assert found.returncode == 0 and "a type with fields or a subarray" in found.stdout


U1, F8 = dtype("u1"), dtype("f8", (3, ">", *PLAIN[2:]))
TEXT = dtype("U1", (3, "<", None, None, None, 4, 4, 8))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (call(DTYPE, "O", 0, 1), "an array of 'O', and only numbers and text"),
        (call(DTYPE, "O8", 0, 1), "an array of 'O8'"),
        (call(DTYPE, "V8", 0, 1), "an array of 'V8'"),
        (call(DTYPE, "M8", 0, 1), "an array of 'M8'"),
        (call(DTYPE, "c8", 0, 1), "an array of 'c8'"),
        (call(DTYPE, "u1,O", 0, 1), "an array of 'u1,O'"),
        (call(DTYPE, "U999999", 0, 1), "an array of 'U999999'"),
        (call(DTYPE, [("x", "O")], 0, 1), "an array of"),
        (call(DTYPE, NDARRAY, 0, 1), "an array of"),
        (dtype("u8", (3, "<", (U1, (8,)), None, None, 8, 1, 0)), "fields or a subarray"),
        (dtype("u8", (3, "<", None, None, None, 4, -1, 0)), "size or flags of the type uint64"),
        (dtype("u8", (3, "<", None, None, None, -1, -1, 63)), "size or flags of the type uint64"),
        (dtype("u8", (3, "x", None, None, None, -1, -1, 0)), "'x' is no byte order of the type uint64"),
        (dtype("u8"), "'|' is no byte order of the type uint64"),
        (dtype("u1", (*PLAIN, {"a": 1})), "state of a type must have 8 parts"),
        (build(U1, 5), "state of a type must have 8 parts"),
        (array((3,), U1, b"ab"), r"2 bytes for an array \[3\] of uint8, which takes 3"),
        (array((2,), F8, b"ab"), "2 bytes for an array"),
        (array((2**40, 2**40), U1, b"ab"), "2 bytes for an array"),
        (array((-1, -2), U1, b"ab"), "must be a few whole numbers"),
        (array((1,) * 40, U1, b"a"), "must be a few whole numbers"),
        (array([2], U1, b"ab"), "must be a few whole numbers"),
        (array((2,), U1, [1, 2]), "an array of Python objects"),
        (array((2,), "u1", b"ab"), "whose type is none"),
        (array((2,), U1, b"ab", 1), "state of an array must have 5 parts"),
        (array((1,), TEXT, b"\xff\xff\xff\x7f"), "characters that do not exist"),
        (build(array((2,), U1, b"ab"), (1, (1,), U1, False, b"a")), "fills an array twice"),
        (build(call(BUFFER, b"ab", U1, (2,), "C"), (1, (1,), U1, False, b"a")), "fills an array twice"),
        (call(BUFFER, b"ab", U1, (3,), "C"), "2 bytes for an array"),
        (call(BUFFER, b"ab", U1, (2,), "X"), "'X' is no order of an array"),
        (call(SCALAR, F8, b"AAAA"), r"4 bytes for an array \[\] of >f8"),
        (call(SCALAR, F8, [1]), "an array of Python objects"),
        (call(named("numpy.core.multiarray", "_reconstruct"), DTYPE, (0,), "b"), "a class of its own"),
        (call(NDARRAY, (4,), U1), "makes an array without its bytes"),
        (build(DTYPE, PLAIN), "changes what it may call"),
        (build(named("_codecs", "encode"), (None, {"__defaults__": ("rot13",)})), "changes what it may call"),
        (Code(b"\x93".join([word("os\n") + word("sys\x1btem"), b""])), r"asks for os \.sys\?tem"),
    ],
)
def test_forged_arrays_are_refused_in_one_line(tmp_path: Path, value: Code, words: str) -> None:
    path = write(tmp_path / "p", {"a": value})
    with pytest.raises(Vis2imgError, match=f"p is refused: .*{words}") as error:
        read_pickle(path)
    assert str(error.value).isprintable() and len(str(error.value)) < 500


def test_a_class_cannot_be_made_past_its_check(tmp_path: Path) -> None:
    for value in (Code(word(DTYPE) + word(("O",)) + b"\x81"), Code(word(NDARRAY) + word(((8,), "O")) + b"\x81")):
        with pytest.raises(Vis2imgError, match="not a pickle of arrays"):
            read_pickle(write(tmp_path / "p", [value]))


def test_bytes_that_are_moved_later_leave_the_array_as_it_was(tmp_path: Path) -> None:
    held = Code(b"\x96" + struct.pack("<Q", 4) + b"abcdq\x07")
    longer = Code(b"h\x07(" + word(1) * 100_000 + b"e")
    found = read_pickle(write(tmp_path / "p", {"a": call(BUFFER, held, U1, (4,), "C"), "b": longer}))
    assert len(found["b"]) == 100_004 and bytes(found["a"]) == b"abcd"
    assert not np.shares_memory(found["a"], np.frombuffer(found["b"], np.uint8))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("old", [False, True])
def test_arrays_of_either_numpy_are_read(tmp_path: Path, protocol: int, old: bool) -> None:
    values = {
        "bytes": np.arange(12, dtype=np.uint8).reshape(3, 4),
        "swapped": np.arange(3, dtype=">f4"),
        "across": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "turned": np.arange(24, dtype=np.int16).reshape(2, 3, 4).transpose(1, 0, 2),
        "parted": np.arange(9)[::2],
        "flags": np.array([True, False]),
        "text": np.array(["FRI", "äb"]),
        "letters": np.array([b"x", b"yz"]),
        "none": np.zeros((0, 5)),
        "half": np.float16([0.5]),
        "point": np.array(2.5),
        "number": np.int64(-7),
        "real": np.float32(0.25),
        "yes": np.bool_(True),
        "name": np.str_("a"),
        "empty": np.str_(""),
    }
    raw = pickle.dumps(values, protocol)
    if old:  # NumPy 1 kept the same functions in another module; lengths of names are part of later protocols
        raw = pickle.dumps(values, min(protocol, 2)).replace(b"numpy._core.", b"numpy.core.")
    (tmp_path / "p").write_bytes(raw)
    found = read_pickle(tmp_path / "p")
    assert list(found) == list(values)
    for name, value in values.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
        assert type(found[name]) is type(value)
        assert np.asarray(found[name]).dtype.newbyteorder("=") == np.asarray(value).dtype.newbyteorder("="), name


def test_a_batch_that_python_2_wrote_is_read(tmp_path: Path) -> None:
    def old(text: bytes) -> Code:
        return Code(b"T" + struct.pack("<I", len(text)) + text)

    pixels = bytes(range(256))
    kind = build(call(DTYPE, old(b"u1"), 0, 1), (3, old(b"|"), None, None, None, -1, -1, 0))
    made = call(named("numpy.core.multiarray", "_reconstruct"), NDARRAY, (0,), old(b"b"))
    data = build(made, (1, (1, 256), kind, False, old(pixels)))
    batch = Code(
        b"}(" + b"".join(word(old(k)) + word(v) for k, v in ((b"data", data), (b"labels", [1]))) +
        word(old(b"filenames")) + word([old(b"a.png")]) + b"u"
    )  # fmt: skip
    found = read_batches(tmp_path, [write(tmp_path / "data_batch_1", batch)])
    assert found.images.tolist() == np.frombuffer(pixels, np.uint8).reshape(1, 16, 16).tolist()
    assert (
        found.names == ("a.png",) and found.columns["label"].tolist() == [1] and found.label_names == () and found.named
    )


GOOD = {"data": np.zeros((2, 256), np.uint8), "labels": [0, 1], "filenames": ["a", "b"]}


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"data": 5}, "data must be a list or an array, not int"),
        ({"data": np.array(5)}, "data must be a list or an array"),
        ({"data": {"a": 1}}, "data must be a list or an array, not dict"),
        ({"data": []}, "data is empty"),
        ({"data": [[1, [2]], [1, 2]]}, "data row 0 is no array"),
        ({"data": [[1] * 4, [1] * 9]}, r"data row 1 must be numbers of shape \[4\], not int64 \[9\]"),
        ({"data": [["x"] * 4] * 2}, "data row 0 must be numbers"),
        ({"data": np.zeros((2, 0))}, "data row 0 must be numbers"),
        ({"data": np.zeros((2, 250))}, "250 numbers are not square"),
        ({"data": np.zeros((2, 3, 8, 8))}, "must be pictures of one channel"),
        ({"data": np.zeros((2, 1, 36, 1, 1))}, "must be pictures of one channel"),
        ({"labels": [0, [1]]}, "labels is no array"),
        ({"labels": [0.5, 1]}, "labels must be 2 whole numbers"),
        ({"labels": [0]}, "labels must be 2 whole numbers"),
        ({"labels": None}, "labels must be 2 whole numbers"),
        ({"filenames": None}, "filenames must be a list or an array, not NoneType"),
        ({"filenames": ["a"]}, "filenames has 1 entries for 2 pictures"),
        ({"filenames": ["a", {}]}, "filenames entry 1 must be text, not dict"),
    ],
)
def test_what_is_wrong_with_a_batch_is_told_by_array_and_row(tmp_path: Path, part: dict, words: str) -> None:
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps({**GOOD, **part}))
    with pytest.raises(Vis2imgError, match=f"data_batch_1: .*{words}") as error:
        read_raw(path)
    assert "\n" not in str(error.value)


def test_names_of_labels_must_be_a_list_of_text(tmp_path: Path) -> None:
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps(GOOD))
    for names, words in ((5, "label_names must be a list"), ("ab", "label_names must be a list"), ([1], "entry 0")):
        (tmp_path / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
        with pytest.raises(Vis2imgError, match=rf"batches\.meta: .*{words}"):
            read_raw(path)


def test_one_channel_may_be_an_axis_and_no_batch_is_lost(tmp_path: Path) -> None:
    for name, data in (("data_batch_1", np.zeros((2, 1, 8, 8))), ("data_batch_01", np.zeros((2, 8, 8, 1)))):
        (tmp_path / name).write_bytes(pickle.dumps({"data": data, "labels": [0, 1]}))
    files = batch_files(tmp_path)
    assert [file.name for file in files] == ["data_batch_01", "data_batch_1"]
    found = read_batches(tmp_path, files)
    assert found.images.shape == (4, 8, 8) and not found.named and found.names[3] == "data_batch_1 row 1"


def deep_tuple(depth: int = 26) -> Code:
    """A tuple of two tuples of two tuples..., each the same, which takes 2**depth steps to hash."""
    return Code(b"K\x01" + b"2\x86" * depth)


def test_bombs_are_refused_before_they_take_time_or_memory(tmp_path: Path) -> None:
    start = time.process_time()
    tracemalloc.start()
    for opcodes, words in (
        (b"}" + deep_tuple().opcodes + b"K\x01s", "a key of a dictionary is neither text nor a number"),
        (b"\x96" + struct.pack("<Q", 2**30), "something in it is longer than the file"),
    ):
        with pytest.raises(Vis2imgError, match=words) as error:
            read_pickle(write(tmp_path / "p", Code(opcodes)))
        assert str(error.value).isprintable()
    memo_of_gigabytes = Code(b"K\x01r" + struct.pack("<I", 2**27))
    assert read_pickle(write(tmp_path / "p", {"a": memo_of_gigabytes})) == {"a": 1}
    assert tracemalloc.get_traced_memory()[1] < 2**24 and time.process_time() - start < 2
    tracemalloc.stop()


def nested(depth: int = 30) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = (value, value)
    return value


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": nested()}, "lists in lists without end"),
        ({"data": [nested()]}, "lists in lists without end"),
        ({"labels": nested()}, "lists in lists without end"),
        ({"data": [[[1] * 1000] * 2000]}, "lists in lists without end"),
        ({"data": endless()}, "lists in lists without end"),
        ({"data": [np.zeros(1 << 16, np.uint8)] * 10_000}, "more pictures than the file"),
        ({"filenames": ["x" * 2000] * 5000}, "more text than the file"),
    ],
    ids=["tuples", "a row", "labels", "wide", "itself", "pictures", "names"],
)
def test_lists_that_hold_more_than_the_file(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps({"data": np.zeros((1, 64), np.uint8), "labels": [1], **change}, 2))
    start = time.process_time()
    tracemalloc.start()
    with pytest.raises(Vis2imgError, match=words) as caught:
        read_raw(path)
    assert str(path) in str(caught.value)
    assert time.process_time() - start < 2 and tracemalloc.get_traced_memory()[1] < 2**25
    tracemalloc.stop()
