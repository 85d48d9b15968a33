"""A prior over imaging parameters: what varies from one draw of a field to the next, and how far.

Every draw replays from (seed, field, index): ``prior.draw(draw_rng(seed, field, index))``. Ranges are relative
(:mod:`vis2img.draws.presets`); with the pixel and the field of view that suit a field they are its prior.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from vis2img.draws.presets import PRESETS, PriorConfig
from vis2img.errors import ParameterError
from vis2img.imaging.params import MIN_NPIX, ImagingParams
from vis2img.random import log_uniform
from vis2img.units import Angle

if TYPE_CHECKING:
    from vis2img.dataset import Dataset
    from vis2img.ms.selection import Selection


@dataclass(frozen=True)
class ImagingPrior:
    """The ranges of a :class:`PriorConfig` in the angles and wavelengths of one field.

    Raises
    ------
    ParameterError
        If the field holds fewer than 32 of the largest pixels.
    """

    fov: Angle
    """Side of the square field that every draw covers."""
    unit: Angle
    """Pixel size that ranges of angles are counted in: the suggested pixel, a third of the finest fringe."""
    ranges: PriorConfig = PRESETS["full"]

    def __post_init__(self) -> None:
        if not self.unit > 0 or self.fov / self.pixsize[1] < MIN_NPIX:
            raise ParameterError(
                f"prior fov {self.fov:.3g} rad holds fewer than {MIN_NPIX} pixels of {self.pixsize[1]:.3g} rad"
            )

    @classmethod
    def for_ms(
        cls,
        ms: Dataset,
        selection: Selection | None = None,
        *,
        npix: int | None = None,
        config: PriorConfig = PRESETS["full"],
    ) -> ImagingPrior:
        """Return the prior ``config`` in the angles and wavelengths that suit the resolution of ``ms``.

        Parameters
        ----------
        ms : Dataset
            Its longest baseline at the highest frequency of the selected spectral windows, 1 / (3 suggested pixels),
            is the unit of the uv range; of averaged data, the pixel that they were averaged for stands for it.
        selection : Selection, optional
            Field and spectral window.
        npix : int, optional
            Sets the field of view: ``npix`` pixels of the suggested size; default: the primary beam, at most 2048.
        config : PriorConfig
            Relative ranges; default: the preset ``full``.

        Raises
        ------
        MeasurementSetError
            If no baseline has a length.
        ParameterError
            If the field holds fewer than 32 of the largest pixels.
        """
        params = ms.imaging_params(selection, npix=npix)
        if not ms.has_baselines:  # they no longer know their antennas, and their time blocks are few
            config = replace(config, keep_antennas=(1.0, 1.0), keep_times=(1.0, 1.0))
        return cls(min(1.6, *params.fov), params.pixsize, config)

    @property
    def pixsize(self) -> tuple[float, float]:
        """Smallest and largest pixel, rad; the image size follows from the field of view."""
        return _scaled(self.ranges.pixsize, self.unit)

    @property
    def taper(self) -> tuple[float, float]:
        """FWHM of the Gaussian taper, rad."""
        return _scaled(self.ranges.taper, self.unit)

    @property
    def uv_min(self) -> tuple[float, float]:
        """Shortest baseline kept, wavelengths."""
        return _scaled(self.ranges.uv_min, 1 / (3 * self.unit))

    @property
    def uv_max(self) -> tuple[float, float]:
        """Longest baseline kept, wavelengths."""
        return _scaled(self.ranges.uv_max, 1 / (3 * self.unit))

    @property
    def suggested_pixsize(self) -> float:
        """The suggested pixel, rad, with the rounding of the ranges: so the views of earlier runs stay as they were."""
        return self.pixsize[0] / self.ranges.pixsize[0]

    @property
    def varies(self) -> bool:
        """Whether two draws may differ."""
        return self.ranges.varies

    def reach(self, patch: float) -> float:
        """Return the largest |l| and |m| of the centre of a patch of side ``patch``, rad; negative if it does not fit.

        A pixel to spare: images reach half a pixel less far on one side than on the other.
        """
        return (self.fov - patch) / 2 - self.pixsize[1]

    def fixed(self) -> ImagingPrior:
        """Return the prior without variation: Briggs 0, all data, the middle pixel scale.

        It is the classical baseline, and how a patch is imaged for evaluation.
        """
        middle = math.sqrt(self.pixsize[0] * self.pixsize[1])
        return ImagingPrior(self.fov, middle, replace(PRESETS["image-only"], epsilon=self.ranges.epsilon))

    def draw(self, rng: np.random.Generator) -> ImagingParams:
        """Return one set of imaging parameters; the same generator state gives the same parameters.

        Each parameter takes its own random numbers whether it varies or not, so that a parameter that varies alike in
        two priors has the same value in both: draw 3 of ``weighting-only`` is weighted as draw 3 of ``full``.
        """
        ranges, (smallest, largest), uv_max = self.ranges, self.pixsize, self.uv_max
        pixsize = log_uniform(rng, (smallest, largest))
        npix = 2 * math.ceil(self.fov / pixsize / 2 - 1e-9)

        count = len(ranges.weightings)
        weighting = ranges.weightings[int(rng.integers(max(2, count))) % count]  # integers(1) would take no number
        robust, taper = rng.uniform(*ranges.robust), rng.uniform(*self.taper)
        tapered = rng.random() < ranges.taper_probability

        shortest = rng.uniform(*self.uv_min)
        bounded = not math.isinf(uv_max[1])
        longest = rng.uniform(*(uv_max if bounded else (0.0, 1.0)))

        band, time_span = (_span(rng, *limits) for limits in (ranges.band_fraction, ranges.time_fraction))
        keeps = [rng.uniform(*limits) for limits in (ranges.keep_times, ranges.keep_antennas, ranges.keep_baselines)]
        return ImagingParams(
            npix=(npix, npix),
            pixsize=pixsize,
            weighting=weighting,
            robust=robust if weighting == "briggs" else 0.0,
            taper=taper if tapered else 0.0,
            uvrange=(shortest, longest if bounded else math.inf),
            epsilon=ranges.epsilon,
            band=band,
            time_span=time_span,
            keep_times=keeps[0],
            keep_antennas=keeps[1],
            keep_baselines=keeps[2],
            sampling_seed=int(rng.integers(2**31)),
        )


def _scaled(limits: tuple[float, float], unit: float) -> tuple[float, float]:
    return limits[0] * unit, limits[1] * unit


def _span(rng: np.random.Generator, low: float, high: float) -> tuple[float, float]:
    """Return the ends of a part of 0 to 1 of random length (low to high) at a random place."""
    length = rng.uniform(low, high)
    start = rng.uniform(0.0, 1.0 - length)
    return start, min(1.0, start + length)
