"""Many observations: side by side, resumed, each whole or not there; presets and files on the command line."""

import dataclasses
import gc
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import dask
import numpy as np
import pytest
from casacore.tables import table

pytest.importorskip("simms")

from vis2img.cli import main
from vis2img.errors import BusyError, OutputError, ParameterError, Vis2imgError
from vis2img.simulate.campaign import observations, simulate_many
from vis2img.simulate.config import PRESETS, SimulateConfig
from vis2img.simulate.empty_ms import start_time
from vis2img.simulate.files import is_done
from vis2img.simulate.run import simulate
from vis2img.simulate.sky.build import simulated_sky

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
    first = simulate_many(wanted, workers=2, progress=lambda stage, done, total: steps.append((done, total)))
    assert first.made == [one.out for one in wanted[:3]] and not first.kept
    assert list(first.failed) == [tmp_path / "many" / "low.ms"] and "elevation" in first.failed[wanted[3].out]
    assert steps[0] == (0, 4) and steps[-1] == (4, 4)
    alone = simulate(dataclasses.replace(wanted[1], out=tmp_path / "alone.ms"))
    np.testing.assert_array_equal(data(wanted[1].out), data(alone.ms_path))
    before = {one.out: (one.out / "table.dat").stat().st_mtime_ns for one in wanted[:3]}
    second = simulate_many(wanted[:3], workers=2)
    assert second.kept == [one.out for one in wanted[:3]] and not second.made and not second.failed
    assert before == {path: (path / "table.dat").stat().st_mtime_ns for path in before}
    with pytest.raises(OutputError, match=r"many-00000\.ms is there, but not as these values make it"):
        simulate_many([dataclasses.replace(wanted[0], ntimes=4)])


def test_observations_do_not_go_into_a_measurement_set(tmp_path):
    one = config(tmp_path, out=tmp_path / "field.ms")
    simulate(one)
    before = sorted(path.name for path in one.out.iterdir())
    with pytest.raises(OutputError, match=r"field\.ms is a measurement set; give a folder"):
        simulate_many(observations(one, 2))
    assert sorted(path.name for path in one.out.iterdir()) == before


def test_what_is_not_whole_is_not_done(tmp_path):
    one = config(tmp_path, out=tmp_path / "one.ms")
    assert not is_done(one)
    result = simulate(one)
    assert is_done(one) and is_done(dataclasses.replace(one, overwrite=True))
    assert not is_done(dataclasses.replace(one, sefd=301.0))
    other = simulate(dataclasses.replace(one, out=tmp_path / "other.ms"))
    mine = result.parameters_path.read_text()
    result.parameters_path.write_text(other.parameters_path.read_text())
    assert not is_done(one)  # the same values, but the truth of another run
    result.parameters_path.write_text(mine)
    assert is_done(one)
    result.catalogue_path.unlink()
    assert not is_done(one)


def test_what_an_older_version_made_is_done_where_the_new_parameters_have_their_defaults(tmp_path):
    one = config(tmp_path, out=tmp_path / "one.ms")
    path = simulate(one).parameters_path
    there = json.loads(path.read_text())
    del there["config"]["cutout_part"]
    path.write_text(json.dumps(there))
    assert is_done(one) and not is_done(dataclasses.replace(one, cutout_part=(0, 2)))


