"""The inner loop of reading: correlations, flags and weights of a chunk to one Stokes parameter."""

from __future__ import annotations

import numpy as np
from numba import njit

TALLY = ("samples", "flagged", "not_finite", "no_weight", "zero", "good")


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

    The weight is that of the lesser hand, twice for two hands: the inverse variance of their mean where they
    weigh alike, and WSClean's choice where they do not. A sample that is flagged, not finite or without a
    positive finite weight in either hand becomes 0 with weight 0.

    Parameters
    ----------
    data : complex [row, chan, corr]
    flag : bool [row, chan, corr]
    flag_row : bool [row]
    weight : float32 [row, chan or 1, corr]
    rows, chans : int64 [row'], [chan']
        What is wanted of them, in the order of the result.
    first, second, sign, factor
        See :class:`vis2img.ms.selection.Hands`.
    vis : complex64 [row', chan']
    out_weight : float32 [row', chan']

    Returns
    -------
    int64 [6]
        How many samples there were, were flagged, ...: see ``TALLY``.
    """
    per_chan = weight.shape[1] > 1
    hands = np.float32(1.0) if sign == 0 else np.float32(2.0)
    tally = np.zeros(6, np.int64)
    tally[0] = len(rows) * len(chans)
    signed, scale = np.float32(sign), np.complex64(factor)
    plain = scale.imag == 0
    for i in range(len(rows)):
        row = rows[i]
        for j in range(len(chans)):
            chan = chans[j]
            vis[i, j] = 0
            out_weight[i, j] = 0
            if flag_row[row] or flag[row, chan, first] or flag[row, chan, second]:
                tally[1] += 1
                continue
            a = np.complex64(data[row, chan, first])
            if sign == 0:
                re, im = a.real, a.imag
            else:
                b = np.complex64(data[row, chan, second])
                re, im = a.real + signed * b.real, a.imag + signed * b.imag
            if not (np.isfinite(re) and np.isfinite(im)):
                tally[2] += 1
                continue
            at = chan if per_chan else 0
            wa, wb = weight[row, at, first], weight[row, at, second]
            if not (wa > 0 and wb > 0 and wa < np.inf and wb < np.inf):
                tally[3] += 1
                continue
            w = hands * min(wa, wb)
            if not w < np.inf:
                tally[3] += 1
                continue
            value = np.complex64(complex(re * scale.real, im * scale.real))
            if not plain:
                value = np.complex64(complex(-im * scale.imag, re * scale.imag))
            if value == 0:
                tally[4] += 1
            vis[i, j] = value
            out_weight[i, j] = w
            tally[5] += 1
    return tally
