"""Workers as Slurm jobs, on a private Slurm of one node that runs on this machine for the test.

Needs Debian's packages slurm-wlm and munge; nothing of an installed Slurm is touched.
"""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask.config
import numpy as np
import pytest

pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed: pip install 'vis2img[slurm]'")

from vis2img.cluster.engine import Connection, Engine, connect
from vis2img.cluster.slurm import make_job
from vis2img.dataset import open_ms
from vis2img.draws.field import make_draw
from vis2img.draws.observed_field import ObservedField
from vis2img.draws.prior import ImagingPrior
from vis2img.errors import Vis2imgError
from vis2img.ms.selection import Selection

MEMORY = 1 << 30
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo")
CONF = """
ClusterName=private
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
MpiDefault=none
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=6000 State=UNKNOWN
PartitionName=draws Nodes={host} Default=NO MaxTime=INFINITE State=UP
PartitionName=other Nodes={host} Default=YES MaxTime=1 State=UP
"""


def wait_for(condition: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert value
    return value


def output(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, timeout=30).stdout


def jobs(state: str = "R,PD") -> set[str]:
    return set(output("squeue", "--noheader", "--format=%A", f"--states={state}").split())


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run munged, slurmctld and slurmd from a temporary folder."""
    patch = pytest.MonkeyPatch()
    patch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin")
    missing = [name for name in NEEDED if not shutil.which(name)]
    if missing:
        pytest.skip(f"{', '.join(missing)} not found: install the packages slurm-wlm and munge")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(mode=0o700)
    key = folder / "munge" / "key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(1024))
    conf = folder / "slurm.conf"
    host = socket.gethostname().partition(".")[0]
    conf.write_text(CONF.format(host=host, user=getpass.getuser(), folder=folder, ports=free_ports(2)))
    munge = [f"--{name}-file={folder}/munge/{name}" for name in ("key", "pid", "log", "seed")]
    commands = [
        ["munged", "--foreground", "--force", f"--socket={folder}/munge/socket", *munge],
        ["slurmctld", "-D", "-f", str(conf)],
        ["slurmd", "-D", "-f", str(conf)],
    ]
    patch.setenv("SLURM_CONF", str(conf))
    patch.setenv("DASK_CONFIG", str(folder))
    daemons = []
    try:
        for command in commands:
            with (folder / f"{command[0]}.out").open("w") as log:
                daemons.append(subprocess.Popen(command, stdout=log, stderr=log))
            time.sleep(1)
        wait_for(lambda: "idle" in output("sinfo", "--noheader", "--format=%T"), 30)
        yield folder
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(30)
        patch.undo()


@pytest.fixture
def configured(slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Set what a user would write into jobqueue.yaml; jobs start in an empty folder."""
    monkeypatch.chdir(tmp_path)
    with contextlib.ExitStack() as stack:
        yield lambda **values: stack.enter_context(
            dask.config.set({f"jobqueue.slurm.{name.replace('_', '-')}": value for name, value in values.items()})
        )
    assert wait_for(lambda: not jobs("R,PD,CG"), 30), "jobs were left behind"


def workers(connection: Connection) -> int:
    return len(connection.client.nthreads())


def test_job_scripts_say_what_engine_and_user_want(tmp_path, monkeypatch) -> None:
    """The real script of dask-jobqueue; sbatch must be there but is not called."""
    (tmp_path / "sbatch").touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    user = {"queue": "long", "account": "radio", "walltime": "12:00:00", "log-directory": str(tmp_path / "logs")}
    user |= {"job-script-prologue": ["module load python"], "job-extra-directives": ["--constraint=haswell"]}
    user |= {"worker-extra-args": ["--lifetime", "11h"], "processes": 4}
    with dask.config.set({"jobqueue.slurm": {**dask.config.get("jobqueue.slurm"), **user}}):
        lines = make_job("tcp://host:8786", "first", threads=8, memory=16 << 30).job_script().splitlines()
    for wanted in ("-p long", "-A radio", "-t 12:00:00", "--cpus-per-task=32", "--mem=64G", "--constraint=haswell"):
        assert f"#SBATCH {wanted}" in lines
    assert lines.index("module load python") < lines.index("export OMP_NUM_THREADS=8")
    assert "export DASK_DISTRIBUTED__WORKER__MEMORY__SPILL=False" in lines
    command = lines[-1]
    assert command.startswith(f"{sys.executable} -m distributed.cli.dask_worker tcp://")
    for wanted in ("--nthreads 1 ", "--memory-limit 16.00GiB", "--nworkers 4", "--nanny", "--lifetime 11h"):
        assert wanted in command


@pytest.mark.slow
def test_jobs_make_draws_and_are_replaced_when_they_end(configured, make_ms, caplog) -> None:
    configured(queue="draws")
    caplog.set_level(logging.INFO, "vis2img.cluster")
    ms = open_ms(make_ms().path)
    source = ObservedField(str(ms.path), Selection(), ImagingPrior.for_ms(ms, Selection(), npix=64))
    with connect(Engine("slurm", workers=3, worker_memory=MEMORY)) as connection:
        client = connection.client
        wait_for(lambda: workers(connection) == 2, 30)  # the node has two cores: the third job waits
        running, (waiting,) = jobs("R"), jobs("PD")
        draws = [client.submit(make_draw, source, 1, 0, i) for i in range(4)]
        np.testing.assert_array_equal(draws[3].result(timeout=60).data, make_draw(source, 1, 0, 3).data)
        assert set(client.run(lambda: os.environ["SLURM_JOB_ID"]).values()) == running
        # A waiting job that is cancelled.
        output("scancel", waiting)
        (again,) = wait_for(lambda: jobs("PD"), 90)
        assert again != waiting and f"Slurm job {waiting} has ended; another is submitted" in caplog.text
        # A running job, with its task: the waiting one takes over, and another waits.
        tasks = [client.submit(time.sleep, 4, pure=False) for _ in range(4)]
        time.sleep(1)
        output("scancel", min(running))
        assert [task.result(timeout=60) for task in tasks] == [None] * 4
        wait_for(lambda: workers(connection) == 2 and again in jobs("R"), 30)
        wait_for(lambda: jobs("PD") - {again}, 90)
    assert not jobs()


@pytest.mark.slow
def test_jobs_are_replaced_at_their_walltime_and_end_with_a_killed_owner(configured, tmp_path) -> None:
    (tmp_path / "owner.py").write_text(
        "import dask.config, time\n"
        "from vis2img.cluster.engine import Engine, connect\n"
        "dask.config.set({'jobqueue.slurm.queue': 'draws', 'jobqueue.slurm.walltime': '00:01:00'})\n"
        f"connection = connect(Engine('slurm', workers=1, threads=2, worker_memory={MEMORY}))\n"
        "print(connection.client.submit(abs, -1).result(), flush=True)\n"
        "while True:\n"
        "    time.sleep(0.5)\n"
        "    print(connection.client.submit(abs, -1, pure=False).result(), flush=True)\n"
    )
    configured()
    command = [sys.executable, tmp_path / "owner.py"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as owner:
        assert owner.stdout and owner.stderr
        assert owner.stdout.readline() == "1\n"
        (first,) = jobs("R")
        assert "NumCPUs=2" in output("scontrol", "show", "job", first)
        (second,) = wait_for(lambda: jobs("R") - {first}, 150)
        os.set_blocking(owner.stdout.fileno(), False)
        owner.stdout.read()
        wait_for(lambda: owner.stdout.readline() == "1\n", 30)
        owner.send_signal(signal.SIGKILL)
        assert owner.stderr.read() == ""
    wait_for(lambda: second not in jobs(), 30)


@pytest.mark.slow
def test_what_slurm_refuses_and_what_ends_at_once_is_said(configured) -> None:
    configured(queue="nowhere")
    with pytest.raises(Vis2imgError, match=r"Slurm refuses the jobs of the workers: .*nowhere.*jobqueue.yaml"):
        connect(Engine("slurm", workers=1, worker_memory=MEMORY))
    configured(queue="draws")
    with pytest.raises(Vis2imgError, match=r"Slurm refuses the jobs of the workers: .*not available"):
        connect(Engine("slurm", workers=1, worker_memory=MEMORY << 10))
    configured(python="/no/python")
    with pytest.raises(Vis2imgError, match="the Slurm jobs end before their Dask worker is there; slurm-logs says why"):
        connect(Engine("slurm", workers=1, worker_memory=MEMORY))
    assert any("/no/python" in log.read_text() for log in Path("slurm-logs").glob("*.err"))
