"""Batches, and the contract of what they are cut from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from vis2img.draws.numbers import NUMBERS
from vis2img.errors import ParameterError
from vis2img.views.crops import ViewConfig


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch of fixed shapes."""

    global_views: np.ndarray
    """float32 [n_global, batch, size, size, channel]: Stretched views; see :class:`vis2img.views.stretch.Stretch`. With
    the margin that :class:`vis2img.views.jitter.ViewJitter` asks for, of which ``box`` does not tell.
    Flips and quarter turns are not carried out yet: ``turns`` says which."""
    local_views: np.ndarray
    """float32 [n_local, batch, size, size, channel]: Smaller crops of the same patches."""
    turns: np.ndarray
    """int8 [n_global + n_local, batch]: Flip and turn of each view, 0 to 7, see :func:`vis2img.views.crops.turned`;
    carried out on the accelerator by :func:`vis2img.train.objectives.augment.turn_views`."""
    item: np.ndarray
    """int32 [batch]: Which field or picture of the source."""
    position: np.ndarray
    """float64 [batch, 2]: RA and Dec of the patch centres in rad; NaN of pictures."""
    patch: np.ndarray
    """float64 [batch]: Sides that patches of the field have at scale 1, rad; NaN of pictures."""
    imaging: np.ndarray
    """float32 [batch, n_global + n_local, number]: How each view was imaged, :data:`vis2img.draws.numbers.NUMBERS`; NaN
    where that is not known, as of pictures."""
    draw_index: np.ndarray
    """int32 [batch, n_global + n_local]: Which draw of the field each view was cut from; with (seed, field) it replays.
    Of pictures 0."""
    angle: np.ndarray
    """float64 [batch, n_global + n_local]: By which each view was turned about its middle, or that of its picture,
    besides; rad."""
    box: np.ndarray
    """float64 [batch, n_global + n_local, 3]: Centre and side of each view before that turn: (l, m) about the phase
    centre of its draw, rad; of pictures (x, y) from the middle, pixels."""
    codes: np.ndarray
    """int32 [batch, head]: Of the places that the patches lie at, see :class:`vis2img.loader.places.Places`; else there
    is no head."""

    @classmethod
    def empty(cls, views: ViewConfig, size: int, channels: int, heads: int = 0) -> Batch:
        """Return a batch of ``size`` samples whose views are still to be cut, with so many codes each."""
        count = views.n_views
        large, small = (views.jitter.cut_size(side) for side in (views.global_size, views.local_size))
        return cls(
            global_views=np.empty((views.n_global, size, large, large, channels), np.float32),
            local_views=np.empty((views.n_local, size, small, small, channels), np.float32),
            turns=np.zeros((count, size), np.int8),
            item=np.zeros(size, np.int32),
            position=np.full((size, 2), np.nan),
            patch=np.full(size, np.nan),
            imaging=np.full((size, count, len(NUMBERS)), np.nan, np.float32),
            draw_index=np.zeros((size, count), np.int32),
            angle=np.zeros((size, count)),
            box=np.zeros((size, count, 3)),
            codes=np.zeros((size, heads), np.int32),
        )

    def __len__(self) -> int:
        return len(self.item)

    def views(self, sample: int) -> list[np.ndarray]:
        """Return the views of a sample, global ones first: float32 [size, size, channel], memory of this batch."""
        return [*self.global_views[:, sample], *self.local_views[:, sample]]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what a training step takes, views first.

        Returns
        -------
        dict
            "global", "local" and "turns"; "imaging" (view, B, number); and of each sample "item" (1, B), "patch"
            (1, B), float32, and "sky" (2, B, 3), the unit vector to its position as the sum of two float32 numbers,
            which keep the digits of float64; and where there are some, "codes" (head, B).
        """
        ra, dec = self.position.T
        sky = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)
        leading = sky.astype(np.float32)
        coded = {"codes": self.codes.T} if self.codes.size else {}
        return coded | {
            "global": self.global_views,
            "local": self.local_views,
            "turns": self.turns,
            "imaging": self.imaging.swapaxes(0, 1),
            "item": self.item[np.newaxis],
            "patch": self.patch[np.newaxis].astype(np.float32),
            "sky": np.stack([leading, (sky - leading).astype(np.float32)]),
        }


@dataclass(frozen=True)
class Share:
    """What a host gives of a run: every random choice follows from the seed, and no sample comes from two hosts.

    Raises
    ------
    ParameterError
        If a batch cannot be shared alike.
    """

    batch_size: int
    """Samples of a batch, over all hosts."""
    seed: int = 0
    host: int = 0
    hosts: int = 1

    def __post_init__(self) -> None:
        if self.batch_size % self.hosts:
            raise ParameterError(f"batch_size = {self.batch_size} is not a multiple of the {self.hosts} hosts")

    @property
    def size(self) -> int:
        """Samples of a batch of this host."""
        return self.batch_size // self.hosts


class Source(Protocol):
    """What a loader takes samples of: draws of fields, or pictures.

    Batches are planned by one thread, in order of their numbers, and cut by many. What a batch holds follows from the
    seed, the share of the host and its number; where draws enter as soon as they are ready, from those that are there,
    too. What need not be done is left out.
    """

    dashboard_link: str | None = None
    """Address of Dask's dashboard, if there is one."""

    def prepare(self) -> None:
        """Wait until batches can be planned.

        Raises
        ------
        Vis2imgError
            If nothing can be used.
        """
        return

    @abstractmethod
    def plan(self, number: int) -> Callable[[], Batch]:
        """Choose the samples of batch ``number``; return what cuts them, once, in any thread.

        Raises
        ------
        Vis2imgError
            If what the samples are cut from is lost, or the source was stopped.
        """

    def idle(self) -> None:
        """Do what there is to do between plans; called some times a second while no batch is taken."""
        return

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return what another source needs to go on behind the batch planned last; plain values for JSON."""

    @abstractmethod
    def report(self, batches: int) -> dict[str, float]:
        """Return what can be told of a run in which so many batches were delivered, those before a restart included.

        Returns
        -------
        dict
            ``fresh_draws``, draws or pictures taken in; ``repeated_draws`` (their workers died or had no memory);
            ``draw_age`` [s] and ``draw_reuse`` [views] of a draw or picture; ``bytes_read`` and ``draw_seconds`` that
            it took; of pictures ``epochs``.
        """

    @property
    @abstractmethod
    def total(self) -> int:
        """Number of fields or pictures, those that give no samples among them."""

    @abstractmethod
    def unused(self) -> dict[str, str]:
        """Return what gives no samples, and why."""

    def stop(self) -> None:
        """Make a thread that waits in :meth:`plan` give up."""
        return

    def close(self) -> None:
        """Give back workers and memory; nothing is called after it but :meth:`report` and :meth:`unused`."""
        return
