"""Files of PyTorch: read right, and never run. Files written by hand test the core where PyTorch is absent."""

import argparse
import io
import os
import pickle
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from vis2img.train.weights import pickle as torch_pickle
from vis2img.train.weights.files import read_safetensors, read_torch, read_weights
from vis2img.unpickle import Call, Inert

MAGIC = 0x1950A86A20F9469CFC6C
NUMBERS = np.arange(12, dtype="<f4")


def literal(value):
    """Opcodes that push a plain value."""
    return pickle.dumps(value, 2)[2:-1]


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def tensor(kind, key, count, offset, size, stride, view=None):
    """Opcodes that push a tensor, as PyTorch writes them."""
    pid = b"(" + literal("storage") + name("torch", kind) + b"".join(map(literal, (key, "cpu", count)))
    pid += (literal(view) if view else b"N") + b"tQ"
    hooks = name("collections", "OrderedDict") + b")R"
    return (
        name("torch._utils", "_rebuild_tensor_v2")
        + (b"(" + pid + b"".join(map(literal, (offset, size, stride))) + b"\x89" + hooks + b"t")
        + b"R"
    )


def program(**items):
    """A pickle of a dictionary whose values are opcodes."""
    return b"\x80\x02}(" + b"".join(literal(key) + ops for key, ops in items.items()) + b"u."


def write_zip(path, code, compression=zipfile.ZIP_STORED, byteorder=b"little", **storages):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("weights/data.pkl", code)
        archive.writestr("weights/byteorder", byteorder)
        for key, raw in storages.items():
            archive.writestr(f"weights/data/{key}", raw)
    return path


def write_legacy(path, code, **storages):
    """``storages`` are pairs of number of elements and bytes."""
    parts = [pickle.dumps(MAGIC, 2), pickle.dumps(1001, 2), pickle.dumps({"little_endian": True}, 2), code]
    parts.append(pickle.dumps(sorted(storages), 2))
    parts += [struct.pack("<q", count) + raw for _, (count, raw) in sorted(storages.items())]
    path.write_bytes(b"".join(parts))
    return path


@pytest.fixture(params=["zip", "legacy"])
def write(request, tmp_path):
    """Write opcodes and one storage "s" in either layout."""

    def write(code):
        path = tmp_path / "weights.pth"
        raw = NUMBERS.tobytes()
        return write_zip(path, code, s=raw) if request.param == "zip" else write_legacy(path, code, s=(12, raw))

    return write


@pytest.mark.parametrize(
    ("offset", "size", "stride", "expected"),
    [
        (0, (3, 4), (4, 1), NUMBERS.reshape(3, 4)),
        (0, (4, 3), (1, 4), NUMBERS.reshape(3, 4).T),
        (5, (2, 2), (4, 1), NUMBERS.reshape(3, 4)[1:, 1:3]),
        (11, (), (), NUMBERS[11]),
        (2, (3, 2), (0, 1), np.tile(NUMBERS[2:4], (3, 1))),
        (12, (0, 4), (4, 1), np.zeros((0, 4))),
    ],
)
def test_strided_tensors_written_by_hand(write, offset, size, stride, expected):
    value = read_weights(write(program(x=tensor("FloatStorage", "s", 12, offset, size, stride))))["x"]
    assert value.dtype == np.float32
    np.testing.assert_array_equal(value, expected)


def test_tensors_of_one_storage_and_views_of_it(write):
    code = program(
        a=tensor("FloatStorage", "s", 12, 0, (12,), (1,)),
        b=tensor("FloatStorage", "s", 12, 1, (2,), (1,), view=("v", 4, 3)),
    )
    arrays = read_torch(write(code))
    np.testing.assert_array_equal(arrays["a"], NUMBERS)
    np.testing.assert_array_equal(arrays["b"], NUMBERS[5:7])


