"""The comparison that the project is about: what gives the better representation?

Every arm trains on the same fields with the same budget and the same seeds. Arms are ways of making views: by
augmentation of one dirty image of each field (image-only), by one imaging parameter alone, by all of them, or by
augmentation of CLEAN images. Or they are variants: any settings of a run, laid over those of the study. All are judged
on other fields, by the same tasks, beside random weights, raw pixels and a network that was trained with the labels.

The folder holds everything, and the same command goes on with what is missing: ``study.yaml``, ``data/`` (measurement
sets and CLEAN images), ``budget/ARM.yaml``, ``runs/ARM-SEED/``, ``scores/ARM-SEED.csv`` and in the end the report.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any, ClassVar

from vis2img.cluster.engine import Engine
from vis2img.configs.overlay import Overlay, lay_over, nested
from vis2img.dataset import open_ms
from vis2img.draws.presets import PRESETS
from vis2img.errors import OutputError, ParameterError, Vis2imgError
from vis2img.loader.config import LoaderConfig
from vis2img.train.config import ModelConfig, OptimConfig
from vis2img.train.run.config import TrainConfig
from vis2img.train.run.presets import preset
from vis2img.train.study.skies import SkiesConfig, clean_path
from vis2img.units import Duration, format_duration
from vis2img.views.crops import ViewConfig
from vis2img.views.pixel_changes import CutoutAugment

CLEAN, IMAGE_ONLY, FULL = "CLEAN", "image-only", "full"
STRONG = "-strong"
ARMS = (
    IMAGE_ONLY, FULL, CLEAN, f"{IMAGE_ONLY}{STRONG}", f"{CLEAN}{STRONG}",
    *(name for name in PRESETS if name.endswith("-only") and name != IMAGE_ONLY),
)  # fmt: skip
_NAME = re.compile(r"\w[\w.+-]{0,59}")
# Settings of a run that are none of an arm, and what to do instead.
_OWN = {
    "out": "runs lie in out of the study",
    "steps": "give steps or budget of the study",
    "seed": "give seeds of the study",
    "hosts": "a run of a study is one process",
    "data.ms": "fields are simulated",
    "data.weights": "all fields count alike",
    "data.workers": "give workers of the study",
    **dict.fromkeys(("checkpoint_every", "keep_every", "views_every"), "it goes with the length of the runs"),
}


@cache
def _preset() -> TrainConfig:
    return preset("study")


@dataclass(frozen=True)
class StudyConfig(SkiesConfig):
    """What is compared, on what, and how long."""

    COMMON: ClassVar = (
        "out", "arms", "base", "seeds", "fields", "test-fields", "steps", "budget", "batch-size", "workers", "cutouts",
        "model.variant", "optim.objective",
    )  # fmt: skip
    """Options that --help describes; --help-all describes all."""

    arms: tuple[str, ...] = ()
    """What is compared: presets of the imaging prior (full: all parameters vary, NAME-only: one of them, image-only:
    none), CLEAN, image-only on images that WSClean restored, and variants; NAME-strong: views vary by strong, too.
    Default: all variants, or without any all of the presets and CLEAN."""
    variants: Overlay = field(default_factory=dict)
    """Arms that are settings of a run over those of the study (arm full), as {NAME: {optim.objective: byol}, ...}."""
    base: str | None = None
    """Arm that the others are compared with; default: image-only and image-only-strong, or the first arm."""
    strong: CutoutAugment = field(
        default_factory=lambda: CutoutAugment(gain=(0.5, 2.0), noise=(0.0, 1.0), blur_probability=0.3)
    )
    """How finished pictures vary in arms NAME-strong, besides crops, flips and quarter turns."""
    seeds: int = 5
    """Runs of each arm, and random networks."""
    steps: int = 2000
    """Steps of each run. With a budget: the length that warmup_steps and the like are given for, which go with it."""
    budget: Duration = 0.0
    """Time that every arm has to train instead of a number of steps, which is measured first, arm by arm: leave the
    machine alone meanwhile. 0s: steps."""
    batch_size: int = 32
    """Samples a step."""
    field_npix: int = 768
    """Side of a field in suggested pixels."""
    draws_per_field: int = 6
    """Draws of each field that are kept at a time."""
    refresh_every: int = 20
    """Steps after which the oldest draws are replaced."""
    views: ViewConfig = field(default_factory=lambda: _preset().data.views)
    """How views are cut."""
    data: Overlay = field(default_factory=dict)
    """More settings of the data of a run that all arms have, such as near_peaks."""
    model: ModelConfig = field(default_factory=lambda: _preset().model)
    """Network."""
    optim: OptimConfig = field(default_factory=lambda: _preset().optim)
    """Objective and optimiser."""
    supervised_steps: int = 600
    """Steps of the supervised network; 0: none."""
    folds: int = 5
    """Parts of the test fields: each is tested by what was learnt on the others."""
    workers: int = 0
    """Worker processes that make draws; 0: one per core."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("seeds", "steps"):
            if getattr(self, name) < 1:
                raise ParameterError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.optim.warmup_steps >= self.steps:  # before anything is simulated
            raise ParameterError(
                f"optim.warmup_steps = {self.optim.warmup_steps} must be less than steps = {self.steps}"
            )
        for name in nested(self.data, "data"):
            if f"data.{name}" in _OWN:
                raise ParameterError(f"data.{name} is none of the settings of a study: {_OWN[f'data.{name}']}")
        self._check_variants()
        for arm in dict.fromkeys((*self.compared, *self.variants)):
            self._check_arm(arm)
        if self.base is not None and self.base not in self.compared:
            raise ParameterError(f"base: {self.base} is none of the arms ({', '.join(self.compared)})")

    def _check_variants(self) -> None:
        known = [*(each.lower() for each in (*PRESETS, CLEAN)), "random-weights"]
        for name, settings in self.variants.items():
            word = str(name).lower()
            if not isinstance(name, str) or not _NAME.fullmatch(name) or word in known or word.endswith(STRONG):
                raise ParameterError(
                    f"variants: {name} cannot be the name of one: take letters, digits and . + - _, no preset, nothing "
                    f"that ends with {STRONG}, and no name twice, be it in other letters"
                )
            if not isinstance(settings, dict) and settings is not None:
                raise ParameterError(f"variants.{name} takes keys of its own: settings of a run")
            known.append(word)

    def _check_arm(self, arm: str) -> None:
        there = (*PRESETS, CLEAN, *self.variants)
        if arm.removesuffix(STRONG) not in there:
            raise ParameterError(
                f"arms: {arm} is unknown; choose from {', '.join(there)}, or one of them with {STRONG} behind"
            )
        self.run_config(arm, 0)

    @property
    def compared(self) -> tuple[str, ...]:
        """The arms."""
        return self.arms or tuple(self.variants) or ARMS

    @property
    def bases(self) -> tuple[str, ...]:
        """Arms that the others are compared with."""
        if self.base is not None:
            return (self.base,)
        usual = tuple(arm for arm in (IMAGE_ONLY, f"{IMAGE_ONLY}{STRONG}") if arm in self.compared)
        return usual or self.compared[:1]

    @property
    def pixsize(self) -> float:
        """Suggested pixel size [rad] of the measurement sets, which have one array and band; 0 where none is there."""
        first = self.measurement_sets(False)[0]
        return open_ms(first).imaging_params().pixsize if first.exists() else 0.0

    def run_config(self, arm: str, seed: int, steps: int | None = None) -> TrainConfig:
        """Return the run of an arm with a seed: nothing but what the arm stands for differs between the arms.

        Parameters
        ----------
        arm : str
        seed : int
        steps : int, optional
            Of the run, in proportion to which all counts of steps are; default: ``steps``.
        """
        length = steps or self.steps
        base = replace(
            _preset(),
            out=str(self.out / "runs" / f"{arm.lower()}-{seed}"),
            data=self._data(arm, False, seed),
            model=self.model,
            optim=self.optim,
            steps=self.steps,
        )
        run = lay_over(base, self._settings(arm), f"variants.{arm.removesuffix(STRONG)}")
        return replace(
            run,
            optim=_scaled(run.optim, length, self.steps),
            steps=length,
            seed=seed,
            checkpoint_every=max(1, length // 2),
            keep_every=0,
            views_every=length,
        )

    def test_data(self, arm: str, seed: int) -> LoaderConfig:
        """Return the fields to score on as an arm sees them: imaged in the fixed way, cut as its views are."""
        data = self._data(arm if is_clean(arm) else IMAGE_ONLY, True, seed)
        own = self.run_config(arm, seed).data
        seen = ("views", "selection", "bands", "subbands", "field_npix", "fov", "noise")
        return replace(data, **{name: getattr(own, name) for name in seen}, augment_fields=False)

    def _settings(self, arm: str) -> dict[str, Any]:
        """Return what a variant has over the study, without dots; refuse what the study sets."""
        name = arm.removesuffix(STRONG)
        where = f"variants.{name}"
        settings = nested(self.variants.get(name) or {}, where)
        data = settings.get("data")
        inner = {f"data.{key}" for key in data} if isinstance(data, dict) else set()
        for key in {*settings, *inner} & {*_OWN}:
            raise ParameterError(f"{where}.{key} is none of the settings of an arm: {_OWN[key]}")
        if "data.cutouts" in inner:  # pictures instead of fields
            settings["data"] = {**settings["data"], "ms": []}
        return settings

    def _data(self, arm: str, test: bool, seed: int) -> LoaderConfig:
        """Return the fields of an arm, as measurement sets or CLEAN images.

        Views of CLEAN images are stretched by the noise of the dirty images, so that brightness looks alike in both.
        """
        clean, strong = is_clean(arm), arm.endswith(STRONG)
        sets = self.measurement_sets(test, seed)
        prior = arm.removesuffix(STRONG)
        data = replace(
            _preset().data,
            ms=tuple(str(clean_path(ms) if clean else ms) for ms in sets),
            batch_size=self.batch_size,
            field_npix=self.field_npix,
            draws_per_field=self.draws_per_field,
            refresh_every=self.refresh_every,
            imaging=IMAGE_ONLY if clean else prior if prior in PRESETS else FULL,
            image_pixsize=self.pixsize if clean else 0.0,
            augment_fields=strong,
            augment=self.strong if strong else CutoutAugment(),
            views=self.views,
            engine=Engine(workers=self.workers),
        )
        return lay_over(data, self.data, "data")

    @property
    def has_clean(self) -> bool:
        """Whether an arm needs CLEAN images."""
        return any(map(is_clean, self.compared))

    @property
    def length(self) -> str:
        """What every run has, for people."""
        return f"{format_duration(self.budget)} of training" if self.budget else f"{self.steps} steps"


def is_clean(arm: str) -> bool:
    """Whether an arm trains on CLEAN images."""
    return arm.removesuffix(STRONG) == CLEAN


def _scaled(optim: OptimConfig, steps: int, usual: int) -> OptimConfig:
    """Return the optimiser with counts of steps in the proportion that they have to the usual length of a run."""
    if steps == usual:
        return optim
    counts = {each.name: getattr(optim, each.name) for each in fields(optim) if each.name.endswith("_steps")}
    scaled = {name: min(round(count * steps / usual), steps - 1) for name, count in counts.items()}
    return replace(optim, **scaled)


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
