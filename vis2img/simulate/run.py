"""Simulated observations: a sky with labels, observed into a real measurement set, with the truth beside it.

    simulated_sky -> observe -> catalogue, errors and parameters -> publish

:mod:`vis2img.simulate.config` says what is simulated, :mod:`vis2img.simulate.observe` does the observing, and
:mod:`vis2img.simulate.files` keeps half-written files from being seen.
"""

from __future__ import annotations

import gc
import json
import traceback
import uuid
from importlib.metadata import version
from typing import Any

import numpy as np

from vis2img import __version__
from vis2img.errors import Vis2imgError, first_line
from vis2img.files import check_room, is_full, make_room, staging
from vis2img.locks import locked
from vis2img.machine import cores
from vis2img.ms.tables import table
from vis2img.progress import Progress, no_progress
from vis2img.random import simulation_streams
from vis2img.simulate.config import SimulateConfig
from vis2img.simulate.empty_ms import check_telescope
from vis2img.simulate.files import ID_KEYWORD, SimulationResult, check_targets, put_in_place
from vis2img.simulate.instruments import layout_of
from vis2img.simulate.observe import observe
from vis2img.simulate.sky.build import simulated_sky
from vis2img.simulate.sky.catalogue import write_catalogue

_SAMPLE_BYTES = 16.5  # visibility, two weights and two flags
_ROW_BYTES = 280
_TABLES_BYTES = 2e6  # sub-tables, catalogue and parameters


def simulate(
    config: SimulateConfig, progress: Progress = no_progress, *, nthreads: int | None = None
) -> SimulationResult:
    """Observe a sky and write the measurement set with its truth.

    Parameters
    ----------
    config : SimulateConfig
    progress : callable, optional
        Told of each stage; nothing is printed.
    nthreads : int, optional
        Threads of the prediction; default: all cores. The data do not depend on it beyond rounding.

    Returns
    -------
    SimulationResult

    Raises
    ------
    OutputError
        If the target exists (without ``overwrite``), is no measurement set, is being written by another process or
        cannot be written.
    ParameterError
        If the field is too low in the sky, the sources do not fit, or the noise of the telescope is not known.
    Vis2imgError
        If simms is not installed or fails, or a file of sources cannot be read.
    """
    result = check_targets(config.out, config.overwrite)
    sky_rng, seeds = simulation_streams(config.seed)
    check_telescope(config.telescope)
    config.sigma  # noqa: B018  (raises where the noise is not known, before any work)
    sources = simulated_sky(config, sky_rng)
    with locked(result.ms_path) as alone, staging(result.ms_path, alone=alone) as stage:
        new = SimulationResult.at(stage / result.ms_path.name)
        check_room(stage, _bytes_of(config), result.ms_path)
        try:
            observed = observe(config, sources, new.ms_path, seeds, progress, nthreads or cores())
            apparent = np.array([source.flux for source in sources]) * observed.power
            write_catalogue(sources, new.catalogue_path, {"apparent_flux_jy": apparent}, observed.errors)
            _write_parameters(config, observed.record, new)
        except Vis2imgError:
            raise
        except KeyboardInterrupt as stopped:
            _let_go(stopped)  # before the folder goes
            raise
        except Exception as error:  # simms and casacore raise anything from RuntimeError to KeyError
            # Tables that are open still write when they are closed; casacore would end the process if that failed.
            reason = "the disk is full; free some space" if is_full(stage) else first_line(error)
            make_room(stage)
            told = Vis2imgError(f"the simulation of {result.ms_path} failed: {reason}")
            _let_go(error)
            raise told from None
        put_in_place(new, result, config.overwrite)
    progress("done", 1, 1)
    return result


def _let_go(error: BaseException | None) -> None:
    """Let go of what the frames of an error, and of those before it, still hold."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error.__traceback__, error = None, error.__context__
    gc.collect()


def _bytes_of(config: SimulateConfig) -> float:
    """Return the most that a measurement set takes on disk, as simms lays it out: measured, and some more."""
    antennas = len(layout_of(config.telescope)["antnames"])
    rows = config.ntimes * antennas * (antennas - 1) / 2
    samples = config.nchan * len(config.correlations.split(","))
    return rows * (samples * _SAMPLE_BYTES + _ROW_BYTES) + _TABLES_BYTES


def _write_parameters(config: SimulateConfig, record: dict[str, Any], new: SimulationResult) -> None:
    """Write the parameters, and the name that says that they belong to this measurement set, into both."""
    name = uuid.uuid4().hex
    with table(str(new.ms_path), readonly=False, ack=False) as main:
        main.putkeyword(ID_KEYWORD, name)
    given = config.record()
    values = {**given, **record, "ref_freq": config.mid_freq, "config": given, "id": name}
    versions = {"vis2img": __version__, **{name: version(name) for name in ("simms", "numpy", "ducc0")}}
    new.parameters_path.write_text(json.dumps({**values, "versions": versions}, indent=2) + "\n")
