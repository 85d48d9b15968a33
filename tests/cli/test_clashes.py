"""Files of the user's that have the names of packages: commands pass them over, scripts are told which file it is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import vis2img
from tests.helpers.places import ROOT

RUN = "raise SystemExit('a file of the user was run')"
INSTALLED = "import sys; del sys.path[0]; from vis2img.cli import main; sys.exit(main())"


@pytest.fixture
def folder(make_ms, tmp_path: Path) -> Path:
    make_ms().path.rename(tmp_path / "a.ms")
    for name in ("train", "numpy", "yaml", "astropy", "casacore", "models/__init__", "vis2img/notes"):
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(RUN)
    return tmp_path


def run(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *args], cwd=folder, env=env, capture_output=True, text=True)


@pytest.mark.parametrize("start", [("-c", INSTALLED), ("-m", "vis2img"), ("-m", "vis2img.cli")], ids=str)
def test_commands_pass_over_files_of_the_user(folder: Path, start: tuple[str, ...]) -> None:
    done = run(folder, *start, "image", "a.ms", "--npix", "64", "--no-png", "-o", "a.fits")
    assert done.returncode == 0, done.stderr
    assert (folder / "a.fits").is_file() and done.stderr == ""


def test_a_script_is_told_of_the_file(folder: Path) -> None:
    (folder / "mine.py").write_text("import vis2img\nvis2img.open_ms('a.ms')\n")
    done = run(folder, "mine.py")
    assert done.returncode == 1
    for name in ("numpy", "yaml", "astropy", "casacore"):
        line = f"Vis2imgWarning: {folder / name}.py hides the package {name}, which vis2img needs: rename the file"
        assert line in done.stderr
    for name in ("numpy", "yaml", "astropy", "casacore"):
        (folder / f"{name}.py").unlink()
    done = run(folder, "mine.py")  # train.py, models/ and a folder called vis2img do no harm
    assert (done.returncode, done.stderr) == (0, "")


def test_the_names_looked_for_are_those_of_what_is_required() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.split(r"[\[><=]", each)[0] for each in wanted}
    others = {"python-casacore": "casacore", "pyyaml": "yaml", "orbax-checkpoint": "orbax"}
    assert {others.get(name, name) for name in names} | {"distributed"} == set(vis2img._NEEDED)
