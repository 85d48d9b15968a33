"""Many images of one set of visibilities: cubes over frequency and time, and draws of the sampling parameters."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np

from vis2img.errors import EmptyImageError, ParameterError
from vis2img.imaging.beam import fit_beam, mean_beam
from vis2img.imaging.image import Image, Split, make_image
from vis2img.imaging.memory import images_at_once
from vis2img.imaging.params import ImagingParams
from vis2img.imaging.rotation import in_one_frame
from vis2img.imaging.sampling import band_extent, chans_within, kept_band
from vis2img.visibilities import Visibilities


def make_draws(
    groups: Sequence[Sequence[Visibilities]], params: Sequence[ImagingParams], *, workers: int = 1, psf: bool = False
) -> Iterator[list[Image]]:
    """Image each group of visibilities under many parameters, several images at a time on one thread each.

    One thread per image beats all threads on one (``docs/benchmarks.md``). All groups share ``workers`` threads, fewer
    where the memory that is free would not do for as many images in making with twice as many finished.

    Parameters
    ----------
    groups : sequence of sequence of Visibilities
        One Stokes parameter each.
    params : sequence of ImagingParams
    workers : int
        Images at a time.
    psf : bool
        Make point spread functions as well.

    Yields
    ------
    list of Image
        One for each group, in the order of ``params``.

    Raises
    ------
    MeasurementSetError, ParameterError
        As :func:`vis2img.imaging.image.make_image`.
    """
    if not params:
        return
    workers = images_at_once(groups, params, workers, psf)
    jobs = (partial(make_image, group, one, psf=psf) for one in params for group in groups)
    with ThreadPoolExecutor(workers) as pool, contextlib.closing(_in_order(pool, jobs, 2 * workers)) as images:
        for _ in params:
            yield [next(images) for _ in groups]


def _in_order(pool: ThreadPoolExecutor, jobs: Iterable[Callable[[], Image]], ahead: int) -> Generator[Image]:
    """Yield what ``jobs`` return; ``ahead`` of them are in the pool or finished at a time."""
    waiting: deque[Future[Image]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(job))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def plane_axes(
    bands: Sequence[tuple[np.ndarray, float]], params: ImagingParams, channels_out: int
) -> list[tuple[float, float]]:
    """Return centre and width in Hz of each plane that a cube of these channels has.

    Parameters
    ----------
    bands : sequence of (float64 [chan], float)
        Frequencies, increasing, and width of the channels in Hz, of each spectral window.
    params : ImagingParams
    channels_out : int
        Number of planes.

    Raises
    ------
    ParameterError
        If there are fewer channels than planes.
    """
    freqs = np.unique(np.concatenate([freqs for freqs, _ in bands]))
    _check_count("channels_out", channels_out, len(freqs), "channels")
    axes = []
    for plane in _parts_of(freqs, channels_out):
        kept = kept_band(plane, params)
        within = [(own[(own >= kept[0]) & (own <= kept[-1])], width) for own, width in bands]
        axes.append(band_extent([(own, width) for own, width in within if len(own)]))
    return axes


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
        The planes of one interval after the other, in order of frequency. Parts that no visibility with weight is in
        are blank planes, as WSClean's: NaN, and ``nvis`` 0.

    Raises
    ------
    ParameterError
        If there are fewer channels or times than parts, or no visibility with weight in any part.
    """
    parts = in_one_frame([vis] if isinstance(vis, Visibilities) else list(vis))
    freqs = np.unique(np.concatenate([part.chan_freq for part in parts]))
    times = np.unique(np.concatenate([part.time for part in parts]))
    _check_count("intervals_out", intervals_out, len(times), "times")
    if params.phase_centre is None:
        params = replace(params, phase_centre=parts[0].phase_centre)
    axes = plane_axes([(part.chan_freq, part.origin.chan_width) for part in parts], params, channels_out)

    blank: list[list[Image]] = []  # intervals that wait for one that is not: nothing is made of blank ones only
    reason: EmptyImageError | None = None
    for i, interval in enumerate(_parts_of(times, intervals_out)):
        planes = []
        for j, (band, (centre, width)) in enumerate(zip(_parts_of(freqs, channels_out), axes, strict=True)):
            try:
                pieces = _within(parts, interval, band)
                plane = make_image(pieces, params, psf=psf, nthreads=nthreads, keep_cells=channels_out > 1)
            except EmptyImageError as error:
                reason = error
                plane = _blank(parts, params, interval, band, psf)
            split = Split(channels_out, j, intervals_out, i)
            planes.append(replace(plane, band_centre=centre, freq=(plane.freq[0], width), split=split))

        blank.append(planes)
        if any(plane.nvis for plane in planes):
            yield from blank
            blank = []
    if len(blank) == intervals_out:
        raise ParameterError(f"every plane is empty: {reason}") from reason
    yield from blank


def _blank(
    parts: Sequence[Visibilities], params: ImagingParams, times: np.ndarray, freqs: np.ndarray, psf: bool
) -> Image:
    """Return the plane of a part without data; its pixels take no memory."""
    assert params.phase_centre is not None
    data = np.broadcast_to(np.float32(np.nan), params.npix[::-1])
    return Image(
        data=data,
        psf=data if psf else None,
        params=params,
        phase_centre=params.phase_centre,
        freq=(float(freqs.mean()), 0.0),
        beam=None,
        weight_sum=0.0,
        nvis=0,
        stokes=parts[0].stokes,
        channels=(freqs, np.zeros(len(freqs))),
        origin=parts[0].origin.with_all(part.origin for part in parts),
        time_start=float(times[0]),
    )