@pytest.mark.parametrize(
    ("kind", "dtype", "read_as"),
    [
        ("HalfStorage", np.float16, np.float16),
        ("BFloat16Storage", ml_dtypes.bfloat16, np.float32),
        ("DoubleStorage", np.float64, np.float64),
        ("LongStorage", np.int64, np.int64),
        ("IntStorage", np.int32, np.int32),
        ("ShortStorage", np.int16, np.int16),
        ("CharStorage", np.int8, np.int8),
        ("ByteStorage", np.uint8, np.uint8),
        ("BoolStorage", np.bool_, np.bool_),
    ],
)
@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_types_and_byte_orders(tmp_path, kind, dtype, read_as, byteorder):
    numbers = np.array([0, 1, 3, 100]).astype(dtype)
    stored = numbers.view(f"u{numbers.itemsize}")
    stored = stored.byteswap() if byteorder == "big" else stored
    code = program(x=tensor(kind, "s", 4, 0, (4,), (1,)))
    value = read_torch(write_zip(tmp_path / "x.pth", code, byteorder=byteorder.encode(), s=stored.tobytes()))["x"]
    assert value.dtype == read_as
    np.testing.assert_array_equal(value, numbers.astype(read_as))


@pytest.mark.parametrize(
    "ops",
    [
        tensor("FloatStorage", "s", 12, 1, (3, 4), (4, 1)),
        tensor("FloatStorage", "s", 12, 0, (2,), (12,)),
        tensor("FloatStorage", "s", 12, -1, (2,), (1,)),
        tensor("FloatStorage", "s", 12, 0, (2,), (-1,)),
        tensor("FloatStorage", "s", 12, 0, (2**40,), (0,)),
        tensor("FloatStorage", "s", 12, 0, (13,), (0,)),
        tensor("FloatStorage", "s", 12, 0, (5, 3), (0, 1)),
        tensor("FloatStorage", "s", 12, 0, (2, 2), (1,)),
        tensor("FloatStorage", "s", 12, 0, (2,), (1,), view=("v", 8, 5)),
        tensor("FloatStorage", "s", 13, 0, (2,), (1,)),
        tensor("FloatStorage", "t", 12, 0, (2,), (1,)),
        tensor("FloatStorage", "../s", 12, 0, (2,), (1,)),
    ],
)
def test_tensors_beyond_their_storage_are_refused(write, ops):
    with pytest.raises(ValueError, match=r"weights\.pth: .*storage"):
        read_torch(write(program(x=ops)))


class Evil:
    """Calls ``function(argument)`` when it is unpickled by ``pickle``."""

    def __init__(self, function, argument):
        self.call = function, (argument,)

    def __reduce__(self):
        return self.call


def attacks(marker):
    system = Evil(os.system, f"touch {marker}")
    build = name("argparse", "Namespace") + b")\x81" + pickle.dumps({"x": system}, 2)[2:-1] + b"b"
    return {
        "os.system": pickle.dumps({"x": system}, 2),
        "eval": pickle.dumps({"x": Evil(eval, f"open({str(marker)!r}, 'w')")}, 2),
        "exec": pickle.dumps({"x": Evil(exec, f"open({str(marker)!r}, 'w')")}, 5),
        "getattr": program(x=name("builtins", "getattr")),
        "dotted": b"\x80\x04\x8c\x0bcollections\x8c\x1aOrderedDict.__subclasses__\x93)R.",
        "in a namespace": pickle.dumps({"args": argparse.Namespace(x=system)}, 2),
        "in its state": program(args=build),
        "nested load": program(x=name("torch.storage", "_load_from_bytes") + literal(("x",)) + b"R"),
    }


@pytest.mark.parametrize("kind", attacks(""))
def test_pickles_run_nothing(write, tmp_path, kind):
    marker = tmp_path / "ran"
    with pytest.raises(ValueError, match=r"weights\.pth: it refers to .* is refused"):
        read_weights(write(attacks(marker)[kind]))
    assert not marker.exists()


# The attacks leave the files that they make open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_the_attacks_work_on_plain_pickle(tmp_path):
    """Or the test above would show nothing."""
    for kind in ("os.system", "eval", "exec", "in a namespace", "in its state"):
        marker = tmp_path / kind.replace(" ", "_")
        pickle.loads(attacks(marker)[kind])
        assert marker.exists()


