"""The configuration of a loader: which measurement sets or pictures, imaged how, cut how, by which workers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from vis2img.cluster.engine import Engine
from vis2img.configs.values import FLAT
from vis2img.draws.observed_field import DRAW_MEMORY, Noise
from vis2img.draws.presets import load_prior
from vis2img.errors import ParameterError
from vis2img.ms.selection import Selection
from vis2img.units import Angle, Memory
from vis2img.views.crops import ViewConfig
from vis2img.views.pixel_changes import CutoutAugment

Mode = Literal["sync", "async"]
ENGINE_KEYS = (
    "workers",
    "scheduler",
    "worker_memory",
    "dashboard",
    "prefetch",
    "cutters",
    "shared",
    "draw_cache",
    "draw_cache_size",
)
"""What may differ between a run and the same run resumed: none of it changes a batch of the synchronous mode."""


@dataclass(frozen=True)
class FieldsConfig:
    """Which fields, how they are imaged and where patches lie in them; of pictures nothing of it matters."""

    ms: tuple[str, ...] = ()
    """Measurement sets, averaged data (vis2img average), or FITS images, to train on; each is read-only. An image is a
    field that is always the same: views of it are crops, flips and turns."""
    weights: tuple[float, ...] = ()
    """How often samples come from each of ms, relative to the others; default: from each field alike."""
    fields: Literal["one", "all"] = "one"
    """one: the field that selection names, or the first with data; all: every field of each measurement set."""
    bands: Literal["one", "each"] = "one"
    """one: the spectral windows that selection names, in one image; each: every spectral window by itself."""
    selection: Selection = field(default_factory=Selection)
    """Which visibilities of each measurement set; selection.stokes IQUV gives four input channels."""
    subbands: int = 1
    """Parts of the band that become input channels of their own, beside the Stokes parameters of selection."""
    field_npix: int = 512
    """Side of the imaged field in pixels of the suggested size (a third of the finest fringe)."""
    fov: Angle | None = None
    """Side of the imaged field as an angle; overrides field_npix. Of FITS images the middle is used; default: all."""
    image_pixsize: Angle = 0.0
    """Pixel size in which patches are counted on FITS images; 0arcsec: a third of the beam in the header, else its
    pixels. Give the suggested pixel of the measurement sets that they were made of, and patches have the same angle."""
    imaging: str = "full"
    """How imaging varies: a preset (full, gentle, weighting-only, channels-only, uv-only, image-only, ...; vis2img
    augment --list) or a YAML file of a prior."""
    noise: Noise = "image"
    """Of measurement sets, what views are stretched by: the noise of each draw, which weighting changes; field: that of
    the field at Briggs 0, for all of its draws, so that a compact source is as bright in all of them."""
    augment_fields: bool = False
    """Whether views of measurement sets and FITS images vary by augment, too: as images, besides how they are made."""
    near_peaks: float = 0.5
    """Share of the patches placed near a bright peak of the field; the others lie anywhere."""
    peaks: Literal["alike", "by_flux"] = "alike"
    """Which peak a patch is placed near. alike: any, so mostly faint ones; by_flux: each factor of two in brightness
    comes alike, whatever the number of its peaks."""
    peak_middles: bool = False
    """Whether patches lie near the middles of what shines around peaks instead of near the peaks, so that a source of
    two lobes is in the middle of its patch and not one of its lobes."""
    peak_offset: float = 0.125
    """How far a peak lies from the middle of its patch at most, along each axis, in sides of the patch; from 0 to
    0.5."""
    patch_scale: tuple[float, float] = (1.0, 1.0)
    """Side of a patch over views.patch_npix suggested pixels, log-uniform, from 0.1 to 10: patches of several angles on
    the sky."""
    apart: float = 0.0
    """How far the patches of a batch lie apart at least in a field, in sides of a patch; where eight tries find no such
    place, the one farthest from the others is taken. 0: the same sky may come several times."""
    pb_limit: float = 0.1
    """Patches are centred where the primary beam lets through more than this; 0: anywhere in the field."""

    def __post_init__(self) -> None:
        _at_least(self, subbands=1, image_pixsize=0, apart=0)
        for name in ("near_peaks", "pb_limit"):
            if not 0 <= getattr(self, name) <= 1:
                raise ParameterError(f"{name} = {getattr(self, name)} must be from 0 to 1")
        low, high = self.patch_scale
        if not 0.1 <= low <= high <= 10:
            raise ParameterError(f"patch_scale = ({low:g}, {high:g}) must be (low, high) from 0.1 to 10, low <= high")
        if not 0 <= self.peak_offset <= 0.5:
            raise ParameterError(f"peak_offset = {self.peak_offset:g} must be from 0 to 0.5")
        if self.pb_limit == 1:
            raise ParameterError("pb_limit = 1 leaves no place for a patch; use 0.1, or 0 for anywhere")
        if self.weights and (len(self.weights) != len(self.ms) or not all(w > 0 for w in self.weights)):
            raise ParameterError(f"weights must be positive, one for each of the {len(self.ms)} measurement sets")
        _one_of(
            self, fields=("one", "all"), bands=("one", "each"), peaks=("alike", "by_flux"), noise=("image", "field")
        )
        if self.fields == "all" and self.selection.field is not None:
            raise ParameterError("fields all and selection.field cannot both be given")
        if self.bands == "each" and self.selection.spw is not None:
            raise ParameterError("bands each and selection.spw cannot both be given")
        load_prior(self.imaging)  # an unknown preset, or a file that cannot be read, is told at once

    @property
    def planes(self) -> int:
        """Images of a draw: Stokes parameters of each part of the band."""
        return self.subbands * len(self.selection.stokes)


@dataclass(frozen=True)
class PoolConfig:
    """How many draws of fields are there at a time, and when they are replaced; of pictures nothing of it matters."""

    draws_per_field: int = 4
    """Draws of each field in the pool."""
    fields_at_once: int = 16
    """Fields in the pool at a time; more fields than that are visited in turns, in proportion to their weights."""
    draw_memory: Memory = DRAW_MEMORY
    """Memory of the visibilities of one draw, in a worker, and of those kept between draws; larger observations are
    thinned out by timesteps."""
    refresh_every: int = 4
    """Batches after which the oldest draw is replaced in synchronous mode; 0: never."""
    mode: Mode = "async"
    """async: draws enter as soon as they are ready; sync: at fixed batches, so that a run replays."""
    draws_total: int = 0
    """Different draws of each field, after which they come again in another order; 0: without end. With draw_cache,
    later rounds are read from disk."""
    draw_cache: str | None = None
    """Folder in which draws are kept, for this run and others: what was imaged once is read. Default: none is kept."""
    draw_cache_size: Memory = 20e9
    """Bytes that draw_cache may take; beyond, the draws that were not used for longest are deleted."""
    shared: str | None = None
    """Folder through which workers of this machine hand draws over; default: /dev/shm, which is memory."""

    def __post_init__(self) -> None:
        _at_least(self, draws_per_field=2, fields_at_once=1, refresh_every=0, draw_memory=1e6, draw_cache_size=1e6)
        if self.draws_total and self.draws_total < self.draws_per_field:
            raise ParameterError(
                f"draws_total = {self.draws_total} must be 0 (without end) or at least draws_per_field = "
                f"{self.draws_per_field}"
            )
        _one_of(self, mode=("sync", "async"))


@dataclass(frozen=True)
class LoaderConfig(PoolConfig, FieldsConfig):
    """Which measurement sets or pictures, imaged how, and how views are cut from them."""

    cutouts: tuple[str, ...] = ()
    """Survey cutouts instead of ms: .npz files, FITS images or folders of them, one source in each picture. No workers
    are needed; besides, only batch_size, views, augment, prefetch and cutters count."""
    batch_size: int = 32
    """Samples (sky patches) in a batch, over all devices and hosts."""
    views: ViewConfig = field(default_factory=ViewConfig)
    """How views are cut."""
    augment: CutoutAugment = field(default_factory=CutoutAugment)
    """How views of cutouts vary besides, and those of fields where augment_fields is set."""
    prefetch: int = 4
    """Batches that are cut ahead."""
    cutters: int = 0
    """Threads that cut batches; 0: one per core, at most 8."""
    engine: Annotated[Engine, FLAT] = field(default_factory=Engine)
    """Where draws are made."""

    @property
    def channels(self) -> int:
        """Channels of a view, which are those of the input of a network: each image of a draw by each stretch."""
        return self.planes * len(self.views.stretches)

    def __post_init__(self) -> None:
        if not self.ms and not self.cutouts:
            raise ParameterError("ms is empty: name at least one measurement set, or pictures in cutouts")
        if self.ms and self.cutouts:
            raise ParameterError("ms and cutouts cannot both be given: train on measurement sets, or on pictures")
        if self.cutouts and self.weights:
            raise ParameterError("weights are of measurement sets; each picture of cutouts comes once in an epoch")
        if self.cutouts and self.planes != 1:
            raise ParameterError("cutouts give one input channel: leave subbands at 1 and selection.stokes at I")
        if self.views.jitter.turn and self.augment.rotate and (self.cutouts or self.augment_fields):
            raise ParameterError("views.jitter.turn and augment.rotate both turn views: set augment.rotate to false")
        _at_least(self, batch_size=1, prefetch=1, cutters=0)
        FieldsConfig.__post_init__(self)
        PoolConfig.__post_init__(self)


def _at_least(config: Any, **least: float) -> None:
    for name, value in least.items():
        if getattr(config, name) < value:
            raise ParameterError(f"{name} = {getattr(config, name)} must be at least {value:g}")


def _one_of(config: Any, **choices: tuple[str, ...]) -> None:
    for name, words in choices.items():
        if getattr(config, name) not in words:
            raise ParameterError(f"{name} {getattr(config, name)!r} is unknown; use {' or '.join(words)}")