def test_parts_of_the_cutouts_share_none_and_make_up_all(tmp_path):
    images = np.zeros((23, 24, 24))
    images[:, 8:15, 9:16] = 1
    path = tmp_path / "real.npz"
    np.savez(path, images=images, label=np.array(["FRI"] * 12 + ["FRII"] * 11))
    base = config(
        tmp_path, n_sources=0, cutouts=(path,), n_cutouts=8, fov=math.radians(1.0), cutout_part=(2, 3), seed=5
    )
    parts = observations(base, 3)
    assert [one.cutout_part for one in parts] == [(2, 3), (0, 3), (1, 3)]
    origins = [
        {s.cutout.origin for s in simulated_sky(one, np.random.default_rng(seed))} for seed, one in enumerate(parts)
    ]
    assert sum(len(part) for part in origins) == 23 == len(set().union(*origins))
    labels = [[s.class_name for s in simulated_sky(one, np.random.default_rng(0))] for one in parts]
    assert all(set(part) == {"fri", "frii"} for part in labels)  # though the file is sorted by class
    with pytest.raises(ParameterError, match="cutout_part = 3 3"):
        dataclasses.replace(base, cutout_part=(3, 3))
    with pytest.raises(ParameterError, match="23 cutouts only"):
        simulated_sky(dataclasses.replace(base, cutout_part=(0, 24)), np.random.default_rng(0))


def test_files_count_by_what_is_in_them(tmp_path):
    sky = tmp_path / "sky.csv"
    sky.write_text("ra_deg,dec_deg,flux_jy\n60,-30,1\n")
    one = config(tmp_path, out=tmp_path / "one.ms", catalogue=sky)
    simulate(one)
    assert is_done(one)
    sky.write_text("ra_deg,dec_deg,flux_jy\n60,-30,2\n")
    assert not is_done(one)


def test_a_failure_leaves_no_table_open(tmp_path, monkeypatch):
    """Closed later, when their files have gone, casacore would end the process."""
    from daskms.table_proxy import TableProxy
    from simms.telescope import generate_ms

    real, calls = dask.compute, []

    def full(*values, **options):
        calls.append(len(values))
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return real(*values, **options)

    gc.collect()
    gc.disable()
    try:
        monkeypatch.setattr(generate_ms.dask, "compute", full)
        try:
            simulate(config(tmp_path, out=tmp_path / "one.ms"))
        except Vis2imgError as error:
            failure = error  # kept, as a campaign or a notebook does
        left = [each for each in gc.get_objects() if issubclass(type(each), TableProxy)]  # no property is touched
    finally:
        gc.enable()
    assert failure and not left and not list(tmp_path.iterdir())


def test_truth_that_lost_its_measurement_set_is_made_again(tmp_path):
    one = config(tmp_path, out=tmp_path / "one.ms")
    before = data(simulate(one).ms_path)
    shutil.rmtree(one.out)
    again = simulate(one)
    np.testing.assert_array_equal(data(again.ms_path), before)
    assert is_done(one)


@pytest.mark.parametrize("step", range(3))
def test_a_move_that_fails_puts_everything_back(tmp_path, monkeypatch, step):
    """With --overwrite: the old measurement set and its truth stay together, whichever rename fails."""
    old = config(tmp_path, out=tmp_path / "one.ms")
    simulate(old)
    before, real, done = data(old.out), Path.rename, []

    def rename(self, target):
        if ".partial-" in str(self) and Path(target).parent == tmp_path and "/old/" not in str(self):
            if len(done) == step:
                done.append("failed")
                raise OSError(28, "No space left on device")
            done.append(target)
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OutputError, match="No space left"):
        simulate(dataclasses.replace(old, seed=9, overwrite=True))
    monkeypatch.undo()
    assert is_done(old)
    np.testing.assert_array_equal(data(old.out), before)


@pytest.mark.parametrize("step", range(6))
def test_a_kill_while_an_old_one_is_replaced_leaves_the_old_or_the_new_whole(tmp_path, monkeypatch, step):
    """Three are moved away, the measurement set first, and three to their places, the measurement set last."""
    old = config(tmp_path, out=tmp_path / "one.ms")
    simulate(old)
    before, real, calls = data(old.out), Path.rename, iter(range(100))

    def rename(self, target):
        if next(calls) == step:
            raise KeyboardInterrupt
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            simulate(dataclasses.replace(old, seed=9, overwrite=True))
    with pytest.raises(OutputError, match=r"one\.ms exists already"):
        simulate(old)
    assert is_done(old) and not list(tmp_path.glob(".*"))
    np.testing.assert_array_equal(data(old.out), before)


