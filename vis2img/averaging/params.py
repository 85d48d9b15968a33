"""Average visibilities in uv cells: fewer of them, the same picture within a stated tolerance.

    rows of an MS -> rotate to the facet centre -> fold to v >= 0 -> sum per (channel block, v, u, w cell) -> nodes

Samples j of a cell add sum_j w_j V_j exp(-2 pi i (du_j l + dv_j m)) to the image at (l, m), times the cell's phase.
One mean visibility at the mean (u, v) leaves an error of second order in (du l), a few per cent at the edge of the
facet with cells that pay. So a cell becomes up to three nodes, which share its weight and keep

- the samples' mean (u, v, w) and their variances along both principal axes,
- the mean visibility and its first moments sum_j w_j V_j du_j along these axes,

as a quadrature rule does: the error is of third order, whatever the sky, the weighting or the part of the uv plane.
Cells divide the density grid of :mod:`vis2img.imaging.weighting` for the facet into whole parts and nodes stay in their
cell, so that uniform and Briggs weights of the facet are those of the samples themselves.
:mod:`vis2img.averaging.cells` does the sums.

References
----------
Bridle & Schwab 1999, ASP Conf. 180, 371: smearing by averages.
Thompson, Moran & Swenson 2017, *Interferometry and Synthesis in Radio Astronomy*, ch. 3: phase rotation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vis2img.errors import ParameterError
from vis2img.imaging.params import ImagingParams, density_grid_size
from vis2img.shapes import Int
from vis2img.units import Angle, Direction, Npix

# Relative L2 error of the facet with cells of 1 / (k fov) is at most _ERROR / k^3: measured for natural, Briggs and
# uniform weights, snapshots and tracks (benchmarks/averaging.py). Cells as large as density cells do worse than that.
_ERROR = 0.1
_FEWEST = 2


@dataclass(frozen=True)
class AveragingParams:
    """The facet that averaged visibilities are for, how far they may be off, and what stays apart."""

    npix: Npix
    """Facet size in pixels, x[,y], as it will be imaged."""
    pixsize: Angle
    """Pixel size at the facet centre."""
    phase_centre: Direction
    """Facet centre as RA,DEC."""
    tolerance: float = 0.01
    """Relative L2 error of the facet's image, with sources all over it."""
    time_block: float = 3600.0
    """Seconds averaged together at most; images can choose among blocks."""
    channel_blocks: int = 1
    """Blocks of neighbouring channels kept apart; images can choose among them."""

    def __post_init__(self) -> None:
        ImagingParams(self.npix, self.pixsize, phase_centre=self.phase_centre)  # checks these three
        if not 1e-6 <= self.tolerance <= 0.1:
            raise ParameterError(f"tolerance = {self.tolerance} must be between 1e-6 and 0.1")
        if not self.time_block > 0:
            raise ParameterError(f"time_block = {self.time_block} s must be positive")
        if not 1 <= self.channel_blocks < 2000:
            raise ParameterError(f"channel_blocks = {self.channel_blocks} must be between 1 and 1999")

    @property
    def divisions(self) -> int:
        """Cells to a side of a cell of the density grid."""
        fewest = (_ERROR / self.tolerance) ** (1 / 3)  # k of 1 / (k fov)
        padding = min(density_grid_size(n) / n for n in self.npix)
        return max(_FEWEST, math.ceil(fewest / padding))

    @property
    def cell(self) -> tuple[float, float, float]:
        """Size of a cell in u, v, w, wavelengths.

        The spread of w loses 2 pi^2 dw^2 / 12 (n - 1)^2 of a source, at most the tolerance in the corners.
        """
        nx, ny = (density_grid_size(n) * self.divisions for n in self.npix)
        corner = sum((n * self.pixsize / 2) ** 2 for n in self.npix)
        depth = 1 - math.sqrt(1 - corner) if corner < 1 else 1.0
        dw = math.sqrt(12 * self.tolerance / (2 * math.pi**2)) / depth
        return 1 / (nx * self.pixsize), 1 / (ny * self.pixsize), dw

    def expected_error(self) -> float:
        """Return the relative L2 error of the facet image to expect; 0.5 to 1 of it was measured.

        Of sources in the facet: what is outside, and noise, which is everywhere, is not kept sample by sample.
        """
        fov = max(n * self.pixsize * size for n, size in zip(self.npix, self.cell[:2], strict=True))
        return _ERROR * fov**3

    @property
    def least_spread(self) -> float:
        """Standard deviation in cells below which samples count as being at one place along an axis.

        A spread of s cells loses 2 pi^2 s^2 (1 / 2 k)^2 of a source at the edge: here, tolerance / 4.
        """
        return math.sqrt(self.tolerance / 2) * self.divisions / math.pi

    def channel_block(self, nchan: int) -> Int[np.ndarray, " chan"]:
        """Return the block of each of ``nchan`` channels, int64 [chan]; blocks are as equal as can be."""
        if nchan < self.channel_blocks:
            raise ParameterError(f"channel_blocks = {self.channel_blocks}, but there are only {nchan} channels")
        return np.arange(nchan) * self.channel_blocks // nchan
