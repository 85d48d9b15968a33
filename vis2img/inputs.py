"""Files that users name: opened only if they are files, and ``~`` in a name is a home folder.

A named pipe makes whoever opens it wait for ever, and a device such as ``/dev/zero`` never ends.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from vis2img.errors import Vis2imgError

_HOME = re.compile(r"~[\w.-]*(/|$)")
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


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
