"""Observe a sky: simms writes the empty measurement set, ducc0 predicts, gains, noise and flags are put on top.

UVW are computed here, as simms 3.0.2 has two signs of w wrong, turns by solar and not by sidereal time, and spreads
the times over one interval too many. Conventions, checked against WSClean 3.1: with UVW as antenna 2 minus antenna 1
the data are ``V = sum_k S_k exp(+2 pi i (u l + v m + w (n - 1)) nu / c)``, with l to the east and m to the north.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import erfa
import numpy as np

from vis2img.coordinates import direction_cosines, parallactic_angles, uvw_basis
from vis2img.errors import ParameterError
from vis2img.ms.tables import table
from vis2img.progress import Progress
from vis2img.simulate.config import SimulateConfig
from vis2img.simulate.corruptions import Gains, add_noise, draw_flags, draw_gains, draw_missing
from vis2img.simulate.empty_ms import write_empty
from vis2img.simulate.instruments import Beam, layout_of, power_beam, telescope
from vis2img.simulate.predict import predict
from vis2img.simulate.sky import SkySource
from vis2img.units import mjd_seconds
from vis2img.visibilities import SPEED_OF_LIGHT

_MJD_ZERO = 2400000.5  # days
_TT_MINUS_UTC = 69.184  # s, since 2017
_TURN = math.radians(10)  # of the primary beam, during which it is taken as its mean
_BLOCK_SAMPLES = 1 << 26  # visibilities predicted in one call, 0.5 GB
_SPECTRA_ERROR = 1e-5


@dataclass(frozen=True, eq=False)
class Observed:
    """What an observation adds to the truth.

    Parameters
    ----------
    record : dict
        Values for the parameters.
    power : float64 [source]
        Primary beam at each source.
    errors : dict of arrays
        RFI uint8 [time, chan]; DROPPED uint8 [time, baseline]; if there are gains, GAINS float32 [time, antenna,
        feed, 2] (real and imaginary part) and BANDPASS float32 [antenna, chan].
    """

    record: dict[str, Any]
    power: np.ndarray
    errors: dict[str, np.ndarray]


def observe(
    config: SimulateConfig, sources: list[SkySource], ms: Path, seeds: list[int], report: Progress, nthreads: int
) -> Observed:
    """Write the measurement set ``ms``; return what of it is not in the configuration.

    Parameters
    ----------
    config : SimulateConfig
    sources : list of SkySource
    ms : Path
        Must not exist.
    seeds : list of int
        Of noise, flags and gains.
    report : callable
        Progress.
    nthreads : int
        Threads of the prediction.

    Raises
    ------
    ParameterError
        If telescope, field or band cannot be observed.
    Vis2imgError
        If simms is not installed.
    """
    report("writing the measurement set", 0, 1)
    start, site = write_empty(config, ms)
    return _fill(config, sources, ms, start, site, seeds, report, nthreads)


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


def _fill(
    config: SimulateConfig,
    sources: list[SkySource],
    ms: Path,
    start: datetime,
    site: tuple[float, float],
    seeds: list[int],
    report: Progress,
    nthreads: int,
) -> Observed:
    """Write data, times, weights and flags, a block of times after the other; rows are in order of time."""
    noise_seed, *others = seeds
    flag_rng, gain_rng = map(np.random.default_rng, others)
    mid_times = (np.arange(config.ntimes) + 0.5) * config.dtime + mjd_seconds(start)
    antennas, position, dish = _array(config, ms)
    nbl, nant = antennas.shape[1], len(position)
    if config.missing_antennas > nant - 2:
        raise ParameterError(f"missing_antennas = {config.missing_antennas}: {config.telescope} has {nant}")
    rfi, dropped = draw_flags(flag_rng, config.flag_fraction, config.ntimes, config.nchan, antennas)
    missing = draw_missing(flag_rng, nant, config.missing_antennas)
    dropped |= np.isin(antennas, missing).any(axis=0)
    gains = _gains(config, gain_rng, nant)
    angles = parallactic_angles(mid_times, config.phase_centre, site)
    beam = _beam(config, dish, angles)
    # Alike for all blocks, so that their grids are.
    longest = np.linalg.norm(position[antennas[0]] - position[antennas[1]], axis=1).max()
    uv_max = float(longest) * config.chan_freq[-1] / SPEED_OF_LIGHT
    most, sigma = max(1, _BLOCK_SAMPLES // (nbl * config.nchan)), config.sigma
    with contextlib.closing(table(str(ms), readonly=False, ack=False)) as main:
        for times in _blocks(angles if beam else np.zeros(config.ntimes), most):
            report("predicting visibilities", times.start, config.ntimes)
            uvw = baselines_towards(position, antennas, mid_times[times.start : times.stop], config.phase_centre)
            vis = predict(
                sources, uvw.reshape(-1, 3), config.chan_freq, config.phase_centre,
                uv_max=uv_max, beam=beam(times) if beam else None, spectra_error=_SPECTRA_ERROR, nthreads=nthreads,
            )  # fmt: skip
            report("predicting visibilities", times.stop, config.ntimes)
            for i in times:
                at = i - times.start
                data = vis[at * nbl : (at + 1) * nbl]
                data = _corrupted(config, data, i, antennas, gains, sigma, noise_seed)
                flagged = rfi[i] | dropped[i, :, np.newaxis]
                _put(main, i * nbl, float(mid_times[i]), uvw[at], data, flagged, sigma)
    _complete_subtables(config, ms, mid_times)
    names = layout_of(config.telescope)["antnames"]
    record = {"start_time": start.isoformat(), "missing": [str(names[i]) for i in missing]}
    errors = {"RFI": rfi.astype(np.uint8), "DROPPED": dropped.astype(np.uint8)}
    if gains is not None:
        parts = np.stack([gains.by_time.real, gains.by_time.imag], axis=-1)
        errors |= {"GAINS": parts, "BANDPASS": np.ascontiguousarray(gains.by_chan.real)}
    return Observed({**record, "sigma": sigma.tolist()}, _power(config, sources, beam), errors)


def _blocks(angles: np.ndarray, most: int) -> list[range]:
    """Return the times in runs of at most ``most``, during each of which the ``angles`` [time] turn by little."""
    turned = np.unwrap(angles)
    edges = [0]
    while edges[-1] < len(turned):
        start = edges[-1]
        beyond = np.flatnonzero(np.abs(turned[start:] - turned[start]) > _TURN)
        edges.append(min(start + most, len(turned), start + int(beyond[0]) if len(beyond) else len(turned)))
    return [range(a, b) for a, b in pairwise(edges)]


def _array(config: SimulateConfig, ms: Path) -> tuple[np.ndarray, np.ndarray, float]:
    """Return antennas int [2, baseline], their positions [antenna, 3] in m (ITRF), and the dish diameter in m."""
    with contextlib.closing(table(str(ms), ack=False)) as main:
        nbl = main.nrows() // config.ntimes
        antennas = np.stack([main.getcol("ANTENNA1", 0, nbl), main.getcol("ANTENNA2", 0, nbl)])
    with contextlib.closing(table(f"{ms}::ANTENNA", ack=False)) as antenna:
        dish = telescope(config.telescope).dish or float(np.median(antenna.getcol("DISH_DIAMETER")))
        return antennas, antenna.getcol("POSITION"), dish


def _power(config: SimulateConfig, sources: list[SkySource], beam: Callable[[range], Beam] | None) -> np.ndarray:
    """Return the primary beam at the middle of each source and of the band, the mean over the observation."""
    if beam is None:
        return np.ones(len(sources))
    places = np.array([(source.ra, source.dec) for source in sources])
    l, m, _ = direction_cosines(places[:, 0], places[:, 1], config.phase_centre).T
    return beam(range(config.ntimes))(l, m, np.array([config.mid_freq]))[:, 0]


def _gains(config: SimulateConfig, rng: np.random.Generator, nant: int) -> Gains | None:
    if not (config.gain_amplitude or config.gain_phase or config.bandpass_ripple):
        return None
    return draw_gains(
        rng,
        config.ntimes,
        nant,
        config.chan_freq,
        dtime=config.dtime,
        amplitude=config.gain_amplitude,
        phase=config.gain_phase,
        timescale=config.gain_timescale,
        ripple=config.bandpass_ripple,
        ripple_period=config.ripple_period,
    )


def _beam(config: SimulateConfig, dish: float, angles: np.ndarray) -> Callable[[range], Beam] | None:
    """Return the primary beam during a range of times, whose parallactic ``angles`` are given; None without."""
    if not config.primary_beam:
        return None
    return lambda times: power_beam(config.telescope, config.chan_freq, dish, angles[times.start : times.stop])


def _corrupted(
    config: SimulateConfig,
    vis: np.ndarray,
    time: int,
    antennas: np.ndarray,
    gains: Gains | None,
    sigma: np.ndarray,
    seed: int,
) -> np.ndarray:
    """Return the data [baseline, chan, corr] of one time; ``vis`` [baseline, chan] is the sky's."""
    ncorr = len(config.correlations.split(","))
    data = np.zeros((*vis.shape, ncorr), np.complex64)
    for feed, corr in enumerate((0, ncorr - 1)):
        data[..., corr] = vis if gains is None else vis * gains.of_baselines(time, antennas, feed)
    if sigma.any():
        add_noise(data, sigma, [seed, time])
    return data


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
