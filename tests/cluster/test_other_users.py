"""Other users of the machine reach neither the scheduler nor its workers, nor their folders and semaphores."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dask.config
import psutil
import pytest
import yaml

from tests.helpers.other_user import attack, listening
from vis2img.cluster.credentials import new_credentials
from vis2img.cluster.engine import Engine, connect
from vis2img.errors import Vis2imgError, Vis2imgWarning


def test_an_open_scheduler_is_entered_by_anyone_which_is_warned_of(tmp_path: Path) -> None:
    """The attack works: whoever starts such a scheduler lets others run code. We say so when it is joined."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    file = tmp_path / "scheduler.json"
    words = ["--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0", "--scheduler-file", str(file)]
    with subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_scheduler", *words], **quiet) as scheduler:
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(file), "--no-nanny"]
        with subprocess.Popen([*worker, "--nthreads", "1"], **quiet) as process:
            try:
                with pytest.warns(Vis2imgWarning, match=r"tcp://127.0.0.1:\d+ can run code as you.*tls://"):
                    connect(Engine(str(file), workers=1)).close()
                done = attack(listening(scheduler.pid, process.pid), [tmp_path / "none"])
            finally:
                process.kill()  # a worker that is asked to end may wait for its scheduler
                scheduler.kill()
    assert any("ran code: OK" in line for line in done), done
    assert any("is open: Scheduler" in line for line in done)
    assert any("workers.html: 200" in line for line in done)


def test_nobody_else_enters_a_scheduler_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o777)  # as /tmp is
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with connect(Engine(workers=2)) as connection:
        assert connection.client.submit(abs, -1).result() == 1
        assert connection.client.scheduler.address.startswith("tls://")
        ports = listening(os.getpid())
        # Scheduler, a nanny and a worker each.
        assert len(ports) == 5 and all(address.startswith("127.0.0.1:") for address in ports)
        (folder,) = tmp_path.glob("vis2img-workers-*")
        assert folder.stat().st_mode & 0o777 == 0o700
        inside = set(folder.rglob("*"))
        assert {f"{path}" for path in connection.client.run(lambda: os.path.realpath(sys.path[0])).values()} <= {
            str(path.resolve()) for path in inside
        }
        memory = set(Path("/dev/shm").glob(f"sem.{folder.name}-*"))
        assert memory
        tmp_path.chmod(0o1777)
        assert attack(ports, {folder, *inside, *memory}) == []
        security = connection.client.security
        stolen = (security.tls_ca_file, security.tls_client_cert, security.tls_client_key)
        done = attack(ports, [], stolen)  # the key is all that is missing
        assert [sum(word in line for line in done) for word in ("is open", "ran code: OK")] == [5, 4], done
        words = [" ".join(process.cmdline()) for process in psutil.Process().children(recursive=True)]
        environments = [str(process.environ()) for process in psutil.Process().children(recursive=True)]
        assert not any("PRIVATE KEY" in text or ".pem" in text for text in words + environments)
        assert connection.client.submit(abs, -2).result() == 2
    assert not list(tmp_path.iterdir())


def test_a_scheduler_with_tls_of_dasks_configuration_is_joined_without_a_warning(tmp_path: Path) -> None:
    """As docs/cluster.md says."""
    new_credentials().write(tmp_path)
    both = {"cert": str(tmp_path / "certificate.pem"), "key": str(tmp_path / "key.pem")}
    tls = {"ca-file": both["cert"], **dict.fromkeys(("scheduler", "worker", "client"), both)}
    comm = {"require-encryption": True, "default-scheme": "tls", "tls": tls}
    (tmp_path / "tls.yaml").write_text(yaml.safe_dump({"distributed": {"comm": comm}}))
    own = {f"distributed.comm.tls.{name}": value for name, value in tls.items()}
    file = tmp_path / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    env = {**os.environ, "DASK_CONFIG": str(tmp_path / "tls.yaml")}
    words = ["--protocol", "tls", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"]
    scheduler = [sys.executable, "-m", "distributed.cli.dask_scheduler", *words, "--scheduler-file", str(file)]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(file), "--nthreads", "1"]
    with subprocess.Popen(scheduler, env=env, **quiet) as first, subprocess.Popen(worker, env=env, **quiet) as second:
        try:
            with dask.config.set(own), connect(Engine(str(file), workers=1)) as connection:
                assert connection.client.submit(abs, -1).result() == 1
            with pytest.raises(Vis2imgError, match=r"no Dask scheduler answers at tls://.*TLS configuration"):
                connect(Engine(str(file)), patience=2)
            assert not [line for line in attack(listening(first.pid, second.pid), []) if not line.startswith("http")]
        finally:
            second.terminate()
            first.terminate()


OWNER = """
import os, sys, time
from vis2img.cluster.credentials import new_credentials
from vis2img.cluster.engine import Engine, connect
with connect(Engine(workers=1)) as connection:
    print(connection.client.submit(os.getpid).result(), flush=True)
    time.sleep(60)
"""


def test_what_is_left_by_processes_killed_together_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at the time limit of a job: the one that would tidy up is killed as well."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout and int(owner.stdout.readline())
        family = psutil.Process(owner.pid).children(recursive=True)
        for process in [psutil.Process(owner.pid), *family]:
            process.suspend()
        for process in [psutil.Process(owner.pid), *family]:
            process.kill()
    assert not psutil.wait_procs(family, timeout=20)[1]
    (left,) = tmp_path.glob("vis2img-workers-*")
    semaphores = list(Path("/dev/shm").glob(f"sem.{left.name}-*"))
    assert semaphores
    monkeypatch.setattr(tempfile, "tempdir", None)
    with connect(Engine(workers=1)):
        assert not left.exists() and not any(path.exists() for path in semaphores)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_to_every_process_end_no_worker(number: int, caplog: pytest.LogCaptureFixture) -> None:
    """As Slurm sends them; whether they mean an end, the owner decides. From the first moment."""
    connection = None
    before = signal.signal(number, lambda *_: None)
    try:
        with connect(Engine(workers=1)) as connection:
            client = connection.client
            task = client.submit(lambda: time.sleep(1.0) or os.getpid(), pure=False)
            time.sleep(0.3)
            for process in psutil.Process().children(recursive=True):
                process.send_signal(number)
            worker = task.result(timeout=20)
            assert client.submit(os.getpid, pure=False).result() == worker
    finally:
        signal.signal(number, before)
    assert not caplog.records
