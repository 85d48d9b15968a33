"""What the accelerator does to views besides flips and quarter turns: any angle, zoom, shift and power.

The loader cuts views wider by a margin, so that none of it leads beyond what was cut, and
:func:`vis2img.train.objectives.augment.jitter_views` takes from them what the network sees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from vis2img.errors import ParameterError

_SPARE = 2  # pixels beyond the corners, between which the outermost pixels lie


@dataclass(frozen=True)
class ViewJitter:
    """How the accelerator varies views, each by itself; without arguments nothing is done, and no margin is cut."""

    turn: bool = False
    """Whether each view is turned by any angle about its middle."""
    zoom: tuple[float, float] = (1.0, 1.0)
    """Factor by which what a view shows is enlarged; log-uniform, from 0.5 to 2."""
    shift: float = 0.0
    """How far a view is shifted at most along each axis, as a fraction of its own side; from 0 to 0.25."""
    power: tuple[float, float] = (1.0, 1.0)
    """Exponent on the pixels of the stretched view, over the brightest, which stays; log-uniform, from 0.1 to 10."""

    def __post_init__(self) -> None:
        for name, least, most in (("zoom", 0.5, 2.0), ("power", 0.1, 10.0)):
            low, high = getattr(self, name)
            if not least <= low <= high <= most:
                raise ParameterError(
                    f"jitter.{name} = ({low:g}, {high:g}) must be (low, high) from {least:g} to {most:g}, low <= high"
                )
        if not 0 <= self.shift <= 0.25:
            raise ParameterError(f"jitter.shift = {self.shift:g} must be from 0 to 0.25")

    @property
    def moves(self) -> bool:
        """Whether views are turned, zoomed or shifted."""
        return self.turn or self.zoom != (1.0, 1.0) or self.shift > 0

    @property
    def changes(self) -> bool:
        """Whether anything is done."""
        return self.moves or self.power != (1.0, 1.0)

    def cut_size(self, size: int) -> int:
        """Return the pixels a side that are cut for a view of ``size``."""
        if not self.moves:
            return size
        reach = (math.sqrt(2) if self.turn else 1.0) * (1 + 2 * self.shift) / self.zoom[0]
        return math.ceil(size * reach) + _SPARE
