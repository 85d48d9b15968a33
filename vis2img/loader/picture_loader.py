"""The loader of survey cutouts: batches of views of finished pictures, without measurement sets or workers.

Every picture comes once in an epoch, in an order of its own; a batch follows from the seed and its number alone, on
any number of threads, and so does a run that goes on.

>>> config = LoaderConfig(cutouts=("mirabest.npz",), views=ViewConfig(patch_npix=106))      # doctest: +SKIP
>>> with CutoutLoader(config, seed=1) as loader:                                            # doctest: +SKIP
...     loader.next_batch().global_views.shape
(2, 32, 64, 64, 1)
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from vis2img.errors import ParameterError, Vis2imgError
from vis2img.loader.config import LoaderConfig
from vis2img.machine import cores
from vis2img.pictures.cutting import Pictures, Square, cut_picture, open_pictures
from vis2img.progress import Progress, no_progress
from vis2img.random import epoch_rng, sample_rng
from vis2img.views.crops import TURNS, ViewConfig
from vis2img.views.pixel_changes import CutoutAugment

_MOST_CUTTERS = 8


@dataclass(frozen=True, eq=False)
class CutoutBatch:
    """A batch of fixed shapes.

    Parameters
    ----------
    global_views : float32 [n_global, batch, size, size, 1]
        Stretched views. Flips and quarter turns are not carried out yet: ``turns`` says which.
    local_views : float32 [n_local, batch, size, size, 1]
        Smaller crops of the same pictures.
    turns : int8 [n_global + n_local, batch]
        As :class:`vis2img.loader.batches.Batch` has them.
    picture : int64 [batch]
        Which picture of the loader each sample shows.
    angle : float64 [batch, n_global + n_local]
        By which each view was turned about the middle of its picture, rad.
    box : float64 [batch, n_global + n_local, 3]
        Middle (x, y) of each view before that turn, from the middle of the picture, and its side; pixels.
    """

    global_views: np.ndarray
    local_views: np.ndarray
    turns: np.ndarray
    picture: np.ndarray
    angle: np.ndarray
    box: np.ndarray

    def __len__(self) -> int:
        return len(self.picture)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what a training step takes: "global", "local" and "turns", views first."""
        return {"global": self.global_views, "local": self.local_views, "turns": self.turns}


