"""Observe a sky: simms writes the empty measurement set, ducc0 predicts, gains, noise and flags are put on top.

UVW are computed here, as simms 3.0.2 has two signs of w wrong, turns by solar and not by sidereal time, and spreads
the times over one interval too many. Conventions, checked against WSClean 3.1: with UVW as antenna 2 minus antenna 1
the data are ``V = sum_k S_k exp(+2 pi i (u l + v m + w (n - 1)) nu / c)``, with l to the east and m to the north.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import erfa
import numpy as np

from vis2img.coordinates import direction_cosines, parallactic_angles, uvw_basis
from vis2img.ms.tables import table
from vis2img.progress import Progress
from vis2img.simulate.config import SimulateConfig
from vis2img.simulate.corruptions import draw_corruptions
from vis2img.simulate.empty_ms import write_empty
from vis2img.simulate.instruments import Beam, layout_of, power_beam, telescope
from vis2img.simulate.predict import predict
from vis2img.simulate.predict_plan import PredictionOptions
from vis2img.simulate.sky.source import SkySource
from vis2img.units import mjd_seconds
from vis2img.visibilities import SPEED_OF_LIGHT

_MJD_ZERO = 2400000.5  # days
_TT_MINUS_UTC = 69.184  # s, since 2017
_TURN = math.radians(10)  # of the primary beam, during which it is taken as its mean
_BLOCK_SAMPLES = 1 << 26  # visibilities predicted in one call, 0.5 GB
_SPECTRA_ERROR = 1e-5


@dataclass(frozen=True, eq=False)
class Observed:
    """What an observation adds to the truth."""

    record: dict[str, Any]
    """Values for the parameters."""
    power: np.ndarray
    """Primary beam at each source, float64 [source]."""
    errors: dict[str, np.ndarray]
    """See :meth:`vis2img.simulate.corruptions.Corruptions.images`."""


@dataclass(frozen=True, eq=False)
class _Array:
    """Antennas int [2, baseline], their positions [antenna, 3] in m (ITRF), and the dish diameter in m."""

    antennas: np.ndarray
    position: np.ndarray
    dish: float


def observe(
    config: SimulateConfig, sources: list[SkySource], ms: Path, seeds: list[int], report: Progress, nthreads: int
) -> Observed:
    """Write the measurement set ``ms``, which must not exist; return what of it is not in the configuration.

    ``seeds`` are those of noise, flags and gains; ``nthreads`` predict.

    Raises
    ------
    ParameterError
        If telescope, field or band cannot be observed.
    Vis2imgError
        If simms is not installed.
    """
    report("writing the measurement set", 0, 1)
    start, site = write_empty(config, ms)
    array = _array(config, ms)
    times = (np.arange(config.ntimes) + 0.5) * config.dtime + mjd_seconds(start)
    angles = parallactic_angles(times, config.phase_centre, site)
    corruptions = draw_corruptions(config, array.antennas, len(array.position), seeds)

    nbl, ncorr = array.antennas.shape[1], len(config.correlations.split(","))
    with contextlib.closing(table(str(ms), readonly=False, ack=False)) as main:
        for i, uvw, vis in _sky_by_time(config, sources, array, times, angles, report, nthreads):
            data = corruptions.data(i, vis, array.antennas, ncorr)
            _put(main, i * nbl, float(times[i]), uvw, data, corruptions.flagged(i), corruptions.sigma)
    _complete_subtables(config, ms, times)

    names = layout_of(config.telescope)["antnames"]
    missing = [str(names[i]) for i in corruptions.missing]
    record = {"start_time": start.isoformat(), "missing": missing, "sigma": corruptions.sigma.tolist()}
    return Observed(record, _power(config, sources, array, angles), corruptions.images())


def baselines_towards(
    position: np.ndarray, antennas: np.ndarray, times: np.ndarray, centre: tuple[float, float]
) -> np.ndarray:
    """Return the baselines in m as seen from a direction, float64 [time, baseline, 3].

    Celestial axes are turned into those of the earth by IAU 2006/2000A precession and nutation (SOFA's ``c2t06a``),
    without the wobble of the pole (0.3 arcsec) and with UT1 = UTC (within 0.9 s).

    Parameters
    ----------
    position : float64 [antenna, 3]
        ITRF, m.
    antennas : int [2, baseline]
        Baselines are the second minus the first.
    times : float64 [time]
        UTC in s (MJD).
    centre : (float, float)
        RA and Dec in rad (ICRS).
    """
    days = times / 86400
    to_earth = erfa.c2t06a(_MJD_ZERO, days + _TT_MINUS_UTC / 86400, _MJD_ZERO, days, 0.0, 0.0)
    axes = np.einsum("ij,tkj->tik", uvw_basis(*centre), to_earth)
    return np.einsum("tik,bk->tbi", axes, position[antennas[1]] - position[antennas[0]])


def _sky_by_time(
    config: SimulateConfig,
    sources: list[SkySource],
    array: _Array,
    times: np.ndarray,
    angles: np.ndarray,
    report: Progress,
    nthreads: int,
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield (time, UVW [baseline, 3], visibilities [baseline, chan]), predicted a block of times after the other."""
    nbl = array.antennas.shape[1]
    # Alike for all blocks, so that their grids are.
    longest = np.linalg.norm(np.subtract(*array.position[array.antennas]), axis=1).max()
    uv_max = float(longest) * config.chan_freq[-1] / SPEED_OF_LIGHT
    options = PredictionOptions(uv_max, spectra_error=_SPECTRA_ERROR, nthreads=nthreads)
    most = max(1, _BLOCK_SAMPLES // (nbl * config.nchan))

    for block in _blocks(angles if config.primary_beam else np.zeros(config.ntimes), most):
        report("predicting visibilities", block.start, config.ntimes)
        some = slice(block.start, block.stop)
        uvw = baselines_towards(array.position, array.antennas, times[some], config.phase_centre)
        beam = _beam(config, array, angles[some])
        vis = predict(sources, uvw.reshape(-1, 3), config.chan_freq, config.phase_centre, options, beam).vis
        report("predicting visibilities", block.stop, config.ntimes)
        yield from zip(block, uvw, vis.reshape(len(block), nbl, config.nchan), strict=True)


def _blocks(angles: np.ndarray, most: int) -> list[range]:
    """Return the times in runs of at most ``most``, during each of which the ``angles`` [time] turn by little."""
    turned = np.unwrap(angles)
    edges = [0]
    while edges[-1] < len(turned):
        start = edges[-1]
        beyond = np.flatnonzero(np.abs(turned[start:] - turned[start]) > _TURN)
        edges.append(min(start + most, len(turned), start + int(beyond[0]) if len(beyond) else len(turned)))
    return [range(a, b) for a, b in pairwise(edges)]


def _array(config: SimulateConfig, ms: Path) -> _Array:
    with contextlib.closing(table(str(ms), ack=False)) as main:
        nbl = main.nrows() // config.ntimes
        antennas = np.stack([main.getcol("ANTENNA1", 0, nbl), main.getcol("ANTENNA2", 0, nbl)])
    with contextlib.closing(table(f"{ms}::ANTENNA", ack=False)) as antenna:
        dish = telescope(config.telescope).dish or float(np.median(antenna.getcol("DISH_DIAMETER")))
        return _Array(antennas, antenna.getcol("POSITION"), dish)


def _beam(config: SimulateConfig, array: _Array, angles: np.ndarray) -> Beam | None:
    """Return the primary beam, the mean over parallactic ``angles``; None without."""
    return power_beam(config.telescope, config.chan_freq, array.dish, angles) if config.primary_beam else None


def _power(config: SimulateConfig, sources: list[SkySource], array: _Array, angles: np.ndarray) -> np.ndarray:
    """Return the primary beam at the middle of each source and of the band, the mean over the observation."""
    beam = _beam(config, array, angles)
    if beam is None:
        return np.ones(len(sources))
    places = np.array([(source.ra, source.dec) for source in sources])
    l, m, _ = direction_cosines(places[:, 0], places[:, 1], config.phase_centre).T
    return beam(l, m, np.array([config.mid_freq]))[:, 0]


def _put(
    main: Any, row: int, time: float, uvw: np.ndarray, data: np.ndarray, flagged: np.ndarray, sigma: np.ndarray
) -> None:
    """Write the rows of one time from ``row`` on; ``flagged`` is [baseline, chan], ``sigma`` [chan]."""
    nbl, _, ncorr = data.shape
    sigma = np.where(sigma > 0, sigma, 1.0)  # without noise every sample weighs 1
    spectrum = np.broadcast_to(sigma[:, None], data.shape).astype(np.float32)
    weight = np.full((nbl, ncorr), np.mean(sigma**-2.0), np.float32)
    columns = {
        "DATA": data,
        "UVW": uvw,
        "TIME": np.full(nbl, time),
        "TIME_CENTROID": np.full(nbl, time),
        "FLAG": np.repeat(flagged[:, :, None], ncorr, axis=2),
        "FLAG_ROW": flagged.all(axis=1),
        "SIGMA": weight**-0.5,
        "WEIGHT": weight,
        "SIGMA_SPECTRUM": spectrum,
        "WEIGHT_SPECTRUM": spectrum**-2,
    }
    for name, values in columns.items():
        main.putcol(name, values, row, nbl)


def _complete_subtables(config: SimulateConfig, ms: Path, mid_times: np.ndarray) -> None:
    ends = [[mid_times[0] - config.dtime / 2, mid_times[-1] + config.dtime / 2]]
    with contextlib.closing(table(f"{ms}::OBSERVATION", readonly=False, ack=False)) as observation:
        observation.putcol("TIME_RANGE", np.array(ends))
        observation.putcol("TELESCOPE_NAME", [telescope(config.telescope).observatory])
    with contextlib.closing(table(f"{ms}::POINTING", readonly=False, ack=False)) as pointing:
        pointing.putcol("TIME", np.repeat(mid_times, pointing.nrows() // config.ntimes))
    with contextlib.closing(table(f"{ms}::SPECTRAL_WINDOW", readonly=False, ack=False)) as window:
        window.putcol("REF_FREQUENCY", np.array([config.channels[0]]))  # simms writes a REF_FREQ instead
