"""``vis2img`` and ``vis2img info``: dispatch, light imports, and what is told about a measurement set."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest

from vis2img import __version__
from vis2img.cli import COMMANDS, main
from vis2img.cli.info import direction_text

PROBE = """
import sys
from vis2img.cli import main
code = main(sys.argv[1:])
heavy = sorted({name.split(".")[0] for name in sys.modules} & {"jax", "dask", "matplotlib", "astropy", "flax"})
print("heavy:", heavy, file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(
    "args", [["--help"], ["--version"], ["info", "--help"], ["info", "MS"], ["info", "MS", "--json"]]
)
def test_light_commands_import_nothing_heavy(make_ms, args: list[str]) -> None:
    args = [str(make_ms().path) if arg == "MS" else arg for arg in args]
    done = subprocess.run([sys.executable, "-c", PROBE, *args], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "heavy: []"


def test_overview_lists_every_command(cli) -> None:
    done = cli("--help")
    assert done.code == 0 and done.err == ""
    for name, _, text in COMMANDS:
        assert f"  {name:<14}{text}" in done.out.splitlines()
    assert cli().out == done.out
    assert cli("--version").out == f"vis2img {__version__}\n"


@pytest.mark.parametrize("command", ["info", "image", "simulate"])
def test_help_has_examples(cli, command: str) -> None:
    done = cli(command, "--help")
    assert done.code == 0
    assert f"  vis2img {command} " in done.out and "For example" in done.out
    assert "Annotated" not in done.out and "PrimitiveConstructorSpec" not in done.out


def test_unknown_command(cli) -> None:
    assert "did you mean image?" in cli("imgae", "a.ms").error(2)
    assert cli("info").error(2) == "MS is missing (vis2img info --help)"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 1, "not enough memory"),
        (OSError(28, "No space left on device", "x.fits"), 1, "x.fits: No space left on device"),
        (ModuleNotFoundError("No module named 'simms'", name="simms"), 1, "needs the package simms"),
    ],
)
def test_other_errors_are_one_line(cli, monkeypatch, error: BaseException, code: int, words: str) -> None:
    def fail(argv: list[str], prog: str) -> int:
        raise error

    monkeypatch.setattr("vis2img.cli.info.run", fail)
    assert words in cli("info", "x").error(code)


def test_a_bug_is_called_a_bug(cli, monkeypatch) -> None:
    def fail(argv: list[str], prog: str) -> int:
        raise ZeroDivisionError("a\nb")

    monkeypatch.setattr("vis2img.cli.info.run", fail)
    done = cli("info", "x")
    assert done.code == 1
    assert done.err == (
        "vis2img: error: this is a bug in vis2img: ZeroDivisionError: a b; rerun with --debug for the traceback\n"
    )
    assert "Traceback" in cli("info", "x", "--debug").err


def test_a_reader_that_stops_early_is_no_error(make_ms) -> None:
    command = f"{sys.executable} -m vis2img.cli info {make_ms().path} --json | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.stdout == "{\n" and done.stderr == ""


def test_everything_about_a_synthetic_set(make_ms, cli) -> None:
    made = make_ms(antennas=5, times=4, channels=3, corrs=("XX", "XY", "YX", "YY"), columns=("DATA", "MODEL_DATA"))
    made.edit("FLAG", lambda flag: _first_quarter(flag))
    facts = json.loads(cli("info", made.path, "--json").out)
    assert facts["telescope"] == "MeerKAT" and facts["nrow"] == 40
    assert facts["fields"][0]["name"] == "SKY" and facts["fields"][0]["direction"] == "10h00m00.00s -30d00m00.0s"
    assert facts["spectral_windows"][0] | {"name": ""} == {
        "id": 0, "name": "", "nchan": 3, "freq_min_hz": 1e9, "freq_max_hz": 1.01e9, "chan_width_hz": 5e6,
        "frame": "REST", "has_data": True,
    }  # fmt: skip
    assert facts["partitions"][0]["correlations"] == ["XX", "XY", "YX", "YY"]
    assert facts["time"] == {
        "start_utc": "2020-01-01T06:00:00.000", "end_utc": "2020-01-01T06:00:24.000",
        "ntimes": 4, "integration_s": 8.0,
    }  # fmt: skip
    assert facts["antennas"] == [f"m{i:03d}" for i in range(5)]
    assert facts["data_columns"] == ["DATA", "MODEL_DATA"]
    assert facts["flagged_fraction"] == pytest.approx(0.25) and facts["flagged_from_rows"] == 40
    length = (made.uvw[:, 0] ** 2 + made.uvw[:, 1] ** 2) ** 0.5
    assert facts["uv_range_m"] == pytest.approx([length.min(), length.max()])
    assert facts["uv_max_wavelengths"] == pytest.approx(length.max() * 1.01e9 / 299792458)
    third = math.degrees(1 / (3 * facts["uv_max_wavelengths"])) * 3600
    assert facts["suggested_pixsize_arcsec"] == pytest.approx(third, rel=0.05)
    assert facts["suggested_fov_deg"] == pytest.approx(math.degrees(1.2 * 0.299792458 / 13.5))
    text = cli("info", made.path).out
    for part in (
        "MeerKAT",
        "'SKY'",
        "3 channels of 5 MHz",
        "XX,XY,YX,YY",
        "25.0%",
        "integration 8 s",
        "none found",
    ):
        assert part in text


def _first_quarter(flag):
    flag[: len(flag) // 4] = True
    return flag


@pytest.mark.parametrize(
    ("ra_deg", "dec_deg", "text"),
    [
        (187.70593, 12.39112, "12h30m49.42s +12d23m28.0s"),
        (359.9999999, -0.00001, "00h00m00.00s +00d00m00.0s"),
        (15.0, -89.99999, "01h00m00.00s -90d00m00.0s"),
        (0.0, -0.5, "00h00m00.00s -00d30m00.0s"),
    ],
)
def test_directions_round_without_60(ra_deg: float, dec_deg: float, text: str) -> None:
    assert direction_text(math.radians(ra_deg), math.radians(dec_deg)) == text


def test_many_fields_do_not_flood_the_screen(real_ms, cli) -> None:
    path = real_ms("tart_2021")
    text = cli("info", path).out
    assert len(text.splitlines()) < 40 and "60 in all; --json lists all" in text
    assert len(json.loads(cli("info", path, "--json").out)["fields"]) == 60


def test_debug_may_stand_anywhere(cli) -> None:
    assert "Traceback" in cli("--debug", "info", "/nowhere").err
    assert main(["info", "/nowhere"]) == 1