def _check_count(name: str, count: int, there: int, what: str) -> None:
    if not 1 <= count <= there:
        raise ParameterError(f"{name} = {count}, but there are {there} {what}")


def _parts_of(values: np.ndarray, count: int) -> list[np.ndarray]:
    edges = [len(values) * i // count for i in range(count + 1)]
    return [values[a:b] for a, b in pairwise(edges)]


def _within(parts: Sequence[Visibilities], times: np.ndarray, freqs: np.ndarray) -> list[Visibilities]:
    """Return what ``parts`` hold between the ends of ``times`` and ``freqs``, both included."""
    pieces = []
    for part in parts:
        chans = chans_within(part.chan_freq, freqs)
        rows = (part.time >= times[0]) & (part.time <= times[-1])
        if chans.start < chans.stop and rows.any():
            pieces.append(part.subset(rows, chans))
    if not any(np.any(piece.weight) for piece in pieces):
        raise EmptyImageError("no visibility with weight is there")
    return pieces


def mean_image(planes: Iterable[Image]) -> Image:
    """Return the mean of the planes of a cube by their weights: WSClean's MFS image; blank planes do not count.

    The beam is fitted to the mean point spread function, which follows from the planes' weights on the density grid;
    of planes that were made without (``keep_cells``), or whose main lobe is too wide for it, from the planes' beams.
    One plane at a time is looked at, so that ``planes`` may come one by one.
    """
    first: Image | None = None
    data = psf = cells = None
    with_cells = True
    seen: list[Image] = []  # without their pixels
    for plane in planes:
        seen.append(replace(plane, data=np.zeros(0), psf=None, cells=None))
        if first is None or (first.nvis == 0 and plane.nvis):
            first = plane
        if not plane.nvis:
            continue

        data = _add(data, plane.data, plane.weight_sum)
        psf = None if plane.psf is None else _add(psf, plane.psf, plane.weight_sum)
        with_cells &= plane.cells is not None
        cells = _add_cells(cells, plane.cells) if plane.cells is not None else None
    if first is None:
        raise ParameterError("a mean needs at least one plane")

    full = [plane for plane in seen if plane.nvis]
    whole = full or seen
    total = float(sum(plane.weight_sum for plane in full))
    low = min(plane.band_centre - plane.freq[1] / 2 for plane in seen)
    high = max(plane.band_centre + plane.freq[1] / 2 for plane in seen)
    mean_freq = sum(plane.weight_sum * plane.freq[0] for plane in full) / total if full else (low + high) / 2
    beam = fit_beam(cells[1], cells[0], first.params.density_cell) if with_cells and cells is not None else None
    if beam is None:
        beam = mean_beam([plane.beam for plane in full], [plane.weight_sum for plane in full])

    return replace(
        first,
        data=first.data if data is None else (data / total).astype(np.float32),
        psf=first.psf if psf is None else (psf / total).astype(np.float32),
        cells=None,
        freq=(mean_freq, high - low),
        band_centre=(low + high) / 2,
        beam=beam,
        weight_sum=total,
        off_grid=sum(plane.weight_sum * plane.off_grid for plane in full) / total if full else 0.0,
        nvis=sum(plane.nvis for plane in full),
        channels=_joined([plane.channels for plane in whole]),
        times=_joined([plane.times for plane in full]),
        origin=first.origin.with_all(plane.origin for plane in whole),
        time_start=float(np.fmin.reduce([plane.time_start for plane in whole])),
        split=first.split and replace(first.split, channels_out=None, channel=None),
    )


def _add(total: np.ndarray | None, image: np.ndarray, weight: float) -> np.ndarray:
    if total is None:
        return weight * image.astype(np.float64)
    # By rows, so that no second image in double precision is needed.
    for row, more in zip(total, image, strict=True):
        row += weight * more
    return total


def _add_cells(total: tuple[int, np.ndarray] | None, more: tuple[int, np.ndarray]) -> tuple[int, np.ndarray]:
    """Add density grids that begin and end at different cells."""
    first, cells = more
    if total is None:
        return first, cells.astype(np.float64)
    start, sums = total
    low, high = min(start, first), max(start + sums.shape[1], first + cells.shape[1])
    rows = max(len(sums), len(cells))
    if (rows, high - low) != sums.shape:
        grown = np.zeros((rows, high - low))
        grown[: len(sums), start - low : start - low + sums.shape[1]] = sums
        sums = grown
    sums[: len(cells), first - low : first - low + cells.shape[1]] += cells
    return low, sums


def _joined(pairs: Sequence[tuple[np.ndarray, np.ndarray] | None]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the union of the channels or times, and the sums of their weights."""
    every = [pair for pair in pairs if pair is not None]
    if not every or len(every) < len(pairs):
        return None
    values, index = np.unique(np.concatenate([values for values, _ in every]), return_inverse=True)
    return values, np.bincount(index, np.concatenate([weights for _, weights in every]))
