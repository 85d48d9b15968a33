"""The engine: workers that are killed and replaced, limits, schedulers that are there already, clear refusals."""

from __future__ import annotations

import contextlib
import http.server
import importlib.util
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask.config
import numpy as np
import psutil
import pytest

from vis2img.cluster.engine import Connection, Engine, connect
from vis2img.dataset import open_ms
from vis2img.draws.field import make_draw
from vis2img.draws.observed_field import ObservedField
from vis2img.draws.prior import ImagingPrior
from vis2img.errors import ParameterError, Vis2imgError
from vis2img.machine import cores
from vis2img.ms.selection import Selection

LIMIT = 700_000_000  # bytes of a worker
LOG = "vis2img.cluster"


@pytest.fixture(scope="module")
def local() -> Iterator[Connection]:
    dashboard = importlib.util.find_spec("bokeh") is not None
    with connect(Engine(workers=1, threads=1, worker_memory=LIMIT, dashboard=dashboard)) as connection:
        yield connection


def wait_for(condition: Callable[[], Any], seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert value
    return value


def append(path: Path) -> int:
    """Add a line to a file and return how many there are."""
    with path.open("a") as file:
        file.write(".\n")
    return len(path.read_text().splitlines())


def test_draws_are_made_without_jax_on_given_threads_at_low_priority(local, make_ms) -> None:
    ms = open_ms(make_ms().path)
    source = ObservedField(str(ms.path), Selection(), ImagingPrior.for_ms(ms, Selection(), npix=64))
    draw = local.client.submit(make_draw, source, 1, 0, 0).result()
    assert np.isfinite(draw.data).all() and draw.data.any()
    assert draw.params == make_draw(source, 1, 0, 0).params

    def look() -> tuple[bool, bool, dict[str, str], int, int]:
        import numba

        names = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "DUCC0_NUM_THREADS")
        imported = "jax" in sys.modules, "vis2img.draws.draw" in sys.modules
        return *imported, {n: os.environ[n] for n in names}, os.nice(0), numba.get_num_threads()

    jax, draws, threads, nice, numba_threads = local.client.submit(look, pure=False).result()
    assert draws and not jax
    assert set(threads.values()) == {"1"} and numba_threads == 1
    assert nice == os.nice(0) + 10
    assert list(local.client.nthreads().values()) == [1]


def test_workers_are_spawned_by_a_process_that_is_not_this_one(local) -> None:
    worker = psutil.Process(local.client.submit(os.getpid, pure=False).result())
    scheduler = worker.parent()
    assert scheduler.ppid() == os.getpid() and scheduler.nice() == os.nice(0)
    assert any("spawn_main" in word for word in worker.cmdline())


def test_a_task_survives_the_deaths_of_its_workers(local, tmp_path, caplog, capfd) -> None:
    """More deaths than the 3 that Dask allows by itself."""

    def dies(path: Path) -> int:
        attempt = append(path)
        if attempt <= 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return attempt

    with caplog.at_level(logging.INFO, LOG):
        assert local.client.submit(dies, tmp_path / "attempts", pure=False).result(timeout=60) == 5
    wait_for(lambda: len(local.client.nthreads()) == 1)
    deaths = [record for record in caplog.records if "died" in record.message]
    assert len(deaths) == 4 and "1 of its tasks are repeated" in deaths[0].message
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
    assert capfd.readouterr() == ("", "")


def test_a_worker_over_its_memory_is_started_anew(local, tmp_path, caplog, capfd) -> None:
    def greedy(path: Path, size: int) -> int:
        attempt = append(path)
        held = []
        while attempt == 1 and len(held) < size:
            held.append(np.ones(12_500_000))  # 100 MB
            time.sleep(0.05)
        return attempt

    within = local.client.submit(greedy, tmp_path / "within", 3, pure=False)
    assert within.result(timeout=30) == 1
    before = local.client.submit(os.getpid, pure=False).result()
    with caplog.at_level(logging.INFO, LOG):
        assert local.client.submit(greedy, tmp_path / "beyond", 100, pure=False).result(timeout=30) == 2
        wait_for(lambda: any("worker_memory" in record.message for record in caplog.records))
    assert local.client.submit(os.getpid, pure=False).result() != before
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "started anew as it reached 0." in warning.message
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_a_task_that_never_fits_is_given_up(local) -> None:
    from distributed import KilledWorker

    def greedy() -> None:
        held = []
        while True:
            held.append(np.ones(12_500_000))

    with pytest.raises(KilledWorker, match="11 different workers"):
        local.client.submit(greedy).result(timeout=120)
    assert local.client.submit(os.getpid, pure=False).result(timeout=30) > 0


