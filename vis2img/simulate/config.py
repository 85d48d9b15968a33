"""What is simulated: the typed configuration of an observation, and named presets."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vis2img.errors import ParameterError
from vis2img.simulate.instruments import band_named, sefd_at
from vis2img.simulate.sky.draw import ALL_CLASSES, CLASSES
from vis2img.units import ARCSEC, Angle, Direction

_DEFAULT_CENTRE = (math.radians(60), math.radians(-30))
_DEFAULT_FOV = math.radians(1)


@dataclass(frozen=True)
class SimulateConfig:
    """A simulated observation; the same values give the same measurement set, to the rounding of degridding."""

    out: Path
    """Measurement set to write; OUT.truth.fits and OUT.truth.json are written beside it."""
    telescope: str = "meerkat"
    """Array layout: meerkat, vla-a to vla-d, askap-like, skamid, or any other that simms knows."""
    band: str | None = None
    """Receiver band (MeerKAT: UHF, L, S0 to S4) that nchan channels cover, without start-freq and chan-width."""
    phase_centre: Direction = _DEFAULT_CENTRE
    """Pointing and phase centre as RA,DEC (J2000)."""
    start_time: str | None = None
    """Start in UTC, YYYY-MM-DDTHH:MM:SS; default: as hour-angle says, on 2026-01-01."""
    hour_angle: float = 0.0
    """Hour angle at mid-observation in hours, without start-time; 0: transit."""
    dtime: float = 8.0
    """Integration time in s."""
    ntimes: int = 60
    """Number of integrations."""
    start_freq: float | None = None
    """Centre of the first channel in Hz; default: as band says, else 1.2e9."""
    chan_width: float | None = None
    """Channel width in Hz; default: as band says, else 10e6. Without bandwidth smearing."""
    nchan: int = 16
    """Number of channels."""
    correlations: Literal["XX,YY", "XX,XY,YX,YY"] = "XX,YY"
    """Correlations written; the sky is unpolarised."""
    sefd: float | None = None
    """System equivalent flux density of one antenna in Jy; default: the telescope's, against frequency; 0: no noise."""
    primary_beam: bool = False
    """Attenuate the sky by the primary beam; fluxes in the catalogue stay those of the sky."""
    n_sources: int = 60
    """Number of labelled sources drawn, apart from each other."""
    classes: tuple[str, ...] = CLASSES
    """Classes drawn, in equal shares."""
    flux_range: tuple[float, float] = (1e-3, 1e-1)
    """Flux densities of labelled sources in Jy at the middle of the band."""
    size_range: tuple[Angle, Angle] = (20 * ARCSEC, 120 * ARCSEC)
    """Largest angular sizes of extended sources."""
    fov: Angle = _DEFAULT_FOV
    """Side of the square that sources are drawn in."""
    min_separation: Angle = 30 * ARCSEC
    """Least gap between two labelled sources."""
    cutouts: tuple[Path, ...] = ()
    """Pictures of real sources (FITS, or npz as MiraBest's), put on the sky with flux-range and size-range."""
    cutout_pixsize: Angle = 0.0
    """Pixel size of npz cutouts, for their catalogued sizes to tell source from neighbours (FIRST: 1.8arcsec)."""
    n_cutouts: int = 0
    """Number of labelled sources that are such pictures, besides n-sources."""
    cutout_part: tuple[int, int] = (0, 1)
    """Take them from one part, counted from 0, of so many parts that share no picture, so that fields of other parts
    can test what was learnt on this one. Of several observations each takes the next part."""
    counts_flux: float = 0.0
    """Fill the field with galaxies from this flux density in Jy on, as published 1.4 GHz counts say; 0: none.
    They may overlap each other and the labelled sources, which come on top."""
    clustering: float = 0.0
    """Share of those galaxies that is in groups."""
    n_background: int = 0
    """Number of faint points without a label, from a hundredth to a tenth of the lowest flux."""
    outside_flux: float = 0.0
    """Flux density in Jy of a bright source outside the field, at 0.75 to 1.2 fov from its centre; 0: none."""
    catalogue: Path | None = None
    """CSV or FITS table of sources to observe instead of drawn ones: ra_deg, dec_deg, flux_jy, ..."""
    points: tuple[tuple[float, float, float], ...] = ()
    """More points without a label: RA in rad, Dec in rad, flux in Jy."""
    gain_amplitude: float = 0.0
    """Residual gain errors: standard deviation of the amplitude of each antenna and feed."""
    gain_phase: Angle = 0.0
    """Residual gain errors: standard deviation of the phase."""
    gain_timescale: float = 600.0
    """Time in s over which gains stay alike."""
    bandpass_ripple: float = 0.0
    """Amplitude of a standing wave in the bandpass of each antenna."""
    ripple_period: float = 50e6
    """Period of that wave in Hz."""
    flag_fraction: float = 0.0
    """Fraction of the data flagged: blocks of channels and times, and antennas that drop out for a while."""
    missing_antennas: int = 0
    """Number of antennas that are flagged throughout."""
    seed: int = 0
    """Seed of sky, noise, gains and flags."""
    overwrite: bool = False
    """Replace an existing measurement set, once the new one is complete."""

    def __post_init__(self) -> None:
        for name in ("dtime", "start_freq", "chan_width", "fov", "gain_timescale", "ripple_period"):
            _check(self, name, lambda value: value > 0, "must be above 0")
        for name in ("ntimes", "nchan"):
            _check(self, name, lambda value: value >= 1, "must be at least 1")
        counts = ("n_sources", "n_cutouts", "n_background", "missing_antennas", "seed")
        amounts = ("min_separation", "counts_flux", "cutout_pixsize", "outside_flux", "sefd")
        for name in (*counts, *amounts, "gain_amplitude", "gain_phase", "bandpass_ripple"):
            _check(self, name, lambda value: value >= 0, "must not be negative")
        for name in ("flag_fraction", "clustering", "bandpass_ripple"):
            _check(self, name, lambda value: 0 <= value < 1, "must be at least 0 and below 1")
        _check(self, "fov", lambda value: value <= 1, "must be at most 1 rad (57 degrees)")
        _check(self, "hour_angle", lambda value: -12 <= value <= 12, "must be between -12 and 12 hours")
        for name in ("flux_range", "size_range"):
            low, high = getattr(self, name)
            if not 0 < low <= high < math.inf:
                raise ParameterError(f"{name} = ({low:g}, {high:g}) must be a range with 0 < low <= high")
        if self.correlations not in ("XX,YY", "XX,XY,YX,YY"):
            raise ParameterError(f"correlations = {self.correlations!r} must be XX,YY or XX,XY,YX,YY")
        unknown = [name for name in self.classes if name not in ALL_CLASSES]
        if unknown or not self.classes:
            raise ParameterError(f"classes = {','.join(self.classes)}: choose from {', '.join(ALL_CLASSES)}")
        if bool(self.n_cutouts) != bool(self.cutouts):
            raise ParameterError(f"n_cutouts = {self.n_cutouts} with {len(self.cutouts)} files of cutouts: give both")
        part, parts = self.cutout_part
        if not 0 <= part < parts:
            raise ParameterError(f"cutout_part = {part} {parts} must be a part from 0 on, below the number of parts")
        if not abs(self.phase_centre[1]) <= math.pi / 2:
            raise ParameterError("phase_centre: the declination lies beyond the pole")
        if self.start_time is not None:
            parse_time(self.start_time)
        self.channels  # noqa: B018  (raises where the band is not known)

    @property
    def channels(self) -> tuple[float, float]:
        """Centre of the first channel and width of all, Hz.

        Raises
        ------
        ParameterError
            If the telescope has no such band.
        """
        start, width = self.start_freq, self.chan_width
        if self.band is None or (start is not None and width is not None):
            return 1.2e9 if start is None else start, 10e6 if width is None else width
        band = band_named(self.telescope, self.band)
        width = (band.stop - band.start) / self.nchan if width is None else width
        return band.start + width / 2 if start is None else start, width

    @property
    def chan_freq(self) -> np.ndarray:
        """Channel centres in Hz, float64 [chan]."""
        start, width = self.channels
        return start + width * np.arange(self.nchan)

    @property
    def sigma(self) -> np.ndarray:
        """Noise of the real and of the imaginary part of a visibility in Jy, float64 [chan].

        The radiometer equation (Thompson, Moran & Swenson 2017, section 6.2): SEFD / sqrt(2 chan_width dtime).

        Raises
        ------
        ParameterError
            If the telescope's SEFD is not known and none is given.
        """
        sefd = sefd_at(self.telescope, self.chan_freq) if self.sefd is None else np.full(self.nchan, self.sefd)
        return sefd / math.sqrt(2 * self.channels[1] * self.dtime)

    @property
    def mid_freq(self) -> float:
        """Middle of the band in Hz, where flux densities are given."""
        start, width = self.channels
        return start + (self.nchan - 1) / 2 * width

    def record(self) -> dict[str, Any]:
        """Return the values as JSON can hold them, without what does not change the data; files by their contents."""
        values = {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(SimulateConfig)}
        return {name: value for name, value in values.items() if name not in ("out", "overwrite")}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if not isinstance(value, Path):
        return value
    files = sorted(value.iterdir()) if value.is_dir() else [value]
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            digest.update(file.read_bytes())
    return f"{value.name} sha256 {digest.hexdigest()[:16]}"


