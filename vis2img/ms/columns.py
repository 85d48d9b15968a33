"""The columns of a measurement set's main table over the rows of one field and spectral window, checked."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import numpy as np

from vis2img.errors import MeasurementSetError, first_line
from vis2img.ms.metadata import Metadata, utc_times
from vis2img.ms.selection import Band
from vis2img.ms.tables import in_unit, open_table, row_sample

_LOOKED_AT = 1024  # rows in which a column may have its first value


class Columns:
    """The columns of the main table over the rows of one field and spectral window."""

    def __init__(self, meta: Metadata, band: Band) -> None:
        part, weights = band.partition, band.selection.weight_column
        self.path, self.lock, self._buffers = meta.path, threading.Lock(), threading.local()
        main = open_table(meta.path)
        known = meta.rows or {}
        field, ddid = (known[name] if name in known else main.getcol(name) for name in ("FIELD_ID", "DATA_DESC_ID"))
        mine = (field == part.field) & (ddid == part.ddid)
        if not mine.any():
            raise MeasurementSetError(f"{meta.path} has no row for field {part.field}, spectral window {part.spw}")
        self._table = main if mine.all() else main.selectrows(np.flatnonzero(mine))
        self._known = {name: values if mine.all() else values[mine] for name, values in known.items()}
        self._names = frozenset(self._table.colnames())
        self._firsts: dict[str, int | None] = {}
        # A column may exist without values in these rows (WEIGHT_SPECTRUM often does): only those asked for must.
        needed = ["FLAG", band.column, *([] if weights in ("auto", "none") else [weights])]
        missing = [name for name in needed if not self.has(name)]
        if missing:
            raise MeasurementSetError(
                f"{meta.path}: the column {', '.join(missing)} has no values for field {part.field}, "
                f"spectral window {part.spw}; choose another with --column"
            )
        if len(self.shape(band.column)) != 2:
            raise MeasurementSetError(
                f"{meta.path}: the column {band.column} holds no visibilities [row, chan, corr]; "
                "choose another with --column"
            )
        self._ncorr = len(part.corrs)
        self._nchan = len(meta.spws[part.spw].chan_freq)
        self._where = f"field {part.field}, spectral window {part.spw}"

    def has(self, name: str) -> bool:
        """Return whether a column is there and has values in some of the rows."""
        return name in self._names and self._first(name) is not None

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of one cell, that of the first row with a value."""
        return np.shape(self._table.getcell(name, self._first(name) or 0))

    def _first(self, name: str) -> int | None:
        """Return the first row with a value, among a sample of them; None where there is none."""
        if name not in self._firsts:
            rows = row_sample(self._table.nrows(), _LOOKED_AT)
            self._firsts[name] = next((row for row in rows.tolist() if self._table.iscelldefined(name, row)), None)
        return self._firsts[name]

    def check(self, name: str, shape: tuple[int, ...] | None = None) -> None:
        """Refuse cells of another shape than the sub-tables say: the compiled loops trust the numbers of them.

        Raises
        ------
        MeasurementSetError
            Names the column, the shapes and a remedy.
        """
        shape = self.shape(name) if shape is None else shape
        corr, full = (self._ncorr,), (self._nchan, self._ncorr)
        allowed: dict[str, tuple[tuple[int, ...], ...]]
        allowed = {"FLAG_ROW": ((),), "WEIGHT": (corr,), "WEIGHT_SPECTRUM": (full, (1, self._ncorr))}
        if shape in allowed.get(name, (full,)):
            return
        remedy = {
            "FLAG": "write FLAG anew in the shape of the data (e.g. CASA mstransform)",
            "WEIGHT": "use --weight-column none, or WEIGHT_SPECTRUM",
            "WEIGHT_SPECTRUM": "use --weight-column WEIGHT, or none",
        }.get(name, "choose another with --column, or split the set anew (e.g. CASA mstransform)")
        expected = list(allowed.get(name, (full,))[0])
        raise MeasurementSetError(
            f"{self.path}: {self._where}: a cell of {name} is {list(shape)}, not {expected}, as SPECTRAL_WINDOW has "
            f"{self._nchan} channels and POLARIZATION {self._ncorr} correlations; {remedy}"
        )

    def whole(self, name: str) -> np.ndarray:
        """Return a light column over all rows."""
        if name in self._known:
            return self._known[name]
        with self._telling(name):
            values = self._table.getcol(name)
        if name == "UVW":
            return in_unit(self._table, name, values, "m", self.path)
        return utc_times(self._table, values, self.path) if name == "TIME" else values

    def chunk(
        self, names: list[str], start: int, count: int, room: int
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return ``count`` rows of columns, valid until this thread asks for the next; at most ``room`` rows.

        Each thread reads into memory of its own again and again, which takes half the time of fresh arrays.
        casacore reads one chunk at a time, while other threads work on theirs.

        Returns
        -------
        values : dict of arrays [row, ...]
        empty : dict of bool [row]
            The rows in which a column has no value, of those columns that have such; the values are 0 there.
        """
        buffers, empty = self._buffers.__dict__, {}
        with self.lock:
            for name in names:
                with self._telling(name):
                    if name not in buffers:
                        one = np.asarray(self._table.getcol(name, self._first(name) or 0, 1))
                        self.check(name, one.shape[1:])
                        buffers[name] = np.empty((room, *one.shape[1:]), one.dtype)
                    try:
                        self._table.getcolnp(name, buffers[name][:count], start, count)
                    except RuntimeError:
                        gaps = self._gaps(name, start, count)
                        if not gaps.any():
                            raise
                        empty[name] = gaps
                        self._fill(name, buffers[name], start, ~gaps)
        return {name: buffers[name][:count] for name in names}, empty

    def gaps(self, name: str) -> tuple[int, int]:
        """Return in how many rows a column has no value, and how many rows there are; slow."""
        nrow = self._table.nrows()
        return int(self._gaps(name, 0, nrow).sum()), nrow

    def _gaps(self, name: str, start: int, count: int) -> np.ndarray:
        """Return which rows have no value in a column, bool [row]; slow, for chunks that casacore could not read."""
        return np.array([not self._table.iscelldefined(name, row) for row in range(start, start + count)])

    def _fill(self, name: str, buffer: np.ndarray, start: int, there: np.ndarray) -> None:
        """Read the rows that are ``there``, run by run; the others become 0."""
        edges = np.flatnonzero(np.diff(there, prepend=False, append=False))
        buffer[: len(there)] = 0
        for first, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            self._table.getcolnp(name, buffer[first:stop], start + first, stop - first)

    @contextlib.contextmanager
    def _telling(self, name: str) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError) as error:
            if "conform" in str(error):  # casacore's word for cells that do not fit into one array
                raise MeasurementSetError(
                    f"{self.path}: {self._where}: cells of {name} are of several shapes; split the set anew (e.g. CASA "
                    "mstransform)"
                ) from error
            raise MeasurementSetError(
                f"{self.path}: reading {name} failed, a table file may be damaged or truncated: {first_line(error)}"
            ) from error