@pytest.mark.slow
def test_a_worker_without_its_nanny_comes_back(local) -> None:
    def close(dask_worker: Any) -> None:
        dask_worker.loop.call_later(0.1, dask_worker.close)

    local.client.run(close, nanny=True)
    wait_for(lambda: not local.client.nthreads())
    assert local.client.submit(abs, -1, pure=False).result(timeout=60) == 1


def test_large_arrays_stay_in_memory_and_arrive(local) -> None:
    """Five arrays of 100 MB are beyond what Dask would keep of 700 MB by itself."""
    futures = [local.client.submit(np.full, 12_500_000, i, pure=False) for i in range(5)]
    assert [future.result()[-1] for future in futures] == [0, 1, 2, 3, 4]
    spilled = local.client.run(lambda dask_worker: getattr(dask_worker.data, "spilled_total", None))
    assert list(spilled.values()) == [None]  # a plain dict: it cannot write to disk


SCRIPT = """
import os, signal, sys, time
from vis2img.cluster.engine import Engine, connect
connection = connect(Engine(workers=1))  # no `if __name__`: nothing runs this file again
client = connection.client
worker = client.submit(os.getpid, pure=False).result()
if sys.argv[1] == "jax":
    import jax
    os.kill(worker, signal.SIGKILL)
    old, worker = worker, client.submit(os.getpid, pure=False).result()
    assert worker != old and "jax" in sys.modules and not client.submit(lambda: "jax" in sys.modules).result()
task = client.submit(time.sleep, 60)
print(worker, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("kind", "number"), [("jax", signal.SIGINT), ("plain", signal.SIGKILL)])
def test_workers_end_with_their_owner_and_in_silence(tmp_path, kind, number) -> None:
    """Ctrl-C, which the terminal sends to every process of the group, and the death of the owner alone."""
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, tmp_path / "script.py", kind]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, start_new_session=True, **pipes) as owner:
        worker = psutil.Process(int(owner.stdout.readline()))
        family = [worker, worker.parent()]
        if number == signal.SIGINT:
            os.killpg(owner.pid, number)
        else:
            owner.send_signal(number)
        errors = owner.communicate(timeout=30)[1].splitlines()
    if number == signal.SIGINT:
        assert errors[0].startswith("Traceback") and errors[-1] == "KeyboardInterrupt" and len(errors) < 6
    else:
        assert not errors
    assert not psutil.wait_procs(family, timeout=20)[1]


def test_cores_are_not_promised_twice() -> None:
    there = cores()
    assert Engine().processes() == there
    assert Engine(threads=there).processes() == 1
    assert Engine(workers=there).processes() == there
    with pytest.raises(ParameterError, match=rf"{there + 1} workers x 1 threads need .*; workers = {there} would fit"):
        connect(Engine(workers=there + 1))
    with pytest.raises(ParameterError, match=rf"workers = 1, threads = {there} would fit"):
        connect(Engine(threads=there + 1))
    if there > 1:
        with pytest.raises(ParameterError, match=r"workers = 1 or threads = 1 would fit"):
            connect(Engine(workers=there, threads=there))
    # Elsewhere the cores of this machine do not matter.
    assert Engine("tcp://elsewhere:8786", workers=1000, threads=8).processes() == 1000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": -1}, "not negative"),
        ({"threads": 0}, "at least 1"),
        ({"worker_memory": -1}, "not negative"),
        ({"scheduler": "slurm"}, "how many Slurm workers"),
        ({"scheduler": "pbs"}, "neither slurm nor the address"),
        ({"scheduler": "http://host/status"}, "neither slurm nor the address"),
    ],
)
def test_engines_that_cannot_be_are_refused(settings, message) -> None:
    with pytest.raises(ParameterError, match=message):
        Engine(**settings)


def test_what_is_no_scheduler_is_named() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(
            Vis2imgError, match=f"no Dask scheduler answers at {address}; see that .dask scheduler. runs"
        ):
            connect(Engine(address), patience=1)
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:  # a dashboard, say
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(Vis2imgError, match="no Dask scheduler answers at"):
            connect(Engine(f"tcp://127.0.0.1:{server.server_port}"), patience=1)
        server.shutdown()
    with pytest.raises(Vis2imgError, match=r"no Dask scheduler answers at tls://localhost:1.*TLS configuration"):
        connect(Engine("tls://localhost:1"), patience=1)


def test_a_scheduler_file_that_does_not_come_is_named(tmp_path) -> None:
    with pytest.raises(Vis2imgError, match="make it: dask scheduler --scheduler-file"):
        connect(Engine(str(tmp_path / "none.json")), patience=0.5)


@contextlib.contextmanager
def running(folder: Path, *words: object, **environment: str) -> Iterator[subprocess.Popen]:
    """A command of Dask in a process of its own."""
    command = [sys.executable, "-m", *map(str, words)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env={**os.environ, **environment}, cwd=folder, **quiet) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(20)


@pytest.mark.filterwarnings("ignore:whoever reaches the Dask scheduler")
def test_a_scheduler_that_is_there_is_joined_by_file_and_address(tmp_path, caplog, monkeypatch) -> None:
    file = tmp_path / "scheduler.json"
    scheduler = ("distributed.cli.dask_scheduler", "--scheduler-file", file, "--host", "127.0.0.1", "--port", 0)
    worker = ("distributed.cli.dask_worker", "--scheduler-file", file, "--nthreads", 1, "--no-nanny", "--no-dashboard")
    broken = tmp_path / "broken" / "vis2img"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('libcasa_tables.so: not found')")
    with running(tmp_path, *scheduler, "--dashboard-address", "127.0.0.1:0"):
        with running(tmp_path, *worker) as first, running(tmp_path, *worker) as second:
            with connect(Engine(str(file), workers=2)) as connection:
                address = connection.client.scheduler.address
                assert {first.pid, second.pid} == set(connection.client.run(os.getpid).values())
                assert connection.dashboard_link is None
            with connect(Engine(address, workers=3), patience=0.5) as connection:
                assert "going on with 2 workers" in caplog.text
                slow = [connection.client.submit(time.sleep, 1, pure=False) for _ in range(4)]
                time.sleep(0.3)
                first.kill()
                assert [future.result(timeout=20) for future in slow] == [None] * 4
                assert len(connection.client.nthreads()) == 1
            with (
                monkeypatch.context() as patch,
                pytest.raises(Vis2imgError, match=r"runs vis2img .*, this process 9\.9;"),
            ):
                patch.setattr("vis2img.__version__", "9.9")
                connect(Engine(address))
        with pytest.raises(Vis2imgError, match=rf"has no workers; start some: dask worker {address} --nthreads 1"):
            connect(Engine(address), patience=0.5)
        with running(tmp_path, *worker, PYTHONPATH=str(broken.parent)):
            message = (
                rf"cannot import vis2img \(libcasa_tables.so: not found\); install vis2img .* for {sys.executable}"
            )
            with pytest.raises(Vis2imgError, match=message):
                connect(Engine(address))


def test_the_dashboard_is_served(local) -> None:
    pytest.importorskip("bokeh", minversion="3.1", reason="bokeh is not installed: pip install 'vis2img[dashboard]'")
    assert "127.0.0.1" in local.dashboard_link
    with urllib.request.urlopen(local.dashboard_link, timeout=20) as page:
        assert page.status == 200 and b"Bokeh" in page.read()


def test_workers_that_cannot_start_say_why() -> None:
    message = r"the Dask workers cannot start: ModuleNotFoundError: No module named 'nothing'"
    with dask.config.set({"distributed.worker.preload": "nothing"}), pytest.raises(Vis2imgError, match=message):
        connect(Engine(workers=1))


def test_a_dashboard_without_bokeh_says_how_to_install_it(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "bokeh", None)  # as if it were not installed
    with pytest.raises(Vis2imgError, match=r"needs bokeh: pip install 'vis2img\[dashboard\]'"):
        connect(Engine(workers=1, dashboard=True))


def test_slurm_says_what_is_missing(tmp_path, monkeypatch) -> None:
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed: pip install 'vis2img[slurm]'")
    monkeypatch.setenv("DASK_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Vis2imgError, match="sbatch is not on the PATH"):
        connect(Engine("slurm", workers=2, worker_memory=LIMIT))
    (tmp_path / "sbatch").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Vis2imgError, match=r"need their memory: give worker_memory, or memory under jobqueue: slurm:"):
        connect(Engine("slurm", workers=2))
    (tmp_path / "dask_jobqueue.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Vis2imgError, match=r"pip install 'vis2img\[slurm\]'"):
        connect(Engine("slurm", workers=2, worker_memory=LIMIT))
