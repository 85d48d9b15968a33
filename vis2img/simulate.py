"""Simulated observations: a sky with labels, observed by ``simms`` 3 into a real measurement set.

Steps: draw the sky, let simms write the empty measurement set and predict the visibilities with seeded
noise, then put right what simms leaves open (times, weights, flags, names). Everything happens in a hidden
folder beside the target and is renamed at the end, so that what stands under the target's name is whole.

Conventions, checked against WSClean 3.1: with the UVW that simms writes (antenna 2 minus antenna 1) the data
are ``V = sum_k S_k exp(+2 pi i (u l + v m + w (n - 1)) nu / c)``, with l to the east and m to the north.

Noise follows the radiometer equation (Thompson, Moran & Swenson 2017, section 6.2): each of the real and the
imaginary part has sigma = SEFD / sqrt(2 chan_width dtime).
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import logging
import math
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np

from vis2img.errors import OutputError, ParameterError, Vis2imgError
from vis2img.options import Angle, Direction
from vis2img.phase import direction_cosines, uvw_basis
from vis2img.sky import (
    CLASSES,
    UNLABELLED,
    SkyComponent,
    SkySource,
    draw_sky,
    read_user_catalogue,
    single_component_source,
    write_catalogue,
)

Progress = Callable[[str, float], None]
"""Called with the name of the current step and the fraction of that step that is done."""

MIN_ELEVATION = math.radians(15)  # the lowest that MeerKAT's dishes point
_ARCSEC = math.pi / 180 / 3600
_MJD_EPOCH = datetime(1858, 11, 17)
_DEFAULT_DAY = datetime(2026, 1, 1)
# The noise that simms draws depends on its number of workers: fixed, so that a seed replays anywhere.
_WORKERS = 8
_DEFAULT_CENTRE = (math.radians(60), math.radians(-30))
_DEFAULT_FOV = math.radians(1)
_BLOCK_SAMPLES = 1 << 21  # visibilities per block that simms predicts, about 100 MB with its temporaries
_OBSERVATORY = {"meerkat": "MeerKAT"}  # the names casacore knows observatories by
_RFI_SHARE = 2 / 3  # of the flags; the rest are antennas that drop out


@dataclass(frozen=True)
class SimulateConfig:
    """A simulated observation; the same values give the same measurement set, bit for bit."""

    out: Path
    """Measurement set to write; OUT.truth.fits and OUT.truth.json are written beside it."""
    telescope: str = "meerkat"
    """Array layout that simms knows."""
    phase_centre: Direction = _DEFAULT_CENTRE
    """Pointing and phase centre as RA,DEC (J2000)."""
    start_time: str | None = None
    """Start in UTC, YYYY-MM-DDTHH:MM:SS; default: the field transits at mid-observation on 2026-01-01."""
    dtime: float = 8.0
    """Integration time in s."""
    ntimes: int = 60
    """Number of integrations."""
    start_freq: float = 1.2e9
    """Centre of the first channel in Hz."""
    chan_width: float = 10e6
    """Channel width in Hz; the sky is predicted at channel centres, without bandwidth smearing."""
    nchan: int = 16
    """Number of channels."""
    correlations: Literal["XX,YY", "XX,XY,YX,YY"] = "XX,YY"
    """Correlations written; the sky is unpolarised."""
    sefd: float = 420.0
    """System equivalent flux density of one antenna in Jy (MeerKAT L band: about 420); 0: no noise."""
    flag_fraction: float = 0.0
    """Fraction of the data flagged: blocks of channels and times, and antennas that drop out for a while."""
    n_sources: int = 60
    """Number of labelled sources drawn."""
    classes: tuple[str, ...] = CLASSES
    """Classes drawn, in equal shares."""
    n_background: int = 0
    """Number of faint points without a label, from a hundredth to a tenth of the lowest flux."""
    flux_range: tuple[float, float] = (1e-3, 1e-1)
    """Flux densities in Jy at the middle of the band."""
    size_range: tuple[Angle, Angle] = (20 * _ARCSEC, 120 * _ARCSEC)
    """Largest angular sizes of extended sources."""
    fov: Angle = _DEFAULT_FOV
    """Side of the square that sources are drawn in."""
    min_separation: Angle = 30 * _ARCSEC
    """Least gap between two labelled sources."""
    catalogue: Path | None = None
    """CSV or FITS table of sources to observe instead of drawn ones: ra_deg, dec_deg, flux_jy, ..."""
    points: tuple[tuple[float, float, float], ...] = ()
    """More points without a label: RA in rad, Dec in rad, flux in Jy."""
    seed: int = 0
    """Seed of sky, noise and flags."""
    overwrite: bool = False
    """Replace an existing measurement set, once the new one is complete."""

    def __post_init__(self) -> None:
        for name in ("dtime", "start_freq", "chan_width", "fov"):
            _check(self, name, lambda value: value > 0, "must be above 0")
        for name in ("ntimes", "nchan"):
            _check(self, name, lambda value: value >= 1, "must be at least 1")
        for name in ("sefd", "n_sources", "n_background", "min_separation", "seed"):
            _check(self, name, lambda value: value >= 0, "must not be negative")
        _check(self, "flag_fraction", lambda value: 0 <= value < 1, "must be at least 0 and below 1")
        _check(self, "fov", lambda value: value <= 1, "must be at most 1 rad (57 degrees)")
        for name in ("flux_range", "size_range"):
            low, high = getattr(self, name)
            if not 0 < low <= high < math.inf:
                raise ParameterError(f"{name} = ({low:g}, {high:g}) must be a range with 0 < low <= high")
        if self.correlations not in ("XX,YY", "XX,XY,YX,YY"):
            raise ParameterError(f"correlations = {self.correlations!r} must be XX,YY or XX,XY,YX,YY")
        unknown = [name for name in self.classes if name not in CLASSES]
        if unknown or not self.classes:
            raise ParameterError(f"classes = {','.join(self.classes)}: choose from {', '.join(CLASSES)}")
        if not abs(self.phase_centre[1]) <= math.pi / 2:
            raise ParameterError("phase_centre: the declination lies beyond the pole")
        if self.start_time is not None:
            _parse_time(self.start_time)

    @property
    def sigma(self) -> float:
        """Noise of the real and of the imaginary part of a visibility in Jy."""
        return self.sefd / math.sqrt(2 * self.chan_width * self.dtime)

    @property
    def mid_freq(self) -> float:
        """Middle of the band in Hz, where flux densities are given."""
        return self.start_freq + (self.nchan - 1) / 2 * self.chan_width


@dataclass(frozen=True)
class SimulationResult:
    """What was written: the measurement set, the true sky and the parameters (JSON)."""

    ms_path: Path
    catalogue_path: Path
    parameters_path: Path


def simulate(config: SimulateConfig, progress: Progress | None = None) -> SimulationResult:
    """Observe a sky and write the measurement set with its truth.

    Parameters
    ----------
    config : SimulateConfig
    progress : callable, optional
        Called as ``progress(step, fraction)``; nothing is printed.

    Returns
    -------
    SimulationResult

    Raises
    ------
    OutputError
        If the target exists (without ``overwrite``), is no measurement set or cannot be written.
    ParameterError
        If the field is too low in the sky, or the sources do not fit.
    Vis2imgError
        If simms is not installed or fails, or the catalogue cannot be read.
    """
    report = progress or (lambda step, fraction: None)
    result = _targets(config)
    streams = np.random.SeedSequence(config.seed).spawn(3)  # one each, so that noise does not change the sky
    sources = _sky(config, np.random.default_rng(streams[0]))
    with _staging(result.ms_path) as stage:
        new = _targets(dataclasses.replace(config, out=stage / result.ms_path.name, overwrite=False))
        try:
            start = _observe(config, sources, new.ms_path, int(streams[1].generate_state(1)[0]), report)
            report("weights and flags", 0.0)
            _complete(config, new.ms_path, start, np.random.default_rng(streams[2]))
        except Vis2imgError:
            raise
        except Exception as error:  # simms and casacore raise anything from RuntimeError to KeyError
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise Vis2imgError(f"the simulation of {result.ms_path} failed: {reason}") from error
        write_catalogue(sources, new.catalogue_path)
        _write_parameters(config, start, new.parameters_path)
        _publish(new, result, stage)
    report("done", 1.0)
    return result


def _check(config: SimulateConfig, name: str, legal: Callable[[float], bool], text: str) -> None:
    value = getattr(config, name)
    if not (math.isfinite(value) and legal(value)):
        raise ParameterError(f"{name} = {value:g} {text}")


def _parse_time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ParameterError(f"start_time = {text!r} is not a time; write YYYY-MM-DDTHH:MM:SS (UTC)") from None
    if time.tzinfo is not None:
        raise ParameterError(f"start_time = {text!r}: leave the time zone out, times are in UTC")
    return time


def _targets(config: SimulateConfig) -> SimulationResult:
    """Return the paths to write, after a look at what is there already."""
    out = Path(config.out)
    beside = [out.with_name(f"{out.name}.truth.{kind}") for kind in ("fits", "json")]
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
    return SimulationResult(out, *beside)


def _replaceable(path: Path) -> bool:
    """Whether ``path`` is an empty folder or a measurement set, and so may be removed on request."""
    if not path.is_dir():
        return False
    info = path / "table.info"
    is_ms = info.is_file() and "Measurement Set" in info.read_text(errors="replace").partition("\n")[0]
    return (is_ms and (path / "table.dat").is_file()) or not any(path.iterdir())


@contextlib.contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """Make a hidden folder beside ``out`` for the work in progress, and remove it whatever happens."""
    try:
        stage = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
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


def _write_parameters(config: SimulateConfig, start: datetime, path: Path) -> None:
    import simms

    from vis2img import __version__

    values = dataclasses.asdict(config)
    values.update(start_time=start.isoformat(), ref_freq=config.mid_freq, sigma=config.sigma)
    values["versions"] = {"vis2img": __version__, "simms": simms.__version__, "numpy": np.__version__}
    path.write_text(json.dumps(values, indent=2, default=str) + "\n")


def _sky(config: SimulateConfig, rng: np.random.Generator) -> list[SkySource]:
    if config.catalogue is not None:
        sources = read_user_catalogue(config.catalogue, config.mid_freq)
    else:
        sources = draw_sky(
            rng,
            config.phase_centre,
            config.fov,
            config.n_sources,
            config.classes,
            config.flux_range,
            config.size_range,
            config.min_separation,
            config.n_background,
            config.mid_freq,
        )
    points = [SkyComponent(ra, dec, flux, config.mid_freq) for ra, dec, flux in config.points]
    sources += [single_component_source(len(sources) + i, UNLABELLED, point) for i, point in enumerate(points)]
    components = [c for source in sources for c in source.components]
    if not components:
        raise ParameterError("the sky is empty; set n_sources, points or a catalogue with rows")
    ra, dec = np.array([(c.ra, c.dec) for c in components]).T
    n = direction_cosines(ra, dec, config.phase_centre)[:, 2]
    if np.any(n <= 0):
        raise ParameterError(f"{int(np.sum(n <= 0))} components lie more than 90 degrees from the phase centre")
    return sources


def _local_sidereal(time: datetime, longitude: float) -> float:
    """Return the local mean sidereal time in rad, good to a second (Meeus 1998, eq. 12.4)."""
    days = (time - datetime(2000, 1, 1, 12)) / timedelta(days=1)
    return math.radians(280.46061837 + 360.98564736629 * days) + longitude


def _start_time(config: SimulateConfig, longitude: float, latitude: float) -> datetime:
    """Return the start of the observation, checked to be above the elevation limit throughout."""
    ra, dec = config.phase_centre
    duration = timedelta(seconds=config.ntimes * config.dtime)
    if config.start_time is not None:
        start = _parse_time(config.start_time)
    else:
        wait = (ra - _local_sidereal(_DEFAULT_DAY, longitude)) % (2 * math.pi)
        transit = _DEFAULT_DAY + timedelta(days=wait / math.radians(360.98564736629))
        start = transit - duration / 2
        start = start.replace(microsecond=start.microsecond // 1000 * 1000)
    lowest = min(
        math.asin(
            math.sin(dec) * math.sin(latitude)
            + math.cos(dec) * math.cos(latitude) * math.cos(_local_sidereal(time, longitude) - ra)
        )
        for time in (start + duration * (i / 48) for i in range(49))
    )
    if lowest < MIN_ELEVATION:
        raise ParameterError(
            f"the field sinks to an elevation of {math.degrees(lowest):.0f} degrees between "
            f"{start:%Y-%m-%dT%H:%M:%S} and {start + duration:%H:%M:%S} UTC, "
            f"below {math.degrees(MIN_ELEVATION):.0f}; change start_time or phase_centre"
        )
    return start


class _Silent(contextlib.nullcontext):
    """Stands in for simms's progress bars that are not worth reporting."""

    def __init__(self, desc: str = "") -> None:
        super().__init__()


