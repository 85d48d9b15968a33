"""The interpreter of pickles: nothing but the table is reached, and no instruction takes more than the file holds."""

import io
import pickle
import struct
import time
import tracemalloc
from typing import ClassVar

import numpy as np
import pytest

from vis2img.unpickle import Call, Inert, RefusedError, RestrictedUnpickler, plain_key


class Unpickler(RestrictedUnpickler):
    allowed: ClassVar = {("package", "double"): Call(lambda value: 2 * value), ("package", "Thing"): Inert}

    def refusal(self, module: str, name: str) -> str:
        return f"no {module} {name}"


def load(code: bytes) -> object:
    return Unpickler(io.BytesIO(code)).load()


def deep_tuple(depth: int = 26) -> bytes:
    """Opcodes of a tuple of two tuples of two tuples..., each the same, which takes 2**depth steps to hash."""
    return b"K\x01" + b"2\x86" * depth


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_are_as_pickle_reads_them(protocol: int) -> None:
    values = {"a": [1, -(2**70), 2.5, None, True, "\u00e4"], "b": (1, (2, [3])), 3: {"c": {}}, None: "x" * 300}
    if protocol > 2:  # older ones call a function for bytes
        values |= {b"d": b"x" * 300}
    assert load(pickle.dumps(values, protocol)) == values


def test_bytearrays_of_any_length_are_read() -> None:
    for length in (0, 5, 70_000, 3_000_000):
        value = bytearray(np.random.default_rng(0).bytes(length))
        assert load(pickle.dumps([value, 1], 5)) == [value, 1]


def test_only_names_of_the_table_are_reached() -> None:
    assert load(b"cpackage\ndouble\n(K\x15tR.") == 42
    assert isinstance(load(b"cpackage\nThing\n)R}K\x01K\x02sb."), Inert)
    dotted = b"\x80\x04\x8c\x07package\x8c\x0fdouble.__call__\x93."
    for code in (b"cpackage\nhalf\n.", dotted, b"(S'x'\nios\nsystem\n."):
        with pytest.raises(RefusedError, match=r"no (package|os) "):
            load(code)
    with pytest.raises(RefusedError, match="changes what it may call"):
        load(b"cpackage\ndouble\n}b.")


@pytest.mark.parametrize(
    "code",
    [
        b"}" + deep_tuple() + b"K\x01s.",
        b"}(" + deep_tuple() + b"K\x01u.",
        b"(" + deep_tuple() + b"K\x01d.",
        b"}cpackage\ndouble\nK\x01s.",
    ],
    ids=["item", "items", "dictionary", "function"],
)
def test_keys_that_take_for_ever_to_hash_are_refused(code: bytes) -> None:
    start = time.process_time()
    with pytest.raises(RefusedError, match="a key of a dictionary is neither text nor a number"):
        load(code)
    assert time.process_time() - start < 0.5
    for key in ("a", b"a", 1, 1.5, True, None, np.str_("a"), np.int64(1)):
        assert plain_key(key) is key


def test_sets_keep_nothing() -> None:
    assert isinstance(load(b"\x8f(" + deep_tuple() + b"\x90."), Inert)
    assert isinstance(load(b"(" + deep_tuple() + b"\x91."), Inert)


@pytest.mark.parametrize("length", [2**28, 2**63])
def test_a_bytearray_longer_than_the_file_takes_no_memory(length: int) -> None:
    tracemalloc.start()
    with pytest.raises(pickle.UnpicklingError, match="longer than the file"):
        load(b"\x96" + struct.pack("<Q", length) + b".")
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_a_memo_of_gigabytes_takes_no_memory() -> None:
    tracemalloc.start()
    assert load(b"K\x01r" + struct.pack("<I", 2**28) + b".") == 1
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def peak_of(code: bytes) -> int:
    """The memory that a refusal takes."""
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises((RefusedError, pickle.UnpicklingError)):
        load(code)
    assert time.process_time() - start < 20
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize(
    "start",
    [b"\x8d", b"\x8e", b"\x96", b"X", b"B", b"\x8b", b"T", b"\x95"],
    ids=["text8", "bytes8", "bytearray8", "text", "bytes", "long4", "string", "frame"],
)
def test_a_length_beyond_the_file_takes_no_memory(start: bytes) -> None:
    width = 4 if start in (b"X", b"B", b"\x8b", b"T") else 8
    for length in (2**30, 2**31 - 1, 2**62):
        if length < 256**width // 2:
            assert peak_of(b"\x80\x04" + start + length.to_bytes(width, "little") + b"abc.") < 2**20


@pytest.mark.parametrize(
    "code", [b"]", b"}", b"(", b"N\x85", b"N\x94"], ids=["lists", "dicts", "marks", "tuples", "memo"]
)
def test_many_small_things_are_counted(monkeypatch: pytest.MonkeyPatch, code: bytes) -> None:
    monkeypatch.setattr("vis2img.unpickle._MOST_OBJECTS", 10_000)
    assert peak_of(code * 100_000 + b".") < 2**22
    load(b"(" + code.replace(b"(", b"") * 3000 + b"t.")


def test_the_same_handed_on_again_and_again_is_refused() -> None:
    class Copies(Unpickler):
        allowed: ClassVar = {("package", "copy"): Call(lambda value: bytes(value[:-1]))}

    large = b"\x96" + struct.pack("<Q", 1 << 20) + bytes(1 << 20)
    again = b"h\x01h\x00\x85R0"
    code = b"cpackage\ncopy\nq\x010" + large + b"q\x000" + again * 5000 + b"N."
    with pytest.raises(RefusedError, match="again and again"):
        Copies(io.BytesIO(code)).load()
    Copies(io.BytesIO(b"cpackage\ncopy\nq\x010" + large + b"q\x000" + again * 3 + b"N.")).load()


def test_whole_numbers_of_many_bits_are_no_keys() -> None:
    number = (1 << 4000).to_bytes(502, "little")
    with pytest.raises(RefusedError, match="4001 bits"):
        load(b"}\x8b" + struct.pack("<I", 502) + number + b"Ns.")
    assert load(pickle.dumps([1 << 4000])) == [1 << 4000]
