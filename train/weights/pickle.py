"""Interpret the pickles of PyTorch, without PyTorch and without running anything they contain.

A ``.pth`` file is a pickle, which :mod:`vis2img.unpickle` interprets with one table of inert stand-ins:

* what tensors are made of (storages, sizes, ordered dictionaries) becomes plain data;
* what full checkpoints carry besides (``argparse.Namespace``, paths, NumPy scalars, devices; see ``_INERT``) becomes
  an `Inert`, which keeps nothing and runs nothing;
* any other name is refused. A stand-in for it would be as harmless, but a name such as ``os.system`` in a file of
  weights means that the file is not what it claims to be, and its owner should hear of it.

What is found wrong here is a `RefusedError`; bytes that make no sense raise what pickle raises.
"""

import math
from collections.abc import Callable
from typing import IO, Any, NamedTuple

import ml_dtypes
import numpy as np

from vis2img.unpickle import Call, Inert, RefusedError, RestrictedUnpickler, plain_key

_RESAVE = "load it where it was made and save its state_dict() alone"

# Storage classes of torch -> element type (little-endian, as PyTorch writes unless the file says otherwise).
STORAGES = {
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "DoubleStorage": "<f8",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "bool",
}
# Met in checkpoints beside the weights, and of no use to us. Naming one here lets nothing run: see `Inert`.
_INERT = {
    "argparse": {"Namespace"},
    "pathlib": {"Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"},
    "pathlib._local": {"Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"},
    "builtins": {"set", "frozenset", "complex", "slice", "range", "bytearray", "dict", "list", "int", "float", "str"},
    "__builtin__": {"set", "frozenset", "complex", "slice", "xrange", "bytearray", "dict", "list", "int", "float"},
    "_codecs": {"encode"},
    "numpy": {"dtype", "ndarray"},
    "numpy.core.multiarray": {"scalar", "_reconstruct"},
    "numpy._core.multiarray": {"scalar", "_reconstruct"},
    "numpy.core.numeric": {"_frombuffer"},
    "numpy._core.numeric": {"_frombuffer"},
    "torch": {
        *("device", "memory_format", "float32", "float16", "bfloat16", "float64"),
        *("int64", "int32", "int16", "int8", "uint8", "bool"),
    },
    "torch.serialization": {"_get_layout"},
}


class _Dict(dict[Any, Any]):
    """Stand-in for `collections.OrderedDict`; drops the attributes that PyTorch hangs on it (``_metadata``)."""

    def __init__(self, *args: Any) -> None:
        pairs = args[0] if args and isinstance(args[0], list | tuple) else ()
        super().__init__((plain_key(key), value) for key, value in pairs)

    @staticmethod
    def __setstate__(*args: Any) -> None: ...


class _Kind(NamedTuple):
    """A storage class."""

    name: str


class Storage(NamedTuple):
    """Numbers in the file: ``length`` elements from ``offset``, of the ``whole`` elements called ``key``."""

    kind: str
    key: str
    whole: int
    offset: int
    length: int

    @property
    def nbytes(self) -> int:
        """Length of the whole."""
        return self.whole * _dtype(STORAGES[self.kind]).itemsize


