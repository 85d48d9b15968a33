"""Sum visibilities into uv cells: the table that grows, and the averages taken from it.

See :mod:`vis2img.averaging.params` for what cells are and what they cost,
:mod:`vis2img.averaging.kernels` for the loops.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vis2img.averaging import kernels
from vis2img.averaging.params import AveragingParams
from vis2img.coordinates import uvw_basis
from vis2img.errors import ParameterError
from vis2img.shapes import Complex64, Float, Float32, Float64, Int, Int32
from vis2img.visibilities import SPEED_OF_LIGHT

_ENTRY_BYTES = 128
_GROWN = 1.6  # of the bytes of a table: with the one it grew from, or with the averages taken from it
_PIECE = 1 << 17  # cells turned into averages at a time, which bounds the temporaries


class TableFull(ParameterError):
    """The cells do not fit into the memory that the table may take."""


@dataclass(frozen=True, eq=False)
class Cells:
    """Averaged visibilities, sorted by channel block, v and u."""

    uvw: Float[np.ndarray, "node 3"]
    """Baselines, wavelengths, v >= 0 but for the nodes of cells at the edge; float64 or float32."""
    vis: Complex64[np.ndarray, " node"]
    """Visibilities towards the facet centre, Jy."""
    weight: Float32[np.ndarray, " node"]
    chan: Float32[np.ndarray, " node"]
    """Weighted mean number of the samples' channels."""
    block: Int32[np.ndarray, " node"]
    """Channel block."""
    ncells: int
    """Number of cells that the nodes stand for."""


