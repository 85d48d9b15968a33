"""Stores of averages: kept until their successor is whole, resumed after a kill, one writer, damage told, memory."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.helpers.command_line import fingerprint
from tests.helpers.measurement_sets import CENTRE, Synthetic, build_ms, tracks
from vis2img.averaging import run as averaged
from vis2img.averaging.params import AveragingParams
from vis2img.averaging.run import average
from vis2img.averaging.store import read_averaged
from vis2img.dataset import open_ms
from vis2img.errors import MeasurementSetError, OutputError, ParameterError
from vis2img.imaging.contents import channels_of
from vis2img.imaging.image import make_image
from vis2img.imaging.params import ImagingParams
from vis2img.imaging.primary_beam import primary_beam
from vis2img.locks import locked
from vis2img.ms.metadata import Metadata, read_metadata
from vis2img.ms.selection import Selection
from vis2img.visibilities import Visibilities

PIXSIZE = math.radians(4 / 3600)
SOURCES = ((1.0, 0.001, -0.0005), (0.5, 0.0, 0.001))


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Synthetic:
    return build_ms(tmp_path_factory.mktemp("store") / "small.ms", antennas=8, times=12, channels=6, sources=SOURCES)


def in_blocks(meta: Metadata, count: int, **changes) -> AveragingParams:
    """A facet, averaged in ``count`` time blocks."""
    length = (meta.time_range[1] - meta.time_range[0]) / (count - 0.5)
    return AveragingParams(
        **{"npix": (128, 128), "pixsize": PIXSIZE, "phase_centre": CENTRE, "time_block": length, **changes}
    )


@pytest.fixture
def store(observed: Synthetic, tmp_path: Path) -> Path:
    """A whole store of three time blocks."""
    meta = read_metadata(observed.path)
    return average(meta, tmp_path / "a.zarr", in_blocks(meta, 3)).path


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


class TestReplacing:
    """--overwrite never costs a good store."""

    def refused(self, observed: Synthetic, store: Path, error: type[Exception], message: str, **changes) -> None:
        meta, before = read_metadata(observed.path), fingerprint(store)
        memory = changes.pop("memory", None)
        with pytest.raises(error, match=message):
            average(meta, store, in_blocks(meta, 3, **changes), overwrite=True, memory=memory)
        assert fingerprint(store) == before and read_averaged(store)[0].nrow

    def test_cells_that_cannot_be_numbered(self, observed: Synthetic, store: Path) -> None:
        huge = {"npix": (40000, 40000), "tolerance": 1e-6, "pixsize": 4e-5}
        self.refused(observed, store, ParameterError, "can be numbered", **huge)
        assert left_in(store.parent) == {"a.zarr"}

    def test_too_little_memory(self, observed: Synthetic, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refused(observed, store, ParameterError, "is too little", memory=5e7, tolerance=0.02)

        def full(*args, **kwargs):
            raise ParameterError("cells would need 9 GB")

        monkeypatch.setattr(averaged.CellTable, "_allocate", full)
        self.refused(observed, store, ParameterError, "9 GB", tolerance=0.02)

    def test_a_table_that_outgrows_the_memory(
        self, observed: Synthetic, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add = averaged.CellTable.add

        def outgrown(table, uvw, *rest):
            if len(uvw):
                raise ParameterError("cells would need 9 GB")
            add(table, uvw, *rest)

        monkeypatch.setattr(averaged.CellTable, "add", outgrown)
        self.refused(observed, store, ParameterError, "9 GB", tolerance=0.02)

    def test_flagged_data(self, tmp_path: Path) -> None:
        ms = build_ms(tmp_path / "flagged.ms", antennas=8, times=12, channels=6, sources=SOURCES)
        meta, out = read_metadata(ms.path), tmp_path / "a.zarr"
        average(meta, out, in_blocks(meta, 3))
        ms.edit("FLAG", np.ones_like)
        self.refused(ms, out, MeasurementSetError, "flagged", tolerance=0.02)
        assert left_in(tmp_path) == {"a.zarr", "flagged.ms"}

    def test_the_old_store_is_there_until_the_new_one_is_whole(
        self, observed: Synthetic, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        meta, before = read_metadata(observed.path), fingerprint(store)
        other = in_blocks(meta, 3, tolerance=0.02)
        seen = []
        write = averaged.write_block
        monkeypatch.setattr(averaged, "write_block", lambda *a: (seen.append(fingerprint(store) == before), write(*a)))
        assert average(meta, store, other, overwrite=True).resumed == 0
        assert seen == [True] * 3 and left_in(store.parent) == {"a.zarr"}
        assert open_ms(store).facet.tolerance == 0.02

    @pytest.mark.parametrize("step", range(4))
    def test_a_kill_between_any_two_steps_of_the_swap_is_mended(
        self, observed: Synthetic, store: Path, monkeypatch: pytest.MonkeyPatch, step: int
    ) -> None:
        """Each rename, and the deletion half-way through, is where the run may die."""
        meta = read_metadata(observed.path)
        other = in_blocks(meta, 3, tolerance=0.02)
        rename, calls = Path.rename, []

        def dies(path: Path, target: Path) -> Path:
            if path.parent == store.parent:  # not while the store is made
                if len(calls) == step:
                    raise KeyboardInterrupt
                calls.append(path)
            return rename(path, target)

        rmtree = shutil.rmtree

        def half(path: Path, **options) -> None:
            if (path / "block-0000").exists():
                (path / "zarr.json").unlink()
                raise KeyboardInterrupt
            rmtree(path, **options)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", dies)
            if step == 3:
                patch.setattr(shutil, "rmtree", half)
            with pytest.raises(KeyboardInterrupt):
                average(meta, store, other, overwrite=True)
        result = average(meta, store, other, overwrite=True)
        assert result.resumed == 3 and len(calls) == min(step, 3)
        assert read_averaged(store)[0].averages.tolerance == 0.02
        assert left_in(store.parent) == {"a.zarr"}

    def test_what_is_not_ours_is_left_alone(self, observed: Synthetic, tmp_path: Path) -> None:
        import zarr

        meta = read_metadata(observed.path)
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").write_text("precious")
        (tmp_path / "b.zarr.partial").mkdir()
        zarr.open_group(tmp_path / "foreign.zarr", mode="w", attributes={"rows": 3})
        (tmp_path / "link.zarr").symlink_to(tmp_path / "mine")
        before = fingerprint(tmp_path)
        for name in ("mine", "b.zarr", "foreign.zarr", "link.zarr"):
            with pytest.raises(OutputError, match="choose another name"):
                average(meta, tmp_path / name, in_blocks(meta, 2), overwrite=True)
        assert {k: v[0] for k, v in fingerprint(tmp_path).items()} == {k: v[0] for k, v in before.items()}

    def test_other_parameters_or_data_are_not_gone_on_with(self, observed: Synthetic, store: Path) -> None:
        meta = read_metadata(observed.path)
        other = in_blocks(meta, 3, tolerance=0.02)
        with pytest.raises(OutputError, match=r"another parameters tolerance.*--overwrite"):
            average(meta, store, other)
        store.rename(store.with_name("a.zarr.partial"))
        with pytest.raises(OutputError, match=r"left from a run with another parameters tolerance.*--overwrite"):
            average(meta, store, other)
        assert average(meta, store, other, overwrite=True).resumed == 0
        assert left_in(store.parent) == {"a.zarr"}


class TestResuming:
    """What was finished is not done again; what was not is not taken for it."""

    def interrupted(self, meta: Metadata, out: Path, params: AveragingParams, monkeypatch, after: int = 1) -> None:
        write, written = averaged.write_block, []

        def dies(path: Path, *args) -> None:
            if len(written) == after:
                (path.parent / ".partial-block-0001").mkdir()
                raise KeyboardInterrupt
            written.append(path)
            write(path, *args)

        with monkeypatch.context() as patch:
            patch.setattr(averaged, "write_block", dies)
            with pytest.raises(KeyboardInterrupt):
                average(meta, out, params, nthreads=1)

    def test_an_interrupted_run_goes_on(
        self, observed: Synthetic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        meta, out = read_metadata(observed.path), tmp_path / "a.zarr"
        params = in_blocks(meta, 3)
        self.interrupted(meta, out, params, monkeypatch)
        for path in (out, tmp_path / "a.zarr.partial"):
            with pytest.raises(OutputError, match="same vis2img average command again"):
                read_averaged(path)
        first = (tmp_path / "a.zarr.partial" / "block-0000").stat().st_ino
        assert average(meta, out, params, nthreads=2).resumed == 1
        assert (out / "block-0000").stat().st_ino == first and left_in(tmp_path) == {"a.zarr"}
        assert not list(out.glob(".partial-*"))
        same(out, average(meta, tmp_path / "b.zarr", params).path)
        assert average(meta, out, params).resumed == 3

    def test_opening_the_measurement_set_elsewhere_does_not_matter(
        self, observed: Synthetic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """CASA writes table.lock whenever it opens a table; a change of the data is another thing."""
        shutil.copytree(observed.path, tmp_path / "a.ms")
        meta, out = read_metadata(tmp_path / "a.ms"), tmp_path / "a.zarr"
        params = in_blocks(meta, 3)
        self.interrupted(meta, out, params, monkeypatch)
        look = "import sys; from casacore.tables import table; table(sys.argv[1], readonly=False).getcol('TIME')"
        locking = {name: value for name, value in os.environ.items() if name != "CASARCFILES"}
        subprocess.run([sys.executable, "-c", look, meta.path], env=locking, check=True)
        assert (meta.path / "table.lock").exists()
        assert average(meta, out, params).resumed == 1
        os.utime(meta.path / "table.f1", (1e9, 1e9))
        with pytest.raises(OutputError, match="another source files"):
            average(meta, out, params)

    def test_a_block_that_is_not_whole_is_made_again(
        self, observed: Synthetic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        meta, out = read_metadata(observed.path), tmp_path / "a.zarr"
        params = in_blocks(meta, 4)
        self.interrupted(meta, out, params, monkeypatch, after=3)
        (tmp_path / "a.zarr.partial" / "block-0000" / "vis" / "c" / "0").unlink()
        (tmp_path / "a.zarr.partial" / "block-0001" / "zarr.json").write_text('{"attributes"')
        assert average(meta, out, params).resumed == 1
        same(out, average(meta, tmp_path / "b.zarr", params).path)

    def test_a_store_that_lost_a_file_is_mended_by_the_same_command(self, observed: Synthetic, store: Path) -> None:
        meta = read_metadata(observed.path)
        whole = shutil.copytree(store, store.with_name("whole.zarr"))
        (store / "block-0002" / "weight" / "c" / "0").unlink()
        assert average(meta, store, in_blocks(meta, 3)).resumed == 2
        same(store, whole)

    def test_blocks_without_any_weight_pass(self, tmp_path: Path) -> None:
        ms = build_ms(tmp_path / "half.ms", antennas=5, times=12, channels=6, sources=SOURCES)
        ms.edit("FLAG", lambda flag: flag | (np.arange(len(flag)) < len(flag) // 2)[:, None, None])
        ms.edit("TIME", lambda time: time + 100 * (time > np.median(time)))  # and a block between scans, without rows
        meta, out = read_metadata(ms.path), tmp_path / "a.zarr"
        average(meta, out, in_blocks(meta, 4, channel_blocks=2))
        parts = read_averaged(out)
        assert len(np.unique(parts[0].time)) == 1
        assert len(times_behind(parts)) == 6


def test_blocks_too_large_to_share_the_memory_are_done_alone(
    observed: Synthetic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meta = read_metadata(observed.path)
    average(meta, tmp_path / "a.zarr", in_blocks(meta, 4))
    add, room, seen = averaged.CellTable.add, [], []

    def fills(table, uvw, *rest):
        if table.max_bytes < math.inf:
            room.append(table.max_bytes)
            if table.max_bytes < max(room):
                raise averaged.TableFull("too many cells")
            if len(room) <= 2:  # the first two, side by side
                raise averaged.TableFull("too many cells")
        return add(table, uvw, *rest)

    monkeypatch.setattr(averaged.CellTable, "add", fills)
    result = average(
        meta,
        tmp_path / "b.zarr",
        in_blocks(meta, 4),
        nthreads=2,
        progress=lambda stage, done, total: seen.append((done, total)),
    )
    assert result.blocks == 4 and len(set(room)) == 2 and len(room) == 6
    assert seen[-1][0] == seen[-1][1] == 28 * 12
    monkeypatch.undo()
    same(tmp_path / "a.zarr", tmp_path / "b.zarr")


def test_the_record_of_the_origin_stays_readable(store: Path) -> None:
    """The names that stores have had since format 2; earlier ones of that format lack some of them."""
    record = json.loads((store / "zarr.json").read_text())
    meta = record["attributes"]["meta"]
    assert " ".join(meta) == (
        "ms path selection telescope field spw column frame freq_frame pointing_ra pointing_dec band_low band_high "
        "stokes_from time_start chan_width dish_diameter"
    )
    origin = open_ms(store).origin
    assert (origin.paths, origin.spw, origin.column) == ((meta["path"],), (0,), "DATA")
    assert origin.pointing == pytest.approx(CENTRE) and origin.band == (meta["band_low"], meta["band_high"])

    for name in ("path", "selection", "pointing_ra", "pointing_dec", "band_low", "band_high", "dish_diameter"):
        del meta[name]
    (store / "zarr.json").write_text(json.dumps(record))
    old = open_ms(store)
    assert (old.origin.paths, old.origin.pointing, old.origin.band) == ((), None, None)
    outline = old.outline()
    assert outline.pointing == outline.phase_centre and math.isnan(outline.beam)
    assert outline.receiver == (record["attributes"]["chan_freq"][0], record["attributes"]["chan_freq"][-1])
    assert old.image().nvis > 0


def times_behind(parts: list[Visibilities]) -> np.ndarray:
    """Return the distinct times that an image of ``parts`` tells of."""
    image = make_image(parts, ImagingParams((128, 128), PIXSIZE, weighting="natural"))
    assert image.times is not None and image.time_start == image.times[0][0]
    return image.times[0]


def same(one: Path, other: Path) -> None:
    """Assert that two stores hold the same visibilities bit for bit."""
    for left, right in zip(read_averaged(one), read_averaged(other), strict=True):
        for name in ("uvw", "vis", "weight", "time", "chan_freq"):
            np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda block: (block / "vis" / "c" / "0").unlink(), "block-0001 has lost vis/c/0"),
        (lambda block: os.truncate(block / "uvw" / "c" / "0" / "0", 100), "block-0001 has 100 bytes of uvw/c/0/0"),
        (lambda block: (block / "weight" / "zarr.json").unlink(), "block-0001 has lost weight/zarr.json"),
        (lambda block: (block / "zarr.json").write_text("{"), "block-0001 has no list of its files"),
        (shutil.rmtree, "block-0001 is missing"),
        (lambda block: flip(block / "vis" / "c" / "0"), "block-0001 is damaged.*checksum"),
    ],
    ids=["no chunk", "short chunk", "no array", "no attributes", "no block", "wrong bytes"],
)
def test_damage_is_told_in_one_line(cli, store: Path, damage: Callable, message: str) -> None:
    damage(store / "block-0001")
    with pytest.raises(OutputError, match=message) as caught:
        read_averaged(store)
    text = str(caught.value)
    assert "same vis2img average command again" in text and "\n" not in text
    assert cli("image", store, "-o", store.parent / "a.fits").error().endswith(text)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"rows": 3}, "zarr group of something else"),
        ({"format": "vis2img averaged visibilities", "version": 99, "parameters": {"new": 1}}, "newer vis2img"),
        ({"format": "vis2img averaged visibilities", "version": 1}, "average the measurement set again"),
        ({"format": "vis2img averaged visibilities", "version": 2}, "its attributes lack parameters"),
    ],
    ids=["foreign", "newer", "older", "incomplete"],
)
def test_other_zarr_groups_are_refused_in_one_line(cli, tmp_path: Path, attributes: dict, message: str) -> None:
    import zarr

    zarr.open_group(tmp_path / "a.zarr", mode="w", attributes=attributes)
    for command in (("info",), ("image", "-o", tmp_path / "a.fits"), ("average", "-o", tmp_path / "b.zarr")):
        text = cli(command[0], tmp_path / "a.zarr", *command[1:]).error()
        assert message in text and "bug" not in text and "\n" not in text.strip()


# What averages were made of.


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Synthetic:
    """240 MHz whose upper half is mostly flagged, as is the beginning."""
    ms = build_ms(tmp_path_factory.mktemp("uneven") / "a.ms", antennas=8, times=12, channels=48, sources=SOURCES)
    nbase = 8 * 7 // 2

    def flags(flag: np.ndarray) -> np.ndarray:
        flag = flag.copy()
        flag[:, 24:] |= np.random.default_rng(1).random(flag[:, 24:, :1].shape) < 0.9
        flag[: 2 * nbase] = True
        return flag

    ms.edit("FLAG", flags)
    return ms


def test_means_of_the_last_channel_are_read_whatever_the_weights(tmp_path: Path) -> None:
    """Single precision puts some of them beyond the last channel, as 3.0000002 of 4 channels."""
    ms, rng = build_ms(tmp_path / "a.ms", antennas=9, times=8, size_m=3000.0), np.random.default_rng(3)
    ms.edit("WEIGHT", lambda weight: rng.uniform(0.5, 2.0, weight.shape))
    meta = read_metadata(ms.path)
    store = average(meta, tmp_path / "a.zarr", in_blocks(meta, 1, pixsize=8 * PIXSIZE)).path

    stored = zarr.open_array(store / "block-0000" / "chan", mode="r")[:]
    assert stored.max() > 3
    assert read_averaged(store)[0].chan.max() == 3


@pytest.mark.parametrize("blocks", [1, 2])
def test_contents_are_those_of_the_samples(uneven: Synthetic, tmp_path: Path, blocks: int) -> None:
    meta, out = read_metadata(uneven.path), tmp_path / "a.zarr"
    average(meta, out, in_blocks(meta, 3, channel_blocks=blocks))
    vis = open_ms(uneven.path).read()
    by_chan = vis.weight.sum(axis=0, dtype=float)
    seen = np.unique(vis.time[vis.weight.any(axis=1)])
    assert len(seen) == 10
    parts = read_averaged(out)
    found = [channels_of(part, part.weight, part.weight.sum(axis=0, dtype=float)) for part in parts]
    np.testing.assert_array_equal(np.concatenate([freq for freq, _ in found]), vis.chan_freq)
    np.testing.assert_allclose(np.concatenate([weight for _, weight in found]), by_chan, rtol=2e-4)
    np.testing.assert_array_equal(times_behind(parts), seen)
    contents = parts[0].averages.contents
    assert sum(len(block.time) for block in contents) == 10
    assert sum(block.time_weight.sum() for block in contents) == pytest.approx(by_chan.sum(), rel=1e-6)
    # Some of the time blocks, chosen on reading or afterwards, bring their own.
    last = read_averaged(out, time_blocks=slice(2, 3))[0]
    late = parts[0].subset(parts[0].time == last.time[0], slice(None))
    expected = open_ms(uneven.path).read(Selection(times=(8, 12))).weight.sum(axis=0, dtype=float)
    for part in (last, late):
        np.testing.assert_array_equal(times_behind([part]), np.unique(vis.time)[8:])
        share = channels_of(part, part.weight, np.ones(1))[1]
        np.testing.assert_allclose(share, (expected / expected[: len(share)].sum())[: len(share)], rtol=2e-4)
    # Visibilities of a measurement set stand for themselves.
    assert channels_of(vis, vis.weight, by_chan) == (vis.chan_freq, by_chan)


@pytest.mark.parametrize(("weighting", "limit"), [("natural", 3e-3), ("briggs", 3e-3), ("uniform", 5e-3)])
@pytest.mark.parametrize("uv", [(0.0, math.inf), (2000.0, 4000.0)], ids=["all", "uvrange"])
def test_primary_beams_of_averages_are_those_of_the_samples(
    uneven: Synthetic, tmp_path: Path, weighting: str, limit: float, uv: tuple[float, float]
) -> None:
    """The mean of the beam over the channels is not the beam at the middle channel, which is 10% off."""
    meta, out = read_metadata(uneven.path), tmp_path / "a.zarr"
    average(meta, out, in_blocks(meta, 3))
    params = ImagingParams((128, 128), PIXSIZE, weighting=weighting, uvrange=uv)  # type: ignore[arg-type]
    image = make_image(open_ms(uneven.path).read(), params)
    (part,) = read_averaged(out)
    ours = make_image(part, params)
    assert image.channels is not None and ours.channels is not None
    assert ours.channels[1].sum() == pytest.approx(ours.weight_sum)
    assert ours.freq[0] == pytest.approx(image.freq[0], rel=limit)
    assert (ours.freq[1], ours.band_centre) == pytest.approx((image.freq[1], image.band_centre), rel=1e-9)
    exact, mine, middle = (
        primary_beam("MeerKAT", channels, CENTRE, CENTRE, (64, 64), math.radians(60 / 3600))
        for channels in (image.channels, ours.channels, (part.chan_freq, np.ones(1)))
    )
    wide = exact > 0.3
    assert abs(mine / exact - 1)[wide].max() < limit
    assert abs(middle / exact - 1)[wide].max() > 0.05


# Runs of their own.

BLOCKS = 40


def command(ms: Path, out: Path, blocks: int, *options: object) -> list[str]:
    meta = read_metadata(ms)
    length = (meta.time_range[1] - meta.time_range[0]) / (blocks - 0.5)
    args = ["average", ms, "-o", out, "--npix", 128, "--pixsize", "4arcsec", "--time-block", length, *options]
    return [sys.executable, "-m", "vis2img.cli", *map(str, args)]


@pytest.fixture(scope="module")
def long_ms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many timesteps as there will be time blocks."""
    path = tmp_path_factory.mktemp("long") / "a.ms"
    return build_ms(path, antennas=12, times=BLOCKS, channels=16, sources=SOURCES).path


