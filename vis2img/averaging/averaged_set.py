"""Averaged data opened like a measurement set: the same calls read and image them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from vis2img.averaging.store import params_of, read_averaged, read_record
from vis2img.errors import ParameterError
from vis2img.imaging.image import Image, make_image
from vis2img.imaging.params import ImagingParams
from vis2img.machine import cores
from vis2img.ms.selection import Selection
from vis2img.units import format_angle
from vis2img.visibilities import Visibilities


class AveragedSet:
    """Averaged visibilities opened read-only; made by :func:`vis2img.dataset.open_ms`.

    Attributes
    ----------
    path : Path
        The folder that ``vis2img average`` wrote.
    record : dict
        Source, selection, parameters and versions behind it.
    facet : AveragingParams
        The facet that it was averaged for.
    """

    is_averaged = True

    def __init__(self, path: Path) -> None:
        self.path, self.record = path, read_record(path)
        self.facet = params_of(self.record)

    def read_parts(self, selection: Selection | None = None, **_: Any) -> list[Visibilities]:
        """Return the visibilities, one for each channel block.

        Parameters
        ----------
        selection : Selection, optional
            ``times`` and ``channels`` count time blocks and channel blocks; the rest was chosen when averaging.

        Raises
        ------
        OutputError
            If the store is not whole.
        ParameterError
            If the selection asks for something else, or for blocks that are not there.
        """
        chosen = selection or Selection()
        if replace(chosen, times=(None, None), channels=(None, None)) != Selection(stokes=self.stokes):
            raise ParameterError(
                f"{self.path} holds averaged data, whose field, column, antennas and Stokes parameter "
                f"({self.stokes}) were chosen by vis2img average; only times and channels (blocks) can be now"
            )
        return read_averaged(self.path, slice(*chosen.times), slice(*chosen.channels))

    def read(self, selection: Selection | None = None, **_: Any) -> Visibilities:
        """Return the visibilities of one channel block.

        Raises
        ------
        ParameterError
            If there are several; see :meth:`read_parts`.
        """
        parts = self.read_parts(selection)
        if len(parts) > 1:
            raise ParameterError(f"{self.path} has {len(parts)} channel blocks; choose one with channels, or read all")
        return parts[0]

    @property
    def stokes(self) -> str:
        """The Stokes parameter that was averaged."""
        return str(self.record["selection"]["stokes"])

    def imaging_params(self, selection: Selection | None = None, **changes: Any) -> ImagingParams:
        """Return parameters for the facet that the data were averaged for.

        Parameters
        ----------
        selection : Selection, optional
            Not used; as :meth:`vis2img.dataset.MeasurementSet.imaging_params` has it.
        **changes
            Any field of :class:`ImagingParams`; ``npix`` may be one number.
        """
        given = {name: value for name, value in changes.items() if value is not None}
        if isinstance(given.get("npix"), int):
            given["npix"] = (given["npix"], given["npix"])
        pixsize = given.pop("pixsize", self.facet.pixsize)
        fitting = (2 * math.floor(n * self.facet.pixsize / pixsize / 2 + 1e-9) for n in self.facet.npix)
        npix = given.pop("npix", None) or tuple(fitting)
        return ImagingParams(npix=npix, pixsize=pixsize, **given)

    def image(
        self,
        params: ImagingParams | None = None,
        selection: Selection | None = None,
        *,
        psf: bool = False,
        nthreads: int | None = None,
        **_: Any,
    ) -> Image:
        """Make a dirty image; see :meth:`vis2img.dataset.MeasurementSet.image`."""
        parts = self.read_parts(selection)
        return make_image(parts, params or self.imaging_params(), psf=psf, nthreads=nthreads or cores(), reuse=True)

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
                f"{freq[0] / 1e6:.6g} to {freq[-1] / 1e6:.6g} MHz",
            ]
        )