class CutoutLoader:
    """Iterates over batches without end; a context manager that owns its threads.

    Parameters
    ----------
    config : LoaderConfig
        ``cutouts``, ``views``, ``augment``, ``batch_size``, ``prefetch`` and ``cutters`` of it.
    seed : int
        Every random choice follows from it.
    state : dict, optional
        From :meth:`state`, to go on where a loader stopped, with the same batches.
    host, hosts : int
        Which host this is, and of how many; each takes its share of each batch.
    progress : callable, optional
        Called with (pictures, pictures in all) while they are looked at.

    Attributes
    ----------
    batches : int
        Batches delivered so far, those before ``state`` included.
    wait_seconds : float
        Time that :meth:`next_batch` waited.
    pictures : Pictures

    Raises
    ------
    Vis2imgError
        If a file cannot be read, no picture can be used, or ``state`` is of other pictures.
    """

    dashboard_link = None

    def __init__(
        self,
        config: LoaderConfig,
        seed: int = 0,
        *,
        state: dict[str, Any] | None = None,
        host: int = 0,
        hosts: int = 1,
        progress: Progress = no_progress,
    ) -> None:
        if not config.cutouts:
            raise ParameterError("cutouts is empty: name an .npz file or a folder of FITS images")
        if config.batch_size % hosts:
            raise ParameterError(f"batch_size = {config.batch_size} is not a multiple of the {hosts} hosts")
        self.config, self.seed = config, seed
        self.pictures = open_pictures(config.cutouts, config.views.patch_npix, progress)
        self._share = slice(*(config.batch_size // hosts * n for n in (host, host + 1)))
        self.batches = 0
        if state:
            if state.get("pictures") != self.pictures.fingerprint:
                raise Vis2imgError(
                    f"{', '.join(config.cutouts)}: these are not the pictures that the run was started with; restore "
                    "the files, or start anew"
                )
            self.batches = int(state["batches"])
        self._planned = self._first = self.batches
        self.wait_seconds = 0.0
        self._opened = time.perf_counter()
        self._waiting: deque[Future[CutoutBatch]] = deque()
        self._closed = False
        self._cutters = ThreadPoolExecutor(config.cutters or min(_MOST_CUTTERS, cores()), "vis2img-cut")

    def __iter__(self) -> Iterator[CutoutBatch]:
        while True:
            yield self.next_batch()

    def next_batch(self) -> CutoutBatch:
        """Return the next batch: it depends on the seed, the share of the host and its number alone."""
        if self._closed:
            raise Vis2imgError("this loader is closed")
        while len(self._waiting) <= self.config.prefetch:
            self._waiting.append(self._cutters.submit(self._cut, self._planned))
            self._planned += 1
        start = time.perf_counter()
        # Left where it is until it is there: a signal may end the wait.
        batch = self._waiting[0].result()
        self._waiting.popleft()
        self.wait_seconds += time.perf_counter() - start
        self.batches += 1
        return batch

    def _cut(self, number: int) -> CutoutBatch:
        size = self.config.batch_size
        samples = range(number * size, (number + 1) * size)[self._share]
        return cut_cutout_batch(self.pictures, self.config.views, self.config.augment, self.seed, samples)

    def state(self) -> dict[str, Any]:
        """Return what a new loader needs to go on behind the batch delivered last."""
        return {"batches": self.batches, "pictures": self.pictures.fingerprint}

    def report(self) -> dict[str, float]:
        """Return what can be told of the run so far, under the names of :meth:`vis2img.loader.loader.Loader.report`.

        Returns
        -------
        dict
            Pictures stand for draws: ``fresh_draws``, their number; ``draw_age`` [s] since they were read;
            ``draw_reuse``, views cut of each; ``epochs``; ``input_wait`` [s].
        """
        size = self._share.stop - self._share.start
        samples = (self.batches - self._first) * size
        return {
            "fresh_draws": float(len(self.pictures)),
            "repeated_draws": 0.0,
            "draw_age": time.perf_counter() - self._opened,
            "draw_reuse": samples * self.config.views.n_views / len(self.pictures),
            "bytes_read": float(sum(image.nbytes for image in self.pictures.images)),
            "draw_seconds": 0.0,
            "epochs": self.batches * self.config.batch_size / len(self.pictures),
            "input_wait": self.wait_seconds,
        }

    def unused(self) -> dict[str, str]:
        """Return the pictures that are left out, and why."""
        return dict(self.pictures.skipped)

    def close(self) -> None:
        """Stop the threads."""
        self._closed = True
        self._cutters.shutdown(wait=True, cancel_futures=True)
        self._waiting.clear()

    def __enter__(self) -> CutoutLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"CutoutLoader({len(self.pictures)} pictures, {self.batches} batches delivered)"


@lru_cache(maxsize=4)
def _epoch(seed: int, epoch: int, count: int) -> np.ndarray:
    """Return the order of the pictures in an epoch."""
    return epoch_rng(seed, epoch).permutation(count)


def cut_cutout_batch(
    pictures: Pictures, views: ViewConfig, augment: CutoutAugment, seed: int, samples: range
) -> CutoutBatch:
    """Cut the views of some samples, numbered from the start of the run; any number of threads may do so at a time."""
    size = len(samples)
    globals_ = np.empty((views.n_global, size, views.global_size, views.global_size, 1), np.float32)
    locals_ = np.empty((views.n_local, size, views.local_size, views.local_size, 1), np.float32)
    picture = np.empty(size, np.int64)
    turns = np.zeros((views.n_views, size), np.int8)
    angle, box = np.empty((size, views.n_views)), np.empty((size, views.n_views, 3))
    scales = [views.global_scale] * views.n_global + [views.local_scale] * views.n_local
    for i, sample in enumerate(samples):
        epoch, place = divmod(sample, len(pictures))
        picture[i] = number = int(_epoch(seed, epoch, len(pictures))[place])
        rng = sample_rng(seed, sample)
        if views.rotate:
            turns[:, i] = rng.integers(TURNS, size=views.n_views)
        for view, scale in enumerate(scales):
            side = views.patch_npix * rng.uniform(*scale)
            x, y = rng.uniform(-0.5, 0.5, 2) * (views.patch_npix - side)
            change = augment.draw(rng)
            out: Any = globals_[view, i] if view < views.n_global else locals_[view - views.n_global, i]
            cut_picture(pictures, number, Square(x, y, side), out[:, :, 0], views.stretch, change, rng)
            angle[i, view], box[i, view] = change.angle, (x, y, side)
    return CutoutBatch(globals_, locals_, turns, picture, angle, box)
