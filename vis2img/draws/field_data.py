"""The visibilities of a field as draws want them: kept in this process where they are few, read in part where many.

A draw takes some of the times, baselines and channels. Of a small field all are read once and kept; of a large one
only those rows and channels are read that the draw takes, so that memory is bounded whatever the measurement set holds.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace

import numpy as np

from vis2img.dataset import open_ms
from vis2img.errors import EmptyImageError
from vis2img.imaging.params import ImagingParams
from vis2img.imaging.sampling import NOTHING_KEPT, chans_within, kept_band, rows_kept, select_parts
from vis2img.ms.selection import Selection
from vis2img.visibilities import Visibilities

KEPT_BYTES = 12  # of a visibility that stays from one draw to the next: value and weight
DRAWN_BYTES = 16  # of a visibility while it is imaged: value, weight, imaging weight
_ROW_DRAWN_BYTES = 40  # of a row that is imaged: baseline, time, antennas
_ROW_BYTES = 100  # of a row: times, antennas, baselines, and those of the metadata


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
        As :func:`vis2img.ms.reading.read_parts`.
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
        kept = params.kept_share
        rows = sum(r.nrow for r in self._readers) * kept / max(1e-9, params.band[1] - params.band[0])
        need = self.nvis * kept * DRAWN_BYTES + rows * _ROW_DRAWN_BYTES
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


_opened: OrderedDict[tuple[str, Selection, float], FieldData] = OrderedDict()
_opening = threading.Lock()


def field_data(path: str, selection: Selection, memory: float) -> FieldData:
    """Return a field opened for draws; those used last stay open while ``memory`` suffices for what they keep."""
    key = (path, selection, memory)
    with _opening:
        data = _opened.pop(key, None) or FieldData(path, selection, memory)
        _opened[key] = data
        while len(_opened) > 1 and sum(each.nbytes for each in _opened.values()) > memory:
            _opened.popitem(last=False)
    return data
