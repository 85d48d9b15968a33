"""What to read of a measurement set (:class:`Selection`) and how to image it (:class:`ImagingParams`).

Both are small frozen values, validated when made, that travel with the image they made: into FITS
headers, draws and embeddings. ``ImagingParams`` is flat, so that it can live in an array.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from vis2img.errors import ParameterError
from vis2img.units import Angle, Direction, Npix, UVRange

MIN_NPIX = 32  # ducc0's smallest image side
EPSILON_LIMITS = (1e-5, 1e-2)  # single precision's limit, and where errors are seen in the picture
_PADDING = 1.2  # WSClean's default image padding, which its density grid follows
Weighting = Literal["natural", "uniform", "briggs"]


@dataclass(frozen=True)
class ImagingParams:
    """How visibilities become one dirty image: geometry, weights, taper and uv sampling.

    The sampling fields (``band`` to ``sampling_seed``) thin the data out at random and are what a
    prior varies; their defaults keep everything.
    """

    npix: Npix
    """Image size in pixels, x[,y]; even numbers of at least 32."""
    pixsize: Angle
    """Pixel size at the image centre."""
    weighting: Weighting = "briggs"
    """Density weighting (Briggs 1995): natural, uniform or briggs."""
    robust: float = 0.0
    """Briggs robustness, from -2 (uniform) to 2 (natural)."""
    taper: Angle = 0.0
    """FWHM on the sky of a Gaussian taper; 0arcsec: none."""
    uvrange: UVRange = (0.0, math.inf)
    """Baseline lengths kept, min:max in wavelengths."""
    tukey_taper: float = 0.0
    """Width in wavelengths of a Tukey transition from 1 to 0 below the upper end of uvrange; 0: none."""
    tukey_inner_taper: float = 0.0
    """Width in wavelengths of a Tukey transition from 0 to 1 above the lower end of uvrange; 0: none."""
    taper_by: Literal["cell", "sample"] = "cell"
    """Tapers and uvrange apply to cells of the density grid at their lower corner, as WSClean does, or to each
    sample at its own (u, v)."""
    rank_filter: float = 3.0
    """Density weights above this many times the mean of the 16 x 16 cells around are cut to it; WSClean's default
    is 3; 0: none."""
    epsilon: float = 1e-4
    """Accuracy of gridding, relative L2, at least 1e-5; 1e-4 is that of WSClean's w-gridder."""
    phase_centre: Direction | None = None
    """Image centre as RA,DEC; default: the phase centre of the field."""
    band: tuple[float, float] = (0.0, 1.0)
    """Part of the selected channels that is kept, as fractions from the lowest to the highest frequency."""
    time_span: tuple[float, float] = (0.0, 1.0)
    """Part of the selected time range that is kept, as fractions from the first to the last timestep."""
    keep_times: float = 1.0
    """Fraction of the remaining timesteps that is kept at random."""
    keep_antennas: float = 1.0
    """Fraction of the antennas that is kept at random."""
    keep_baselines: float = 1.0
    """Fraction of the remaining baselines that is kept at random."""
    sampling_seed: int = 0
    """Seed of the random choices above."""

    def __post_init__(self) -> None:
        for axis, n in zip("xy", self.npix, strict=True):
            if n < MIN_NPIX or n % 2:
                near = max(MIN_NPIX, n - n % 2)
                raise ParameterError(
                    f"npix_{axis} = {n}: image sides must be even and at least {MIN_NPIX}; use {near} or {near + 2}"
                )
        _positive("pixsize", self.pixsize)
        if max(self.npix) * self.pixsize > 2.0:
            fov_deg = math.degrees(max(self.npix) * self.pixsize)
            raise ParameterError(
                f"the image would span {fov_deg:.0f} degrees, beyond the hemisphere of the SIN projection; "
                "choose a smaller npix or pixsize (at most 114 degrees)"
            )
        if self.weighting not in ("natural", "uniform", "briggs"):
            raise ParameterError(f"weighting {self.weighting!r} is unknown; use natural, uniform or briggs")
        if not -5 <= self.robust <= 5:
            raise ParameterError(f"robust = {self.robust} is outside -5 to 5 (usual values are -2 to 2)")
        if not (math.isfinite(self.taper) and self.taper >= 0):
            raise ParameterError(f"taper = {self.taper} rad must be a FWHM of at least 0")
        if not 0 <= self.uvrange[0] < self.uvrange[1]:
            raise ParameterError(f"uvrange {self.uvrange} keeps nothing; write min:max with 0 <= min < max")
        for name in ("tukey_taper", "tukey_inner_taper"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ParameterError(f"{name} = {getattr(self, name)} must be a width of at least 0 wavelengths")
        if self.tukey_taper > 0 and math.isinf(self.uvrange[1]):
            raise ParameterError("tukey_taper ends at the longest baseline of uvrange, which is not set; give min:max")
        if self.taper_by not in ("cell", "sample"):
            raise ParameterError(f"taper_by {self.taper_by!r} is unknown; use cell or sample")
        if self.rank_filter != 0 and not self.rank_filter >= 1:
            raise ParameterError(f"rank_filter = {self.rank_filter} must be at least 1, or 0 for none")
        if not EPSILON_LIMITS[0] <= self.epsilon <= EPSILON_LIMITS[1]:
            raise ParameterError(f"epsilon = {self.epsilon} is outside 1e-5 (single precision's limit) to 1e-2")
        if self.phase_centre is not None:
            ra, dec = self.phase_centre
            if not (math.isfinite(ra) and abs(dec) <= math.pi / 2):
                raise ParameterError(f"phase_centre ({ra}, {dec}) must be RA and Dec in rad, Dec within +-pi/2")
        for name in ("band", "time_span"):
            low, high = getattr(self, name)
            if not 0 <= low < high <= 1:
                raise ParameterError(f"{name} = ({low}, {high}) must be fractions with 0 <= low < high <= 1")
        for name in ("keep_times", "keep_antennas", "keep_baselines"):
            if not 0 < getattr(self, name) <= 1:
                raise ParameterError(f"{name} = {getattr(self, name)} must be a fraction above 0 and at most 1")
        if self.sampling_seed < 0:
            raise ParameterError("sampling_seed must not be negative")

    @property
    def fov(self) -> tuple[float, float]:
        """Field of view (x, y) in radians."""
        return self.npix[0] * self.pixsize, self.npix[1] * self.pixsize

    @property
    def density_cell(self) -> tuple[float, float]:
        """Size of a cell of the density grid in u and v, wavelengths."""
        nx, ny = (density_grid_size(n) for n in self.npix)
        return 1 / (nx * self.pixsize), 1 / (ny * self.pixsize)

    @property
    def kept_share(self) -> float:
        """Fraction of the visibilities that the sampling fields keep, as is to be expected."""
        band, span = self.band[1] - self.band[0], self.time_span[1] - self.time_span[0]
        return band * span * self.keep_times * self.keep_antennas**2 * self.keep_baselines

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as written to FITS headers, tables and JSON (infinity as None)."""
        record = dataclasses.asdict(self)
        low, high = record["uvrange"]
        record["uvrange"] = (low, None if math.isinf(high) else high)
        return record

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> ImagingParams:
        """Rebuild the parameters that :meth:`to_dict` wrote.

        Raises
        ------
        ParameterError
            If a key is unknown or a value illegal.
        """
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in record.items()}
        unknown = set(values) - {f.name for f in dataclasses.fields(cls)}
        if unknown:
            raise ParameterError(f"unknown imaging parameter {', '.join(sorted(unknown))}")
        if "uvrange" in values and values["uvrange"][1] is None:
            values["uvrange"] = (values["uvrange"][0], math.inf)
        return cls(**values)


def density_grid_size(npix: int) -> int:
    """Return the side of WSClean's density grid: ``npix`` padded by 1.2, rounded up to a multiple of 4."""
    padded = math.ceil(npix * _PADDING)
    return -(-padded // 4) * 4


def _positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ParameterError(f"{name} = {value} must be a positive number")
