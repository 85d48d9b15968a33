"""Read files of weights, of PyTorch or safetensors, without PyTorch.

Two layouts of ``.pth`` files are known: the zip archive of PyTorch 1.6 and later, and the older chain of pickles
followed by raw storages (``torch/serialization.py``, ``_save`` and ``_legacy_save``). Their pickles are interpreted
by :mod:`vis2img.train.weights.pickle`, which runs nothing a file contains.
"""

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from safetensors import SafetensorError, deserialize, safe_open

from vis2img.inputs import not_a_file
from vis2img.train.weights.pickle import Arrays, Storage, TorchUnpickler, decode
from vis2img.unpickle import RefusedError

_MAGIC = 0x1950A86A20F9469CFC6C
_MAGIC_BYTES = _MAGIC.to_bytes(10, "little")
_LEGACY_VERSION = 1001
_AGAIN = "it is truncated or damaged; copy or download it again"

_SAFETENSORS = {
    **{"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "bfloat16", "BOOL": "bool"},
    **{"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1"},
    **{"U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1"},
}


def read_weights(path: str | Path) -> dict[str, Any]:
    """Read a file of weights, whatever its name says: `read_torch` or `read_safetensors`.

    Raises
    ------
    ValueError
        One line that names the file, what is wrong and what to do.
    OSError
        If it cannot be opened.
    """
    path = Path(path)
    return read_safetensors(path) if _is_safetensors(_head(path)) else read_torch(path)


def read_header(path: str | Path) -> dict[str, str] | None:
    """Return what the header of a safetensors file says of it; None of a file that is none.

    Raises
    ------
    ValueError, OSError
        As `read_weights`.
    """
    if not _is_safetensors(_head(Path(path))):
        return None
    try:
        with safe_open(path, "np") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file, or {_AGAIN} ({error})") from error


def _is_safetensors(head: bytes) -> bool:
    """Tell whether a file begins with the length of a header, eight bytes, and then JSON."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32


def read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """Return the arrays of a safetensors file by name; bfloat16 as float32.

    Raises
    ------
    ValueError, OSError
        As `read_weights`.
    """
    try:
        entries = deserialize(Path(path).read_bytes())
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file, or {_AGAIN} ({error})") from error
    arrays = {}
    for name, entry in entries:
        if entry["dtype"] not in _SAFETENSORS:
            raise ValueError(f"{path}: {name} is of type {entry['dtype']}; convert the file to float32")
        arrays[name] = decode(bytes(entry["data"]), _SAFETENSORS[entry["dtype"]]).reshape(entry["shape"])
    return arrays


def read_torch(path: str | Path) -> dict[str, Any]:
    """Return the dictionary in a ``.pth`` or ``.pt`` file, without running anything from it.

    Returns
    -------
    dict
        Nested as in the file, with NumPy arrays for tensors (bfloat16 as float32). Objects that are no weights, such
        as the arguments of the run, are `vis2img.unpickle.Inert`.

    Raises
    ------
    ValueError, OSError
        As `read_weights`; see :mod:`vis2img.train.weights.pickle` for what is refused.
    """
    path = Path(path)
    head = _head(path)
    try:
        value = _reader(head)(path)
    except RefusedError as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:  # pickle and zipfile raise a dozen types for bytes that make no sense
        raise ValueError(f"{path}: {_AGAIN} ({type(error).__name__}: {' '.join(str(error).split())})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: it holds no dictionary of weights; save the model's state_dict()")
    return value


def _head(path: Path) -> bytes:
    kind = not_a_file(path)
    if kind:
        raise ValueError(f"{path} is {kind}, not a file")
    with path.open("rb") as file:
        return file.read(512)


def _reader(head: bytes) -> Callable[[Path], Any]:
    if head.startswith(b"PK\x03\x04"):
        return _read_zip
    if _MAGIC_BYTES in head[:40]:
        return _read_legacy
    if head.startswith(b"version https://git-lfs"):
        raise RefusedError("a pointer of Git LFS and not the file itself; run `git lfs pull`")
    if head.lstrip()[:1] == b"<":
        raise RefusedError("a web page and not a file of weights; download the file itself")
    if head[257:262] == b"ustar":
        raise RefusedError("a tar archive, as PyTorch wrote before 0.1.10; save it again with a newer PyTorch")
    if not head:
        raise RefusedError("an empty file; copy or download it again")
    raise RefusedError("neither a file of PyTorch (.pth, .pt) nor of safetensors")


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        members = set(archive.namelist())
        pickles = [name for name in members if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise RefusedError("a zip archive, but not of PyTorch: it has no data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in members:
            raise RefusedError("a TorchScript program; save the model's state_dict() instead")

        def member(name: str) -> bytes:
            # PyTorch never compresses, so that nothing read is larger than the file.
            if archive.getinfo(folder + name).compress_type != zipfile.ZIP_STORED:
                raise RefusedError(f"{name} in it is compressed, which PyTorch never does; save it with torch.save")
            return archive.read(folder + name)

        def read(storage: Storage, nbytes: int) -> bytes:
            name = f"data/{storage.key}"
            if folder + name not in members or archive.getinfo(folder + name).file_size != nbytes:
                raise RefusedError(f"storage {storage.key!a} does not have {nbytes} bytes; {_AGAIN}")
            return member(name)

        big_endian = f"{folder}byteorder" in members and member("byteorder") == b"big"
        value = TorchUnpickler(io.BytesIO(member("data.pkl"))).load()
        return Arrays(read, big_endian).resolve(value)


def _read_legacy(path: Path) -> Any:
    with path.open("rb") as file:
        if TorchUnpickler(file).load() != _MAGIC or TorchUnpickler(file).load() != _LEGACY_VERSION:
            raise RefusedError("not a file of PyTorch, or of an unknown version of its layout")
        TorchUnpickler(file).load()  # sizes of integers where it was written; storages are little-endian everywhere
        unpickler = TorchUnpickler(file)
        value = unpickler.load()
        raw = _legacy_storages(file, TorchUnpickler(file).load(), unpickler.storages)
    return Arrays(lambda storage, _: raw[storage.key]).resolve(value)


def _legacy_storages(file: IO[bytes], keys: Any, storages: dict[str, Storage]) -> dict[str, bytes]:
    """Read the storages at the end of the file: the number of elements (int64), then the elements, in turn."""
    raw = {}
    end = os.fstat(file.fileno()).st_size
    for key in keys:
        # To hash a tuple of tuples can take for ever.
        if not isinstance(key, str) or key not in storages:
            raise RefusedError(f"it holds a storage that belongs to no tensor; {_AGAIN}")
        count, nbytes = int.from_bytes(file.read(8), "little"), storages[key].nbytes
        if count != storages[key].whole or file.tell() + nbytes > end:
            raise RefusedError(f"storage {key!a} does not have {storages[key].whole} numbers; {_AGAIN}")
        raw[key] = file.read(nbytes)
    return raw
