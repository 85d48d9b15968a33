"""Fixtures: the command line in-process, synthetic measurement sets, and the real ones of ``shared/data``."""

from __future__ import annotations

import os
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tests.helpers.shapes  # noqa: F401  (before anything of vis2img)
from tests.helpers.command_line import Outcome
from tests.helpers.measurement_sets import Synthetic, build_ms
from tests.helpers.places import DATA

# For JAX here and in the processes that tests start: two devices, and nothing is cast or broadcast unsaid.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of networks last: what they compile stays in the process, and others watch their memory."""
    items.sort(key=lambda item: any(name in item.path.parts for name in ("models", "train")))


@pytest.fixture(scope="module")
def timm() -> Any:
    """timm, even beside a build of torchvision that does not go with PyTorch: timm needs none of its operators."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")
    try:
        import timm

        yield timm
        return
    except Exception:
        for name in [name for name in sys.modules if name.split(".")[0] in ("timm", "torchvision")]:
            del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    try:
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor x) -> Tensor")
        import timm
    except Exception as error:
        pytest.skip(f"timm cannot be imported: {error}")
    yield timm
    del library


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of shared test data; set VIS2IMG_SHARED where it is not beside the repository."""
    if not (DATA / "ms").is_dir():
        pytest.skip(f"no real measurement sets: {DATA}/ms is not there (set VIS2IMG_SHARED)")
    return DATA


@pytest.fixture(scope="session")
def real_ms(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Unpack the real measurement set NAME once per session and return its path."""
    folder = tmp_path_factory.mktemp("real")
    unpacked: dict[str, Path] = {}

    def unpack(name: str) -> Path:
        if name not in unpacked:
            archive = shared_data / "ms" / f"{name}.ms.tar.xz"
            if not archive.is_file():
                pytest.skip(f"{archive} is not there")
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
            unpacked[name] = next(folder.glob(f"{name}*.ms"))
        return unpacked[name]

    return unpack


@pytest.fixture
def make_ms(tmp_path: Path) -> Callable[..., Synthetic]:
    """Return :func:`build_ms` with the path ``tmp_path/ms/NAME.ms``."""

    def make(name: str = "obs", **options: Any) -> Synthetic:
        return build_ms(tmp_path / "ms" / f"{name}.ms", **options)

    return make


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run the real ``main`` of the command line; also what casacore writes is captured."""
    from vis2img.cli import main

    def run(*args: object) -> Outcome:
        capfd.readouterr()
        code = main([str(arg) for arg in args])
        out, err = capfd.readouterr()
        return Outcome(code, out, err)

    return run
