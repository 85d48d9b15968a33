"""The loader: an iterator of batches of views, fed by Dask workers that image fields.

>>> with Loader(LoaderConfig(ms=("a.ms", "b.ms")), seed=1) as loader:     # doctest: +SKIP
...     batch = next(iter(loader))
...     batch.global_views.shape
(2, 32, 64, 64, 1)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from vis2img.cluster import connect
from vis2img.draws import FieldSource
from vis2img.errors import ParameterError
from vis2img.measurementset import MeasurementSet, open_ms
from vis2img.options import Angle
from vis2img.params import Selection
from vis2img.phase import sky_position
from vis2img.pool import DrawPool, Mode
from vis2img.prior import ImagingPrior
from vis2img.views import ViewConfig, multi_crop, random_position

_POSITION_STREAM = 1 << 32  # keeps the generator of batches apart from those of draws


@dataclass(frozen=True)
class LoaderConfig:
    """Which measurement sets, imaged how, and how views are cut from them."""

    ms: tuple[str, ...]
    """Measurement sets to train on; each is read-only."""
    batch_size: int = 32
    """Samples (sky patches) in a batch, over all devices."""
    field_npix: int = 512
    """Side of the imaged field in pixels of the suggested size (a third of the finest fringe)."""
    fov: Angle | None = None
    """Side of the imaged field as an angle; overrides field_npix."""
    imaging: str = "full"
    """Imaging prior: full varies every parameter; fixed images each field in one way (the classical baseline)."""
    selection: Selection = field(default_factory=Selection)
    """Which visibilities of each measurement set."""
    views: ViewConfig = field(default_factory=ViewConfig)
    """How views are cut."""
    near_peaks: float = 0.5
    """Share of the patches placed near a bright peak of the field; the others lie anywhere."""
    draws_per_field: int = 4
    """Draws of each field in the pool."""
    refresh_every: int = 4
    """Batches after which the oldest draw is replaced in synchronous mode; 0: never."""
    mode: Mode = "async"
    """async: draws enter as soon as they are ready; sync: at fixed batches, so that a run replays."""
    workers: int = 0
    """Dask worker processes, each imaging on one thread; 0: one per core, at most 8."""
    scheduler: str | None = None
    """Address of a Dask scheduler (tcp://host:8786) to use instead of local workers."""

    def __post_init__(self) -> None:
        if not self.ms:
            raise ParameterError("ms is empty: name at least one measurement set")
        if self.batch_size < 1 or self.draws_per_field < 2 or self.refresh_every < 0 or self.workers < 0:
            raise ParameterError(
                "batch_size must be at least 1, draws_per_field at least 2, refresh_every and workers not negative"
            )
        if not 0 <= self.near_peaks <= 1:
            raise ParameterError(f"near_peaks = {self.near_peaks} must be from 0 to 1")
        if self.imaging not in ("full", "fixed"):
            raise ParameterError(f"imaging {self.imaging!r} is unknown; use full or fixed")


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch of fixed shapes.

    Parameters
    ----------
    global_views : float32 [n_global, batch, size, size, 1]
        Stretched views; see :func:`vis2img.views.stretch`.
    local_views : float32 [n_local, batch, size, size, 1]
        Smaller crops of the same patches.
    position : float64 [batch, 2]
        RA and Dec of the patch centres in rad.
    field : int32 [batch]
        Which source of the loader.
    draw_index : int32 [batch, n_global + n_local]
        Which draw of the field each view was cut from; with (seed, field) it replays.
    """

    global_views: np.ndarray
    local_views: np.ndarray
    position: np.ndarray
    field: np.ndarray
    draw_index: np.ndarray


def field_sources(config: LoaderConfig) -> list[FieldSource]:
    """Open every measurement set of ``config`` and return its field with the prior that suits it.

    Raises
    ------
    MeasurementSetError
        If one of them is no measurement set, or has no baseline to image.
    """
    opened = [open_ms(path) for path in config.ms]
    return [_source(ms, config) for ms in opened]


def _source(ms: MeasurementSet, config: LoaderConfig) -> FieldSource:
    npix = config.field_npix
    prior = ImagingPrior.for_ms(ms, config.selection, npix=npix + npix % 2)
    if config.fov is not None:
        prior = replace(prior, fov=config.fov)
    if config.imaging == "fixed":
        prior = prior.fixed()
    return FieldSource(str(ms.path.resolve()), config.selection, prior)


def patch_angle(source: FieldSource, views: ViewConfig) -> float:
    """Return the side of a patch in rad, and check that it fits into the field with a pixel to spare."""
    side = views.patch_npix * source.prior.pixsize[1]
    if side > source.prior.fov - 2 * source.prior.pixsize[1]:
        raise ParameterError(
            f"{source.ms}: a patch of {views.patch_npix} pixels does not fit into the field; "
            "choose a larger field_npix or a smaller patch_npix"
        )
    return side


class Loader:
    """Iterates over batches without end; a context manager that owns its Dask workers.

    Parameters
    ----------
    config : LoaderConfig
        What to load.
    seed : int
        Every random choice follows from it.
    client : distributed.Client, optional
        Workers to use; default: those that ``config`` names.
    state : dict, optional
        From :meth:`state`, to go on where a synchronous loader stopped.
    progress : callable, optional
        Called with (draws made, draws wanted) while the pool fills.

    Raises
    ------
    MeasurementSetError, ParameterError
        If no measurement set can be used.
    """

    def __init__(
        self,
        config: LoaderConfig,
        seed: int = 0,
        *,
        client: Any = None,
        state: dict[str, int] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.config, self.seed = config, seed
        self.sources = field_sources(config)
        self._patches = [patch_angle(source, config.views) for source in self.sources]
        self.batches = state["batches"] if state else 0
        self.wait_seconds = 0.0
        """Time spent waiting for draws after the pool was full."""
        self._owned: list[Any] = []
        self._client = client
        if client is None:
            self._client, self._owned = connect(config.scheduler, config.workers)
        first = state["next_draw"] - config.draws_per_field * len(self.sources) if state else 0
        self.pool = DrawPool(self._client, self.sources, seed, config.draws_per_field, first=max(0, first))
        self._filled = False
        self._progress = progress

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield self.next_batch()

    def next_batch(self) -> Batch:
        """Return the next batch; in synchronous mode it depends on the seed and its number alone."""
        if not self._filled:
            self.pool.fill(self._progress)
            self._filled = True
        self._refresh()
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, _POSITION_STREAM, self.batches]))
        batch = self._cut(rng)
        self.batches += 1
        return batch

    def _refresh(self) -> None:
        start = time.perf_counter()
        if self.config.mode == "async":
            while self.pool.take(block=False):
                pass
        elif self.config.refresh_every and self.batches and self.batches % self.config.refresh_every == 0:
            self.pool.take(block=True)
        self.wait_seconds += time.perf_counter() - start

    def _cut(self, rng: np.random.Generator) -> Batch:
        config, views = self.config, self.config.views
        fields = self.pool.fields
        samples, positions, chosen, indices = [], [], [], []
        for _ in range(config.batch_size):
            which = fields[int(rng.integers(len(fields)))]
            source, patch = self.sources[which], self._patches[which]
            # A pixel to spare: images reach half a pixel less far on one side than on the other.
            reach = (source.prior.fov - patch) / 2 - source.prior.pixsize[1]
            draws = list(self.pool.draws[which])
            peaks = draws[int(rng.integers(len(draws)))].peaks
            l, m = random_position(rng, reach, patch, peaks, config.near_peaks)
            global_views, local_views, used = multi_crop(rng, draws, l, m, patch, views)
            samples.append((global_views, local_views))
            positions.append(sky_position(np.array(l), np.array(m), draws[0].phase_centre))
            chosen.append(which)
            indices.append([draw.index for draw in used])
        return Batch(
            global_views=np.stack([s[0] for s in samples], axis=1)[..., None],
            local_views=np.stack([s[1] for s in samples], axis=1)[..., None],
            position=np.array(positions, dtype=np.float64).reshape(-1, 2),
            field=np.array(chosen, dtype=np.int32),
            draw_index=np.array(indices, dtype=np.int32),
        )

    def state(self) -> dict[str, int]:
        """Return what a new loader needs to go on: exact in synchronous mode."""
        return {"batches": self.batches, "next_draw": self.pool.next_in}

    def draw_records(self) -> list[dict[str, Any]]:
        """Return field, index and imaging parameters of the draws in the pool."""
        return [draw.record() for draws in self.pool.draws for draw in draws]

    def close(self) -> None:
        """Stop the workers that this loader started."""
        self.pool.cancel()
        for owned in self._owned:
            owned.close()
        self._owned = []

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        c = self.config
        return (
            f"Loader({len(self.sources)} fields, batches of {c.batch_size} with {c.views.n_global} x "
            f"{c.views.global_size} and {c.views.n_local} x {c.views.local_size} px, {c.mode}, "
            f"{self.batches} batches made)"
        )
