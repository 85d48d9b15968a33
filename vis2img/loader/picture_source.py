"""Survey cutouts as the source of a loader: views of finished pictures, without measurement sets or workers.

Every picture comes once in an epoch, in an order of its own; a batch follows from the seed and its number alone, on
any number of threads, and so does a run that goes on.

>>> config = LoaderConfig(cutouts=("mirabest.npz",), views=ViewConfig(patch_npix=106))      # doctest: +SKIP
>>> with Loader(config, seed=1) as loader:                                                  # doctest: +SKIP
...     loader.next_batch().global_views.shape
(2, 32, 64, 64, 1)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import numpy as np

from vis2img.errors import Vis2imgError
from vis2img.loader.batches import Batch, Share, Source
from vis2img.loader.config import LoaderConfig
from vis2img.pictures.cutting import Pictures, Square, cut_picture, open_pictures
from vis2img.progress import Progress, no_progress
from vis2img.random import epoch_rng, sample_rng
from vis2img.views.crops import TURNS, ViewConfig
from vis2img.views.pixel_changes import CutoutAugment


class PictureSource(Source):
    """Pictures in memory; see :class:`vis2img.loader.batches.Source`.

    Parameters
    ----------
    config : LoaderConfig
        ``cutouts``, ``views`` and ``augment`` of it.
    share : Share
    state : dict, optional
        From :meth:`state`.
    progress : callable, optional
        Told the pictures looked at, of all.

    Attributes
    ----------
    pictures : Pictures

    Raises
    ------
    Vis2imgError
        If a file cannot be read, no picture can be used, or ``state`` is of other pictures.
    """

    def __init__(
        self,
        config: LoaderConfig,
        share: Share,
        *,
        state: Mapping[str, Any] | None = None,
        progress: Progress = no_progress,
    ) -> None:
        self.config, self.share = config, share
        # Of a smaller picture the rest of a patch is background, where that is what lies beyond its edge.
        least = None if config.augment.beyond == "background" else config.views.patch_npix
        self.pictures = open_pictures(config.cutouts, least, progress)
        if state and state.get("pictures") != self.pictures.fingerprint:
            raise Vis2imgError(
                f"{', '.join(config.cutouts)}: these are not the pictures that the run was started with; restore "
                "the files, or start anew"
            )
        self._first = int(state["batches"]) if state else 0
        self._since = time.perf_counter()

    def plan(self, number: int) -> Callable[[], Batch]:
        """Number the samples of a batch from the start of the run; see :meth:`Source.plan`."""
        first = number * self.share.batch_size + self.share.host * self.share.size
        samples = range(first, first + self.share.size)
        return partial(cut_pictures, self.pictures, self.config.views, self.config.augment, self.share.seed, samples)

    def state(self) -> dict[str, Any]:
        """Return by what the pictures are known again."""
        return {"pictures": self.pictures.fingerprint}

    def report(self, batches: int) -> dict[str, float]:
        """Return what can be told of the run so far, pictures in place of draws; see :meth:`Source.report`."""
        samples = (batches - self._first) * self.share.size
        return {
            "fresh_draws": float(len(self.pictures)),
            "repeated_draws": 0.0,
            "draw_age": time.perf_counter() - self._since,
            "draw_reuse": samples * self.config.views.n_views / len(self.pictures),
            "bytes_read": float(sum(image.nbytes for image in self.pictures.images)),
            "draw_seconds": 0.0,
            "epochs": batches * self.share.batch_size / len(self.pictures),
        }

    @property
    def total(self) -> int:
        """Number of pictures, and of files that cannot be read; see :meth:`Source.total`."""
        return len(self.pictures) + len(self.pictures.skipped)

    def unused(self) -> dict[str, str]:
        """Return the pictures that are left out, and why."""
        return dict(self.pictures.skipped)

    def __repr__(self) -> str:
        return f"{len(self.pictures)} pictures"


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Return the order of the pictures in an epoch."""
    return epoch_rng(seed, epoch).permutation(count)


def cut_pictures(pictures: Pictures, views: ViewConfig, augment: CutoutAugment, seed: int, samples: range) -> Batch:
    """Cut the views of some samples, numbered from the start of the run; any number of threads may do so at a time."""
    batch = Batch.empty(views, len(samples), len(views.stretches))
    scales = [views.global_scale] * views.n_global + [views.local_scale] * views.n_local
    for i, sample in enumerate(samples):
        epoch, place = divmod(sample, len(pictures))
        picture = int(_order(seed, epoch, len(pictures))[place])
        batch.item[i] = picture

        rng = sample_rng(seed, sample)
        if views.rotate:
            batch.turns[:, i] = rng.integers(TURNS, size=views.n_views)
        for view, (scale, out) in enumerate(zip(scales, batch.views(i), strict=True)):
            side = views.patch_npix * rng.uniform(*scale)
            x, y = rng.uniform(-0.5, 0.5, 2) * (views.patch_npix - side)
            change = augment.draw(rng)
            square = Square(*change.placed(x, y, side))
            margin = len(out) / (views.global_size if view < views.n_global else views.local_size)
            wide = Square(square.x, square.y, square.side * margin)
            cut_picture(pictures, picture, wide, out, views.stretches, change, rng)
            batch.angle[i, view], batch.box[i, view] = change.angle, (square.x, square.y, square.side)
    return batch
