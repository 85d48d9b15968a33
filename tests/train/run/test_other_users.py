"""Other users of the machine reach nothing of a training that runs: ports, shared memory, folders, run folder."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.helpers.other_user import attack, listening
from tests.train.run.test_run_stops import COMMAND, Bench, Run

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(not COMMAND.exists(), reason=f"{COMMAND} is not installed"),
]


def test_nobody_else_reaches_a_training(tmp_path: Path) -> None:
    # A place where all may write, as /tmp: what another user cannot do follows from the modes of what is ours.
    common = tmp_path / "common"
    common.mkdir()
    own = next(n for n, above in enumerate(tmp_path.parents) if above.name.startswith("pytest-of-"))
    for above in tmp_path, *tmp_path.parents[: own + 1]:
        above.chmod(0o755)
    common.chmod(0o1777)
    bench = Bench(tmp_path)
    bench.env["TMPDIR"] = str(common)
    path, folder = bench.config(steps=100_000, out=str(common / "run"))
    umask = os.umask(0o022)
    try:
        run = Run(bench, path)
        run.until(lambda: "imaging: 2/2" in run.err)  # it compiles now
        ports = listening(run.process.pid)
        assert len(ports) == 3 and all(address.startswith("127.0.0.1:") for address in ports)  # and JAX none
        (scratch,) = common.glob("vis2img-workers-*")
        held = {Path(file.path).parent for file in psutil.Process(run.process.pid).open_files()}
        (draws,) = (place for place in held if place.name.startswith("vis2img-draws-"))  # other runs have theirs
        memory = {draws, *Path("/dev/shm").glob(f"sem.{scratch.name}-*")}
        assert draws.parent == Path("/dev/shm") and len(memory) > 1
        places = [place for top in (*memory, scratch, folder) for place in (top, *top.rglob("*"))]
        done = attack(ports, [*places, Path("/dev/shm") / "nothing"])
        run.process.send_signal(signal.SIGUSR1)
        assert "stopped, run the same command" in run.end(seconds=120)
    finally:
        os.umask(umask)
        for run in bench.running:
            run.process.kill()
            run.process.wait()
    # The run folder may be read, as the umask says; it holds no secrets. Nothing else is open, not even to be listed.
    assert {line for line in done if not line.startswith(f"lists {folder}")} == set()
    assert any(line.startswith(f"lists {folder}") for line in done)
    assert not any(place.exists() for place in memory) and list(common.iterdir()) == [folder]
    keys = [place for place in folder.rglob("*") if place.is_file() and b"PRIVATE KEY" in place.read_bytes()]
    assert not keys
