"""What the fields of a study show: drawn or real sources, observed alike, other ones to train on and to score on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from vis2img.configs.overlay import Overlay, lay_over, nested
from vis2img.errors import ParameterError
from vis2img.simulate.config import SimulateConfig
from vis2img.train.demo_config import DemoConfig, observation
from vis2img.units import ARCSEC, Angle

EACH: Final = "each"
SHARED: Final = "shared"
_SEEDS = 5000  # of fields to train on, before those of fields to test on
# Settings of an observation that are settings of the study, under these names, or that it gives each field by itself.
_OWN = {
    **{name: name for name in ("flux_range", "size_range", "classes", "cutouts", "cutout_pixsize", "primary_beam")},
    **{"n_sources": "sources", "n_cutouts": "cutout_fields", "cutout_part": "cutouts", "seed": "seeds", "out": "out"},
    **{"phase_centre": "fields", "overwrite": "out"},
}


@dataclass(frozen=True)
class SkiesConfig:
    """Fields to train on and to score on."""

    out: Path = Path("study")
    """Folder for data, runs and report; the same command goes on with what is missing."""
    fields: int = 12
    """Simulated observations to train on."""
    test_fields: int = 12
    """Others, to score on."""
    skies: Literal["each", "shared"] | None = None
    """each: every seed has skies of its own, to train and to score on, so that intervals hold for other skies; shared:
    all seeds have the same ones. Default: each; of a folder that is there, what it holds."""
    sources: int = 48
    """Labelled sources in each field."""
    classes: tuple[str, ...] = ("compact", "fri", "frii", "bent")
    """Their classes; of cutouts, those that are scored."""
    flux_range: tuple[float, float] = (1e-2, 1e-1)
    """Their flux densities in Jy."""
    size_range: tuple[Angle, Angle] = (30 * ARCSEC, 90 * ARCSEC)
    """Largest angular sizes of the extended ones."""
    cutouts: tuple[Path, ...] = ()
    """Pictures of real sources to observe instead of drawn ones (npz, FITS); each field has its own share of them."""
    cutout_pixsize: Angle = 0.0
    """Their pixel size, for npz files with catalogued sizes (FIRST: 1.8arcsec)."""
    cutout_fields: float | None = None
    """Share of the fields to train on in which half of the sources are cutouts; all others have drawn ones alone.
    Default: all fields have cutouts alone."""
    primary_beam: bool = False
    """Whether the sources are seen through the primary beam."""
    simulate: Overlay = field(default_factory=dict)
    """More settings of the observations, as vis2img simulate has them: ntimes, dtime, counts_flux, ..."""

    def __post_init__(self) -> None:
        for name in ("fields", "sources"):
            if getattr(self, name) < 1:
                raise ParameterError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.test_fields < 2:
            raise ParameterError(f"test_fields must be at least 2, got {self.test_fields}")
        if max(self.fields, self.test_fields) > _SEEDS:
            raise ParameterError(f"fields and test_fields must be at most {_SEEDS}")
        if self.skies not in (EACH, SHARED, None):
            raise ParameterError(f"skies must be {EACH} or {SHARED}, got {self.skies}")
        share = self.cutout_fields
        if share is not None and not (0 < share <= 1 and self.cutouts):
            raise ParameterError(f"cutout_fields = {share} must be above 0 and at most 1, with files of cutouts")
        for name in nested(self.simulate, "simulate"):
            if name in _OWN:
                raise ParameterError(f"simulate.{name} is for the study to set: see {_OWN[name]}")
        self.observation(0, test=False)

    def data_folder(self, seed: int) -> Path:
        """Return where the fields of a seed are."""
        data = self.out / "data"
        return data if self.skies == SHARED else data / str(seed)

    def measurement_sets(self, test: bool, seed: int = 0) -> list[Path]:
        """Return where the observations to train on, or to test on, are."""
        kind, count = ("test", self.test_fields) if test else ("train", self.fields)
        return [self.data_folder(seed) / f"{kind}{i:03d}.ms" for i in range(count)]

    def observation(self, index: int, test: bool, seed: int = 0) -> SimulateConfig:
        """Return the simulation of a field: 64 MeerKAT dishes, a short track, 8 channels over a wide band."""
        one = lay_over(observation(DemoConfig(sources=self.sources), index), self.simulate, "simulate")
        sky = 0 if self.skies == SHARED else 2 * _SEEDS * seed
        return replace(
            one,
            **self._shown(index, test),
            out=self.measurement_sets(test, seed)[index],
            phase_centre=(np.radians(30.0 + 7 * index + 3 * test), np.radians(-25.0 - index % 12 - 12 * test)),
            primary_beam=self.primary_beam,
            flux_range=self.flux_range,
            size_range=self.size_range,
            seed=sky + _SEEDS * test + index,
        )

    def _shown(self, index: int, test: bool) -> dict[str, Any]:
        """Return the settings of what a field shows: drawn sources, cutouts, or half of each."""
        drawn: dict[str, Any] = {"classes": self.classes}
        pictures = {"cutouts": self.cutouts, "cutout_pixsize": self.cutout_pixsize}
        if not self.cutouts:
            return drawn
        if self.cutout_fields is None:
            part = index + self.fields * test, self.fields + self.test_fields
            return {**pictures, "n_sources": 0, "n_cutouts": self.sources, "cutout_part": part}

        # Evenly among the fields, so that a training on the first of them has its share, too.
        before, upto = (int(self.cutout_fields * i + 0.5) for i in (index, index + 1))
        half = self.sources // 2
        if test or upto == before or not half:
            return drawn
        part = before, max(1, int(self.cutout_fields * self.fields + 0.5))
        return {**drawn, **pictures, "n_sources": self.sources - half, "n_cutouts": half, "cutout_part": part}


def clean_path(ms: Path) -> Path:
    """Return where the CLEAN image of a measurement set is."""
    return ms.with_name(f"{ms.stem}.clean.fits")
