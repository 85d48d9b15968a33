"""The record of a run survives kills and full disks, is cut where a run goes on, and TensorBoard reads the same."""

from __future__ import annotations

import errno
import json
import math
import struct
import threading
from pathlib import Path

import numpy as np
import pytest

from vis2img.cli.progress import Bars
from vis2img.errors import OutputError, Vis2imgError
from vis2img.train.run.metrics_log import GROUPS, MetricsLog, metrics_note, read_metrics


def rows(first: int, last: int) -> list[dict[str, float]]:
    return [{"step": n, "loss": 5.0 - n, "entropy": 1.0 / n, "lr": 1e-3} for n in range(first, last + 1)]


def events(folder: Path) -> list:
    """Every event of a run in the order in which TensorBoard reads them."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted((folder / "tensorboard").iterdir()):
        assert "tfevents" in path.name
        data = path.read_bytes()
        while data:  # length (8), its checksum (4), event, its checksum (4)
            (length,) = struct.unpack("<Q", data[:8])
            found.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def curve(folder: Path, tag: str) -> dict[int, float]:
    """Values by step as TensorBoard shows them: a START forgets steps from its own on."""
    kept: dict[int, float] = {}
    for event in events(folder):
        if event.HasField("session_log"):
            kept = {step: value for step, value in kept.items() if step < event.step}
        for value in event.summary.value:
            if value.tag == tag:
                kept[event.step] = value.simple_value
    return kept


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, start_step=0) as log:
        log.write(rows(1, 3))
        log.write([{"step": 4, "loss": np.float32(0.5), "rankme": 7.0, "fresh_draws": np.int64(3)}])
    found = read_metrics(tmp_path)
    assert list(found["step"]) == [1, 2, 3, 4] and found["step"].dtype.kind == "i"
    assert list(found["loss"]) == [4.0, 3.0, 2.0, 0.5]
    np.testing.assert_array_equal(found["rankme"], [math.nan, math.nan, math.nan, 7.0])
    np.testing.assert_array_equal(found["entropy"], [1.0, 0.5, 1 / 3, math.nan])


def test_numbers_that_are_not_finite_are_json_null_and_nan_again(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, start_step=0) as log:
        log.write([{"step": 1, "loss": math.nan, "grad_norm": np.float32(math.inf), "lr": 1.0}])
    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=pytest.fail) == {"step": 1, "loss": None, "grad_norm": None, "lr": 1.0}
    assert np.isnan(read_metrics(tmp_path)["loss"]).all()
    assert math.isnan(curve(tmp_path, "loss/loss")[1])


def test_a_resumed_run_has_each_step_once(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, start_step=0) as log:
        log.write(rows(1, 6))
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 7, "lo')  # killed while writing
    with MetricsLog(tmp_path, start_step=4) as log:
        log.write([{"step": 5, "loss": 9.0}])
    assert list(read_metrics(tmp_path)["step"]) == [1, 2, 3, 4, 5]
    assert curve(tmp_path, "loss/loss") == {1: 4.0, 2: 3.0, 3: 2.0, 4: 1.0, 5: 9.0}
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_line_torn_by_a_kill_costs_no_other(tmp_path: Path) -> None:
    whole = json.dumps({"step": 1, "loss": 2.0}) + "\n"
    path = tmp_path / "metrics.jsonl"
    path.write_text(whole + '{"step": 2, "loss": 1')
    assert list(read_metrics(tmp_path)["step"]) == [1]
    MetricsLog(tmp_path, start_step=5).close()
    assert path.read_text() == whole
    # Whole but for its end: another line would be glued to it.
    path.write_text(whole + '{"step": 2, "loss": 1.0}')
    MetricsLog(tmp_path, start_step=5).close()
    assert path.read_text() == whole


def test_no_metrics_is_told(tmp_path: Path) -> None:
    with pytest.raises(Vis2imgError, match=r"metrics\.jsonl is missing"):
        read_metrics(tmp_path)
    (tmp_path / "metrics.jsonl").touch()
    assert read_metrics(tmp_path) == {}


def test_tensorboard_has_the_curves_in_groups(tmp_path: Path) -> None:
    names = [name for group in GROUPS.values() for name in group]
    assert len(names) == len(set(names))
    with MetricsLog(tmp_path, start_step=0) as log:
        log.write([{"step": 3, **dict.fromkeys(names, 1.5), "colour": 2.0}])
        log.image("views", np.zeros((4, 6, 4), np.uint8), step=3)
    values = [value for event in events(tmp_path) for value in event.summary.value]
    shown = {value.tag: value.simple_value for value in values if value.tag != "views"}
    assert shown == {f"{group}/{name}": 1.5 for group, names in GROUPS.items() for name in names} | {"other/colour": 2}
    picture = values[-1].image
    assert (picture.height, picture.width) == (4, 6) and picture.encoded_image_string.startswith(b"\x89PNG")
    first = events(tmp_path)[0]
    assert first.file_version == "brain.Event:2"


def test_no_thread_is_started(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    log = MetricsLog(tmp_path, start_step=0)
    log.write(rows(1, 50))
    assert set(threading.enumerate()) == before
    log.close()
    log.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_in_one_line(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, start_step=0) as log:
        (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
        with pytest.raises(OutputError, match=r"metrics\.jsonl cannot be written: No space.*free some space") as error:
            log.write(rows(1, 3))
    assert "\n" not in str(error.value)


def test_a_disk_that_is_full_when_a_run_goes_on_keeps_the_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with MetricsLog(tmp_path, start_step=0) as log:
        log.write(rows(1, 3))
    before = (tmp_path / "metrics.jsonl").read_bytes()

    def full(path: Path, text: str) -> None:
        path.write_bytes(text[:5].encode())
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match="free some space"):
        MetricsLog(tmp_path, start_step=1)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("fails", ["opening", "writing"])
def test_without_tensorboard_the_lines_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    if fails == "opening":
        (tmp_path / "tensorboard").touch()
    elif Path("/dev/full").exists():
        full = Path("/dev/full").open("wb")  # noqa: SIM115
        monkeypatch.setattr("tensorboardX.record_writer.open_file", lambda path: full)
    else:
        pytest.skip("needs /dev/full")
    with MetricsLog(tmp_path, start_step=0) as log:
        assert log.problem is None
        log.write(rows(1, 2))
        log.image("views", np.zeros((4, 4, 3), np.uint8), step=2)
        log.write(rows(3, 4))
        assert log.problem is not None and "tensorboard cannot be written" in log.problem
    assert list(read_metrics(tmp_path)["step"]) == [1, 2, 3, 4]


def test_the_line_of_a_step_has_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    speed = {"samples_per_s": 123.4, "input_wait": 0.031, "draw_age": 12.3}
    metrics = {"loss": 4.1234, "entropy": 3.2, "rankme": 33.71, "mfu": 0.123, **speed}
    with Bars() as bars:
        bars("training", 9, 9, metrics_note(metrics))
    line = "training: 9/9 loss 4.123  entropy 3.20  rank 33.7  123 samples/s  MFU 12%  wait 3%  draws 12 s old\n"
    assert capsys.readouterr().err == line
    shown = metrics_note({"loss": 0.5, "rankme": math.nan, **speed})
    assert shown == "loss 0.500  123 samples/s  wait 3%  draws 12 s old"
