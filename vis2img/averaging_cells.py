"""Sum visibilities into uv cells: the table that grows, and the averages taken from it.

See :mod:`vis2img.averaging` for what cells are and what they cost, :mod:`vis2img.averaging_kernels` for the loops.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vis2img.averaging import AveragingParams
from vis2img.errors import ParameterError
from vis2img.phase import uvw_basis
from vis2img.visibilities import SPEED_OF_LIGHT

_ENTRY_BYTES = 128
_PIECE = 1 << 17  # cells turned into averages at a time, which bounds the temporaries


@dataclass(frozen=True, eq=False)
class Cells:
    """Averaged visibilities, sorted by channel block, v and u.

    Parameters
    ----------
    uvw : float64 [node, 3]
        Baselines, wavelengths, v >= 0 but for the nodes of cells at the edge.
    vis : complex64 [node]
        Visibilities towards the facet centre, Jy.
    weight : float32 [node]
        Weights.
    block : int32 [node]
        Channel block.
    ncells : int
        Number of cells that the nodes stand for.
    """

    uvw: np.ndarray
    vis: np.ndarray
    weight: np.ndarray
    block: np.ndarray
    ncells: int


class CellTable:
    """Sums visibilities into cells; grows as needed.

    Parameters
    ----------
    params : AveragingParams
    old_centre : (float, float)
        Phase centre of what will be added, RA and Dec in rad.
    chan_freq : float64 [chan]
        Frequencies in Hz, increasing.
    max_bytes : float
        Memory that the table may take, its growth and conversion to arrays included.
    expected : int
        Cells to make room for, so that the table need not grow.
    """

    def __init__(
        self,
        params: AveragingParams,
        old_centre: tuple[float, float],
        chan_freq: np.ndarray,
        max_bytes: float = math.inf,
        expected: int = 0,
    ) -> None:
        self.params, self.max_bytes = params, max_bytes
        self._rotation = uvw_basis(*params.phase_centre) @ uvw_basis(*old_centre).T
        self._cell = np.array(params.cell)
        self._scale = chan_freq / SPEED_OF_LIGHT
        self._spacing = _equal_step(self._scale)
        self._block = params.channel_block(len(chan_freq))
        room = min(3.2 * expected, max_bytes / (1.5 * _ENTRY_BYTES))
        self._allocate(1 << max(14, (4 * len(chan_freq)).bit_length(), int(room).bit_length() - 1))
        self.used = 0

    def add(
        self,
        uvw: np.ndarray,
        vis: np.ndarray,
        weight: np.ndarray,
        baseline: np.ndarray | None = None,
    ) -> None:
        """Add rows.

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

        Raises
        ------
        ParameterError
            If the cells do not fit into ``max_bytes``.
        """
        from vis2img import averaging_kernels as kernels

        self._check_range(uvw)
        order = np.arange(len(uvw)) if baseline is None else np.argsort(baseline, kind="stable")
        position = 0
        while position < len(order):
            position, self.used = kernels.accumulate(
                uvw, self._rotation, self._scale, self._spacing, vis, weight, self._block, order, self._cell,
                self._table, self._keys, self.used, position,
            )  # fmt: skip
            if position < len(order):
                self._grow()

    def cells(self) -> Cells:
        """Return the averages of what was added so far."""
        keys = self._keys[:, 0]
        filled = np.flatnonzero(keys)
        filled = filled[np.argsort(keys[filled])]
        pieces = [self._piece(filled[i : i + _PIECE]) for i in range(0, max(1, len(filled)), _PIECE)]
        uvw, vis, weight, block = (np.concatenate(arrays) for arrays in zip(*pieces, strict=True))
        return Cells(uvw, vis, weight, block, len(filled))

    def _piece(self, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return uvw, vis, weight and channel block of the nodes of some cells."""
        from vis2img.averaging_kernels import write_nodes

        index, block = _split_keys(self._keys[slots, 0])
        nodes = np.empty((3 * len(slots), 7))
        nodes = nodes[: write_nodes(self._table, slots, self.params.least_spread, nodes)]
        cell = nodes[:, 0].astype(np.int64)
        uvw = (index[cell] + 0.5 + nodes[:, 1:4]) * self._cell
        vis = (nodes[:, 4] + 1j * nodes[:, 5]).astype(np.complex64)
        return uvw, vis, nodes[:, 6].astype(np.float32), block[cell].astype(np.int32)

    def _check_range(self, uvw: np.ndarray) -> None:
        from vis2img.averaging_kernels import U_BITS, V_BITS, W_BITS

        longest = math.sqrt(float(np.max(np.einsum("ij,ij->i", uvw, uvw), initial=0.0))) * self._scale[-1]
        bits = (U_BITS - 1, V_BITS, W_BITS - 1)
        if any(longest / size >= (1 << n) - 1 for size, n in zip(self._cell, bits, strict=True)):
            raise ParameterError(
                f"baselines of {longest:.3g} wavelengths need more cells than can be numbered for this facet; "
                "use a smaller facet (--npix) or a larger --tolerance"
            )

    def _allocate(self, capacity: int) -> None:
        from vis2img.averaging_kernels import LANES

        raw = np.zeros(capacity * LANES + LANES)
        skip = (-raw.ctypes.data % 64) // raw.itemsize  # entries must not straddle cache lines
        self._table = raw[skip : skip + capacity * LANES].reshape(capacity, LANES)
        self._keys = self._table.view(np.int64)

    def _grow(self) -> None:
        from vis2img.averaging_kernels import rehash

        capacity = 2 * len(self._table)
        need = 1.5 * _ENTRY_BYTES * capacity  # with the old one; the arrays made in the end take less
        if need > self.max_bytes:
            raise ParameterError(
                f"{self.used:,} cells in one time block would need {need / 1e9:.2g} GB, "
                f"{self.max_bytes / 1e9:.2g} GB is allowed; "
                "raise --memory or --tolerance, or lower --time-block or --threads"
            )
        old, old_keys = self._table, self._keys
        self._allocate(capacity)
        rehash(old, old_keys, self._table, self._keys)


def _split_keys(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the cell numbers in u, v, w, int64 [cell, 3], and the channel blocks."""
    from vis2img.averaging_kernels import U_BITS, V_BITS, W_BITS

    iw = (keys & (1 << W_BITS) - 1) - (1 << W_BITS - 1)
    iu = (keys >> W_BITS & (1 << U_BITS) - 1) - (1 << U_BITS - 1)
    iv = keys >> W_BITS + U_BITS & (1 << V_BITS) - 1
    return np.stack([iu, iv, iw], axis=-1), (keys >> W_BITS + U_BITS + V_BITS) - 1


def _equal_step(scale: np.ndarray) -> float:
    """Return the step of equally spaced values, else 0."""
    if len(scale) < 2:
        return 0.0
    step = float(scale[-1] - scale[0]) / (len(scale) - 1)
    return step if np.allclose(scale, scale[0] + step * np.arange(len(scale)), rtol=1e-12, atol=0) else 0.0