def _reporting(report: Progress) -> type:
    """Return a stand-in for simms's progress bar that passes the fraction done on to ``report``."""
    from dask.callbacks import Callback

    class Reporting(Callback):
        def __init__(self, desc: str = "") -> None:
            super().__init__()
            self.done = 0

        def _posttask(self, key: Any, result: Any, dsk: Any, state: Any, worker_id: Any) -> None:
            self.done += 1
            waiting = sum(len(state[name]) for name in ("waiting", "ready", "running"))
            report("predicting visibilities", self.done / (self.done + waiting))

    return Reporting


@contextlib.contextmanager
def _contained(report: Progress) -> Iterator[tuple[Any, Any]]:
    """Yield simms's two modules, kept from printing and from changing settings of this process.

    simms draws tqdm bars, adds log handlers, sets dask's global scheduler and would fetch earth orientation
    tables over the network; the tables installed with astropy are good to a second of time.
    """
    import dask
    from astropy.utils import iers

    with contextlib.ExitStack() as stack:
        stack.enter_context(_jax_precision_kept())
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(iers.conf.set_temp("auto_download", False))
        stack.enter_context(iers.conf.set_temp("auto_max_age", None))
        stack.enter_context(iers.conf.set_temp("iers_degraded_accuracy", "ignore"))
        stack.enter_context(dask.config.set(scheduler="threads", num_workers=_WORKERS))
        try:
            make, sky = map(importlib.import_module, ("simms.telescope.generate_ms", "simms.apps.skysim"))
        except ImportError as error:
            raise Vis2imgError(f"simulation needs simms: pip install 'vis2img[simulate]' ({error})") from error
        for module, bar in ((make, _Silent), (sky, _reporting(report))):
            stack.callback(setattr, module, "TqdmCallback", module.TqdmCallback)
            setattr(module, "TqdmCallback", bar)  # noqa: B010  (the type checker knows no such name)
            stack.callback(_restore_logger, module.log, list(module.log.handlers), module.log.level)
            module.log.setLevel(logging.CRITICAL)
        yield make, sky


