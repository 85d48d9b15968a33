"""Batches: the samples of a batch are chosen first, in order, and cut later, by any thread.

What a batch holds follows from the seed, the host, its number and the draws that the pool holds at that moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from vis2img.coordinates import sky_position
from vis2img.draws.draw import Draw
from vis2img.loader.fields import FieldSet
from vis2img.loader.pool import DrawPool, Held
from vis2img.random import batch_rng, changes_rng
from vis2img.views.crops import Crop, ViewConfig, cut, plan_crops
from vis2img.views.pixel_changes import CutoutAugment, cut_changed
from vis2img.views.positions import WeightMap, random_position, without_blanks


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch of fixed shapes.

    Parameters
    ----------
    global_views : float32 [n_global, batch, size, size, channel]
        Stretched views; see :class:`vis2img.views.stretch.Stretch`. Not turned yet: ``turns`` says how.
    local_views : float32 [n_local, batch, size, size, channel]
        Smaller crops of the same patches.
    turns : int8 [n_global + n_local, batch]
        Flip and turn of each view, 0 to 7, see :func:`vis2img.views.crops.turned`; carried out on the accelerator by
        :func:`vis2img.train.objectives.augment.turn_views`.
    position : float64 [batch, 2]
        RA and Dec of the patch centres in rad.
    field : int32 [batch]
        Which source of the loader.
    draw_index : int32 [batch, n_global + n_local]
        Which draw of the field each view was cut from; with (seed, field) it replays.
    box : float64 [batch, n_global + n_local, 3]
        Centre (l, m) and side of each view, rad, about the phase centre of its draw.
    """

    global_views: np.ndarray
    local_views: np.ndarray
    turns: np.ndarray
    position: np.ndarray
    field: np.ndarray
    draw_index: np.ndarray
    box: np.ndarray

    def __len__(self) -> int:
        return len(self.field)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what a training step takes: "global", "local" and "turns", views first."""
        return {"global": self.global_views, "local": self.local_views, "turns": self.turns}


@dataclass(frozen=True, eq=False)
class Plan:
    """What a batch will hold: the crops of each sample, and the patch that they show."""

    crops: list[list[Crop]]
    patches: list[tuple[float, float]]
    state: dict[str, Any]
    """Of the loader when this batch has been delivered."""
    batch: tuple[int, int, int] = (0, 0, 0)
    """Seed, host and number, from which follows what varies in the views besides."""


class Planner:
    """Chooses samples.

    Parameters
    ----------
    sources : FieldSet
    views : ViewConfig
    near_peaks : float
        Share of the patches placed near a peak.
    seed : int
    host : int
        Which host this is; hosts choose differently.
    weighted : bool
        Choose fields by their weights; else alike, as where the pool holds them in proportion.
    """

    def __init__(
        self, sources: FieldSet, views: ViewConfig, near_peaks: float, seed: int, host: int, weighted: bool
    ) -> None:
        self._sources, self._views, self._near_peaks = sources, views, near_peaks
        self._seed, self._host, self._weighted = seed, host, weighted
        self._maps: WeakKeyDictionary[Draw, WeightMap] = WeakKeyDictionary()

    def plan(self, pool: DrawPool, number: int, size: int, state: dict[str, Any]) -> Plan:
        """Choose the ``size`` samples of batch ``number`` from the draws in ``pool``, and count their use."""
        batch = self._seed, self._host, number
        rng = batch_rng(*batch)
        fields = pool.fields()
        names = list(fields)
        weights = np.array([self._sources.weights[f] if self._weighted else 1.0 for f in names])
        chosen = rng.choice(len(names), size=size, p=weights / weights.sum())
        samples = [self._sample(rng, fields[names[i]]) for i in chosen]
        crops, patches = map(list, zip(*samples, strict=True))
        return Plan(crops, patches, state, batch)

    def _sample(self, rng: np.random.Generator, held: list[Held]) -> tuple[list[Crop], tuple[float, float]]:
        draws = [each.draw for each in held]
        field = draws[0].field
        patch = self._sources.patches[field]
        seen = draws[int(rng.integers(len(draws)))]
        l, m = random_position(rng, self._common(draws), patch, seen.peaks, self._near_peaks)
        crops = plan_crops(rng, draws, l, m, patch, self._views)
        by_draw = {id(each.draw): each for each in held}
        for crop in crops:
            by_draw[id(crop.draw)].uses += 1
        return crops, (l, m)

    def _common(self, draws: list[Draw]) -> WeightMap:
        """Return where a patch may lie in all of ``draws`` of a field; if nowhere, where it may without looking."""
        known = self._sources.maps[draws[0].field]
        maps = [found for draw in draws if (found := self._map(draw)) is not known]
        weight = known.weight * np.prod([found.weight > 0 for found in maps], axis=0)
        return WeightMap(weight, known.reach) if maps and weight.any() else known

    def _map(self, draw: Draw) -> WeightMap:
        known = self._sources.maps[draw.field]
        if draw.usable.all():
            return known
        if draw not in self._maps:
            params, patch = draw.params, self._sources.patches[draw.field]
            self._maps[draw] = without_blanks(known, draw.usable, params.npix, params.pixsize, patch)
        return self._maps[draw]


def cut_batch(plan: Plan, views: ViewConfig, channels: int, augment: CutoutAugment | None = None) -> Batch:
    """Cut what was planned, and vary the pictures if ``augment`` says how; many threads may do so at a time."""
    size = len(plan.crops)
    globals_ = np.empty((views.n_global, size, views.global_size, views.global_size, channels), np.float32)
    locals_ = np.empty((views.n_local, size, views.local_size, views.local_size, channels), np.float32)
    positions = []
    for sample, crops in enumerate(plan.crops):
        rng = changes_rng(*plan.batch, sample) if augment else None
        for number, crop in enumerate(crops):
            is_global = number < views.n_global
            out: Any = globals_[number, sample] if is_global else locals_[number - views.n_global, sample]
            if augment and rng:
                cut_changed(crop, out.shape[0], views.stretch, augment.draw(rng), rng, out)
            else:
                cut(crop.draw, crop.l, crop.m, crop.side, out.shape[0], views.stretch, out)
        l, m = np.array(plan.patches[sample])
        positions.append(sky_position(l, m, crops[0].draw.phase_centre))
    every = [[(c.l, c.m, c.side) for c in crops] for crops in plan.crops]
    return Batch(
        global_views=globals_,
        local_views=locals_,
        turns=np.array([[c.turn for c in crops] for crops in plan.crops], np.int8).T.copy(),
        position=np.array(positions, dtype=np.float64).reshape(-1, 2),
        field=np.array([crops[0].draw.field for crops in plan.crops], dtype=np.int32),
        draw_index=np.array([[c.draw.index for c in crops] for crops in plan.crops], dtype=np.int32),
        box=np.array(every, dtype=np.float64),
    )