@pytest.mark.parametrize(
    ("target", "refused"),
    [
        (name("collections", "OrderedDict"), False),
        (name("torch._utils", "_rebuild_tensor_v2"), True),
        (name("torch", "device"), False),
    ],
)
def test_pickles_cannot_change_the_stand_ins(write, target, refused):
    """BUILD sets attributes of whatever lies on the stack, our own functions and classes included."""
    code = program(
        x=target + literal(({"__call__": 1}, {"__init__": 2, "_function": 3, "__setstate__": 4})) + b"b",
        y=tensor("FloatStorage", "s", 12, 0, (12,), (1,)),
    )
    before = [dict(vars(kind)) for kind in (torch_pickle._Dict, Call, Inert)]
    if refused:
        with pytest.raises(ValueError, match=r"weights\.pth: it changes what it may call"):
            read_torch(write(code))
        code = program(y=tensor("FloatStorage", "s", 12, 0, (12,), (1,)))
    np.testing.assert_array_equal(read_torch(write(code))["y"], NUMBERS)
    np.testing.assert_array_equal(read_torch(write(code))["y"], NUMBERS)
    assert before == [dict(vars(kind)) for kind in (torch_pickle._Dict, Call, Inert)]


def test_what_is_no_weight_is_inert(write):
    args = pickle.dumps(argparse.Namespace(lr=1.0, data=Path("/data")), 2)[2:-1]
    value = read_torch(write(program(args=args, x=tensor("FloatStorage", "s", 12, 0, (12,), (1,)))))
    assert isinstance(value["args"], Inert)
    assert not hasattr(value["args"], "lr") and not hasattr(value["args"], "__dict__")


def test_lists_that_refer_to_themselves_or_grow_are_harmless(write):
    loop = b"]q\x07h\x07a"  # a list whose item is the list
    doubled = [b"]q" + bytes([n + 1]) + (b"h" + bytes([n]) + b"a") * 2 for n in range(8, 60)]
    bomb = b"(]q\x08" + b"".join(doubled) + b"l"  # a list of lists, each of which holds the last one twice
    value = read_torch(write(program(loop=loop, bomb=bomb, x=tensor("FloatStorage", "s", 12, 0, (12,), (1,)))))
    assert value["loop"][0] is value["loop"]
    assert value["bomb"][-1][0] is value["bomb"][-1][1] is value["bomb"][-2]


def test_many_tensors_of_one_storage_take_no_more_memory_than_it(tmp_path):
    numbers = np.arange(2**18, dtype="<f4")
    one = tensor("FloatStorage", "s", 2**18, 0, (2**18,), (1,))
    path = write_zip(tmp_path / "x.pth", program(**{f"x{i}": one for i in range(300)}), s=numbers.tobytes())
    tracemalloc.start()
    arrays = read_torch(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(arrays["x299"], numbers)
    assert most < 10 * numbers.nbytes, "300 of it were wanted"


def deep_tuple(depth=26):
    """Opcodes of a tuple of two tuples of two tuples..., each the same: seconds to hash, as it takes 2**depth steps."""
    return b"K\x01" + b"2\x86" * depth


@pytest.mark.parametrize(
    "ops",
    [
        b"}" + deep_tuple() + b"K\x01s",
        b"}(" + literal("a") + b"K\x01" + deep_tuple() + b"K\x01u",
        b"(" + deep_tuple() + b"K\x01d",
        name("collections", "OrderedDict") + b"(((" + deep_tuple() + b"K\x01tltR",
        name("collections", "OrderedDict") + b")R" + deep_tuple() + b"K\x01s",
        b"}" + name("collections", "OrderedDict") + b"K\x01s",
    ],
    ids=["item", "items", "dictionary", "ordered from pairs", "item of ordered", "class"],
)
def test_keys_that_take_for_ever_to_hash_are_refused(write, ops):
    with pytest.raises(ValueError, match=r"weights\.pth: a key of a dictionary is neither text nor a number"):
        read_torch(write(program(x=ops)))


def test_other_places_where_tuples_would_be_hashed_are_harmless(write, tmp_path):
    one = tensor("FloatStorage", "s", 12, 0, (12,), (1,))
    sets = {"added": b"\x8f(" + deep_tuple() + b"\x90", "frozen": b"(" + deep_tuple() + b"\x91"}
    start = time.process_time()
    value = read_torch(write(program(x=one, **sets)))
    assert isinstance(value["added"], Inert) and isinstance(value["frozen"], Inert)
    path = write_legacy(tmp_path / "weights.pth", program(x=one), s=(12, NUMBERS.tobytes()))
    path.write_bytes(path.read_bytes().replace(pickle.dumps(["s"], 2), b"\x80\x02]" + deep_tuple(29) + b"a."))
    with pytest.raises(ValueError, match="belongs to no tensor"):
        read_torch(path)
    assert time.process_time() - start < 0.5


def test_a_bytearray_longer_than_the_file_is_refused_before_it_is_filled(write):
    tracemalloc.start()
    with pytest.raises(ValueError, match="bytearray"):
        read_torch(write(program(x=b"\x96" + struct.pack("<Q", 2**28))))
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_keys_of_plain_values_are_read(write):
    values = {"a": 1, 2: [3], 2.5: None, None: 4, False: 6}
    ordered = name("collections", "OrderedDict") + b"(" + literal(list(values.items())) + b"tR"
    one = tensor("FloatStorage", "s", 12, 0, (12,), (1,))
    read = read_torch(write(program(x=literal(values), y=ordered, z=one)))
    assert read["x"] == read["y"] == values


@pytest.mark.parametrize(
    ("global_", "words"),
    [
        (("torch._utils", "_rebuild_sparse_tensor"), "sparse or quantised"),
        (("torch._utils", "_rebuild_qtensor"), "sparse or quantised"),
        (("torch", "QInt8Storage"), "sparse or quantised"),
        (("torch", "ComplexFloatStorage"), "of a kind that cannot be read"),
        (("timm.models.vision_transformer", "VisionTransformer"), r"save its state_dict\(\) alone"),
    ],
)
def test_other_tensors_and_whole_modules_are_refused(write, global_, words):
    with pytest.raises(ValueError, match=words) as error:
        read_torch(write(program(x=name(*global_))))
    assert "\n" not in str(error.value)


def test_files_cut_short_are_refused_wherever_they_end(write):
    path = write(program(x=tensor("FloatStorage", "s", 12, 0, (12,), (1,))))
    whole = path.read_bytes()
    for end in [*range(1, len(whole), 7), len(whole) - 1]:
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"weights\.pth: "):
            read_weights(path)


