"""Compiled loops of :mod:`vis2img.averaging.cells`: pure functions of arrays that release the GIL.

The table is open addressing with linear probing (Knuth, *The Art of Computer Programming* 3, 6.4), two cache
lines an entry. What costs is waiting for memory, so the samples of a row are first summed in a small buffer while
their entries are fetched, then their slots are looked up, then all are added: many loads are on their way at once,
which makes it a third faster.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

U_BITS, V_BITS, W_BITS, BLOCK_BITS = 20, 19, 13, 11  # of a key, 63 in all
# float64 of an entry, two cache lines: the key, then sums of the weight times 1, du, dv, Im dv, Re, Im, du^2, du dv,
# dv^2, du dw, dv dw, Re du, Im du, Re dv; with (du, dv, dw) from the centre of the cell, in cells. The last one is two
# float32, the weight times dw and times the number of the channel, which need no more digits.
LANES = 16
_DW, _CHAN = 2 * LANES - 2, 2 * LANES - 1
_TILE = 64  # channels looked up together: as many loads as a core can have in flight, and a buffer of 8 kB
_EDGE = 0.499  # of a cell from its centre: how far nodes may lie
# 1, 2 or 3 nodes to a cell along its axes in standard deviations: mean 0, variance 1 along each axis in use.
_NODES = np.array(
    [
        [[0, 0], [0, 0], [0, 0]],
        [[1, 0], [-1, 0], [0, 0]],
        [[math.sqrt(2), 0], [-math.sqrt(0.5), math.sqrt(1.5)], [-math.sqrt(0.5), -math.sqrt(1.5)]],
    ]
)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio


@numba.njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _phasor(turns):
    angle = -2 * math.pi * (turns - np.rint(turns))
    return math.cos(angle), math.sin(angle)


@numba.njit(nogil=True, cache=True, inline="always")
def _home_of(key, shift):
    """Return the slot where the search for ``key`` starts."""
    return np.int64((np.uint64(key) * _GOLDEN) >> np.uint64(shift))


@numba.njit(nogil=True, cache=True, inline="always")
def _slot_of(keys, key, shift):
    """Return the slot of ``key``, or the free one where it belongs."""
    mask = len(keys) - 1
    slot = _home_of(key, shift)
    while keys[slot, 0] != key and keys[slot, 0] != 0:
        slot = (slot + 1) & mask
    return slot


@intrinsic
def _prefetch(typing_context, table, slot):
    """Ask for both cache lines of an entry that will be written, without waiting for them."""

    def generate(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        number = ir.IntType(32)
        start = builder.mul(args[1], ir.Constant(ir.IntType(64), LANES))
        for half in (0, LANES // 2):
            place = builder.gep(array.data, [builder.add(start, ir.Constant(ir.IntType(64), half))])
            place = builder.bitcast(place, ir.IntType(8).as_pointer())
            kind = ir.FunctionType(ir.VoidType(), [place.type, number, number, number])
            call = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
            builder.call(call, [place, *(ir.Constant(number, n) for n in (1, 3, 1))])  # to write, keep, data
        return context.get_dummy_value()

    return types.void(table, slot), generate


@numba.njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _turned(uvw, row, rotation, cell):
    """Return u, v >= 0, w in the new frame (cells at 1/m), the delay of the rotation in m, and -1 for a conjugate."""
    x, y, z = uvw[row, 0], uvw[row, 1], uvw[row, 2]
    u = rotation[0, 0] * x + rotation[0, 1] * y + rotation[0, 2] * z
    v = rotation[1, 0] * x + rotation[1, 1] * y + rotation[1, 2] * z
    w = rotation[2, 0] * x + rotation[2, 1] * y + rotation[2, 2] * z
    delay, sign = w - z, 1.0
    if v < 0:
        u, v, w, sign = -u, -v, -w, -1.0
    return u / cell[0], v / cell[1], w / cell[2], delay, sign


@numba.njit(nogil=True, cache=True, inline="always")
def _key_of(block, iu, iv, iw):
    """Return the number of a cell, above 0."""
    key = ((np.int64(block) + 1) << V_BITS) | np.int64(iv)
    key = (key << U_BITS) | (np.int64(iu) + (1 << (U_BITS - 1)))
    return (key << W_BITS) | (np.int64(iw) + (1 << (W_BITS - 1)))


@numba.njit(nogil=True, cache=True, inline="always")
def _add_sample(sums, n, own, re, im, du, dv, dw, chan):
    """Add a sample of weight ``own`` and weighted visibility (re, im) to the sums of a cell."""
    own_u, own_v = own * du, own * dv
    sums[n, 1] += own
    sums[n, 2] += own_u
    sums[n, 3] += own_v
    sums[n, 0] += own * chan
    sums[n, 4] += im * dv
    sums[n, 5] += re
    sums[n, 6] += im
    sums[n, 7] += own_u * du
    sums[n, 8] += own_u * dv
    sums[n, 9] += own_v * dv
    sums[n, 10] += own_u * dw
    sums[n, 11] += own_v * dw
    sums[n, 12] += re * du
    sums[n, 13] += im * du
    sums[n, 14] += re * dv
    sums[n, 15] += own * dw


@numba.njit(nogil=True, cache=True, inline="always")
def _add_cells(table, keys, singles, tile, sums, slots, count, used, shift):
    """Add the sums of ``count`` cells, whose keys are in ``tile``, to the table; return the cells in it."""
    for i in range(count):
        slot = _slot_of(keys, tile[i], shift)
        if keys[slot, 0] == 0:
            keys[slot, 0] = tile[i]
            used += 1
        slots[i] = slot
    for i in range(count):
        for lane in range(1, LANES - 1):
            table[slots[i], lane] += sums[i, lane]
        singles[slots[i], _DW] += np.float32(sums[i, 15])
        singles[slots[i], _CHAN] += np.float32(sums[i, 0])
    return used


@numba.njit(nogil=True, cache=True, error_model="numpy")
def accumulate(
    uvw, rotation, scale, spacing, vis, weight, block, number, order, cell, table, keys, singles, used, start
):
    """Add rows to the table until it is too full for another; return the next position, and the cells in the table.

    Parameters
    ----------
    uvw : float64 [row, 3]
        Baselines towards the old phase centre, m.
    rotation : float64 [3, 3]
        Axes of the new uvw frame in the old one.
    scale, spacing : float64 [chan], float64
        Frequencies over the speed of light, 1/m, and their step; 0 if unequal.
    vis : complex64 [row, chan]
    weight : float32 [row, chan]
        0 for flagged.
    block, number : int64 [chan]
        Block of each channel, and its number among all that go into the table.
    order : int64 [row]
        Rows in the order to be taken: those that fall into the same cells one after the other.
    cell : float64 [3]
        Cell size in u, v, w, wavelengths.
    table : float64 [slot, LANES]
        Entries; ``keys`` is the same memory as int64, where 0 is a free slot, and ``singles`` as float32.
    used, start : int
        Cells in the table; position in ``order`` to start from.
    """
    nchan, limit, shift = vis.shape[1], len(table) * 2 // 3, 64 - int(np.rint(np.log2(len(table))))
    slots, tile, sums = np.empty(_TILE, np.int64), np.empty(_TILE, np.int64), np.empty((_TILE, LANES))
    for position in range(start, len(order)):
        if used + nchan > limit:
            return position, used
        row = order[position]
        u, v, w, delay, sign = _turned(uvw, row, rotation, cell)
        p_re, p_im = _phasor(delay * scale[0])
        s_re, s_im = _phasor(delay * spacing)

        for first in range(0, nchan, _TILE):
            n, key = -1, np.int64(0)
            for chan in range(first, min(nchan, first + _TILE)):
                if spacing == 0:
                    p_re, p_im = _phasor(delay * scale[chan])
                own = np.float64(weight[row, chan])
                if own > 0:
                    pu, pv, pw = u * scale[chan], v * scale[chan], w * scale[chan]
                    iu, iv, iw = math.floor(pu), math.floor(pv), math.floor(pw)
                    here = _key_of(block[chan], iu, iv, iw)
                    if here != key:
                        n += 1
                        key = tile[n] = here
                        _prefetch(table, _home_of(key, shift))  # type: ignore[call-arg]  # numba fills in the context
                        sums[n, :] = 0
                    value = vis[row, chan]
                    re, im = np.float64(value.real), np.float64(value.imag)
                    re, im = own * (re * p_re - im * p_im), own * sign * (re * p_im + im * p_re)
                    _add_sample(sums, n, own, re, im, pu - iu - 0.5, pv - iv - 0.5, pw - iw - 0.5, number[chan])
                p_re, p_im = p_re * s_re - p_im * s_im, p_re * s_im + p_im * s_re
            used = _add_cells(table, keys, singles, tile, sums, slots, n + 1, used, shift)
    return len(order), used


@numba.njit(nogil=True, cache=True)
def tally(weight, by_row, by_chan):
    """Add ``weight`` [row, chan] to its sums by row and by channel; return how many count."""
    count = 0
    for row in range(weight.shape[0]):
        total = 0.0
        for chan in range(weight.shape[1]):
            own = np.float64(weight[row, chan])
            total += own
            by_chan[chan] += own
            if own > 0:
                count += 1
        by_row[row] += total
    return count


@numba.njit(nogil=True, cache=True)
def rehash(old, old_keys, table, keys):
    """Move the entries of a table to a larger, empty one."""
    shift = 64 - int(np.rint(np.log2(len(table))))
    for i in range(len(old)):
        if old_keys[i, 0] != 0:
            slot = _slot_of(keys, old_keys[i, 0], shift)
            keys[slot, 0] = old_keys[i, 0]
            for lane in range(1, LANES):
                table[slot, lane] = old[i, lane]


@numba.njit(nogil=True, cache=True, inline="always")
def _centre_of(key):
    """Return the centre of a cell in u, v, w, in cells."""
    cell_w = (key & (1 << W_BITS) - 1) - (1 << W_BITS - 1) + 0.5
    cell_u = (key >> W_BITS & (1 << U_BITS) - 1) - (1 << U_BITS - 1) + 0.5
    cell_v = (key >> W_BITS + U_BITS & (1 << V_BITS) - 1) + 0.5
    return cell_u, cell_v, cell_w


@numba.njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _principal_axes(entry, inverse, u, v):
    """Return the standard deviations along the longer and shorter axis, and cosine and sine of the longer's angle."""
    uu, uv, vv = entry[7] * inverse - u * u, entry[8] * inverse - u * v, entry[9] * inverse - v * v
    angle = 0.5 * math.atan2(2 * uv, uu - vv)
    half, diff = (uu + vv) / 2, math.hypot((uu - vv) / 2, uv)
    first, second = math.sqrt(max(0.0, half + diff)), math.sqrt(max(0.0, half - diff))
    return first, second, math.cos(angle), math.sin(angle)