class CellTable:
    """Sums visibilities into cells; grows as needed.

    Parameters
    ----------
    params : AveragingParams
    old_centre : (float, float)
        Phase centre of what will be added, RA and Dec in rad.
    chan_freq : float64 [chan]
        Frequencies in Hz, increasing, of all that will be added.
    max_bytes : float
        Memory that the table may take, its growth and conversion to arrays included.
    expected : int
        Cells to make room for, so that the table need not grow.

    Attributes
    ----------
    used : int
        Cells so far.
    nvis : int
        Samples with weight so far.
    chan_weight : float64 [chan]
        Sum of their weights in each channel.
    """

    def __init__(
        self,
        params: AveragingParams,
        old_centre: tuple[float, float],
        chan_freq: Float64[np.ndarray, " chan"],
        max_bytes: float = math.inf,
        expected: int = 0,
    ) -> None:
        self.params, self.max_bytes = params, max_bytes
        self._centre = old_centre
        self._cell = np.array(params.cell)
        self._scale = chan_freq / SPEED_OF_LIGHT
        self._block = params.channel_block(len(chan_freq))
        room = min(3.2 * expected, max_bytes / (_GROWN * _ENTRY_BYTES))
        self._allocate(1 << max(14, (4 * len(chan_freq)).bit_length(), int(room).bit_length() - 1))
        self.used = self.nvis = 0
        self.chan_weight = np.zeros(len(chan_freq))

    def add(
        self,
        uvw: Float64[np.ndarray, "row 3"],
        vis: Complex64[np.ndarray, "row chan"],
        weight: Float32[np.ndarray, "row chan"],
        baseline: Int[np.ndarray, " row"] | None = None,
        chans: Int[np.ndarray, " chan"] | None = None,
        centre: tuple[float, float] | None = None,
    ) -> Float64[np.ndarray, " row"]:
        """Add rows; return the sum of the weights of each, float64 [row].

        Parameters
        ----------
        uvw : float64 [row, 3]
            Baselines towards ``old_centre``, m.
        vis : complex64 [row, chan]
            Visibilities in Jy.
        weight : float32 [row, chan]
            Weights; 0 for flagged.
        baseline : int [row], optional
            Any number for each pair of antennas; rows of one after the other make it faster.
        chans : int64 [chan], optional
            Numbers of the channels in ``chan_freq``, increasing; default: all.
        centre : (float, float), optional
            Phase centre of the rows, RA and Dec in rad; default: ``old_centre``.

        Raises
        ------
        TableFull
            If the cells do not fit into ``max_bytes``.
        """
        check_range(self.params, uvw, float(self._scale[-1]))
        rotation = uvw_basis(*self.params.phase_centre) @ uvw_basis(*(centre or self._centre)).T
        number = np.arange(len(self._scale)) if chans is None else chans
        scale, block = self._scale[number], self._block[number]
        spacing = _equal_step(scale)
        order = np.arange(len(uvw)) if baseline is None else np.argsort(baseline, kind="stable")
        position = 0
        while position < len(order):
            position, self.used = kernels.accumulate(
                uvw, rotation, scale, spacing, vis, weight, block, number, order, self._cell,
                self._table, self._keys, self._table.view(np.float32), self.used, position,
            )  # fmt: skip
            if position < len(order):
                self._grow()
        by_row, by_chan = np.zeros(len(uvw)), self.chan_weight[number]
        self.nvis += kernels.tally(weight, by_row, by_chan)
        self.chan_weight[number] = by_chan
        return by_row

    def cells(self) -> Cells:
        """Return the averages of what was added so far."""
        pieces = list(self.pieces())

        def joined(name: str) -> np.ndarray:
            return np.concatenate([getattr(piece, name) for piece in pieces])

        ncells = sum(piece.ncells for piece in pieces)
        return Cells(joined("uvw"), joined("vis"), joined("weight"), joined("chan"), joined("block"), ncells)

    def pieces(self, dtype: type = np.float64) -> Iterator[Cells]:
        """Yield the averages piece by piece, in order and at least one piece, with ``uvw`` of type ``dtype``."""
        keys = self._keys[:, 0]
        filled = np.flatnonzero(keys)
        filled = filled[np.argsort(keys[filled])]
        for start in range(0, max(1, len(filled)), _PIECE):
            yield self._piece(filled[start : start + _PIECE], dtype)

    def _piece(self, slots: Int[np.ndarray, " cell"], dtype: type) -> Cells:
        size = 3 * len(slots)
        uvw: np.ndarray = np.empty((size, 3), dtype)
        vis, weight = np.empty(size, np.complex64), np.empty(size, np.float32)
        chan, block = np.empty(size, np.float32), np.empty(size, np.int32)
        count = kernels.write_nodes(
            self._table, self._keys, self._table.view(np.float32), slots, self._cell, self.params.least_spread,
            uvw, vis, weight, chan, block,
        )  # fmt: skip

        def filled(array: np.ndarray) -> np.ndarray:
            return array[:count].copy()  # or the room left over would be held with it

        return Cells(filled(uvw), filled(vis), filled(weight), filled(chan), filled(block), len(slots))

    def _allocate(self, capacity: int) -> None:
        raw = np.zeros(capacity * kernels.LANES + kernels.LANES)
        skip = (-raw.ctypes.data % 64) // raw.itemsize  # entries must not straddle cache lines
        self._table = raw[skip : skip + capacity * kernels.LANES].reshape(capacity, kernels.LANES)
        self._keys = self._table.view(np.int64)

    def _grow(self) -> None:
        capacity = 2 * len(self._table)
        need = _GROWN * _ENTRY_BYTES * capacity
        if need > self.max_bytes:
            raise TableFull(
                f"{self.used:,} cells in one time block would need {need / 1e9:.2g} GB, "
                f"{self.max_bytes / 1e9:.2g} GB is allowed; "
                "raise --memory or --tolerance, or lower --time-block"
            )
        old, old_keys = self._table, self._keys
        self._allocate(capacity)
        kernels.rehash(old, old_keys, self._table, self._keys)


def check_range(params: AveragingParams, uvw: Float64[np.ndarray, "row 3"], scale: float) -> None:
    """Refuse baselines, in m, that have more cells than can be numbered; ``scale`` is wavelengths to a m.

    Raises
    ------
    ParameterError
        Names the ways out.
    """
    longest = math.sqrt(float(np.max(np.einsum("ij,ij->i", uvw, uvw), initial=0.0))) * scale
    bits = (kernels.U_BITS - 1, kernels.V_BITS, kernels.W_BITS - 1)
    if any(longest / size >= (1 << n) - 1 for size, n in zip(params.cell, bits, strict=True)):
        raise ParameterError(
            f"baselines of {longest:.3g} wavelengths need more cells than can be numbered for this facet; "
            "use a smaller facet (--npix) or a larger --tolerance"
        )


def _equal_step(scale: Float64[np.ndarray, " chan"]) -> float:
    """Return the step of equally spaced values, else 0."""
    if len(scale) < 2:
        return 0.0
    step = float(scale[-1] - scale[0]) / (len(scale) - 1)
    return step if np.allclose(scale, scale[0] + step * np.arange(len(scale)), rtol=1e-12, atol=0) else 0.0