class _Tensor(NamedTuple):
    """A tensor before its numbers are read; offset and stride in elements."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _natural(*values: Any) -> bool:
    return all(type(value) is int and value >= 0 for value in values)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> _Tensor:
    size, stride = tuple(size), tuple(stride)
    if not isinstance(storage, Storage) or not _natural(offset, *size, *stride) or len(size) != len(stride):
        raise RefusedError("a tensor has no storage, or a negative offset, size or stride")
    return _Tensor(storage, offset, size, stride)


_PYTORCH: dict[tuple[str, str], Any] = {
    **{(module, name): Inert for module, names in _INERT.items() for name in names},
    **{(module, name): _Kind(name) for module in ("torch", "torch.storage", "torch.cuda") for name in STORAGES},
    ("torch._utils", "_rebuild_tensor_v2"): Call(_tensor),
    ("torch._utils", "_rebuild_tensor"): Call(_tensor),
    ("torch._utils", "_rebuild_parameter"): Call(lambda data, *rest: data),
    ("torch._utils", "_rebuild_parameter_with_state"): Call(lambda data, *rest: data),
    ("torch", "Size"): Call(tuple),
    ("collections", "OrderedDict"): _Dict,
    ("collections", "defaultdict"): _Dict,
}


class TorchUnpickler(RestrictedUnpickler):
    """Interprets a pickle of PyTorch; ``storages`` are those that its tensors are of, by key."""

    allowed = _PYTORCH

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.storages: dict[str, Storage] = {}

    def refusal(self, module: str, name: str) -> str:
        shown = ascii(f"{module}.{name}")[1:-1][:80]  # the file may have put anything into it
        if module.startswith("torch") and ("sparse" in name or "_rebuild_q" in name or name.startswith("Q")):
            return f"it holds sparse or quantised tensors ({shown}); convert them to dense floats"
        if module.startswith("torch") and (name.startswith("_rebuild") or name.endswith("Storage")):
            return f"it holds tensors of a kind that cannot be read ({shown}); {_RESAVE}"
        return f"it refers to {shown}, which is refused as no part of weights; if you trust the file, {_RESAVE}"

    def persistent_load(self, pid: Any) -> Storage:
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
            raise RefusedError(f"it holds more than tensors (whole modules?); {_RESAVE}")
        _, kind, key, _, count, *rest = pid
        if not isinstance(kind, _Kind) or not isinstance(key, str) or not _natural(count):
            raise RefusedError("a storage has no type, name or size")
        root = self.storages.setdefault(key, Storage(kind.name, key, count, 0, count))
        if (root.kind, root.whole) != (kind.name, count):
            raise RefusedError(f"storage {key!a} has two types or sizes")
        view = rest[0] if rest else None
        if view is None:
            return root
        _, offset, length = view
        if not _natural(offset, length) or offset + length > count:
            raise RefusedError(f"a view exceeds storage {key!a}")
        return root._replace(offset=offset, length=length)


class Arrays:
    """Turns tensors into arrays once their numbers can be read.

    Parameters
    ----------
    read : callable
        Returns the bytes of a whole storage, given the storage and its length [byte].
    big_endian : bool
        Byte order of those.
    """

    def __init__(self, read: Callable[[Storage, int], Any], big_endian: bool = False) -> None:
        self._read, self._big_endian = read, big_endian
        self._storages: dict[str, np.ndarray] = {}
        self._done: dict[int, Any] = {}

    def resolve(self, value: Any) -> Any:
        """Return ``value`` with arrays for tensors, in nested dictionaries, lists and tuples too.

        What occurs twice is resolved once, as a pickle may refer to one list a billion times.
        """
        if not isinstance(value, dict | list | tuple):
            return value
        if id(value) in self._done:
            return self._done[id(value)]
        done: Any
        if isinstance(value, _Tensor):
            done = self._array(value)
        elif isinstance(value, Storage | _Kind):
            done = Inert()
        elif isinstance(value, tuple):
            done = tuple(self.resolve(item) for item in value)
        elif isinstance(value, list):
            done = self._done[id(value)] = []
            done.extend(self.resolve(item) for item in value)
        else:
            done = self._done[id(value)] = {}
            done.update((key, self.resolve(item)) for key, item in value.items())
        self._done[id(value)] = done
        return done

    def _array(self, tensor: _Tensor) -> np.ndarray:
        storage = tensor.storage
        elements = math.prod(tensor.size)
        reach = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.size, tensor.stride, strict=True)) + 1
        # With a stride of 0 few numbers could fill any amount of memory.
        if elements and max(reach, elements) > storage.length:
            raise RefusedError(f"a tensor of shape {tensor.size} exceeds its storage of {storage.length} numbers")
        flat = self._storage(storage)
        if not elements:
            return np.zeros(tensor.size, flat.dtype)
        start = flat[storage.offset + tensor.offset :]
        strides = [step * flat.itemsize for step in tensor.stride]
        # No copy, so that a million tensors of one storage take no more memory than one.
        return np.lib.stride_tricks.as_strided(start, tensor.size, strides, writeable=False)

    def _storage(self, storage: Storage) -> np.ndarray:
        if storage.key not in self._storages:
            name = STORAGES[storage.kind]
            raw = self._read(storage, storage.nbytes)
            self._storages[storage.key] = decode(raw, name, self._big_endian)
        return self._storages[storage.key]


def decode(raw: Any, name: str, big_endian: bool = False) -> np.ndarray:
    """Return the numbers of ``raw`` bytes, flat; bfloat16, which NumPy lacks, as float32."""
    dtype = _dtype(name)
    if big_endian:
        raw = np.frombuffer(raw, f"u{dtype.itemsize}").byteswap()
    numbers = np.frombuffer(raw, dtype)
    if name == "bfloat16":
        return numbers.astype(np.float32)
    return numbers != 0 if name == "bool" else numbers


def _dtype(name: str) -> np.dtype[Any]:
    """Type in the file: booleans are bytes there."""
    return np.dtype({"bfloat16": ml_dtypes.bfloat16, "bool": np.uint8}.get(name, name))
