"""Observed fields: measurement sets and averaged data, imaged anew for every draw.

A draw takes some of the times, baselines and channels. Of a small field all are read once and kept in the process; of
a large one only those rows and channels are read that the draw takes, so that memory is bounded whatever the
measurement set holds.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np

from vis2img.coordinates import beyond_horizon
from vis2img.dataset import open_ms
from vis2img.draws.draw import Channel, Draw
from vis2img.draws.prior import ImagingPrior
from vis2img.errors import EmptyImageError
from vis2img.imaging.image import Image, make_image, robust_noise
from vis2img.imaging.params import ImagingParams
from vis2img.imaging.sampling import NOTHING_KEPT, chans_within, kept_band, rows_kept, select_parts
from vis2img.ms.selection import Selection
from vis2img.random import EVALUATION_SEED, draw_rng
from vis2img.visibilities import Visibilities

DRAW_MEMORY = 1e9  # bytes that the visibilities of one draw take, unless said otherwise
KEPT_BYTES = 12  # of a visibility that stays from one draw to the next: value and weight
DRAWN_BYTES = 16  # of a visibility while it is imaged: value, weight, imaging weight
_ROW_DRAWN_BYTES = 40  # of a row that is imaged: baseline, time, antennas
_ROW_BYTES = 100  # of a row: times, antennas, baselines, and those of the metadata


Noise = Literal["image", "field"]
_NOISES = 256  # fields whose noise a process remembers


@dataclass(frozen=True)
class ObservedField:
    """A field of a measurement set or of averaged data; see :class:`vis2img.draws.field.Field`."""

    path: str
    """Measurement set, or averaged data."""
    selection: Selection
    prior: ImagingPrior
    subbands: int = 1
    """Parts of the band that are imaged each by itself, from low to high frequency."""
    memory: float = DRAW_MEMORY
    """Bytes that the visibilities of one draw may take; timesteps are thinned out until they do."""
    name: str = ""
    """What messages call it; default: the path."""
    version: str = ""
    """Of its contents (:func:`vis2img.dataset.contents.version_of`): what a process keeps of another is read anew."""
    noise: Noise = "image"
    """Whether the noise of a draw is that of its image, or for all draws that of the field imaged as ``standard``."""

    @property
    def pixsize(self) -> float:
        """Suggested pixel size in rad, in which patches are counted."""
        return self.prior.suggested_pixsize

    @property
    def channels(self) -> int:
        """Number of images in a draw: Stokes parameters times sub-bands."""
        return self.subbands * len(self.selection.stokes)

    def __str__(self) -> str:
        return self.name or self.path

    def data(self) -> FieldData:
        """Return its visibilities; those of the fields used last stay open in this process."""
        return field_data(self.path, self.selection, self.memory, self.version)

    @property
    def standard(self) -> ImagingParams:
        """Parameters of the image that the noise of the field is of: Briggs 0, all data, as for evaluation."""
        return self.prior.fixed().draw(draw_rng(EVALUATION_SEED, 0, 0))

    def draw(self, params: ImagingParams, nthreads: int = 1) -> Draw:
        """Image the field; the parameters of the draw are ``params`` with the timesteps that its memory allows.

        Raises
        ------
        MeasurementSetError
            If the field cannot be read.
        EmptyImageError
            If the parameters leave nothing, nothing but zeros, or fewer channels than sub-bands.
        """
        data = self.data()
        every, params = data.freqs, data.thinned(params)
        parts = data.select(params, nthreads)
        freqs = np.unique(np.concatenate([part.chan_freq for part in parts]))
        if len(freqs) < self.subbands:
            raise EmptyImageError(f"{len(freqs)} channels are kept, fewer than {self.subbands} sub-bands")

        beyond = beyond_horizon(params.npix, params.pixsize)
        images: list[Image] = []
        noise: list[float] = []
        channels: list[Channel] = []
        for stokes in self.selection.stokes:
            for band in np.array_split(freqs, self.subbands):
                image = make_image(_within(parts, stokes, band), params, nthreads=nthreads, selected=True)
                noise.append(max(robust_noise(image.data), 1e-30))
                if beyond is not None:
                    image.data[beyond] = 0  # networks take no NaN; views are cut elsewhere
                if not image.data.any():
                    raise EmptyImageError("the visibilities that are kept are zero")
                images.append(image)
                channels.append(Channel(stokes, _fractions(every, band), image.freq[0]))

        stack = np.stack([image.data for image in images]) if len(images) > 1 else images[0].data[np.newaxis]
        centre, beam = images[0].phase_centre, images[0].beam
        draw = Draw.of_images(stack, params, centre, np.array(noise), tuple(channels), beam=beam)
        if self.noise == "image":
            return draw
        # Peaks are found above the noise of the image itself, which has its sidelobes in it.
        return replace(draw, noise=np.array(_noise_of_field(replace(self, noise="image"), nthreads)))


@lru_cache(maxsize=_NOISES)
def _noise_of_field(field: ObservedField, nthreads: int) -> tuple[float, ...]:
    """Return the noise of each channel of a field in its standard image, Jy/beam; imaged once in a process."""
    return tuple(field.draw(field.standard, nthreads).noise.tolist())


def _within(parts: list[Visibilities], stokes: str, band: np.ndarray) -> list[Visibilities]:
    """Return the channels in ``band`` of the parts of one Stokes parameter."""
    within = []
    for part in parts:
        chans = chans_within(part.chan_freq, band)
        if part.stokes == stokes and chans.start < chans.stop:
            within.append(part.subset(np.ones(part.nrow, bool), chans))
    return within


def _fractions(freqs: np.ndarray, band: np.ndarray) -> tuple[float, float]:
    """Return ``band`` as :attr:`ImagingParams.band` counts it among all frequencies ``freqs``."""
    first, last = np.searchsorted(freqs, [band[0], band[-1]])
    return float(first / len(freqs)), float((last + 1) / len(freqs))


class FieldData:
    """One field opened for draws.

    Parameters
    ----------
    path : str
        Measurement set, or averaged data.
    selection : Selection
        Which field, spectral windows and Stokes parameters.
    memory : float
        Bytes that the visibilities of one draw may take, and those that are kept as much again.

    Raises
    ------
    MeasurementSetError, ParameterError
        As :func:`vis2img.dataset.Dataset.read_parts`.
    """

    def __init__(self, path: str, selection: Selection, memory: float) -> None:
        ms = open_ms(path)
        self._ms, self._selection, self._memory = ms, selection, memory
        self._readers = ms.open_parts(selection)
        self.nvis = sum(r.nrow * len(r.chan_freq) for r in self._readers) * len(selection.stokes)
        self._keeps = not self._readers or self.nvis * KEPT_BYTES <= memory
        self._parts: list[Visibilities] | None = None
        self._lock = threading.Lock()

    @property
    def freqs(self) -> np.ndarray:
        """The distinct frequencies of all spectral windows, Hz, increasing."""
        opened = self._readers or self._read()
        return np.unique(np.concatenate([each.chan_freq for each in opened]))

    @property
    def nbytes(self) -> int:
        """Memory in bytes that is held between draws."""
        rows = sum(r.nrow for r in self._readers) * _ROW_BYTES
        return rows + sum(part.nbytes for part in self._parts or ())

    def thinned(self, params: ImagingParams) -> ImagingParams:
        """Return ``params`` with as many timesteps less as the memory of a draw wants; averages are left alone."""
        share = params.kept_share
        rows = sum(r.nrow for r in self._readers) * share / max(1e-9, params.band[1] - params.band[0])
        need = self.nvis * share * DRAWN_BYTES + rows * _ROW_DRAWN_BYTES
        return params if need <= self._memory else replace(params, keep_times=params.keep_times * self._memory / need)

    def select(self, params: ImagingParams, nthreads: int = 1) -> list[Visibilities]:
        """Return what the sampling fields of ``params`` keep, by spectral window and Stokes parameter.

        Raises
        ------
        MeasurementSetError
            If a column cannot be read, or nothing usable is in the field (all flagged, no weight, ...).
        EmptyImageError
            If the parameters leave nothing, or nothing usable.
        """
        if self._keeps:
            return select_parts(self._read(nthreads), params)
        band = kept_band(self.freqs, params)
        parts: list[Visibilities] = []
        with self._lock:
            for reader in self._readers:
                reader.forget()
                chans, rows = chans_within(reader.chan_freq, band), rows_kept(reader, params)
                if chans.start < chans.stop and rows.any():
                    parts += reader.read(np.flatnonzero(rows), chans=chans, nthreads=nthreads)
            troubles = [reader.trouble() for reader in self._readers]
        if not parts:
            raise EmptyImageError(NOTHING_KEPT)
        if all(troubles):
            raise EmptyImageError(str(troubles[0]))
        return parts

    def _read(self, nthreads: int = 1) -> list[Visibilities]:
        """Return all visibilities, read once."""
        with self._lock:
            if self._parts is None:
                self._parts = self._ms.read_parts(self._selection, nthreads=nthreads)
        return self._parts


_opened: OrderedDict[tuple[str, Selection, float, str], FieldData] = OrderedDict()
_opening = threading.Lock()


def field_data(path: str, selection: Selection, memory: float, version: str = "") -> FieldData:
    """Return a field opened for draws; those used last stay open while ``memory`` suffices for what they keep."""
    key = (path, selection, memory, version)
    with _opening:
        for other in [other for other in _opened if other[0] == path and other[-1] != version]:
            del _opened[other]
        data = _opened.pop(key, None) or FieldData(path, selection, memory)
        _opened[key] = data
        while len(_opened) > 1 and sum(each.nbytes for each in _opened.values()) > memory:
            _opened.popitem(last=False)
    return data