def test_changed_bytes_are_read_or_refused_but_never_crash(write):
    namespace = pickle.dumps({"args": argparse.Namespace(x=1), "l": [1, (2.0, "b")]}, 2)[2:-1]
    path = write(program(x=tensor("FloatStorage", "s", 12, 0, (3, 4), (1, 3)), rest=namespace))
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(500):
        data = bytearray(whole)
        data[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(data)
        try:
            read_weights(path)
        except ValueError as error:
            refused += 1
            assert str(error).startswith(str(path)) and "\n" not in str(error)
    assert refused > 100


def test_flipped_bits_are_noticed_in_archives(tmp_path):
    path = write_zip(
        tmp_path / "x.pth", program(x=tensor("FloatStorage", "s", 12, 0, (12,), (1,))), s=NUMBERS.tobytes()
    )
    path.write_bytes(path.read_bytes().replace(NUMBERS.tobytes(), NUMBERS[::-1].tobytes()))
    with pytest.raises(ValueError, match="damaged"):
        read_torch(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x89HDF\r\n\x1a\n", "neither a file of PyTorch"),
        (pickle.dumps({"x": 1}), "neither a file of PyTorch"),
        (pickle.dumps(3), "neither a file of PyTorch"),
        (pickle.dumps(MAGIC, 2) + pickle.dumps(7, 2), "unknown version"),
        (struct.pack("<Q", 9) + b'{"a":{}}x', "not a safetensors file"),
    ],
)
def test_other_files_are_named_for_what_they_are(tmp_path, content, words):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as error:
        read_weights(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_other_archives_are_refused(tmp_path):
    code = program(x=tensor("FloatStorage", "s", 12, 0, (12,), (1,)))
    bomb = write_zip(tmp_path / "a.pth", code, zipfile.ZIP_DEFLATED, s=NUMBERS.tobytes())
    with pytest.raises(ValueError, match="compressed"):
        read_torch(bomb)
    with zipfile.ZipFile(tmp_path / "b.pth", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(ValueError, match=r"no data\.pkl"):
        read_torch(tmp_path / "b.pth")
    with zipfile.ZipFile(tmp_path / "c.pth", "w") as archive:
        archive.writestr("m/data.pkl", code)
        archive.writestr("m/constants.pkl", code)
    with pytest.raises(ValueError, match="TorchScript"):
        read_torch(tmp_path / "c.pth")
    with pytest.raises(ValueError, match="no dictionary"):
        read_torch(write_zip(tmp_path / "d.pth", b"\x80\x02" + literal([1]) + b"."))


def test_missing_files_are_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_weights(tmp_path / "none.pth")


def test_safetensors_with_half_precisions(tmp_path):
    numbers = {"half": np.float16([1.5, -2.0]), "whole": np.int64([3]), "flag": np.array([True, False])}
    brain = np.array([1.5, 3.0], ml_dtypes.bfloat16)
    header, data = {}, b""
    for key, array, kind in [(k, v, {"half": "F16", "whole": "I64", "flag": "BOOL"}[k]) for k, v in numbers.items()] + [
        ("brain", brain, "BF16")
    ]:
        header[key] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [len(data), len(data) + array.nbytes]}
        data += array.tobytes()
    text = str(header).replace("'", '"').encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    for read in (read_safetensors, read_weights):
        arrays = read(path)
        for key, array in numbers.items():
            np.testing.assert_array_equal(arrays[key], array)
        assert arrays["brain"].dtype == np.float32
        np.testing.assert_array_equal(arrays["brain"], brain.astype(np.float32))


@pytest.fixture(params=[True, False], ids=["zip", "legacy"])
def torch_save(request, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch, which writes the files to be read, is not installed")

    def save(value):
        torch.save(value, tmp_path / "torch.pth", _use_new_zipfile_serialization=request.param)
        return tmp_path / "torch.pth"

    return save


def test_tensors_of_torch(torch_save):
    import torch

    base = torch.arange(24.0).reshape(4, 6)
    tensors = {
        "base": base,
        "transposed": base.T,
        "slice": base[1:3, ::2],
        "expanded": base[0, :3].expand(5, 3),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5),
        "parameter": torch.nn.Parameter(base + 1),
        **{
            str(t): base.to(t)
            for t in (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.uint8)
        },
    }
    read = read_weights(torch_save(tensors))
    assert read.keys() == tensors.keys()
    for key, value in tensors.items():
        value = value.detach()
        expected = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
        assert read[key].dtype == expected.dtype
        np.testing.assert_array_equal(read[key], expected)


def test_full_checkpoints_of_torch(torch_save):
    """Such as main_dino.py writes: optimiser, arguments and loss beside the two networks."""
    import torch

    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    states = {f"module.backbone.{name}": value for name, value in network.state_dict().items()}
    checkpoint = {
        "student": states,
        "teacher": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "args": argparse.Namespace(arch="vit_small", output_dir=Path(), scales=(0.4, 1.0)),
        "dino_loss": {"center": torch.ones(1, 7)},
        "fp16_scaler": {"scale": 65536.0},
        "best": np.float64(0.5),
        "device": torch.device("cpu"),
        "shape": torch.Size([2, 3]),
        "type": torch.float32,
    }
    read = read_weights(torch_save(checkpoint))
    for name, value in states.items():
        np.testing.assert_array_equal(read["student"][name], value.numpy())
    for name, value in network.state_dict().items():
        np.testing.assert_array_equal(read["teacher"][name], value.numpy())
    assert read["epoch"] == 3 and read["fp16_scaler"] == {"scale": 65536.0} and read["shape"] == (2, 3)
    np.testing.assert_array_equal(read["dino_loss"]["center"], np.ones((1, 7)))
    np.testing.assert_array_equal(
        read["optimizer"]["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"].numpy()
    )
    assert isinstance(read["args"], Inert) and isinstance(read["best"], Inert)


def test_evil_files_of_torch_run_nothing(torch_save, tmp_path):
    import torch

    marker = tmp_path / "ran"
    evil = {"teacher": {"x": torch.ones(2)}, "args": argparse.Namespace(x=Evil(os.system, f"touch {marker}"))}
    with pytest.raises(ValueError, match=r"system, which is refused"):
        read_weights(torch_save(evil))
    assert not marker.exists()


def test_whole_modules_and_sparse_tensors_of_torch_are_refused(torch_save):
    import torch

    with pytest.raises(ValueError, match=r"state_dict\(\)"):
        read_weights(torch_save({"model": torch.nn.Linear(2, 2)}))
    with pytest.raises(ValueError, match="sparse or quantised"):
        read_weights(torch_save({"x": torch.eye(3).to_sparse()}))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_is_refused(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    (tmp_path / "x.pt").write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match="TorchScript"):
        read_weights(tmp_path / "x.pt")