def test_a_second_run_of_one_target_is_told_and_what_appears_meanwhile_is_not_replaced(tmp_path, monkeypatch):
    import vis2img.simulate.run

    one = config(tmp_path, out=tmp_path / "one.ms")
    real = vis2img.simulate.run.write_catalogue

    def meanwhile(*args, **options):
        with pytest.raises(BusyError, match=rf"one\.ms is being written by process {os.getpid()} on "):
            simulate(dataclasses.replace(one, seed=5))
        one.out.write_text("of another program")
        return real(*args, **options)

    monkeypatch.setattr(vis2img.simulate.run, "write_catalogue", meanwhile)
    with pytest.raises(OutputError, match=r"one\.ms exists already"):
        simulate(one)
    assert one.out.read_text() == "of another program" and [*tmp_path.iterdir()] == [one.out]


def test_a_killed_campaign_goes_on(tmp_path):
    """SIGKILL of the whole process group: nothing half-written bears the name of a measurement set."""
    folder = tmp_path / "many"
    command = [sys.executable, "-m", "vis2img.cli", "simulate", "-o", str(folder), "--observations", "7"]
    command += ["--workers", "1", "--telescope", "kat-7", "--ntimes", "120", "--nchan", "8", "--n-sources", "2"]
    command += ["--sefd", "300", "--fov", "0.02rad"]
    killed = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(folder.glob("many-00001.ms/table.dat")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    whole = sorted(folder.glob("*.ms"))
    assert 2 <= len(whole) < 7
    for path in whole:
        assert data(path).shape == (120 * 21, 8, 2)
        assert (folder / f"{path.name}.truth.fits").is_file() and (folder / f"{path.name}.truth.json").is_file()
    before = {path: data(path) for path in whole}
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True, timeout=200)
    record = json.loads(done.stdout)
    assert record["kept"] == [str(path) for path in whole] and len(record["made"]) == 7 - len(whole)
    for path, values in before.items():
        np.testing.assert_array_equal(data(path), values)
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_can_be_observed(name):
    """Wherever a campaign points, the field stays up throughout at MeerKAT, and the noise is known."""
    one = SimulateConfig(out=Path("x"), **PRESETS[name])
    assert np.all(one.sigma > 0)
    longitude, latitude = math.radians(21.44), math.radians(-30.71)
    for each in (one, *observations(one, 60, scatter=True)):
        assert start_time(each, longitude, latitude)


def test_options_win_over_the_band_of_a_preset(tmp_path):
    one = SimulateConfig(out=Path("x"), band="L", nchan=10)
    np.testing.assert_allclose(one.chan_freq, 900e6 + 77e6 * (np.arange(10) + 0.5))
    np.testing.assert_allclose(dataclasses.replace(one, nchan=7).chan_freq[0], 900e6 + 770e6 / 14)
    given = dataclasses.replace(one, start_freq=1.3e9, chan_width=1e6, telescope="kat-7", sefd=300.0)
    np.testing.assert_allclose(given.chan_freq, 1.3e9 + 1e6 * np.arange(10))


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
    file.write_text(
        "preset: quick\nobservations: 2\ntelescope: kat-7\nsefd: 100.0\nn-sources: 2\nntimes: 1\nfov: 1deg\n"
    )
    assert main(["simulate", "-o", str(tmp_path / "two"), "--config", str(file), "--quiet"]) == 0
    assert len(list((tmp_path / "two").glob("*.ms"))) == 2
    file.write_text("nchan: many\n")
    assert main(argv) != 0
    assert f"{file}: nchan: 'many' is not a whole number" in capsys.readouterr().err
    file.write_text("nsources: 3\n")
    assert main(argv) != 0
    assert "unknown key nsources; did you mean n_sources?" in capsys.readouterr().err
    assert main(["simulate", "-o", "x.ms", "--preset", "slow"]) != 0
    assert "choose from quick, mgcls-like, mightee-like" in capsys.readouterr().err
