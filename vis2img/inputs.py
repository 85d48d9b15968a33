"""Files that users name: opened only if they are files, and ``~`` in a name is a home folder.

A named pipe makes whoever opens it wait for ever, and a device such as ``/dev/zero`` never ends. A FITS file may have
a header without an end, or tell of pixels that it does not hold, for which astropy takes memory all the same.
"""

from __future__ import annotations

import gzip
import math
import os
import re
import stat
import zlib
from pathlib import Path
from typing import Any

from vis2img.errors import Vis2imgError

_HOME = re.compile(r"~[\w.-]*(/|$)")
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}
_BLOCK = 2880  # bytes of a FITS block
_MOST_BLOCKS = 2000  # of a header: 72,000 lines
_GZIP = b"\x1f\x8b"
_END = re.compile(rb"(?:.{80})*END {77}", re.DOTALL)
_NAXIS = re.compile(rb"(?:.{80})*?NAXIS   = +(\d+)\b", re.DOTALL)
_NEGATIVE = re.compile(rb"(Z?NAXIS\d*) *= +-\d")
_COUNTS = {"NAXIS": 999, "TFIELDS": 999, "ZNAXIS": 999}  # the most that FITS allows
_MOST_GROWTH = 200  # bytes of pixels to a byte that they are compressed to: those of a blank image are more
_SPARE_BYTES = 1 << 24


def expand_home(text: str) -> str:
    """Return a path whose first part, ``~`` or ``~name``, is the home folder that a shell makes of it."""
    return os.path.expanduser(text) if _HOME.match(text) else text  # noqa: PTH111 (unknown names stay as they are)


def not_a_file(path: str | Path) -> str | None:
    """Return what is in the place of a file, such as "a named pipe"; None where there is a file, or nothing."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return None  # opening it tells why
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "something else")


def check_file(path: str | Path, most: int | None = None, error: type[Vis2imgError] = Vis2imgError) -> None:
    """Refuse what is no file before it is opened, and a file that is larger than any of its kind is.

    Parameters
    ----------
    path : path
        One that is not there is not refused: opening it tells.
    most : int, optional
        Bytes that it may have.
    error : type
        What to raise.
    """
    kind = not_a_file(path)
    if kind:
        raise error(f"{path} is {kind}, not a file")
    try:
        size = Path(path).stat().st_size
    except (OSError, ValueError):
        return
    if most is not None and size > most:
        raise error(f"{path} has {size:,} bytes, and such a file has at most {most:,}: it is something else")


def check_fits(path: str | Path, error: type[Vis2imgError] = Vis2imgError) -> None:
    """Refuse what is no FITS file before astropy opens it, which reads a header without an end to the end of the file.

    Zip archives, which astropy would unpack, are refused too; gzip is read.
    """
    check_file(path, error=error)
    try:
        with Path(path).open("rb") as plain:
            start = plain.read(len(_GZIP))
        with gzip.open(path) if start == _GZIP else Path(path).open("rb") as file:
            header = _header(path, file, True, error)
            while (axes := _NAXIS.match(header)) and int(axes[1]) == 0:  # until there are data
                header = _header(path, file, False, error)
    except (EOFError, OSError, ValueError, zlib.error) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise error(f"cannot read {path}: {reason}") from problem


def _header(path: str | Path, file: Any, first: bool, error: type[Vis2imgError]) -> bytes:
    """Return the next header of a FITS file; empty where there is none."""
    header = b""
    for _ in range(_MOST_BLOCKS):
        block = file.read(_BLOCK)
        if first and not header and not block.startswith(b"SIMPLE"):
            raise error(f"{path} is {'no FITS file' if block else 'empty'}")
        if not first and not header and not block.startswith(b"XTENSION"):
            return b""
        header += block
        if _END.match(block):
            if negative := _NEGATIVE.search(header):
                raise error(f"{path} is damaged: {negative[1].decode()} in its header is negative")
            for name, most in _COUNTS.items():  # astropy counts up to them, whatever they are
                told = re.search(rb"%-8b= +(\d+)\b" % name.encode(), header)
                if told and int(told[1]) > most:
                    raise error(f"{path} is damaged: {name} = {told[1][:20].decode()} in its header")
            return header
        if len(block) < _BLOCK:
            raise error(f"{path} is cut short: it ends in its header")
    raise error(f"{path} is damaged: its header has no end")


def check_pixels(path: str | Path, hdu: Any, error: type[Vis2imgError] = Vis2imgError) -> None:
    """Refuse an image of a FITS file whose pixels are not in the file, before memory is taken for them."""
    size = Path(path).stat().st_size
    nbytes = math.prod(hdu.shape) * abs(int(hdu.header["BITPIX"])) // 8
    with Path(path).open("rb") as file:
        compressed = file.read(len(_GZIP)) == _GZIP or hasattr(hdu, "compression_type")
    if compressed:
        check_growth(path, nbytes, size, error)
    place = (hdu.fileinfo() or {}).get("datLoc", 0)
    if not compressed and place + nbytes > size:
        raise error(f"{path} is cut short: it holds {max(0, size - place):,} of {nbytes:,} bytes of pixels")


def check_growth(path: str | Path, nbytes: int, compressed: int, error: type[Vis2imgError] = Vis2imgError) -> None:
    """Refuse what would be far larger than numbers of a telescope can be compressed."""
    if nbytes > _MOST_GROWTH * compressed + _SPARE_BYTES:
        raise error(f"{path} is damaged: {nbytes:,} bytes of numbers in {compressed:,} compressed ones")