def _check(config: SimulateConfig, name: str, legal: Callable[[float], bool], text: str) -> None:
    value = getattr(config, name)
    if value is not None and not (math.isfinite(value) and legal(value)):
        raise ParameterError(f"{name} = {value:g} {text}")


def parse_time(text: str) -> datetime:
    """Return a time in UTC.

    Raises
    ------
    ParameterError
        If it is no time, or has a time zone.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ParameterError(f"start_time = {text!r} is not a time; write YYYY-MM-DDTHH:MM:SS (UTC)") from None
    if time.tzinfo is not None:
        raise ParameterError(f"start_time = {text!r}: leave the time zone out, times are in UTC")
    return time


_REAL = {
    "band": "L",
    "primary_beam": True,
    "gain_amplitude": 0.01,
    "gain_phase": math.radians(1),
    "bandpass_ripple": 0.003,
    "flag_fraction": 0.15,
    "missing_antennas": 3,
    "outside_flux": 0.5,
}
PRESETS: dict[str, dict[str, Any]] = {
    # A first look: seconds, and no trouble in the data.
    "quick": {"ntimes": 30, "nchan": 8, "n_sources": 40},
    # MGCLS (Knowles et al. 2022, A&A 657, A56): 6 to 10 h on galaxy clusters at L band, to 3 to 5 uJy/beam.
    "mgcls-like": {
        **_REAL,
        "ntimes": 240,
        "dtime": 120.0,
        "nchan": 32,
        "fov": math.radians(1.4),
        "classes": ("halo", "relic", "fri", "frii", "wat", "nat", "hybrid", "ring", "ddrg", "compact"),
        "n_sources": 50,
        "flux_range": (2e-3, 0.2),
        "size_range": (20 * ARCSEC, 300 * ARCSEC),
        "counts_flux": 5e-5,
    },
    # MIGHTEE (Jarvis et al. 2016, PoS MeerKAT2016, 006): deep L-band fields; a third of the SEFD stands
    # for the noise of nine nights.
    "mightee-like": {
        **_REAL,
        "ntimes": 240,
        "dtime": 120.0,
        "sefd": 140.0,
        "nchan": 32,
        "fov": math.radians(1.4),
        "n_sources": 20,
        "classes": ("fri", "frii", "hybrid", "wat", "nat", "ddrg", "ring", "compact"),
        "flux_range": (5e-4, 2e-2),
        "size_range": (10 * ARCSEC, 90 * ARCSEC),
        "counts_flux": 2e-5,
        "clustering": 0.1,
        "outside_flux": 0.1,
    },
}
"""Values by which a preset differs from the defaults."""
