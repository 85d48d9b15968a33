"""The comparison that the project is about: which augmentation gives the better representation?

Every arm trains the same network on the same fields with the same budget and the same seeds. What differs is how its
views are made: by augmentation of one dirty image of each field (image-only), by one imaging parameter alone, by all of
them, or by augmentation of CLEAN images. All are judged on other fields, by the same tasks, beside random weights, raw
pixels and a network that was trained with the labels.

The folder holds everything, and the same command goes on with what is missing: ``study.yaml``, ``data/`` (measurement
sets and CLEAN images), ``runs/ARM-SEED/``, ``scores/ARM-SEED.csv`` and in the end the report.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from vis2img.cluster.engine import Engine
from vis2img.dataset import open_ms
from vis2img.draws.presets import PRESETS
from vis2img.errors import OutputError, ParameterError, Vis2imgError
from vis2img.loader.config import LoaderConfig
from vis2img.simulate.config import SimulateConfig
from vis2img.train.config import ModelConfig, OptimConfig
from vis2img.train.demo_config import DemoConfig, observation
from vis2img.train.run.config import TrainConfig
from vis2img.train.run.presets import preset
from vis2img.units import ARCSEC, Angle
from vis2img.views.crops import ViewConfig
from vis2img.views.pixel_changes import CutoutAugment

CLEAN = "CLEAN"
STRONG = "-strong"
ARMS = (
    "image-only", "full", CLEAN, f"image-only{STRONG}", f"{CLEAN}{STRONG}",
    *(name for name in PRESETS if name.endswith("-only") and name != "image-only"),
)  # fmt: skip


@dataclass(frozen=True)
class StudyConfig:
    """What is compared, on what, and how long."""

    COMMON: ClassVar = (
        "out", "arms", "seeds", "fields", "test-fields", "steps", "batch-size", "workers", "cutouts", "model.variant",
        "optim.objective",
    )  # fmt: skip
    """Options that --help describes; --help-all describes all."""

    out: Path = Path("study")
    """Folder for data, runs and report; the same command goes on with what is missing."""
    arms: tuple[str, ...] = ARMS
    """What makes the views: presets of the imaging prior (full: all parameters, NAME-only: one of them, image-only:
    none), and CLEAN, image-only on images that WSClean restored; NAME-strong: views vary by ``strong``, too."""
    strong: CutoutAugment = field(
        default_factory=lambda: CutoutAugment(gain=(0.5, 2.0), noise=(0.0, 1.0), blur_probability=0.3)
    )
    """How finished pictures vary in arms NAME-strong, besides crops, flips and quarter turns."""
    seeds: int = 5
    """Runs of each arm, and random networks."""
    fields: int = 12
    """Simulated observations to train on."""
    test_fields: int = 12
    """Others, to score on."""
    sources: int = 48
    """Labelled sources in each."""
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
    primary_beam: bool = False
    """Whether the sources are seen through the primary beam."""
    steps: int = 2000
    """Steps of each run."""
    batch_size: int = 32
    """Samples a step."""
    field_npix: int = 768
    """Side of a field in suggested pixels."""
    draws_per_field: int = 6
    """Draws of each field that are kept at a time."""
    refresh_every: int = 20
    """Steps after which the oldest draws are replaced."""
    views: ViewConfig = field(default_factory=lambda: preset("study").data.views)
    """How views are cut."""
    model: ModelConfig = field(default_factory=lambda: preset("study").model)
    """Network."""
    optim: OptimConfig = field(default_factory=lambda: preset("study").optim)
    """Objective and optimiser."""
    supervised_steps: int = 600
    """Steps of the supervised network; 0: none."""
    folds: int = 5
    """Parts of the test fields: each is tested by what was learnt on the others."""
    workers: int = 0
    """Worker processes that make draws; 0: one per core."""

    def __post_init__(self) -> None:
        arms = (*PRESETS, CLEAN)
        for arm in self.arms:
            if arm.removesuffix(STRONG) not in arms:
                raise ParameterError(
                    f"arms: {arm} is unknown; choose from {', '.join(arms)}, or one of them with {STRONG} behind"
                )
        for name in ("seeds", "fields", "steps", "sources"):
            if getattr(self, name) < 1:
                raise ParameterError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.optim.warmup_steps >= self.steps:  # before anything is simulated
            raise ParameterError(
                f"optim.warmup_steps = {self.optim.warmup_steps} must be less than steps = {self.steps}"
            )
        if self.test_fields < 2:
            raise ParameterError(f"test_fields must be at least 2, got {self.test_fields}")

    def measurement_sets(self, test: bool) -> list[Path]:
        """Return where the observations to train on, or to test on, are."""
        kind, count = ("test", self.test_fields) if test else ("train", self.fields)
        return [self.out / "data" / f"{kind}{i:03d}.ms" for i in range(count)]

    def observation(self, index: int, test: bool) -> SimulateConfig:
        """Return the simulation of a field: 64 MeerKAT dishes, a short track, 8 channels over a wide band."""
        one = observation(DemoConfig(sources=self.sources), index)
        if self.cutouts:
            part = index + self.fields * test
            one = replace(
                one, n_sources=0, n_cutouts=self.sources, cutouts=self.cutouts, cutout_pixsize=self.cutout_pixsize,
                cutout_part=(part, self.fields + self.test_fields),
            )  # fmt: skip
        return replace(
            one,
            out=self.measurement_sets(test)[index],
            phase_centre=(np.radians(30.0 + 7 * index + 3 * test), np.radians(-25.0 - index % 12 - 12 * test)),
            classes=one.classes if self.cutouts else self.classes,
            primary_beam=self.primary_beam,
            flux_range=self.flux_range,
            size_range=self.size_range,
            seed=5000 * test + index,
        )

    @cached_property
    def pixsize(self) -> float:
        """Suggested pixel size [rad] of the measurement sets, which all have the same array and band."""
        return min(open_ms(path).imaging_params().pixsize for path in self.measurement_sets(test=False)[:1])

    def run_config(self, arm: str, seed: int) -> TrainConfig:
        """Return the run of an arm with a seed: nothing but the views differs between the arms.

        Views of CLEAN images are stretched by the noise of the dirty images, so that brightness looks alike in both.
        """
        return replace(
            preset("study", self.out / "runs" / f"{arm.lower()}-{seed}"),
            data=self.data_config(arm, test=False),
            model=self.model,
            optim=self.optim,
            steps=self.steps,
            seed=seed,
            checkpoint_every=max(1, self.steps // 2),
            views_every=self.steps,
        )

    def data_config(self, arm: str, test: bool) -> LoaderConfig:
        """Return the fields of an arm, as measurement sets or CLEAN images."""
        clean = arm.removesuffix(STRONG) == CLEAN
        strong = arm.endswith(STRONG)
        sets = self.measurement_sets(test)
        return replace(
            preset("study").data,
            ms=tuple(str(clean_path(ms) if clean else ms) for ms in sets),
            batch_size=self.batch_size,
            field_npix=self.field_npix,
            draws_per_field=self.draws_per_field,
            refresh_every=self.refresh_every,
            imaging="image-only" if clean else arm.removesuffix(STRONG),
            image_pixsize=self.pixsize if clean else 0.0,
            augment_fields=strong,
            augment=self.strong if strong else CutoutAugment(),
            views=self.views,
            engine=Engine(workers=self.workers),
        )

    @property
    def has_clean(self) -> bool:
        """Whether an arm needs CLEAN images."""
        return any(arm.removesuffix(STRONG) == CLEAN for arm in self.arms)


def check_files(config: StudyConfig) -> None:
    """Refuse pictures that are not there, and a folder that is a file, before anything is loaded or made.

    Raises
    ------
    Vis2imgError
        One line that names the file.
    """
    for path in config.cutouts:
        if not path.exists():
            raise Vis2imgError(f"cutouts: {path} does not exist")
    if config.out.exists() and not config.out.is_dir():
        raise OutputError(f"{config.out} is a file; name a folder in out")


def clean_path(ms: Path) -> Path:
    """Return where the CLEAN image of a measurement set is."""
    return ms.with_name(f"{ms.stem}.clean.fits")