@contextlib.contextmanager
def _jax_precision_kept() -> Iterator[None]:
    """Undo what codex-africanus, which simms imports, does to JAX: 64-bit numbers for the whole process."""

    def setting() -> Any:
        return sys.modules["jax"].config.jax_enable_x64 if "jax" in sys.modules else None

    before = setting()
    try:
        yield
    finally:
        if before is None:
            before = os.environ.get("JAX_ENABLE_X64", "").lower() in ("1", "true", "t", "yes", "on")
        if setting() not in (None, before):
            sys.modules["jax"].config.update("jax_enable_x64", before)


@contextlib.contextmanager
def _stderr_dropped() -> Iterator[None]:
    """Drop what is written to file descriptor 2: casacore's C++ complains there about keywords of its own."""
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def _restore_logger(log: logging.Logger, handlers: list[logging.Handler], level: int) -> None:
    log.handlers[:] = handlers
    log.setLevel(level)


def _observe(config: SimulateConfig, sources: list[SkySource], ms: Path, noise_seed: int, report: Progress) -> datetime:
    """Let simms write ``ms`` and predict the sky into it; return the start of the observation."""
    report("writing the measurement set", 0.0)
    corrs = config.correlations.split(",")
    rows = max(256, _BLOCK_SAMPLES // (config.nchan * len(corrs)))
    with _contained(report) as (make, sky):
        from simms.telescope.layouts import SIMMS_TELESCOPES

        if config.telescope not in SIMMS_TELESCOPES:
            known = ", ".join(sorted(SIMMS_TELESCOPES))
            raise ParameterError(f"simms knows no telescope {config.telescope!r}; choose from {known}")
        longitude, latitude = map(math.radians, SIMMS_TELESCOPES[config.telescope]["centre"][:2])
        start = _start_time(config, longitude, latitude)
        # simms centres the hour angles on the time it is given.
        middle = start + timedelta(seconds=config.ntimes * config.dtime / 2)
        with _stderr_dropped():
            make.create_ms(
                str(ms),
                config.telescope,
                ["J2000", *(f"{math.degrees(angle)!r}deg" for angle in config.phase_centre)],
                config.dtime,
                config.ntimes,
                config.start_freq,
                config.chan_width,
                config.nchan,
                corrs,
                rows,
                0.0,  # its own noise has no seed
                "DATA",
                start_time=middle.isoformat(timespec="milliseconds"),
            )
        table = ms.with_name("sky.txt")
        table.write_text(_ascii_sky(sources, config.phase_centre))
        sky.runit(_prediction_options(config, ms, table, rows, noise_seed))
    return start


def _prediction_options(config: SimulateConfig, ms: Path, sky: Path, rows: int, noise_seed: int) -> SimpleNamespace:
    """Return the options of simms's ``skysim``, without shinobi, which wraps it as a pipeline step."""
    unused = ["fits_sky", "wsclean_sky", "primary_beam", "chan_chunks", "source_schema"]
    unused += ["ascii_species", "ascii_delimiter", "input_column"]
    return SimpleNamespace(
        **dict.fromkeys(unused),
        ms=str(ms),
        ascii_sky=str(sky),
        column="DATA",
        mode="sim",
        polarisation=False,
        pol_basis="linear",
        field_id=0,
        spw_id=0,
        sefd=config.sefd or None,
        seed=noise_seed,
        nworkers=_WORKERS,
        row_chunks=rows,
        log_level="CRITICAL",
    )


def _ascii_sky(sources: list[SkySource], phase_centre: tuple[float, float]) -> str:
    """Return the components in the text form that simms reads, in its default units (deg, Jy, Hz)."""
    lines = ["#format: ra dec stokes_i emaj emin pa cont_reffreq cont_coeff_1"]
    for c in (component for source in sources for component in source.components):
        # simms takes position angles from the m axis, which is north at the phase centre only.
        dl, dm, _ = uvw_basis(*phase_centre) @ uvw_basis(c.ra, c.dec)[1]
        angles = (c.ra, c.dec, c.major, c.minor, c.pa + math.atan2(dl, dm))
        ra, dec, major, minor, pa = (repr(math.degrees(angle)) for angle in angles)
        lines.append(f"{ra} {dec} {c.flux!r} {major} {minor} {pa} {c.ref_freq!r} {c.spectral_index!r}")
    return "\n".join(lines) + "\n"


def _complete(config: SimulateConfig, ms: Path, start: datetime, rng: np.random.Generator) -> None:
    """Set the times, weights and flags of the main table, and the names and times in the sub-tables."""
    from casacore.tables import table

    mid_times = (np.arange(config.ntimes) + 0.5) * config.dtime + (start - _MJD_EPOCH).total_seconds()
    with contextlib.closing(table(str(ms), readonly=False, ack=False)) as main:
        nbl = main.nrows() // config.ntimes
        antennas = np.stack([main.getcol("ANTENNA1", 0, nbl), main.getcol("ANTENNA2", 0, nbl)])
        rfi, dropped = _draw_flags(rng, config.flag_fraction, config.ntimes, config.nchan, antennas)
        ncorr = len(config.correlations.split(","))
        full = np.ones((nbl, config.nchan, ncorr), dtype=np.float32)
        sigma = np.float32(config.sigma or 1.0)  # without noise every sample weighs 1
        for i, mid_time in enumerate(mid_times):  # rows are in order of time, all baselines of a time together
            flags = np.broadcast_to((rfi[i] | dropped[i, :, None])[:, :, None], full.shape)
            columns = {
                "TIME": np.full(nbl, mid_time),
                "TIME_CENTROID": np.full(nbl, mid_time),
                "FLAG": np.ascontiguousarray(flags),
                "FLAG_ROW": flags.all(axis=(1, 2)),
                "SIGMA": full[:, 0] * sigma,
                "WEIGHT": full[:, 0] / sigma**2,
                "SIGMA_SPECTRUM": full * sigma,
                "WEIGHT_SPECTRUM": full / sigma**2,
            }
            for name, values in columns.items():
                main.putcol(name, values, i * nbl, nbl)
    _complete_subtables(config, ms, mid_times)


def _complete_subtables(config: SimulateConfig, ms: Path, mid_times: np.ndarray) -> None:
    from casacore.tables import table

    ends = [[mid_times[0] - config.dtime / 2, mid_times[-1] + config.dtime / 2]]
    with contextlib.closing(table(f"{ms}::OBSERVATION", readonly=False, ack=False)) as observation:
        observation.putcol("TIME_RANGE", np.array(ends))
        observation.putcol("TELESCOPE_NAME", [_OBSERVATORY.get(config.telescope, config.telescope)])
    with contextlib.closing(table(f"{ms}::POINTING", readonly=False, ack=False)) as pointing:
        pointing.putcol("TIME", np.repeat(mid_times, pointing.nrows() // config.ntimes))
    with contextlib.closing(table(f"{ms}::SPECTRAL_WINDOW", readonly=False, ack=False)) as window:
        window.putcol("REF_FREQUENCY", np.array([config.start_freq]))  # simms writes a REF_FREQ instead


def _draw_flags(
    rng: np.random.Generator, fraction: float, ntimes: int, nchan: int, antennas: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Flag a ``fraction`` of the data: RFI [time, chan] and lost antennas [time, baseline].

    About a third of the flags are antennas missing for up to a quarter of the observation; the rest are
    blocks of up to an eighth of the band and a quarter of the time on all baselines, the last of which is
    cut so that the fraction is met to one channel at one time.

    Parameters
    ----------
    antennas : int [2, baseline]
    """
    rfi = np.zeros((ntimes, nchan), dtype=bool)
    dropped = np.zeros((ntimes, antennas.shape[1]), dtype=bool)
    numbers = np.unique(antennas)
    while True:
        start, length = rng.integers(ntimes), rng.integers(1, ntimes // 4 + 2)
        trial = dropped.copy()
        trial[start : start + length] |= np.any(antennas == rng.choice(numbers), axis=0)
        if trial.mean() > fraction * (1 - _RFI_SHARE):
            break
        dropped = trial
    # What one channel at one time adds, beyond the baselines that are flagged there already.
    gain = np.repeat(1 - dropped.mean(axis=1), nchan) / rfi.size
    missing = fraction - dropped.mean()
    while missing > gain.max() / 2:
        t, c = rng.integers(ntimes), rng.integers(nchan)
        span, width = rng.integers(1, ntimes // 4 + 2), rng.integers(1, nchan // 8 + 2)
        block = np.zeros_like(rfi)
        block[t : t + span, c : c + width] = True
        new = np.flatnonzero(block & ~rfi)
        new = new[np.cumsum(gain[new]) - gain[new] / 2 < missing]
        rfi.flat[new] = True
        missing -= gain[new].sum()
    return rfi, dropped
