"""The inner loop of reading: correlations, flags and weights of a chunk to one Stokes parameter."""

from __future__ import annotations

import numpy as np
from numba import njit

TALLY = ("samples", "flagged", "not_finite", "no_weight", "zero", "good")


@njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _combined(
    data: np.ndarray, row: int, chan: int, first: int, second: int, sign: np.float32
) -> tuple[np.float32, np.float32]:  # pragma: no cover - compiled
    """Return real and imaginary part of data[first] + sign * data[second]."""
    a = np.complex64(data[row, chan, first])
    if sign == 0:
        return a.real, a.imag
    b = np.complex64(data[row, chan, second])
    return a.real + sign * b.real, a.imag + sign * b.imag


@njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _lesser(weight: np.ndarray, row: int, chan: int, first: int, second: int, hands: np.float32) -> np.float32:
    """Return ``hands`` times the lesser weight; infinity where one is not positive and finite."""
    a, b = weight[row, chan, first], weight[row, chan, second]
    return hands * min(a, b) if a > 0 and b > 0 and a < np.inf and b < np.inf else np.float32(np.inf)


@njit(nogil=True, cache=True, error_model="numpy")
def reduce_chunk(
    data: np.ndarray,
    flag: np.ndarray,
    flag_row: np.ndarray,
    weight: np.ndarray,
    rows: np.ndarray,
    chans: np.ndarray,
    first: int,
    second: int,
    sign: float,
    factor: complex,
    vis: np.ndarray,
    out_weight: np.ndarray,
) -> np.ndarray:  # pragma: no cover - compiled
    """Fill ``vis`` and ``out_weight`` with (data[first] + sign * data[second]) * factor and its weight.

    Return how many samples there were, were flagged, ...: int64 [6], see ``TALLY``.

    The weight is that of the lesser hand, twice for two hands: the inverse variance of their mean where they
    weigh alike, and WSClean's choice where they do not. A sample that is flagged, not finite or without a
    positive finite weight in either hand becomes 0 with weight 0.

    Parameters
    ----------
    data, flag : complex, bool [row, chan, corr]
    flag_row : bool [row]
    weight : float32 [row, chan or 1, corr]
    rows, chans : int64 [row'], [chan']
        What is wanted of them, in the order of the result.
    first, second, sign, factor : see :class:`vis2img.ms.selection.Hands`
    vis, out_weight : complex64, float32 [row', chan']
    """
    per_chan, hands = weight.shape[1] > 1, np.float32(1.0 if sign == 0 else 2.0)
    signed, scale = np.float32(sign), np.complex64(factor)
    tally = np.zeros(6, np.int64)
    tally[0] = len(rows) * len(chans)
    for i, row in enumerate(rows):
        for j, chan in enumerate(chans):
            vis[i, j] = 0
            out_weight[i, j] = 0
            if flag_row[row] or flag[row, chan, first] or flag[row, chan, second]:
                tally[1] += 1
                continue
            re, im = _combined(data, row, chan, first, second, signed)
            if not (np.isfinite(re) and np.isfinite(im)):
                tally[2] += 1
                continue
            w = _lesser(weight, row, chan if per_chan else 0, first, second, hands)
            if not w < np.inf:
                tally[3] += 1
                continue
            value = np.complex64(complex(re * scale.real, im * scale.real))
            if scale.imag != 0:
                value = np.complex64(complex(-im * scale.imag, re * scale.imag))
            if value == 0:
                tally[4] += 1
            vis[i, j] = value
            out_weight[i, j] = w
            tally[5] += 1
    return tally
