"""A measurement set is opened in a child process before it is opened here.

Of damaged files casacore may abort, run past its memory, or take as much of it as a damaged number says, and no
exception tells. A child that goes through the metadata finds out at the cost of itself. It is forked where this process
has one thread alone, as from the command line: a fork copies the locks that other threads hold.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import threading
import warnings
from pathlib import Path

from vis2img.errors import MeasurementSetError
from vis2img.ms.metadata import read_metadata
from vis2img.ms.tables import open_table

_MEMORY = 768 << 20  # bytes that a child may take besides what it has
_CPU_S = 60
_TOO_MUCH = 3  # exit status of a child that lacks memory
_HEAVY = ("FLAG", "FLAG_ROW", "WEIGHT", "WEIGHT_SPECTRUM", "DATA", "CORRECTED_DATA", "MODEL_DATA")

_survived: set[tuple[str, int, int]] = set()


def probe(path: Path) -> None:
    """Refuse a measurement set that casacore does not survive, or that takes more memory than any needs.

    Raises
    ------
    MeasurementSetError
        If so. What casacore tells of by itself is left to whoever opens the set.
    """
    if threading.active_count() > 1 or "jax" in sys.modules or not (path / "table.dat").is_file():
        return
    stat = (path / "table.dat").stat()
    key = (str(path.resolve()), stat.st_ino, stat.st_mtime_ns)
    if key in _survived:
        return
    code = os.waitstatus_to_exitcode(os.waitpid(_fork(path), 0)[1])
    if code:
        what = "takes more memory than any set needs" if code == _TOO_MUCH else f"dies ({_name(code)})"
        raise MeasurementSetError(f"{path} is damaged: casacore {what} when it opens the tables; copy the set again")
    _survived.add(key)


def _name(code: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"exit status {code}"


def _fork(path: Path) -> int:
    """Return the number of a child that looks at the set and ends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads of libraries, which wait for work
        child = os.fork()
    if child == 0:
        code = 1
        try:
            code = _look(path)
        finally:
            os._exit(code)
    return child


def _look(path: Path) -> int:
    """Read, in a child, the metadata and a few rows; return the exit status."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    silent = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silent, stream)
    most = _data_bytes() + _MEMORY
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    try:
        meta = read_metadata(path)
        main = open_table(path)
        for name in (*_HEAVY, *meta.data_columns):
            for row in {0, meta.nrow // 2, meta.nrow - 1} if name in meta.columns and meta.nrow else ():
                if main.iscelldefined(name, row):
                    main.getcell(name, row)
    except (Exception, KeyboardInterrupt) as error:
        short = isinstance(error, MemoryError) or isinstance(error.__cause__, MemoryError)
        return _TOO_MUCH if short else 0
    return 0


def _data_bytes() -> int:
    """Return the memory that this process may write to, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) << 10
    return 0
