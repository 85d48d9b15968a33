"""Stream the visibilities of one field from a measurement set, chunk by chunk.

The light columns (times, antennas, uvw) decide which rows are wanted; then the data columns are read in
chunks of rows, as real data are tiled across all channels, and each chunk is reduced at once to Stokes
parameters and a weight: flags, autocorrelations, NaN and useless weights become weight 0. Memory is the
result plus a few chunks.
"""

from __future__ import annotations

import json
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import pairwise

import numpy as np

from vis2img.coordinates import turn_uvw
from vis2img.errors import MeasurementSetError, ParameterError, Vis2imgWarning
from vis2img.ms.columns import Columns
from vis2img.ms.metadata import Metadata
from vis2img.ms.selection import Band, Selection, hand_cautions, resolve, select_rows
from vis2img.ms.tables import row_sample
from vis2img.progress import Progress, no_progress
from vis2img.visibilities import Origin, Visibilities

_CHUNK_BYTES = 4e6  # of the data column; a handful of chunks are in flight
_SAMPLE_CHUNKS = 4  # read to judge a part beforehand
_AUTO_WEIGHTS = ("WEIGHT_SPECTRUM", "WEIGHT")
_LIGHT = ("TIME", "ANTENNA1", "ANTENNA2", "UVW")


class PartReader:
    """The wanted rows of one field and spectral window, opened for reading at once or in pieces.

    Parameters
    ----------
    meta : Metadata
    band : Band
        From :func:`vis2img.ms.selection.resolve`.

    Attributes
    ----------
    chan_freq : float64 [chan]
        Frequencies wanted, increasing, Hz.
    time : float64 [row]
        Times of the wanted rows, s (MJD), in the order of the measurement set.
    uvw : float64 [row, 3]
        Baselines in m.
    antenna1, antenna2 : int32 [row]
        Antenna numbers.

    Raises
    ------
    MeasurementSetError, ParameterError
        If the selection is outside the data, or the light columns cannot be read.
    """

    def __init__(self, meta: Metadata, band: Band) -> None:
        self.meta, self.band, self.chan_freq = meta, band, band.chan_freq
        spw = meta.spws[band.partition.spw]
        if np.any(np.diff(self.chan_freq) <= 0):
            raise MeasurementSetError(f"{meta.path}: SPECTRAL_WINDOW {spw.id} lists a channel frequency twice")

        self._columns = Columns(meta, band)
        nchan = self._columns.shape(band.column)[0]
        if len(spw.chan_freq) != nchan:
            raise MeasurementSetError(
                f"{meta.path}: {band.column} has {nchan} channels, SPECTRAL_WINDOW {spw.id} lists {len(spw.chan_freq)}"
            )
        light = {name: self._columns.whole(name) for name in _LIGHT}
        self._rows = select_rows(meta, band, light)
        self.weight_column: str = band.selection.weight_column
        if self.weight_column == "auto":
            self.weight_column = next((name for name in _AUTO_WEIGHTS if self._columns.has(name)), "none")
        for name in self._heavy:
            self._columns.check(name)

        self.chunk_rows = max(1, int(_CHUNK_BYTES / (8 * len(spw.chan_freq) * len(band.partition.corrs))))
        # No copies of columns that are wanted whole: there may be many millions of rows.
        pick = slice(None) if len(self._rows) == len(light["TIME"]) else self._rows
        self.time = light["TIME"][pick].astype(np.float64, copy=False)
        self.uvw = turn_uvw(light["UVW"][pick].astype(np.float64, copy=False), band.field.turn)
        self.antenna1 = light["ANTENNA1"][pick].astype(np.int32, copy=False)
        self.antenna2 = light["ANTENNA2"][pick].astype(np.int32, copy=False)
        self.forget()

    def forget(self) -> None:
        """Start to count anew what :meth:`trouble` tells of."""
        self._tally = np.zeros(6, np.int64)
        self._gaps: dict[str, str] = {}  # column with rows without a value: what became of them

    @property
    def nrow(self) -> int:
        """Number of wanted rows."""
        return len(self._rows)

    @property
    def _heavy(self) -> list[str]:
        """The columns that hold a value for each channel or correlation, and the flags of rows."""
        optional = ("FLAG_ROW", self.weight_column)
        return [self.band.column, "FLAG", *(name for name in optional if self._columns.has(name))]

    def read(
        self,
        rows: np.ndarray | None = None,
        *,
        chans: slice = slice(None),
        nthreads: int = 2,
        progress: Progress = no_progress,
    ) -> list[Visibilities]:
        """Return the visibilities of the wanted rows numbered ``rows`` (increasing; default: all), of ``chans``.

        Returns
        -------
        list of Visibilities
            One for each Stokes parameter, in the order of the selection.
        """
        band = self.band
        positions = self._rows if rows is None else self._rows[rows]
        wanted = band.chans[chans]
        shape = (len(positions), len(wanted))
        results = [(np.empty(shape, np.complex64), np.empty(shape, np.float32)) for _ in band.hands]
        names = self._heavy
        done, lock = [0], threading.Lock()

        def reduce(rows: np.ndarray, out: slice) -> np.ndarray:
            first, stop = int(rows[0]), int(rows[-1]) + 1
            chunk, empty = self._columns.chunk(names, first, stop - first, self.chunk_rows)
            if empty:
                self._mend(chunk, empty, first, rows - first)
            tally = self._reduce(chunk, rows - first, wanted, results, out)
            with lock:
                done[0] += len(rows)
                progress("reading rows", done[0], len(positions))
            return tally

        spans = _chunks(positions, self.chunk_rows)
        # The first chunk alone: it loads the compiled loop, which threads would wait for under each other's feet.
        tallies = [reduce(positions[span], span) for span in spans[:1]]
        with ThreadPoolExecutor(max(1, nthreads)) as pool:
            tallies += pool.map(lambda span: reduce(positions[span], span), spans[1:])
        self._tally += sum(tallies)
        self._tell_gaps()
        pick = slice(None) if rows is None else rows
        return [
            Visibilities(
                uvw=self.uvw[pick],
                chan_freq=self.chan_freq[chans],
                vis=vis,
                weight=weight,
                time=self.time[pick],
                antenna1=self.antenna1[pick],
                antenna2=self.antenna2[pick],
                phase_centre=band.field.phase_centre,
                stokes=stokes,
                origin=self.origin(stokes),
            )
            for (stokes, _), (vis, weight) in zip(band.hands, results, strict=True)
        ]

    def _mend(self, chunk: dict[str, np.ndarray], empty: dict[str, np.ndarray], first: int, rows: np.ndarray) -> None:
        """Refuse rows without visibilities, leave out those without flags or weights, but take WEIGHT where it is.

        Raises
        ------
        MeasurementSetError
            Names the column of visibilities, and in how many rows it has no value.
        """
        for name, gaps in empty.items():
            if not gaps[rows].any():
                continue
            if name == self.band.column:
                raise MeasurementSetError(self._gap_text(name) + "; choose another column with --column, or fill it")
            if name == "WEIGHT_SPECTRUM" and self._columns.has("WEIGHT"):
                own, also = self._columns.chunk(["WEIGHT"], first, len(gaps), self.chunk_rows)
                chunk[name][gaps] = own["WEIGHT"][gaps][:, np.newaxis, :]
                self._gaps[name] = "weighed by WEIGHT"
                gaps = also.get("WEIGHT", np.zeros(len(gaps), bool))
            if gaps[rows].any():
                chunk["FLAG"][gaps] = True
                self._gaps[name] = "left out"

    def _tell_gaps(self) -> None:
        """Warn of columns that had no value in some rows, and forget them."""
        for name, what in self._gaps.items():
            warnings.warn(f"{self._gap_text(name)}, which are {what}", Vis2imgWarning, stacklevel=2)
        self._gaps.clear()

    def _gap_text(self, name: str) -> str:
        gaps, nrow = self._columns.gaps(name)
        return (
            f"{self.meta.path}: {name} has no value in {gaps:,} of the {nrow:,} rows of field "
            f"{self.band.field.name!r}, spectral window {self.band.partition.spw}"
        )

    def _reduce(
        self,
        chunk: dict[str, np.ndarray],
        rows: np.ndarray,
        chans: np.ndarray,
        results: list[tuple[np.ndarray, np.ndarray]],
        out: slice,
    ) -> np.ndarray:
        """Write ``rows`` and ``chans`` of a chunk to ``out`` of the results; return how many samples were what."""
        from vis2img.ms.stokes_kernel import reduce_chunk

        data = np.ascontiguousarray(chunk[self.band.column])
        nrow, _, ncorr = data.shape
        flag = np.ascontiguousarray(chunk["FLAG"], dtype=bool)
        flag_row = np.ascontiguousarray(chunk.get("FLAG_ROW", np.zeros(nrow)), dtype=bool)
        weight = chunk[self.weight_column] if self.weight_column in chunk else np.ones((nrow, ncorr))
        weight = np.ascontiguousarray(weight, dtype=np.float32)
        if weight.ndim == 2:
            weight = weight[:, np.newaxis, :]

        tally = np.zeros(6, np.int64)
        for (_, h), (vis, out_weight) in zip(self.band.hands, results, strict=True):
            tally += reduce_chunk(
                data, flag, flag_row, weight, rows, chans,
                h.first, h.second, float(h.sign), complex(h.factor), vis[out], out_weight[out],
            )  # fmt: skip
        return tally

    def origin(self, stokes: str = "I") -> Origin:
        """Return where the visibilities come from."""
        band, meta = self.band, self.meta
        return Origin(
            paths=(str(meta.path.resolve()),),
            selection=json.dumps(asdict(band.selection)),
            telescope=meta.telescope,
            field=band.field.name,
            spw=(band.partition.spw,),
            column=band.column,
            stokes_from=dict(band.hands)[stokes].label,
            frame=band.field.frame,
            freq_frame=meta.spws[band.partition.spw].frame,
            pointing=band.field.pointing,
            band=meta.band(band.partition.spw),
            chan_width=band.chan_width,
            dish_diameter=meta.dish_diameter,
        )

    def trouble(self) -> str | None:
        """Return why nothing that was read so far can be imaged, or None when something can."""
        return self._trouble_of(self._tally)

    def sample_trouble(self) -> str | None:
        """Return the trouble of a sample of the rows (a few MB), without compiled loops, which take long to load.

        Raises
        ------
        MeasurementSetError
            If a column cannot be read.
        """
        rows = self._rows[row_sample(len(self._rows), _SAMPLE_CHUNKS * self.chunk_rows)]
        tally, hands = np.zeros(6, np.int64), self.band.hands[0][1]
        names, pair = self._heavy, [hands.first, hands.second]
        for span in _chunks(rows, self.chunk_rows):
            first, mine = int(rows[span][0]), rows[span] - rows[span][0]
            chunk, empty = self._columns.chunk(names, first, int(mine[-1]) + 1, self.chunk_rows)
            if empty:
                self._mend(chunk, empty, first, mine)
            flagged = chunk["FLAG"][mine][..., pair].any(axis=-1)
            if "FLAG_ROW" in chunk:
                flagged |= chunk["FLAG_ROW"][mine][:, np.newaxis]
            both = chunk[self.band.column][mine][..., pair]
            weight = chunk.get(self.weight_column, np.ones((len(flagged), 1, 2)))
            weight = weight[mine][..., pair] if self.weight_column in chunk else weight
            weight = weight[:, np.newaxis] if weight.ndim == 2 else weight
            finite = np.isfinite(both).all(axis=-1)
            weighed = np.broadcast_to(((weight > 0) & np.isfinite(weight)).all(axis=-1), flagged.shape)
            good = ~flagged & finite & weighed
            zero = good & (both[..., 0] + hands.sign * both[..., 1] == 0)
            tally += [
                flagged.size,
                flagged.sum(),
                (~flagged & ~finite).sum(),
                (~flagged & finite & ~weighed).sum(),
                zero.sum(),
                good.sum(),
            ]
        text = self._trouble_of(tally)
        return text if text is None or len(rows) == self.nrow else f"{text} (in {len(rows):,} of {self.nrow:,} rows)"

    def _trouble_of(self, tally: np.ndarray) -> str | None:
        samples, flagged, not_finite, no_weight, zero, good = tally.tolist()
        column, weights = self.band.column, self.weight_column
        where = f"{self.meta.path}: field {self.band.field.name!r}, spectral window {self.band.partition.spw}"
        if good == 0:
            share = {
                "flagged": flagged,
                f"NaN or infinite in {column}": not_finite,
                f"without a positive finite {weights}": no_weight,
            }
            shown = ", ".join(f"{100 * n / max(1, samples):.0f}% {what}" for what, n in share.items() if n)
            advice = "; use --weight-column none to weigh all samples alike" if no_weight else ""
            return f"{where}: no usable visibility: {shown}{advice}"
        if zero == good:
            others = [c for c in self.meta.data_columns if c != column]
            advice = f"; choose another with --column ({', '.join(others)})" if others else ""
            return f"{where}: the column {column} holds zeros only{advice}"
        return None


