"""Thinning out: the part of the visibilities that the sampling fields of the imaging parameters keep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from vis2img.errors import EmptyImageError, ParameterError
from vis2img.imaging.params import ImagingParams
from vis2img.shapes import Bool, Float64
from vis2img.visibilities import Visibilities

NOTHING_KEPT = "the sampling parameters (band, time_span, keep_*) leave no visibilities"


@runtime_checkable
class Rows(Protocol):
    """What the choice of rows looks at: times [row] in s, and antenna numbers [row], which averages have not."""

    @property
    def time(self) -> np.ndarray: ...
    @property
    def antenna1(self) -> np.ndarray | None: ...
    @property
    def antenna2(self) -> np.ndarray | None: ...


def select_samples(vis: Visibilities, params: ImagingParams) -> Visibilities:
    """Return what the sampling fields of ``params`` keep of ``vis``; replays from ``sampling_seed``.

    Raises
    ------
    EmptyImageError
        If nothing is left.
    """
    return select_parts([vis], params)[0]


def select_parts(parts: Sequence[Visibilities], params: ImagingParams) -> list[Visibilities]:
    """Return what the sampling fields keep of ``parts``; ``band`` counts the distinct channels of all of them.

    Times, antennas and baselines are chosen in each part alike, as far as the parts are alike.
    """
    band = kept_band(np.unique(np.concatenate([part.chan_freq for part in parts])), params)
    result = []
    for part in parts:
        chans, rows = chans_within(part.chan_freq, band), rows_kept(part, params)
        if chans.start == chans.stop or not rows.any():
            continue
        result.append(part.subset(rows, chans))
    if not result:
        raise EmptyImageError(NOTHING_KEPT)
    return result


def chans_within(chan_freq: Float64[np.ndarray, " chan"], band: Float64[np.ndarray, " band"]) -> slice:
    """Return which of the increasing frequencies ``chan_freq`` lie between the ends of ``band``, both included."""
    start, stop = np.searchsorted(chan_freq, [band[0], np.nextafter(band[-1], math.inf)])
    return slice(int(start), int(stop))


def kept_band(freqs: Float64[np.ndarray, " freq"], params: ImagingParams) -> Float64[np.ndarray, " band"]:
    """Return those of the distinct frequencies ``freqs`` that ``params.band`` keeps."""
    low, high = params.band
    first = min(int(low * len(freqs) + 1e-9), len(freqs) - 1)
    return freqs[first : max(first + 1, math.ceil(high * len(freqs) - 1e-9))]


def band_extent(bands: Sequence[tuple[Float64[np.ndarray, " _"], float]]) -> tuple[float, float]:
    """Return middle and width in Hz of what channels cover.

    Parameters
    ----------
    bands : sequence of (float64 [chan], float)
        Frequencies, increasing, and width of the channels in Hz; 0: their spacing.
    """
    low, high = [], []
    for freqs, width in bands:
        width = width or (float(np.median(np.diff(freqs))) if len(freqs) > 1 else 0.0)
        low.append(float(freqs[0]) - width / 2)
        high.append(float(freqs[-1]) + width / 2)
    return (min(low) + max(high)) / 2, max(high) - min(low)


def rows_kept(vis: Rows, params: ImagingParams) -> Bool[np.ndarray, " row"]:
    """Return a mask [row] of the rows that the sampling fields of ``params`` keep."""
    rng = np.random.default_rng(params.sampling_seed)
    first, second = vis.antenna1, vis.antenna2
    rows = np.ones(len(vis.time), dtype=bool)
    if params.time_span != (0.0, 1.0) or params.keep_times < 1:
        times, index = np.unique(vis.time, return_inverse=True)
        low, high = params.time_span
        start = min(int(low * len(times) + 1e-9), len(times) - 1)
        kept = np.zeros(len(times), dtype=bool)
        kept[start : max(start + 1, math.ceil(high * len(times) - 1e-9))] = True
        kept &= _keep_some(rng, kept, params.keep_times)
        rows &= kept[index]
    if params.keep_antennas < 1:
        if first is None or second is None:
            raise ParameterError("averaged data no longer know their antennas; set keep_antennas to 1")
        nant = int(max(first.max(), second.max())) + 1
        present = np.zeros(nant, dtype=bool)
        present[first] = present[second] = True
        kept = _keep_some(rng, present, params.keep_antennas, least=2)
        rows &= kept[first] & kept[second]
    if params.keep_baselines < 1:
        if first is None or second is None:  # uv cells are what is left of baselines
            rows &= rng.random(len(vis.time)) < params.keep_baselines
        else:
            pair = first.astype(np.int64) << 32 | second
            pairs, index = np.unique(pair, return_inverse=True)
            rows &= _keep_some(rng, np.ones(len(pairs), dtype=bool), params.keep_baselines)[index]
    return rows


def _keep_some(
    rng: np.random.Generator, among: Bool[np.ndarray, " n"], fraction: float, least: int = 1
) -> Bool[np.ndarray, " n"]:
    """Return a mask that keeps ``fraction`` of the True entries of ``among``, at least ``least`` of them."""
    candidates = np.flatnonzero(among)
    count = min(len(candidates), max(least, round(fraction * len(candidates))))
    kept = np.zeros_like(among)
    kept[rng.choice(candidates, size=count, replace=False)] = True
    return kept
