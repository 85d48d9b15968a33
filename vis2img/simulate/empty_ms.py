"""An empty measurement set, by ``simms``: layout, times and channels, with nothing printed or changed on the way."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import sys
import traceback
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dask
import numpy as np
import yaml
from astropy.utils import iers

from vis2img.coordinates import SIDEREAL_RATE, local_sidereal
from vis2img.errors import ParameterError, Vis2imgError
from vis2img.machine import cores, stderr_dropped
from vis2img.simulate.config import SimulateConfig, parse_time
from vis2img.simulate.instruments import layout_of
from vis2img.units import mjd_seconds

MIN_ELEVATION = math.radians(15)  # the lowest that MeerKAT's dishes point
_DEFAULT_DAY = datetime(2026, 1, 1)
_CHUNK_ROWS = 20_000  # rows that simms writes at a time


def start_time(config: SimulateConfig, longitude: float, latitude: float) -> datetime:
    """Return the start of the observation, checked to be above the elevation limit throughout."""
    ra, dec = config.phase_centre
    duration = timedelta(seconds=config.ntimes * config.dtime)
    if config.start_time is not None:
        start = parse_time(config.start_time)
    else:
        wait = (ra - local_sidereal(mjd_seconds(_DEFAULT_DAY), longitude)) % (2 * math.pi)
        wait += math.radians(15 * config.hour_angle)
        start = _DEFAULT_DAY + timedelta(days=wait / SIDEREAL_RATE) - duration / 2
        start = start.replace(microsecond=start.microsecond // 1000 * 1000)
    times = mjd_seconds(start) + np.linspace(0, duration.total_seconds(), 49)
    hour = local_sidereal(times, longitude) - ra
    height = math.sin(dec) * math.sin(latitude) + math.cos(dec) * math.cos(latitude) * np.cos(hour)
    lowest = math.asin(height.min())
    if lowest < MIN_ELEVATION:
        raise ParameterError(
            f"the field sinks to an elevation of {math.degrees(lowest):.0f} degrees between "
            f"{start:%Y-%m-%dT%H:%M:%S} and {start + duration:%H:%M:%S} UTC, "
            f"below {math.degrees(MIN_ELEVATION):.0f}; change start_time, hour_angle, ntimes or phase_centre"
        )
    return start


class _Silent(contextlib.nullcontext):
    """Stands in for simms's progress bars."""

    def __init__(self, desc: str = "") -> None:
        super().__init__()


@contextlib.contextmanager
def _contained() -> Iterator[Any]:
    """Yield simms's module that writes measurement sets, kept from printing and from changing this process.

    simms draws tqdm bars, adds log handlers and would fetch earth orientation tables over the network; the tables
    installed with astropy are good to a second of time.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(iers.conf.set_temp("auto_download", False))
        stack.enter_context(iers.conf.set_temp("auto_max_age", None))
        stack.enter_context(iers.conf.set_temp("iers_degraded_accuracy", "ignore"))
        pool = ThreadPoolExecutor(cores())
        stack.enter_context(dask.config.set(scheduler="threads", pool=pool))
        try:
            from simms.telescope import generate_ms as make
        except ImportError as error:
            newer = sys.version_info >= (3, 14)
            remedy = "it has no release for this Python, use 3.13" if newer else "pip install 'vis2img[simulate]'"
            raise Vis2imgError(f"simulation needs simms: {remedy} ({error})") from error
        stack.callback(setattr, make, "TqdmCallback", make.TqdmCallback)
        setattr(make, "TqdmCallback", _Silent)  # noqa: B010  (the type checker knows no such name)
        stack.callback(_restore_logger, make.log, list(make.log.handlers), make.log.level)
        make.log.setLevel(logging.CRITICAL)
        try:
            yield make
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)
            raise
        finally:
            pool.shutdown(cancel_futures=True)  # an interrupt leaves threads that write
            # dask-ms leaves tables open in cycles of references. Closed some time later, when their files have moved or
            # gone, casacore would end the process.
            gc.collect()


def _restore_logger(log: logging.Logger, handlers: list[logging.Handler], level: int) -> None:
    log.handlers[:] = handlers
    log.setLevel(level)


def check_telescope(name: str) -> None:
    """Look a telescope up.

    Raises
    ------
    ParameterError
        If there is none of this name.
    Vis2imgError
        If simms is not installed.
    """
    with _contained():
        layout_of(name)


def write_empty(config: SimulateConfig, ms: Path) -> tuple[datetime, tuple[float, float]]:
    """Let simms write ``ms`` without data; return the start and the site (longitude, latitude in rad)."""
    with _contained() as make:
        layout = layout_of(config.telescope)
        longitude, latitude = map(math.radians, layout["centre"][:2])
        start = start_time(config, longitude, latitude)
        # simms centres the hour angles on the time it is given.
        middle = start + timedelta(seconds=config.ntimes * config.dtime / 2)
        name = config.telescope
        if layout.get("name") == "askap-like":  # simms reads what it does not know from a file
            path = ms.with_name("layout.yaml")
            path.write_text(yaml.safe_dump(layout))
            name = str(path)
        with stderr_dropped():
            make.create_ms(
                str(ms),
                name,
                ["J2000", *(f"{math.degrees(angle)!r}deg" for angle in config.phase_centre)],
                config.dtime,
                config.ntimes,
                *config.channels,
                config.nchan,
                config.correlations.split(","),
                _CHUNK_ROWS,
                0.0,  # its own noise has no seed
                "DATA",
                start_time=middle.isoformat(timespec="milliseconds"),
            )
    return start, (longitude, latitude)
