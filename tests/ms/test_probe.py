"""Sets that casacore does not survive are refused: a child process dies in the place of the caller."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.helpers.measurement_sets import build_ms

# Damages table.dat of STATE in one way after the other until casacore dies of it in a process of its own, then probes.
_SEARCH = """
import os, signal, sys
from pathlib import Path
import numpy as np
from vis2img.dataset import open_ms
from vis2img.errors import Vis2imgError
from vis2img.ms.metadata import read_metadata

path = Path(sys.argv[1])
file = path / "STATE" / "table.dat"
good = file.read_bytes()
rng = np.random.default_rng(7)
for _ in range(600):
    at, other = rng.integers(0, len(good) - 16, 2)
    bad = bytearray(good)
    bad[at : at + 8], bad[other : other + 8] = good[other : other + 8], good[at : at + 8]
    file.write_bytes(bad)
    child = os.fork()
    if child == 0:
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_RDWR), stream)
        try:
            read_metadata(path)
        except Exception:
            pass
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0:
        print("casacore died of", signal.Signals(-code).name)
        break
else:
    sys.exit("casacore survived all")
try:
    open_ms(path)
except Vis2imgError as error:
    print(error)
"""


def test_a_set_that_casacore_dies_of_is_refused_in_one_line(tmp_path: Path) -> None:
    path = build_ms(tmp_path / "a.ms").path
    done = subprocess.run(
        [sys.executable, "-c", _SEARCH, path], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    died, told = done.stdout.splitlines()
    assert died.startswith("casacore died of SIG")
    assert told == f"{path} is damaged: casacore dies ({died.split()[-1]}) when it opens the tables; copy the set again"
