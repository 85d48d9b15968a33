"""The imaging prior as data: relative ranges that suit any telescope, named presets, and YAML files of them.

A :class:`PriorConfig` counts in suggested pixels (a third of the finest fringe) and in longest baselines;
:meth:`vis2img.draws.prior.ImagingPrior.for_ms` turns it into the angles and wavelengths of one measurement set.
"""

from __future__ import annotations

import json
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vis2img.configs.load import build, read_config
from vis2img.configs.records import to_record
from vis2img.configs.values import advice
from vis2img.errors import ParameterError
from vis2img.imaging.params import EPSILON_LIMITS, Weighting

Range = tuple[float, float]
_LIMITS = {
    "pixsize": (0.1, 10.0),
    "robust": (-5.0, 5.0),
    "taper": (0.0, 1e3),
    "uv_min": (0.0, 1.0),
    "uv_max": (0.0, 10),
}
_FRACTIONS = ("band_fraction", "time_fraction", "keep_times", "keep_antennas", "keep_baselines")
_RANGES = (*_LIMITS, *_FRACTIONS)


@dataclass(frozen=True)
class PriorConfig:
    """How far each imaging parameter varies from draw to draw, uniformly unless said otherwise.

    A range whose ends agree fixes the parameter. Without arguments this is the preset ``full``.

    Raises
    ------
    ParameterError
        If a value is outside its legal range; one line that names it.
    """

    pixsize: Range = (0.85, 1.18)
    """Pixel size, times the suggested pixel (a third of the finest fringe); log-uniform, from 0.1 to 10. It says
    how many pixels a beam has, over the same field; above 1.5 the longest baselines fall off the grid."""
    weightings: tuple[Weighting, ...] = ("natural", "briggs", "briggs", "uniform")
    """Weightings to choose from, alike likely; name one twice to make it likelier. natural: least noise, broad beam
    with wide wings; uniform: sharpest beam, most noise; briggs: between them, as robust says."""
    robust: Range = (-1.5, 1.5)
    """Briggs robustness, from -5 to 5 (-2: uniform, 2: natural). Low values sharpen the beam and lower its sidelobes,
    high ones lower the noise and bring out faint extended emission."""
    taper: Range = (1.5, 4.0)
    """FWHM on the sky of the Gaussian taper, in suggested pixels; from 0 to 1000. It weighs long baselines down: lower
    resolution, fewer near sidelobes, better view of extended emission."""
    taper_probability: float = 0.5
    """How often a draw is tapered at all, from 0 to 1."""
    uv_min: Range = (0.0, 0.01)
    """Shortest baseline kept, as a fraction of the longest one at the highest frequency; from 0 to 1. It hides emission
    wider than about 3 / uv_min suggested pixels, and digs negative bowls around what is left."""
    uv_max: Range = (0.6, 1.2)
    """Longest baseline kept, in the same units, up to 10; inf inf: no limit. Below 1 it lowers the resolution and
    adds the sidelobes of a hard edge; well above 1 nothing is cut."""
    band_fraction: Range = (0.4, 1.0)
    """Width of the contiguous part of the band that is kept, at a random place; above 0, at most 1. It moves the
    observing frequency: beam, spectra and primary beam change, noise grows, uv tracks grow thinner."""
    time_fraction: Range = (0.4, 1.0)
    """Length of the contiguous part of the observation that is kept, at a random place; above 0, at most 1. Shorter
    tracks leave larger holes in the uv plane: other sidelobes, a longer beam, more noise."""
    keep_times: Range = (0.7, 1.0)
    """Fraction of its timesteps kept at random; above 0, at most 1. It thins uv tracks out evenly: more noise, hardly
    another beam. Always 1 with averaged data, whose time blocks are few."""
    keep_antennas: Range = (0.8, 1.0)
    """Fraction of the antennas kept at random, as if the others had dropped out; above 0, at most 1. Beam, sidelobes
    and noise change. Always 1 with averaged data, which no longer know their antennas."""
    keep_baselines: Range = (0.7, 1.0)
    """Fraction of the baselines (of averaged data: uv cells) kept at random, as if flagged; above 0, at most 1. Whole
    tracks go missing: other sidelobes, more noise."""
    epsilon: float = 1e-3
    """Accuracy of gridding, relative L2, from 1e-5 to 1e-2. It does not vary. Larger is faster; the error grows with
    the brightest source of the field, so stay below one over the dynamic range that matters."""

    def __post_init__(self) -> None:
        for name, (least, most) in _LIMITS.items():
            low, high = getattr(self, name)
            if not (least <= low <= high and (high <= most or (name == "uv_max" and low == math.inf))):
                raise ParameterError(
                    f"prior {name} = [{low:g}, {high:g}] must be [low, high] from {least:g} to {most:g}, low <= high"
                )
        for name in _FRACTIONS:
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise ParameterError(f"prior {name} = [{low:g}, {high:g}] must be fractions, 0 < low <= high <= 1")
        if not self.uv_min[1] < self.uv_max[0]:
            raise ParameterError(
                f"prior uv_min = [{self.uv_min[0]:g}, {self.uv_min[1]:g}] must stay below "
                f"uv_max = [{self.uv_max[0]:g}, {self.uv_max[1]:g}], or a draw could keep nothing"
            )
        if not 0 <= self.taper_probability <= 1:
            raise ParameterError(f"prior taper_probability = {self.taper_probability:g} must be from 0 to 1")
        least, most = EPSILON_LIMITS
        if not least <= self.epsilon <= most:
            raise ParameterError(f"prior epsilon = {self.epsilon:g} must be from {least:g} to {most:g}")
        names = typing.get_args(Weighting)
        if not self.weightings:
            raise ParameterError(f"prior weightings is empty; name some of {', '.join(names)}")
        for each in self.weightings:
            if each not in names:
                raise ParameterError(f"prior weightings: {each!r} is unknown{advice(each, names)}")

    @property
    def varies(self) -> bool:
        """Whether two draws may differ."""
        tapered = self.taper_probability > 0 and self.taper[1] > 0
        return (
            len(set(self.weightings)) > 1
            or ("briggs" in self.weightings and self.robust[0] < self.robust[1])
            or (tapered and (self.taper_probability < 1 or self.taper[0] < self.taper[1]))
            or any(low < high for low, high in (self.pixsize, self.uv_min, self.uv_max))
            or any(getattr(self, name)[0] < 1 for name in _FRACTIONS)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for YAML and JSON: ranges as [low, high], no limit (uv_max) as None."""
        return to_record(self) | ({"uv_max": None} if math.isinf(self.uv_max[1]) else {})

    @classmethod
    def from_dict(
        cls, record: Mapping[str, Any], base: PriorConfig | None = None, path: Path = Path("prior")
    ) -> PriorConfig:
        """Return the prior that ``record`` spells: what :meth:`to_dict` gives, or a part of it.

        Parameters
        ----------
        record : mapping
            Names of fields, with _ or -, and their values: [low, high], or one number that fixes the parameter;
            None for a ``uv_max`` without limit.
        base : PriorConfig, optional
            Where what is left out comes from; default: the preset ``full``.
        path : Path
            Where the record comes from, for messages.

        Raises
        ------
        ParameterError
            If a key is unknown or a value illegal; one line that names the key.
        """
        ranges = {str(key).replace("-", "_"): value for key, value in record.items()}
        for name in ranges.keys() & _RANGES:
            end = math.inf if name == "uv_max" and ranges[name] is None else ranges[name]
            ranges[name] = end if isinstance(end, list) else [end, end]
        return build(cls, ranges, path, vars(base or cls()))


_NOTHING_VARIES = PriorConfig(
    pixsize=(1.0, 1.0),
    weightings=("briggs",),
    robust=(0.0, 0.0),
    taper=(0.0, 0.0),
    taper_probability=0.0,
    uv_min=(0.0, 0.0),
    uv_max=(math.inf, math.inf),
    band_fraction=(1.0, 1.0),
    time_fraction=(1.0, 1.0),
    keep_times=(1.0, 1.0),
    keep_antennas=(1.0, 1.0),
    keep_baselines=(1.0, 1.0),
)


def _only(*names: str) -> PriorConfig:
    """Return the prior in which just these fields vary, as they do in ``full``."""
    full = PriorConfig()
    return replace(_NOTHING_VARIES, **{name: getattr(full, name) for name in names})


PRESETS: dict[str, PriorConfig] = {
    "gentle": PriorConfig(
        pixsize=(0.93, 1.08),
        weightings=("briggs",),
        robust=(-0.5, 0.5),
        taper=(1.0, 2.0),
        taper_probability=0.25,
        uv_min=(0.0, 0.003),
        uv_max=(0.85, 1.2),
        band_fraction=(0.7, 1.0),
        time_fraction=(0.7, 1.0),
        keep_times=(0.9, 1.0),
        keep_antennas=(0.9, 1.0),
        keep_baselines=(0.9, 1.0),
    ),
    "full": PriorConfig(),
    "weighting-only": _only("weightings", "robust"),
    "taper-only": _only("taper", "taper_probability"),
    "uv-only": _only("uv_min", "uv_max", "keep_antennas", "keep_baselines"),
    "channels-only": _only("band_fraction"),
    "time-only": _only("time_fraction", "keep_times"),
    "scale-only": _only("pixsize"),
    "image-only": _NOTHING_VARIES,
}
"""Named priors; image-only is the classical baseline: one image of each field, crops, flips and turns alone vary."""


def load_prior(name_or_path: str) -> PriorConfig:
    """Return a preset by its name, the prior of a YAML file, or the one that JSON text spells, as exports hold it.

    A file holds fields of :class:`PriorConfig`, and ``preset``, the name of the preset that gives what is left out
    (default: full).

    Raises
    ------
    ParameterError
        If there is neither such a preset nor such a file, or the file has an unknown key or an illegal value; one
        line that names file and key.
    Vis2imgError
        If the file cannot be read.
    """
    if name_or_path in PRESETS:
        return PRESETS[name_or_path]
    if name_or_path.startswith("{"):
        try:
            spelt = json.loads(name_or_path)
        except (ValueError, RecursionError) as error:
            raise ParameterError(f"the prior {name_or_path[:40]!r}... is no JSON: {error}") from error
        return PriorConfig.from_dict(spelt)
    path = Path(name_or_path)
    if path.suffix.lower() not in (".yaml", ".yml") and not path.is_file():
        raise ParameterError(f"prior {name_or_path!r} is neither a preset nor a YAML file{advice(path.name, PRESETS)}")
    record = read_config(path)
    preset = str(record.pop("preset", "full"))
    if preset not in PRESETS:
        raise ParameterError(f"{path}: preset {preset!r} is unknown{advice(preset, PRESETS)}")
    return PriorConfig.from_dict(record, PRESETS[preset], path)