@numba.njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _shrink(count, u, v, first, second, cos, sin):
    """Return the factor that keeps all nodes in the cell, as the samples were: density weights see them there."""
    shrink = 1.0
    for node in range(count):
        a, b = _NODES[count - 1, node, 0], _NODES[count - 1, node, 1]
        du = a * first * cos - b * second * sin
        dv = a * first * sin + b * second * cos
        if du != 0:
            shrink = min(shrink, (_EDGE - math.copysign(u, u * du)) / abs(du))
        if dv != 0:
            shrink = min(shrink, (_EDGE - math.copysign(v, v * dv)) / abs(dv))
    return max(shrink, 1e-3)


@numba.njit(nogil=True, cache=True, inline="always")
def _along(a, b, cos, sin, of_u, of_v):
    """Return what moments along u and v are along the principal axes, ``a`` of the longer and ``b`` of the shorter."""
    return a * (cos * of_u + sin * of_v) + b * (cos * of_v - sin * of_u)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def write_nodes(table, keys, singles, slots, cell, least, uvw, vis, weight, chan, block):
    """Write the nodes that stand for the samples of each cell.

    The nodes of a cell share its weight. They have the samples' mean place and, with :data:`_EDGE` permitting, their
    variances along the two principal axes (no node along an axis of less than ``least``); the visibilities
    have their mean and their first moments along the axes; w is the straight line fitted to w over (u, v).

    Parameters
    ----------
    table, keys, singles
        As :func:`accumulate` has them.
    slots : int64 [cell]
        Which entries, in order.
    cell : float64 [3]
        Cell size in u, v, w, wavelengths.
    least : float64
        Standard deviation, in cells.
    uvw, vis, weight, chan, block : [3 * cell, ...]
        Written: the fields of :class:`vis2img.averaging.cells.Cells`.

    Returns
    -------
    number of nodes
    """
    filled = 0
    for i in range(len(slots)):
        entry, key = table[slots[i]], keys[slots[i], 0]
        inverse = 1.0 / entry[1]
        u, v, w = entry[2] * inverse, entry[3] * inverse, singles[slots[i], _DW] * inverse
        re, im = entry[5] * inverse, entry[6] * inverse
        first, second, cos, sin = _principal_axes(entry, inverse, u, v)
        count = 1 + (first > least) + (second > least)
        shrink = _shrink(count, u, v, first, second, cos, sin)

        # Of w and of the visibility, first moments along both axes over the standard deviations.
        to_u = 1 / (first * shrink) if count > 1 else 0.0
        to_v = 1 / (second * shrink) if count > 2 else 0.0
        w_u, w_v = entry[10] * inverse - u * w, entry[11] * inverse - v * w
        re_u, re_v = entry[12] * inverse - re * u, entry[14] * inverse - re * v
        im_u, im_v = entry[13] * inverse - im * u, entry[4] * inverse - im * v
        cell_u, cell_v, cell_w = _centre_of(key)
        for node in range(count):
            a, b = _NODES[count - 1, node, 0], _NODES[count - 1, node, 1]
            du = shrink * (a * first * cos - b * second * sin)
            dv = shrink * (a * first * sin + b * second * cos)
            dw = shrink**2 * _along(a * to_u, b * to_v, cos, sin, w_u, w_v)
            uvw[filled, 0] = (cell_u + u + du) * cell[0]
            uvw[filled, 1] = (cell_v + v + dv) * cell[1]
            uvw[filled, 2] = (cell_w + w + dw) * cell[2]
            d_re = _along(a * to_u, b * to_v, cos, sin, re_u, re_v)
            d_im = _along(a * to_u, b * to_v, cos, sin, im_u, im_v)
            vis[filled] = complex(re + d_re, im + d_im)
            weight[filled] = entry[1] / count
            chan[filled] = singles[slots[i], _CHAN] * inverse
            block[filled] = (key >> W_BITS + U_BITS + V_BITS) - 1
            filled += 1
    return filled
