"""``vis2img loader-bench``: real figures of a real loader, from options or a training configuration."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vis2img.loader.bench import Series, draw_plot

SMALL = (
    "--field-npix", 64, "--views.patch-npix", 24, "--views.global-size", 16, "--views.local-size", 8,
    "--draws-per-field", 2, "--batch-size", 8, "--workers", 1, "--seconds", 3,
)  # fmt: skip


@pytest.fixture
def ms(make_ms) -> Path:
    return make_ms(antennas=8, times=4).path


def test_figures_add_up(cli, ms: Path, make_ms, tmp_path: Path) -> None:
    bad = make_ms(name="bad", antennas=6)
    bad.edit("FLAG", np.ones_like)
    config, plot = tmp_path / "run.yaml", tmp_path / "loader.png"
    config.write_text(f"out: x\nsteps: 9\ndata:\n  ms: [{ms}, {bad.path}]\n  near_peaks: 0.2\n")
    done = cli("loader-bench", "--config", config, *SMALL, "--rate", 100, "--plot", plot, "--json")
    assert done.code == 0
    found = json.loads(done.out)
    assert (found["fields"], found["workers"], found["pool_draws"]) == (2, 1, 4)
    assert found["views_per_draw"] == pytest.approx((64 / 24) ** 2, rel=0.15)
    assert found["fresh_views"] == pytest.approx(found["fresh_draws"] * found["views_per_draw"])
    assert found["fresh_draws"] > 1 and found["read_bytes"] > 0 and found["cut_views"] > 1000
    # 100 samples of 6 views a second were asked for, and the consumer hardly waits for them.
    assert 400 < found["delivered_views"] <= 610 and found["input_wait"] < 0.2
    series = found["series"]
    assert len(series["time"]) >= 3 and min(series["worker_bytes"]) > 2e7
    assert found["most_bytes"] == max(map(sum, zip(series["loader_bytes"], series["worker_bytes"], strict=True)))
    assert list(found["unused"]) == [str(bad.path)] and "bad.ms" in done.err and "flagged" in done.err
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_the_table_is_for_people(cli, ms: Path) -> None:
    done = cli("loader-bench", ms, *SMALL, "--rate", 0, "--quiet")
    assert done.code == 0 and done.err == ""
    names = [line.split()[0] for line in done.out.splitlines()]
    assert names == ["pool", "fresh", "delivered", "cutting", "draws", "read", "memory", "wait"]
    assert "views/s" in done.out


def test_mistakes_are_told_before_anything_starts(cli, ms: Path, tmp_path: Path) -> None:
    assert "name at least one measurement set" in cli("loader-bench").error(2)
    assert "none" in cli("loader-bench", ms, "--plot", ms.parent / "none" / "a.png").error()
    assert "seconds" in cli("loader-bench", ms, "--seconds", 0).error(2)
    assert "--field-npixel" in cli("loader-bench", ms, "--field-npixel", 64).error(2)
    config = tmp_path / "run.yaml"
    config.write_text("data: {ms: [a.ms], drawsperfield: 3}\n")
    assert "did you mean draws_per_field" in cli("loader-bench", "--config", config).error()


def test_a_picture_shows_what_was_seen(tmp_path: Path) -> None:
    seen = Series([1.0, 2.0], [10**9, 10**9], [2 * 10**9, 10**9], [0.0, 3.0], [0.0, 0.1])
    draw_plot(seen, tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
