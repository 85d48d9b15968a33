"""Many observations: side by side, resumed, each whole or not there; presets and files on the command line."""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

pytest.importorskip("simms")

from vis2img.campaign import observations, simulate_many
from vis2img.cli import main
from vis2img.errors import OutputError
from vis2img.simulate import PRESETS, SimulateConfig, is_done, simulate

SMALL = {"telescope": "kat-7", "ntimes": 3, "nchan": 2, "n_sources": 2, "fov": 0.02, "sefd": 300.0}


def config(folder, **changes):
    return SimulateConfig(**{"out": folder / "many", **SMALL, **changes})


def data(path):
    with table(str(path), ack=False) as t:
        return t.getcol("DATA")


def test_observations_differ_in_seed_and_pointing(tmp_path):
    ones = observations(config(tmp_path), 40, scatter=True)
    assert [one.out for one in ones[:2]] == [tmp_path / "many" / f"many-0000{i}.ms" for i in range(2)]
    assert [one.seed for one in ones] == list(range(40))
    ra, dec = np.array([one.phase_centre for one in ones]).T
    assert len(set(ra)) == 40 and np.ptp(ra) > 4
    assert math.radians(-75) <= dec.min() < math.radians(-40) and math.radians(-20) < dec.max() <= math.radians(5)
    again = observations(config(tmp_path), 3, scatter=True)
    assert again == ones[:3]
    assert {one.phase_centre for one in observations(config(tmp_path), 3)} == {config(tmp_path).phase_centre}


def test_campaign_makes_keeps_and_refuses(tmp_path):
    wanted = observations(config(tmp_path), 3)
    wanted.append(dataclasses.replace(wanted[0], out=tmp_path / "many" / "low.ms", phase_centre=(1.0, 1.4)))
    steps = []
    first = simulate_many(wanted, workers=2, progress=lambda done, total: steps.append((done, total)))
    assert first.made == [one.out for one in wanted[:3]] and not first.kept
    assert list(first.failed) == [tmp_path / "many" / "low.ms"] and "elevation" in first.failed[wanted[3].out]
    assert steps[0] == (0, 4) and steps[-1] == (4, 4)
    alone = simulate(dataclasses.replace(wanted[1], out=tmp_path / "alone.ms"))
    np.testing.assert_array_equal(data(wanted[1].out), data(alone.ms_path))
    before = {one.out: (one.out / "table.dat").stat().st_mtime_ns for one in wanted[:3]}
    second = simulate_many(wanted[:3], workers=2)
    assert second.kept == [one.out for one in wanted[:3]] and not second.made and not second.failed
    assert before == {path: (path / "table.dat").stat().st_mtime_ns for path in before}
    with pytest.raises(OutputError, match=r"many-00000\.ms was made with other values; use --overwrite"):
        simulate_many([dataclasses.replace(wanted[0], ntimes=4)])


def test_what_is_not_whole_is_not_done(tmp_path):
    one = config(tmp_path, out=tmp_path / "one.ms")
    assert not is_done(one)
    result = simulate(one)
    assert is_done(one) and is_done(dataclasses.replace(one, overwrite=True))
    assert not is_done(dataclasses.replace(one, sefd=301.0))
    result.catalogue_path.unlink()
    assert not is_done(one)


def test_a_killed_campaign_goes_on(tmp_path):
    """SIGKILL of the whole process group: nothing half-written bears the name of a measurement set."""
    folder = tmp_path / "many"
    command = [sys.executable, "-m", "vis2img.cli", "simulate", "-o", str(folder), "--observations", "5"]
    command += ["--workers", "1", "--telescope", "kat-7", "--ntimes", "40", "--nchan", "8", "--n-sources", "2"]
    command += ["--sefd", "300", "--fov", "0.02rad"]
    killed = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(folder.glob("many-00001.ms/table.dat")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    whole = sorted(folder.glob("*.ms"))
    assert 2 <= len(whole) < 5
    for path in whole:
        assert data(path).shape == (40 * 21, 8, 2)
        assert (folder / f"{path.name}.truth.fits").is_file() and (folder / f"{path.name}.truth.json").is_file()
    before = {path: data(path) for path in whole}
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True, timeout=200)
    record = json.loads(done.stdout)
    assert record["kept"] == [str(path) for path in whole] and len(record["made"]) == 5 - len(whole)
    for path, values in before.items():
        np.testing.assert_array_equal(data(path), values)
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_are_legal_and_told(name):
    one = SimulateConfig(out=Path("x.ms"), **PRESETS[name])
    assert np.all(one.sigma > 0)


def test_command_line_takes_preset_file_and_option_in_this_order(tmp_path, capsys):
    file = tmp_path / "sim.yaml"
    file.write_text("telescope: kat-7\nn_sources: 3\nntimes: 4\nsefd: 100.0\nband: null\nfov: 1deg\n")
    argv = ["simulate", "-o", str(tmp_path / "a.ms"), "--preset", "quick", "--config", str(file), "--ntimes", "2"]
    assert main([*argv, "--quiet"]) == 0
    values = json.loads((tmp_path / "a.ms.truth.json").read_text())
    assert values["ntimes"] == 2  # the option
    assert values["n_sources"] == 3 and values["telescope"] == "kat-7"  # the file
    assert values["nchan"] == PRESETS["quick"]["nchan"]  # the preset
    capsys.readouterr()
    file.write_text("nsources: 3\n")
    assert main(argv) != 0
    assert "unknown key nsources; did you mean n_sources?" in capsys.readouterr().err
    assert main(["simulate", "-o", "x.ms", "--preset", "slow"]) != 0
    assert "choose from quick, mgcls-like, mightee-like" in capsys.readouterr().err
