"""What is installed: one package of that name, whole, beside which users may have a ``train.py`` and ``models/``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.helpers.places import ROOT

pytest.importorskip("setuptools", reason="what is installed is built with it")

_BUILD = "import sys, setuptools.build_meta as backend; print(getattr(backend, sys.argv[1])(sys.argv[2]))"
RELEASED = ("train/weights/released/some-v1.safetensors", "train/weights/released/some-v1.md")
_CACHES = shutil.ignore_patterns("__pycache__", "*.egg-info")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is built, as building writes beside it."""
    folder = tmp_path_factory.mktemp("source") / "vis2img"
    folder.mkdir()
    for name in ("vis2img", "models", "train"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=_CACHES)
    for name in RELEASED:  # those that there are may be none
        (folder / name).write_bytes(b"some weights")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module", params=["build_wheel", "build_editable"])
def site(request: pytest.FixtureRequest, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what ``pip install``, or ``pip install -e``, puts into an environment."""
    folder = tmp_path_factory.mktemp(request.param)
    command = [sys.executable, "-c", _BUILD, request.param, str(folder)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=True)
    with zipfile.ZipFile(folder / done.stdout.split()[-1]) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


def packaged(folder: Path) -> set[str]:
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix() for path in files}


@pytest.mark.parametrize("site", ["build_wheel"], indirect=True)
def test_every_file_of_the_rooms_is_installed_and_no_other_name(site: Path) -> None:
    wanted = {name: packaged(ROOT / name) for name in ("models", "train")}
    wanted["train"] |= {name.removeprefix("train/") for name in RELEASED}
    assert {"vit.py", "dino_head.py"} <= wanted["models"] and "report/report.html.j2" in wanted["train"]
    assert "casarc" in packaged(ROOT / "vis2img" / "ms")
    for name, files in wanted.items():
        assert packaged(site / "vis2img" / name) == files
    links = {f"{name}/{each}" for name, files in wanted.items() for each in files}
    own = {each for each in packaged(ROOT / "vis2img") if not each.startswith(("models/", "train/"))}
    assert packaged(site / "vis2img") == own | links
    assert {path.name.partition("-")[0] for path in site.iterdir()} == {"vis2img"}


def test_names_of_a_user_do_not_clash(site: Path, source: Path, tmp_path: Path) -> None:
    """Their own train.py and models/ lie in the current folder and come first wherever Python looks."""
    (tmp_path / "models").mkdir()
    for path in ("train.py", "models/__init__.py"):
        (tmp_path / path).write_text("MINE = True\n")
    # Without what the environment of the tests itself has of vis2img: its packages come last.
    prelude = f"import site, sys; site.addsitedir({str(site)!r}); site.addsitedir({sysconfig.get_path('purelib')!r}); "

    def python(code: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        command = [sys.executable, "-S", "-c", prelude + code]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    shown = python("from vis2img.cli import main; sys.exit(main(['train', '--help']))")
    assert shown.startswith("usage: vis2img train CONFIG")
    code = (
        "import models, train, vis2img.models.layers, vis2img.train.run.config as ours; "
        "print(models.MINE and train.MINE, ours.TrainConfig.__module__, ours.__file__)"
    )
    mine, module, file = python(code).split()
    assert (mine, module) == ("True", "vis2img.train.run.config")
    assert Path(file).is_relative_to(site if (site / "vis2img").is_dir() else source)
