"""Simulated observations: a sky with labels, observed into a real measurement set, with the truth beside it.

Everything happens in a hidden folder beside the target and is renamed at the end, so that what stands under the
target's name is whole. :mod:`vis2img.observe` does the observing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from vis2img.errors import OutputError, Vis2imgError
from vis2img.machine import cores
from vis2img.observe import Progress, observe
from vis2img.simulate_config import PRESETS, SimulateConfig
from vis2img.simulated_sky import simulated_sky
from vis2img.sky import write_catalogue

__all__ = ["PRESETS", "SimulateConfig", "SimulationResult", "is_done", "simulate"]


@dataclass(frozen=True)
class SimulationResult:
    """What was written: the measurement set, the true sky and the parameters (JSON)."""

    ms_path: Path
    catalogue_path: Path
    parameters_path: Path


def simulate(
    config: SimulateConfig, progress: Progress | None = None, *, nthreads: int | None = None
) -> SimulationResult:
    """Observe a sky and write the measurement set with its truth.

    Parameters
    ----------
    config : SimulateConfig
    progress : callable, optional
        Called as ``progress(step, fraction)``; nothing is printed.
    nthreads : int, optional
        Threads of the prediction; default: all cores. The data do not depend on it beyond rounding.

    Returns
    -------
    SimulationResult

    Raises
    ------
    OutputError
        If the target exists (without ``overwrite``), is no measurement set or cannot be written.
    ParameterError
        If the field is too low in the sky, the sources do not fit, or the noise of the telescope is not known.
    Vis2imgError
        If simms is not installed or fails, or a file of sources cannot be read.
    """
    report = progress or (lambda step, fraction: None)
    result = _targets(config)
    sky_seed, *seeds = np.random.SeedSequence(config.seed).spawn(4)  # one each: noise does not change the sky
    config.sigma  # noqa: B018  (raises where the noise is not known, before any work)
    sources = simulated_sky(config, np.random.default_rng(sky_seed))
    with _staging(result.ms_path) as stage:
        new = _targets(dataclasses.replace(config, out=stage / result.ms_path.name, overwrite=False))
        numbers = [int(seed.generate_state(1)[0]) for seed in seeds]
        try:
            observed = observe(config, sources, new.ms_path, numbers, report, nthreads or cores())
        except Vis2imgError:
            raise
        except Exception as error:  # simms and casacore raise anything from RuntimeError to KeyError
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise Vis2imgError(f"the simulation of {result.ms_path} failed: {reason}") from error
        apparent = np.array([source.flux for source in sources]) * observed.power
        write_catalogue(sources, new.catalogue_path, {"apparent_flux_jy": apparent})
        _write_parameters(config, observed.record, new.parameters_path)
        _publish(new, result, stage)
    report("done", 1.0)
    return result


def is_done(config: SimulateConfig) -> bool:
    """Whether the measurement set with its truth is there, whole and made with these values.

    What is published last is the measurement set, so where it stands the rest does too.
    """
    paths = _paths(config)
    if not (_replaceable(paths.ms_path) and paths.catalogue_path.is_file() and paths.parameters_path.is_file()):
        return False
    try:
        values = json.loads(paths.parameters_path.read_text())
    except (OSError, ValueError):
        return False
    return bool(values.get("config") == json.loads(json.dumps(config.record())))


def _targets(config: SimulateConfig) -> SimulationResult:
    """Return the paths to write, after a look at what is there already."""
    result = _paths(config)
    out, *beside = result.ms_path, result.catalogue_path, result.parameters_path
    if not out.parent.is_dir():
        raise OutputError(f"the folder {out.parent} for {out.name} does not exist")
    there = [path for path in (out, *beside) if path.exists() or path.is_symlink()]
    if there and not config.overwrite:
        raise OutputError(f"{there[0]} exists already; use --overwrite to replace it")
    if out.is_symlink() or (out.exists() and not _replaceable(out)):
        raise OutputError(f"{out} is not a measurement set, so it is not overwritten; choose another name")
    wrong = [path for path in beside if path.is_dir()]
    if wrong:
        raise OutputError(f"{wrong[0]} is a folder, so it is not overwritten; choose another name")
    return result


def _replaceable(path: Path) -> bool:
    """Whether ``path`` is an empty folder or a measurement set, and so may be removed on request."""
    if not path.is_dir():
        return False
    info = path / "table.info"
    is_ms = info.is_file() and "Measurement Set" in info.read_text(errors="replace").partition("\n")[0]
    return (is_ms and (path / "table.dat").is_file()) or not any(path.iterdir())


@contextlib.contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """Make a hidden folder beside ``out`` for the work in progress, and remove it whatever happens.

    What a killed process left of the same target on this machine is removed too.
    """
    host = socket.gethostname()
    start = f".{out.name}.partial-{host}-"
    for path in out.parent.glob(f"{glob.escape(start)}*"):
        pid = path.name.removeprefix(start).partition("-")[0]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(path, ignore_errors=True)
    try:
        stage = Path(tempfile.mkdtemp(prefix=f"{start}{os.getpid()}-", dir=out.parent))
    except OSError as error:
        raise OutputError(f"cannot write in {out.parent}: {error.strerror}") from error
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _publish(new: SimulationResult, final: SimulationResult, stage: Path) -> None:
    """Move the finished files to their places, the measurement set last, and the old one away just before."""
    try:
        new.catalogue_path.replace(final.catalogue_path)
        new.parameters_path.replace(final.parameters_path)
        old = stage / "old"
        if final.ms_path.exists():
            final.ms_path.rename(old)
        try:
            new.ms_path.rename(final.ms_path)
        except OSError:
            if old.exists():
                old.rename(final.ms_path)
            raise
    except OSError as error:
        raise OutputError(f"cannot write {final.ms_path}: {error.strerror}") from error


def _write_parameters(config: SimulateConfig, record: dict[str, Any], path: Path) -> None:
    import ducc0
    import simms

    from vis2img import __version__

    values = {**config.record(), **record, "ref_freq": config.mid_freq, "config": config.record()}
    names = {"vis2img": __version__, "simms": simms.__version__, "numpy": np.__version__, "ducc0": ducc0.__version__}
    path.write_text(json.dumps({**values, "versions": names}, indent=2) + "\n")


def _paths(config: SimulateConfig) -> SimulationResult:
    out = Path(config.out)
    return SimulationResult(out, *(out.with_name(f"{out.name}.truth.{kind}") for kind in ("fits", "json")))
