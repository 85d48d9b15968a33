"""A measurement set behind the contract of datasets."""

from __future__ import annotations

import math
from dataclasses import replace

from vis2img.dataset.contract import Dataset, Outline
from vis2img.errors import MeasurementSetError
from vis2img.imaging.params import MIN_NPIX
from vis2img.machine import cores
from vis2img.ms.choice import field_labels
from vis2img.ms.metadata import Metadata, Partition, suggest_pixsize
from vis2img.ms.reading import PartReader, open_parts
from vis2img.ms.selection import Selection, choice_of, resolve
from vis2img.progress import Progress, no_progress
from vis2img.units import format_angle, format_freq
from vis2img.visibilities import SPEED_OF_LIGHT, Visibilities

_DEFAULT_MAX_NPIX = 2048  # of a suggested image; a whole primary beam at full resolution may need more
_WIDEST_FOV = 1.9  # rad; the SIN projection ends at 2


class MeasurementSet(Dataset):
    """A measurement set; see :class:`Dataset` for what it offers.

    Attributes
    ----------
    meta : Metadata
        Telescope, fields, spectral windows, correlations, times, columns, flags, uv range.
    """

    has_baselines = True

    def __init__(self, meta: Metadata) -> None:
        self.path, self.meta = meta.path, meta

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """The fields and spectral windows that have rows."""
        return self.meta.all_partitions

    def field_labels(self) -> dict[int, str]:
        """Return names where they say which field is meant, else numbers; see :meth:`Dataset.field_labels`."""
        return field_labels(self.meta)

    def outline(self, selection: Selection | None = None) -> Outline:
        """Return what the sub-tables tell; see :meth:`Dataset.outline`."""
        selection, meta = selection or Selection(), self.meta
        choice = choice_of(meta, selection)
        bands = resolve(meta, selection, choice)
        return Outline(
            telescope=meta.telescope,
            phase_centre=bands[0].field.phase_centre,
            pointing=bands[0].field.pointing,
            bands=[(band.chan_freq, band.chan_width) for band in bands],
            receiver=meta.band(bands[0].partition.spw),
            dish_diameter=meta.dish_diameter,
            field=bands[0].field.name,
            stored_frame=bands[0].field.stored,
            field_ids=tuple(sorted({band.partition.field for band in bands})),
            windows=len({band.partition.spw for band in bands}),
            nvis=sum(band.partition.nrow * len(band.chans) for band in bands),
            taken=choice.text,
        )

    def read_parts(
        self, selection: Selection | None = None, *, nthreads: int | None = None, progress: Progress = no_progress
    ) -> list[Visibilities]:
        """Read in one pass over the rows; see :meth:`Dataset.read_parts`."""
        readers = self.open_parts(selection or Selection())
        nrow, before = sum(reader.nrow for reader in readers), 0
        parts: list[Visibilities] = []

        def advance(stage: str, done: int, total: int, note: str = "") -> None:
            progress(stage, before + done, nrow)

        for reader in readers:
            parts += reader.read(nthreads=nthreads or cores(), progress=advance)
            before += reader.nrow

        troubles = [reader.trouble() for reader in readers]
        if all(troubles):  # some spectral windows may be flagged, not all
            raise MeasurementSetError(str(troubles[0]))
        return parts

    def open_parts(self, selection: Selection) -> list[PartReader]:
        """Open the spectral windows for reading in pieces."""
        return open_parts(self.meta, selection)

    def suggest_grid(
        self, selection: Selection, npix: tuple[int, int] | None, pixsize: float | None
    ) -> tuple[tuple[int, int], float]:
        """Suggest a third of a fringe per pixel, up to the primary beam; see :meth:`Dataset.suggest_grid`."""
        if pixsize is None:
            pixsize = min(self._finest(selection), _WIDEST_FOV / max(npix or (MIN_NPIX,)))
        if npix is None:
            fov = min(_WIDEST_FOV, self.meta.suggested_fov or 512 * pixsize)
            side = min(_DEFAULT_MAX_NPIX, max(64, math.ceil(fov / pixsize)))
            npix = (side + side % 2,) * 2
        if max(npix) * pixsize > 2 and self.meta.nonsense:  # beyond the SIN projection
            raise MeasurementSetError(
                f"{self.path}: {'; '.join(self.meta.nonsense)} (give --npix and --pixsize to image it all the same)"
            )
        return npix, pixsize

    def _finest(self, selection: Selection) -> float:
        """Return the pixel size for the longest baseline at the highest frequency of the spectral windows."""
        whole = replace(selection, channels=(None, None))
        highest = max(band.chan_freq[-1] for band in resolve(self.meta, whole))
        pixsize = suggest_pixsize(self.meta.uv_range_m[1] * highest / SPEED_OF_LIGHT)
        if pixsize is None:
            reason = "; ".join(self.meta.problems) or "no baseline has a length"
            raise MeasurementSetError(f"{self.path} cannot be imaged: {reason}")
        return pixsize

    def __repr__(self) -> str:
        m = self.meta
        lines = [f"MeasurementSet({str(m.path)!r}): {m.telescope}, {m.nrow:,} rows, {len(m.antennas)} antennas"]
        for p in m.partitions[:4]:
            spw = m.spws[p.spw]
            lines.append(
                f"  field {p.field} {m.fields[p.field].name!r}, spw {p.spw}: {len(spw.chan_freq)} channels "
                f"{format_freq(spw.chan_freq.min(), spw.chan_freq.max())}, "
                f"{','.join(p.corrs) or 'no correlation'}, {p.nrow:,} rows"
            )
        if len(m.partitions) > 4:
            lines.append(f"  ... {len(m.partitions)} fields and spectral windows in all")
        if m.suggested_pixsize:
            lines.append(
                f"  {m.ntimes} times, longest baseline {m.uv_max:,.0f} wavelengths, "
                f"pixel {format_angle(m.suggested_pixsize, 3)}, columns {', '.join(m.data_columns)}"
            )
        lines += [f"  problem: {text}" for text in m.problems]
        return "\n".join(lines)
