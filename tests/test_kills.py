"""Commands that are killed at any moment: nothing half-written is seen, and the next start ends as if nothing had been.

`make kill` kills each thirty times, the fast tests twice. The moments are drawn from a seed; most are counted from when
a command first writes something.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from astropy.io import fits
from casacore.tables import table

from tests.helpers.commands import Command
from tests.helpers.measurement_sets import build_ms
from tests.helpers.runs import SKY, small_environment, small_ms, small_training

pytestmark = pytest.mark.timeout(3000)


@dataclass(frozen=True)
class Case:
    """A command that writes into the folder it runs for; what it wrote, and whether that is whole, as values."""

    argv: Callable[[Path], Sequence[object]]
    """Its words, for a folder."""
    read: Callable[[Path], dict[str, object]]
    """What there is of results in a folder, by name: nothing, or what is whole. It fails on what is not."""


def begun(folder: Path) -> bool:
    """Whether anything but a lock is there: some are looked at and let go before the work begins."""
    return any(not path.name.endswith(".lock") for path in folder.iterdir())


def names(folder: Path) -> list[str]:
    """Return what lies in a folder, whatever its name begins with."""
    return sorted(path.name for path in folder.iterdir())


def simulated(folder: Path) -> dict[str, object]:
    ms = folder / "one.ms"
    if not ms.exists():
        return {}
    with table(str(ms), ack=False) as main:
        columns = {name: main.getcol(name).tolist() for name in ("DATA", "UVW", "TIME", "FLAG", "WEIGHT")}
        kept = main.getkeyword("VIS2IMG_ID")
    record = json.loads((folder / "one.ms.truth.json").read_text())
    assert record.pop("id") == kept  # of one run
    record["config"].pop("out", None)
    with fits.open(folder / "one.ms.truth.fits") as tables:
        truth = [each.data.tobytes() for each in tables[1:]]
    return {**columns, "truth": truth, "record": record}


def averaged(folder: Path) -> dict[str, object]:
    store = folder / "a.zarr"
    if not store.exists():
        return {}
    files = sorted(path for path in store.rglob("*") if path.is_file() and path.name != "zarr.json")
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


def embedded(folder: Path) -> dict[str, object]:
    from vis2img.train.embed.table import read_embeddings

    if not (folder / "out.parquet").exists():
        return {}
    found = read_embeddings(folder / "out.parquet")
    # As text, in which NaN, the position of a picture, is the same as NaN.
    return {"vector": found.vector.tolist(), **{name: str(column.tolist()) for name, column in found.columns.items()}}


def trained(folder: Path) -> dict[str, object]:
    """Steps, losses and every number of the last state; a checkpoint of any step must be whole."""
    import jax

    from vis2img.train.run.run import load_run, read_metrics

    run = folder / "run"
    steps = sorted(int(path.name) for path in (run / "checkpoints").glob("*") if path.name.isdigit())
    if not steps or steps[-1] < 4:  # any step has a whole checkpoint, which the next start shows
        return {}
    state = [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(load_run(run)[1])]
    metrics = read_metrics(run)
    there = [name for name in names(run) if name not in ("compiled", "tensorboard")]
    return {"state": state, "loss": str(metrics["loss"].tolist()), "step": metrics["step"].tolist(), "names": there}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return small_environment(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="module")
def ms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_ms(tmp_path_factory.mktemp("ms"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, ms: Path, environment: dict[str, str]) -> Path:
    """A trained run to embed with, and its configuration."""
    place = tmp_path_factory.mktemp("trained")
    (place / "run.yaml").write_text(yaml.safe_dump(small_training(ms, place / "run")))
    Command(["train", place / "run.yaml", "--quiet"], place / "log", environment).end()
    return place


@pytest.fixture
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    """The command of the parameter, with small inputs."""
    name = request.param
    if name == "simulate":
        size = ["--ntimes", 4, "--nchan", 4, "--n-sources", 3, "--seed", 3, "--quiet"]
        return Case(lambda out: ["simulate", "-o", out / "one.ms", *size], simulated)
    if name == "average":
        long = build_ms(tmp_path / "long.ms", antennas=12, times=60, channels=8, sources=SKY).path
        size = ["--npix", 128, "--pixsize", "6arcsec", "--time-block", 8, "--threads", 1, "--quiet"]
        return Case(lambda out: ["average", long, "-o", out / "a.zarr", *size], averaged)
    ms = request.getfixturevalue("ms")
    place = request.getfixturevalue("run")
    if name == "embed":
        inputs = []
        for i in range(3):
            inputs.append(tmp_path / f"c{i}.npz")
            np.savez(inputs[-1], images=np.random.default_rng(i).normal(size=(40, 24, 24)))
        return Case(lambda out: ["embed", place / "run", ms, *inputs, "-o", out / "out.parquet", "--quiet"], embedded)
    return Case(
        lambda out: ["train", place / "run.yaml", "--out", out / "run", "--data.shared", out, "--quiet"], trained
    )


def kill_often(case: Case, tmp_path: Path, environment: dict[str, str], times: int, seed: int = 0) -> list[str]:
    """Kill a command ``times`` times, each in a folder of its own, and start it again; return what was seen."""
    rng = np.random.default_rng(seed)
    whole = tmp_path / "whole"
    whole.mkdir()
    first = Command(case.argv(whole), tmp_path / "log", environment)
    wrote = first.wait(lambda: begun(whole))
    length = first.wait()
    first.end()
    wanted, seen = case.read(whole), []
    assert wanted and case.read(tmp_path) == {}
    for i in range(times):
        folder = tmp_path / f"kill{i}"
        folder.mkdir()
        command = Command(case.argv(folder), tmp_path / "log", environment)
        if i % 5 < 4:
            command.wait(lambda folder=folder: begun(folder))
        command.wait(seconds=float(rng.uniform(0, 0.8 * (length - wrote) if i % 5 < 4 else length)))
        command.kill(group=i % 2 == 0)
        left = names(folder)
        there = case.read(folder)
        seen.append("whole" if there else "begun" if left else "nothing")
        assert there in ({}, wanted), left
        # What was whole just before the kill is not replaced unasked.
        again = ["--overwrite"] if there and case.argv(folder)[0] != "train" else []
        Command([*case.argv(folder), *again], tmp_path / "log", environment).end()
        assert case.read(folder) == wanted, f"after {left}"
        assert names(folder) == names(whole), f"after {left}"
    return seen


COMMANDS = ("simulate", "average", "embed", "train")


@pytest.mark.parametrize("case", COMMANDS[:3], indirect=True)
def test_a_killed_command_leaves_nothing_half_written(case: Case, tmp_path: Path, environment: dict[str, str]) -> None:
    kill_often(case, tmp_path, environment, 2)


@pytest.mark.slow
@pytest.mark.parametrize("case", COMMANDS, indirect=True)
def test_a_command_killed_thirty_times(
    case: Case, tmp_path: Path, environment: dict[str, str], capsys: pytest.CaptureFixture[str], request
) -> None:
    seen = kill_often(case, tmp_path, environment, 30, seed=1)
    assert "begun" in seen  # kills that met work in progress; how many depends on how busy the machine is
    with capsys.disabled():
        counts = ", ".join(f"{seen.count(what)} {what}" for what in ("nothing", "begun", "whole"))
        print(f"\n{request.node.callspec.id}: killed {len(seen)} times: {counts}; all ended the same")
