"""A prior over imaging parameters: what varies from one draw of a field to the next, and how far.

Every draw replays from (seed, field, index): ``prior.draw(draw_rng(seed, field, index))``. The ranges of a
measurement set follow from relative ones: :mod:`vis2img.draws.presets`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from vis2img.draws.presets import PRESETS, PriorConfig
from vis2img.errors import ParameterError
from vis2img.imaging.params import MIN_NPIX, ImagingParams, Weighting
from vis2img.units import Angle

if TYPE_CHECKING:
    from vis2img.dataset import Dataset
    from vis2img.ms.selection import Selection


@dataclass(frozen=True)
class ImagingPrior:
    """Ranges that imaging parameters are drawn from, uniformly unless said otherwise.

    A range whose ends agree fixes the parameter.
    """

    fov: Angle
    """Side of the square field that every draw covers."""
    pixsize: tuple[Angle, Angle]
    """Pixel scale, smallest and largest; log-uniform. The image size follows from the field of view."""
    weightings: tuple[Weighting, ...] = ("natural", "briggs", "briggs", "uniform")
    """Weightings to choose from, alike likely; repeat one to make it likelier."""
    robust: tuple[float, float] = (-1.5, 1.5)
    """Briggs robustness."""
    taper: tuple[Angle, Angle] = (0.0, 0.0)
    """FWHM of the Gaussian taper."""
    taper_probability: float = 0.5
    """How often a draw is tapered at all."""
    uv_min: tuple[float, float] = (0.0, 0.0)
    """Shortest baseline kept, wavelengths: hides extended emission."""
    uv_max: tuple[float, float] = (math.inf, math.inf)
    """Longest baseline kept, wavelengths: lowers the resolution."""
    band_fraction: tuple[float, float] = (0.4, 1.0)
    """Width of the contiguous part of the band that is kept, at a random place in the band."""
    time_fraction: tuple[float, float] = (0.4, 1.0)
    """Length of the contiguous part of the observation that is kept, at a random place in time."""
    keep_times: tuple[float, float] = (0.7, 1.0)
    """Fraction of its timesteps kept at random."""
    keep_antennas: tuple[float, float] = (0.8, 1.0)
    """Fraction of the antennas kept at random."""
    keep_baselines: tuple[float, float] = (0.7, 1.0)
    """Fraction of the baselines kept at random."""
    epsilon: float = 1e-4
    """Accuracy of gridding; the same in every draw."""

    def __post_init__(self) -> None:
        for name in ("robust", "taper", "uv_min", "uv_max", "pixsize"):
            low, high = getattr(self, name)
            if not low <= high or (name != "robust" and low < 0):
                raise ParameterError(f"prior {name} = ({low}, {high}) must be (low, high) with low <= high")
        for name in ("band_fraction", "time_fraction", "keep_times", "keep_antennas", "keep_baselines"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise ParameterError(f"prior {name} = ({low}, {high}) must be fractions, 0 < low <= high <= 1")
        if not 0 <= self.taper_probability <= 1:
            raise ParameterError(f"prior taper_probability = {self.taper_probability} must be from 0 to 1")
        if not (self.robust[0] >= -5 and self.robust[1] <= 5):
            raise ParameterError(f"prior robust = {self.robust} must lie within -5 to 5")
        if not 1e-5 <= self.epsilon <= 1e-2:
            raise ParameterError(f"prior epsilon = {self.epsilon} must be from 1e-5 to 1e-2")
        if not self.weightings:
            raise ParameterError("prior weightings is empty")
        if self.uv_min[1] >= self.uv_max[0]:
            raise ParameterError("prior uv_min must stay below uv_max")
        if not self.pixsize[0] > 0 or self.fov / self.pixsize[1] < MIN_NPIX:
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
        params = ms.imaging_params(selection, **({} if npix is None else {"npix": npix}))
        uv_max = 1 / (3 * params.pixsize)
        prior = cls(
            fov=min(1.6, *params.fov),
            pixsize=_scaled(config.pixsize, params.pixsize),
            weightings=config.weightings,
            robust=config.robust,
            taper=_scaled(config.taper, params.pixsize),
            taper_probability=config.taper_probability,
            uv_min=_scaled(config.uv_min, uv_max),
            uv_max=_scaled(config.uv_max, uv_max),
            band_fraction=config.band_fraction,
            time_fraction=config.time_fraction,
            keep_times=config.keep_times,
            keep_antennas=config.keep_antennas,
            keep_baselines=config.keep_baselines,
            epsilon=config.epsilon,
        )
        # Averages no longer know their antennas, and their time blocks are few.
        return prior if ms.has_baselines else replace(prior, keep_antennas=(1.0, 1.0), keep_times=(1.0, 1.0))

    @property
    def varies(self) -> bool:
        """Whether two draws may differ."""
        spans = ("band_fraction", "time_fraction", "keep_times", "keep_antennas", "keep_baselines")
        ranges = (self.pixsize, self.uv_min, self.uv_max, *((getattr(self, name)[0], 1.0) for name in spans))
        weighted = len(set(self.weightings)) > 1 or ("briggs" in self.weightings and self.robust[0] < self.robust[1])
        tapered = self.taper_probability > 0 and self.taper[1] > 0
        return (
            weighted
            or (tapered and (self.taper_probability < 1 or self.taper[0] < self.taper[1]))
            or any(low < high for low, high in ranges)
        )

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
        return ImagingPrior(
            fov=self.fov,
            pixsize=(middle, middle),
            weightings=("briggs",),
            robust=(0.0, 0.0),
            taper_probability=0.0,
            band_fraction=(1.0, 1.0),
            time_fraction=(1.0, 1.0),
            keep_times=(1.0, 1.0),
            keep_antennas=(1.0, 1.0),
            keep_baselines=(1.0, 1.0),
            epsilon=self.epsilon,
        )

    def draw(self, rng: np.random.Generator) -> ImagingParams:
        """Return one set of imaging parameters; the same generator state gives the same parameters.

        Each parameter takes its own random numbers whether it varies or not, so that a parameter that varies alike in
        two priors has the same value in both: draw 3 of ``weighting-only`` is weighted as draw 3 of ``full``.
        """
        pixsize = math.exp(rng.uniform(math.log(self.pixsize[0]), math.log(self.pixsize[1])))
        npix = 2 * math.ceil(self.fov / pixsize / 2 - 1e-9)
        count = len(self.weightings)
        weighting = self.weightings[int(rng.integers(max(2, count))) % count]  # integers(1) would take no number
        robust, taper = rng.uniform(*self.robust), rng.uniform(*self.taper)
        tapered = rng.random() < self.taper_probability
        uv_min = rng.uniform(*self.uv_min)
        bounded = not math.isinf(self.uv_max[1])
        uv_max = rng.uniform(*(self.uv_max if bounded else (0.0, 1.0)))
        spans = [_span(rng, *limits) for limits in (self.band_fraction, self.time_fraction)]
        keeps = [rng.uniform(*limits) for limits in (self.keep_times, self.keep_antennas, self.keep_baselines)]
        return ImagingParams(
            npix=(npix, npix),
            pixsize=pixsize,
            weighting=weighting,
            robust=robust if weighting == "briggs" else 0.0,
            taper=taper if tapered else 0.0,
            uvrange=(uv_min, uv_max if bounded else math.inf),
            epsilon=self.epsilon,
            band=spans[0],
            time_span=spans[1],
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
