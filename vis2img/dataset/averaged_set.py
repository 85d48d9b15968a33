"""Averaged data behind the contract of datasets."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from vis2img.averaging.store import check_whole, origin_of, params_of, read_averaged, read_record
from vis2img.dataset.contract import Dataset, Outline
from vis2img.errors import ParameterError
from vis2img.ms.selection import Selection
from vis2img.progress import Progress, no_progress
from vis2img.units import format_angle, format_freq
from vis2img.visibilities import Visibilities


class AveragedSet(Dataset):
    """Averaged visibilities; see :class:`Dataset` for what they offer.

    Of a selection, ``times`` and ``channels`` count time blocks and channel blocks; the rest was chosen when averaging.

    Attributes
    ----------
    record : dict
        Source, selection, parameters and versions behind it.
    facet : AveragingParams
        The facet that it was averaged for.
    """

    has_baselines = False

    def __init__(self, path: Path) -> None:
        self.path, self.record = path, read_record(path)
        check_whole(path, self.record)
        self.facet, self.origin = params_of(self.record), origin_of(self.record)

    @property
    def stokes(self) -> str:
        """The Stokes parameter that was averaged."""
        return str(self.record["selection"]["stokes"])

    def outline(self, selection: Selection | None = None) -> Outline:
        """Return what the record of the averaging tells; see :meth:`Dataset.outline`."""
        freq, centre = np.array(self.record["chan_freq"]), self.facet.phase_centre
        of_chan = self.facet.channel_block(len(freq))
        bands = []
        for block in range(self.facet.channel_blocks)[slice(*(selection or Selection()).channels)]:
            own = freq[of_chan == block]
            bands.append((own.mean(keepdims=True), float(own[-1] - own[0]) + self.origin.chan_width))
        if not bands:
            raise ParameterError(f"{self.path} has {self.facet.channel_blocks} channel blocks; none is chosen")
        return Outline(
            telescope=self.origin.telescope,
            phase_centre=centre,
            pointing=self.origin.pointing or centre,
            bands=bands,
            receiver=self.origin.band or (float(freq[0]), float(freq[-1])),
            dish_diameter=self.origin.dish_diameter,
            field=self.origin.field,
            windows=len(self.origin.spw),
        )

    def read_parts(
        self, selection: Selection | None = None, *, nthreads: int | None = None, progress: Progress = no_progress
    ) -> list[Visibilities]:
        """Read whole time blocks; their origin is the store. See :meth:`Dataset.read_parts`."""
        chosen = selection or Selection(stokes=self.stokes)
        if replace(chosen, times=(None, None), channels=(None, None)) != Selection(stokes=self.stokes):
            raise ParameterError(
                f"{self.path} holds averaged data, whose field, column, antennas and Stokes parameter "
                f"({self.stokes}) were chosen by vis2img average; only times and channels (blocks) can be now"
            )
        parts = read_averaged(self.path, slice(*chosen.times), slice(*chosen.channels))
        paths, record = (str(self.path.resolve()),), json.dumps(asdict(chosen))
        return [replace(part, origin=replace(part.origin, paths=paths, selection=record)) for part in parts]

    def suggest_grid(
        self, selection: Selection, npix: tuple[int, int] | None, pixsize: float | None
    ) -> tuple[tuple[int, int], float]:
        """Suggest the facet that was averaged; see :meth:`Dataset.suggest_grid`."""
        pixsize = self.facet.pixsize if pixsize is None else pixsize
        if npix is None:
            x, y = (2 * math.floor(n * self.facet.pixsize / pixsize / 2 + 1e-9) for n in self.facet.npix)
            npix = (x, y)
        return npix, pixsize

    def __repr__(self) -> str:
        source, facet, meta = self.record["source"], self.facet, self.record["meta"]
        freq = self.record["chan_freq"]
        size = " x ".join(map(str, facet.npix))
        return "\n".join(
            [
                f"AveragedSet({str(self.path)!r}): {meta['telescope']} field {meta['field']!r}, Stokes {self.stokes}",
                f"  from {source['path']} ({source['nrow']:,} rows), {meta['column']}, {self.record['date']}",
                f"  facet of {size} pixels of {format_angle(facet.pixsize, 4)}, "
                f"expected error {100 * facet.expected_error():.2g}%",
                f"  {len(self.record['edges']) - 1} time blocks, {facet.channel_blocks} channel blocks, "
                f"{format_freq(freq[0], freq[-1])}",
            ]
        )
