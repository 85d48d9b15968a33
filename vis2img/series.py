"""Many images of one set of visibilities: cubes over frequency and time, and draws of the sampling parameters."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import numpy as np

from vis2img.errors import ParameterError
from vis2img.imaging import Image, make_image
from vis2img.params import ImagingParams
from vis2img.visibilities import Visibilities


def make_images(
    vis: Visibilities | Sequence[Visibilities], params: Sequence[ImagingParams], *, workers: int = 1, psf: bool = False
) -> Iterator[Image]:
    """Image the same visibilities under many parameters, ``workers`` images at a time on one thread each.

    One thread per image beats all threads on one (``docs/benchmarks.md``). Images come in the order of ``params``,
    and no more than twice ``workers`` of them are held.

    Raises
    ------
    MeasurementSetError, ParameterError
        As :func:`vis2img.imaging.make_image`.
    """
    waiting: deque[Future[Image]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for one in params:
                waiting.append(pool.submit(make_image, vis, one, psf=psf))
                if len(waiting) >= 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def make_cube(
    vis: Visibilities | Sequence[Visibilities],
    params: ImagingParams,
    *,
    channels_out: int = 1,
    intervals_out: int = 1,
    psf: bool = False,
    nthreads: int = 1,
) -> Iterator[list[Image]]:
    """Image parts of the band and of the observation one by one, split as WSClean splits them.

    Parameters
    ----------
    vis, params, psf, nthreads
        As :func:`make_image`.
    channels_out : int
        Number of parts of the band: of n distinct frequencies, part i has those from i n / channels_out on.
    intervals_out : int
        Number of parts of the observation, likewise of its distinct times.

    Yields
    ------
    list of Image
        The planes of one interval after the other, in order of frequency.

    Raises
    ------
    ParameterError
        If there are fewer channels or times than parts, or a part holds no visibility with weight.
    """
    parts = [vis] if isinstance(vis, Visibilities) else list(vis)
    freqs = np.unique(np.concatenate([part.chan_freq for part in parts]))
    times = np.unique(np.concatenate([part.time for part in parts]))
    for name, count, there in (("channels_out", channels_out, freqs), ("intervals_out", intervals_out, times)):
        if not 1 <= count <= len(there):
            what = "channels" if there is freqs else "times"
            raise ParameterError(f"{name} = {count}, but there are {len(there)} {what}")
    if params.phase_centre is None:
        params = replace(params, phase_centre=parts[0].phase_centre)
    for interval in _parts_of(times, intervals_out):
        planes = []
        for band in _parts_of(freqs, channels_out):
            piece = [chosen for part in parts if (chosen := _within(part, interval, band)) is not None]
            try:
                if not piece:
                    raise ParameterError("no visibility is there")
                planes.append(make_image(piece, params, psf=psf, nthreads=nthreads))
            except ParameterError as error:
                raise ParameterError(
                    f"the part of {band[0] / 1e6:.6g} to {band[-1] / 1e6:.6g} MHz from "
                    f"{interval[0] - times[0]:.0f} to {interval[-1] - times[0]:.0f} s cannot be imaged: {error}"
                ) from error
        yield planes


def _parts_of(values: np.ndarray, count: int) -> list[np.ndarray]:
    edges = [len(values) * i // count for i in range(count + 1)]
    return [values[a:b] for a, b in pairwise(edges)]


def _within(part: Visibilities, times: np.ndarray, freqs: np.ndarray) -> Visibilities | None:
    """Return what ``part`` holds between the ends of ``times`` and ``freqs``, both included."""
    start, stop = np.searchsorted(part.chan_freq, [freqs[0], np.nextafter(freqs[-1], math.inf)])
    rows = (part.time >= times[0]) & (part.time <= times[-1])
    if start == stop or not rows.any():
        return None
    whole = rows.all() and (start, stop) == (0, len(part.chan_freq))
    return part if whole else part.subset(rows, slice(int(start), int(stop)))


def mean_image(planes: Sequence[Image]) -> Image:
    """Return the mean of the planes of a cube by their weights: WSClean's MFS image."""
    share = np.array([plane.weight_sum for plane in planes]) / sum(plane.weight_sum for plane in planes)

    def mean(name: str) -> np.ndarray:
        return np.sum([s * getattr(plane, name) for s, plane in zip(share, planes, strict=True)], axis=0, dtype=float)

    low = min(plane.band_centre - plane.freq[1] / 2 for plane in planes)
    high = max(plane.band_centre + plane.freq[1] / 2 for plane in planes)
    middle = planes[len(planes) // 2]
    return replace(
        middle,
        data=mean("data").astype(np.float32),
        psf=None if middle.psf is None else mean("psf").astype(np.float32),
        freq=(float(share @ [plane.freq[0] for plane in planes]), high - low),
        band_centre=(low + high) / 2,
        weight_sum=float(sum(plane.weight_sum for plane in planes)),
        nvis=sum(plane.nvis for plane in planes),
    )
