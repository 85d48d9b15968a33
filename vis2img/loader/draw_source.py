"""Draws of fields as the source of a loader, made by Dask workers.

workers: field -> draw -> shared memory        source: pool -> plan -> cut
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from vis2img.cluster.engine import Connection, connect
from vis2img.coordinates import direction_cosines, sky_position
from vis2img.draws.cache import DrawCache, check_cache
from vis2img.draws.draw import Draw
from vis2img.draws.field import Field
from vis2img.draws.fits_field import FitsField
from vis2img.draws.numbers import imaging_numbers
from vis2img.errors import ParameterError
from vis2img.loader.batches import Batch, Share, Source
from vis2img.loader.config import LoaderConfig
from vis2img.loader.fields import largest_patch, open_fields
from vis2img.loader.handover import SharedFolder
from vis2img.loader.lost_fields import LostField, as_started
from vis2img.loader.places import Places
from vis2img.loader.pool import DrawPool, Entry
from vis2img.loader.requests import DrawRequests
from vis2img.loader.schedule import Schedule
from vis2img.progress import Progress, no_progress
from vis2img.random import batch_rng, changes_rng, log_uniform
from vis2img.views.crops import Crop, ViewConfig, cut, plan_crops
from vis2img.views.pixel_changes import CutoutAugment, cut_changed
from vis2img.views.positions import WeightMap, random_position, without_blanks

_NO_PLACE = "none of the places that patches are to lie at is in it"
_TRIES = 8  # places that are looked at for a patch apart from others
_SPARE_DRAWS = 4  # that batches in the queue still use when they have left the pool


@dataclass(frozen=True, eq=False)
class Plan:
    """What a batch will hold: the crops of each sample, and the patch that they show."""

    crops: list[list[Crop]]
    patches: list[tuple[float, float]]
    batch: tuple[int, int, int] = (0, 0, 0)
    """Seed, host and number, from which follows what varies in the views besides."""
    sides: Sequence[float] = ()
    """Of the patches of their fields at scale 1, rad."""
    imaged: Sequence[bool] = ()
    """Whether the parameters of the draws tell how they were made, as those of finished images do not."""
    codes: np.ndarray | None = None
    """int32 [sample, head]: Of the places that the patches lie at."""


class DrawSource(Source):
    """Draws of fields; see :class:`vis2img.loader.batches.Source`.

    Parameters
    ----------
    config : LoaderConfig
    share : Share
    connection : Connection, optional
        Workers to use; default: those that ``config`` names.
    state : dict, optional
        From :meth:`state`.
    places : Places, optional
        Where patches lie, and their codes; see :class:`vis2img.loader.loader.Loader`.
    progress : callable, optional
        Told the draws made, of those wanted, while the pool fills.

    Attributes
    ----------
    located : FieldSet
        The fields, and where patches lie in them.
    pool : DrawPool

    Raises
    ------
    MeasurementSetError, ParameterError
        If no measurement set can be used.
    """

    def __init__(
        self,
        config: LoaderConfig,
        share: Share,
        *,
        connection: Connection | None = None,
        state: Mapping[str, Any] | None = None,
        places: Places | None = None,
        progress: Progress = no_progress,
    ) -> None:
        self.config, self.share, self._progress = config, share, progress
        self.located = open_fields(config)
        if state and "fields" in state:
            self.located = as_started(self.located, state["fields"])
        self.fields = self.located.fields
        self._names = [str(field) for field in self.fields]
        self.places = places
        self._own_places = [places.of(name) for name in self._names] if places else []
        if places and not any(map(len, self._own_places)):
            raise ParameterError("no place that patches are to lie at is in the fields of this run")
        # Draws that are all alike need not be made twice.
        varies = any(field.prior.varies for field in self.fields)
        per_field = config.draws_per_field if varies else 1
        total = config.draws_total if varies else 0
        if 0 < total < per_field * share.hosts:
            raise ParameterError(
                f"draws_total = {total} is less than draws_per_field = {per_field} on each of {share.hosts} hosts"
            )
        schedule = Schedule(self.located.weights, per_field, config.fields_at_once, share, total)
        all_there = total == per_field * share.hosts and not schedule.visits
        self._refreshes = (varies or schedule.visits) and (config.mode == "async" or config.refresh_every > 0)
        self._refreshes = self._refreshes and not all_there
        cache = self._cache(varies)
        self._weighted = not schedule.visits  # the pool holds fields that are visited in proportion already
        self._maps: WeakKeyDictionary[Draw, WeightMap] = WeakKeyDictionary()
        self._middles_of: WeakKeyDictionary[Draw, np.ndarray] = WeakKeyDictionary()

        with ExitStack() as stack:
            self._connection = connection or stack.enter_context(connect(config.engine))
            self.dashboard_link, self._lost_before = self._connection.dashboard_link, self._connection.lost_tasks
            client = self._connection.client
            room = schedule.capacity + 2 * len(client.nthreads()) + _SPARE_DRAWS
            self._shared = SharedFolder(room * _largest_draw(self.fields), config.shared)
            self._stack = stack.pop_all()
        requests = DrawRequests(client, self.fields, share.seed, self._shared, config.engine.threads, cache)
        in_order = config.mode == "sync"
        self.pool = DrawPool(requests, schedule, state=state, in_order=in_order, refreshes=self._refreshes)
        lost = {i: field.why for i, field in enumerate(self.fields) if isinstance(field, LostField)}
        empty = {i: _NO_PLACE for i, own in enumerate(self._own_places) if not len(own)}
        self.pool.failed = {**empty, **lost, **self.pool.failed}

    def _cache(self, varies: bool) -> DrawCache | None:
        """Return where draws are kept on disk, if they are."""
        if self.config.draw_cache is None:
            return None
        folder, limit = str(Path(self.config.draw_cache).absolute()), self.config.draw_cache_size
        each = self.config.draws_total or self.config.draws_per_field if varies else 1
        check_cache(folder, limit, sum(_largest_draw([field]) for field in self.fields) * each)
        return DrawCache(folder, limit)

    def prepare(self) -> None:
        """Wait until the pool is full; see :meth:`Source.prepare`."""
        self.pool.fill(self._progress)

    def plan(self, number: int) -> Callable[[], Batch]:
        """Refresh the pool, choose samples from it and count their use; see :meth:`Source.plan`."""
        if self._refreshes and self.config.mode == "sync" and number and number % self.config.refresh_every == 0:
            self.pool.take(block=True)
            while not self.pool.entries:
                self.pool.take(block=True)
        self.idle()
        augment = self.config.augment if self.config.augment_fields else None
        return partial(cut_batch, self.choose(number), self.config.views, self.config.channels, augment)

    def idle(self) -> None:
        """Take in the draws that are ready in asynchronous mode: a slow consumer is no reason to keep workers waiting.

        Not more than the pool holds, or many fast workers would keep batches from being planned.
        """
        if self._refreshes and self.config.mode == "async":
            for _ in range(self.pool.capacity):
                if not self.pool.take(block=False):
                    return

    def state(self) -> dict[str, Any]:
        """Return how far the schedule is, and what failed: exact in synchronous mode; see :meth:`Source.state`."""
        return {**self.pool.state(), "fields": self._names}

    def report(self, batches: int) -> dict[str, float]:
        """Return what can be told of the run so far; see :meth:`Source.report`."""
        tally = self.pool.tally
        age, uses = self.pool.reuse()
        lost = self._connection.lost_tasks - self._lost_before
        return {
            "fresh_draws": float(tally.fresh),
            "repeated_draws": float(self.pool.requests.repeated + lost),
            "draw_age": age,
            "draw_reuse": uses,
            "bytes_read": float(tally.bytes_read),
            "draw_seconds": tally.seconds,
        }

    @property
    def total(self) -> int:
        """Number of fields; see :meth:`Source.total`."""
        return len(self.fields) + len(self.located.skipped)

    def unused(self) -> dict[str, str]:
        """Return the measurement sets and fields that gave nothing, and why."""
        return {**self.located.skipped, **{str(self.fields[field]): why for field, why in self.pool.failed.items()}}

    def records(self) -> list[dict[str, Any]]:
        """Return field, index and imaging parameters of the draws in the pool."""
        return [entry.draw.record() for entry in self.pool.entries]

    def choose(self, number: int) -> Plan:
        """Choose the samples of batch ``number`` from the draws in the pool, and count their use."""
        batch = self.share.seed, self.share.host, number
        rng = batch_rng(*batch)
        fields = self.pool.fields()
        names = list(fields)
        weights = np.array([self.located.weights[f] if self._weighted else 1.0 for f in names])
        choice = rng.choice(len(names), size=self.share.size, p=weights / weights.sum())
        taken: dict[int, list[tuple[float, float]]] = {name: [] for name in names}
        samples = [self._sample(rng, fields[names[i]], taken[names[i]]) for i in choice]
        crops, patches, chosen = map(list, zip(*samples, strict=True))
        places = [sample[0].draw.field for sample in crops]
        sides = [self.located.patches[field] for field in places]
        imaged = [not isinstance(self.fields[field], FitsField) for field in places]
        codes = self.places.codes[chosen] if self.places else None
        return Plan(crops, patches, batch, sides, imaged, codes)

    def _sample(
        self, rng: np.random.Generator, entries: list[Entry], taken: list[tuple[float, float]]
    ) -> tuple[list[Crop], tuple[float, float], int]:
        """Choose a patch, apart from those taken in this batch, to which it is added, and its views.

        And say at which of the places it lies; -1: at none.
        """
        draws = [entry.draw for entry in entries]
        patch, (low, high) = self.located.patches[draws[0].field], self.config.patch_scale
        if (low, high) != (1.0, 1.0):
            patch *= log_uniform(rng, (low, high))
        l, m, place = *self._place(rng, draws, patch), -1
        if self.places:
            l, m, place = self._at_a_place(rng, self.places, draws, patch)
        elif self.config.apart:
            l, m = self._apart(rng, draws, patch, (l, m), taken)
        taken.append((l, m))
        crops = plan_crops(rng, draws, l, m, patch, self.config.views)
        by_draw = {id(entry.draw): entry for entry in entries}
        for crop in crops:
            by_draw[id(crop.draw)].uses += 1
        return crops, (l, m), place

    def _at_a_place(
        self, rng: np.random.Generator, places: Places, draws: list[Draw], patch: float
    ) -> tuple[float, float, int]:
        """Return where a patch lies, up to the offset from one of the places in a field, and which it is."""
        draw, offset, allowed = draws[0], self.config.peak_offset * patch, self._common(draws)
        place = int(rng.choice(self._own_places[draw.field]))
        ra, dec = places.position[place]
        middle = np.array(direction_cosines(ra, dec, draw.phase_centre, draw.turn))[:2]
        for _ in range(_TRIES):
            if near := allowed.near(rng, middle, offset):
                return *near, place
        return float(middle[0]), float(middle[1]), place

    def _place(self, rng: np.random.Generator, draws: list[Draw], patch: float) -> tuple[float, float]:
        """Return where a patch lies, near a peak of one of the draws or anywhere."""
        config, draw = self.config, draws[int(rng.integers(len(draws)))]
        peaks = self._middles(draw) if config.peak_middles else draw.peaks
        # Between lobes there may be less than nothing.
        flux = np.maximum(draw.flux_at(peaks), draw.noise[0]) if config.peaks == "by_flux" else None
        allowed = self._common(draws)
        return random_position(rng, allowed, patch, peaks, config.near_peaks, config.peak_offset, flux)

    def _middles(self, draw: Draw) -> np.ndarray:
        """Return the middles of what shines around the peaks of a draw, for patches of the usual side."""
        if draw not in self._middles_of:
            self._middles_of[draw] = draw.middles(self.located.patches[draw.field])
        return self._middles_of[draw]

    def _apart(
        self,
        rng: np.random.Generator,
        draws: list[Draw],
        patch: float,
        first: tuple[float, float],
        taken: list[tuple[float, float]],
    ) -> tuple[float, float]:
        """Return the first of some places that lies far enough from those taken, or that which lies farthest."""
        places, distances = [first], []
        for _ in range(_TRIES):
            nearest = np.hypot(*(np.array(taken) - places[-1]).T).min() if taken else math.inf
            if nearest >= self.config.apart * patch:
                return places[-1]
            distances.append(nearest)
            places.append(self._place(rng, draws, patch))
        return places[int(np.argmax(distances))]

    def _common(self, draws: list[Draw]) -> WeightMap:
        """Return where a patch may lie in all of ``draws`` of a field; if nowhere, where it may without looking."""
        whole = self.located.maps[draws[0].field]
        maps = [own for draw in draws if (own := self._map(draw)) is not whole]
        weight = whole.weight * np.prod([own.weight > 0 for own in maps], axis=0)
        return WeightMap(weight, whole.reach) if maps and weight.any() else whole

    def _map(self, draw: Draw) -> WeightMap:
        whole = self.located.maps[draw.field]
        if draw.usable.all():
            return whole
        if draw not in self._maps:
            params, patch = draw.params, largest_patch(self.fields[draw.field], self.config)
            self._maps[draw] = without_blanks(whole, draw.usable, params.npix, params.pixsize, patch)
        return self._maps[draw]

    def stop(self) -> None:
        """Make whoever waits for a draw give up."""
        self.pool.requests.stop()

    def close(self) -> None:
        """Drop what was asked for, and end the workers that this source started."""
        self.pool.requests.cancel()
        self._stack.close()
        self._shared.close()

    def __repr__(self) -> str:
        return f"{len(self.fields)} fields, {self.config.mode}"


def _largest_draw(fields: list[Field]) -> int:
    """Return the bytes that a draw may take."""
    return int(max(4 * f.channels * (f.prior.fov / f.prior.pixsize[0] + 2) ** 2 for f in fields))


def cut_batch(plan: Plan, views: ViewConfig, channels: int, augment: CutoutAugment | None = None) -> Batch:
    """Cut what was planned, and vary the pictures if ``augment`` says how; many threads may do so at a time."""
    batch = Batch.empty(views, len(plan.crops), channels, 0 if plan.codes is None else plan.codes.shape[1])
    if plan.codes is not None:
        batch.codes[:] = plan.codes
    batch.box[:] = [[(crop.l, crop.m, crop.side) for crop in crops] for crops in plan.crops]
    sides = np.repeat([views.global_size, views.local_size], [views.n_global, views.n_local])
    for sample, crops in enumerate(plan.crops):
        rng = changes_rng(*plan.batch, sample) if augment else None
        for number, (crop, out) in enumerate(zip(crops, batch.views(sample), strict=True)):
            margin = len(out) / sides[number]
            if margin > 1:
                crop = replace(crop, side=crop.side * margin)
            if augment and rng:
                angle, box = cut_changed(crop, len(out), views.stretches, augment.draw(rng), rng, out)
                batch.angle[sample, number], batch.box[sample, number] = angle, (*box[:2], box[2] / margin)
            else:
                cut(crop.draw, crop.l, crop.m, crop.side, len(out), views.stretches, out)
        l, m = np.array(plan.patches[sample])
        first = crops[0].draw
        batch.position[sample] = sky_position(l, m, first.phase_centre, first.turn)
    for sample, (side, imaged) in enumerate(zip(plan.sides, plan.imaged, strict=True)):
        batch.patch[sample] = side
        unit = side / views.patch_npix
        batch.imaging[sample] = [imaging_numbers(crop.draw.params, unit, imaged) for crop in plan.crops[sample]]
    # All samples at once, which takes less than one by one.
    batch.item[:] = [crops[0].draw.field for crops in plan.crops]
    batch.turns[:] = np.array([[crop.turn for crop in crops] for crops in plan.crops]).T
    batch.draw_index[:] = [[crop.draw.index for crop in crops] for crops in plan.crops]
    return batch