def open_parts(meta: Metadata, selection: Selection) -> list[PartReader]:
    """Open what a selection reads, one part for each spectral window and polarisation set-up.

    Warns of what a user should know of the set. Of several windows those that cannot be imaged are left out and told.

    Raises
    ------
    MeasurementSetError, ParameterError
        If the selection is outside the data, or none of its windows can be read.
    """
    bands = resolve(meta, selection)
    readers: list[PartReader] = []
    troubles: list[MeasurementSetError | ParameterError] = []
    for band in bands:
        try:
            readers.append(PartReader(meta, band))
        except (MeasurementSetError, ParameterError) as error:
            troubles.append(error)
    if not readers:
        raise troubles[0]

    left_out = [f"{error}; this spectral window is left out" for error in troubles]
    cautions = [f"{meta.path}: {text}" for text in (*meta.cautions, *hand_cautions(meta, bands))]
    for text in dict.fromkeys([*cautions, *left_out]):
        warnings.warn(text, Vis2imgWarning, stacklevel=2)
    return readers


def _chunks(positions: np.ndarray, length: int) -> list[slice]:
    """Split increasing row numbers into runs that span at most ``length`` rows."""
    edges = [0]
    while edges[-1] < len(positions):
        edges.append(int(np.searchsorted(positions, positions[edges[-1]] + length)))
    return [slice(start, stop) for start, stop in pairwise(edges)]