def start(ms: Path, out: Path) -> subprocess.Popen:
    """Start a run and wait for its first block."""
    run = subprocess.Popen(command(ms, out, BLOCKS, "--quiet"))
    began = time.monotonic()
    while not any(out.with_name(f"{out.name}.partial").glob("block-*")):
        assert run.poll() is None and time.monotonic() - began < 60
        time.sleep(0.002)
    return run


def test_a_killed_process_loses_only_what_it_was_at(long_ms: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    run = start(long_ms, out)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL and not out.exists()
    finished = {path.name: path.stat().st_ino for path in (tmp_path / "a.zarr.partial").glob("block-*")}
    assert 1 <= len(finished) < BLOCKS
    done = subprocess.run(command(long_ms, out, BLOCKS, "--json"), capture_output=True, text=True, check=True)
    record = json.loads(done.stdout)
    assert (record["blocks"], record["resumed"]) == (BLOCKS, len(finished))
    assert {name: (out / name).stat().st_ino for name in finished} == finished and left_in(tmp_path) == {"a.zarr"}
    subprocess.run(command(long_ms, tmp_path / "b.zarr", BLOCKS, "--quiet"), check=True)
    same(out, tmp_path / "b.zarr")


def test_two_runs_do_not_write_one_store(long_ms: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    run = start(long_ms, out)
    try:
        run.send_signal(signal.SIGSTOP)
        assert os.WIFSTOPPED(os.waitpid(run.pid, os.WUNTRACED)[1])
        before = fingerprint(tmp_path / "a.zarr.partial")
        for options in ((), ("--overwrite", "--tolerance", 0.02)):
            second = subprocess.run(
                command(long_ms, out, BLOCKS, *options), capture_output=True, text=True, check=False
            )
            assert second.returncode != 0
            assert f"is being written by process {run.pid} on" in second.stderr and second.stderr.count("\n") == 1
        assert fingerprint(tmp_path / "a.zarr.partial") == before
    finally:
        run.send_signal(signal.SIGCONT)
    assert run.wait() == 0 and left_in(tmp_path) == {"a.zarr"}
    assert read_averaged(out)[0].nrow


def test_the_lock_of_a_dead_run_is_none(observed: Synthetic, tmp_path: Path) -> None:
    meta, out = read_metadata(observed.path), tmp_path / "a.zarr"
    (tmp_path / ".a.zarr.lock").write_text("process 1 on elsewhere\n")
    average(meta, out, in_blocks(meta, 2))
    with locked(out), pytest.raises(OutputError, match="being written by process"):
        average(meta, out, in_blocks(meta, 2))
    assert left_in(tmp_path) == {"a.zarr"}


PEAK = """
import re, sys
from pathlib import Path
from vis2img.cli import main
code = main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
sys.exit(code)
"""


def large_ms(path: Path, nbytes: float) -> Path:
    """Write a tiled measurement set of 64 channels and 4 correlations, noise and a source at the centre."""
    from casacore.tables import makearrcoldesc, maketabdesc, table

    ntimes = int(nbytes / (2016 * 64 * 4 * 8)) + 1
    small = build_ms(path, antennas=64, times=1, channels=64, corrs=("XX", "XY", "YX", "YY"), size_m=8000.0)
    first, second, step, uvw = tracks(64, ntimes, 1, 8000.0, CENTRE[1])
    rng = np.random.default_rng(0)
    noise = (1 + rng.normal(size=(2016, 64, 4)) + 1j * rng.normal(size=(2016, 64, 4))).astype(np.complex64)
    with table(str(small.path), readonly=False, ack=False) as t:
        began, flag, weight = t.getcell("TIME", 0), t.getcol("FLAG"), t.getcol("WEIGHT")
        description = makearrcoldesc("CORRECTED_DATA", 0j, ndim=2, shape=[64, 4], valuetype="complex")
        t.addcols(
            maketabdesc(description),
            {"TYPE": "TiledColumnStMan", "NAME": "T", "SPEC": {"DEFAULTTILESHAPE": [4, 64, 64]}},
        )
        t.addrows(len(uvw) - t.nrows())
        t.putcol("TIME", began + 8.0 * step)
        t.putcol("ANTENNA1", first)
        t.putcol("ANTENNA2", second)
        t.putcol("UVW", uvw)
        for start in range(0, len(uvw), 2016):
            for name, value in (("CORRECTED_DATA", noise), ("FLAG", flag), ("WEIGHT", weight)):
                t.putcol(name, value, start, 2016)
    return path


@pytest.mark.slow
def test_memory_stays_within_its_limit(tmp_path: Path) -> None:
    """A measurement set four times as large as the resident memory that the process may reach."""
    limit = 400e6
    ms = large_ms(tmp_path / "large.ms", 4.05 * limit)
    try:
        assert sum(p.stat().st_size for p in ms.rglob("*")) > 4 * limit
        args = ["average", ms, "--column", "CORRECTED_DATA", "--npix", 128, "--pixsize", "2arcsec", "--time-block", 400]
        args += ["-o", tmp_path / "a.zarr", "--memory", limit, "--json"]
        done = subprocess.run([sys.executable, "-c", PEAK, *map(str, args)], capture_output=True, text=True, check=True)
        record, peak = done.stdout.rsplit("}", 1)
        assert json.loads(record + "}")["nvis"] > 40e6
        assert int(peak) * 1024 < limit
    finally:
        shutil.rmtree(ms)


def test_averages_of_other_frames_are_where_images_of_the_set_are(tmp_path: Path) -> None:
    made = build_ms(tmp_path / "g.ms", frame="GALACTIC", sources=((1.0, 3e-4, 2e-4),))
    meta = read_metadata(made.path)
    field = meta.fields[0]
    assert field.frame == "J2000" and abs(field.turn) > 0.1
    pixsize = math.radians(10 / 3600)
    params = AveragingParams((64, 64), pixsize, field.phase_centre, tolerance=1e-3)
    store = average(meta, tmp_path / "g.zarr", params).path
    how = ImagingParams((64, 64), pixsize, weighting="natural")
    ours, theirs = open_ms(store).image(how), open_ms(made.path).image(how)
    assert np.linalg.norm(ours.data - theirs.data) < 2e-3 * np.linalg.norm(theirs.data)
    assert (ours.origin.frame, ours.origin.freq_frame) == (theirs.origin.frame, theirs.origin.freq_frame)


def test_stores_of_earlier_versions_in_other_frames_are_refused(store: Path) -> None:
    """They hold numbers of other frames as if they were right ascensions."""
    path = store / "zarr.json"
    record = json.loads(path.read_text())
    record["attributes"]["meta"]["frame"] = "GALACTIC"
    del record["attributes"]["meta"]["freq_frame"]
    path.write_text(json.dumps(record))
    with pytest.raises(OutputError, match="took directions in GALACTIC for right ascensions"):
        open_ms(store)
    record["attributes"]["meta"]["frame"] = "J2000"
    path.write_text(json.dumps(record))
    assert open_ms(store).origin.freq_frame == ""
